//! Snapshots in the keeper's hands: holding the view still while one is made of it, and beginning a tier with one.
//!
//! **Invariant**: a tier begins with a snapshot only where nothing of it is held, and only when its parts add up; the
//! journal says so before anybody reads it.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use sonae_proto::digest::Digest;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::snapshot::{Record, Snapshot, SnapshotRoot};
use sonae_proto::vector::Heads;

use super::{Keeper, Late};
use crate::foundation;
use crate::manifests;
use crate::retention;
use crate::snapshot::Made;
use crate::store::StoreError;
use crate::view::RecordKey;

/// What stands in the view in place of a checkpoint's id while a snapshot is written to it.
pub(super) const LOADING: &str = "loading";

/// A snapshot with no more sealed bytes is opened once, and what it holds stays in memory until it is written: tier 0 of
/// most schools, some tens of MiB. A larger one is opened twice.
const OPENED_BYTES_MAX: u64 = 256 * 1024;

/// A tier of the view that stands still on disk, and what a snapshot of it is to say.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub heads: Heads,
    pub digest: Digest,
    pub epoch: u32,
    pub recipient: String,
    pub manifest: Hash32,
    /// Bytes of own batches of the tier so far.
    pub own_bytes: u64,
}

impl Keeper {
    /// Writes the view to disk and leaves it so until [`Self::unpin`]. `None` while changes wait to be sealed, while
    /// the tier is being filled, or while there is no room.
    pub(super) fn pin(&mut self, tier: Tier) -> Result<Option<Pinned>, StoreError> {
        let is_sealed = self.sealed.is_empty() && self.sealer.last_sequence(tier).is_none();
        let is_whole = self.shared.filling.is_usable(tier);
        if !is_sealed || !is_whole || self.pinned || self.failed.is_some() || !self.has_room_for_checkpoint()
        {
            return Ok(None);
        }
        let of_tier = self.fold.sequences.iter().filter(|(log, sequence)| log.tier == tier && **sequence > 0);
        let heads: Heads =
            of_tier.map(|(log, _)| (*log, self.index.head_at(*log, self.fold.applied(*log)))).collect();
        let whole = heads.iter().all(|(log, head)| head.sequence == self.fold.applied(*log));
        if !whole || heads.is_empty() {
            return Ok(None);
        }
        let (epoch, recipient) = self.keyring.sealing(tier, self.clock.now_ms())?;
        let pinned = Pinned {
            heads,
            digest: self.fold.digests.get(&tier).copied().unwrap_or_default(),
            epoch,
            recipient: recipient.to_owned(),
            manifest: self.keyring.manifest_hash(),
            own_bytes: self.own_bytes.get(&tier).copied().unwrap_or(0),
        };
        self.checkpoint()?;
        self.pinned = true;
        Ok(Some(pinned))
    }

    pub(super) fn unpin(&mut self) {
        self.pinned = false;
    }

    /// Signs a root as this incarnation.
    pub(super) fn sign(&self, root: SnapshotRoot) -> Option<Snapshot> {
        let root = SnapshotRoot { school: self.keys.school, author: self.keys.name(), ..root };
        Snapshot::sign(root, &self.keys.incarnation).ok()
    }

    /// Makes a snapshot, whose root was verified by whoever put it on the shelf with its parts, the state of its tier.
    ///
    /// # Durability
    /// It is on stable storage when this returns.
    pub(super) fn load_snapshot(&mut self, hash: Hash32) -> Result<(), StoreError> {
        let missing = StoreError::Snapshot { root: hash, what: "is not there whole" };
        let root = &self.shared.shelf.root(hash).ok_or(missing)?;
        let held = self.fold.sequences.iter().any(|(log, sequence)| log.tier == root.tier && *sequence > 0);
        if held || self.pinned || self.failed.is_some() {
            return Err(StoreError::Snapshot { root: hash, what: "cannot be taken while its tier is held" });
        }
        if self.room.check(root.tier).is_err() || !self.has_room_for_checkpoint() {
            return Err(StoreError::Snapshot { root: hash, what: "does not fit on this disk now" });
        }
        let shelf = self.shared.shelf.clone();
        shelf.settle().map_err(|_| StoreError::Snapshot { root: hash, what: "cannot be kept" })?;
        // Added up before a word of it is written.
        let (mut opened, fits) = (Vec::new(), root.bytes() <= OPENED_BYTES_MAX);
        let found = foundation::read(&shelf, hash, root, &self.keyring, |records| {
            opened.extend(fits.then_some(records));
            Ok(())
        })?;
        self.checkpoint()?;
        if let Err(error) = self.lay_foundation(root, hash, fits.then_some(opened)) {
            // The view holds what no journal knows. Opened again, it is made anew.
            log::error!(error = error.to_string(); "a snapshot could not be laid under its tier; nothing more is kept");
            self.failed = Some(error.to_string());
            return Err(error);
        }
        self.foundations.insert(root.tier, hash);
        for (log, head) in &root.heads {
            self.index.set_foundation(*log, *head);
        }
        found.enter(root, &mut self.fold);
        self.disputed = self.disputed.saturating_add(found.disputed);
        self.hlc.observe(found.highest_stamp, self.clock.now_ms());
        if let Err(error) = self.checkpoint() {
            // It is durable all the same; the next start rebuilds the view.
            log::error!(error = error.to_string(); "the view's checkpoint failed");
        }
        self.publish_state();
        Ok(())
    }

    /// Writes the records to the view and journals that they are its tier's foundation. `opened` is what all parts hold,
    /// if it is still there.
    fn lay_foundation(
        &mut self,
        root: &SnapshotRoot,
        hash: Hash32,
        opened: Option<Vec<Vec<Record>>>,
    ) -> Result<(), StoreError> {
        {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            // No checkpoint has this id: cut off from here on, the view is rebuilt.
            view.write_records(LOADING, Vec::new())?;
            let write = |records: Vec<Record>| {
                let keyed = |record: Record| {
                    (RecordKey::new(root.tier, &record.collection, &record.record), record.state)
                };
                Ok(view.write_records(LOADING, records.into_iter().map(keyed).collect())?)
            };
            match opened {
                Some(parts) => parts.into_iter().try_for_each(write)?,
                None => {
                    foundation::read(&self.shared.shelf, hash, root, &self.keyring, write)?;
                }
            }
        }
        self.commit_foundation(root.tier, hash)
    }

    /// Removes what is not needed any more from the shelf, unless a snapshot is just being made there.
    pub(super) fn tidy_shelf(&mut self) {
        if self.pinned {
            return;
        }
        let shelf = &self.shared.shelf;
        let made = Tier::ALL.into_iter().filter_map(|tier| Made::read(shelf, tier)).map(|made| made.root);
        let next = Tier::ALL.into_iter().filter_map(|tier| retention::candidate(shelf, tier));
        let next = next.map(|candidate| candidate.root);
        let roots: BTreeSet<Hash32> = self.foundations.values().copied().chain(made).chain(next).collect();
        if let Err(error) = shelf.keep_only(&roots) {
            log::warn!(error = error.to_string(); "old snapshots cannot be removed");
        }
        let kept = self.index.logs().flat_map(|log| self.index.headers(log));
        let waiting = self.sealed.iter().map(|batch| *batch.header());
        let named = kept.chain(waiting).map(|header| header.manifest).collect();
        manifests::keep_only(&self.shared.shelf, &named);
        self.count_key_uses();
        self.publish_state();
    }

    /// Does what had to wait for the round to be durable.
    pub(super) fn do_late(&mut self) {
        for late in std::mem::take(&mut self.late) {
            self.late(late);
        }
    }

    /// The round has failed, and with it what had to wait for it: whoever asked is told by the answer that is missing.
    pub(super) fn drop_late(&mut self) {
        let unpins = |late: &Late| matches!(late, Late::Unpin);
        if std::mem::take(&mut self.late).iter().any(unpins) {
            self.unpin();
        }
    }

    fn late(&mut self, late: Late) {
        match late {
            Late::Pin { tier, reply } => {
                let pinned = self.pin(tier).unwrap_or_else(|error| {
                    log::error!(error = error.to_string(); "the view cannot be held still for a snapshot");
                    None
                });
                // Whoever asked may be gone.
                if reply.send(pinned).is_err() {
                    self.unpin();
                }
            }
            Late::Load { root, reply } => {
                let _ = reply.send(self.load_snapshot(root));
            }
            Late::Prune { root, reply } => {
                let _ = reply.send(self.prune(root));
            }
            Late::Keys { tier, epoch, reply } => {
                let _ = reply.send(foundation::keys(&self.keyring, tier, epoch));
            }
            Late::Sign { root, reply } => {
                let _ = reply.send(self.sign(*root));
            }
            Late::Unpin => {
                self.unpin();
                self.count_key_uses();
                self.publish_state();
            }
            Late::DigestKey { reply } => drop(self.keyring.digest_key().map(|key| reply.send(key))),
            Late::Tidy => self.tidy_shelf(),
            Late::Distrust => self.distrusted = true,
        }
    }
}
