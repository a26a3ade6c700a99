//! A box under attack: the real engine, and a shell that does what `edge/src/uplink` and the keeper of `edge/store`
//! do with its effects.
//!
//! **Invariant**: a batch is kept before it is applied, in the order of its log.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sonae_proto::batch::Batch;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::snapshot::SnapshotRoot;
use sonae_proto::uplink::{Alarm, Effect, REFUSED_MS_MAX, STALL_MS, Start, Uplink};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::view::{Fold, MemoryRecords};
use sonae_proto::wire::KeyDocuments;

use super::album::Word;
use super::board::Life;
use super::history::{History, State, digest_key};
use super::proxy::Proxy;
use super::signal::Signal;
use crate::sim::shelf::Shelf;

/// What a box has when it starts.
#[derive(Default)]
pub(crate) struct Kept {
    /// Own batches and those of peers, each log in order.
    pub batches: Vec<Batch>,
    pub receipted: Heads,
    pub loss_counter: u64,
    /// Which key documents it has, 0 or 1.
    pub epoch: usize,
    /// Tiers of which it holds nothing may come as snapshots.
    pub takes_snapshots: bool,
    /// It has heard of the device that the board revokes.
    pub knows_revoked: bool,
}

/// A box.
pub(crate) struct Appliance<'a> {
    pub(super) history: &'a History,
    pub engine: Uplink,
    pub life: Life,
    pub held: BTreeMap<LogName, Vec<Batch>>,
    pub(super) fold: Fold,
    pub(super) records: MemoryRecords,
    pub documents: KeyDocuments,
    pub(super) shelf: Shelf,
    /// Roots that tiers begin with.
    pub laid: BTreeMap<Tier, (Hash32, SnapshotRoot)>,
    /// A part was kept that its root does not name.
    pub kept_unnamed: bool,
    /// The line was cut by nobody's fault.
    pub(super) is_cut: bool,
    pub signals: BTreeSet<Signal>,
    /// Heads that the cloud named in welcomes that said "complete".
    pub welcomes: Vec<Heads>,
    /// What broke, for people.
    pub notes: Vec<String>,
    pub(super) now_ms: u64,
}

impl<'a> Appliance<'a> {
    pub fn start(history: &'a History, life: Life, kept: Kept) -> Result<Self> {
        let mut held: BTreeMap<LogName, Vec<Batch>> = BTreeMap::new();
        for batch in kept.batches {
            held.entry(batch.header().log).or_default().push(batch);
        }
        let is_own = |log: &LogName| log.incarnation == life.name;
        let head = |batches: &Vec<Batch>| batches.last().map(|batch| batch.header().head());
        let board = history.board.root.verifying_key();
        let known = history.lives.iter().filter(|other| held.keys().any(|log| log.incarnation == other.name));
        let identities = known
            .filter(|other| other.name != life.name)
            .map(|other| other.identity.verify(&board, history.board.school.code))
            .collect::<Result<_, _>>()?;
        let word = kept.knows_revoked.then(|| history.album()).transpose()?.map(|album| &album.word);
        let engine = Uplink::new(Start {
            school: history.board.school.code,
            board,
            cloud: history.board.descriptor(),
            jitter: 1,
            loss_counter: kept.loss_counter,
            manifest_version: u64::try_from(kept.epoch)? + 1 + u64::from(kept.knows_revoked),
            receipted: kept.receipted,
            shown: None,
            pruned: Heads::new(),
            own_batches: held
                .iter()
                .filter(|(log, _)| is_own(log))
                .flat_map(|(_, batches)| batches.iter().map(|batch| *batch.header()))
                .collect(),
            own: BTreeSet::from([life.name]),
            snapshots: kept.takes_snapshots,
            peers: held
                .iter()
                .filter(|(log, _)| !is_own(log))
                .filter_map(|(log, batches)| Some((*log, head(batches)?)))
                .collect(),
            identities,
            revocations: word.map(Word::revocations).unwrap_or_default(),
            destroyed: sonae_proto::destruction::Destroyed::default(),
        });
        let mut appliance = Self {
            history,
            engine,
            life,
            held: BTreeMap::new(),
            fold: Fold::new(digest_key()),
            records: MemoryRecords::default(),
            documents: word
                .map_or_else(|| history.board.school.documents(kept.epoch), |word| word.documents.clone()),
            shelf: Shelf::default(),
            laid: BTreeMap::new(),
            kept_unnamed: false,
            is_cut: false,
            signals: BTreeSet::new(),
            welcomes: Vec::new(),
            notes: Vec::new(),
            now_ms: 1_764_000_000_000,
        };
        for batch in held.into_values().flatten() {
            appliance.keep(batch);
        }
        Ok(appliance)
    }

    /// Keeps and applies a batch. One that cannot be opened is told, as the store's error would be.
    pub fn keep(&mut self, batch: Batch) {
        let header = *batch.header();
        match self.history.board.school.open(&batch) {
            Ok(lines) => {
                for (line, sequence) in lines.iter().zip(header.first..) {
                    if self.fold.apply(&mut self.records, header.log, sequence, line).is_err() {
                        self.notes.push(format!("change {sequence} of {} came before its turn", header.log));
                    }
                }
            }
            Err(error) => {
                self.signals.insert(Signal::BadPeerBatch);
                self.notes.push(format!("a batch does not open: {error}"));
            }
        }
        self.held.entry(header.log).or_default().push(batch);
    }

    /// Seals a batch that the history has for it.
    pub fn seal(&mut self, batch: &Batch) {
        self.keep(batch.clone());
        self.engine.handle_sealed(batch.header(), self.now_ms);
    }

    pub fn state(&self) -> State {
        State { sequences: self.fold.sequences.clone(), digests: self.fold.digests.clone() }
    }

    /// Whether a head is the end of a batch that is held, as `--expect` asks.
    pub fn has_head(&self, log: LogName, head: LogHead) -> bool {
        self.held.get(&log).is_some_and(|batches| batches.iter().any(|batch| batch.header().head() == head))
            || self.base(log) == head
    }

    /// Expected heads that are not held.
    pub fn missing(&self, expected: &Heads) -> usize {
        expected.iter().filter(|(log, head)| !self.has_head(**log, **head)).count()
    }

    /// Whether everything own that is sealed is called safe.
    pub fn all_safe(&self) -> bool {
        let receipted = self.engine.receipted();
        let last =
            |log: &LogName| self.held.get(log).and_then(|batches| batches.last()).map(|b| b.header().last);
        self.life.logs().iter().all(|log| {
            last(log).is_none_or(|last| receipted.get(log).is_some_and(|head| head.sequence == last))
        })
    }

    fn is_done(&self) -> bool {
        let has_all =
            self.engine.cloud_heads().iter().all(|(log, head)| self.fold.applied(*log) >= head.sequence);
        self.engine.has_all_of_peers() && has_all && self.all_safe()
    }

    /// Meets the cloud behind `proxy`, on so many connections at most; ends early when nothing is left to do.
    /// What the status says in the end is a signal too.
    pub fn meet(&mut self, proxy: &mut Proxy<'_>, connections: usize) {
        for _ in 0..connections {
            if self.engine.is_renewing() {
                break;
            }
            self.now_ms += REFUSED_MS_MAX;
            self.engine.handle_timeout(self.now_ms);
            if !matches!(self.engine.poll_effect(), Some(Effect::Dial)) {
                break;
            }
            self.engine.handle_connected();
            proxy.connected();
            let is_up = self.talk(proxy);
            if is_up {
                // Long enough for a stall to be told, if something waits.
                self.now_ms += STALL_MS;
                self.engine.handle_timeout(self.now_ms);
                self.talk(proxy);
            }
            self.note_status();
            let done = is_up && self.is_done();
            proxy.gone();
            self.engine.handle_disconnected(self.now_ms);
            if done {
                break;
            }
        }
    }

    /// A signal of an earlier connection stands; this one says how it is now.
    fn note_status(&mut self) {
        for signal in [Signal::NotAll, Signal::Unsafe, Signal::Down] {
            self.signals.remove(&signal);
        }
        if !self.engine.is_up() {
            self.signals.insert(Signal::Down);
        } else if !self.engine.has_all_of_peers() {
            self.signals.insert(Signal::NotAll);
        }
        if !self.all_safe() {
            self.signals.insert(Signal::Unsafe);
        }
    }

    /// Does what the engine asks for until it asks no more. Returns whether the line still stands.
    fn talk(&mut self, proxy: &mut Proxy<'_>) -> bool {
        while let Some(effect) = self.engine.poll_effect() {
            let outcome = match effect {
                // No box makes one here.
                Effect::Dial | Effect::SendSnapshot(_) | Effect::SendSnapshotPart { .. } => Ok(()),
                Effect::FetchSnapshot(name) => self.fetch_snapshot(proxy, name),
                Effect::SendHello => self.greet(proxy),
                Effect::SendKeys => {
                    proxy.keys(&self.documents);
                    Ok(())
                }
                Effect::SendBatch { log, first } => self.send(proxy, log, first),
                Effect::Fetch(fetch) => {
                    let frames = proxy.fetch(&fetch);
                    self.fetched(&frames)
                }
                Effect::Disconnect => {
                    self.engine.handle_disconnected(self.now_ms);
                    self.drain();
                    return false;
                }
                other @ (Effect::StoreBatch(_)
                | Effect::KeepIdentity(_)
                | Effect::KeepKeys(_)
                | Effect::Quarantine(_)
                | Effect::KeepReceipt { .. }
                | Effect::KeepShown(_)
                | Effect::KeepLoss { .. }
                | Effect::KeepSnapshot(_)
                | Effect::KeepSnapshotPart(_)
                | Effect::LoadSnapshot(_)
                | Effect::SnapshotSafe { .. }
                | Effect::Renew
                | Effect::Alarm(_)) => {
                    self.perform(other);
                    Ok(())
                }
            };
            if let Err(what) = outcome {
                if !std::mem::take(&mut self.is_cut) {
                    self.signals.insert(Signal::Broken);
                }
                self.notes.push(what.to_owned());
                self.engine.handle_disconnected(self.now_ms);
                self.drain();
                return false;
            }
        }
        self.engine.is_up()
    }

    /// Does what needs no line.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StoreBatch(batch) => self.keep(*batch),
            Effect::KeepLoss { .. } => self.engine.handle_loss_kept(),
            Effect::Alarm(alarm) => self.alarm(&alarm),
            Effect::KeepSnapshot(snapshot) => self.shelf.put_root(snapshot.text().to_owned()),
            Effect::KeepSnapshotPart(part) => self.keep_part(*part),
            Effect::LoadSnapshot(snapshot) => self.load_snapshot(&snapshot),
            Effect::KeepIdentity(_)
            | Effect::KeepKeys(_)
            | Effect::Quarantine(_)
            | Effect::KeepReceipt { .. }
            | Effect::KeepShown(_)
            | Effect::Renew
            | Effect::Dial
            | Effect::SendHello
            | Effect::SendKeys
            | Effect::SendBatch { .. }
            | Effect::Fetch(_)
            | Effect::FetchSnapshot(_)
            | Effect::SendSnapshot(_)
            | Effect::SendSnapshotPart { .. }
            | Effect::SnapshotSafe { .. }
            | Effect::Disconnect => {}
        }
    }

    /// Does what is left to do when there is no line.
    pub fn drain(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            self.perform(effect);
        }
    }

    fn alarm(&mut self, alarm: &Alarm) {
        self.notes.push(format!("{alarm:?}"));
        self.signals.insert(match alarm {
            Alarm::CloudLost { .. } | Alarm::Unfillable { .. } => Signal::CloudLost,
            Alarm::CloudLostPeer { .. } => Signal::CloudLostPeer,
            Alarm::OwnLogElsewhere { .. } => Signal::OwnLogElsewhere,
            Alarm::Refused(_) | Alarm::RevocationTakenBack { .. } | Alarm::AppliedBeforeRevocation { .. } => {
                Signal::Refused
            }
            Alarm::BadPeerBatch { .. } => Signal::BadPeerBatch,
            Alarm::BadSnapshot { .. } => Signal::BadSnapshot,
            Alarm::Stalled { .. } => Signal::Stalled,
            Alarm::NotServed { .. } => Signal::NotServed,
            Alarm::Incomplete => Signal::Incomplete,
        });
    }
}
