//! The outside witness of a run. It sees what boxes answered, what they call safe and what sites stored, and trusts
//! no driver.
//!
//! It checks: what was acknowledged is never lost, not by a power cut either; what is called safe is at the quorum
//! (with the [`Ledger`] of the sans-IO simulation); nothing was forked, nothing counted as lost, no new life asked
//! for; replication never stands still in silence; news of others arrive; what is promised in seconds is kept.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::record::RecordState;
use sonae_proto::vector::{LogHead, Sequences};
use sonae_store::{Kept, StoreState};

use super::node::Cloud;
use super::replica::{Life, Replica};
use crate::sim::ledger::Ledger;

/// After this long without progress while the line is up, a box must say so: five minutes, and what a look takes.
const SILENT_STALL_MS: u64 = 310_000;

/// How long news of another box may take over a line that is in order, beyond its round trips.
const NEWS_MS_MAX: u64 = 20_000;

/// A promise in seconds that was put to the test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// After what: `blackout 30 s`, `address change`.
    pub after: String,
    /// The line's round trip, in milliseconds.
    pub round_trip_ms: u64,
    /// Simulated milliseconds to the receipt.
    pub receipt_ms: u64,
    /// Whether nothing but time stood between box and cloud: no losses, and rest before.
    pub is_clean: bool,
    /// What is promised, where something is.
    pub limit_ms: Option<u64>,
}

/// A write that was acknowledged.
struct Acknowledged {
    collection: &'static str,
    record: String,
    field: &'static str,
    value: Value,
    sequences: Sequences,
}

/// What is known of one box from outside.
#[derive(Default)]
struct Book {
    /// Heads that it called safe.
    safe: BTreeMap<LogName, LogHead>,
    /// Since when replication makes no progress although the line is up.
    still_since: Option<u64>,
    /// Since when it lacks what others have stored.
    behind_since: Option<u64>,
}

/// The witness.
pub(crate) struct Oracle {
    ledger: Ledger,
    /// Batches by their hash, with the sites that have ever had them.
    stored: BTreeMap<Hash32, BTreeSet<usize>>,
    quorum: usize,
    books: Vec<Book>,
    acknowledged: Vec<Acknowledged>,
    pub measured: Vec<Measured>,
    pub violation: Option<String>,
}

impl Oracle {
    pub fn new(boxes: usize, quorum: usize) -> Self {
        Self {
            ledger: Ledger::new(quorum),
            stored: BTreeMap::new(),
            quorum,
            books: (0..boxes).map(|_| Book::default()).collect(),
            acknowledged: Vec::new(),
            measured: Vec::new(),
            violation: None,
        }
    }

    /// How many writes were acknowledged.
    pub fn acknowledgements(&self) -> usize {
        self.acknowledged.len()
    }

    /// Something is wrong. The first is what counts.
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// A box has answered a write.
    pub fn acknowledge(
        &mut self,
        (collection, record, field): (&'static str, &str, &'static str),
        value: Value,
        kept: Kept,
    ) {
        let (record, sequences) = (record.to_owned(), kept.sequences);
        self.acknowledged.push(Acknowledged { collection, record, field, value, sequences });
    }

    /// A promise in seconds was put to the test.
    pub fn measure(&mut self, measured: Measured) {
        if let Some(limit_ms) = measured.limit_ms.filter(|limit_ms| measured.receipt_ms > *limit_ms) {
            let Measured { after, round_trip_ms, receipt_ms, .. } = &measured;
            self.violate(format!(
                "{after}, round trip {round_trip_ms} ms: a receipt took {receipt_ms} ms, {limit_ms} are promised"
            ));
        }
        self.measured.push(measured);
    }

    /// Looks at everything. `is_calm`: nothing has been wrong with any line, site or box for a while.
    pub fn look(&mut self, now_ms: u64, replicas: &[Replica], cloud: &Cloud, is_calm: bool) {
        // What boxes claim is read before what sites have, which only grows.
        let states: Vec<_> = replicas.iter().map(|replica| replica.life.as_ref().map(Seen::of)).collect();
        for (site, disk) in cloud.disks.iter().enumerate() {
            for object in disk.take_stored() {
                self.ledger.written(&object, site);
                for batch in batches(&object) {
                    self.stored.entry(batch).or_default().insert(site);
                }
            }
        }
        if cloud.equivocations() > 0 {
            self.violate("the cloud has two histories of one log".to_owned());
        }
        for (slot, seen) in states.iter().enumerate() {
            let Some(seen) = seen else { continue };
            let claimed = self.claims(slot, seen, &replicas[slot]);
            let outcome = claimed.and_then(|()| self.progress(slot, seen, now_ms));
            if let Err(what) = outcome.and_then(|()| self.news(slot, &states, now_ms, is_calm)) {
                self.violate(format!("box {slot}: {what}"));
            }
        }
    }

    /// What was at the quorum of sites is there still, whatever was merged and deleted. `held` are all objects of each.
    pub fn keeps_the_quorum(&mut self, held: &[Vec<Bytes>]) {
        let mut sites: BTreeMap<Hash32, BTreeSet<usize>> = BTreeMap::new();
        for (site, objects) in held.iter().enumerate() {
            for batch in objects.iter().flat_map(|object| batches(object)) {
                sites.entry(batch).or_default().insert(site);
            }
        }
        let were_safe = self.stored.iter().filter(|(_, sites)| sites.len() >= self.quorum);
        let is_lost = |batch: &Hash32| sites.get(batch).map_or(0, BTreeSet::len) < self.quorum;
        let lost = were_safe.filter(|(batch, _)| is_lost(batch)).count();
        if lost > 0 {
            self.violate(format!("{lost} batch(es) that were at the quorum of sites are not any more"));
        }
    }

    fn claims(&mut self, slot: usize, seen: &Seen, replica: &Replica) -> Result<(), String> {
        if seen.state.loss_counter > 0 {
            return Err("it says that the cloud has lost something".to_owned());
        }
        if seen.wants_new_life {
            return Err("it wants a new incarnation".to_owned());
        }
        if let Some(reason) = &seen.state.failed {
            return Err(format!("its store has failed: {reason}"));
        }
        for (log, head) in seen.state.safe_heads.iter().filter(|(log, _)| log.incarnation == replica.name) {
            if self.books[slot].safe.insert(*log, *head) != Some(*head) {
                self.ledger.called_safe(*log, *head)?;
                self.ledger.promise(*log, *head);
            }
        }
        Ok(())
    }

    /// Whoever waits for a receipt for five minutes on a line that is up says so.
    fn progress(&mut self, slot: usize, seen: &Seen, now_ms: u64) -> Result<(), String> {
        let book = &mut self.books[slot];
        let moved = seen.last_safe_ms();
        if !seen.is_up || seen.unsafe_changes() == 0 {
            book.still_since = None;
            return Ok(());
        }
        let since = (*book.still_since.get_or_insert(now_ms)).max(moved);
        if now_ms.saturating_sub(since) > SILENT_STALL_MS && !seen.says_stalled {
            return Err(format!("no receipt for {} s, and not a word", (now_ms - since) / 1_000));
        }
        Ok(())
    }

    /// Whoever has a sound line hears what others have stored.
    fn news(&mut self, slot: usize, all: &[Option<Seen>], now_ms: u64, is_calm: bool) -> Result<(), String> {
        let promised = self.ledger.promised();
        let has = |log: &LogName| {
            let state = all[slot].as_ref().map(|seen| &seen.state.vector);
            state.and_then(|vector| vector.get(log)).copied().unwrap_or(0)
        };
        let lacks = promised.iter().find(|(log, head)| has(log) < head.sequence);
        let book = &mut self.books[slot];
        let Some((log, head)) = lacks.filter(|_| is_calm) else {
            book.behind_since = None;
            return Ok(());
        };
        let since = *book.behind_since.get_or_insert(now_ms);
        if now_ms - since > NEWS_MS_MAX {
            return Err(format!("it has {log} up to {} and hears nothing of {}", has(log), head.sequence));
        }
        Ok(())
    }

    /// What a box had before it lost its power is still there.
    pub fn recovered(&mut self, slot: usize, before: &StoreState, life: &Life) {
        let after = life.store.state();
        for (tier, point) in &before.kept {
            let kept = after.kept.get(tier).map_or(0, |point| point.sequence);
            if kept < point.sequence {
                let acknowledged = point.sequence;
                self.violate(format!(
                    "box {slot}: tier {tier}: {acknowledged} acknowledged, {kept} recovered"
                ));
            }
        }
    }

    /// Whether all boxes are whole, equal and safe; else what is missing.
    pub fn converged(&self, replicas: &[Replica]) -> Result<(), String> {
        let mut digests = BTreeMap::new();
        for (slot, replica) in replicas.iter().enumerate() {
            let Some(life) = &replica.life else { return Err(format!("box {slot} does not run")) };
            let seen = Seen::of(life);
            if !seen.is_up {
                return Err(format!("box {slot} has no line"));
            }
            if seen.unsafe_changes() > 0 {
                return Err(format!("box {slot} has {} change(s) that are not safe", seen.unsafe_changes()));
            }
            if seen.says_stalled {
                return Err(format!("box {slot} still says that replication stands still"));
            }
            let has = |log: &LogName| seen.state.vector.get(log).copied().unwrap_or(0);
            let known = self.acknowledged.iter().flat_map(|one| one.sequences.iter());
            if let Some((log, sequence)) = known.clone().find(|(log, sequence)| has(log) < **sequence) {
                return Err(format!("box {slot} has {log} up to {}, not {sequence}", has(log)));
            }
            digests.insert(slot, seen.state.digests);
        }
        let first = digests.values().next();
        match digests.iter().find(|(_, digest)| Some(*digest) != first) {
            Some((slot, _)) => Err(format!("boxes 0 and {slot} have the same changes and another state")),
            None => Ok(()),
        }
    }

    /// Every record still has the value that was written to it last.
    pub fn complete(&mut self, replicas: &[Replica]) {
        let mut last: BTreeMap<_, &Acknowledged> = BTreeMap::new();
        for one in &self.acknowledged {
            last.insert((one.collection, &one.record, one.field), one);
        }
        let mut lost = None;
        for (slot, replica) in replicas.iter().enumerate() {
            let Some(life) = &replica.life else { continue };
            for one in last.values() {
                let tier =
                    sonae_proto::collection::find(one.collection).map_or(Tier::Safety, |known| known.tier);
                let record = life.store.record(tier, one.collection, &one.record).ok().flatten();
                if !stands(record.as_ref(), one) {
                    lost = Some(format!(
                        "box {slot}: {}/{} lost {} of {}",
                        one.collection, one.record, one.value, one.field
                    ));
                }
            }
        }
        lost.into_iter().for_each(|what| self.violate(what));
    }
}

fn batches(object: &[u8]) -> Vec<Hash32> {
    let of_kind =
        object::records(object).0.into_iter().filter(|record| record.kind == Some(RecordKind::Batch));
    of_kind.map(|record| Hash32(*blake3::hash(record.body).as_bytes())).collect()
}

fn stands(record: Option<&RecordState>, one: &Acknowledged) -> bool {
    let field = record.and_then(|record| record.fields.get(one.field));
    field.is_some_and(|field| field.heads.iter().any(|head| head.value == one.value))
}

/// What a box says of itself at one moment.
pub(crate) struct Seen {
    state: StoreState,
    is_up: bool,
    says_stalled: bool,
    wants_new_life: bool,
}

impl Seen {
    pub fn of(life: &Life) -> Self {
        let uplink = life.shared.get();
        Self {
            state: life.store.state(),
            is_up: uplink.up,
            says_stalled: uplink.stalled_since.is_some(),
            wants_new_life: *life.renew.borrow(),
        }
    }

    pub fn unsafe_changes(&self) -> u64 {
        self.state.unsafe_by_tier.values().sum()
    }

    /// Whether the line is up and everything is safe.
    pub fn is_at_rest(&self) -> bool {
        self.is_up && self.unsafe_changes() == 0
    }

    /// When the last receipt came, in milliseconds since the start.
    fn last_safe_ms(&self) -> u64 {
        let last = self.state.safe.values().map(|point| point.at_ms).max().unwrap_or(0);
        last.saturating_sub(super::time::BEGIN_MS)
    }
}
