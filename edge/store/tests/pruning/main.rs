//! Pruning: sealed batches go when everything holds that has to, never before, and never half.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod condition;
mod destroyed;
mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use scene::{DAY_MS, Scene, essence, held, receipts, settle, write};
use sonae_journal::sim::{Cut, Fault, SimDisk};
use sonae_proto::ids::Tier;
use sonae_proto::proof::ProofResult;
use sonae_store::retention::Retention;
use sonae_store::room::Quota;
use sonae_store::{Opened, Options};

/// The batches of the archive, in bytes.
fn archived(scene: &Scene) -> u64 {
    let files = fs::read_dir(scene.data.join("batches")).unwrap().flatten();
    files.map(|entry| entry.metadata().unwrap().len()).sum()
}

/// Small segments, so that batches leave the journal early.
fn options() -> Options {
    let journal = sonae_journal::Options { segment_bytes: 64 * 1024, ..sonae_journal::Options::default() };
    Options { journal, segments_max: 2, ..Options::default() }
}

/// Goal: after pruning a box is the same to everybody: state, digests, what comes behind, also after a restart, without
/// its view, and after a second pruning; its archive is smaller. Method: prune with batches in archive and journal; compare.
#[test]
fn a_pruned_box_is_the_same() {
    let mut scene = Scene::new();
    let disk: Arc<dyn sonae_store::Disk> = Arc::new(sonae_store::RealDisk);
    let open = |scene: &Scene| scene.open_on(Arc::clone(&disk), options()).unwrap();
    let (mut opened, mut retention) = (open(&scene), Retention::default());
    for round in 0..2_usize {
        for n in 0..60 {
            write(&opened.store, n * 20..n * 20 + 20, &format!("round {round}"));
        }
        let before = archived(&scene);
        scene.ripen(&opened.store, &mut retention);
        write(&opened.store, 0..5, &format!("late {round}"));
        let (expected, whole) = (essence(&opened.store), held(&opened.store));
        scene.run(31 * DAY_MS);
        scene.prove(&opened.store, ProofResult::Proved, BTreeMap::new(), true);
        retention.look(&opened.store, &scene.proofs);
        let (left, pruned) = held(&opened.store);
        assert!(!pruned.is_empty() && pruned != whole.1, "round {round}");
        assert!(archived(&scene) < before, "{} of {before} bytes", archived(&scene));
        assert!(!left.is_empty() && whole.0.ends_with(&left), "what is left is byte for byte what it was");
        assert_eq!(essence(&opened.store), expected);
        for without_view in [false, true] {
            opened.close();
            if without_view {
                fs::remove_dir_all(scene.data.join("view")).unwrap();
            }
            opened = open(&scene);
            retention = Retention::default();
            assert_eq!(opened.store.state().view_rebuilt, without_view);
            assert_eq!(
                (essence(&opened.store), held(&opened.store)),
                (expected.clone(), (left.clone(), pruned.clone()))
            );
            assert_eq!(opened.evidence.pruned, pruned, "the engine is told");
        }
        assert_eq!(opened.store.state().disputed, 0);
    }
    opened.close();
}

fn begin(scene: &Scene, disk: &SimDisk) -> Result<Opened, sonae_store::StoreError> {
    scene.open_on(Arc::new(disk.clone()), options())
}

/// Goal: a power cut or a fault while batches go leaves all that counts, and the same steps end it. Method: a cut before
/// every operation of the disk, torn and kept in turn, and a failure of each, after which the box goes on; then open with
/// the view and without, compare, go on writing, prune to the end.
#[test]
fn a_cut_while_batches_go_costs_nothing() {
    let disk = SimDisk::new(5);
    let mut scene = Scene::on(Arc::new(disk.clone()));
    let opened = begin(&scene, &disk).unwrap();
    for n in 0..40 {
        write(&opened.store, n * 10..n * 10 + 10, "present");
    }
    let root = scene.ripen(&opened.store, &mut Retention::default());
    for n in 0..30 {
        write(&opened.store, n * 10..n * 10 + 10, "late");
    }
    let (expected, whole) = (essence(&opened.store), held(&opened.store));
    opened.close();
    let ripe = disk.fork();
    let opened = begin(&scene, &ripe).unwrap();
    let first = ripe.counters().operations;
    opened.store.prune_blocking(Tier::Daily, root).unwrap().unwrap();
    let after = held(&opened.store);
    opened.close();
    let last = ripe.counters().operations;
    assert!(last > first + 8 && after.0.len() < whole.0.len(), "{first} to {last}");
    let (mut pruned, mut not) = (0, 0);
    for (number, way) in (first..last).flat_map(|number| (0..4).map(move |way| (number, way))) {
        let one = disk.fork();
        one.reseed(number * 4 + way);
        match way {
            2 => one.fail_at(number, Fault::NoSpace),
            3 => one.fail_at(number, Fault::Io),
            _ => one.cut_at(number),
        }
        let _ = fs::remove_dir_all(scene.data.join("view"));
        if let Ok(opened) = begin(&scene, &one) {
            let mut asked = 0;
            // A journal that failed does not go on. All else does, has what it had, and is asked again.
            while opened.store.prune_blocking(Tier::Daily, root).is_ok() && asked < 2 && way >= 2 {
                let found = held(&opened.store);
                assert!(found == whole || found == after, "{way} at {number}: {} batches", found.0.len());
                asked += 1;
            }
            opened.close();
        }
        one.power_cycle([Cut::Torn, Cut::Keep, Cut::Drop, Cut::Drop][way as usize]);
        for without_view in [false, true] {
            if without_view {
                let _ = fs::remove_dir_all(scene.data.join("view"));
            }
            let opened =
                begin(&scene, &one).unwrap_or_else(|error| panic!("{way} at {number}: {error}: {error:?}"));
            assert_eq!(essence(&opened.store), expected, "{way} at {number}");
            let found = held(&opened.store);
            assert!(found == whole || found == after, "{way} at {number}: {} batches", found.0.len());
            if without_view {
                pruned += usize::from(found == after);
                not += usize::from(found == whole);
                write(&opened.store, 3..9, "afterwards");
                receipts(&opened.store);
                let now = essence(&opened.store);
                opened.store.prune_blocking(Tier::Daily, root).unwrap().unwrap();
                opened.close();
                let opened = begin(&scene, &one).unwrap();
                assert_eq!(essence(&opened.store), now, "{way} at {number}");
                assert_eq!(held(&opened.store).1, after.1);
                assert!(held(&opened.store).0.starts_with(&after.0), "{way} at {number}");
                opened.close();
            } else {
                opened.close();
            }
        }
    }
    assert!(pruned > 5 && not > 3, "{pruned} pruned, {not} not");
}

/// Goal: what does not hold is not laid under a tier. Method: a part that has rotted, one that is missing, own changes
/// without a receipt, a snapshot that nobody has.
#[test]
fn what_cannot_stand_for_batches_does_not() {
    let mut scene = Scene::new();
    let (opened, mut retention) = (scene.open(), Retention::default());
    write(&opened.store, 0..300, "present");
    let unsafe_one = opened.store.make_snapshot_blocking(Tier::Daily).unwrap();
    let outcome = opened.store.prune_blocking(Tier::Daily, unsafe_one.hash());
    assert!(outcome.unwrap_err().to_string().contains("have no receipt"));
    let root = scene.ripen(&opened.store, &mut retention);
    let whole = held(&opened.store);
    let part = opened.store.shelf().root(root).unwrap().parts[0];
    let path = scene.data.join(format!("snapshots/{}.part", part.hash));
    let kept = fs::read(&path).unwrap();
    for spoilt in [None, Some(&kept[1..])] {
        match spoilt {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let outcome = opened.store.prune_blocking(Tier::Daily, root);
        assert!(outcome.unwrap_err().to_string().contains("is not there whole"));
        assert_eq!(held(&opened.store), whole);
    }
    scene.run(31 * DAY_MS);
    scene.prove(&opened.store, ProofResult::Proved, BTreeMap::new(), true);
    retention.look(&opened.store, &scene.proofs);
    assert_eq!(held(&opened.store), whole, "it is given up");
    write(&opened.store, 0..300, "late");
    let fresh = scene.ripen(&opened.store, &mut retention);
    assert_ne!(fresh, root, "and another one is made");
    scene.run(31 * DAY_MS);
    scene.prove(&opened.store, ProofResult::Proved, BTreeMap::new(), true);
    retention.look(&opened.store, &scene.proofs);
    assert_ne!(held(&opened.store), whole);
    opened.close();
}

/// Goal: a tier that has reached its quota gets room by pruning. Method: fill it until it is refused, prune, write.
#[test]
fn a_full_tier_gets_room() {
    let mut scene = Scene::new();
    let disk = Arc::new(sonae_store::RealDisk);
    let opened = scene.open_on(disk, options()).unwrap();
    let mut retention = Retention::default();
    for n in 0..80 {
        write(&opened.store, n * 20..n * 20 + 20, "present");
    }
    scene.ripen(&opened.store, &mut retention);
    let used = opened.store.room().1.used_by_tier[&Tier::Daily];
    let bytes_max = BTreeMap::from([(Tier::Daily, used / 2)]);
    opened.store.set_quota(Quota { bytes_max, free_min: BTreeMap::new() });
    settle(&opened.store);
    assert!(opened.store.pressure().refuses(Tier::Daily));
    scene.run(31 * DAY_MS);
    scene.prove(&opened.store, ProofResult::Proved, BTreeMap::new(), true);
    retention.look(&opened.store, &scene.proofs);
    assert!(!opened.store.pressure().refuses(Tier::Daily), "{:?}", opened.store.room().1);
    write(&opened.store, 0..5, "late");
    opened.close();
}
