//! The batches of one school as they were found, put into their logs: what is in the chain, what is a fork, what
//! lies behind a gap, what the board does not accept.
//!
//! **Invariant**: of two batches for one place, a verified one goes before one that is not, then what leads to the head
//! that the board accepts, then the one that was written later, as at the start of a node (`crate::index`).

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::BatchHeader;
use sonae_proto::export::{BatchLine, Place, Problem};
use sonae_proto::ids::{Hash32, LogName};
use sonae_proto::vector::{Heads, LogHead};

use crate::contents::Position;
use crate::index::leading_to;

/// A batch that was written.
#[derive(Debug)]
pub struct Entry {
    /// Its header.
    pub header: BatchHeader,
    /// Header and signature as they were found.
    pub prefix: Vec<u8>,
    /// Where its payload is.
    pub file: String,
    /// Whether it verifies.
    pub verified: bool,
    /// Whether its device is revoked, and the board does not accept it.
    pub quarantined: bool,
    /// The later, the newer.
    pub position: Position,
}

impl Entry {
    fn line(&self, place: Place) -> BatchLine {
        BatchLine {
            log: self.header.log,
            first: self.header.first,
            last: self.header.last,
            epoch: self.header.epoch,
            hash: self.header.hash(),
            file: self.file.clone(),
            place,
            verified: self.verified,
            prefix: self.prefix.clone(),
        }
    }
}

/// All batches of a school.
pub type Entries = BTreeMap<(LogName, u64, Hash32), Entry>;

/// What the batches add up to.
#[derive(Debug, Default)]
pub struct Chains {
    /// Lines of the index, log by log.
    pub lines: Vec<BatchLine>,
    /// Gaps and forks.
    pub problems: Vec<Problem>,
    /// Changes in the chains.
    pub changes: u64,
    heads: BTreeMap<LogName, u64>,
    held: BTreeMap<(LogName, u64), Hash32>,
}

impl Chains {
    /// Puts batches into their logs. `accepted` are heads of revoked devices that the board accepts.
    pub fn of(entries: &Entries, accepted: &Heads) -> Self {
        let mut chains = Self::default();
        let mut logs: BTreeMap<LogName, Vec<&Entry>> = BTreeMap::new();
        for entry in entries.values() {
            logs.entry(entry.header.log).or_default().push(entry);
        }
        for (log, entries) in logs {
            chains.add_log(log, entries, accepted.get(&log).copied());
        }
        chains.expect(accepted);
        chains
    }

    fn add_log(&mut self, log: LogName, entries: Vec<&Entry>, accepted: Option<LogHead>) {
        let leads_there = leading_to(accepted, entries.iter().map(|entry| &entry.header));
        let (quarantined, entries): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.quarantined);
        self.rivals_aside(log, &quarantined, &entries);
        let mut places = self.set_aside(log, quarantined);
        let mut by_place: BTreeMap<(u64, Hash32), Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            by_place.entry((entry.header.first, entry.header.previous)).or_default().push(entry);
        }
        let (mut head, mut left) = (LogHead::EMPTY, Vec::new());
        while let Some(mut rivals) = by_place.remove(&(head.sequence + 1, head.hash)) {
            rivals.sort_by_key(|rival| {
                (rival.verified, leads_there.contains(&rival.header.hash()), rival.position)
            });
            let Some(entry) = rivals.pop() else { break };
            left.append(&mut rivals);
            head = entry.header.head();
            self.changes += entry.header.changes();
            self.held.insert((log, head.sequence), head.hash);
            places.push((entry, Place::Chain));
        }
        left.extend(by_place.into_values().flatten());
        left.sort_by_key(|entry| entry.header.first);
        self.heads.insert(log, head.sequence);
        let mut next = head.sequence + 1;
        for entry in left {
            let (first, last) = (entry.header.first, entry.header.last);
            if first > next {
                self.problems.push(Problem::Gap { log, first: next, last: first - 1 });
            } else if first <= head.sequence + 1 {
                self.problems.push(Problem::Fork { log, first, last });
            }
            let place = if first <= head.sequence + 1 { Place::Fork } else { Place::BehindAGap };
            next = next.max(last.saturating_add(1));
            places.push((entry, place));
        }
        places.sort_by_key(|(entry, _)| (entry.header.first, entry.header.hash()));
        self.lines.extend(places.into_iter().map(|(entry, place)| entry.line(place)));
    }

    /// Tells of batches that the board does not accept and that are for the place of another: whoever has the board accept
    /// one of them is to know of both.
    fn rivals_aside(&mut self, log: LogName, quarantined: &[&Entry], entries: &[&Entry]) {
        let place = |entry: &&Entry| (entry.header.first, entry.header.previous);
        let mut taken: BTreeSet<(u64, Hash32)> = entries.iter().map(place).collect();
        for entry in quarantined {
            if !taken.insert(place(entry)) {
                let (first, last) = (entry.header.first, entry.header.last);
                self.problems.push(Problem::Fork { log, first, last });
            }
        }
    }

    /// Gives what the board does not accept its place. It is here, should a witness ask for it.
    fn set_aside<'a>(&mut self, log: LogName, quarantined: Vec<&'a Entry>) -> Vec<(&'a Entry, Place)> {
        let first = quarantined.iter().map(|entry| entry.header.first).min();
        let last = quarantined.iter().map(|entry| entry.header.last).max();
        if let (Some(first), Some(last)) = (first, last) {
            self.problems.push(Problem::Quarantined { log, first, last });
        }
        self.held.extend(quarantined.iter().map(|entry| ((log, entry.header.last), entry.header.hash())));
        quarantined.into_iter().map(|entry| (entry, Place::Quarantined)).collect()
    }

    /// Compares with heads that somebody named: a witness outside of the cloud, the board, an author of snapshots.
    pub fn expect(&mut self, heads: &Heads) {
        for (log, head) in heads {
            if self.held.get(&(*log, head.sequence)) != Some(&head.hash) {
                let held = self.heads.get(log).copied().unwrap_or_default();
                let problem = Problem::MissingHead { log: *log, expected: head.sequence, held };
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
            }
        }
    }
}
