//! One log as a node of the cloud knows it: what is stored, what is on its way, what waits for its turn.
//!
//! **Invariant**: `stored` is one unbroken chain from the first batch on.
//! **Invariant**: a batch counts as durable only when it and all before it are on the quorum of sites.
//! **Invariant**: whoever offered a batch gets exactly one answer, or is gone.

use std::collections::BTreeMap;

use crate::batch::{Batch, BatchHeader};
use crate::ids::Hash32;
use crate::planted::{Defect, is_planted};
use crate::receipt::SiteId;
use crate::vector::LogHead;
use crate::wire::RefusalCode;

use super::{ConnectionId, Location, ReplyTo};

/// Batches of one log that may wait for an earlier one. Streams arrive in any order; the edge has at most 16
/// batches in flight.
const WAITING_MAX: usize = 32;

/// A batch that is on a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its header.
    pub header: BatchHeader,
    /// Where its bytes are.
    pub location: Location,
}

/// Somebody who waits for a receipt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub to: ReplyTo,
    pub loss_counter: u64,
}

#[derive(Debug)]
struct OnItsWay {
    header: BatchHeader,
    waiters: Vec<Waiter>,
}

/// A stored batch and the sites that are known to have it.
#[derive(Debug)]
pub(super) struct Entry {
    pub batch: StoredBatch,
    pub sites: Vec<SiteId>,
}

impl Entry {
    /// The batch was found again. What was written anew, because it lay on too few sites, is read there from now on: where
    /// it lay before, some of them may have it damaged.
    pub fn add(&mut self, found: Self) {
        if found.sites.len() >= self.sites.len() {
            self.batch = found.batch;
        }
        for site in found.sites {
            if !self.sites.contains(&site) {
                self.sites.push(site);
            }
        }
    }
}

/// One log.
#[derive(Debug, Default)]
pub(super) struct Log {
    stored: Vec<Entry>,
    /// How many of `stored`, from the first on, are on the quorum.
    durable: usize,
    /// By last sequence and hash: after a failed write two branches may be on their way for a moment.
    on_their_way: BTreeMap<(u64, Hash32), OnItsWay>,
    /// By first sequence: verified, but an earlier one is missing.
    waiting: BTreeMap<u64, (Batch, Vec<Waiter>)>,
}

/// What to do with a batch that was offered.
pub(super) enum Offer {
    /// It is durable on these sites already.
    Durable(Vec<SiteId>),
    /// Its turn has not come, or it is on its way: the reply comes later.
    Wait,
    /// Store these, in order; those whose place another batch took are refused.
    Store { ready: Vec<Batch>, misfits: Vec<ReplyTo> },
    /// Refuse it.
    Refuse(RefusalCode),
}

/// Somebody whose batch is durable.
pub(super) struct DurableWaiter {
    pub to: ReplyTo,
    pub loss_counter: u64,
    pub head: LogHead,
    pub sites: Vec<SiteId>,
}

/// What a finished write changes.
#[derive(Default)]
pub(super) struct StoreOutcome {
    pub durable: Vec<DurableWaiter>,
    pub failed: Vec<ReplyTo>,
    pub moved: Option<LogHead>,
}

impl Log {
    /// Returns the head of what is stored; `None` for an empty log.
    pub(super) fn head(&self) -> Option<LogHead> {
        self.stored.last().map(|entry| entry.batch.header.head())
    }

    /// Returns the head of what is stored and what is on its way to continue it.
    fn tail(&self) -> LogHead {
        let mut tail = self.head().unwrap_or(LogHead::EMPTY);
        for (key, way) in &self.on_their_way {
            if way.header.continues(&tail) {
                tail = LogHead { sequence: key.0, hash: key.1 };
            }
        }
        tail
    }

    fn find(&self, header: &BatchHeader) -> Option<usize> {
        let index = self.stored.partition_point(|entry| entry.batch.header.last < header.last);
        self.stored.get(index).filter(|entry| entry.batch.header == *header).map(|_| index)
    }

    /// Whether a batch is stored, or on its way.
    pub(super) fn knows(&self, header: &BatchHeader) -> bool {
        self.on_their_way.contains_key(&(header.last, header.hash())) || self.find(header).is_some()
    }

    fn advance_durable(&mut self, quorum: usize) {
        while self.stored.get(self.durable).is_some_and(|entry| entry.sites.len() >= quorum) {
            self.durable += 1;
        }
    }

    /// Returns whether the batch is part of the log now.
    pub(super) fn load(&mut self, batch: StoredBatch, sites: Vec<SiteId>) -> bool {
        if let Some(entry) = self.find(&batch.header).and_then(|index| self.stored.get_mut(index)) {
            entry.add(Entry { batch, sites });
            return true;
        }
        let continues = batch.header.continues(&self.head().unwrap_or(LogHead::EMPTY));
        if continues {
            self.stored.push(Entry { batch, sites });
        }
        continues
    }

    pub(super) fn offer(&mut self, batch: &Batch, to: ReplyTo, loss_counter: u64, quorum: usize) -> Offer {
        let header = batch.header();
        let waiter = Waiter { to, loss_counter };
        let key = (header.last, header.hash());
        if let Some(way) = self.on_their_way.get_mut(&key) {
            if !is_planted(Defect::SecondAskerForgotten) {
                way.waiters.push(waiter);
            }
            return Offer::Wait;
        }
        if let Some(index) = self.find(header) {
            return self.offer_again(index, batch, waiter, quorum);
        }
        let tail = self.tail();
        if header.first <= tail.sequence {
            return Offer::Refuse(RefusalCode::Fork);
        }
        if header.first > tail.sequence + 1 {
            return self.offer_early(batch, waiter);
        }
        if !header.continues(&tail) && !is_planted(Defect::ChainNotChecked) {
            return Offer::Refuse(RefusalCode::Chain);
        }
        self.on_their_way.insert(key, OnItsWay { header: *header, waiters: vec![waiter] });
        let mut ready = vec![batch.clone()];
        let misfits = self.promote(&mut ready);
        Offer::Store { ready, misfits }
    }

    /// Lets those go that waited for what is on its way now, and returns those whose place another batch took.
    /// What waits may be on its way already, after a write that failed: then both askers get its answer.
    fn promote(&mut self, ready: &mut Vec<Batch>) -> Vec<ReplyTo> {
        let mut misfits = Vec::new();
        loop {
            let tail = self.tail();
            let later = self.waiting.split_off(&(tail.sequence + 1));
            for (passed, waiters) in std::mem::replace(&mut self.waiting, later).into_values() {
                let key = (passed.header().last, passed.header().hash());
                match self.on_their_way.get_mut(&key) {
                    Some(way) => way.waiters.extend(waiters),
                    None => misfits.extend(waiters.iter().map(|waiter| waiter.to)),
                }
            }
            let Some((next, waiters)) = self.waiting.remove(&(tail.sequence + 1)) else { return misfits };
            if next.header().continues(&tail) {
                let (header, head) = (*next.header(), next.header().head());
                self.on_their_way.insert((head.sequence, head.hash), OnItsWay { header, waiters });
                ready.push(next);
            } else {
                misfits.extend(waiters.iter().map(|waiter| waiter.to));
            }
        }
    }

    /// A batch that is stored already.
    fn offer_again(&mut self, index: usize, batch: &Batch, waiter: Waiter, quorum: usize) -> Offer {
        self.advance_durable(quorum);
        let sites = self.stored.get(index).map(|entry| entry.sites.clone()).unwrap_or_default();
        if index < self.durable {
            return Offer::Durable(sites);
        }
        if sites.len() >= quorum {
            // One before it is on too few sites: its receipt would claim that one as well.
            return Offer::Refuse(RefusalCode::Storage);
        }
        // Found on too few sites at the start: write it again, under a new name.
        let header = *batch.header();
        let way = OnItsWay { header, waiters: vec![waiter] };
        self.on_their_way.insert((header.last, header.hash()), way);
        Offer::Store { ready: vec![batch.clone()], misfits: Vec::new() }
    }

    /// A batch that came before its turn.
    fn offer_early(&mut self, batch: &Batch, waiter: Waiter) -> Offer {
        let first = batch.header().first;
        if let Some((known, waiters)) = self.waiting.get_mut(&first) {
            if known.header() != batch.header() {
                return Offer::Refuse(RefusalCode::Fork);
            }
            waiters.push(waiter);
            return Offer::Wait;
        }
        if self.waiting.len() >= WAITING_MAX {
            // It passes: the log is sound, only too much of it is under way at once.
            return Offer::Refuse(RefusalCode::Unexpected);
        }
        self.waiting.insert(first, (batch.clone(), vec![waiter]));
        Offer::Wait
    }

    pub(super) fn stored(
        &mut self,
        batch: LogHead,
        location: &Location,
        sites: &[SiteId],
        quorum: usize,
    ) -> StoreOutcome {
        let mut outcome = StoreOutcome::default();
        let Some(way) = self.on_their_way.remove(&(batch.sequence, batch.hash)) else { return outcome };
        let header = way.header;
        let known = self.find(&header);
        let continues =
            header.continues(&self.head().unwrap_or(LogHead::EMPTY)) || is_planted(Defect::ChainNotChecked);
        let quorum = if is_planted(Defect::ReceiptOfOneSite) { 1 } else { quorum };
        if sites.len() < quorum || (known.is_none() && !continues) {
            outcome.failed = way.waiters.iter().map(|waiter| waiter.to).collect();
            return outcome;
        }
        let entry =
            Entry { batch: StoredBatch { header, location: location.clone() }, sites: sites.to_vec() };
        let index = known.unwrap_or(self.stored.len());
        match self.stored.get_mut(index) {
            Some(place) => *place = entry,
            None => {
                self.stored.push(entry);
                outcome.moved = Some(batch);
            }
        }
        self.advance_durable(quorum);
        if index >= self.durable && !is_planted(Defect::ReceiptBehindHole) {
            outcome.failed = way.waiters.iter().map(|waiter| waiter.to).collect();
            return outcome;
        }
        outcome.durable = way
            .waiters
            .into_iter()
            .map(|waiter| DurableWaiter {
                to: waiter.to,
                loss_counter: waiter.loss_counter,
                head: batch,
                sites: sites.to_vec(),
            })
            .collect();
        outcome
    }

    /// Learns where a stored batch lies now. Returns whether it is part of this log.
    pub(super) fn relocate(&mut self, moved: &StoredBatch) -> bool {
        let entry = self.find(&moved.header).and_then(|index| self.stored.get_mut(index));
        entry.map(|entry| entry.batch.location = moved.location.clone()).is_some()
    }

    /// Whether a batch that ends the log there is durable, with all before it.
    pub(super) fn has_durable(&self, head: LogHead, quorum: usize) -> bool {
        let index = self.stored.partition_point(|entry| entry.batch.header.last < head.sequence);
        let before = self.stored.get(self.durable..=index).unwrap_or_default();
        self.stored.get(index).is_some_and(|entry| entry.batch.header.head() == head)
            && before.iter().all(|entry| entry.sites.len() >= quorum)
    }

    /// Whether a stored batch ends there, or the log begins there.
    pub(super) fn has(&self, head: LogHead) -> bool {
        let index = self.stored.partition_point(|entry| entry.batch.header.last < head.sequence);
        head == LogHead::EMPTY
            || self.stored.get(index).is_some_and(|entry| entry.batch.header.head() == head)
    }

    /// Cuts off what lies behind `end`, or beside it. What waits there for its turn is forgotten: it is not stored,
    /// and whoever sent it is sent away.
    pub(super) fn cut(&mut self, end: LogHead) -> Vec<Entry> {
        let counts = |header: &BatchHeader| header.last < end.sequence || header.head() == end;
        let keep = self.stored.iter().take_while(|entry| counts(&entry.batch.header)).count();
        self.durable = self.durable.min(keep);
        self.waiting.retain(|_, (batch, _)| counts(batch.header()));
        self.stored.split_off(keep)
    }

    /// Appends batches that continue the log.
    pub(super) fn extend(&mut self, entries: Vec<Entry>) {
        self.stored.extend(entries);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.on_their_way.is_empty() && self.waiting.is_empty()
    }

    /// Returns the header of a batch that is on its way.
    pub(super) fn on_its_way(&self, head: LogHead) -> Option<BatchHeader> {
        self.on_their_way.get(&(head.sequence, head.hash)).map(|way| way.header)
    }

    /// Takes a batch off its way into the log. Returns who waits for it.
    pub(super) fn divert(&mut self, head: LogHead) -> Vec<ReplyTo> {
        let way = self.on_their_way.remove(&(head.sequence, head.hash));
        way.into_iter().flat_map(|way| way.waiters).map(|waiter| waiter.to).collect()
    }

    /// Returns the stored batches that hold changes after `sequence`.
    pub(super) fn after(&self, sequence: u64) -> Vec<StoredBatch> {
        let start = self.stored.partition_point(|entry| entry.batch.header.last <= sequence);
        self.stored.iter().skip(start).map(|entry| entry.batch.clone()).collect()
    }

    pub(super) fn forget_waiters(&mut self, connection: ConnectionId) {
        for way in self.on_their_way.values_mut() {
            way.waiters.retain(|waiter| waiter.to.connection != connection);
        }
        for (_, waiters) in self.waiting.values_mut() {
            waiters.retain(|waiter| waiter.to.connection != connection);
        }
        self.waiting.retain(|_, (_, waiters)| !waiters.is_empty());
    }
}

#[cfg(test)]
mod tests;
