//! Destroyed keys on a box: held as long as something is sealed to them, then gone from every file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sonae_proto::ids::Tier;
use sonae_proto::manifest::KeyUse;
use sonae_proto::proof::ProofResult;
use sonae_store::erasure::{KeyStatus, WaitsFor};
use sonae_store::retention::Retention;
use sonae_store::{Opened, Store, enrolment};

use crate::scene::{DAY_MS, Scene, essence, settle, write};

const OLD: u32 = 2026;
const NEW: u32 = 2_026_001;

fn key(store: &Store, epoch: u32) -> KeyStatus {
    let all = store.key_uses();
    all.into_iter().find(|key| (key.tier, key.epoch) == (Tier::Daily, epoch)).unwrap()
}

/// Base64 of the wrapped key as it stands in documents, journal and notes.
fn wrapped(scene: &Scene, tier: Tier) -> String {
    let keys = &scene.bundle.wrapped_keys;
    let key = keys.iter().find(|key| (key.key_use, key.epoch) == (KeyUse::Tier(tier), OLD)).unwrap();
    let text = serde_json::to_value(key).unwrap();
    text["file"].as_str().unwrap().to_owned()
}

fn hits(dir: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(hits(&path, needle));
        } else if fs::read(&path).is_ok_and(|b| b.windows(needle.len()).any(|part| part == needle.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Waits, for as long as a busy machine may take, until something that the keeper does when it is idle is done.
fn until(what: &str, is_done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

fn order(scene: &Scene, opened: &Opened, version: u64, destroyed: &[u32]) {
    opened.store.keep_documents(scene.board.rotating(&scene.bundle, version, destroyed));
    settle(&opened.store);
}

/// A box with a month of work under one key, the keys rotated, and a snapshot under the new one that is ripe.
fn rotated(scene: &mut Scene, opened: &Opened, retention: &mut Retention) {
    for n in 0..20 {
        write(&opened.store, n * 20..n * 20 + 20, "present");
    }
    opened.store.erase_blocking("p00007", None).unwrap();
    let waits =
        |store: &Store| store.erasures().into_iter().find(|of| of.tier == Tier::Daily).unwrap().waits_for;
    until("overwritten", || waits(&opened.store) == Some(WaitsFor::Rotation));
    order(scene, opened, 2, &[]);
    assert!(key(&opened.store, NEW).seals && !key(&opened.store, OLD).seals);
    assert_eq!(waits(&opened.store), Some(WaitsFor::Pruning));
    assert!(opened.store.is_sealed_to_older_keys(Tier::Daily), "a snapshot is due");
    write(&opened.store, 0..5, "late");
    scene.ripen(&opened.store, retention);
    assert!(!opened.store.is_sealed_to_older_keys(Tier::Daily));
}

fn prune(scene: &mut Scene, opened: &Opened, retention: &mut Retention) {
    scene.run(31 * DAY_MS);
    scene.prove(&opened.store, ProofResult::Proved, BTreeMap::new(), true);
    retention.look(&opened.store, &scene.proofs);
}

/// Goal: after erasure, rotation, snapshot and pruning nothing here needs the old key; the order then takes it out of
/// every file, the erasure is complete, and the box is what it was, also when its view is made anew. Method: the whole
/// way, and a search of all files for the wrapped key.
#[test]
fn a_destroyed_key_leaves_every_file() {
    let mut scene = Scene::new();
    let (opened, mut retention) = (scene.open(), Retention::default());
    rotated(&mut scene, &opened, &mut retention);
    assert!(!key(&opened.store, OLD).is_free());
    prune(&mut scene, &opened, &mut retention);
    assert!(key(&opened.store, OLD).is_free(), "{:?}", key(&opened.store, OLD));
    let of_daily = |store: &Store| store.erasures().into_iter().find(|of| of.tier == Tier::Daily).unwrap();
    assert_eq!(of_daily(&opened.store).waits_for, Some(WaitsFor::Order));

    let (needle, other) = (wrapped(&scene, Tier::Daily), wrapped(&scene, Tier::Safety));
    assert!(!hits(&scene.data, &needle).is_empty());
    let expected = essence(&opened.store);
    order(&scene, &opened, 3, &[2025, OLD]);
    until("the key is gone and journal overwritten", || {
        !key(&opened.store, OLD).destroyed_pending && !opened.store.state().scrub_due
    });
    assert_eq!(of_daily(&opened.store).waits_for, None, "complete");
    assert!(enrolment::forget_destroyed(&scene.data, &opened.store.destroyed()).unwrap());
    assert!(!enrolment::forget_destroyed(&scene.data, &opened.store.destroyed()).unwrap());
    assert_eq!(hits(&scene.data, &needle), Vec::<String>::new());
    // Of another tier there is still something sealed to it, so it is held, and there alone.
    let held = hits(&scene.data, &other);
    assert!(held.iter().all(|path| path.ends_with("held-keys.json")) && held.len() == 1, "{held:?}");
    opened.close();
    scene.bundle = enrolment::load(&scene.data).unwrap();
    for without_view in [false, true] {
        if without_view {
            fs::remove_dir_all(scene.data.join("view")).unwrap();
        }
        let opened = scene.open();
        assert_eq!(
            (opened.store.state().view_rebuilt, essence(&opened.store)),
            (without_view, expected.clone())
        );
        opened.close();
    }
}

/// Goal: an order that comes before its time destroys nothing that is needed: the key is held and said to be pending,
/// the box opens with and without its view, and the key goes as soon as the batches do. Method: the order right after
/// the rotation, restarts, then pruning.
#[test]
fn a_key_that_is_needed_is_held() {
    let mut scene = Scene::new();
    let (mut opened, mut retention) = (scene.open(), Retention::default());
    rotated(&mut scene, &opened, &mut retention);
    order(&scene, &opened, 3, &[2025, OLD]);
    let expected = essence(&opened.store);
    for without_view in [false, true] {
        assert!(key(&opened.store, OLD).destroyed_pending);
        assert!(
            opened.store.documents().wrapped_keys.iter().all(|key| key.epoch != OLD),
            "it is passed on to nobody"
        );
        opened.close();
        if without_view {
            fs::remove_dir_all(scene.data.join("view")).unwrap();
        }
        opened = scene.open();
        assert_eq!(
            (opened.store.state().view_rebuilt, essence(&opened.store)),
            (without_view, expected.clone())
        );
    }
    prune(&mut scene, &opened, &mut retention);
    until("the key is gone", || !key(&opened.store, OLD).destroyed_pending);
    assert_eq!(essence(&opened.store), expected);
    opened.close();
}

/// Goal: an order for which there is no room on the disk is taken as soon as there is, without being sent again. Method: the
/// note of held keys cannot be written; then it can.
#[test]
fn an_order_without_room_is_taken_later() {
    let mut scene = Scene::new();
    let (opened, mut retention) = (scene.open(), Retention::default());
    rotated(&mut scene, &opened, &mut retention);
    let snapshots = scene.data.join("snapshots");
    let in_the_way = snapshots.join("held-keys.json.new");
    assert!(snapshots.is_dir());
    fs::create_dir(&in_the_way).unwrap();
    order(&scene, &opened, 3, &[2025, OLD]);
    assert!(!key(&opened.store, OLD).destroyed_pending);
    assert!(opened.store.documents().wrapped_keys.iter().any(|key| key.epoch == OLD));
    fs::remove_dir(&in_the_way).unwrap();
    write(&opened.store, 0..1, "anything");
    until("the order is taken", || key(&opened.store, OLD).destroyed_pending);
    assert!(opened.store.documents().wrapped_keys.iter().all(|key| key.epoch != OLD));
    opened.close();
}
