//! Identities, manifests, keys and strangers at a node.

use sonae_proto::batch::PREFIX_BYTES;
use sonae_proto::ids::Tier;
use sonae_proto::limits::BATCHES_IN_FLIGHT_MAX;
use sonae_proto::seal::{OpenKey, encrypt};
use sonae_proto::uplink::{Alarm, BatchReply, Effect};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Frame, Hello, KeyDocuments, Refusal, RefusalCode};
use sonae_proto::{batch::Batch, batch::Place};

use crate::board::{Board, EPOCH, school};
use crate::desk::Desk;
use crate::receipts::{effects, up, welcome};

fn code(frame: &Frame) -> RefusalCode {
    match frame {
        Frame::Refusal(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

/// Goal: a hello counts only with protocol, school and TLS key of one certified device. Method: change each.
#[test]
fn strangers_are_refused_and_closed() {
    let mut desk = Desk::new();
    let life = desk.board.enrol(school(), 10);
    let other = desk.board.enrol("B113200000022".parse().unwrap(), 11);
    let good = Desk::hello(&life, 0);
    let cases = [
        (Hello { protocol: 2, ..good.clone() }, life.tls_key, RefusalCode::Protocol),
        (good.clone(), other.tls_key, RefusalCode::Identity),
        (Hello { identity: other.identity.clone(), ..good.clone() }, life.tls_key, RefusalCode::Identity),
        (Hello { school: other.school, ..good.clone() }, life.tls_key, RefusalCode::Identity),
    ];
    for (hello, tls_key, expected) in cases {
        assert_eq!(code(&desk.say(1, &tls_key, &hello)), expected);
        assert_eq!(desk.closed.len(), 1);
        desk.closed.clear();
    }
    assert!(desk.stores.is_empty(), "nothing of a stranger is stored");
    let batch = &desk.board.chain(&life, Tier::Safety, 1)[0];
    let to = desk.offer(1, batch);
    assert_eq!(desk.refusal(to), Some(RefusalCode::Unexpected));
}

/// Goal: each way in which a batch can be wrong is refused with its code and not stored. Method: one of each.
#[test]
fn wrong_batches_are_refused_with_their_code() {
    let (mut desk, life) = Desk::ready();
    let good = desk.board.chain(&life, Tier::Safety, 1).remove(0);
    let mut flipped = good.bytes().to_vec();
    flipped[PREFIX_BYTES - 1] ^= 1;
    let mut cut = good.bytes().to_vec();
    cut.pop();
    let elsewhere = desk.board.enrol("B113200000022".parse().unwrap(), 11);
    let stranger = desk.board.enrol(school(), 12);
    let place = Place {
        school: school(),
        log: life.log(Tier::Safety),
        after: LogHead::EMPTY,
        last: 1,
        epoch: EPOCH,
        manifest: desk.board.manifest.hash(),
    };
    let (one, two) = (desk.board.open.recipient(), OpenKey::generate().recipient());
    let to_two = encrypt(b"x", [one.as_str(), two.as_str()]).unwrap();
    let signed = |place: &Place, payload: &[u8]| Batch::sign(place, payload, &life.key).unwrap();
    let strange_epoch = signed(&Place { epoch: 1999, ..place }, good.payload());
    let strange_manifest = signed(&Place { manifest: LogHead::EMPTY.hash, ..place }, good.payload());
    let cases = [
        (cut, RefusalCode::Malformed),
        (flipped, RefusalCode::Signature),
        (desk.board.chain(&elsewhere, Tier::Safety, 1)[0].bytes().to_vec(), RefusalCode::WrongSchool),
        (desk.board.chain(&stranger, Tier::Safety, 1)[0].bytes().to_vec(), RefusalCode::Identity),
        (signed(&place, &to_two).bytes().to_vec(), RefusalCode::Recipients),
        (strange_epoch.bytes().to_vec(), RefusalCode::Manifest),
        (strange_manifest.bytes().to_vec(), RefusalCode::Manifest),
    ];
    for (bytes, expected) in cases {
        let to = desk.offer_bytes(1, bytes);
        assert_eq!(desk.refusal(to), Some(expected));
        assert_eq!(desk.refused.pop(), Some(expected), "it is counted");
        assert!(desk.stores.is_empty());
    }
}

/// Goal: key documents count only from the board and for the connection's school. Method: another root, another
/// school, a wrapped key that the manifest does not name.
#[test]
fn wrong_key_documents_are_refused() {
    let (mut desk, _) = Desk::ready();
    let mut extra = desk.board.reissued();
    extra.wrapped_keys[0].epoch = 1999;
    let mut forged = desk.board.reissued();
    forged.manifest = forged.manifest.replacen("\"version\":2", "\"version\":3", 1);
    let mut moved = desk.board.reissued();
    moved.school = "B113200000022".parse().unwrap();
    let expected = [RefusalCode::Manifest, RefusalCode::Manifest, RefusalCode::WrongSchool];
    for (keys, code) in [extra, forged, moved].iter().zip(expected) {
        desk.keys(1, keys);
        assert_eq!(desk.refused.pop(), Some(code));
    }
    assert!(desk.stores.is_empty());
    desk.keys(1, &desk.board.reissued());
    assert_eq!(desk.stores.len(), 1);
}

/// Goal: a batch under an older manifest than the cloud's newest is accepted once the cloud knows that older one.
/// Method: the cloud learns version 2 first; the replica with version 1 sends its own with the first welcome.
#[test]
fn an_older_manifest_still_counts() {
    let mut desk = Desk::new();
    let (life, other) = (desk.board.enrol(school(), 10), desk.board.enrol(school(), 11));
    desk.greet(1, &other, 0);
    desk.keys(1, &desk.board.reissued());
    let answer = desk.greet(2, &life, 0);
    assert!(desk.told.iter().any(|(to, frame)| to.0 == 2 && matches!(frame, Frame::Keys(_))));
    let (mut replica, chain) = up(&desk.board, 1, answer.clone());
    assert!(effects(&mut replica).contains(&Effect::SendKeys));
    replica.engine.handle_disconnected(1);
    replica.engine.handle_connected();
    replica.engine.handle_welcome(&answer, 2);
    assert!(!effects(&mut replica).contains(&Effect::SendKeys), "said once already");
    desk.store_all(2);
    let to = desk.offer(2, &chain[0]);
    assert_eq!(desk.refusal(to), Some(RefusalCode::Manifest));
    desk.keys(2, &desk.board.documents());
    let to = desk.offer(2, &chain[0]);
    desk.store_all(2);
    assert!(desk.receipt(to).is_some());
}

/// Goal: a batch that overtakes its manifest waits for it at the node, and neither for ever nor without bound.
/// Method: batches before the right documents, before those of another school, and more than may be under way.
#[test]
fn a_batch_waits_for_its_manifest() {
    let fresh = || {
        let mut desk = Desk::new();
        let life = desk.board.enrol(school(), 10);
        desk.greet(1, &life, 0);
        let chain = desk.board.chain(&life, Tier::Safety, BATCHES_IN_FLIGHT_MAX + 1);
        (desk, chain)
    };
    let (mut desk, chain) = fresh();
    let streams: Vec<_> = chain.iter().map(|batch| desk.offer(1, batch)).collect();
    let (over, waiting) = streams.split_last().unwrap();
    assert_eq!(desk.refusal(*over), Some(RefusalCode::Manifest));
    assert!(waiting.iter().all(|to| !desk.replies.contains_key(to)));
    desk.keys(1, &desk.board.documents());
    desk.store_all(2);
    assert!(waiting.iter().all(|to| desk.receipt(*to).is_some()));

    let (mut desk, chain) = fresh();
    let to = desk.offer(1, &chain[0]);
    let strange = KeyDocuments { school: "B113200000022".parse().unwrap(), ..desk.board.documents() };
    desk.keys(1, &strange);
    assert_eq!(desk.refusal(to), Some(RefusalCode::Manifest));
    let to = desk.offer(1, &chain[0]);
    assert_eq!(desk.refusal(to), Some(RefusalCode::Manifest), "nobody knows what else will come");
}

/// Goal: a batch that overtakes its manifest on the line is not the end of its log. Method: a manifest refusal;
/// the keys and the batch are sent again, quietly the first time, aloud the second.
#[test]
fn a_batch_that_overtakes_its_manifest_is_sent_again() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 1, welcome(Heads::new()));
    let log = chain[0].header().log;
    effects(&mut replica);
    let refusal = Refusal { code: RefusalCode::Manifest, text: String::new(), heads: Heads::new() };
    for alarms in [0, 1] {
        replica.engine.handle_batch_reply(log, BatchReply::Refusal(refusal.clone()), 3);
        let told = effects(&mut replica);
        assert!(told.contains(&Effect::Disconnect));
        let count = told.iter().filter(|e| matches!(e, Effect::Alarm(Alarm::Refused(_)))).count();
        assert_eq!(count, alarms);
        replica.engine.handle_disconnected(4);
        replica.engine.handle_connected();
        replica.engine.handle_welcome(&welcome(Heads::new()), 5);
        let sent = effects(&mut replica);
        assert!(sent.contains(&Effect::SendKeys) && sent.contains(&Effect::SendBatch { log, first: 1 }));
    }
}
