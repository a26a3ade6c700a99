//! Destroyed keys at a node and at a replica.

use sonae_proto::ids::Tier;
use sonae_proto::manifest::KeyUse;
use sonae_proto::object::RecordKind;
use sonae_proto::uplink::{Alarm, Effect, KeysOutcome};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{Frame, KeyDocuments, RefusalCode};

use crate::board::{Board, EPOCH, school};
use crate::desk::Desk;
use crate::receipts::{effects, up, welcome};

fn has_daily(keys: &KeyDocuments) -> bool {
    keys.wrapped_keys.iter().any(|key| key.key_use == KeyUse::Tier(Tier::Daily) && key.epoch == EPOCH)
}

/// Goal: from the moment a node knows the order, the wrapped key is neither stored, told nor served, also if somebody
/// brings it again; batches under the older manifest stay valid. Method: the order, a greeting, the old documents.
#[test]
fn a_node_drops_wrapped_keys_of_a_destroyed_epoch() {
    let (mut desk, life) = Desk::ready();
    let order = desk.board.destroying(0, Tier::Daily);
    assert!(has_daily(&order));
    desk.bring(&order).unwrap();
    let stored: Vec<KeyDocuments> = std::mem::take(&mut desk.stores)
        .into_iter()
        .filter(|(_, kind, _)| *kind == RecordKind::Keys)
        .map(|(_, _, body)| serde_json::from_slice(&body).unwrap())
        .collect();
    assert_eq!(stored.len(), 1);
    assert!(!has_daily(&stored[0]) && stored[0].wrapped_keys.len() == 3);
    let told = |desk: &mut Desk| -> Vec<KeyDocuments> {
        let keys = |(_, frame)| if let Frame::Keys(keys) = frame { Some(*keys) } else { None };
        std::mem::take(&mut desk.told).into_iter().filter_map(keys).collect()
    };
    let first = told(&mut desk);
    assert!(!first.is_empty() && first.iter().all(|keys| !has_daily(keys)));

    desk.keys(1, &desk.board.documents());
    let again: Vec<_> = std::mem::take(&mut desk.stores);
    assert!(again.iter().all(|(_, kind, body)| {
        *kind != RecordKind::Keys || !has_daily(&serde_json::from_slice(body).unwrap())
    }));
    desk.greet(2, &life, 0);
    let second = told(&mut desk);
    assert!(second.iter().all(|keys| !has_daily(keys)));
    let batch = desk.board.chain(&life, Tier::Safety, 1).remove(0);
    let to = desk.offer(1, &batch);
    assert_eq!(desk.refusal(to), None, "the manifest of version 1 names its key");
}

/// Goal: what a site held on too few sites is stored again without the key. Method: the old documents, then the order.
#[test]
fn old_documents_are_not_healed_back() {
    let mut desk = Desk::new();
    let old = desk.board.documents();
    assert!(desk.intake.load_keys(&old));
    desk.intake.load_undurable(school(), RecordKind::Keys, serde_json::to_vec(&old).unwrap());
    assert!(desk.intake.load_keys(&desk.board.destroying(0, Tier::Daily)));
    let life = desk.board.enrol(school(), 10);
    desk.greet(1, &life, 0);
    let bodies = desk.stores.iter().filter(|(_, kind, _)| *kind == RecordKind::Keys);
    let bodies: Vec<KeyDocuments> =
        bodies.map(|(_, _, body)| serde_json::from_slice(body).unwrap()).collect();
    assert_eq!(bodies.len(), 1);
    assert!(bodies.iter().all(|keys| !has_daily(keys)));
}

/// Goal: an order that comes while the documents of before are on their way to the sites neither has them stored once more
/// nor leaves the school without receipts. Method: their write ends on too few sites, and on enough, after the order.
#[test]
fn documents_on_their_way_meet_the_order() {
    for sites in [1, 2] {
        let mut desk = Desk::new();
        let old = desk.board.documents();
        assert!(desk.intake.load_keys(&old));
        desk.intake.load_undurable(school(), RecordKind::Keys, serde_json::to_vec(&old).unwrap());
        let life = desk.board.enrol(school(), 10);
        desk.greet(1, &life, 0);
        let place = |(_, kind, body): &(_, RecordKind, Vec<u8>)| {
            *kind == RecordKind::Keys && has_daily(&serde_json::from_slice(body).unwrap())
        };
        let place = desk.stores.iter().position(place).unwrap();
        desk.bring(&desk.board.destroying(0, Tier::Daily)).unwrap();
        desk.stores.swap(0, place);
        desk.store_next(sites);
        for _ in 0..3 {
            desk.greet(2, &life, 0);
            let keys = desk.stores.iter().filter(|(_, kind, _)| *kind == RecordKind::Keys);
            let bodies: Vec<KeyDocuments> =
                keys.map(|(_, _, body)| serde_json::from_slice(body).unwrap()).collect();
            assert!(bodies.iter().all(|keys| !has_daily(keys)), "{sites}");
            desk.store_all(2);
        }
        let batch = desk.board.chain(&life, Tier::Safety, 1).remove(0);
        let to = desk.offer(2, &batch);
        desk.store_all(2);
        assert!(desk.receipt(to).is_some(), "{sites}: {:?}", desk.replies.get(&to));
    }
}

/// Goal: the destruction of a key is not taken back. Method: a later manifest without it, at a node and at a replica,
/// which drops the wrapped key itself.
#[test]
fn a_destruction_is_not_taken_back() {
    let (mut desk, _) = Desk::ready();
    desk.bring(&desk.board.destroying(0, Tier::Daily)).unwrap();
    let forgetful = desk.board.revoking(1, &[]);
    assert!(desk.bring(&forgetful).unwrap_err().contains("destruction"));
    assert_eq!(desk.taken_back, [3]);

    let board = Board::new(1);
    let (mut replica, _) = up(&board, 0, welcome(Heads::new()));
    let outcome = replica.engine.handle_keys(&board.destroying(0, Tier::Daily));
    assert_eq!(outcome, KeysOutcome::Newer);
    let kept: Vec<_> = effects(&mut replica);
    let keys =
        kept.iter().find_map(|effect| if let Effect::KeepKeys(keys) = effect { Some(keys) } else { None });
    assert!(keys.is_some_and(|keys| !has_daily(keys)));
    let outcome = replica.engine.handle_keys(&board.revoking(1, &[]));
    assert!(matches!(outcome, KeysOutcome::Refused(_)));
    assert_eq!(effects(&mut replica), [Effect::Alarm(Alarm::RevocationTakenBack { version: 3 })]);
}

/// Goal: a batch under a destroyed key that a node does not have gets no receipt, since nobody could open it; one that it
/// has gets its receipt again, and the log goes on. Method: one batch before the order and two after it.
#[test]
fn what_nobody_can_open_is_not_called_safe() {
    let (mut desk, life) = Desk::ready();
    let chain = desk.board.chain(&life, Tier::Daily, 2);
    desk.offer(1, &chain[0]);
    desk.store_all(2);
    desk.bring(&desk.board.destroying(0, Tier::Daily)).unwrap();
    desk.store_all(2);
    let late = desk.offer(1, &chain[1]);
    assert_eq!(desk.refusal(late), Some(RefusalCode::Recipients));
    let again = desk.offer(1, &chain[0]);
    assert!(matches!(desk.replies.get(&again), Some(Frame::Receipt(_))), "{:?}", desk.replies.get(&again));
}

/// Goal: a box that learns of the order while it has batches under that key without a receipt does not send them: it goes
/// on under a new incarnation, which seals to a key that stands. Method: such a batch, the order by the line and at a
/// start; and a tier whose key stands.
#[test]
fn unsent_batches_under_a_destroyed_key_are_written_again() {
    let board = Board::new(1);
    for (tier, renews) in [(Tier::Safety, true), (Tier::Daily, false)] {
        // The batch is of tier 0 and has no receipt.
        let (mut replica, _) = up(&board, 1, welcome(Heads::new()));
        effects(&mut replica);
        replica.engine.handle_keys(&board.destroying(0, tier));
        let asked = effects(&mut replica);
        assert_eq!(
            (asked.contains(&Effect::Renew), replica.engine.is_renewing()),
            (renews, renews),
            "{asked:?}"
        );
    }
}
