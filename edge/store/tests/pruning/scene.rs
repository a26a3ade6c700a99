//! A replica with told clocks, what the cloud would say to it, and what its proofs would find.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::proof::{Proof, ProofResult};
use sonae_proto::vector::Heads;
use sonae_store::identity::ReplicaKeys;
use sonae_store::proof::Proofs;
use sonae_store::retention::Retention;
use sonae_store::testing::{Board, opening};
use sonae_store::{Action, Clock, Disk, Edit, Opened, Options, RealDisk, Store, enrolment};

pub const DAY_MS: u64 = 86_400_000;

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A replica that can be closed and opened.
pub struct Scene {
    _dir: tempfile::TempDir,
    pub data: PathBuf,
    pub bundle: ReplicaBundle,
    pub board: Board,
    /// What the clock on the wall shows, and the steady one.
    pub wall: Arc<AtomicU64>,
    pub steady: Arc<AtomicU64>,
    disk: Arc<dyn Disk>,
    pub proofs: Proofs,
    number: u64,
}

impl Scene {
    pub fn new() -> Self {
        Self::on(Arc::new(RealDisk))
    }

    /// One whose journal, batches and snapshots lie on a disk of the caller's.
    pub fn on(disk: Arc<dyn Disk>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let board = Board::default();
        let bundle = board.bundle();
        drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
        let told = |ms| Arc::new(AtomicU64::new(ms));
        let (wall, steady) = (told(1_780_000_000_000), told(70 * 365 * DAY_MS));
        Self { _dir: dir, data, bundle, board, wall, steady, disk, proofs: Proofs::default(), number: 0 }
    }

    pub fn open_on(&self, disk: Arc<dyn Disk>, options: Options) -> Result<Opened, sonae_store::StoreError> {
        let (wall, steady) = (Arc::clone(&self.wall), Arc::clone(&self.steady));
        let clock =
            Clock::told_apart(move || wall.load(Ordering::Relaxed), move || steady.load(Ordering::Relaxed));
        Store::open(opening(&self.data, &self.bundle, clock, disk, options))
    }

    pub fn open(&self) -> Opened {
        self.open_on(Arc::clone(&self.disk), Options::default()).unwrap()
    }

    /// The box runs for so long; both clocks know it.
    pub fn run(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::Relaxed);
        self.steady.fetch_add(ms, Ordering::Relaxed);
    }

    /// A proof ends at the present heads, through these snapshots, and the cloud takes its evidence if `published`.
    pub fn prove(
        &mut self,
        store: &Store,
        result: ProofResult,
        snapshots: BTreeMap<Tier, Hash32>,
        published: bool,
    ) {
        self.number += 1;
        let keys = ReplicaKeys::load(&self.data, &self.bundle).unwrap();
        let mark = block_on(store.mark()).unwrap();
        let proof = Proof {
            school: store.school(),
            incarnation: keys.name(),
            number: self.number,
            result,
            cause: if result == ProofResult::Proved { "" } else { "missing" }.to_owned(),
            tiers: Vec::new(),
            heads: mark.heads,
            digests: mark.digests,
            merge_version: 1,
            began_ms: self.wall.load(Ordering::Relaxed),
            duration_ms: 1,
            bytes: 1,
            software: "test".into(),
            snapshots,
        };
        let signed = proof.sign(&keys.incarnation).unwrap();
        self.proofs.end(&signed, String::new());
        if published {
            self.proofs.published(signed.text());
        }
    }

    /// Brings about all that a prune waits for but its last look.
    pub fn ripen(&mut self, store: &Store, retention: &mut Retention) -> Hash32 {
        let snapshot = store.make_snapshot_blocking(Tier::Daily).unwrap();
        receipts(store);
        store.snapshot_safe(Tier::Daily, snapshot.hash());
        settle(store);
        retention.look(store, &self.proofs);
        self.prove(store, ProofResult::Proved, [(Tier::Daily, snapshot.hash())].into(), true);
        retention.look(store, &self.proofs);
        self.prove(store, ProofResult::Proved, BTreeMap::new(), true);
        retention.look(store, &self.proofs);
        snapshot.hash()
    }
}

/// Writes records of attendance, each a change of one action.
pub fn write(store: &Store, records: std::ops::Range<usize>, value: &str) {
    let edit = |n: usize| Edit {
        collection: "attendance".into(),
        record: format!("2026-04-01/p{n:05}/day"),
        fields: BTreeMap::from([("code".into(), value.into())]),
        seen: None,
    };
    for start in records.clone().step_by(50) {
        let edits = (start..records.end.min(start + 50)).map(edit).collect();
        store.write_blocking(Action { who: Some("tester".into()), source: None, edits }).unwrap();
    }
    block_on(store.seal_now());
}

/// What waits for a round to be durable is done after the second.
pub fn settle(store: &Store) {
    block_on(store.seal_now());
    block_on(store.seal_now());
}

/// Brings receipts for all that is sealed.
pub fn receipts(store: &Store) {
    settle(store);
    for (log, headers) in block_on(store.held()).unwrap() {
        if let Some(last) = headers.last() {
            store.keep_receipt(log, last.head(), vec![7; 100]);
        }
    }
    settle(store);
}

/// The ends of all batches that are held, and where logs begin.
pub fn held(store: &Store) -> (Vec<Vec<u8>>, Heads) {
    let held = block_on(store.held()).unwrap();
    let bytes = held.into_iter().flat_map(|(log, headers)| {
        headers.into_iter().map(move |header| block_on(store.batch(log, header.first)).unwrap())
    });
    (bytes.collect(), store.state().pruned)
}

/// The state, as people and digests see it.
pub fn essence(store: &Store) -> String {
    let state = store.state();
    let records = store.records(Tier::Daily, "attendance", "").unwrap();
    let texts =
        records.into_iter().map(|(id, state)| format!("{id} {}", serde_json::to_string(&state).unwrap()));
    format!("{:?} {:?} {:?} {:?}", state.digests, state.vector, state.kept, texts.collect::<Vec<_>>())
}
