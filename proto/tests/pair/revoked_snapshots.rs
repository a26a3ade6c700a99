//! Snapshots that a revoked device has a part in.

use sonae_proto::ids::Tier;
use sonae_proto::snapshot::{Snapshot, SnapshotRoot};
use sonae_proto::vector::Heads;
use sonae_proto::wire::RefusalCode;

use crate::board::school;
use crate::desk::Desk;
use crate::snapshots::{part, scene};

/// Goal: no snapshot by a revoked device is offered or taken, nor one that holds more of it than counts. Method: one that
/// is whole, then the board revokes its author, accepting all of it; one by another that names a later head.
#[test]
fn snapshots_of_a_revoked_device_do_not_count() {
    let (mut desk, life, made, sealed) = scene();
    let other = desk.board.enrol(school(), 20);
    desk.greet(2, &other, 0);
    desk.store_all(2);
    desk.offer_snapshot(1, made.text());
    for number in 0..3 {
        desk.send_part(1, part(&made, &sealed, number));
        desk.store_next(2);
    }
    desk.offer_snapshot(1, made.text());
    desk.store_next(2);
    let offered = |desk: &mut Desk| desk.greet(3, &other, 0).snapshots.unwrap().len();
    assert_eq!(offered(&mut desk), 1);
    let head = made.root().heads[&life.log(Tier::Safety)];
    desk.bring(&desk.board.revoking(0, &[life.revoked(&[head])])).unwrap();
    desk.store_all(2);
    assert_eq!(offered(&mut desk), 0);
    let to = desk.offer_snapshot(2, made.text());
    assert_eq!(desk.refusal(to), Some(RefusalCode::Identity), "found by simulation seed 1797400139");
    let later = desk.board.chain(&life, Tier::Safety, 2)[1].header().head();
    let heads = Heads::from([(life.log(Tier::Safety), later)]);
    let root = SnapshotRoot { author: other.name, heads, ..made.root().clone() };
    let to = desk.offer_snapshot(2, Snapshot::sign(root, &other.key).unwrap().text());
    assert_eq!(desk.refusal(to), Some(RefusalCode::Chain));
}
