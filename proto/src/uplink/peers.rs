//! Logs of other replicas: what is held of them, what is being fetched, who wrote them.
//!
//! **Invariant**: a peer's batch is stored only if its incarnation is the board's, its signature holds and it
//! continues what is held.
//! **Invariant**: logs are fetched one at a time in tier order.
//! **Invariant**: what the cloud once said it has of a log, it may not take back unseen (P4).

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;

use super::Uplink;
use crate::batch::{Batch, BatchHeader};
use crate::identity::{Identity, IdentityText};
use crate::ids::{Incarnation, LogName, SchoolCode, Tier};
use crate::limits::{DEVICE_INCARNATIONS_MAX, SHOWN_MAX, VECTOR_LOGS_MAX};
use crate::manifest::Manifest;
use crate::planted::{Defect, is_planted};
use crate::revocation::{Revocations, Standing};
use crate::vector::{Heads, LogHead};
use crate::wire::{Fetch, Welcome};

use super::Alarm;

/// Incarnations that are learnt: each may have a log in every tier.
const INCARNATIONS_MAX: usize = VECTOR_LOGS_MAX / 3;

impl Uplink {
    /// From this tier on the store has no room for peers' batches; `None` when it takes all. What was left out is
    /// asked for then.
    pub fn handle_room(&mut self, refused_from: Option<Tier>) {
        self.peers.refused_from = refused_from;
        self.want_peers(&self.cloud_heads.clone());
    }
}

#[derive(Debug)]
pub(super) struct Peers {
    heads: Heads,
    identities: BTreeMap<Incarnation, Identity>,
    to_fetch: BTreeSet<LogName>,
    fetching: Option<LogName>,
    /// Head of `fetching` when its fetch began: a fetch that brought nothing is not repeated at once.
    fetched_from: u64,
    /// From this tier on nothing is fetched, because the store has no room for it.
    refused_from: Option<Tier>,
    /// The log of which a batch was not kept: what follows it in the same fetch is passed over.
    taken_back: Option<LogName>,
    /// Logs of which another history was seen; told once.
    disputed: BTreeSet<LogName>,
    /// Logs of which a batch was seen, signed by who writes them, that follows from another point than the one that is
    /// held: what lies behind it never comes here.
    parted: BTreeSet<LogName>,
    /// The furthest heads that the cloud has said it has. Not kept over a restart: batches that a courier brought
    /// are held too, and of those the cloud has never said anything.
    shown: Heads,
    revocations: Revocations,
    /// Logs of which more is held than counts; told once for each accepted head.
    told_applied: BTreeSet<(LogName, u64)>,
}

/// What to do with a batch that was fetched.
pub(super) enum Fetched {
    /// Keep it.
    Store,
    /// It is held already.
    Known,
    /// It verifies, is of a revoked device, and does not count.
    Quarantined,
    /// It is wrong.
    Bad(String),
}

impl Peers {
    pub(super) fn new(heads: Heads, identities: Vec<Identity>, revocations: Revocations) -> Self {
        Self {
            heads,
            identities: identities.into_iter().map(|identity| (identity.name(), identity)).collect(),
            to_fetch: BTreeSet::new(),
            fetching: None,
            fetched_from: 0,
            refused_from: None,
            taken_back: None,
            disputed: BTreeSet::new(),
            parted: BTreeSet::new(),
            shown: Heads::new(),
            revocations,
            told_applied: BTreeSet::new(),
        }
    }

    pub(super) const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    pub(super) fn learn_revocations(&mut self, manifest: &Manifest) {
        self.revocations.learn(manifest);
        let counts = |log: &LogName| {
            let here = self.heads.get(log).map_or(0, |head| head.sequence);
            self.accepted(*log).is_none_or(|accepted| accepted.sequence > here)
        };
        let to_fetch = self.to_fetch.iter().copied().filter(counts).collect();
        self.to_fetch = to_fetch;
    }

    /// Returns up to where a log counts; `None` when its device is not revoked, or not known.
    pub(super) fn accepted(&self, log: LogName) -> Option<LogHead> {
        let identity = self.identities.get(&log.incarnation)?;
        self.revocations.accepted(identity.replica(), log)
    }

    /// Whether a batch may become part of its log.
    pub(super) fn counts(&self, header: &BatchHeader) -> bool {
        let identity = self.identities.get(&header.log.incarnation);
        identity.is_none_or(|identity| self.revocations.standing(identity.replica(), header).counts())
    }

    /// Whether the board has decided that a batch does not count.
    pub(super) fn is_dropped(&self, header: &BatchHeader) -> bool {
        self.identities.get(&header.log.incarnation).is_some_and(|identity| {
            self.revocations.standing(identity.replica(), header) == Standing::Dropped
        })
    }

    /// Returns logs of which more is held than counts, with both sequences, each once.
    pub(super) fn applied_too_much(&mut self) -> Vec<(LogName, u64, u64)> {
        let more = |(log, held): (&LogName, &LogHead)| {
            let accepted = self.accepted(*log)?.sequence;
            (held.sequence > accepted).then_some((*log, accepted, held.sequence))
        };
        let mut found: Vec<_> = self.heads.iter().filter_map(more).collect();
        found.retain(|(log, accepted, _)| self.told_applied.insert((*log, *accepted)));
        found
    }

    pub(super) const fn heads(&self) -> &Heads {
        &self.heads
    }

    pub(super) fn identities(&self) -> Vec<IdentityText> {
        self.identities.values().map(Identity::text).collect()
    }

    /// Returns the verified identities of others, and of this incarnation once the cloud has named it.
    pub(super) fn known(&self) -> impl Iterator<Item = &Identity> {
        self.identities.values()
    }

    /// Returns the text of a known incarnation's certificate.
    pub(super) fn identity(&self, incarnation: Incarnation) -> Option<&str> {
        self.identities.get(&incarnation).map(|identity| identity.incarnation.text())
    }

    /// Whether exactly this identity is known.
    pub(super) fn knows(&self, text: &IdentityText) -> bool {
        self.identities.values().any(|known| known.has_text(text))
    }

    /// Learns an identity. Returns whether it is new and good.
    pub(super) fn learn(&mut self, text: &IdentityText, board: &VerifyingKey, school: SchoolCode) -> bool {
        // Every welcome names all of them.
        if self.knows(text) {
            return false;
        }
        let Ok(identity) = text.verify(board, school) else { return false };
        let name = identity.name();
        let counts = |known: &&Identity| self.revocations.counts_any(known.replica(), known.name());
        let of_device = self.identities.values().filter(|known| known.replica() == identity.replica());
        let is_full = self.identities.values().filter(counts).count() >= INCARNATIONS_MAX
            || of_device.count() >= DEVICE_INCARNATIONS_MAX;
        let is_new = !is_full && !self.identities.contains_key(&name);
        if is_new {
            self.identities.insert(name, identity);
        }
        is_new
    }

    /// Takes a head that the cloud says it has. Returns whether it is of another history, the first time.
    pub(super) fn want(&mut self, log: LogName, there: LogHead) -> bool {
        let here = self.heads.get(&log).copied().unwrap_or(LogHead::EMPTY);
        if there.sequence > here.sequence {
            self.to_fetch.insert(log);
        }
        let shown = self.shown.get(&log).copied().unwrap_or(LogHead::EMPTY);
        let differs = |known: LogHead| there.sequence == known.sequence && there.hash != known.hash;
        let is_other = (differs(here) || differs(shown)) && !is_planted(Defect::OtherHistoryTaken);
        let has_room = self.shown.len() < SHOWN_MAX || self.shown.contains_key(&log);
        if has_room && (there.sequence > shown.sequence || differs(shown)) {
            self.shown.insert(log, there);
        }
        is_other && self.dispute(log)
    }

    /// Returns of how many logs it is remembered what the cloud has said.
    #[cfg(test)]
    pub(super) fn shown(&self) -> usize {
        self.shown.len()
    }

    /// Returns whether another history of a log is told, which it is once.
    pub(super) fn dispute(&mut self, log: LogName) -> bool {
        self.disputed.len() < SHOWN_MAX && self.disputed.insert(log)
    }

    /// Compares all that the cloud has, if it knows that, with what it has said before. Returns an alarm for each log
    /// of which it has less, once.
    pub(super) fn taken_back(&mut self, welcome: &Welcome, manifest_version: u64) -> Vec<Alarm> {
        if !welcome.complete || is_planted(Defect::PeerLossNotNoticed) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (log, shown) in self.shown.clone() {
            let there = welcome.heads.get(&log).copied().unwrap_or(LogHead::EMPTY);
            // A cloud that lacks the newest word of the board may not show what that word accepts. It is sent that word now.
            if welcome.manifest_version < manifest_version && self.accepted(log).is_some() {
                continue;
            }
            // What was revoked since is not shown any more, and is not lost.
            let had =
                self.accepted(log).map_or(shown.sequence, |accepted| accepted.sequence.min(shown.sequence));
            if there.sequence < had {
                found.push(Alarm::CloudLostPeer { log, had, has: there.sequence });
                match there {
                    LogHead::EMPTY => drop(self.shown.remove(&log)),
                    there => drop(self.shown.insert(log, there)),
                }
            }
        }
        found
    }

    /// Returns an alarm, once, for a batch that leads past a head that the cloud has shown, along another history. It
    /// counts all the same: which of two branches stands is not for a reader to say, and refusing both would leave
    /// it behind for good.
    pub(super) fn contradicts(&mut self, header: &BatchHeader) -> Option<Alarm> {
        let shown = self.shown.get(&header.log)?;
        let covers = (header.first..=header.last).contains(&shown.sequence);
        let is_other = covers && header.head() != *shown && !is_planted(Defect::OtherHistoryTaken);
        (is_other && self.dispute(header.log)).then(|| Alarm::other_history(header.log))
    }

    /// Whether the store has no room for a tier.
    pub(super) fn is_refused(&self, tier: Tier) -> bool {
        self.refused_from.is_some_and(|from| tier >= from)
    }

    /// Returns the key of a known incarnation, unless its device is revoked: what it says of others counts for nothing.
    pub(super) fn key(&self, incarnation: Incarnation) -> Option<VerifyingKey> {
        let identity = self.identities.get(&incarnation)?;
        let counts =
            !self.revocations.is_revoked(identity.replica()) || is_planted(Defect::SnapshotOfRevoked);
        counts.then_some(*identity.key())
    }

    /// Whether none of these heads lies behind what counts. Where the board has revoked anybody, a log of which nobody has
    /// said who writes it may be of that device.
    pub(super) fn are_within(&self, heads: &Heads) -> bool {
        let is_any_revoked = self.revocations.devices().next().is_some();
        let is_within = |(log, head): (&LogName, &LogHead)| match self.accepted(*log) {
            Some(accepted) => head.sequence <= accepted.sequence,
            None => !is_any_revoked || self.identities.contains_key(&log.incarnation),
        };
        is_planted(Defect::SnapshotOfRevoked) || heads.iter().all(is_within)
    }

    /// Logs are held up to these heads now, which a snapshot has brought.
    pub(super) fn take_over(&mut self, heads: &Heads) {
        for (log, head) in heads {
            let here = self.heads.entry(*log).or_insert(*head);
            if head.sequence > here.sequence {
                *here = *head;
            }
        }
    }

    /// Returns the log that would be asked for next, after dropping those that a snapshot has brought whole.
    pub(super) fn next_wanted(&mut self, cloud: &Heads) -> Option<LogName> {
        let heads = &self.heads;
        self.to_fetch.retain(|log| match (heads.get(log), cloud.get(log)) {
            (Some(here), Some(there)) => here.sequence < there.sequence,
            _ => true,
        });
        self.to_fetch.first().copied()
    }

    /// Returns what to ask for next, unless something is being fetched.
    pub(super) fn fetch_next(&mut self) -> Option<Fetch> {
        if self.fetching.is_some() {
            return None;
        }
        let is_refused = |log: &LogName| self.refused_from.is_some_and(|from| log.tier >= from);
        // Tier 0 comes first, so if this one is refused, all that follow are.
        let log = self.to_fetch.first().copied().filter(|log| !is_refused(log))?;
        self.to_fetch.remove(&log);
        self.fetching = Some(log);
        self.fetched_from = self.heads.get(&log).map_or(0, |head| head.sequence);
        Some(Fetch { log, after: self.fetched_from })
    }

    /// A log is asked for behind a snapshot that is still coming.
    pub(super) fn fetch_ahead(&mut self, fetch: &Fetch) {
        self.to_fetch.remove(&fetch.log);
        (self.fetching, self.fetched_from) = (Some(fetch.log), fetch.after);
    }

    /// What still comes of a log is passed over, if it does not continue what is held: it is asked for again.
    pub(super) fn pass_over(&mut self, log: LogName) {
        if self.fetching == Some(log) {
            self.taken_back = Some(log);
        }
    }

    pub(super) fn receive(&mut self, batch: &Batch, school: SchoolCode) -> Fetched {
        let header = batch.header();
        let held = self.heads.get(&header.log).copied().unwrap_or(LogHead::EMPTY);
        let bad = |reason: &str| Fetched::Bad(reason.to_owned());
        let Some(identity) = self.identities.get(&header.log.incarnation) else {
            return bad("its incarnation is not known");
        };
        if header.school != school {
            return bad("it is of another school");
        }
        if header.last < held.sequence || header.head() == held {
            if is_planted(Defect::KnownBatchStored) {
                return Fetched::Store;
            }
            return Fetched::Known;
        }
        if let Err(error) = batch.verify(identity.key()) {
            return Fetched::Bad(error.to_string());
        }
        if !self.revocations.standing(identity.replica(), header).counts() {
            return Fetched::Quarantined;
        }
        if self.taken_back == Some(header.log) && !header.continues(&held) {
            return Fetched::Known;
        }
        if !header.continues(&held) && !is_planted(Defect::PeerChainNotChecked) {
            // Behind a gap nothing can be told: whoever serves it may have left something out.
            if header.first <= held.sequence.saturating_add(1) {
                self.parted.insert(header.log);
            }
            return bad("it does not continue its log");
        }
        self.parted.remove(&header.log);
        self.heads.insert(header.log, header.head());
        Fetched::Store
    }

    /// A batch was not stored: the log is held up to the one before it.
    pub(super) fn take_back(&mut self, header: &BatchHeader) {
        let before = LogHead { sequence: header.first.saturating_sub(1), hash: header.previous };
        if self.heads.get(&header.log).is_some_and(|head| head.sequence > before.sequence) {
            self.heads.insert(header.log, before);
            self.taken_back = Some(header.log);
        }
    }

    /// A fetch has ended. What the cloud has beyond it is asked for again if this one brought something.
    pub(super) fn end_fetch(&mut self, cloud: &Heads) {
        let Some(log) = self.fetching.take() else { return };
        self.taken_back = None;
        let here = self.heads.get(&log).map_or(0, |head| head.sequence);
        let there = cloud.get(&log).map_or(0, |head| head.sequence);
        if here > self.fetched_from && there > here {
            self.to_fetch.insert(log);
        }
    }

    /// The connection is gone.
    pub(super) fn forget_fetches(&mut self) {
        self.fetching = None;
        self.taken_back = None;
        self.to_fetch.clear();
    }

    /// Whether nothing is being fetched and `there` of a log is held here.
    pub(super) fn has(&self, log: LogName, there: LogHead) -> bool {
        let here = self.heads.get(&log).copied().unwrap_or(LogHead::EMPTY);
        here == there || here.sequence > there.sequence
    }

    /// Whether `there` of a log can never come, because what is held here is of another branch.
    pub(super) fn is_parted(&self, log: LogName, there: LogHead) -> bool {
        let here = self.heads.get(&log).copied().unwrap_or(LogHead::EMPTY);
        let is_beside = here.sequence == there.sequence && here != there;
        is_beside || (here.sequence < there.sequence && self.parted.contains(&log))
    }

    /// Whether nothing is being fetched and nothing is to be.
    pub(super) fn is_idle(&self) -> bool {
        self.fetching.is_none() && self.to_fetch.is_empty()
    }

    pub(super) const fn is_fetching(&self) -> bool {
        self.fetching.is_some()
    }
}
