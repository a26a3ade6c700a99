//! One running box: its store, its engine, its view, and the model that watches the view.
//!
//! **Invariant**: nothing is applied to the view or told to the engine before it is kept.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use sonae_proto::batch::Batch;
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::clock::{Clock, Stamp};
use sonae_proto::destruction::Destroyed;
use sonae_proto::ids::{ChangeId, Hash32, LogName, Tier};
use sonae_proto::neighbours::Neighbours;
use sonae_proto::uplink::{Start, Uplink};
use sonae_proto::vector::LogHead;
use sonae_proto::view::{Applied, Fold, MemoryRecords, Records as _};

use super::board::{Board, Life};
use super::later;
use super::model::Model;
use super::pruning::Waiting;
use super::seal;
use super::snapshots::Witnessed;
use super::store::{Held, Store, length};

/// A running box.
pub(crate) struct Replica {
    pub store: Store,
    pub engine: Uplink,
    pub neighbours: Neighbours,
    pub fold: Fold,
    pub model: Model,
    pub records: MemoryRecords,
    clock: Clock,
    /// Own logs that the engine sends no more, because the cloud has another history of them.
    pub stopped: BTreeSet<LogName>,
    /// The cloud's last word to a batch was that it cannot store.
    pub cannot_store: bool,
    /// Those of which people were told.
    pub told: BTreeSet<LogName>,
    /// What was sent on the present connection: log and first sequence.
    pub sent: BTreeSet<(LogName, u64)>,
    /// Changes that had no effect, because their records were erased.
    pub without_effect: u64,
    /// What it waits to prune. A start forgets it.
    pub waiting: Option<Waiting>,
}

impl Replica {
    /// Starts from what is kept. `witnessed` knows what snapshots add up to.
    pub fn start(
        board: &Board,
        life: &Life,
        store: Store,
        told_ms: u64,
        words: u64,
        witnessed: &BTreeMap<Hash32, Witnessed>,
        relays: bool,
    ) -> Result<Self> {
        let mut engine = Uplink::new(start(board, life, &store.held, told_ms, words)?);
        if relays {
            engine.set_relay();
        }
        if store.held.shelf.is_empty() {
            engine.ask_at_once();
        }
        let fold = Fold::new(board.digest_key());
        let mut replica = Self {
            engine,
            neighbours: Neighbours::new(life.name, store.held.heads()),
            fold,
            model: Model::default(),
            records: MemoryRecords::default(),
            clock: Clock::default(),
            stopped: BTreeSet::new(),
            cannot_store: false,
            told: BTreeSet::new(),
            sent: BTreeSet::new(),
            without_effect: 0,
            waiting: None,
            store,
        };
        for (tier, root) in replica.store.held.shelf.foundations.clone() {
            let laid = replica.lay(board, root, witnessed);
            laid.map_err(|text| anyhow!("what tier {tier} begins with {text}"))?;
        }
        replica.resume_snapshots(board, life);
        for (log, lines) in replica.store.held.lines.clone() {
            for (line, sequence) in lines.iter().zip(1..) {
                replica.apply(log, sequence, line)?;
            }
        }
        for batch in replica.store.held.peers.clone().values().flatten() {
            replica.apply_batch(batch, told_ms)?;
        }
        // As the keeper does: a far future in the view must not drag the own clock along.
        replica.clock.observe(replica.fold.highest_stamp, told_ms);
        Ok(replica)
    }

    /// Applies a line that is kept.
    pub fn apply(&mut self, log: LogName, sequence: u64, line: &[u8]) -> Result<Option<Stamp>> {
        let applied = self.fold.apply(&mut self.records, log, sequence, line)?;
        let mut stamp = None;
        match applied {
            Applied::Changed(change) => {
                let id = change.origin.unwrap_or(ChangeId { incarnation: log.incarnation, sequence });
                self.model.apply(log, id, &change, &self.records).map_err(|text| anyhow!(text))?;
                stamp = Some(change.stamp);
            }
            // Right only for what came under another name before; the model notices what is missing then.
            Applied::Duplicate if self.is_known(log, sequence, line) => {}
            Applied::Duplicate => bail!("change {sequence} of log {log} was passed over"),
            Applied::Erased => {
                let change = Change::from_line(line, log.incarnation)?;
                let id = change.origin.unwrap_or(ChangeId { incarnation: log.incarnation, sequence });
                self.model.pass_erased(log, id, &change).map_err(|text| anyhow!(text))?;
                self.without_effect += 1;
            }
            Applied::Unreadable => bail!("change {sequence} of log {log} cannot be read"),
        }
        self.model.pass(log, sequence, line);
        Ok(stamp)
    }

    fn is_known(&self, log: LogName, sequence: u64, line: &[u8]) -> bool {
        let origin = Change::from_line(line, log.incarnation).ok().and_then(|change| change.origin);
        let id = origin.unwrap_or(ChangeId { incarnation: log.incarnation, sequence });
        self.fold.applied(log) == sequence && self.model.has(log.tier, id)
    }

    /// Applies a peer's batch that is kept.
    pub fn apply_batch(&mut self, batch: &Batch, told_ms: u64) -> Result<()> {
        let header = batch.header();
        for (line, sequence) in seal::open(batch.payload()).iter().zip(header.first..) {
            if let Some(stamp) = self.apply(header.log, sequence, line)? {
                self.clock.observe(stamp, told_ms);
            }
        }
        Ok(())
    }

    /// Makes the line of one write, as a person makes it who sees the present value.
    pub fn draft(
        &mut self,
        life: &Life,
        tier: Tier,
        record: usize,
        value: u64,
        told_ms: u64,
        is_later: bool,
    ) -> Result<Draft> {
        let is_known = !is_later || value.is_multiple_of(2);
        let collection = if is_known { collection(tier) } else { later::COLLECTION };
        let record = self.present(tier, collection, record);
        let Ok(seen) = self.records.get(tier, collection, &record);
        let bases = seen.fields.get("f").map(|field| field.bases()).unwrap_or_default();
        let mut change = Change {
            stamp: self.clock.next(told_ms),
            collection: collection.into(),
            record,
            fields: BTreeMap::from([("f".into(), FieldWrite { value: value.into(), bases })]),
            who: Some("tanaka".into()),
            source: None,
            origin: None,
            rest: serde_json::Map::new(),
        };
        if is_later {
            later::write(&mut change, &seen);
        }
        Ok(Draft { log: life.log(tier), stamp: change.stamp, line: change.to_line(life.name)? })
    }

    /// The stamp of the next own change.
    pub fn next_stamp(&mut self, told_ms: u64) -> Stamp {
        self.clock.next(told_ms)
    }

    /// The sequence of the next own change of a log.
    pub fn next_sequence(&self, log: LogName) -> u64 {
        self.store.held.lines.get(&log).map_or(0, |lines| length(lines)) + 1
    }

    /// What is kept and not sealed of a tier, at most `changes_max` lines, and the head before it.
    pub fn unsealed(&self, log: LogName, changes_max: usize) -> (LogHead, Vec<Vec<u8>>) {
        let after = self.store.held.sealed_head(log);
        let done = usize::try_from(after.sequence).unwrap_or(usize::MAX);
        let lines = self.store.held.lines.get(&log).into_iter().flatten();
        (after, lines.skip(done).take(changes_max).cloned().collect())
    }

    /// Whether every kept change is called safe; a log that the engine has stopped ends with its incarnation.
    pub fn all_safe(&self) -> bool {
        let receipted = self.engine.receipted();
        let safe = |log: &LogName| receipted.get(log).map_or(0, |head| head.sequence);
        self.store.held.lines.iter().all(|(log, lines)| safe(log) == length(lines))
    }
}

/// A line that is to be kept.
pub(crate) struct Draft {
    pub log: LogName,
    pub stamp: Stamp,
    pub line: Vec<u8>,
}

/// The collection of a tier that people write to.
pub(crate) const fn collection(tier: Tier) -> &'static str {
    match tier {
        Tier::Safety => "student",
        Tier::Daily => "attendance",
        Tier::Archive => "grade_result",
    }
}

fn start(board: &Board, life: &Life, held: &Held, told_ms: u64, words: u64) -> Result<Start> {
    let root = board.root.verifying_key();
    let identities = held.identities.iter().map(|text| board.identity(text));
    Ok(Start {
        school: board.school,
        board: root,
        cloud: board.descriptor(),
        jitter: told_ms,
        loss_counter: held.loss_counter,
        manifest_version: words,
        receipted: held.receipted.clone(),
        shown: held.shown.clone(),
        pruned: held.pruned.clone(),
        own_batches: held.own_batches(),
        own: BTreeSet::from([life.name]),
        peers: held.peer_heads(),
        identities: identities.collect::<Result<_, _>>()?,
        snapshots: life.rebuilds && !held.is_rebuilt,
        revocations: board.revocations_at(words),
        destroyed: Destroyed::default(),
    })
}
