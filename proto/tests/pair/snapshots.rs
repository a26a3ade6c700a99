//! Snapshots between the engines: offered, taken part by part, receipted whole, served; anything else is refused.

use sonae_proto::digest::{Digest, MERGE_VERSION};
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::intake::{ConnectionId, Location};
use sonae_proto::object::RecordKind;
use sonae_proto::seal::seal_lines;
use sonae_proto::snapshot::{PartName, Snapshot, SnapshotRoot};
use sonae_proto::uplink::{Effect, SnapshotReply};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{
    FetchSnapshot, Frame, Refusal, RefusalCode, SnapshotName, SnapshotOffer, SnapshotPart, SnapshotWants,
    Welcome,
};

use crate::board::{Board, EPOCH, Life, school, site};
use crate::desk::Desk;
use crate::receipts::{effects, up, welcome};
use crate::replica::Replica;

/// A snapshot of a log that ends at `head`, with its parts. What is in them only replicas see.
pub fn snapshot(
    board: &Board,
    life: &Life,
    tier: Tier,
    head: LogHead,
    parts: usize,
) -> (Snapshot, Vec<Vec<u8>>) {
    let sealed: Vec<Vec<u8>> = (0..parts)
        .map(|number| {
            seal_lines(format!("{{\"n\":{number}}}\n").as_bytes(), 3, &board.open.recipient()).unwrap()
        })
        .collect();
    let root = SnapshotRoot {
        school: school(),
        tier,
        author: life.name,
        epoch: EPOCH,
        manifest: board.manifest.hash(),
        merge_version: MERGE_VERSION,
        heads: Heads::from([(life.log(tier), head)]),
        digest: Digest::default(),
        records: parts as u64,
        parts: sealed.iter().map(|part| PartName::of(part)).collect(),
    };
    (Snapshot::sign(root, &life.key).unwrap(), sealed)
}

pub fn part(snapshot: &Snapshot, sealed: &[Vec<u8>], number: usize) -> SnapshotPart {
    let place = u32::try_from(number).unwrap();
    SnapshotPart { root: snapshot.hash(), number: place, sealed: sealed[number].clone() }
}

/// A node that holds one batch of tier 0, and a snapshot of it in three parts.
pub fn scene() -> (Desk, Life, Snapshot, Vec<Vec<u8>>) {
    let (mut desk, life) = Desk::ready();
    let chain = desk.board.chain(&life, Tier::Safety, 1);
    desk.offer(1, &chain[0]);
    desk.store_all(2);
    let (made, sealed) = snapshot(&desk.board, &life, Tier::Safety, chain[0].header().head(), 3);
    (desk, life, made, sealed)
}

fn wants(frame: &Frame) -> Vec<u32> {
    match frame {
        Frame::SnapshotWants(wants) => wants.parts.clone(),
        other => panic!("{other:?}"),
    }
}

/// Goal: a snapshot gets its receipt, and is offered, only when root and parts are on the quorum. Method: offer, send
/// parts while a site is missing, then again, then the root the same way; look at the welcome after each step.
#[test]
fn a_snapshot_is_safe_only_whole_and_on_the_quorum() {
    let (mut desk, life, made, sealed) = scene();
    let offered = |desk: &mut Desk| desk.greet(2, &life, 0).snapshots.unwrap();
    let to = desk.offer_snapshot(1, made.text());
    assert_eq!(wants(&desk.replies[&to]), [0, 1, 2]);
    let first = desk.send_part(1, part(&made, &sealed, 0));
    assert!(!desk.replies.contains_key(&first), "nothing is said before the write ends");
    desk.store_next(1);
    assert_eq!(desk.refusal(first), Some(RefusalCode::Storage));
    for number in 0..3 {
        let to = desk.send_part(1, part(&made, &sealed, number));
        desk.store_next(2);
        assert_eq!(wants(&desk.replies[&to]).len(), 2 - number);
        assert!(offered(&mut desk).is_empty());
    }
    let to = desk.offer_snapshot(1, made.text());
    desk.store_next(1);
    assert_eq!(desk.refusal(to), Some(RefusalCode::Storage));
    assert!(offered(&mut desk).is_empty());
    let to = desk.offer_snapshot(1, made.text());
    desk.store_next(2);
    let receipt = desk.receipt(to).unwrap();
    assert_eq!(receipt.log, life.log(Tier::Safety));
    assert_eq!(receipt.head, LogHead { sequence: 0, hash: made.hash() });
    let bytes = made.root().bytes();
    let offer = SnapshotOffer { tier: Tier::Safety, root: made.hash(), bytes, changes: 2 };
    assert_eq!(offered(&mut desk), [offer]);
    let again = desk.offer_snapshot(1, made.text());
    assert!(desk.receipt(again).is_some(), "offered again, it is known");
}

/// Goal: a node takes no snapshot of what it does not hold durably, of strangers, or under an unknown key, and no part
/// that its root does not name. Method: one wrong thing at a time.
#[test]
fn a_node_takes_only_what_it_can_answer_for() {
    let (mut desk, life, made, sealed) = scene();
    let (board, root) = (Board::new(1), made.root().clone());
    let chain = board.chain(&life, Tier::Safety, 2);
    let log = life.log(Tier::Safety);
    let sign = |root, key| Snapshot::sign(root, key).unwrap().text().to_owned();
    let ahead = Heads::from([(log, chain[1].header().head())]);
    let elsewhere = Heads::from([(log, LogHead { sequence: 2, hash: Hash32([8; 32]) })]);
    let stranger = board.enrol(school(), 99);
    let cases = [
        (sign(SnapshotRoot { heads: ahead, ..root.clone() }, &life.key), RefusalCode::Chain),
        (sign(SnapshotRoot { heads: elsewhere, ..root.clone() }, &life.key), RefusalCode::Chain),
        (sign(SnapshotRoot { author: stranger.name, ..root.clone() }, &stranger.key), RefusalCode::Signature),
        (sign(root.clone(), &stranger.key), RefusalCode::Signature),
        (sign(SnapshotRoot { epoch: 1999, ..root.clone() }, &life.key), RefusalCode::Manifest),
        ("{}\n".to_owned(), RefusalCode::Signature),
    ];
    for (text, code) in cases {
        let to = desk.offer_snapshot(1, &text);
        assert_eq!(desk.refusal(to), Some(code), "{text}");
    }
    let to = desk.send_part(1, part(&made, &sealed, 0));
    assert_eq!(desk.refusal(to), Some(RefusalCode::Unexpected), "before its root");
    desk.offer_snapshot(1, made.text());
    let swapped = SnapshotPart { sealed: sealed[1].clone(), ..part(&made, &sealed, 0) };
    let to = desk.send_part(1, swapped);
    assert_eq!(desk.refusal(to), Some(RefusalCode::Signature));
    let to = desk.send_part(1, SnapshotPart { number: 3, ..part(&made, &sealed, 0) });
    assert_eq!(desk.refusal(to), Some(RefusalCode::Unexpected));
    assert!(desk.stores.is_empty(), "nothing of it is stored");
}

/// Goal: a node that starts again offers and serves what its sites hold whole, and asks for what they lack. Method:
/// load root and parts with one part below the quorum, then with all.
#[test]
fn a_snapshot_survives_a_restart_of_the_node() {
    for whole in [false, true] {
        let (mut desk, life, made, _) = scene();
        let located = |number: usize| Location { object: format!("p{number}"), offset: 9, bytes: 1 };
        for (number, part) in made.root().parts.iter().enumerate() {
            let sites = if whole || number > 0 { vec![site(0), site(1)] } else { vec![site(0)] };
            desk.intake.load_snapshot_part(school(), part.hash, located(number), sites);
        }
        assert!(desk.intake.load_snapshot(school(), made.text(), vec![site(0), site(1)]));
        assert_eq!(desk.greet(2, &life, 0).snapshots.unwrap().len(), usize::from(whole));
        let served =
            desk.fetch_snapshot(2, &FetchSnapshot { name: SnapshotName::Root(made.hash()), has: vec![1] });
        let expected: Vec<u32> = if whole { vec![0, 2] } else { Vec::new() };
        assert_eq!(served, (whole.then(|| made.text().to_owned()), expected));
        if !whole {
            let to = desk.offer_snapshot(1, made.text());
            assert_eq!(wants(&desk.replies[&to]), [0]);
        }
    }
}

/// Goal: what many snapshots leave behind is bounded, and the newest is offered. Method: more whole ones than are
/// remembered, of a growing log.
#[test]
fn old_snapshots_are_forgotten() {
    let (mut desk, life) = Desk::ready();
    let chain = desk.board.chain(&life, Tier::Safety, 8);
    let mut newest = None;
    for batch in &chain {
        desk.offer(1, batch);
        desk.store_all(2);
        let (made, sealed) = snapshot(&desk.board, &life, Tier::Safety, batch.header().head(), 2);
        desk.offer_snapshot(1, made.text());
        for number in 0..2 {
            desk.send_part(1, part(&made, &sealed, number));
            desk.store_all(2);
        }
        let to = desk.offer_snapshot(1, made.text());
        desk.store_all(2);
        assert!(desk.receipt(to).is_some());
        newest = Some(made.hash());
    }
    let offers = desk.greet(2, &life, 0).snapshots.unwrap();
    assert_eq!(offers.iter().map(|offer| offer.root).collect::<Vec<_>>(), [newest.unwrap()]);
    let kinds = |desk: &Desk, kind: RecordKind| desk.stored.iter().filter(|known| **known == kind).count();
    assert_eq!((kinds(&desk, RecordKind::Snapshot), kinds(&desk, RecordKind::SnapshotPart)), (8, 16));
    assert!(format!("{:?}", desk.intake).matches("SnapshotRoot {").count() <= 2, "all are remembered");
}

/// Goal: each box of a school can see its own newest snapshot come back, however many equally new ones the others have
/// made; how many are remembered is bounded. Method: boxes that make snapshots of one state in turn, three rounds; each
/// fetches its own. Then more boxes than are remembered.
#[test]
fn each_box_gets_its_own_newest_back() {
    for (boxes, are_all_kept) in [(6, true), (12, false)] {
        let (mut desk, life, made, sealed) = scene();
        let writers: Vec<Life> = (0..boxes).map(|number| desk.board.enrol(school(), 40 + number)).collect();
        let mut newest = Vec::new();
        for round in 1..=3 {
            newest.clear();
            for (writer, connection) in writers.iter().zip(10..) {
                desk.greet(connection, writer, 0);
                let root = SnapshotRoot { author: writer.name, records: round, ..made.root().clone() };
                let own = Snapshot::sign(root, &writer.key).unwrap();
                desk.offer_snapshot(connection, own.text());
                for number in 0..3 {
                    desk.send_part(connection, part(&own, &sealed, number));
                    desk.store_all(2);
                }
                let to = desk.offer_snapshot(connection, own.text());
                desk.store_all(2);
                assert!(desk.receipt(to).is_some());
                newest.push(own.hash());
            }
        }
        let name = |hash: &Hash32| FetchSnapshot { name: SnapshotName::Root(*hash), has: Vec::new() };
        let there = newest.iter().filter(|hash| desk.fetch_snapshot(1, &name(hash)).0.is_some()).count();
        assert_eq!(there == newest.len(), are_all_kept, "{there} of {boxes}");
        assert!(format!("{:?}", desk.intake).matches("SnapshotRoot {").count() <= 10, "all are remembered");
        drop(life);
    }
}

/// A replica with one receipted batch and a snapshot of it that was made here.
fn maker(snapshots: Option<Vec<SnapshotOffer>>) -> (Board, Replica, Snapshot) {
    let board = Board::new(1);
    let answer = Welcome { snapshots, ..welcome(Heads::new()) };
    let (mut replica, chain) = up(&board, 1, answer);
    effects(&mut replica);
    let (made, _) = snapshot(&board, &replica.life.clone(), Tier::Safety, chain[0].header().head(), 2);
    replica.engine.handle_snapshot_made(made.clone());
    (board, replica, made)
}

fn receipt(board: &Board, replica: &Replica, head: LogHead) -> Vec<u8> {
    let log = replica.life.log(Tier::Safety);
    let sites = vec![site(0), site(1)];
    sonae_proto::receipt::Receipt { school: school(), log, head, loss_counter: 0, issued_ms: 9, sites }
        .sign(&board.receipt_key)
}

/// Goal: a snapshot is offered when all that it names is safe, its parts go one at a time, and only the right receipt
/// ends it. Method: each step of the offer; wrong receipts in between.
#[test]
fn a_snapshot_is_offered_until_it_is_safe() {
    let (board, mut replica, made) = maker(Some(Vec::new()));
    assert_eq!(effects(&mut replica), [], "its log is not safe yet");
    let (log, head) = made.root().heads.first_key_value().map(|(log, head)| (*log, *head)).unwrap();
    let reply = sonae_proto::uplink::BatchReply::Receipt(receipt(&board, &replica, head));
    replica.engine.handle_batch_reply(log, reply, 9);
    let offer = Effect::SendSnapshot(Box::new(made.clone()));
    let done = effects(&mut replica);
    assert!(matches!(done.as_slice(), [Effect::KeepReceipt { .. }, last] if *last == offer), "{done:?}");
    let root = made.hash();
    let wants = |parts: &[u32]| SnapshotReply::Wants(SnapshotWants { root, parts: parts.to_vec() });
    for (reply, expected) in [
        (wants(&[0, 1]), Effect::SendSnapshotPart { root, number: 0 }),
        (wants(&[1, 77]), Effect::SendSnapshotPart { root, number: 1 }),
        (wants(&[]), offer.clone()),
    ] {
        replica.engine.handle_snapshot_reply(root, reply, 10);
        assert_eq!(effects(&mut replica), [expected]);
    }
    let right = receipt(&board, &replica, LogHead { sequence: 0, hash: root });
    replica.engine.handle_snapshot_reply(root, SnapshotReply::Receipt(right), 12);
    assert_eq!(effects(&mut replica), [Effect::SnapshotSafe { tier: Tier::Safety, root }]);
}

/// Goal: a cloud that answers without end or without sense is not sent the same for ever. Method: a receipt for
/// something else; in another run an empty list of wants, again and again.
#[test]
fn an_offer_without_an_end_rests() {
    for with_receipt in [true, false] {
        let (board, mut replica, made) = maker(Some(Vec::new()));
        let (log, head) = made.root().heads.first_key_value().map(|(log, head)| (*log, *head)).unwrap();
        let reply = sonae_proto::uplink::BatchReply::Receipt(receipt(&board, &replica, head));
        replica.engine.handle_batch_reply(log, reply, 9);
        assert_eq!(effects(&mut replica).len(), 2);
        let root = made.hash();
        let wrong = receipt(&board, &replica, LogHead { sequence: 0, hash: Hash32([1; 32]) });
        let mut offers = 0;
        loop {
            let wants = SnapshotReply::Wants(SnapshotWants { root, parts: Vec::new() });
            let reply = if with_receipt { SnapshotReply::Receipt(wrong.clone()) } else { wants };
            replica.engine.handle_snapshot_reply(root, reply, 10);
            if effects(&mut replica).is_empty() {
                break;
            }
            offers += 1;
        }
        assert!(offers <= if with_receipt { 0 } else { 9 }, "{offers} offers");
    }
}

/// Goal: a refusal that passes costs a snapshot one connection and not its life. Method: each code; a hello later it is
/// offered again, or not.
#[test]
fn a_refused_offer_may_come_again() {
    let passing = [RefusalCode::Chain, RefusalCode::Storage, RefusalCode::Manifest, RefusalCode::Unexpected];
    for code in passing.into_iter().chain([RefusalCode::Signature]) {
        let (board, mut replica, made) = maker(Some(Vec::new()));
        let (log, head) = made.root().heads.first_key_value().map(|(log, head)| (*log, *head)).unwrap();
        let reply = sonae_proto::uplink::BatchReply::Receipt(receipt(&board, &replica, head));
        replica.engine.handle_batch_reply(log, reply, 9);
        effects(&mut replica);
        let refusal = Refusal { code, text: "no".into(), heads: Heads::new() };
        replica.engine.handle_snapshot_reply(made.hash(), SnapshotReply::Refusal(refusal), 10);
        assert!(effects(&mut replica).iter().all(|effect| matches!(effect, Effect::Alarm(_))));
        replica.engine.handle_disconnected(11);
        replica.engine.handle_timeout(u64::MAX);
        replica.engine.handle_connected();
        let mut answer = welcome(Heads::from([(log, head)]));
        answer.snapshots = Some(Vec::new());
        replica.engine.handle_welcome(&answer, 12);
        let again = effects(&mut replica).contains(&Effect::SendSnapshot(Box::new(made.clone())));
        assert_eq!(again, passing.contains(&code), "{code:?}");
    }
}

/// Goal: a cloud of an earlier version is offered nothing. Method: a welcome without the list.
#[test]
fn an_older_cloud_is_offered_nothing() {
    let (board, mut replica, made) = maker(None);
    let (log, head) = made.root().heads.first_key_value().map(|(log, head)| (*log, *head)).unwrap();
    let reply = sonae_proto::uplink::BatchReply::Receipt(receipt(&board, &replica, head));
    replica.engine.handle_batch_reply(log, reply, 9);
    assert!(matches!(effects(&mut replica).as_slice(), [Effect::KeepReceipt { .. }]));
}

/// Goal: parts of an offer on a connection that is gone mean nothing. Method: a part after the line was lost.
#[test]
fn a_part_before_a_hello_closes_the_connection() {
    let (mut desk, _, made, sealed) = scene();
    desk.send_part(7, part(&made, &sealed, 0));
    assert_eq!(desk.closed, [ConnectionId(7)]);
}
