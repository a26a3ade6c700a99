//! A store that a rebuild fills: what may be used of it meanwhile, and what is kept whatever happens.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use sonae_journal::sim::{Cut, SimDisk};
use sonae_proto::batch::Batch;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::digest::Digest;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::snapshot::Snapshot;
use sonae_store::snapshot::SnapshotFailure;
use sonae_store::testing::{Board, open_store, opening};
use sonae_store::{
    Action, Clock, Edit, Filling, NotYet, Opened, Options, Store, StoreError, ViewError, WriteError,
    enrolment,
};

/// A box that has written, and one that is rebuilt from it.
struct Scene {
    _dir: tempfile::TempDir,
    data: PathBuf,
    bundle: ReplicaBundle,
    old: Opened,
}

impl Scene {
    fn new() -> Self {
        let (dir, board) = (tempfile::tempdir().unwrap(), Board::default());
        let (old, data) = (dir.path().join("old"), dir.path().join("new"));
        let (old_bundle, bundle) = (board.bundle(), board.bundle());
        drop(enrolment::enrol(&old, &old_bundle, Beginning::Enrolment, 1).unwrap());
        drop(enrolment::enrol(&data, &bundle, Beginning::Rebuild, 1).unwrap());
        Filling::begin(&data).unwrap();
        let old = open_store(&old, &old_bundle, Clock::system());
        write(&old.store, vec![edit("student", "p1", "花"), edit("student", "p2", "葵")]).unwrap();
        write(&old.store, vec![edit("attendance", "2026-04-08/p1/all", "late")]).unwrap();
        Self { _dir: dir, data, bundle, old }
    }

    fn open(&self, disk: &SimDisk) -> Opened {
        self.try_open(disk).unwrap()
    }

    fn try_open(&self, disk: &SimDisk) -> Result<Opened, StoreError> {
        let disk = Arc::new(disk.clone());
        let mut open = opening(&self.data, &self.bundle, Clock::system(), disk, Options::default());
        open.filling = Filling::of(&self.data).unwrap();
        Store::open(open)
    }
}

fn edit(collection: &str, record: &str, value: &str) -> Edit {
    let fields = BTreeMap::from([("code".to_owned(), Value::from(value))]);
    Edit { collection: collection.into(), record: record.into(), fields, seen: None }
}

fn write(store: &Store, edits: Vec<Edit>) -> Result<(), WriteError> {
    store.write_blocking(Action { who: Some("tester".into()), source: None, edits }).map(drop)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Batches of a tier that the other lacks.
fn carry(from: &Store, to: &Store, tier: Tier) -> Option<()> {
    block_on(from.seal_now());
    let held = block_on(from.held()).unwrap();
    let lacking = held.iter().filter(|(log, _)| log.tier == tier).flat_map(|(log, headers)| {
        let has = to.state().vector.get(log).copied().unwrap_or(0);
        headers.iter().filter(move |header| header.last > has).map(|header| (*log, header.first))
    });
    let batches: Vec<Batch> = lacking
        .map(|(log, first)| Batch::from_bytes(block_on(from.batch(log, first)).unwrap()).unwrap())
        .collect();
    block_on(to.store_batches(&batches)).ok()
}

fn carry_snapshot(from: &Store, to: &Store, snapshot: &Snapshot) -> Option<()> {
    for part in &snapshot.root().parts {
        to.shelf().put_part(&from.shelf().part(part)?).ok()?;
    }
    to.shelf().put_root(snapshot).ok()?;
    block_on(to.load_snapshot(snapshot.hash())).ok()
}

fn digest(store: &Store, tier: Tier) -> Option<Digest> {
    store.state().digests.get(&tier).copied()
}

fn is_not_yet(error: &WriteError, tier: Tier) -> bool {
    matches!(error, WriteError::NotYet(NotYet { tier: of }) if *of == tier)
}

/// Goal: of a tier that is not whole nothing is read, written, erased, marked or made a snapshot of, although some of it is
/// here already; an action that reaches into one keeps nothing at all. Method: half a tier 0, each door of the store; then
/// tier 0 whole, and the doors of tier 1: entries of the audit among them, which follow no value.
#[test]
fn a_tier_that_is_coming_is_closed() {
    let scene = Scene::new();
    let new = scene.open(&SimDisk::new(1));
    carry(&scene.old.store, &new.store, Tier::Safety).unwrap();
    let not_yet =
        |error: ViewError, tier| matches!(error, ViewError::NotYet(NotYet { tier: of }) if of == tier);
    assert!(not_yet(new.store.records(Tier::Safety, "student", "").unwrap_err(), Tier::Safety));
    assert!(not_yet(new.store.record(Tier::Safety, "student", "p1").unwrap_err(), Tier::Safety));
    assert!(not_yet(new.store.each_record(Tier::Safety, |_| Ok(())).unwrap_err(), Tier::Safety));
    assert!(is_not_yet(&write(&new.store, vec![edit("student", "p1", "桜")]).unwrap_err(), Tier::Safety));
    let made = new.store.make_snapshot_blocking(Tier::Safety);
    assert!(matches!(made, Err(SnapshotFailure::Later { tier: Tier::Safety })), "{made:?}");
    assert!(is_not_yet(&block_on(new.store.mark()).unwrap_err(), Tier::Safety));

    new.store.filling().fill(Tier::Safety).unwrap();
    assert_eq!(new.store.records(Tier::Safety, "student", "").unwrap().len(), 2);
    write(&new.store, vec![edit("student", "p1", "桜")]).unwrap();
    new.store.make_snapshot_blocking(Tier::Safety).unwrap();
    let before = new.store.state().vector;
    for edits in [
        vec![edit("audit", "a1", "looked")],
        vec![edit("attendance", "2026-04-08/p1/all", "present")],
        vec![edit("student", "p2", "楓"), edit("attendance", "2026-04-08/p2/all", "present")],
    ] {
        assert!(is_not_yet(&write(&new.store, edits).unwrap_err(), Tier::Daily));
    }
    assert!(
        matches!(new.store.erase_blocking("p1", None), Err(WriteError::Refused { .. })),
        "not half of it"
    );
    assert_eq!(new.store.state().vector, before, "nothing was kept");
    assert!(is_not_yet(&block_on(new.store.mark()).unwrap_err(), Tier::Daily));
    new.close();
    scene.old.close();
}

/// Goal: what people write into tier 0 while the rest is coming survives a power cut with the rest still missing, does not
/// keep tier 1 from beginning with its snapshot, and ends in the same state as the other box has. Method: write; a cut before
/// every operation of the disk from there until tier 1 is whole, torn; open, look, go on; then the digests of both boxes
/// when each has what the other wrote.
#[test]
fn tier_0_is_kept_while_the_rest_comes() {
    let scene = Scene::new();
    let snapshot = scene.old.store.make_snapshot_blocking(Tier::Daily).unwrap();
    write(&scene.old.store, vec![edit("attendance", "2026-04-09/p1/all", "late")]).unwrap();
    block_on(scene.old.store.seal_now());
    let served = SimDisk::new(3);
    let new = scene.open(&served);
    carry(&scene.old.store, &new.store, Tier::Safety).unwrap();
    new.store.filling().fill(Tier::Safety).unwrap();
    new.close();
    // A disk that is off stops this anywhere.
    let rest = |store: &Store| -> Option<()> {
        write(store, vec![edit("student", "p1", "桜")]).ok()?;
        carry_snapshot(&scene.old.store, store, &snapshot)?;
        carry(&scene.old.store, store, Tier::Daily)
    };
    let whole = served.fork();
    let new = scene.open(&whole);
    rest(&new.store).unwrap();
    new.close();
    let (first, last) = (served.counters().operations, whole.counters().operations);
    let mut kept = 0;
    for cut in first..last {
        let disk = served.fork();
        disk.reseed(cut);
        disk.cut_at(cut);
        let mut is_kept = false;
        if let Ok(new) = scene.try_open(&disk) {
            is_kept = write(&new.store, vec![edit("student", "p1", "桜")]).is_ok();
            rest(&new.store);
            new.close();
        }
        disk.power_cycle(Cut::Torn);
        let new = scene.open(&disk);
        assert_eq!(new.store.filling().waiting(), [Tier::Daily, Tier::Archive], "cut before operation {cut}");
        let name = new.store.record(Tier::Safety, "student", "p1").unwrap().unwrap();
        assert!(!is_kept || name.text("code") == Some("桜"), "cut before operation {cut}");
        kept += u64::from(is_kept);
        // What is on the shelf or laid already stays.
        rest(&new.store).or_else(|| carry(&scene.old.store, &new.store, Tier::Daily)).unwrap();
        assert_eq!(digest(&new.store, Tier::Daily), digest(&scene.old.store, Tier::Daily), "cut at {cut}");
        new.close();
    }
    assert!(kept > 20 && last - first > kept, "{kept} of {}", last - first);

    let new = scene.open(&whole);
    Tier::ALL.into_iter().for_each(|tier| new.store.filling().fill(tier).unwrap());
    new.store.filling().end().unwrap();
    assert!(block_on(new.store.mark()).is_ok(), "a store like any other");
    carry(&new.store, &scene.old.store, Tier::Safety).unwrap();
    assert_eq!(digest(&new.store, Tier::Safety), digest(&scene.old.store, Tier::Safety));
    new.close();
    scene.old.close();
}
