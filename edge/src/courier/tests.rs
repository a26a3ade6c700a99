//! A stick of the board's without a line.

use sonae_proto::courier::{Encoder, FORMAT, Opening, Origin, Record};
use sonae_proto::identity::Beginning;
use sonae_proto::uplink::Uplink as Engine;
use sonae_proto::wire::KeyDocuments;
use sonae_store::keyring::Keyring;
use sonae_store::testing::Board;
use sonae_store::{Quarantine, enrolment};

use super::{Desk, import::import, run_without_line};
use crate::replica::Replica;
use crate::uplink;

fn stick(keys: KeyDocuments) -> Vec<u8> {
    let opening = Opening {
        format: FORMAT.to_owned(),
        school: keys.school,
        made_ms: 1,
        software: "test".into(),
        from: Origin::Board,
    };
    let (mut encoder, mut bytes) = Encoder::start(&opening).unwrap();
    bytes.extend(encoder.record(&Record::Keys(Box::new(keys))).unwrap());
    bytes.extend(encoder.finish().0);
    bytes
}

/// Goal: an import does not call a set of keys taken that this box cannot use, and the whole set of the same version is
/// taken by the same box. Method: a genuine manifest with no keys, with one that is that of another, then with all; a
/// neighbour's keys go the same way.
#[tokio::test]
async fn a_stick_with_other_keys_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, board) = (dir.path().join("data"), Board::default());
    let bundle = board.bundle();
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let replica = Replica::open(&data).unwrap();
    let (keys, evidence) = (replica.keys().unwrap(), replica.opened.evidence.clone());
    let engine = Engine::new(uplink::start(&keys, replica.cloud.clone(), 1, evidence));
    let (store, clock) = (replica.opened.store.clone(), replica.clock.clone());
    let (held, quarantine) = (Keyring::documents_of(&bundle), Quarantine::of(replica.dir.path()));
    let (desk, asks) = Desk::new(&keys, held.clone(), store.clone(), quarantine.clone(), clock.clone());
    let served = tokio::spawn(run_without_line(engine, store.clone(), quarantine, clock, asks));

    let whole = board.rotating(&bundle, 2, &[]);
    let empty = KeyDocuments { wrapped_keys: Vec::new(), ..whole.clone() };
    let mut exchanged = whole.clone();
    exchanged.wrapped_keys[0].file.clone_from(&whole.wrapped_keys[1].file);
    for wrong in [empty, exchanged] {
        let said = import(&desk, &mut stick(wrong).as_slice()).await;
        assert!(!said.is_whole() && said.reasons[0].starts_with("key documents: "), "{:?}", said.reasons);
        store.mark().await.unwrap();
        assert_eq!(store.documents(), held);
    }
    let said = import(&desk, &mut stick(whole.clone()).as_slice()).await;
    assert!(said.is_whole(), "{said:?}");
    store.mark().await.unwrap();
    assert_eq!(store.documents(), whole);
    drop(desk);
    served.await.unwrap();
    replica.opened.close();
}
