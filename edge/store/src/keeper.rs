//! The keeper: the one thread that writes. It collects what waits, makes one journal commit of it, publishes
//! it to readers and only then answers.
//!
//! **Invariant**: an answer follows the commit that made the write durable (P1).
//! **Invariant**: sealed bytes are durable before anybody may send them, in a flush shared with the next
//! commit when one waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sonae_journal::{FrameKind, Journal, JournalError, Lsn};
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::change::Change;
use sonae_proto::clock;
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::vector::{Heads, LogHead, Sequences};
use sonae_proto::view::{Fold, FoldError, Records};
use sonae_proto::wire::KeyDocuments;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::edit::{change_for, tier_of};
use crate::frame::{
    self, ChangeFrame, Checkpoint, LossFrame, ReceiptFrame, SafeHead, StoredIdentity, to_json,
};
use crate::sealer::{Own, Sealer};
use crate::view::{RecordKey, Staged};
use crate::batches::BatchIndex;
use crate::edit::{Action, Kept};
use crate::store::{Clock, Shared, StoreError, WriteError};
use crate::identity::ReplicaKeys;
use crate::keyring::Keyring;

/// Bytes of frames after which a round takes no more requests: a quarter of the largest commit.
const ROUND_BYTES: usize = 1024 * 1024;

/// Records in the overlay that make a checkpoint due: four school days.
const OVERLAY_RECORDS_MAX: usize = 4_000;

/// Journal segments that make recycling due.
const SEGMENTS_MAX: usize = 3;

/// Milliseconds without a request after which the last commit gets its mark and waiting receipts are kept.
const IDLE_MS: u64 = 2_000;

type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// What a handle asks of the keeper.
#[derive(Debug)]
pub(crate) enum Request {
    Write { action: Action, reply: Reply<Kept> },
    StoreBatch { batch: Box<Batch>, reply: Reply<()> },
    ReadBatch { log: LogName, first: u64, reply: oneshot::Sender<Option<Vec<u8>>> },
    HasHead { log: LogName, head: LogHead, reply: oneshot::Sender<bool> },
    Receipt { log: LogName, safe: SafeHead, bytes: Vec<u8> },
    Loss { loss_counter: u64, receipted: Heads, reply: Reply<()> },
    Identity(Box<StoredIdentity>),
    Documents(Box<KeyDocuments>),
    Line { up: bool },
    SealNow { reply: oneshot::Sender<()> },
    Close,
}

/// Everything that the keeper owns.
pub(crate) struct Keeper {
    pub(crate) journal: Journal,
    pub(crate) index: BatchIndex,
    pub(crate) fold: Fold,
    pub(crate) hlc: clock::Clock,
    pub(crate) sealer: Sealer,
    pub(crate) keys: ReplicaKeys,
    pub(crate) device_age_key: Zeroizing<String>,
    pub(crate) keyring: Keyring,
    pub(crate) safe: BTreeMap<LogName, SafeHead>,
    pub(crate) loss_counter: u64,
    pub(crate) identities: BTreeMap<Incarnation, StoredIdentity>,
    pub(crate) own: BTreeSet<Incarnation>,
    pub(crate) kept_ms: BTreeMap<Tier, u64>,
    /// For each own log (last sequence, kept at) of what has no receipt, oldest first.
    pub(crate) without_receipt: BTreeMap<LogName, VecDeque<(u64, u64)>>,
    pub(crate) disputed: u64,
    /// Frames that wait for the next commit.
    pub(crate) lazy: Vec<(FrameKind, Vec<u8>)>,
    /// Batches that are sealed and not durable yet.
    pub(crate) sealed: Vec<Batch>,
    pub(crate) sealed_out: tokio::sync::mpsc::UnboundedSender<BatchHeader>,
    pub(crate) commits: u64,
    pub(crate) failed: Option<String>,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
}

/// One round: what will be one commit.
#[derive(Default)]
struct Round {
    frames: Vec<(FrameKind, Vec<u8>)>,
    bytes: usize,
    /// Own changes by their place in `frames`.
    changes: Vec<(usize, LogName, u64, Vec<u8>)>,
    /// Batches by their place in `frames`.
    batches: Vec<(usize, BatchHeader, bool)>,
    answers: Vec<Box<dyn FnOnce(&Result<(), WriteError>) + Send>>,
    only_tier_0: bool,
}

impl Round {
    fn push(&mut self, kind: FrameKind, payload: Vec<u8>) -> usize {
        self.bytes += payload.len();
        self.frames.push((kind, payload));
        self.frames.len() - 1
    }

    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        self.answers.push(Box::new(move |outcome| {
            let _ = reply.send(outcome.clone().map(|()| value));
        }));
    }
}

impl Keeper {
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves requests until `Close`, or until every handle is gone.
    pub fn run(mut self, waiting: &Receiver<Request>) {
        let mut queue = VecDeque::new();
        let mut idle_work = false;
        let mut closing = false;
        while !closing {
            self.seal_due(false);
            let wait = if !queue.is_empty() || !self.sealed.is_empty() {
                Some(Duration::ZERO)
            } else {
                self.wait(idle_work)
            };
            match receive(waiting, wait) {
                Received::Request(request) => queue.push_back(request),
                Received::Nothing if queue.is_empty() && self.sealed.is_empty() && idle_work => {
                    idle_work = self.idle();
                }
                Received::Nothing => {}
                Received::Closed => break,
            }
            while queue.len() < 1_024
                && let Ok(request) = waiting.try_recv()
            {
                queue.push_back(request);
            }
            if !queue.is_empty() || !self.sealed.is_empty() {
                closing = self.round(&mut queue);
                idle_work = true;
            }
        }
        self.close();
    }

    /// Returns how long nothing is to be done; `None` for ever.
    fn wait(&self, idle_work: bool) -> Option<Duration> {
        let now_ms = self.clock.now_ms();
        let seal = self.sealer.due_ms().map(|due_ms| due_ms.saturating_sub(now_ms));
        let idle = idle_work.then_some(IDLE_MS);
        seal.into_iter().chain(idle).min().map(|ms| Duration::from_millis(ms.max(1)))
    }

    /// Makes what is waiting durable while nobody waits for an answer. Returns whether work is left.
    fn idle(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        if !self.lazy.is_empty() {
            self.round(&mut VecDeque::new());
        }
        let outcome = self.journal.mark().and_then(|_| self.journal.prepare());
        if let Err(error) = outcome {
            self.note_failure(&error);
        }
        false
    }

    /// Processes queued requests as one commit. Returns whether `Close` was among them.
    fn round(&mut self, queue: &mut VecDeque<Request>) -> bool {
        let shared = self.shared();
        let before = self.fold.clone();
        let mut closing = false;
        let mut round = Round { only_tier_0: true, ..Round::default() };
        let (staged, disputed) = {
            let view = shared.view.read().unwrap_or_else(PoisonError::into_inner);
            let mut staged = Staged::over(&view);
            for (kind, payload) in std::mem::take(&mut self.lazy) {
                round.push(kind, payload);
            }
            for batch in std::mem::take(&mut self.sealed) {
                let position = round.push(frame::SEALED, batch.bytes().to_vec());
                round.batches.push((position, *batch.header(), true));
            }
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
        let outcome = self.commit(&mut round, staged, disputed);
        if outcome.is_err() {
            self.fold = before;
        }
        // Before the answers, so that whoever got one finds it in the status.
        self.publish_state();
        for answer in std::mem::take(&mut round.answers) {
            answer(&outcome);
        }
        if outcome.is_ok() {
            self.maintain();
        }
        closing
    }

    fn take(&mut self, request: Request, round: &mut Round, staged: &mut Staged<'_>) {
        match request {
            Request::Write { action, reply } => match self.stage_action(&action, round, staged) {
                Ok(kept) => round.answer(reply, kept),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::StoreBatch { batch, reply } => match self.stage_batch(&batch, round, staged) {
                Ok(()) => round.answer(reply, ()),
                Err(error) => {
                    log::error!(log = batch.header().log.to_string(), error = error.to_string();
                        "a peer's batch cannot be applied");
                    drop(reply.send(Err(WriteError::Refused { reason: error.to_string() })));
                }
            },
            Request::ReadBatch { log, first, reply } => {
                let found = self.index.read(&self.journal, log, first);
                if let Err(error) = &found {
                    log::error!(log = log.to_string(), first, error = error.to_string();
                        "a held batch cannot be read");
                }
                let _ = reply.send(found.ok().flatten().map(|batch| batch.bytes().to_vec()));
            }
            Request::HasHead { log, head, reply } => {
                let held = self.index.headers(log).any(|header| header.head() == head);
                let _ = reply.send(held);
            }
            Request::Receipt { log, safe, bytes } => self.receipt(log, safe, bytes),
            Request::Loss { loss_counter, receipted, reply } => {
                self.loss_counter = loss_counter;
                self.lower_safe(&receipted);
                if let Ok(bytes) = to_json("loss", &LossFrame { loss_counter, receipted }) {
                    round.push(frame::LOSS, bytes);
                }
                round.answer(reply, ());
            }
            Request::Identity(identity) => self.identity(*identity),
            Request::Documents(documents) => self.documents(&documents),
            Request::Line { up } => self.sealer.set_line(up),
            Request::SealNow { reply } => {
                self.seal_due(true);
                for batch in std::mem::take(&mut self.sealed) {
                    let position = round.push(frame::SEALED, batch.bytes().to_vec());
                    round.batches.push((position, *batch.header(), true));
                }
                round.answers.push(Box::new(move |_| {
                    let _ = reply.send(());
                }));
            }
            Request::Close => {}
        }
    }

    /// Turns an action into changes. All edits are checked before the first is staged.
    fn stage_action(
        &mut self,
        action: &Action,
        round: &mut Round,
        staged: &mut Staged<'_>,
    ) -> Result<Kept, WriteError> {
        if let Some(reason) = &self.failed {
            log::error!(reason; "a write is refused because the store has failed");
            return Err(WriteError::Failed);
        }
        let now_ms = self.clock.now_ms();
        let refused = |reason: String| WriteError::Refused { reason };
        let name = self.keys.name();
        let read = |staged: &Staged<'_>, tier, collection: &str, record: &str| {
            staged.get(tier, collection, record).map_err(|error| refused(error.to_string()))
        };
        let mut bytes = 0;
        for edit in &action.edits {
            let tier = tier_of(edit).map_err(refused)?;
            let state = read(staged, tier, &edit.collection, &edit.record)?;
            if let Some(change) = change_for(edit, action, &state, clock::Stamp::default()) {
                bytes += change.to_line(name).map_err(|error| refused(error.to_string()))?.len() + 96;
            }
        }
        if bytes + round.bytes > usize::try_from(self.journal.commit_bytes_max()).unwrap_or(0) {
            return Err(refused(format!("an action of {bytes} bytes is too large; split it")));
        }
        let mut kept = Kept { sequences: Sequences::new(), changes: 0, at_ms: now_ms };
        for edit in &action.edits {
            let tier = tier_of(edit).map_err(refused)?;
            let log = LogName { tier, incarnation: name };
            let state = read(staged, tier, &edit.collection, &edit.record)?;
            if let Some(change) = change_for(edit, action, &state, self.hlc.next(now_ms)) {
                self.stage_change(&change, log, now_ms, round, staged)?;
                kept.changes += 1;
            }
            kept.sequences.insert(log, self.fold.applied(log));
        }
        Ok(kept)
    }

    fn stage_change(
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
        self.fold
            .apply(staged, log, sequence, &line)
            .map_err(|error| refused(error.to_string()))?;
        round.only_tier_0 &= log.tier == Tier::Safety;
        let payload = ChangeFrame { log, sequence, kept_ms: now_ms, line: &line }.to_bytes();
        let position = round.push(frame::CHANGE, payload);
        round.changes.push((position, log, sequence, line));
        Ok(())
    }

    fn stage_batch(
        &mut self,
        batch: &Batch,
        round: &mut Round,
        staged: &mut Staged<'_>,
    ) -> Result<(), StoreError> {
        let header = *batch.header();
        let pending = round.batches.iter().rev().find(|(_, other, _)| other.log == header.log);
        let head = pending.map_or_else(|| self.index.head(header.log), |(_, other, _)| other.head());
        if header.last <= head.sequence {
            return Ok(());
        }
        if !header.continues(&head) {
            return Err(StoreError::Hole { log: header.log, after: head.sequence });
        }
        let highest = apply_batch(&mut self.fold, staged, &self.keyring, batch)?.highest_stamp;
        self.hlc.observe(highest, self.clock.now_ms());
        round.only_tier_0 &= header.log.tier == Tier::Safety;
        let position = round.push(frame::PEER, batch.bytes().to_vec());
        round.batches.push((position, header, false));
        Ok(())
    }

    /// Makes a round durable and then visible.
    fn commit(
        &mut self,
        round: &mut Round,
        staged: BTreeMap<RecordKey, sonae_proto::record::RecordState>,
        disputed: i64,
    ) -> Result<(), WriteError> {
        if round.frames.is_empty() {
            return if self.failed.is_some() { Err(WriteError::Failed) } else { Ok(()) };
        }
        let first = self.commit_frames(&round.frames, round.only_tier_0)?;
        let lsn = |position: usize| first.plus(u64::try_from(position).unwrap_or(u64::MAX));
        let now_ms = self.clock.now_ms();
        for (position, log, sequence, line) in std::mem::take(&mut round.changes) {
            self.sealer.push(log.tier, sequence, lsn(position), line);
            self.kept_ms.insert(log.tier, now_ms);
            note_without_receipt(self.without_receipt.entry(log).or_default(), sequence, now_ms);
        }
        for (position, header, is_own) in &round.batches {
            if let Err(error) = self.index.insert_journalled(header, lsn(*position)) {
                self.failed = Some(error.to_string());
                return Err(WriteError::Failed);
            }
            if *is_own {
                let _ = self.sealed_out.send(*header);
            }
        }
        self.disputed = self.disputed.saturating_add_signed(disputed);
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner).publish(staged);
        Ok(())
    }

    fn commit_frames(
        &mut self,
        frames: &[(FrameKind, Vec<u8>)],
        only_tier_0: bool,
    ) -> Result<Lsn, WriteError> {
        let borrowed: Vec<(FrameKind, &[u8])> =
            frames.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
        let outcome = match self.journal.commit(&borrowed) {
            Err(JournalError::Full { .. }) if only_tier_0 => self.journal.commit_reserved(&borrowed),
            outcome => outcome,
        };
        match outcome {
            Ok(range) => {
                self.commits += 1;
                Ok(*range.start())
            }
            Err(error @ JournalError::Full { .. }) => {
                log::error!(error = error.to_string(); "the disk is full");
                Err(WriteError::Full)
            }
            Err(error @ JournalError::TooLarge { .. }) => {
                Err(WriteError::Refused { reason: error.to_string() })
            }
            Err(error) => {
                self.note_failure(&error);
                Err(WriteError::Failed)
            }
        }
    }

    fn note_failure(&mut self, error: &JournalError) {
        log::error!(error = error.to_string(); "the journal has failed; nothing more is kept");
        self.failed = Some(error.to_string());
    }

    fn receipt(&mut self, log: LogName, safe: SafeHead, receipt: Vec<u8>) {
        if self.safe.get(&log).is_some_and(|known| known.head.sequence >= safe.head.sequence) {
            return;
        }
        self.safe.insert(log, safe);
        if let Some(waiting) = self.without_receipt.get_mut(&log) {
            waiting.retain(|(sequence, _)| *sequence > safe.head.sequence);
        }
        if let Ok(bytes) = to_json("receipt", &ReceiptFrame { log, safe, receipt }) {
            self.lazy.push((frame::RECEIPT, bytes));
        }
    }

    fn lower_safe(&mut self, receipted: &Heads) {
        let now_ms = self.clock.now_ms();
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
                    waiting.push_back((last, now_ms));
                }
            }
        }
    }

    fn identity(&mut self, identity: StoredIdentity) {
        let Ok(verified) = identity.verify(&self.keys.board, self.keys.school) else { return };
        if let Ok(bytes) = to_json("identity", &identity) {
            self.lazy.push((frame::IDENTITY, bytes));
        }
        self.identities.insert(verified.name(), identity);
    }

    fn documents(&mut self, documents: &KeyDocuments) {
        match Keyring::open(&self.keys.board, documents, &self.device_age_key) {
            Ok(keyring) if keyring.manifest().version > self.keyring.manifest().version => {
                if let Ok(bytes) = to_json("documents", documents) {
                    self.lazy.push((frame::DOCUMENTS, bytes));
                }
                self.keyring = keyring;
                *self.shared.documents.write().unwrap_or_else(PoisonError::into_inner) =
                    documents.clone();
            }
            Ok(_) => {}
            Err(error) => log::warn!(error = error.to_string(); "key documents from the cloud are ignored"),
        }
    }

    /// Seals what is due. The batches become durable with the next commit.
    fn seal_due(&mut self, force: bool) {
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
                Ok(Some(batch)) => self.sealed.push(batch),
                Ok(None) => return,
                Err(error) => {
                    log::error!(error = error.to_string(); "sealing failed; nothing more is kept");
                    self.failed = Some(error.to_string());
                }
            }
        }
    }

    /// Checkpoints and recycles when that is due.
    fn maintain(&mut self) {
        let overlay =
            self.shared.view.read().unwrap_or_else(PoisonError::into_inner).overlay_records();
        let recycle = self.journal.segments().count() > SEGMENTS_MAX;
        if overlay < OVERLAY_RECORDS_MAX && !recycle {
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

    /// Writes the view to sled and journals that it is whole. Returns the checkpoint's place.
    fn checkpoint(&mut self) -> Result<Lsn, StoreError> {
        let checkpoint = self.describe();
        let bytes = to_json("checkpoint", &checkpoint)?;
        {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            view.write_overlay(&checkpoint.id)?;
        }
        let range = self.journal.commit(&[(frame::CHECKPOINT, bytes.as_slice())])?;
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner).clear_overlay();
        Ok(*range.start())
    }

    fn describe(&self) -> Checkpoint {
        Checkpoint {
            id: uuid::Uuid::new_v4().to_string(),
            sequences: self.fold.sequences.clone(),
            digests: self.fold.digests.clone(),
            highest_stamp: self.fold.highest_stamp,
            disputed: self.disputed,
            safe: self.safe.clone(),
            loss_counter: self.loss_counter,
            identities: self.identities.values().cloned().collect(),
            own: self.own.iter().copied().collect(),
            documents: self.keyring.documents().clone(),
            kept_ms: self.kept_ms.clone(),
        }
    }

    fn close(mut self) {
        if self.failed.is_none() {
            self.seal_due(true);
            self.round(&mut VecDeque::new());
            let outcome = self.checkpoint().and_then(|_| Ok(self.journal.mark()?));
            if let Err(error) = outcome {
                log::error!(error = error.to_string(); "closing the store failed; the next start recovers it");
            }
        }
    }

    fn own_logs(&self) -> Vec<LogName> {
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
                state.kept.insert(log.tier, crate::store::Point { sequence: last, at_ms });
            }
            match safe {
                Some(safe) => {
                    let point = crate::store::Point { sequence: safe.head.sequence, at_ms: safe.at_ms };
                    state.safe.insert(log.tier, point);
                }
                None => drop(state.safe.remove(&log.tier)),
            }
        }
        state.oldest_unsafe_ms =
            self.without_receipt.values().filter_map(|waiting| waiting.front()).map(|(_, at)| *at).min();
        state.safe_heads = self.safe.iter().map(|(log, safe)| (*log, safe.head)).collect();
        let peers = self.index.logs().filter(|log| !self.own.contains(&log.incarnation));
        state.safe_heads.extend(peers.map(|log| (log, self.index.head(log))));
        state.vector.clone_from(&self.fold.sequences);
        state.digests.clone_from(&self.fold.digests);
        state.disputed = self.disputed;
        state.commits = self.commits;
        state.flushes = self.journal.flushes();
        state.storage_bytes = self.journal.bytes_on_disk() + self.index.archive_bytes();
        state.loss_counter = self.loss_counter;
        state.failed.clone_from(&self.failed);
    }
}

/// What applying a batch found.
pub(crate) struct BatchApplied {
    pub changed: u64,
    pub highest_stamp: clock::Stamp,
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
    let key = keyring.opening(log.tier, header.epoch).ok_or_else(|| {
        crate::keyring::KeyringError::Missing { what: format!("tier {} of {}", log.tier, header.epoch) }
    })?;
    let lines = sonae_proto::seal::open_lines(batch.payload(), key)
        .map_err(|source| StoreError::Seal { log, source })?;
    let mut lines = lines.split(|byte| *byte == b'\n');
    let mut applied = BatchApplied { changed: 0, highest_stamp: clock::Stamp::default() };
    for sequence in header.first..=header.last {
        let line = lines.next().unwrap_or_default();
        match fold.apply(staged, log, sequence, line) {
            Ok(sonae_proto::view::Applied::Changed(change)) => {
                applied.changed += 1;
                applied.highest_stamp = applied.highest_stamp.max(change.stamp);
            }
            Ok(sonae_proto::view::Applied::Duplicate) => {}
            Ok(sonae_proto::view::Applied::Unreadable) => {
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

/// Notes when a change was kept; changes of one minute share an entry, so that a long outage stays small.
pub(crate) fn note_without_receipt(waiting: &mut VecDeque<(u64, u64)>, sequence: u64, now_ms: u64) {
    match waiting.back_mut() {
        Some((last, at)) if now_ms.saturating_sub(*at) < 60_000 => *last = sequence,
        _ => waiting.push_back((sequence, now_ms)),
    }
}

enum Received {
    Request(Request),
    Nothing,
    Closed,
}

fn receive(waiting: &Receiver<Request>, wait: Option<Duration>) -> Received {
    match wait {
        None => waiting.recv().map_or(Received::Closed, Received::Request),
        Some(wait) => match waiting.recv_timeout(wait) {
            Ok(request) => Received::Request(request),
            Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Closed,
        },
    }
}


