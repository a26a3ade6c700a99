//! Revoked devices at a node: what of their logs counts, and what waits for a person.
//!
//! **Invariant**: what is quarantined is stored and kept like any batch, and neither served, receipted nor counted.
//! **Invariant**: out of quarantine comes only the chain that ends in the very head that the board accepts.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, BatchHeader};
use crate::ids::{Hash32, LogName, ReplicaId, SchoolCode};
use crate::limits::QUARANTINE_BATCHES_MAX;
use crate::object::RecordKind;
use crate::receipt::SiteId;
use crate::revocation::Standing;
use crate::vector::{Heads, LogHead};
use crate::wire::RefusalCode;

use super::log::Entry;
use super::{Effect, Intake, Location, Pending, ReplyTo, School, StoredBatch};

/// What a revoked device is told, for its log.
pub(super) const REVOKED: &str = "the board has revoked this device";

/// Quarantined batches that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedBranch {
    /// The device.
    pub replica: ReplicaId,
    /// The log.
    pub log: LogName,
    /// Batches.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Their end. The board accepts or drops them by naming it.
    pub head: LogHead,
}

/// The quarantine of one school.
#[derive(Debug, Default)]
pub(super) struct Quarantine(BTreeMap<(LogName, u64, Hash32), Entry>);

const fn key(log: LogName, head: LogHead) -> (LogName, u64, Hash32) {
    (log, head.sequence, head.hash)
}

const fn before(header: &BatchHeader) -> LogHead {
    LogHead { sequence: header.first.saturating_sub(1), hash: header.previous }
}

impl Quarantine {
    fn insert(&mut self, entry: Entry) {
        let header = entry.batch.header;
        match self.0.get_mut(&key(header.log, header.head())) {
            Some(known) => known.add(entry),
            None => drop(self.0.insert(key(header.log, header.head()), entry)),
        }
    }

    /// Learns where a batch lies now, if it is here.
    pub(super) fn relocate(&mut self, moved: StoredBatch) {
        let known = self.0.get_mut(&key(moved.header.log, moved.header.head()));
        if let Some(known) = known.filter(|known| known.batch.header == moved.header) {
            known.batch.location = moved.location;
        }
    }

    /// Takes out the batches that lead from one head of a log to another, if all of them are here.
    fn take_chain(&mut self, log: LogName, from: LogHead, to: LogHead) -> Vec<Entry> {
        let mut keys = Vec::new();
        let mut head = to;
        while head != from {
            let Some(entry) = self.0.get(&key(log, head)) else { return Vec::new() };
            keys.push(key(log, head));
            head = before(&entry.batch.header);
        }
        keys.iter().rev().filter_map(|key| self.0.remove(key)).collect()
    }

    /// Returns where the batches that lead to a head of a log, as far as they are here, part from what is not.
    fn beginning(&self, log: LogName, to: LogHead) -> LogHead {
        let mut head = to;
        while let Some(entry) = self.0.get(&key(log, head)) {
            head = before(&entry.batch.header);
        }
        head
    }

    /// Headers of which no quarantined batch is the continuation, with how much leads to each.
    fn branches(&self) -> Vec<(BatchHeader, u64, u64)> {
        let continued: BTreeSet<_> =
            self.0.values().map(|entry| key(entry.batch.header.log, before(&entry.batch.header))).collect();
        let ends = self.0.iter().filter(|(key, _)| !continued.contains(key));
        let count = |(_, end): (_, &Entry)| {
            let (mut batches, mut changes, mut next) = (0, 0, Some(end));
            while let Some(entry) = next {
                batches += 1;
                changes += entry.batch.header.changes();
                next = self.0.get(&key(entry.batch.header.log, before(&entry.batch.header)));
            }
            (end.batch.header, batches, changes)
        };
        ends.map(count).collect()
    }
}

impl School {
    /// Says what a batch is worth. One of an unknown incarnation is refused elsewhere.
    pub(super) fn standing(&self, header: &BatchHeader) -> Standing {
        match self.identities.get(&header.log.incarnation) {
            Some(identity) => self.revocations.standing(identity.replica(), header),
            None => Standing::Free,
        }
    }

    /// Puts what does not count out of the logs into quarantine, and what counts by now back.
    /// Returns logs that have grown.
    pub(super) fn enforce(&mut self) -> Heads {
        let mut grown = Heads::new();
        for (name, identity) in &self.identities {
            for tier in crate::ids::Tier::ALL {
                let log = LogName { tier, incarnation: *name };
                let Some(accepted) = self.revocations.accepted(identity.replica(), log) else { continue };
                let place = self.logs.entry(log).or_default();
                // The log may have gone another way than to what the board accepts, before it parted from that.
                let begins = self.quarantine.beginning(log, accepted);
                let end = if place.has(begins) { begins } else { accepted };
                for entry in place.cut(end) {
                    self.quarantine.insert(entry);
                }
                let from = place.head().unwrap_or(LogHead::EMPTY);
                let chain = self.quarantine.take_chain(log, from, accepted);
                if from.sequence < accepted.sequence && !chain.is_empty() {
                    place.extend(chain);
                    grown.insert(log, accepted);
                }
            }
        }
        self.logs.retain(|_, log| !log.is_empty());
        let (identities, revocations) = (&self.identities, &self.revocations);
        let replica = |log: &LogName| identities.get(&log.incarnation).map(|identity| identity.replica());
        let within = |(log, head): (&LogName, &LogHead)| {
            let accepted = replica(log).and_then(|replica| revocations.accepted(replica, *log));
            accepted.is_none_or(|accepted| head.sequence <= accepted.sequence)
        };
        self.snapshots.forget_uncounted(|root| {
            let author = identities.get(&root.author);
            author.is_some_and(|author| !revocations.is_revoked(author.replica()))
                && root.heads.iter().all(within)
        });
        grown
    }

    pub(super) fn quarantined(&self) -> Vec<QuarantinedBranch> {
        let waits = |(header, batches, changes): (BatchHeader, u64, u64)| {
            let replica = self.identities.get(&header.log.incarnation)?.replica();
            let is_waiting = self.revocations.standing(replica, &header) == Standing::Quarantined;
            let (log, head) = (header.log, header.head());
            is_waiting.then_some(QuarantinedBranch { replica, log, batches, changes, head })
        };
        self.quarantine.branches().into_iter().filter_map(waits).collect()
    }

    /// Keeps a batch aside. Returns logs that have grown: the board may have accepted it while it was being written.
    pub(super) fn keep_in_quarantine(&mut self, entry: Entry) -> Heads {
        self.quarantine.insert(entry);
        self.enforce()
    }
}

impl Intake {
    /// Returns all devices that are revoked here. Their connections are to be closed before a stream is read.
    #[must_use]
    pub fn revoked(&self) -> BTreeSet<ReplicaId> {
        let of = |school: &School| school.revocations.devices().collect::<Vec<_>>();
        let known: Vec<ReplicaId> = self.schools.values().flat_map(of).collect();
        known
            .into_iter()
            .filter(|replica| self.schools.values().any(|school| school.revocations.is_revoked(*replica)))
            .collect()
    }

    /// Whether a stored batch waits in quarantine, or has been dropped there.
    #[must_use]
    pub fn is_quarantined(&self, header: &BatchHeader) -> bool {
        self.schools.get(&header.school).is_some_and(|school| !school.standing(header).counts())
    }

    /// Returns up to where a log counts; `None` when its device is not revoked, or not known.
    #[must_use]
    pub fn accepted(&self, school: SchoolCode, log: LogName) -> Option<LogHead> {
        let school = self.schools.get(&school)?;
        school.revocations.accepted(school.identities.get(&log.incarnation)?.replica(), log)
    }

    /// What the board says of a device has changed.
    pub(super) fn enforce(&mut self, code: SchoolCode) {
        let Some(school) = self.schools.get_mut(&code) else { return };
        let grown = school.enforce();
        let revoked: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.school == code && !connection.is_carried)
            .filter(|(_, connection)| {
                let identity = school.identities.get(&connection.incarnation);
                identity.is_some_and(|identity| school.revocations.is_revoked(identity.replica()))
            })
            .map(|(id, _)| *id)
            .collect();
        for connection in revoked {
            self.note_refusal(Some(code), RefusalCode::Identity, REVOKED);
            self.effects.push_back(Effect::Close(connection));
        }
        self.spread_grown(code, grown);
    }

    fn spread_grown(&mut self, code: SchoolCode, grown: Heads) {
        for (log, head) in grown {
            self.spread_news(code, log.incarnation, &Heads::from([(log, head)]));
        }
    }

    /// A verified batch of a revoked device, behind what the board accepts. Over the line none comes this far.
    pub(super) fn quarantine(&mut self, to: ReplyTo, code: SchoolCode, batch: &Batch) {
        let is_carried = self.connections.get(&to.connection).is_some_and(|known| known.is_carried);
        let Some(school) = self.schools.get(&code).filter(|_| is_carried) else {
            return self.refuse_and_close(to, RefusalCode::Identity, REVOKED);
        };
        let header = *batch.header();
        let known = school.quarantine.0.get(&key(header.log, header.head()));
        if known.is_some_and(|entry| entry.sites.len() >= self.config.quorum) {
            return self.effects.push_back(Effect::Quarantined { to, is_new: false });
        }
        if known.is_none() && school.quarantine.0.len() >= QUARANTINE_BATCHES_MAX {
            let text = "the quarantine of this school is full; have the board decide about what waits there";
            return self.refuse(to, code, RefusalCode::Storage, text);
        }
        let pending = Pending::Quarantined { school: code, header, to };
        self.store(RecordKind::Batch, batch.bytes().to_vec(), pending);
    }

    pub(super) fn quarantine_stored(
        &mut self,
        code: SchoolCode,
        header: BatchHeader,
        to: ReplyTo,
        location: &Location,
        sites: &[SiteId],
    ) {
        if sites.len() < self.config.quorum {
            let text = "fewer sites than the quorum could be written";
            return self.refuse(to, code, RefusalCode::Storage, text);
        }
        let batch = StoredBatch { header, location: location.clone() };
        if let Some(school) = self.schools.get_mut(&code) {
            let grown = school.keep_in_quarantine(Entry { batch, sites: sites.to_vec() });
            self.spread_grown(code, grown);
        }
        self.effects.push_back(Effect::Quarantined { to, is_new: true });
    }

    /// A batch has reached sites, and its device was revoked on the way.
    pub(super) fn revoked_meanwhile(
        &mut self,
        code: SchoolCode,
        header: BatchHeader,
        location: &Location,
        sites: &[SiteId],
    ) {
        let Some(school) = self.schools.get_mut(&code) else { return };
        let waiters = school.logs.get_mut(&header.log).map(|log| log.divert(header.head()));
        if !sites.is_empty() {
            let batch = StoredBatch { header, location: location.clone() };
            let grown = school.keep_in_quarantine(Entry { batch, sites: sites.to_vec() });
            self.spread_grown(code, grown);
        }
        for to in waiters.into_iter().flatten() {
            self.refuse(to, code, RefusalCode::Identity, REVOKED);
        }
    }
}
