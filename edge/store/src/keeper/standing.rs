//! What the keeper knows of safe and unsafe, of peers and of keys, and how it tells readers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::record::RecordState;
use sonae_proto::uplink::Shown;
use sonae_proto::vector::Heads;
use sonae_proto::wire::KeyDocuments;

use super::Keeper;
use super::round::{Round, apply_batch};
use crate::clock::Clock;
use crate::frame::{self, ReceiptFrame, SafeHead, StoredIdentity, to_json};
use crate::state::Point;
use crate::store::{StoreError, WriteError};
use crate::view::{RecordKey, Staged};

/// The longest age of a kept change that is believed: three years without a line.
const AGE_BELIEVED_MS_MAX: u64 = 3 * 365 * 86_400_000;

impl Keeper {
    pub(super) fn receipt(&mut self, log: LogName, safe: SafeHead, receipt: Vec<u8>) {
        if self.safe.get(&log).is_some_and(|known| known.head.sequence >= safe.head.sequence) {
            return;
        }
        self.safe.insert(log, safe);
        if let Some(waiting) = self.without_receipt.get_mut(&log) {
            waiting.retain(|(sequence, _)| *sequence > safe.head.sequence);
        }
        self.count_key_uses();
        if let Ok(bytes) = to_json("receipt", &ReceiptFrame { log, safe, receipt }) {
            self.lazy.push((frame::RECEIPT, bytes));
        }
    }

    pub(super) fn shown(&mut self, shown: Shown) {
        if let Ok(bytes) = to_json("what the cloud has said", &shown) {
            // A box whose disk is full and whose line comes and goes would gather more than its reserve takes.
            self.lazy.retain(|(kind, _)| *kind != frame::SHOWN);
            self.lazy.push((frame::SHOWN, bytes));
        }
        self.shown = Some(shown);
    }

    /// An own batch is durable: the uplink may send it.
    pub(super) fn sealed_is_kept(&mut self, header: &BatchHeader) {
        *self.own_bytes.entry(header.log.tier).or_default() += u64::from(header.payload_bytes);
        if !self.options.defects.told_before_commit() {
            let _ = self.sealed_out.send(*header);
        }
    }

    /// Lowers what is safe. Receipts that wait for a commit would stand behind the loss in the journal, and call safe again
    /// what it took.
    pub(super) fn lower_safe(&mut self, receipted: &Heads) {
        self.lazy.retain(|(kind, _)| *kind != frame::RECEIPT);
        let (now_ms, steady_ms) = (self.clock.now_ms(), self.clock.steady_ms());
        let lowered: BTreeMap<LogName, SafeHead> = receipted
            .iter()
            .map(|(log, head)| {
                let at_ms = self.safe.get(log).map_or(now_ms, |safe| safe.at_ms);
                (*log, SafeHead { head: *head, at_ms })
            })
            .collect();
        self.safe = lowered;
        for log in self.own_logs() {
            let last = self.fold.applied(log);
            if last > self.safe.get(&log).map_or(0, |safe| safe.head.sequence) {
                let waiting = self.without_receipt.entry(log).or_default();
                if waiting.is_empty() {
                    waiting.push_back((last, steady_ms));
                }
            }
        }
    }

    pub(super) fn identity(&mut self, identity: StoredIdentity) {
        let Ok(verified) = identity.verify(&self.keys.board, self.keys.school) else { return };
        if let Ok(bytes) = to_json("identity", &identity) {
            self.lazy.push((frame::IDENTITY, bytes));
        }
        self.identities.insert(verified.name(), identity);
    }

    pub(super) fn documents(&mut self, documents: &KeyDocuments) {
        match self.shared.reader.open(documents) {
            Ok(keyring) if !self.keyring.are_kept_by(keyring.manifest()) => {
                log::error!(version = keyring.manifest().version;
                    "key documents that take back a revocation or the destruction of a key are refused");
            }
            Ok(keyring) if keyring.manifest().version > self.keyring.manifest().version => {
                self.take_keyring(keyring);
            }
            Ok(_) => {}
            Err(error) => log::warn!(error = error.to_string(); "key documents are ignored"),
        }
    }

    /// Returns since when the board lets nobody write here; `None` when it does.
    pub(super) fn held_ms(&self) -> Option<u64> {
        self.keyring.manifest().hold(self.keys.identity.replica()).map(|hold| hold.held_ms)
    }

    /// Refuses every write of people where none may be kept now.
    pub(super) fn may_write(&self) -> Result<(), WriteError> {
        if let Some(reason) = &self.failed {
            log::error!(reason; "a write is refused because the store has failed");
            return Err(WriteError::Failed);
        }
        if self.is_frozen {
            return Err(WriteError::Moving);
        }
        if self.held_ms().is_some() {
            return Err(WriteError::Held);
        }
        Ok(())
    }

    /// Stages a peer's batch that continues its log.
    pub(super) fn stage_batch(
        &mut self,
        batch: &Batch,
        round: &mut Round,
        staged: &mut Staged<'_>,
    ) -> Result<(), StoreError> {
        let header = *batch.header();
        let pending = round.batches.iter().rev().find(|(_, other, _)| other.log == header.log);
        let head = pending.map_or_else(|| self.index.head(header.log), |(_, other, _)| other.head());
        if header.last <= head.sequence {
            return self.apply_held(batch, staged);
        }
        if !header.continues(&head) {
            return Err(StoreError::Hole { log: header.log, after: head.sequence });
        }
        let applied = apply_batch(&mut self.fold, staged, &self.keyring, batch)?;
        self.note_erased(&header, &applied);
        self.hlc.observe(applied.highest_stamp, self.clock.now_ms());
        round.concern(header.log.tier);
        let position = round.push(frame::PEER, batch.bytes().to_vec());
        round.batches.push((position, header, false));
        Ok(())
    }

    /// Applies a batch that is held and was passed over: its device was revoked, and the board accepts it by now.
    fn apply_held(&mut self, batch: &Batch, staged: &mut Staged<'_>) -> Result<(), StoreError> {
        let header = batch.header();
        let is_next = header.first == self.fold.applied(header.log) + 1;
        if is_next && self.index.headers(header.log).any(|held| held == *header) {
            let applied = apply_batch(&mut self.fold, staged, &self.keyring, batch)?;
            self.note_erased(header, &applied);
        }
        Ok(())
    }

    /// Shows what came of batches that are held durably already, when nothing else is to be made durable.
    pub(super) fn publish_held(
        &mut self,
        staged: BTreeMap<RecordKey, RecordState>,
        disputed: i64,
    ) -> Result<(), WriteError> {
        if self.failed.is_some() {
            return Err(WriteError::Failed);
        }
        self.disputed = self.disputed.saturating_add_signed(disputed);
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner).publish(staged);
        Ok(())
    }

    pub(super) fn own_logs(&self) -> Vec<LogName> {
        let of = |incarnation: &Incarnation| {
            let incarnation = *incarnation;
            Tier::ALL.into_iter().map(move |tier| LogName { tier, incarnation })
        };
        self.own.iter().flat_map(of).collect()
    }

    /// Tells readers how things stand.
    pub(crate) fn publish_state(&self) {
        let name = self.keys.name();
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        state.unsafe_by_tier.clear();
        for log in self.own_logs() {
            let last = self.fold.applied(log);
            let safe = self.safe.get(&log);
            let without = last.saturating_sub(safe.map_or(0, |safe| safe.head.sequence));
            *state.unsafe_by_tier.entry(log.tier).or_default() += without;
            if log.incarnation != name {
                continue;
            }
            if last > 0 {
                let at_ms = self.kept_ms.get(&log.tier).copied().unwrap_or(0);
                state.kept.insert(log.tier, Point { sequence: last, at_ms });
            }
            match safe {
                Some(safe) => {
                    let point = Point { sequence: safe.head.sequence, at_ms: safe.at_ms };
                    state.safe.insert(log.tier, point);
                }
                None => drop(state.safe.remove(&log.tier)),
            }
        }
        state.oldest_unsafe.clear();
        for (log, (_, at)) in self.without_receipt.iter().filter_map(|(log, w)| Some((log, w.front()?))) {
            let oldest = state.oldest_unsafe.entry(log.tier).or_insert(*at);
            *oldest = (*oldest).min(*at);
        }
        state.safe_heads = self.safe.iter().map(|(log, safe)| (*log, safe.head)).collect();
        let applied = |log: LogName| self.index.head_at(log, self.fold.applied(log));
        let heads: Heads = self.index.logs().map(|log| (log, applied(log))).collect();
        let peers = heads.iter().filter(|(log, _)| !self.own.contains(&log.incarnation));
        state.safe_heads.extend(peers);
        state.vector.clone_from(&self.fold.sequences);
        state.digests.clone_from(&self.fold.digests);
        state.own_bytes.clone_from(&self.own_bytes);
        state.foundations.clone_from(&self.foundations);
        state.pruned.clone_from(self.index.foundations());
        state.key_uses.clone_from(&self.key_uses);
        state.held_keys = crate::held_keys::names(self.keyring.held());
        state.scrub_due = self.scrub_due;
        state.erased_under.clone_from(&self.erased_under);
        state.disputed = self.disputed;
        state.commits = self.commits;
        state.flushes = self.journal.flushes();
        state.storage_bytes = self.journal.bytes_on_disk() + self.index.bytes_by_tier().values().sum::<u64>();
        state.loss_counter = self.loss_counter;
        state.room = self.room_state();
        state.failed.clone_from(&self.failed);
        state.held_ms = self.held_ms();
        self.shared.heads.send_if_modified(|told| {
            let moved = *told != heads;
            *told = heads;
            moved
        });
    }
}

/// Notes the steady time at which a change was kept; changes of one minute share an entry, so that a long outage
/// stays small.
pub(crate) fn note_without_receipt(waiting: &mut VecDeque<(u64, u64)>, sequence: u64, steady_ms: u64) {
    match waiting.back_mut() {
        Some((last, at)) if steady_ms.saturating_sub(*at) < 60_000 => *last = sequence,
        _ => waiting.push_back((sequence, steady_ms)),
    }
}

/// Returns the steady time of a change that was kept before this start. The wall clock is all that tells it: an age
/// that nobody can believe, because it jumped meanwhile, counts from this start on.
pub(crate) fn steady_of_kept(clock: &Clock, kept_ms: u64) -> u64 {
    let age_ms = clock.now_ms().checked_sub(kept_ms).filter(|age_ms| *age_ms <= AGE_BELIEVED_MS_MAX);
    clock.steady_ms().saturating_sub(age_ms.unwrap_or(0))
}
