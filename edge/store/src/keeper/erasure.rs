//! Erasure in the keeper's hands: nothing is written to a record that was erased, and what is left of it in plain text in
//! journal and view is overwritten when nobody waits.

use serde::{Deserialize, Serialize};
use sonae_journal::{Disk as _, RealDisk};
use sonae_proto::erasure::tombstones;
use sonae_proto::ids::Tier;
use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::Keeper;
use crate::edit::{Edit, tier_of};
use crate::room::CHECKPOINT_ROOM_BYTES;
use crate::state::KeyUses;
use crate::store::{StoreError, WriteError};
use crate::view::{Staged, View};

/// The note of what was overwritten.
const NOTE: &str = "erased.json";

/// How many tombstones stood when everything was overwritten. When it is lost, all of it is overwritten again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Scrubbed {
    tombstones: usize,
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

    /// Whether tombstones have come since journal and view were last overwritten.
    pub(crate) fn look_for_tombstones(&mut self) {
        let count = count(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner));
        let note = self.shared.shelf.note(NOTE).and_then(|note| serde_json::from_slice(&note).ok());
        self.scrub_due = count != note.unwrap_or_else(Scrubbed::default).tombstones;
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
        let note = serde_json::to_vec(&Scrubbed { tombstones }).unwrap_or_default();
        if let Err(error) = shared.shelf.put_note(NOTE, &note) {
            log::warn!(error = error.to_string(); "that journal and view were overwritten is not noted; they are again");
        }
        self.scrub_due = false;
        self.publish_state();
        log::info!(tombstones; "what was erased is overwritten in journal and view");
        Ok(true)
    }

    /// Counts what is held by the keys that it is sealed to.
    pub(crate) fn count_key_uses(&mut self) {
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
