//! A round of the keeper: queued requests become staged changes, the staged changes one commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;

use sonae_journal::FrameKind;
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::change::Change;
use sonae_proto::clock;
use sonae_proto::erasure::tombstones;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::limits::CHANGE_WRITTEN_BYTES_MAX;
use sonae_proto::record::RecordState;
use sonae_proto::vector::Sequences;
use sonae_proto::view::{Applied, Fold, FoldError, Records};

use super::standing::note_without_receipt;
use super::{Keeper, Reply, Request};
use crate::edit::{Action, Kept, change_for, tier_of};
use crate::frame::{self, ChangeFrame, LossFrame, to_json};
use crate::keyring::Keyring;
use crate::store::{StoreError, WriteError};
use crate::view::{RecordKey, Staged};

/// Bytes of frames after which a round takes no more requests: a quarter of the largest commit.
const ROUND_BYTES: usize = 1024 * 1024;

/// Answers somebody once the round's outcome is known.
type Answer = Box<dyn FnOnce(&Result<(), WriteError>) + Send>;

/// One round: what will be one commit.
#[derive(Default)]
pub(super) struct Round {
    frames: Vec<(FrameKind, Vec<u8>)>,
    pub(super) bytes: usize,
    /// Own changes by their place in `frames`.
    changes: Vec<(usize, LogName, u64, Vec<u8>)>,
    /// Batches by their place in `frames`.
    pub(super) batches: Vec<(usize, BatchHeader, bool)>,
    answers: Vec<Answer>,
    /// Writes of tier 0 by people, which are answered or taken again.
    safety: Vec<(Action, Reply<Kept>, Kept)>,
    /// Whether something of tier 0, and of another tier, is in it: the reserve of a full disk is for tier 0 alone.
    tier_0: bool,
    other_tiers: bool,
}

impl Round {
    pub(super) fn concern(&mut self, tier: Tier) {
        self.tier_0 |= tier == Tier::Safety;
        self.other_tiers |= tier != Tier::Safety;
    }

    pub(super) fn push_sealed(&mut self, batch: &Batch) {
        self.concern(batch.header().log.tier);
        let position = self.push(frame::SEALED, batch.bytes().to_vec());
        self.batches.push((position, *batch.header(), true));
    }

    pub(super) fn push(&mut self, kind: FrameKind, payload: Vec<u8>) -> usize {
        self.bytes += payload.len();
        self.frames.push((kind, payload));
        self.frames.len() - 1
    }

    /// Answers everybody who waits.
    fn tell(&mut self, outcome: &Result<(), WriteError>) {
        for answer in std::mem::take(&mut self.answers) {
            answer(outcome);
        }
        for (_, reply, kept) in std::mem::take(&mut self.safety) {
            let _ = reply.send(outcome.clone().map(|()| kept));
        }
    }

    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        self.answers.push(Box::new(move |outcome| {
            let _ = reply.send(outcome.clone().map(|()| value));
        }));
    }
}

impl Keeper {
    /// Processes queued requests as one commit. Returns whether `Close` was among them.
    pub(crate) fn round(&mut self, queue: &mut VecDeque<Request>) -> bool {
        let shared = self.shared();
        let before = self.fold.clone();
        let mut closing = false;
        let mut round = Round::default();
        self.step_room();
        let lazy_frames = self.lazy.len();
        let (staged, disputed) = {
            let view = shared.view.read().unwrap_or_else(PoisonError::into_inner);
            let mut staged = Staged::over(&view);
            for (kind, payload) in std::mem::take(&mut self.lazy) {
                round.push(kind, payload);
            }
            self.take_sealed(&mut round, ROUND_BYTES);
            while round.bytes < ROUND_BYTES {
                match queue.pop_front() {
                    None => break,
                    Some(Request::Close) => {
                        closing = true;
                        break;
                    }
                    Some(request) => self.take(request, &mut round, &mut staged),
                }
            }
            (staged.records, staged.disputed)
        };
        if self.options.defects.answer_before_commit() {
            round.tell(&Ok(()));
        }
        let outcome = self.commit(&mut round, staged, disputed);
        if outcome.is_err() {
            self.fold = before;
            self.take_back(&round, lazy_frames);
        }
        // Before the answers, so that whoever got one finds it in the status.
        self.publish_state();
        // Something else in the round has found no room: tier 0 is taken again, by itself.
        if matches!(outcome, Err(WriteError::Full)) && round.other_tiers {
            let again = std::mem::take(&mut round.safety).into_iter().rev();
            again.for_each(|(action, reply, _)| queue.push_front(Request::Write { action, reply }));
        }
        round.tell(&outcome);
        if outcome.is_ok() {
            self.do_late();
            self.maintain();
        } else {
            self.drop_late();
        }
        closing
    }

    /// Keeps what a failed commit would have made durable for the next one: the sealer has let go of the lines of
    /// these batches, and sealing them again would fork the log.
    fn take_back(&mut self, round: &Round, lazy_frames: usize) {
        let mut lazy: Vec<_> = round.frames.iter().take(lazy_frames).cloned().collect();
        lazy.append(&mut self.lazy);
        self.lazy = lazy;
        let own = round.batches.iter().filter(|(_, _, is_own)| *is_own);
        let bytes = own.filter_map(|(position, _, _)| round.frames.get(*position));
        let batches = bytes.filter_map(|(_, bytes)| Batch::from_bytes(bytes.clone()).ok());
        drop(self.sealed.splice(..0, batches));
    }

    fn take(&mut self, request: Request, round: &mut Round, staged: &mut Staged<'_>) {
        match request {
            Request::Write { mut action, reply } => {
                action.source.take_if(|_| self.options.defects.import_two_way());
                match self.stage_action(&action, round, staged) {
                    Ok(kept) if Self::is_safety(&action) => round.safety.push((action, reply, kept)),
                    Ok(kept) => {
                        round.other_tiers = true;
                        round.answer(reply, kept);
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Request::Reissue { tier, changes, reply } => {
                match self.stage_reissue(tier, &changes, round, staged) {
                    Ok(()) => round.answer(reply, ()),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Request::Held { reply } => {
                let headers = |log| (log, self.index.headers(log).collect());
                let _ = reply.send(self.index.logs().map(headers).collect());
            }
            Request::StoreBatch { batch, reply } => self.take_batch(&batch, reply, round, staged),
            Request::ReadBatch { log, first, reply } => drop(reply.send(self.read_batch(log, first))),
            Request::BatchAfter { log, after, reply } => {
                let first = self.index.first_after(log, after);
                let _ = reply.send(first.and_then(|first| self.read_batch(log, first)));
            }
            Request::HasHead { log, head, reply } => {
                let _ = reply.send(self.index.has(log, head));
            }
            Request::Receipt { log, safe, bytes } => self.receipt(log, safe, bytes),
            Request::Shown(shown) => self.shown(*shown),
            Request::Loss { loss_counter, receipted, reply } => {
                self.loss_counter = loss_counter;
                self.lower_safe(&receipted);
                // Nothing of any tier is sent before it is kept.
                round.concern(Tier::Safety);
                if let Ok(bytes) = to_json("loss", &LossFrame { loss_counter, receipted }) {
                    round.push(frame::LOSS, bytes);
                }
                round.answer(reply, ());
            }
            Request::Identity(identity) => self.identity(*identity),
            Request::Documents(documents) => self.documents(&documents),
            Request::Line { up } => self.sealer.set_line(up),
            Request::Neighbours { any } => self.sealer.set_neighbours(any),
            Request::Quota(quota) => self.set_quota(quota),
            Request::Freeze => self.is_frozen = true,
            Request::Late(late) => self.late.push(late),
            Request::SealNow { reply } => {
                self.seal_due(true);
                self.take_sealed(round, usize::MAX);
                round.answers.push(Box::new(move |_| {
                    let _ = reply.send(());
                }));
            }
            Request::Mark { reply } => self.marks.push(reply),
            Request::Close => {}
        }
    }

    fn read_batch(&self, log: LogName, first: u64) -> Option<Vec<u8>> {
        let found = self.index.read(&self.journal, log, first);
        if let Err(error) = &found {
            log::error!(log = log.to_string(), first, error = error.to_string(); "a held batch cannot be read");
        }
        found.ok().flatten().map(|batch| batch.bytes().to_vec())
    }

    fn take_batch(&mut self, batch: &Batch, reply: Reply<()>, round: &mut Round, staged: &mut Staged<'_>) {
        let (log, last) = (batch.header().log, batch.header().last);
        let room = self.room.check(log.tier);
        if room.is_err() && last > self.index.head(log).sequence {
            return drop(reply.send(room));
        }
        match self.stage_batch(batch, round, staged) {
            Ok(()) => round.answer(reply, ()),
            Err(error) => {
                log::error!(log = log.to_string(), error = error.to_string(); "a peer's batch cannot be applied");
                drop(reply.send(Err(WriteError::Refused { reason: error.to_string() })));
            }
        }
    }

    /// Turns an action into changes. All edits are checked before the first is staged.
    fn stage_action(
        &mut self,
        action: &Action,
        round: &mut Round,
        staged: &mut Staged<'_>,
    ) -> Result<Kept, WriteError> {
        self.may_write()?;
        let now_ms = self.clock.now_ms();
        let refused = |reason: String| WriteError::Refused { reason };
        let name = self.keys.name();
        let read = |staged: &Staged<'_>, tier, collection: &str, record: &str| {
            staged.get(tier, collection, record).map_err(|error| refused(error.to_string()))
        };
        let mut bytes = 0;
        for edit in &action.edits {
            let tier = tier_of(edit).map_err(refused)?;
            self.shared.filling.check(tier)?;
            if self.is_erased(edit, staged)? {
                // An import goes on without it. A person is told.
                action.source.as_ref().ok_or(WriteError::Erased)?;
                continue;
            }
            let state = read(staged, tier, &edit.collection, &edit.record)?;
            if let Some(change) = change_for(edit, action, &state, clock::Stamp::default()) {
                let line = change.to_line(name).map_err(|error| refused(error.to_string()))?.len();
                if line >= CHANGE_WRITTEN_BYTES_MAX {
                    let reason =
                        format!("a change of {line} bytes is over {CHANGE_WRITTEN_BYTES_MAX}; split it");
                    return Err(WriteError::Refused { reason });
                }
                bytes += line + 96;
                // An import is bulk work, also where it brings tier 0.
                self.room.check(if action.source.is_some() { tier.max(Tier::Daily) } else { tier })?;
            }
        }
        if bytes + round.bytes > usize::try_from(self.journal.commit_bytes_max()).unwrap_or(0) {
            return Err(refused(format!("an action of {bytes} bytes is too large; split it")));
        }
        let mut kept = Kept { sequences: Sequences::new(), changes: 0, erased: 0, at_ms: now_ms };
        for edit in &action.edits {
            let tier = tier_of(edit).map_err(refused)?;
            let log = LogName { tier, incarnation: name };
            if self.is_erased(edit, staged)? {
                kept.erased += 1;
                continue;
            }
            let state = read(staged, tier, &edit.collection, &edit.record)?;
            if let Some(change) = change_for(edit, action, &state, self.hlc.next(now_ms)) {
                self.stage_change(&change, log, now_ms, round, staged)?;
                kept.changes += 1;
            }
            kept.sequences.insert(log, self.fold.applied(log));
        }
        Ok(kept)
    }

    pub(super) fn stage_change(
        &mut self,
        change: &Change,
        log: LogName,
        now_ms: u64,
        round: &mut Round,
        staged: &mut Staged<'_>,
    ) -> Result<(), WriteError> {
        let refused = |reason: String| WriteError::Refused { reason };
        let line = change.to_line(log.incarnation).map_err(|error| refused(error.to_string()))?;
        let sequence = self.fold.applied(log) + 1;
        self.fold.apply(staged, log, sequence, &line).map_err(|error| refused(error.to_string()))?;
        round.concern(log.tier);
        let payload = ChangeFrame { log, sequence, kept_ms: now_ms, line: &line }.to_bytes();
        self.scrub_due |= change.collection == tombstones(log.tier);
        let position = round.push(frame::CHANGE, payload);
        round.changes.push((position, log, sequence, line));
        Ok(())
    }

    /// Makes a round durable and then visible.
    fn commit(
        &mut self,
        round: &mut Round,
        staged: BTreeMap<RecordKey, RecordState>,
        disputed: i64,
    ) -> Result<(), WriteError> {
        if round.frames.is_empty() {
            return self.publish_held(staged, disputed);
        }
        let first = self.commit_frames(&round.frames, round.tier_0 && !round.other_tiers)?;
        let lsn = |position: usize| first.plus(u64::try_from(position).unwrap_or(u64::MAX));
        let (now_ms, steady_ms) = (self.clock.now_ms(), self.clock.steady_ms());
        for (position, log, sequence, line) in std::mem::take(&mut round.changes) {
            self.sealer.push(log.tier, sequence, lsn(position), line);
            self.kept_ms.insert(log.tier, now_ms);
            note_without_receipt(self.without_receipt.entry(log).or_default(), sequence, steady_ms);
        }
        for (position, header, is_own) in &round.batches {
            if let Err(error) = self.index.insert_journalled(header, lsn(*position)) {
                self.failed = Some(error.to_string());
                return Err(WriteError::Failed);
            }
            if *is_own {
                self.sealed_is_kept(header);
            }
        }
        if !round.batches.is_empty() {
            self.count_key_uses();
        }
        self.disputed = self.disputed.saturating_add_signed(disputed);
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner).publish(staged);
        Ok(())
    }
}

/// What applying a batch found.
#[derive(Debug, Default)]
pub(crate) struct BatchApplied {
    pub changed: u64,
    pub highest_stamp: clock::Stamp,
    /// Whether a tombstone was in it.
    pub erases: bool,
    /// Whether something was in it of what was erased.
    pub is_of_erased: bool,
}

/// Opens a batch and applies its lines. A line that is missing or unreadable takes its place in the log.
pub(crate) fn apply_batch(
    fold: &mut Fold,
    staged: &mut Staged<'_>,
    keyring: &Keyring,
    batch: &Batch,
) -> Result<BatchApplied, StoreError> {
    let header = batch.header();
    let log = header.log;
    let key =
        keyring.opening(log.tier, header.epoch).ok_or_else(|| keyring.missing(log.tier, header.epoch))?;
    let lines = sonae_proto::seal::open_lines(batch.payload(), key)
        .map_err(|source| StoreError::Seal { log, source })?;
    let mut lines = lines.split(|byte| *byte == b'\n');
    let mut applied = BatchApplied::default();
    for sequence in header.first..=header.last {
        let line = lines.next().unwrap_or_default();
        match fold.apply(staged, log, sequence, line) {
            Ok(Applied::Changed(change)) => {
                applied.changed += 1;
                applied.erases |= change.collection == tombstones(log.tier);
                applied.highest_stamp = applied.highest_stamp.max(change.stamp);
            }
            Ok(Applied::Erased) => applied.is_of_erased = true,
            Ok(Applied::Duplicate) => {}
            Ok(Applied::Unreadable) => {
                log::warn!(log = log.to_string(), sequence; "a change cannot be read by this version");
            }
            Err(FoldError::Gap { expected, .. }) => {
                return Err(StoreError::Hole { log, after: expected.saturating_sub(1) });
            }
            Err(FoldError::Store(error)) => return Err(error.into()),
        }
    }
    Ok(applied)
}
