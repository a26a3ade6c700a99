//! Snapshots through the store's handle: made of one replica's view, loaded into another's.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sonae_journal::sim::{Cut, SimDisk};
use sonae_proto::batch::Batch;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::snapshot::Snapshot;
use sonae_store::options::Defects;
use sonae_store::snapshot::SnapshotFailure;
use sonae_store::testing::{Board, open_store, opening};
use sonae_store::{Action, Clock, Edit, Opened, Options, RealDisk, Store, enrolment};

struct Scene {
    _dir: tempfile::TempDir,
    /// The replica that writes and the one that begins with its snapshot.
    data: [PathBuf; 2],
    bundles: [ReplicaBundle; 2],
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let board = Board::default();
        let data = ["old", "new"].map(|name| dir.path().join(name));
        let bundles = [board.bundle(), board.bundle()];
        for (data, bundle) in data.iter().zip(&bundles) {
            drop(enrolment::enrol(data, bundle, Beginning::Enrolment, 1).unwrap());
        }
        Self { _dir: dir, data, bundles }
    }

    fn open(&self, replica: usize) -> Opened {
        open_store(&self.data[replica], &self.bundles[replica], Clock::system())
    }
}

fn write(store: &Store, records: std::ops::Range<usize>, value: &str) {
    for start in records.clone().step_by(100) {
        let edits = (start..records.end.min(start + 100))
            .map(|n| Edit {
                collection: "attendance".into(),
                record: format!("2026-04-{:02}/p{n:05}/day", 1 + n / 1_000),
                fields: BTreeMap::from([
                    ("code".into(), value.into()),
                    // What does not compress makes several parts of few records.
                    ("note".into(), blake3::hash(n.to_string().as_bytes()).to_hex().as_str().into()),
                ]),
                seen: None,
            })
            .collect();
        store.write_blocking(Action { who: Some("tester".into()), source: None, edits }).unwrap();
    }
}

fn carry(from: &Store, to: &Store, snapshot: &Snapshot) {
    for part in &snapshot.root().parts {
        to.shelf().put_part(&from.shelf().part(part).unwrap()).unwrap();
    }
    to.shelf().put_root(snapshot).unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The state of a tier, as people and digests see it.
fn essence(store: &Store) -> (String, String, Vec<(String, String)>) {
    let state = store.state();
    let records = store.records(Tier::Daily, "attendance", "").unwrap();
    let texts = records.into_iter().map(|(id, state)| (id, serde_json::to_string(&state).unwrap())).collect();
    let sequences: Vec<_> = state.vector.iter().filter(|(log, _)| log.tier == Tier::Daily).collect();
    (format!("{:?}", state.digests[&Tier::Daily]), format!("{sequences:?}"), texts)
}

/// Batches of the writer behind what the other holds.
fn tail(from: &Store, to: &Store) -> Vec<Batch> {
    let (held, state) = (block_on(from.held()).unwrap(), to.state());
    let missing = |(log, headers): (LogName, Vec<sonae_proto::batch::BatchHeader>)| {
        let has = state.vector.get(&log).copied().unwrap_or(0);
        headers.into_iter().filter(move |header| header.last > has).map(move |header| (log, header.first))
    };
    held.into_iter()
        .flat_map(missing)
        .map(|(log, first)| Batch::from_bytes(block_on(from.batch(log, first)).unwrap()).unwrap())
        .collect()
}

/// Goal: a replica that begins with a snapshot and goes on with batches is the same as the one that wrote, also after
/// a restart, and after its view is gone. Method: several parts, writes before and after, both stores opened again.
#[test]
fn a_replica_that_begins_with_a_snapshot_is_the_same() {
    let scene = Scene::new();
    let (old, new) = (scene.open(0), scene.open(1));
    write(&old.store, 0..6_000, "present");
    write(&old.store, 100..140, "late");
    let snapshot = old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    assert!(snapshot.root().parts.len() > 1, "{} parts", snapshot.root().parts.len());
    assert_eq!(snapshot.root().records, 6_000);
    write(&old.store, 120..130, "absent_sick");
    write(&old.store, 6_000..6_010, "late");
    block_on(old.store.seal_now());

    carry(&old.store, &new.store, &snapshot);
    block_on(new.store.load_snapshot(snapshot.hash())).unwrap();
    let twice = block_on(new.store.load_snapshot(snapshot.hash()));
    assert!(twice.unwrap_err().contains("while its tier is held"));
    let batches = tail(&old.store, &new.store);
    assert!(!batches.is_empty() && batches.iter().all(|batch| batch.header().first > 6_000), "only the tail");
    block_on(new.store.store_batches(&batches)).unwrap();
    let expected = essence(&old.store);
    assert_eq!(essence(&new.store), expected);
    for (log, head) in &snapshot.root().heads {
        assert!(new.store.has_head_blocking(*log, *head));
    }
    // Its own writes replace what the snapshot brought.
    write(&new.store, 5..6, "late");
    let mine = essence(&new.store);
    new.close();

    let new = scene.open(1);
    assert_eq!(essence(&new.store), mine);
    assert_eq!(new.store.state().disputed, 0);
    new.close();
    fs::remove_dir_all(scene.data[1].join("view")).unwrap();
    let new = scene.open(1);
    assert_eq!(essence(&new.store), mine);
    assert!(new.store.state().view_rebuilt);
    assert_eq!(new.evidence.peers.len(), 1, "the peer's log is known behind its foundation");
    new.close();
    old.close();
}

/// Goal: what has not changed is not sealed and sent again. Method: a second snapshot after few writes; a third after
/// what was remembered of the second is lost.
#[test]
fn unchanged_parts_are_used_again() {
    let scene = Scene::new();
    let old = scene.open(0);
    write(&old.store, 0..9_000, "present");
    let first = old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    write(&old.store, 8_990..9_020, "late");
    let second = old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    let new_parts = |one: &Snapshot, other: &Snapshot| {
        one.root().parts.iter().filter(|part| !other.root().parts.contains(part)).count()
    };
    assert!(first.root().parts.len() > 1);
    assert!(new_parts(&second, &first) <= 1, "{} new parts", new_parts(&second, &first));
    old.store.snapshot_safe(Tier::Daily, second.hash());
    // Answered in the round in which it is tidied up, and in the one after that.
    block_on(old.store.seal_now());
    block_on(old.store.seal_now());
    assert!(old.store.shelf().root(first.hash()).is_none(), "the older one is gone");
    fs::remove_file(scene.data[0].join("snapshots/made-1.json")).unwrap();
    let third = old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    assert_eq!(new_parts(&third, &second), third.root().parts.len());
    old.close();
}

/// Goal: a snapshot that is damaged, cut short or of another state changes nothing, and one that rots later is
/// reported as damage. Method: flip a byte of a part, leave one out, claim another digest; then rot under a foundation.
#[test]
fn a_wrong_snapshot_changes_nothing() {
    let scene = Scene::new();
    let (old, new) = (scene.open(0), scene.open(1));
    write(&old.store, 0..3_000, "present");
    let snapshot = old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    let before = essence(&new.store);
    let path =
        |data: &Path, part: usize| data.join(format!("snapshots/{}.part", snapshot.root().parts[part].hash));
    let refused = |new: &Opened, expected: &str| {
        let outcome = block_on(new.store.load_snapshot(snapshot.hash()));
        assert!(outcome.unwrap_err().contains(expected));
        assert_eq!(essence(&new.store), before);
    };
    carry(&old.store, &new.store, &snapshot);
    let (kept, mut bytes) =
        (fs::read(path(&scene.data[1], 0)).unwrap(), fs::read(path(&scene.data[1], 0)).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path(&scene.data[1], 0), &bytes).unwrap();
    refused(&new, "is not there whole");
    fs::remove_file(path(&scene.data[1], 0)).unwrap();
    refused(&new, "is not there whole");
    fs::write(path(&scene.data[1], 0), &kept).unwrap();
    block_on(new.store.load_snapshot(snapshot.hash())).unwrap();
    new.close();
    fs::write(path(&scene.data[1], 0), &bytes).unwrap();
    fs::remove_dir_all(scene.data[1].join("view")).unwrap();
    let disk = std::sync::Arc::new(RealDisk);
    let again = opening(&scene.data[1], &scene.bundles[1], Clock::system(), disk, Options::default());
    assert!(Store::open(again).unwrap_err().is_damage());
    old.close();
}

/// Goal: a view that is not what was kept is found when a snapshot is made of it, and not signed. Method: put an older
/// view in place of the present one, and trust it.
#[test]
fn a_view_that_differs_is_not_spread() {
    let scene = Scene::new();
    let old = scene.open(0);
    write(&old.store, 0..50, "present");
    old.close();
    let (view, older) = (scene.data[0].join("view"), scene.data[0].join("older"));
    fs::create_dir(&older).unwrap();
    for entry in fs::read_dir(&view).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), older.join(entry.file_name())).unwrap();
    }
    let old = scene.open(0);
    write(&old.store, 7..8, "late");
    old.close();
    fs::remove_dir_all(&view).unwrap();
    fs::rename(&older, &view).unwrap();
    let options = Options { defects: Defects::AnyCheckpoint, ..Options::default() };
    let disk = std::sync::Arc::new(RealDisk);
    let old =
        Store::open(opening(&scene.data[0], &scene.bundles[0], Clock::system(), disk, options)).unwrap();
    let failure = old.store.make_snapshot_blocking(Tier::Daily).unwrap_err();
    assert!(matches!(failure, SnapshotFailure::Differs { tier: Tier::Daily }), "{failure}");
    let left = fs::read_dir(scene.data[0].join("snapshots")).unwrap().count();
    assert_eq!(left, 0, "a try that fails leaves nothing behind");
    old.close();
    let old = scene.open(0);
    assert!(old.store.state().view_rebuilt, "the next start makes the view again");
    old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    old.close();
}

/// Goal: a power cut while a tier begins with a snapshot leaves nothing of it or all of it, never something that cannot
/// be opened, and the same steps end it. Method: a cut before every operation of the disk, torn; then open, look, go on.
#[test]
fn a_cut_leaves_a_tier_empty_or_whole() {
    let scene = Scene::new();
    let old = scene.open(0);
    write(&old.store, 0..40, "present");
    let snapshot = old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    write(&old.store, 30..45, "late");
    block_on(old.store.seal_now());
    let expected = essence(&old.store);
    let (data, bundle) = (&scene.data[1], &scene.bundles[1]);
    let open = |disk: &SimDisk| {
        let disk = std::sync::Arc::new(disk.clone());
        Store::open(opening(data, bundle, Clock::system(), disk, Options::default()))
    };
    // A disk that is off stops this anywhere.
    let begin = |new: &Opened| -> Option<()> {
        for part in &snapshot.root().parts {
            new.store.shelf().put_part(&old.store.shelf().part(part)?).ok()?;
        }
        new.store.shelf().put_root(&snapshot).ok()?;
        block_on(new.store.load_snapshot(snapshot.hash())).ok()?;
        block_on(new.store.store_batches(&tail(&old.store, &new.store))).ok()
    };
    let fresh = SimDisk::new(3);
    open(&fresh).unwrap().close();
    let whole = fresh.fork();
    let new = open(&whole).unwrap();
    begin(&new).unwrap();
    new.close();
    let (first, last) = (fresh.counters().operations, whole.counters().operations);
    assert!(last > first + 20, "{first} to {last}");
    let (mut empty, mut loaded) = (0, 0);
    for cut in first..last {
        let disk = fresh.fork();
        disk.reseed(cut);
        disk.cut_at(cut);
        if let Ok(new) = open(&disk) {
            begin(&new);
            new.close();
        }
        disk.power_cycle(Cut::Torn);
        let new = open(&disk).unwrap_or_else(|error| panic!("cut before operation {cut}: {error}"));
        let records = new.store.records(Tier::Daily, "attendance", "").unwrap().len();
        let digest = new.store.state().digests[&Tier::Daily];
        match records {
            0 => empty += 1,
            40 => assert_eq!(digest, snapshot.root().digest, "cut before operation {cut}"),
            45 => {}
            other => panic!("cut before operation {cut}: {other} records"),
        }
        loaded += usize::from(records > 0);
        if records == 0 {
            begin(&new).unwrap();
        } else {
            block_on(new.store.store_batches(&tail(&old.store, &new.store))).unwrap();
        }
        assert_eq!(essence(&new.store), expected, "cut before operation {cut}");
        new.close();
    }
    assert!(empty > 5 && loaded > 5, "{empty} empty, {loaded} loaded");
    old.close();
}
