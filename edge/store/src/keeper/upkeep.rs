//! What the keeper does beside requests: sealing, checkpoints, recycling, marks, closing.

use std::collections::VecDeque;
use std::sync::PoisonError;

use sonae_journal::{Disk as _, JournalError, Lsn, RealDisk};
use sonae_proto::ids::LogName;

use super::Keeper;
use super::snapshot::LOADING;
use crate::frame::{self, Checkpoint, to_json};
use crate::room::CHECKPOINT_ROOM_BYTES;
use crate::sealer::Own;
use crate::store::StoreError;

impl Keeper {
    /// Makes what is waiting durable while nobody waits for an answer. Returns whether work is left.
    pub(crate) fn idle(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        if let Some(documents) = self.untaken.take() {
            self.documents(&documents);
        }
        if self.scrub_due {
            self.seal_due(true);
        }
        if !self.lazy.is_empty() || self.has_sealed() {
            self.round(&mut VecDeque::new());
        }
        self.drop_destroyed();
        let waits = self.scrub_when_due();
        let outcome = self.journal.mark().and_then(|_| self.journal.prepare());
        match outcome {
            Ok(_) => {}
            // Nothing was written, and the handle stays usable.
            Err(error) if error.is_full() => {
                log::warn!(error = error.to_string(); "there is no room for idle work");
            }
            Err(error) => self.note_failure(&error),
        }
        waits
    }

    /// Seals what is due. The batches become durable with the next commit.
    pub(crate) fn seal_due(&mut self, force: bool) {
        let now_ms = self.clock.now_ms();
        while self.failed.is_none() {
            let own = Own {
                school: self.keys.school,
                incarnation: self.keys.name(),
                key: &self.keys.incarnation,
                keyring: &self.keyring,
            };
            let (index, sealed) = (&self.index, &self.sealed);
            let head_of = |log: LogName| {
                let newest = sealed.iter().rev().find(|batch| batch.header().log == log);
                newest.map_or_else(|| index.head(log), |batch| batch.header().head())
            };
            match self.sealer.seal_next(now_ms, force, &own, head_of) {
                Ok(Some(batch)) => {
                    if self.options.defects.told_before_commit() {
                        let _ = self.sealed_out.send(*batch.header());
                    }
                    self.sealed.push(batch);
                }
                Ok(None) => return,
                Err(error) => {
                    log::error!(error = error.to_string(); "sealing failed; nothing more is kept");
                    self.failed = Some(error.to_string());
                }
            }
        }
    }

    /// Checkpoints and recycles when that is due.
    pub(super) fn maintain(&mut self) {
        let overlay = self.shared.view.read().unwrap_or_else(PoisonError::into_inner).overlay_records();
        // The changes of a batch that has found no room stand in the journal alone: the sealer has let go of them.
        let is_kept = self.sealed.is_empty() || self.options.defects.recycle_unkept_batches();
        let recycle = is_kept && self.journal.segments().count() > self.options.segments_max;
        let is_due = overlay >= self.options.overlay_records_max || recycle;
        if !is_due || self.pinned || !self.has_room_for_checkpoint() {
            return;
        }
        let outcome = self.checkpoint().and_then(|checkpoint| {
            if !recycle {
                return Ok(());
            }
            let until = self.sealer.first_lsn().map_or(checkpoint, |lsn| lsn.min(checkpoint));
            self.index.archive_before(&self.journal, until)?;
            self.journal.recycle_before(until)?;
            Ok(())
        });
        if let Err(error) = outcome {
            log::error!(error = error.to_string(); "the view's checkpoint failed");
            if self.journal.is_poisoned() {
                self.failed = Some(error.to_string());
            }
        }
    }

    /// sled does not recover from a full disk, so it is written only while there is room; until then the overlay
    /// grows.
    pub(super) fn has_room_for_checkpoint(&mut self) -> bool {
        let room = RealDisk.room(&self.view_dir);
        let has_room = !room.is_ok_and(|room| room.free_bytes < CHECKPOINT_ROOM_BYTES);
        if !has_room && !self.is_short_of_room {
            log::error!("the disk is almost full; the view is not written any more");
        }
        self.is_short_of_room = !has_room;
        has_room
    }

    /// Writes the view to sled and journals that it is whole. Returns the checkpoint's place.
    pub(super) fn checkpoint(&mut self) -> Result<Lsn, StoreError> {
        let checkpoint = self.describe();
        let bytes = to_json("checkpoint", &checkpoint)?;
        {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            view.write_overlay(if self.distrusted { LOADING } else { &checkpoint.id })?;
        }
        let range = self.journal.commit(&[(frame::CHECKPOINT, bytes.as_slice())])?;
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner).clear_overlay();
        Ok(*range.start())
    }

    pub(super) fn describe(&self) -> Checkpoint {
        Checkpoint {
            id: uuid::Uuid::new_v4().to_string(),
            sequences: self.fold.sequences.clone(),
            digests: self.fold.digests.clone(),
            highest_stamp: self.fold.highest_stamp,
            disputed: self.disputed,
            safe: self.safe.clone(),
            loss_counter: self.loss_counter,
            shown: self.shown.clone(),
            identities: self.identities.values().cloned().collect(),
            own: self.own.iter().copied().collect(),
            documents: self.keyring.documents().clone(),
            kept_ms: self.kept_ms.clone(),
            foundations: self.foundations.clone(),
        }
    }

    pub(crate) fn close(mut self) {
        if self.failed.is_none() {
            self.seal_due(true);
            self.round(&mut VecDeque::new());
            let has_room = self.has_room_for_checkpoint();
            let checkpoint = if has_room { self.checkpoint().map(|_| ()) } else { Ok(()) };
            let outcome = checkpoint.and_then(|()| Ok(self.journal.mark()?));
            if let Err(error) = outcome {
                log::error!(error = error.to_string(); "closing the store failed; the next start recovers it");
            }
        }
    }

    pub(super) fn note_failure(&mut self, error: &JournalError) {
        log::error!(error = error.to_string(); "the journal has failed; nothing more is kept");
        self.failed = Some(error.to_string());
    }
}
