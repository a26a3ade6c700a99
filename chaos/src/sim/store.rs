//! What one box keeps: its frames in the real journal on a simulated disk, and what they add up to.
//!
//! Models the keeper of `edge/store`: an answer follows the commit; sealed bytes are durable before they leave;
//! receipts and identities wait for the next commit; a raised loss counter does not. One commit after the other,
//! on the caller's thread. Left out: the view on disk, the archive.
//!
//! **Invariant**: [`Held`] is what the journal would give back, and what waits in `lazy` besides.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use sonae_journal::sim::SimDisk;
use sonae_journal::{Journal, JournalError, Lsn, Options, Planted};
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::LogName;
use sonae_proto::uplink::Shown;
use sonae_proto::vector::{Heads, LogHead};

use super::item::Item;
use super::shelf::Shelf;

/// Bytes of a commit's frames at most; segments of every size that a run may choose hold more.
const COMMIT_BYTES: usize = 20 * 1024;

/// Bytes that the journal needs for a frame beside its payload, at most.
const FRAME_BYTES: usize = 32;

/// What everything kept adds up to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub lines: BTreeMap<LogName, Vec<Vec<u8>>>,
    pub sealed: BTreeMap<LogName, Vec<Batch>>,
    pub peers: BTreeMap<LogName, Vec<Batch>>,
    pub receipted: Heads,
    pub loss_counter: u64,
    pub shown: Option<Shown>,
    pub identities: Vec<IdentityText>,
    /// Up to where own batches are gone.
    pub pruned: Heads,
    pub shelf: Shelf,
    /// Everything that the cloud had was here once.
    pub is_rebuilt: bool,
}

impl Held {
    fn add(&mut self, item: Item) {
        match item {
            Item::Change { log, sequence, line } => {
                let lines = self.lines.entry(log).or_default();
                if sequence == length(lines) + 1 {
                    lines.push(line);
                }
            }
            Item::Sealed(batch) => {
                let base = self.base(batch.header().log);
                append(&mut self.sealed, batch, base);
            }
            Item::Peer(batch) => {
                let base = self.shelf.base(batch.header().log);
                append(&mut self.peers, batch, base);
            }
            Item::Root(text) => self.shelf.put_root(text),
            Item::Part(sealed) => self.shelf.put_part(sealed),
            Item::Founded(tier, root) => drop(self.shelf.foundations.insert(tier, root)),
            Item::Made(tier, made) => self.shelf.set_made(tier, made),
            Item::Rebuilt => self.is_rebuilt = true,
            Item::Pruned(bases) => {
                for (log, base) in &bases {
                    let batches = self.sealed.entry(*log).or_default();
                    batches.retain(|batch| batch.header().last > base.sequence);
                }
                self.pruned.extend(bases);
            }
            Item::Receipt { log, head } => {
                self.receipted.insert(log, head);
            }
            Item::Loss { counter, receipted } => {
                (self.loss_counter, self.receipted) = (counter, receipted);
            }
            Item::Shown(shown) => self.shown = Some(shown),
            Item::Identity(text) => {
                if !self.identities.contains(&text) {
                    self.identities.push(text);
                }
            }
        }
    }

    /// Everything again, for a journal that is to forget its past.
    fn items(&self) -> Vec<Item> {
        let identities = self.identities.iter().cloned().map(Item::Identity);
        let lines = self.lines.iter().flat_map(|(log, lines)| {
            let change =
                |(line, sequence): (&Vec<u8>, u64)| Item::Change { log: *log, sequence, line: line.clone() };
            lines.iter().zip(1..).map(change)
        });
        let sealed = self.sealed.values().flatten().cloned().map(Item::Sealed);
        let peers = self.peers.values().flatten().cloned().map(Item::Peer);
        let loss = Item::Loss { counter: self.loss_counter, receipted: self.receipted.clone() };
        let shown = self.shown.clone().map(Item::Shown);
        let pruned = Item::Pruned(self.pruned.clone());
        let rebuilt = self.is_rebuilt.then_some(Item::Rebuilt);
        let all = identities.chain(lines).chain([pruned]).chain(self.shelf.items());
        all.chain(sealed).chain(peers).chain([loss]).chain(shown).chain(rebuilt).collect()
    }

    /// Where the batches of an own log begin.
    pub fn base(&self, log: LogName) -> LogHead {
        self.pruned.get(&log).copied().unwrap_or(LogHead::EMPTY)
    }

    /// Whether an own log is known to lead through a point.
    pub fn has_point(&self, log: LogName, point: LogHead) -> bool {
        let mut ends = self.sealed.get(&log).into_iter().flatten().map(|batch| batch.header().head());
        point == LogHead::EMPTY || point == self.base(log) || ends.any(|end| end == point)
    }

    /// The head of what is sealed of an own log.
    pub fn sealed_head(&self, log: LogName) -> LogHead {
        let last = self.sealed.get(&log).and_then(|batches| batches.last());
        last.map_or_else(|| self.base(log), |batch| batch.header().head())
    }

    /// The head of what is held of a peer's log.
    pub fn peer_head(&self, log: LogName) -> LogHead {
        let last = self.peers.get(&log).and_then(|batches| batches.last());
        last.map_or_else(|| self.shelf.base(log), |batch| batch.header().head())
    }

    /// Heads of all logs of which batches are held.
    pub fn heads(&self) -> Heads {
        let own = self.sealed.keys().map(|log| (*log, self.sealed_head(*log)));
        own.chain(self.peers.keys().map(|log| (*log, self.peer_head(*log)))).collect()
    }

    /// The batches of a log from the one on that holds the change after this one, or that is the earliest later one.
    pub fn batches_after(&self, log: LogName, after: u64) -> impl Iterator<Item = &Batch> {
        let batches = self.sealed.get(&log).or_else(|| self.peers.get(&log));
        batches.into_iter().flatten().skip_while(move |batch| batch.header().last <= after)
    }

    /// Heads of all peers' logs.
    pub fn peer_heads(&self) -> Heads {
        let heads = self.peers.keys().map(|log| (*log, self.peer_head(*log)));
        self.shelf.bases().into_iter().chain(heads).collect()
    }

    /// Headers of all own sealed batches, in order.
    pub fn own_batches(&self) -> Vec<BatchHeader> {
        self.sealed.values().flatten().map(|batch| *batch.header()).collect()
    }
}

fn append(logs: &mut BTreeMap<LogName, Vec<Batch>>, batch: Batch, base: LogHead) {
    let batches = logs.entry(batch.header().log).or_default();
    let head = batches.last().map_or(base, |last| last.header().head());
    // Behind a recycled past the rest of it may come first; the whole follows.
    if batch.header().continues(&head) {
        batches.push(batch);
    }
}

/// The number of changes in a list of lines.
pub(crate) fn length(lines: &[Vec<u8>]) -> u64 {
    u64::try_from(lines.len()).unwrap_or(u64::MAX)
}

/// How a box keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    pub segment_bytes: u32,
    pub planted: Planted,
}

/// The open store of a box.
pub(crate) struct Store {
    journal: Journal,
    pub held: Held,
    /// Kept with the next commit.
    lazy: Vec<Item>,
}

impl Store {
    /// Opens what lies on a disk.
    pub fn open(disk: &SimDisk, keeping: Keeping) -> Result<Self> {
        let options =
            Options { segment_bytes: keeping.segment_bytes, planted: keeping.planted, ..Options::default() };
        let (journal, _) = Journal::open(Arc::new(disk.clone()), Path::new("/journal"), options)?;
        let mut held = Held::default();
        for frame in journal.replay(journal.first_lsn()) {
            let frame = frame?;
            held.add(Item::decode(frame.kind, frame.payload).context("cannot read a frame")?);
        }
        Ok(Self { journal, held, lazy: Vec::new() })
    }

    /// Uses something before it is kept: a planted defect.
    pub fn pretend_to_keep(&mut self, item: Item) {
        self.held.add(item);
    }

    /// Keeps an item with the next commit.
    pub fn keep_later(&mut self, item: Item) {
        self.held.add(item.clone());
        if matches!(item, Item::Shown(_)) {
            self.lazy.retain(|waiting| !matches!(waiting, Item::Shown(_)));
        }
        self.lazy.push(item);
    }

    /// Keeps items, and what waited, in as many commits as they need.
    ///
    /// # Durability
    /// When it returns, everything is on stable storage.
    pub fn keep(&mut self, items: Vec<Item>) -> Result<(), JournalError> {
        let mut waiting = std::mem::take(&mut self.lazy);
        let lazy = waiting.len();
        waiting.extend(items);
        let mut done = 0;
        let outcome = self.commit(&waiting, &mut done);
        for item in waiting.iter().take(done).skip(lazy) {
            self.held.add(item.clone());
        }
        self.lazy = waiting.into_iter().take(lazy).skip(done).collect();
        outcome
    }

    fn commit(&mut self, items: &[Item], done: &mut usize) -> Result<(), JournalError> {
        while *done < items.len() {
            let mut frames = Vec::new();
            let mut bytes = 0;
            for item in &items[*done..] {
                let (kind, payload) = item.encode().map_err(|_| JournalError::Empty)?;
                bytes += payload.len() + FRAME_BYTES;
                if bytes > COMMIT_BYTES && !frames.is_empty() {
                    break;
                }
                frames.push((kind, payload));
            }
            let borrowed: Vec<_> = frames.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
            let part = items.iter().skip(*done).take(frames.len());
            if part.clone().any(Item::concerns_safety) {
                self.journal.commit_reserved(&borrowed)?;
            } else {
                self.journal.commit(&borrowed)?;
            }
            *done += frames.len();
        }
        Ok(())
    }

    /// What an idle box does: keeps what waits, prepares spare segments, marks.
    pub fn idle(&mut self) -> Result<(), JournalError> {
        self.keep(Vec::new())?;
        self.journal.prepare()?;
        self.journal.mark()?;
        Ok(())
    }

    /// Writes everything anew and recycles the past.
    pub fn compact(&mut self) -> Result<(), JournalError> {
        self.keep(Vec::new())?;
        let from: Lsn = self.journal.next_lsn();
        let items = self.held.items();
        self.commit(&items, &mut 0)?;
        self.journal.recycle_before(from)?;
        Ok(())
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.journal.bytes_on_disk()
    }

    /// Whether a commit for tier 0 must succeed on a disk that is full.
    pub fn has_reserve(&self) -> bool {
        self.journal.reserve_ready() > 0
    }
}
