//! Sets of wrapped keys that are not those of their manifest: parts, padding, keys that nobody can open.

use sonae_proto::object::RecordKind;
use sonae_proto::uplink::{Effect, KeysOutcome};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{Frame, KeyDocuments, RefusalCode};

use crate::board::Board;
use crate::desk::Desk;
use crate::receipts::{effects, up, welcome};

/// The same manifest with none of its keys, with all but one, with one of them twice, and with all of them twice.
fn not_whole(whole: &KeyDocuments) -> Vec<KeyDocuments> {
    let with = |wrapped_keys| KeyDocuments { wrapped_keys, ..whole.clone() };
    let keys = &whole.wrapped_keys;
    vec![
        with(Vec::new()),
        with(keys[1..].to_vec()),
        with([&keys[..1], keys].concat()),
        with([keys.as_slice(), keys].concat()),
    ]
}

/// Another set of the same manifest whose keys nobody can open.
fn garbage(whole: &KeyDocuments) -> KeyDocuments {
    let mut garbage = whole.clone();
    garbage.wrapped_keys.iter_mut().for_each(|key| key.file = b"nobody can open this".to_vec());
    garbage
}

fn told(desk: &mut Desk) -> Vec<KeyDocuments> {
    let keys = |(_, frame)| if let Frame::Keys(keys) = frame { Some(*keys) } else { None };
    std::mem::take(&mut desk.told).into_iter().filter_map(keys).collect()
}

fn stored(desk: &mut Desk) -> Vec<KeyDocuments> {
    let stores = std::mem::take(&mut desk.stores).into_iter();
    let bodies = stores.filter(|(_, kind, _)| *kind == RecordKind::Keys).map(|(_, _, body)| body);
    bodies.map(|body| serde_json::from_slice(&body).unwrap()).collect()
}

/// Goal: a replica refuses a set that is not whole before it counts the version as held, and takes the whole one of that
/// version afterwards. Method: each wrong set, then the right one, then a wrong one again.
#[test]
fn a_whole_set_is_taken_after_others() {
    let board = Board::new(1);
    let whole = board.reissued();
    for wrong in not_whole(&whole) {
        let (mut replica, _) = up(&board, 0, welcome(Heads::new()));
        effects(&mut replica);
        assert!(!replica.engine.wants_keys(&wrong));
        let outcome = replica.engine.handle_keys(&wrong);
        assert!(matches!(&outcome, KeysOutcome::Refused(text) if text.contains("manifest 2")), "{outcome:?}");
        assert_eq!((effects(&mut replica), replica.engine.manifest_version()), (vec![], 1));

        assert!(replica.engine.wants_keys(&whole));
        assert_eq!(replica.engine.handle_keys(&whole), KeysOutcome::Newer);
        assert!(effects(&mut replica).contains(&Effect::KeepKeys(Box::new(whole.clone()))));
        assert_eq!(replica.engine.handle_keys(&wrong), KeysOutcome::Known);
        assert_eq!(effects(&mut replica), []);
    }
}

/// Goal: at a node nothing takes the place of a whole set of the same manifest. Method: parts, padded sets and garbage, by
/// a connection and by hand; what is stored, and what the next replica is told.
#[test]
fn a_padded_set_displaces_nothing() {
    let (mut desk, life) = Desk::ready();
    let whole = desk.board.reissued();
    desk.keys(1, &whole);
    assert!(stored(&mut desk) == [whole.clone()]);
    let mut wrong = not_whole(&whole);
    wrong.extend(not_whole(&garbage(&whole)));
    for (number, set) in wrong.iter().chain([&garbage(&whole)]).enumerate() {
        desk.keys(1, set);
        let is_padded = set.wrapped_keys.len() > whole.wrapped_keys.len();
        let refused = desk.refused.pop();
        assert_eq!(refused, is_padded.then_some(RefusalCode::Manifest), "{number}");
        let is_whole = set.wrapped_keys.len() == whole.wrapped_keys.len();
        assert_eq!(desk.bring(set).is_ok(), is_whole, "{number}");
        assert!(stored(&mut desk).is_empty(), "{number}");
        told(&mut desk);
        desk.greet(2, &life, 0);
        assert!(told(&mut desk) == [whole.clone()], "{number}");
    }
}

/// Goal: a set that lacks keys hides nothing at a node: nobody is told of it, those who hold the keys are asked for them, and
/// the whole set goes to those who wait. Method: the manifest without keys, a greeting, the whole set.
#[test]
fn a_node_asks_for_keys_that_are_missing() {
    let (mut desk, life) = Desk::ready();
    let whole = desk.board.reissued();
    let empty = KeyDocuments { wrapped_keys: Vec::new(), ..whole.clone() };
    desk.keys(1, &empty);
    desk.store_all(2);
    assert_eq!(desk.intake.overview()[0].manifest_version, 2, "batches under it are taken");
    assert_eq!(desk.greet(2, &life, 0).manifest_version, 1, "a replica that holds version 2 sends it");
    assert!(told(&mut desk).is_empty());
    desk.keys(1, &whole);
    assert!(told(&mut desk) == [whole.clone()], "connection 2 held the older one");
    assert!(stored(&mut desk) == [whole]);
    assert_eq!(desk.greet(3, &life, 0).manifest_version, 2);
}
