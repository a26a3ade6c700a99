//! Erasure in the keeper's hands: nothing is written to a record that was erased, and what is left of it in plain text in
//! journal and view is overwritten when nobody waits.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use sonae_journal::{Disk as _, RealDisk};
use sonae_proto::batch::BatchHeader;
use sonae_proto::erasure::tombstones;
use sonae_proto::ids::Tier;
use sonae_proto::manifest::{KeyUse, WrappedKey, school_year};

use super::Keeper;
use super::round::BatchApplied;
use crate::edit::{Edit, tier_of};
use crate::erasure::order;
use crate::frame::{self, to_json};
use crate::held_keys;
use crate::keyring::Keyring;
use crate::manifests;
use crate::room::CHECKPOINT_ROOM_BYTES;
use crate::state::KeyUses;
use crate::store::{StoreError, WriteError};
use crate::view::{Staged, View};

/// The note of what was overwritten.
const NOTE: &str = "erased.json";

/// The note of the epochs under which something of erased records may be sealed.
const NOTE_UNDER: &str = "erased-under.json";

/// How many tombstones stood, and keys were gone, when everything was overwritten. When it is lost, all of it is overwritten again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Scrubbed {
    tombstones: usize,
    /// Destroyed keys that were gone.
    #[serde(default)]
    keys: usize,
}

impl Keeper {
    /// Whether an edit is of a record that was erased.
    pub(super) fn is_erased(&self, edit: &Edit, staged: &Staged<'_>) -> Result<bool, WriteError> {
        let tier = tier_of(edit).map_err(|reason| WriteError::Refused { reason })?;
        self.is_erased_record(tier, &edit.collection, &edit.record, staged)
    }

    pub(super) fn is_erased_record(
        &self,
        tier: Tier,
        collection: &str,
        record: &str,
        staged: &Staged<'_>,
    ) -> Result<bool, WriteError> {
        let refused =
            |error: sonae_proto::view::FoldError<_>| WriteError::Refused { reason: error.to_string() };
        self.fold.is_erased(staged, tier, collection, record).map_err(refused)
    }

    /// Remembers under which key something of erased records lies, or may lie, in batches: that of a batch that had some of
    /// it, and that to which was sealed here until a tombstone came. Only when those keys are gone too is it erased.
    pub(super) fn note_erased(&mut self, header: &BatchHeader, applied: &BatchApplied) {
        self.scrub_due |= applied.erases;
        let tier = header.log.tier;
        let year = school_year(self.clock.now_ms());
        let sealing = self.keyring.manifest().sealing_key(tier, year).map(|key| key.epoch);
        let epochs = [sealing.filter(|_| applied.erases), applied.is_of_erased.then_some(header.epoch)];
        let mut is_new = false;
        for epoch in epochs.into_iter().flatten() {
            let known = self.erased_under.get(&tier);
            if known.is_none_or(|known| order(*known) < order(epoch)) {
                self.erased_under.insert(tier, epoch);
                is_new = true;
            }
        }
        if is_new
            && let Ok(note) = serde_json::to_vec(&self.erased_under)
            && let Err(error) = self.shared.shelf.put_note(NOTE_UNDER, &note)
        {
            log::error!(error = error.to_string(); "under which keys something was erased is not noted");
        }
    }

    /// Counts what is held by the keys that it is sealed to, and sees whether tombstones have come, or destroyed keys gone,
    /// since journal and view were last overwritten.
    pub(crate) fn take_stock(&mut self) {
        self.count_key_uses();
        let count = count(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner));
        if self.erased_under.is_empty() {
            let note = self.shared.shelf.note(NOTE_UNDER);
            let note = note.and_then(|note| serde_json::from_slice(&note).ok());
            self.erased_under = note.unwrap_or_default();
        }
        let note = self.shared.shelf.note(NOTE).and_then(|note| serde_json::from_slice(&note).ok());
        let Scrubbed { tombstones, keys } = note.unwrap_or_default();
        self.scrub_due = (count, self.keys_gone()) != (tombstones, keys);
    }

    /// Overwrites what is left of erased records in plain text, when that is due. While something waits to be sealed, or
    /// a snapshot is being made, or there is no room, it has to wait. Returns whether it waits.
    pub(super) fn scrub_when_due(&mut self) -> bool {
        if !self.scrub_due || self.failed.is_some() {
            return false;
        }
        let waits = !self.sealed.is_empty() || self.sealer.first_lsn().is_some() || self.pinned;
        if waits || !self.has_room_for_checkpoint() {
            return true;
        }
        match self.scrub() {
            Ok(is_done) => !is_done,
            Err(error) => {
                log::error!(error = error.to_string(); "what was erased cannot be overwritten yet");
                if self.journal.is_poisoned() {
                    self.failed = Some(error.to_string());
                }
                false
            }
        }
    }

    /// # Durability
    /// Neither the journal nor the view has a byte of what was erased when this returns `true`.
    fn scrub(&mut self) -> Result<bool, StoreError> {
        let used_bytes = bytes_in(&self.view_dir);
        let room = RealDisk.room(&self.view_dir);
        if room.is_ok_and(|room| room.free_bytes < used_bytes.saturating_add(CHECKPOINT_ROOM_BYTES)) {
            return Ok(false);
        }
        // Everything that is needed comes to lie in a new segment or in the archive.
        self.journal.turn();
        let checkpoint = self.checkpoint()?;
        self.index.archive_before(&self.journal, checkpoint)?;
        self.journal.recycle_before(checkpoint)?;
        self.journal.wipe_free()?;
        let shared = self.shared();
        let tombstones = {
            let view = shared.view.read().unwrap_or_else(PoisonError::into_inner);
            if !view.copy()? {
                return Ok(false);
            }
            count(&view)
        };
        let exchanged = shared.view.write().unwrap_or_else(PoisonError::into_inner).exchange();
        if let Err(error) = exchanged {
            // Nobody may read what is not there. Opened again, the view is made anew.
            self.failed = Some(error.to_string());
            return Err(error.into());
        }
        let note = Scrubbed { tombstones, keys: self.keys_gone() };
        let note = serde_json::to_vec(&note).unwrap_or_default();
        if let Err(error) = shared.shelf.put_note(NOTE, &note) {
            log::warn!(error = error.to_string(); "that journal and view were overwritten is not noted; they are again");
        }
        self.scrub_due = false;
        self.publish_state();
        log::info!(tombstones; "what was erased is overwritten in journal and view");
        Ok(true)
    }

    /// Goes on with newer key documents. Keys that they destroy are held apart until nothing here needs them.
    pub(super) fn take_keyring(&mut self, keyring: Keyring) {
        let held = self.keyring.destroyed_by(keyring.manifest());
        let (shelf, before) = (&self.shared.shelf, &self.keyring.documents().manifest);
        let is_other = *before != keyring.documents().manifest;
        let kept = if is_other { manifests::keep(shelf, before) } else { Ok(()) };
        if let Err(error) = kept.and_then(|()| held_keys::write(shelf, &held)) {
            log::error!(error = error.to_string(); "key documents cannot be taken now; it is tried again");
            self.untaken = Some(Box::new(keyring.documents().clone()));
            return;
        }
        let mut documents = keyring.documents().clone();
        keyring.destroyed().strip(&mut documents);
        if let Ok(bytes) = to_json("documents", &documents) {
            self.lazy.push((frame::DOCUMENTS, bytes));
        }
        self.keyring = keyring.holding(held, &self.shared.reader.age_key);
        *self.shared.documents.write().unwrap_or_else(PoisonError::into_inner) = documents;
    }

    /// Forgets destroyed keys that nothing here needs any more. What journal segments had of them is overwritten with
    /// the next scrub.
    pub(super) fn drop_destroyed(&mut self) {
        if self.keyring.held().is_empty() || self.failed.is_some() {
            return;
        }
        self.count_key_uses();
        let is_needed = |key: &WrappedKey| match key.key_use {
            KeyUse::Tier(tier) => self.key_uses.contains_key(&(tier, key.epoch)),
            KeyUse::Digest => true,
        };
        let (needed, gone): (Vec<_>, Vec<_>) = self.keyring.held().iter().cloned().partition(is_needed);
        if gone.is_empty() {
            return;
        }
        if let Err(error) = held_keys::write(&self.shared.shelf, &needed) {
            log::error!(error = error.to_string(); "a destroyed key cannot be removed yet");
            return;
        }
        for key in gone {
            self.keyring.forget(key.key_use, key.epoch);
            log::info!(key_use:% = key.key_use, epoch = key.epoch; "a destroyed key is gone from this box");
        }
        self.take_stock();
        self.publish_state();
    }

    /// How many destroyed keys are not here any more.
    fn keys_gone(&self) -> usize {
        let held = held_keys::names(self.keyring.held());
        self.keyring.destroyed().iter().filter(|(of, epoch, _)| !held.contains(&(*of, *epoch))).count()
    }

    /// Counts what is held by the keys that it is sealed to.
    pub(super) fn count_key_uses(&mut self) {
        let mut uses: BTreeMap<(Tier, u32), KeyUses> = BTreeMap::new();
        for log in self.index.logs() {
            let safe = self.safe.get(&log).map_or(0, |safe| safe.head.sequence);
            let is_own = self.own.contains(&log.incarnation);
            for header in self.index.headers(log) {
                let of = uses.entry((log.tier, header.epoch)).or_default();
                of.batches += 1;
                of.without_receipt += u64::from(is_own && header.last > safe);
            }
        }
        for header in self.sealed.iter().map(sonae_proto::batch::Batch::header) {
            let of = uses.entry((header.log.tier, header.epoch)).or_default();
            (of.batches, of.without_receipt) = (of.batches + 1, of.without_receipt + 1);
        }
        for root in self.shared.shelf.roots() {
            uses.entry((root.tier, root.epoch)).or_default().snapshots += 1;
        }
        self.key_uses = uses;
    }
}

fn count(view: &View) -> usize {
    let of = |tier| view.scan(tier, tombstones(tier), "").map_or(0, |stones| stones.len());
    Tier::ALL.into_iter().map(of).sum()
}

fn bytes_in(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
