//! The store of one replica: journal, view, sealed batches, and the one thread that writes them.
//!
//! Reads come from the view (sled and the overlay since its last checkpoint) under a read lock; writes go to
//! the keeper thread, which collects what waits, makes one journal commit of it and only then answers.

mod opening;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::sync::{Arc, PoisonError, RwLock};

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::change::Change;
use sonae_proto::ids::{LogName, SchoolCode, Tier};
use sonae_proto::record::RecordState;
use sonae_proto::snapshot::Record;
use sonae_proto::uplink::Shown;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::KeyDocuments;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::edit::{Action, Kept};
pub use crate::error::{StoreError, WriteError};
use crate::filling::Filling;
use crate::frame::{SafeHead, StoredIdentity};
use crate::keeper::{Mark, Request};
use crate::keyring::{DeviceReader, KeyringError};
use crate::manifests;
use crate::room::{Place, Pressure, Quota, Reading, RoomState, Shortage};
use crate::shelf::Shelf;
use crate::state::StoreState;
use crate::view::View;
use crate::view_db::ViewError;

#[cfg(feature = "testing")]
pub(crate) use opening::Ready;
pub use opening::{Open, Opened};

/// Shared by the keeper and all handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) view: RwLock<View>,
    pub(crate) state: RwLock<StoreState>,
    pub(crate) documents: RwLock<KeyDocuments>,
    pub(crate) reader: DeviceReader,
    pub(crate) shelf: Shelf,
    pub(crate) place: Place,
    pub(crate) filling: Filling,
    /// Heads of logs as far as sealed batches are durable here.
    pub(crate) heads: watch::Sender<Heads>,
}

/// A handle to the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) requests: mpsc::SyncSender<Request>,
    pub(crate) shared: Arc<Shared>,
    school: SchoolCode,
    clock: Clock,
}

impl Store {
    /// Keeps an action's changes.
    ///
    /// # Errors
    /// [`WriteError`]; nothing of the action was kept then.
    ///
    /// # Durability
    /// All changes are on this replica's stable storage when this returns (P1). They are not safe yet.
    pub async fn write(&self, action: Action) -> Result<Kept, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Write { action, reply })?;
        answer.await.map_err(|_| WriteError::Failed)?
    }

    /// The same for callers without a runtime.
    ///
    /// # Errors
    /// As [`Self::write`].
    ///
    /// # Durability
    /// As [`Self::write`].
    pub fn write_blocking(&self, action: Action) -> Result<Kept, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Write { action, reply })?;
        answer.blocking_recv().map_err(|_| WriteError::Failed)?
    }

    /// Keeps changes of another branch under their first names, and applies those that are new here.
    ///
    /// # Errors
    /// [`WriteError`]; none of them was kept then. They must fit into one commit.
    ///
    /// # Durability
    /// They are on stable storage when this returns.
    pub async fn reissue(&self, tier: Tier, changes: Vec<Change>) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Reissue { tier, changes, reply })?;
        answer.await.map_err(|_| WriteError::Failed)?
    }

    /// Returns the headers of all batches that are held, by log, in order.
    ///
    /// # Errors
    /// [`WriteError::Failed`] when the store is gone.
    pub async fn held(&self) -> Result<BTreeMap<LogName, Vec<BatchHeader>>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Held { reply })?;
        answer.await.map_err(|_| WriteError::Failed)
    }

    /// Keeps and applies a peer's verified batch.
    ///
    /// # Errors
    /// [`WriteError`].
    ///
    /// # Durability
    /// The batch is on stable storage when this returns.
    pub async fn store_batch(&self, batch: Batch) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::StoreBatch { batch: Box::new(batch), reply })?;
        answer.await.map_err(|_| WriteError::Failed)?
    }

    /// Keeps and applies peers' verified batches that follow one another; they share commits. Those that are
    /// held already are passed over.
    ///
    /// # Errors
    /// The first [`WriteError`]; those before it are kept.
    ///
    /// # Durability
    /// All batches are on stable storage when this returns.
    pub async fn store_batches(&self, batches: &[Batch]) -> Result<(), WriteError> {
        let mut answers = Vec::with_capacity(batches.len());
        for batch in batches {
            let (reply, answer) = oneshot::channel();
            self.send(Request::StoreBatch { batch: Box::new(batch.clone()), reply })?;
            answers.push(answer);
        }
        let mut outcome = Ok(());
        for answer in answers {
            let kept = answer.await.map_err(|_| WriteError::Failed)?;
            outcome = outcome.and(kept);
        }
        outcome
    }

    /// Reads a held batch, byte-identical to when it was sealed.
    pub async fn batch(&self, log: LogName, first: u64) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::ReadBatch { log, first, reply }).ok()?;
        answer.await.ok()?
    }

    /// Reads the held batch with the change of a log after this one, or the earliest later batch.
    pub async fn batch_after(&self, log: LogName, after: u64) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::BatchAfter { log, after, reply }).ok()?;
        answer.await.ok()?
    }

    /// Returns whether a batch that ends a log with this very head is held.
    pub async fn has_head(&self, log: LogName, head: LogHead) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Request::HasHead { log, head, reply }).is_ok() && answer.await.unwrap_or(false)
    }

    /// Returns the heads of all logs of which sealed batches are held durably, and tells of each that moves.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Heads> {
        self.shared.heads.subscribe()
    }

    /// Returns whether a batch that ends a log with this very head is held. For callers without a runtime.
    #[must_use]
    pub fn has_head_blocking(&self, log: LogName, head: LogHead) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Request::HasHead { log, head, reply }).is_ok() && answer.blocking_recv().unwrap_or(false)
    }

    /// Keeps a verified receipt; "safe" moves at once, the evidence becomes durable with the next commit. A
    /// receipt that a power cut takes is asked for again.
    pub fn keep_receipt(&self, log: LogName, head: LogHead, bytes: Vec<u8>) {
        let at_ms = self.clock.now_ms();
        let _ = self.send(Request::Receipt { log, safe: SafeHead { head, at_ms }, bytes });
    }

    /// Keeps what the cloud has said of own logs, durable with the next commit.
    pub fn keep_shown(&self, shown: Shown) {
        let _ = self.send(Request::Shown(Box::new(shown)));
    }

    /// Keeps a raised loss counter and lowers "safe".
    ///
    /// # Errors
    /// [`WriteError`].
    ///
    /// # Durability
    /// The counter is on stable storage when this returns.
    pub async fn keep_loss(&self, loss_counter: u64, receipted: Heads) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Loss { loss_counter, receipted, reply })?;
        answer.await.map_err(|_| WriteError::Failed)?
    }

    /// Keeps a peer's verified identity, durable with the next commit.
    pub fn keep_identity(&self, identity: StoredIdentity) {
        let _ = self.send(Request::Identity(Box::new(identity)));
    }

    /// Opens each key of key documents, and takes nothing over: whether [`Self::keep_documents`] would.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub async fn check_documents(&self, documents: &KeyDocuments) -> Result<(), KeyringError> {
        let (shared, documents) = (Arc::clone(&self.shared), documents.clone());
        // Files that somebody made up can take a second to try.
        let opened = tokio::task::spawn_blocking(move || shared.reader.open(&documents)).await;
        opened.map_err(|_| KeyringError::Unopened)?.map(|_| ())
    }

    /// Takes over newer key documents. Those that do not verify, are not whole or are older are ignored.
    pub fn keep_documents(&self, documents: KeyDocuments) {
        let _ = self.send(Request::Documents(Box::new(documents)));
    }

    /// Tells the sealer whether the line is up; batches are made larger while it is down.
    pub fn set_line(&self, up: bool) {
        let _ = self.send(Request::Line { up });
    }

    /// Tells the sealer whether a neighbour is there to take batches: they are not made larger then, line or not.
    pub fn set_neighbours(&self, any: bool) {
        let _ = self.send(Request::Neighbours { any });
    }

    /// Refuses all writes of people and imports from now on, with [`WriteError::Moving`], until it is opened again.
    pub fn freeze(&self) {
        let _ = self.send(Request::Freeze);
    }

    /// Has tiers take other quotas from the next round on.
    pub fn set_quota(&self, quota: Quota) {
        let _ = self.send(Request::Quota(quota));
    }

    /// Says from which tier on nothing more is taken at this moment, as the next write would find it.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let (reading, mut room) = self.room();
        room.policy.step(&reading)
    }

    /// Returns what is known of the disk at this moment, with how the keeper last saw it.
    #[must_use]
    pub fn room(&self) -> (Reading, RoomState) {
        let room = self.shared.state.read().unwrap_or_else(PoisonError::into_inner).room.clone();
        (self.shared.place.read(room.used_by_tier.clone(), false), room)
    }

    /// Says whether an import of so many bytes of changes, by tier, would fit as a whole.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn fits(&self, changes: &BTreeMap<Tier, u64>) -> Result<(), Shortage> {
        let (reading, room) = self.room();
        room.policy.quota().fits(&reading, changes)
    }

    /// Waits until everything kept so far is sealed, whatever the window says.
    pub async fn seal_now(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Request::SealNow { reply }).is_ok() {
            let _ = answer.await;
        }
    }

    /// Seals everything kept so far and tells where that is, with the digests there.
    ///
    /// # Errors
    /// [`WriteError`] when the store fails, or cannot seal all of it.
    pub async fn mark(&self) -> Result<Mark, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Mark { reply })?;
        answer.await.map_err(|_| WriteError::Failed)?
    }

    pub(crate) fn send(&self, request: Request) -> Result<(), WriteError> {
        self.requests.send(request).map_err(|_| WriteError::Failed)
    }

    /// Returns which tiers may be used: all, unless a rebuild fills this store.
    #[must_use]
    pub fn filling(&self) -> &Filling {
        &self.shared.filling
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn record(
        &self,
        tier: Tier,
        collection: &str,
        record: &str,
    ) -> Result<Option<RecordState>, ViewError> {
        self.filling().check(tier)?;
        self.read(|view| view.get(tier, collection, record))
    }

    /// Reads all records of a collection whose id begins with `prefix`, in order of their ids.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn records(
        &self,
        tier: Tier,
        collection: &str,
        prefix: &str,
    ) -> Result<Vec<(String, RecordState)>, ViewError> {
        self.filling().check(tier)?;
        self.read(|view| view.scan(tier, collection, prefix))
    }

    /// Hands on all records of a tier, unknown collections too, in no particular order. Writers wait meanwhile.
    ///
    /// # Errors
    /// [`ViewError`], and what `take` returns.
    pub fn each_record(
        &self,
        tier: Tier,
        take: impl FnMut(Record) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        self.filling().check(tier)?;
        self.read(|view| view.each(tier, take))
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what the store says of itself.
    #[must_use]
    pub fn state(&self) -> StoreState {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the present key documents.
    #[must_use]
    pub fn documents(&self) -> KeyDocuments {
        self.shared.documents.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what a cloud must know so that it takes every batch here: the bundle's documents, the earlier manifests that
    /// batches name, without keys, and the present documents.
    pub async fn all_documents(&self, bundled: &KeyDocuments, present: KeyDocuments) -> Vec<KeyDocuments> {
        let shared = Arc::clone(&self.shared);
        let earlier = tokio::task::spawn_blocking(move || manifests::all(&shared.shelf)).await;
        let mut all = vec![bundled.clone()];
        all.extend(earlier.unwrap_or_default());
        all.push(present);
        let mut known = BTreeSet::new();
        all.retain(|documents| known.insert(documents.manifest.clone()));
        all
    }

    /// Returns whose data it is.
    #[must_use]
    pub fn school(&self) -> SchoolCode {
        self.school
    }

    /// Returns the told clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}
