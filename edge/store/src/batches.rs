//! The index of held batches: for each log, in order, where each batch's bytes are.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use sonae_journal::{Journal, Lsn};
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::vector::{Heads, LogHead};

use crate::archive::Archive;
use crate::store::StoreError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Journal(Lsn),
    Archive(u64),
}

/// All batches that this replica holds, own and peers'.
#[derive(Debug)]
pub struct BatchIndex {
    archive: Archive,
    /// Where logs begin that a snapshot stands for.
    foundations: Heads,
    logs: BTreeMap<LogName, Vec<(BatchHeader, Place)>>,
}

impl BatchIndex {
    /// Starts from what the archive holds.
    pub(crate) fn open(
        archive: Archive,
        found: Vec<(BatchHeader, u64)>,
        foundations: &Heads,
    ) -> Result<Self, StoreError> {
        let mut index = Self { archive, foundations: Heads::new(), logs: BTreeMap::new() };
        for (log, head) in foundations {
            index.set_foundation(*log, *head);
        }
        for (header, offset) in found {
            index.insert(&header, Place::Archive(offset))?;
        }
        Ok(index)
    }

    /// Lets a log begin with a head that a snapshot stands for, and forgets the batches before it. Returns the bytes of
    /// their payloads. The archive holds them until [`Self::trim`].
    pub(crate) fn set_foundation(&mut self, log: LogName, head: LogHead) -> u64 {
        self.foundations.insert(log, head);
        let batches = self.logs.entry(log).or_default();
        let pruned = batches.partition_point(|(header, _)| header.last <= head.sequence);
        batches.drain(..pruned).map(|(header, _)| u64::from(header.payload_bytes)).sum()
    }

    /// Cuts off the archive what lies before the first batch that counts. What cannot be cut off now stays until the
    /// next time; nothing reads it.
    pub(crate) fn trim(&mut self) {
        for log in self.archive.logs() {
            let batches = self.logs.get_mut(&log).map(Vec::as_mut_slice).unwrap_or_default();
            let places = batches.iter().map(|(_, place)| *place);
            let first = places.into_iter().find_map(|place| match place {
                Place::Archive(offset) => Some(offset),
                Place::Journal(_) => None,
            });
            let cut = self.archive.cut_front(log, first).unwrap_or_else(|error| {
                log::warn!(log = log.to_string(), error = error.to_string(); "batches cannot be pruned yet");
                0
            });
            for (_, place) in batches {
                if let Place::Archive(offset) = place {
                    *offset = offset.saturating_sub(cut);
                }
            }
        }
    }

    /// Returns where logs begin that a snapshot stands for.
    pub(crate) const fn foundations(&self) -> &Heads {
        &self.foundations
    }

    /// Whether a log is held up to this head, and a batch or its foundation ends there.
    #[must_use]
    pub fn has(&self, log: LogName, head: LogHead) -> bool {
        self.foundations.get(&log) == Some(&head) || self.headers(log).any(|header| header.head() == head)
    }

    /// Adds a batch that recovery finds in the journal. If the archive has it too, both must agree: a batch whose
    /// archive was not flushed when the power went may have lost sectors, and then it and what follows it there
    /// are taken from the journal.
    pub(crate) fn recovered(&mut self, batch: &Batch, lsn: Lsn) -> Result<(), StoreError> {
        let header = *batch.header();
        let known = self.logs.entry(header.log).or_default();
        let position = known.partition_point(|(known, _)| known.first < header.first);
        if let Some((_, Place::Archive(offset))) = known.get(position) {
            let archived = self.archive.read(&header, *offset);
            if self.archive.defects.archive_unread() || archived.is_ok_and(|bytes| bytes == batch.bytes()) {
                return Ok(());
            }
            log::warn!(log = header.log.to_string(), first = header.first;
                "an archived batch is not what the journal holds; the journal's is used");
            self.archive.distrust(header.log, *offset);
            known.truncate(position);
        }
        self.insert(&header, Place::Journal(lsn))
    }

    /// Checks the signature of the last archived batch of each log whose writer is known. Those before it are named by hash
    /// in the next; rot in its own header shows in nothing else.
    pub(crate) fn check_ends(
        &self,
        key: impl Fn(Incarnation) -> Option<VerifyingKey>,
    ) -> Result<(), StoreError> {
        for batches in self.logs.values() {
            let archived = batches.iter().rev().find_map(|(header, place)| match place {
                Place::Archive(offset) => Some((header, *offset)),
                Place::Journal(_) => None,
            });
            let Some((header, offset)) = archived else { continue };
            if let Some(key) = key(header.log.incarnation) {
                Batch::from_bytes(self.archive.read(header, offset)?)?.verify(&key)?;
            }
        }
        Ok(())
    }

    /// Adds a batch that a journal frame holds. One that is known already is passed over.
    pub(crate) fn insert_journalled(&mut self, header: &BatchHeader, lsn: Lsn) -> Result<(), StoreError> {
        self.insert(header, Place::Journal(lsn))
    }

    fn insert(&mut self, header: &BatchHeader, place: Place) -> Result<(), StoreError> {
        let head = self.head(header.log);
        if header.last <= head.sequence {
            return Ok(());
        }
        if !header.continues(&head) {
            return Err(StoreError::Hole { log: header.log, after: head.sequence });
        }
        self.logs.entry(header.log).or_default().push((*header, place));
        Ok(())
    }

    /// Returns the head of what is held of a log up to a change: less than all of it when the rest does not count.
    #[must_use]
    pub fn head_at(&self, log: LogName, last: u64) -> LogHead {
        let head = self.head(log);
        if head.sequence <= last {
            return head;
        }
        let held = self.headers(log).take_while(|header| header.last <= last).last();
        let base = self.foundations.get(&log).copied().filter(|base| base.sequence <= last);
        held.map(|header| header.head()).or(base).unwrap_or(LogHead::EMPTY)
    }

    /// Returns the head of what is held of a log.
    #[must_use]
    pub fn head(&self, log: LogName) -> LogHead {
        self.logs
            .get(&log)
            .and_then(|batches| batches.last())
            .map(|(header, _)| header.head())
            .or_else(|| self.foundations.get(&log).copied())
            .unwrap_or(LogHead::EMPTY)
    }

    /// Returns the logs of which something is held.
    pub fn logs(&self) -> impl Iterator<Item = LogName> + '_ {
        self.logs.keys().copied()
    }

    /// Returns the first change of the batch that holds the change after this one, or of the earliest later batch.
    pub(crate) fn first_after(&self, log: LogName, after: u64) -> Option<u64> {
        let batches = self.logs.get(&log).map(Vec::as_slice).unwrap_or_default();
        let position = batches.partition_point(|(header, _)| header.last <= after);
        batches.get(position).map(|(header, _)| header.first)
    }

    /// Returns the headers of a log, in order.
    pub fn headers(&self, log: LogName) -> impl Iterator<Item = BatchHeader> + '_ {
        self.logs.get(&log).into_iter().flatten().map(|(header, _)| *header)
    }

    /// Returns the bytes of the payloads that are held of an incarnation, by tier.
    pub(crate) fn payload_bytes(&self, incarnation: Incarnation) -> BTreeMap<Tier, u64> {
        let bytes = |tier: Tier| {
            let headers = self.headers(LogName { tier, incarnation });
            (tier, headers.map(|header| u64::from(header.payload_bytes)).sum())
        };
        Tier::ALL.into_iter().map(bytes).collect()
    }

    /// Reads a whole batch; its payload's hash is checked.
    pub(crate) fn read(
        &self,
        journal: &Journal,
        log: LogName,
        first: u64,
    ) -> Result<Option<Batch>, StoreError> {
        let batches = self.logs.get(&log).map(Vec::as_slice).unwrap_or_default();
        let found = batches.binary_search_by_key(&first, |(header, _)| header.first).ok();
        let Some((header, place)) = found.and_then(|position| batches.get(position)) else {
            return Ok(None);
        };
        let bytes = match place {
            Place::Journal(lsn) => journal.read(*lsn)?.payload,
            Place::Archive(offset) => self.archive.read(header, *offset)?,
        };
        Ok(Some(Batch::from_bytes(bytes)?))
    }

    /// Moves every batch that lies in the journal before `lsn` to the archive.
    ///
    /// # Durability
    /// They are on stable storage in the archive when this returns.
    pub(crate) fn archive_before(&mut self, journal: &Journal, lsn: Lsn) -> Result<usize, StoreError> {
        let mut moved = 0;
        for (log, batches) in &mut self.logs {
            let leaving: Vec<&mut (BatchHeader, Place)> = batches
                .iter_mut()
                .filter(|(_, place)| matches!(place, Place::Journal(at) if *at < lsn))
                .collect();
            if leaving.is_empty() {
                continue;
            }
            let mut contents = Vec::with_capacity(leaving.len());
            for (_, place) in &leaving {
                if let Place::Journal(at) = place {
                    contents.push(journal.read(*at)?.payload);
                }
            }
            let offsets = self.archive.append(*log, &contents)?;
            moved += offsets.len();
            for ((_, place), offset) in leaving.into_iter().zip(offsets) {
                *place = Place::Archive(offset);
            }
        }
        Ok(moved)
    }

    /// Returns how many bytes the archive has, by tier.
    #[must_use]
    pub fn bytes_by_tier(&self) -> BTreeMap<Tier, u64> {
        self.archive.bytes_by_tier()
    }
}
