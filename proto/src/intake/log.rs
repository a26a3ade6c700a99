//! One log as a node of the cloud knows it: what is stored, what is on its way, what waits for its turn.

use std::collections::BTreeMap;

use crate::batch::{Batch, BatchHeader};
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

#[derive(Debug, Default)]
struct Entry {
    sites: Vec<SiteId>,
}

/// One log.
#[derive(Debug, Default)]
pub(super) struct Log {
    stored: Vec<(StoredBatch, Entry)>,
    /// By last sequence.
    on_their_way: BTreeMap<u64, OnItsWay>,
    /// By first sequence: verified, but an earlier one is missing.
    waiting: BTreeMap<u64, (Batch, Waiter)>,
}

/// What to do with a batch that was offered.
pub(super) enum Offer {
    /// It is durable on these sites already.
    Durable(Vec<SiteId>),
    /// Its turn has not come, or it is on its way: the reply comes later.
    Wait,
    /// Store these, in order.
    Store(Vec<Batch>),
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
        self.stored.last().map(|(batch, _)| batch.header.head())
    }

    fn tail(&self) -> LogHead {
        self.on_their_way
            .values()
            .next_back()
            .map(|batch| batch.header.head())
            .or_else(|| self.head())
            .unwrap_or(LogHead::EMPTY)
    }

    pub(super) fn load(&mut self, batch: StoredBatch, sites: Vec<SiteId>) {
        let known = self.stored.iter_mut().find(|(known, _)| known.header == batch.header);
        if let Some((_, entry)) = known {
            for site in sites {
                if !entry.sites.contains(&site) {
                    entry.sites.push(site);
                }
            }
        } else if batch.header.continues(&self.head().unwrap_or(LogHead::EMPTY)) {
            self.stored.push((batch, Entry { sites }));
        }
    }

    pub(super) fn offer(&mut self, batch: &Batch, to: ReplyTo, loss_counter: u64, quorum: usize) -> Offer {
        let header = batch.header();
        let waiter = Waiter { to, loss_counter };
        if let Some((_, entry)) = self.stored.iter().find(|(stored, _)| stored.header == *header) {
            if entry.sites.len() >= quorum {
                return Offer::Durable(entry.sites.clone());
            }
            // Found on too few sites at the start: write it again, under a new name.
            let way = OnItsWay { header: *header, waiters: vec![waiter] };
            self.on_their_way.insert(header.last, way);
            return Offer::Store(vec![batch.clone()]);
        }
        if let Some(way) = self.on_their_way.get_mut(&header.last).filter(|way| way.header == *header) {
            way.waiters.push(waiter);
            return Offer::Wait;
        }
        let tail = self.tail();
        if header.first <= tail.sequence {
            return Offer::Refuse(RefusalCode::Fork);
        }
        if header.first > tail.sequence + 1 {
            if self.waiting.len() >= WAITING_MAX {
                return Offer::Refuse(RefusalCode::Chain);
            }
            self.waiting.insert(header.first, (batch.clone(), waiter));
            return Offer::Wait;
        }
        if !header.continues(&tail) {
            return Offer::Refuse(RefusalCode::Chain);
        }
        let mut ready = vec![batch.clone()];
        self.on_their_way.insert(header.last, OnItsWay { header: *header, waiters: vec![waiter] });
        while let Some((next, waiter)) = self.waiting.remove(&(self.tail().sequence + 1)) {
            if next.header().continues(&self.tail()) {
                let way = OnItsWay { header: *next.header(), waiters: vec![waiter] };
                self.on_their_way.insert(next.header().last, way);
                ready.push(next);
            }
        }
        Offer::Store(ready)
    }

    pub(super) fn stored(
        &mut self,
        last: u64,
        location: &Location,
        sites: &[SiteId],
        quorum: usize,
    ) -> StoreOutcome {
        let mut outcome = StoreOutcome::default();
        let Some(way) = self.on_their_way.remove(&last) else { return outcome };
        let header = way.header;
        let rewritten = self.stored.iter_mut().find(|(stored, _)| stored.header == header);
        let before = rewritten.is_some() || header.continues(&self.head().unwrap_or(LogHead::EMPTY));
        if sites.len() < quorum || !before {
            outcome.failed = way.waiters.iter().map(|waiter| waiter.to).collect();
            return outcome;
        }
        let stored = StoredBatch { header, location: location.clone() };
        let sites = sites.to_vec();
        match self.stored.iter_mut().find(|(stored, _)| stored.header == header) {
            Some(known) => *known = (stored, Entry { sites: sites.clone() }),
            None => {
                self.stored.push((stored, Entry { sites: sites.clone() }));
                outcome.moved = Some(header.head());
            }
        }
        outcome.durable = way
            .waiters
            .into_iter()
            .map(|waiter| DurableWaiter {
                to: waiter.to,
                loss_counter: waiter.loss_counter,
                head: header.head(),
                sites: sites.clone(),
            })
            .collect();
        outcome
    }

    /// Returns the stored batches that hold changes after `sequence`.
    pub(super) fn after(&self, sequence: u64) -> Vec<StoredBatch> {
        let start = self.stored.partition_point(|(batch, _)| batch.header.last <= sequence);
        self.stored.iter().skip(start).map(|(batch, _)| batch.clone()).collect()
    }

    pub(super) fn forget_waiters(&mut self, connection: ConnectionId) {
        for way in self.on_their_way.values_mut() {
            way.waiters.retain(|waiter| waiter.to.connection != connection);
        }
        self.waiting.retain(|_, (_, waiter)| waiter.to.connection != connection);
    }
}
