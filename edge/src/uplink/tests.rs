//! The driver without a line: what it tells its engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sonae_proto::ended::EndedHashes;
use sonae_proto::identity::Beginning;
use sonae_proto::uplink::{Alarm, Effect, STALL_MS};
use sonae_proto::wire::{Frame, KeyDocuments, PROTOCOL, Welcome};
use sonae_store::keyring::Keyring;
use sonae_store::testing::Board;
use sonae_store::{Action, Clock, Edit, enrolment};

use super::driver;
use crate::replica::Replica;

/// Goal: a wall clock that is put right makes no stall, and one that goes back hides none. Method: a driver with the
/// line up and a batch without a receipt; ten years ahead, then back, then five steady minutes.
#[tokio::test]
async fn the_engine_is_told_a_steady_time() {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    const NOW_MS: u64 = 1_780_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(enrolment::enrol(&data, &Board::default().bundle(), Beginning::Enrolment, 1).unwrap());
    let mut replica = Replica::open(&data).unwrap();
    let fields = BTreeMap::from([("grade".into(), "P1".into())]);
    let edit = Edit { collection: "student".into(), record: "p".into(), fields, seen: None };
    let store = replica.opened.store.clone();
    store.write(Action { edits: vec![edit], ..Action::default() }).await.unwrap();
    store.seal_now().await;
    let (wall, steady) = (Arc::new(AtomicU64::new(NOW_MS)), Arc::new(AtomicU64::new(NOW_MS)));
    let (told, counted) = (Arc::clone(&wall), Arc::clone(&steady));
    let (mut config, _desk) = replica.uplink(Some("localhost:1".into())).unwrap();
    config.clock =
        Clock::told_apart(move || told.load(Ordering::Relaxed), move || counted.load(Ordering::Relaxed));
    let (mut driver, mut inputs) = driver(config).unwrap();
    driver.sealed(&inputs.sealed.recv().await.unwrap());
    driver.engine.handle_connected();
    let welcome = Welcome {
        protocol: PROTOCOL,
        nonce: String::new(),
        time_ms: NOW_MS,
        heads: BTreeMap::new(),
        complete: true,
        identities: vec![],
        manifest_version: 1,
        sites: 2,
        quorum: 2,
        proofs: false,
        snapshots: Default::default(),
        ended: EndedHashes::new(),
    };
    let now_ms = driver.engine_ms();
    driver.control(Frame::Welcome(Box::new(welcome)), now_ms).await;
    let stalled = |driver: &mut super::Driver| {
        driver.timeout();
        let told = std::iter::from_fn(|| driver.engine.poll_effect());
        told.filter(|effect| matches!(effect, Effect::Alarm(Alarm::Stalled { .. }))).count()
    };
    for jump in [NOW_MS + 10 * 365 * 86_400_000, NOW_MS - 10 * 365 * 86_400_000] {
        wall.store(jump, Ordering::Relaxed);
        assert_eq!(stalled(&mut driver), 0, "nothing has stood still for five minutes");
    }
    steady.fetch_add(STALL_MS, Ordering::Relaxed);
    assert_eq!(stalled(&mut driver), 1);
    assert_eq!(driver.engine.stalled_since_ms(), Some(NOW_MS));
    replica.opened.close();
}

/// Goal: keys from the cloud that this box cannot use are refused and told before their version counts as held, and the
/// right ones of that version are taken. Method: a genuine manifest with a key that does not open, then the whole set.
#[tokio::test]
async fn keys_from_the_cloud_are_opened_first() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (data, board) = (dir.path().join("data"), Board::default());
    let bundle = board.bundle();
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let mut replica = Replica::open(&data).unwrap();
    let (config, _desk) = replica.uplink(Some("localhost:1".into())).unwrap();
    let (mut driver, _inputs) = driver(config).unwrap();
    let whole = board.rotating(&bundle, 2, &[]);
    let mut garbage = whole.clone();
    garbage.wrapped_keys.last_mut().unwrap().file = b"nobody can open this".to_vec();
    let empty = KeyDocuments { wrapped_keys: Vec::new(), ..whole.clone() };
    for (number, wrong) in (1..).zip([garbage, empty]) {
        driver.control(Frame::Keys(Box::new(wrong)), 1).await;
        assert_eq!((driver.engine.manifest_version(), driver.engine.poll_effect()), (1, None));
        let errors = driver.shared.get().errors;
        assert_eq!(errors.iter().filter(|error| error.code == "keys_refused").count(), number);
    }
    driver.control(Frame::Keys(Box::new(whole.clone())), 1).await;
    assert_eq!(driver.engine.manifest_version(), 2);
    driver.drain().await;
    driver.store.mark().await.unwrap();
    assert_eq!(driver.store.documents(), whole);
    assert_ne!(whole, Keyring::documents_of(&bundle));
    replica.opened.close();
}
