//! Pruning in the keeper's hands: a snapshot takes the place of the batches below its heads.
//!
//! **Invariant**: the journal says so before a batch goes, and the snapshot lies on the shelf, added up, before that.
//! **Invariant**: nothing goes that is not applied here, and nothing of the own logs that has no receipt.

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::snapshot::SnapshotRoot;

use super::Keeper;
use crate::frame::{self, FoundationFrame, to_json};
use crate::snapshot::Made;
use crate::store::StoreError;

impl Keeper {
    /// Makes a snapshot, whose parts on the shelf were just added up, the foundation of a tier that is held, and forgets
    /// the batches that it stands for. Returns the bytes by which the archive has become smaller; `None` while a snapshot
    /// is being made, or the tier is being filled.
    ///
    /// # Durability
    /// That the tier begins with it is on stable storage when this returns. What could not be cut off the archive stays
    /// until the next start.
    pub(super) fn prune(&mut self, hash: Hash32) -> Result<Option<u64>, StoreError> {
        let wrong = |what| StoreError::Snapshot { root: hash, what };
        let root = self.shared.shelf.root(hash).ok_or_else(|| wrong("is not there whole"))?;
        if self.failed.is_some() {
            return Err(StoreError::Closing);
        }
        // What fills a tier may still be needed batch by batch, and no proof has looked at it.
        if self.pinned || !self.shared.filling.is_usable(root.tier) {
            return Ok(None);
        }
        self.stands_for_what_is_held(&root).map_err(wrong)?;
        self.shared.shelf.settle().map_err(|_| wrong("cannot be kept"))?;
        self.commit_foundation(root.tier, hash)?;
        self.foundations.insert(root.tier, hash);
        let mut own = 0;
        for (log, head) in &root.heads {
            let payloads = self.index.set_foundation(*log, *head);
            own += if log.incarnation == self.keys.name() { payloads } else { 0 };
        }
        let held = self.own_bytes.entry(root.tier).or_default();
        *held = held.saturating_sub(own);
        Made::pruned(&self.shared.shelf, root.tier, own);
        let bytes = |keeper: &Self| keeper.index.bytes_by_tier().values().sum::<u64>();
        let before = bytes(self);
        self.index.trim();
        let freed = before.saturating_sub(bytes(self));
        self.tidy_shelf();
        self.step_room();
        self.publish_state();
        Ok(Some(freed))
    }

    /// Says what speaks against a snapshot in place of batches.
    fn stands_for_what_is_held(&self, root: &SnapshotRoot) -> Result<(), &'static str> {
        for (log, head) in &root.heads {
            if !self.index.has(*log, *head) || head.sequence > self.fold.applied(*log) {
                return Err("names a point of a log that is not held here");
            }
            let safe = self.safe.get(log).map_or(0, |safe| safe.head.sequence);
            if self.own.contains(&log.incarnation) && safe < head.sequence {
                return Err("names changes of this box that have no receipt");
            }
        }
        let begins = self.index.foundations().iter().filter(|(log, _)| log.tier == root.tier);
        let is_within = |(log, base): (_, &sonae_proto::vector::LogHead)| {
            root.heads.get(log).is_some_and(|head| head.sequence >= base.sequence)
        };
        if begins.into_iter().all(is_within) {
            Ok(())
        } else {
            Err("is older than what its tier begins with")
        }
    }

    /// Journals that a tier begins with a snapshot, and what waits for the next commit.
    pub(super) fn commit_foundation(&mut self, tier: Tier, root: Hash32) -> Result<(), StoreError> {
        let frame = to_json("foundation", &FoundationFrame { tier, root })?;
        let lazy = self.lazy.iter().map(|(kind, bytes)| (*kind, bytes.as_slice()));
        let frames: Vec<_> = lazy.chain([(frame::FOUNDATION, frame.as_slice())]).collect();
        let outcome = self.journal.commit(&frames);
        match &outcome {
            Ok(_) => self.lazy.clear(),
            Err(error) if error.is_full() => {}
            Err(error) => self.note_failure(error),
        }
        outcome.map(|_| ()).map_err(StoreError::from)
    }
}
