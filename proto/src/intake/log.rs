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

#[derive(Debug, Clone, Copy)]
struct Waiter {
    to: ReplyTo,
    loss_counter: u64,
}

#[derive(Debug)]
struct OnItsWay {
    header: BatchHeader,
    waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct Entry {
    batch: StoredBatch,
    sites: Vec<SiteId>,
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

    fn advance_durable(&mut self, quorum: usize) {
        while self.stored.get(self.durable).is_some_and(|entry| entry.sites.len() >= quorum) {
            self.durable += 1;
        }
    }

    /// Returns whether the batch is part of the log now.
    pub(super) fn load(&mut self, batch: StoredBatch, sites: Vec<SiteId>) -> bool {
        if let Some(entry) = self.find(&batch.header).and_then(|index| self.stored.get_mut(index)) {
            for site in sites {
                if !entry.sites.contains(&site) {
                    entry.sites.push(site);
                }
            }
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
        let mut ready = vec![batch.clone()];
        let mut misfits = Vec::new();
        let mut end = LogHead { sequence: key.0, hash: key.1 };
        self.on_their_way.insert(key, OnItsWay { header: *header, waiters: vec![waiter] });
        while let Some((next, waiters)) = self.waiting.remove(&(end.sequence + 1)) {
            if !next.header().continues(&end) {
                misfits.extend(waiters.iter().map(|waiter| waiter.to));
                break;
            }
            end = next.header().head();
            let way = OnItsWay { header: *next.header(), waiters };
            self.on_their_way.insert((end.sequence, end.hash), way);
            ready.push(next);
        }
        let later = self.waiting.split_off(&(end.sequence + 1));
        let passed = std::mem::replace(&mut self.waiting, later);
        misfits.extend(passed.into_values().flat_map(|(_, waiters)| waiters).map(|waiter| waiter.to));
        Offer::Store { ready, misfits }
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
            return Offer::Refuse(RefusalCode::Chain);
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
mod tests {
    use super::*;
    use crate::batch::Place;
    use crate::ids::{Incarnation, LogName, Tier};
    use ed25519_dalek::SigningKey;

    const QUORUM: usize = 2;
    const BOTH: [SiteId; 2] = [[1; 16], [2; 16]];

    fn batch(after: LogHead, payload: &[u8]) -> Batch {
        let log = LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([1; 16]) };
        let place = Place {
            school: "B113200000011".parse().unwrap(),
            log,
            after,
            last: after.sequence + 1,
            epoch: 2026,
            manifest: Hash32([4; 32]),
        };
        Batch::sign(&place, payload, &SigningKey::from_bytes(&[5; 32])).unwrap()
    }

    fn chain(count: usize) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for _ in 0..count {
            let after = batches.last().map_or(LogHead::EMPTY, |batch| batch.header().head());
            batches.push(batch(after, b"x"));
        }
        batches
    }

    fn place() -> Location {
        Location { object: "o".into(), offset: 0, bytes: 1 }
    }

    fn to(stream: u64) -> ReplyTo {
        ReplyTo { connection: ConnectionId(1), stream }
    }

    fn load(log: &mut Log, batch: &Batch, sites: &[SiteId]) {
        assert!(log.load(StoredBatch { header: *batch.header(), location: place() }, sites.to_vec()));
    }

    fn stored(log: &mut Log, batch: &Batch, sites: &[SiteId]) -> (usize, usize) {
        let outcome = log.stored(batch.header().head(), &place(), sites, QUORUM);
        (outcome.durable.len(), outcome.failed.len())
    }

    /// Goal: after a write that fails, the replica may send again at once while later batches are still on
    /// their way; it is not a fork. Method: two on their way, the first fails, both again.
    #[test]
    fn a_failed_write_is_no_fork() {
        let (mut log, chain) = (Log::default(), chain(2));
        for (stream, batch) in (1..).zip(&chain) {
            assert!(matches!(log.offer(batch, to(stream), 0, QUORUM), Offer::Store { .. }));
        }
        assert_eq!(stored(&mut log, &chain[0], &BOTH[..1]), (0, 1));
        assert!(matches!(log.offer(&chain[0], to(3), 0, QUORUM), Offer::Store { .. }));
        assert!(matches!(log.offer(&chain[1], to(4), 0, QUORUM), Offer::Wait));
        // The second's first write comes back, behind a hole: both that wait for it are refused.
        assert_eq!(stored(&mut log, &chain[1], &BOTH), (0, 2));
        assert_eq!(stored(&mut log, &chain[0], &BOTH), (1, 0));
        assert!(matches!(log.offer(&chain[1], to(5), 0, QUORUM), Offer::Store { .. }));
        assert_eq!(stored(&mut log, &chain[1], &BOTH), (1, 0));
    }

    /// Goal: a receipt vouches for all before it. Method: the first of two is on one site only.
    #[test]
    fn nothing_is_durable_behind_a_batch_that_is_not() {
        let (mut log, chain) = (Log::default(), chain(3));
        load(&mut log, &chain[0], &BOTH[..1]);
        load(&mut log, &chain[1], &BOTH);
        let refused = |offer| matches!(offer, Offer::Refuse(RefusalCode::Storage));
        assert!(refused(log.offer(&chain[1], to(1), 0, QUORUM)));
        assert!(matches!(log.offer(&chain[2], to(2), 0, QUORUM), Offer::Store { .. }));
        assert_eq!(stored(&mut log, &chain[2], &BOTH), (0, 1));
        load(&mut log, &chain[0], &BOTH[1..]);
        for batch in &chain {
            assert!(matches!(log.offer(batch, to(3), 0, QUORUM), Offer::Durable(_)));
        }
    }

    /// Goal: writing an old batch again neither hides the end of the log nor loses a second asker. Method: ask
    /// twice for the first of two, then fork the second, then continue the log.
    #[test]
    fn an_old_batch_that_is_written_again_hides_nothing() {
        let (mut log, chain) = (Log::default(), chain(3));
        load(&mut log, &chain[0], &BOTH[..1]);
        load(&mut log, &chain[1], &BOTH);
        assert!(matches!(log.offer(&chain[0], to(1), 0, QUORUM), Offer::Store { .. }));
        assert!(matches!(log.offer(&chain[0], to(2), 0, QUORUM), Offer::Wait));
        let fork = batch(chain[0].header().head(), b"other");
        assert!(matches!(log.offer(&fork, to(3), 0, QUORUM), Offer::Refuse(RefusalCode::Fork)));
        assert!(matches!(log.offer(&chain[2], to(4), 0, QUORUM), Offer::Store { .. }));
        assert_eq!(stored(&mut log, &chain[0], &BOTH), (2, 0));
        assert_eq!(stored(&mut log, &chain[2], &BOTH), (1, 0));
    }

    /// Goal: whoever waits for a place that another batch takes is told. Method: two early batches, one of
    /// which does not fit; a second asker of the other.
    #[test]
    fn early_batches_that_do_not_fit_are_told() {
        let (mut log, chain) = (Log::default(), chain(3));
        let misfit = batch(LogHead { sequence: 1, hash: Hash32([9; 32]) }, b"x");
        assert!(matches!(log.offer(&chain[2], to(1), 0, QUORUM), Offer::Wait));
        assert!(matches!(log.offer(&chain[2], to(2), 0, QUORUM), Offer::Wait));
        assert!(matches!(log.offer(&misfit, to(3), 0, QUORUM), Offer::Wait));
        assert!(matches!(log.offer(&chain[1], to(4), 0, QUORUM), Offer::Refuse(RefusalCode::Fork)));
        let Offer::Store { ready, misfits } = log.offer(&chain[0], to(5), 0, QUORUM) else { panic!() };
        assert_eq!((ready.len(), misfits), (1, vec![to(3)]));
        let Offer::Store { ready, misfits } = log.offer(&chain[1], to(6), 0, QUORUM) else { panic!() };
        assert_eq!((ready.len(), misfits.len()), (2, 0));
        assert_eq!(stored(&mut log, &chain[0], &BOTH), (1, 0));
        assert_eq!(stored(&mut log, &chain[1], &BOTH), (1, 0));
        assert_eq!(stored(&mut log, &chain[2], &BOTH), (2, 0));
    }
}
