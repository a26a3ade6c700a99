//! A replica: what is on its disk, its engine, its view. Writes are real change lines, batches are really
//! sealed and opened.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::Batch;
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::clock::Clock;
use sonae_proto::destruction::Destroyed;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{ChangeId, LogName, Tier};
use sonae_proto::revocation::Revocations;
use sonae_proto::seal::open_lines;
use sonae_proto::uplink::{Alarm, Shown, Start, Uplink};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::view::{Applied, Fold, MemoryRecords, Records as _};

use crate::board::{Board, Life, school};

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Lines of own logs, kept.
    pub lines: BTreeMap<LogName, Vec<Vec<u8>>>,
    /// Sealed batches of own logs, in order.
    pub sealed: BTreeMap<LogName, Vec<Batch>>,
    pub receipted: Heads,
    pub loss_counter: u64,
    /// What the cloud has said last of own logs.
    pub shown: Option<Shown>,
    /// Batches of peers in the order in which they came.
    pub peers: Vec<Batch>,
    pub identities: Vec<IdentityText>,
}

pub struct Replica {
    pub life: Life,
    pub disk: Disk,
    pub engine: Uplink,
    pub fold: Fold,
    pub records: MemoryRecords,
    pub alarms: Vec<Alarm>,
    /// How often a new incarnation was asked for.
    pub renewals: usize,
    clock: Clock,
}

impl Replica {
    /// One that holds nothing and may begin with snapshots.
    pub fn fresh(board: &Board, life: Life) -> Self {
        Self::start(board, life, Disk::default(), 1, true)
    }

    pub fn new(board: &Board, life: Life, disk: Disk, jitter: u64) -> Self {
        Self::start(board, life, disk, jitter, false)
    }

    fn start(board: &Board, life: Life, disk: Disk, jitter: u64, snapshots: bool) -> Self {
        let mut peers = Heads::new();
        for batch in &disk.peers {
            peers.insert(batch.header().log, batch.header().head());
        }
        let verify = |text: &IdentityText| text.verify(&board.root.verifying_key(), school()).unwrap();
        let engine = Uplink::new(Start {
            school: school(),
            board: board.root.verifying_key(),
            cloud: board.descriptor(),
            jitter,
            loss_counter: disk.loss_counter,
            manifest_version: board.manifest.body().version,
            receipted: disk.receipted.clone(),
            shown: disk.shown.clone(),
            pruned: Heads::new(),
            own_batches: disk.sealed.values().flatten().map(|batch| *batch.header()).collect(),
            own: BTreeSet::from([life.name]),
            peers,
            identities: disk.identities.iter().map(verify).collect(),
            snapshots,
            revocations: Revocations::default(),
            destroyed: Destroyed::default(),
        });
        let fold = Fold::new(board.digest_key());
        let records = MemoryRecords::default();
        let clock = Clock::default();
        let mut replica = Self { life, disk, engine, fold, records, alarms: Vec::new(), renewals: 0, clock };
        for (log, lines) in replica.disk.lines.clone() {
            for (line, sequence) in lines.iter().zip(1..) {
                replica.apply(log, sequence, line);
            }
        }
        for batch in replica.disk.peers.clone() {
            replica.apply_batch(board, &batch);
        }
        replica.clock = Clock::after(replica.fold.highest_stamp);
        replica
    }

    fn apply(&mut self, log: LogName, sequence: u64, line: &[u8]) {
        let applied = self.fold.apply(&mut self.records, log, sequence, line).unwrap();
        assert!(matches!(applied, Applied::Changed(_)), "{applied:?}");
    }

    /// Opens a peer's batch and applies its lines.
    pub fn apply_batch(&mut self, board: &Board, batch: &Batch) {
        let lines = open_lines(batch.payload(), &board.open).unwrap();
        for (line, sequence) in lines.split_inclusive(|byte| *byte == b'\n').zip(batch.header().first..) {
            self.apply(batch.header().log, sequence, line);
        }
    }

    /// Writes one field as a person who sees the present value does, and keeps it.
    pub fn write(&mut self, tier: Tier, record: &str, value: u64, now_ms: u64) {
        let collection = ["student", "attendance", "grade_result"][usize::from(tier.number())];
        let seen = self.records.get(tier, collection, record).unwrap();
        let bases: Vec<ChangeId> = seen.fields.get("f").map(|field| field.bases()).unwrap_or_default();
        let change = Change {
            stamp: self.clock.next(now_ms),
            collection: collection.into(),
            record: record.into(),
            fields: BTreeMap::from([("f".into(), FieldWrite { value: value.into(), bases })]),
            who: Some("tanaka".into()),
            source: None,
            origin: None,
            rest: serde_json::Map::new(),
        };
        let log = self.life.log(tier);
        let line = change.to_line(self.life.name).unwrap();
        let lines = self.disk.lines.entry(log).or_default();
        lines.push(line.clone());
        let sequence = lines.len() as u64;
        self.apply(log, sequence, &line);
    }

    /// Seals what is kept and not sealed, at most `changes_max` changes a batch, and tells the engine.
    pub fn seal(&mut self, board: &Board, changes_max: usize, now_ms: u64) {
        for (log, lines) in &self.disk.lines {
            let sealed = self.disk.sealed.entry(*log).or_default();
            loop {
                let after = sealed.last().map_or(LogHead::EMPTY, |batch| batch.header().head());
                let done = usize::try_from(after.sequence).unwrap();
                let end = lines.len().min(done + changes_max);
                if done == end {
                    break;
                }
                let batch = board.seal(&self.life, log.tier, after, &lines[done..end]);
                sealed.push(batch.clone());
                self.engine.handle_sealed(batch.header(), now_ms);
            }
        }
    }

    /// Whether every kept change is called safe.
    pub fn all_safe(&self) -> bool {
        let receipted = self.engine.receipted();
        let safe = |log: &LogName| receipted.get(log).map_or(0, |head| head.sequence);
        self.disk.lines.iter().all(|(log, lines)| safe(log) == lines.len() as u64)
    }
}
