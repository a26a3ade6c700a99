//! The keeper: the one thread that writes. It collects what waits, makes one journal commit of it, publishes
//! it to readers and only then answers.
//!
//! **Invariant**: an answer follows the commit that made the write durable (P1).
//! **Invariant**: sealed bytes are durable before anybody may send them, in a flush shared with the next
//! commit when one waits.

mod erasure;
mod mark;
mod prune;
mod reissue;
mod room;
mod round;
mod snapshot;
mod standing;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sonae_journal::{FrameKind, Journal};
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::change::Change;
use sonae_proto::clock;
use sonae_proto::digest::DigestKey;
use sonae_proto::ids::{Hash32, Incarnation, LogName, Tier};
use sonae_proto::snapshot::{Snapshot, SnapshotRoot};
use sonae_proto::uplink::Shown;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::view::Fold;
use sonae_proto::wire::KeyDocuments;
use tokio::sync::oneshot;

use crate::batches::BatchIndex;
use crate::clock::Clock;
use crate::edit::{Action, Kept};
use crate::foundation::Keys;
use crate::frame::{SafeHead, StoredIdentity};
use crate::identity::ReplicaKeys;
use crate::keyring::Keyring;
use crate::room::Quota;
use crate::sealer::Sealer;
use crate::state::KeyUses;
use crate::store::{Shared, StoreError, WriteError};

pub use mark::Mark;
pub(crate) use room::Room;
pub(crate) use round::apply_batch;
pub(crate) use snapshot::Pinned;
pub(crate) use standing::{note_without_receipt, steady_of_kept};

/// Milliseconds without a request after which the last commit gets its mark and waiting receipts are kept.
const IDLE_MS: u64 = 2_000;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// What a handle asks of the keeper.
#[derive(Debug)]
pub(crate) enum Request {
    Write { action: Action, reply: Reply<Kept> },
    Reissue { tier: Tier, changes: Vec<Change>, reply: Reply<()> },
    Held { reply: oneshot::Sender<BTreeMap<LogName, Vec<BatchHeader>>> },
    StoreBatch { batch: Box<Batch>, reply: Reply<()> },
    ReadBatch { log: LogName, first: u64, reply: oneshot::Sender<Option<Vec<u8>>> },
    BatchAfter { log: LogName, after: u64, reply: oneshot::Sender<Option<Vec<u8>>> },
    HasHead { log: LogName, head: LogHead, reply: oneshot::Sender<bool> },
    Receipt { log: LogName, safe: SafeHead, bytes: Vec<u8> },
    Shown(Box<Shown>),
    Loss { loss_counter: u64, receipted: Heads, reply: Reply<()> },
    Identity(Box<StoredIdentity>),
    Documents(Box<KeyDocuments>),
    Line { up: bool },
    Neighbours { any: bool },
    Quota(Quota),
    Freeze,
    Late(Late),
    SealNow { reply: oneshot::Sender<()> },
    Mark { reply: Reply<Mark> },
    Close,
}

/// What waits until the round that it came in is durable.
#[derive(Debug)]
pub(crate) enum Late {
    Pin { tier: Tier, reply: oneshot::Sender<Option<Pinned>> },
    Load { root: Hash32, reply: oneshot::Sender<Result<(), StoreError>> },
    Prune { root: Hash32, reply: oneshot::Sender<Result<Option<u64>, StoreError>> },
    Keys { tier: Tier, epoch: u32, reply: oneshot::Sender<Result<Keys, StoreError>> },
    Unpin,
    DigestKey { reply: oneshot::Sender<DigestKey> },
    Sign { root: Box<SnapshotRoot>, reply: oneshot::Sender<Option<Snapshot>> },
    Tidy,
    Distrust,
}

/// Everything that the keeper owns.
pub(crate) struct Keeper {
    pub(crate) journal: Journal,
    pub(crate) index: BatchIndex,
    pub(crate) fold: Fold,
    pub(crate) hlc: clock::Clock,
    pub(crate) sealer: Sealer,
    pub(crate) keys: ReplicaKeys,
    pub(crate) keyring: Keyring,
    pub(crate) safe: BTreeMap<LogName, SafeHead>,
    pub(crate) loss_counter: u64,
    pub(crate) shown: Option<Shown>,
    pub(crate) identities: BTreeMap<Incarnation, StoredIdentity>,
    pub(crate) own: BTreeSet<Incarnation>,
    pub(crate) kept_ms: BTreeMap<Tier, u64>,
    /// For each own log (last sequence, steady time when it was kept) of what has no receipt, oldest first.
    pub(crate) without_receipt: BTreeMap<LogName, VecDeque<(u64, u64)>>,
    pub(crate) disputed: u64,
    /// Bytes of own sealed batches.
    pub(crate) own_bytes: BTreeMap<Tier, u64>,
    /// Roots of the snapshots that tiers began with.
    pub(crate) foundations: BTreeMap<Tier, Hash32>,
    /// A snapshot is being made of the view on disk, so nothing is written to it.
    pub(crate) pinned: bool,
    /// Tombstones have come since journal and view were last overwritten.
    pub(crate) scrub_due: bool,
    /// For each tier the latest epoch under which something of erased records is, or may be, sealed, besides those that
    /// tombstones name.
    pub(crate) erased_under: BTreeMap<Tier, u32>,
    /// Key documents for which there was no room. They do not come again by themselves.
    pub(crate) untaken: Option<Box<KeyDocuments>>,
    /// What is held by the keys that it is sealed to, as of the last count.
    pub(crate) key_uses: BTreeMap<(Tier, u32), KeyUses>,
    /// The view on disk is not the fold of the journal: it is made again at the next start.
    pub(crate) distrusted: bool,
    pub(crate) late: Vec<Late>,
    /// Frames that wait for the next commit.
    pub(crate) lazy: Vec<(FrameKind, Vec<u8>)>,
    /// Batches that are sealed and not durable yet.
    pub(crate) sealed: Vec<Batch>,
    pub(crate) sealed_out: tokio::sync::mpsc::UnboundedSender<BatchHeader>,
    /// Where the view lies, whose file system is looked at.
    pub(crate) view_dir: std::path::PathBuf,
    /// How the store is kept.
    pub(crate) options: crate::options::Options,
    /// Whether the last look found too little room for a checkpoint.
    pub(crate) is_short_of_room: bool,
    /// Who may still write.
    pub(crate) room: Room,
    pub(crate) commits: u64,
    pub(crate) failed: Option<String>,
    /// Those who wait for a mark.
    pub(crate) marks: Vec<Reply<Mark>>,
    /// Nobody may write any more.
    pub(crate) is_frozen: bool,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
}

impl Keeper {
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves requests until `Close`, or until every handle is gone.
    pub fn run(mut self, waiting: &Receiver<Request>) {
        let mut queue = VecDeque::new();
        let mut idle_work = self.scrub_due || !self.keyring.held().is_empty();
        let mut closing = false;
        while !closing {
            self.seal_due(false);
            let wait = if !queue.is_empty() || self.has_sealed() {
                Some(Duration::ZERO)
            } else {
                self.wait(idle_work)
            };
            match receive(waiting, wait) {
                Received::Request(request) => queue.push_back(request),
                Received::Nothing if queue.is_empty() && !self.has_sealed() && idle_work => {
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
            if !queue.is_empty() || self.has_sealed() {
                closing = self.round(&mut queue);
                self.answer_marks();
                idle_work = true;
            }
        }
        self.close();
    }

    /// Whether sealed batches are to be made durable now. A store that has failed holds on to them.
    pub(crate) fn has_sealed(&self) -> bool {
        self.failed.is_none() && self.sealed.iter().any(|batch| self.is_due(batch))
    }

    /// Returns how long nothing is to be done; `None` for ever.
    fn wait(&self, idle_work: bool) -> Option<Duration> {
        if self.failed.is_some() {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let seal = self.sealer.due_ms().map(|due_ms| due_ms.saturating_sub(now_ms));
        let idle = idle_work.then_some(IDLE_MS);
        let steady_ms = self.clock.steady_ms();
        let tiers = self.sealed.iter().map(|batch| batch.header().log.tier);
        let retry = tiers.map(|tier| self.room.wait_ms(tier, steady_ms));
        seal.into_iter().chain(idle).chain(retry).min().map(|ms| Duration::from_millis(ms.max(1)))
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
