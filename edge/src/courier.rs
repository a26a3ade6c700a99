//! Bundles of batches by hand (P7, P9): a USB stick or a phone in place of the line. Spec:
//! `docs/spec/courier.md`.
//!
//! | file | owns |
//! | --- | --- |
//! | `export` | a bundle of what this replica holds |
//! | `import` | a bundle of another replica, or the cloud's answer with its receipts |
//! | `socket` | the conversation with the daemon, the same within one process |
//!
//! **Invariant**: what is imported passes the sync engine that also has the line, so it is verified as a fetch
//! is, and no receipt counts that would not count on the line.
//! **Invariant**: an import is reported as taken only when it is durable here.

mod export;
mod import;
mod socket;

use sonae_proto::batch::Batch;
use sonae_proto::identity::IdentityText;
use sonae_proto::uplink::{CarriedBatch, CarriedReceipt, Effect, Uplink as Engine};
use sonae_proto::vector::Heads;
use sonae_proto::wire::KeyDocuments;
use sonae_store::identity::ReplicaKeys;
use sonae_store::{Clock, Store, WriteError};
use tokio::sync::{mpsc, oneshot};

pub use export::Exported;
pub use import::{Early, Imported};
pub use socket::{Request, bind, serve, serve_one, socket};

/// Asks that may wait for the task that owns the engine.
pub const ASKS_WAITING_MAX: usize = 4;

/// What the task that owns the sync engine is asked.
#[derive(Debug)]
pub enum Ask {
    /// What a bundle's opening says.
    Standing(oneshot::Sender<Standing>),
    /// Learn identities.
    Identities(Vec<IdentityText>),
    /// Take batches, in order. Answered when those that are taken are durable.
    Batches(Vec<Batch>, oneshot::Sender<Result<Vec<CarriedBatch>, WriteError>>),
    /// Take a receipt.
    Receipt(Vec<u8>, oneshot::Sender<CarriedReceipt>),
}

/// What an engine says of itself for an opening.
#[derive(Debug)]
pub struct Standing {
    /// The loss counter.
    pub loss_counter: u64,
    /// Receipted heads of own logs.
    pub receipted: Heads,
    /// Version of the manifest that is held.
    pub manifest_version: u64,
    /// Identities of other incarnations.
    pub identities: Vec<IdentityText>,
    /// Whether this incarnation ends: what only it has is about to be written again under another.
    pub is_renewing: bool,
}

/// What a conversation needs.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The identity of this incarnation.
    pub identity: IdentityText,
    /// Key documents as the bundle of the board brought them.
    pub bundled_documents: KeyDocuments,
    /// The store.
    pub store: Store,
    /// The told clock.
    pub clock: Clock,
    /// The task that owns the engine.
    pub asks: mpsc::Sender<Ask>,
}

impl Desk {
    /// Makes a desk and the receiver for whoever owns the engine.
    #[must_use]
    pub fn new(
        keys: &ReplicaKeys,
        documents: KeyDocuments,
        store: Store,
        clock: Clock,
    ) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, waiting) = mpsc::channel(ASKS_WAITING_MAX);
        let identity = keys.identity.text();
        (Self { identity, bundled_documents: documents, store, clock, asks }, waiting)
    }
}

/// Does what is asked of an engine whose effects are drained. Returns effects that are not a courier's: the
/// owner of the engine performs them.
///
/// # Durability
/// Batches that are answered as taken are on stable storage; identities and receipts are with the next commit.
pub async fn answer(engine: &mut Engine, store: &Store, ask: Ask, now_ms: u64) -> Vec<Effect> {
    let mut others = Vec::new();
    match ask {
        Ask::Standing(reply) => {
            let _ = reply.send(Standing {
                loss_counter: engine.loss_counter(),
                receipted: engine.receipted(),
                manifest_version: engine.manifest_version(),
                identities: engine.peer_identities(),
                is_renewing: engine.is_renewing(),
            });
        }
        Ask::Identities(identities) => engine.handle_carried_identities(&identities),
        Ask::Batches(batches, reply) => {
            let outcomes = batches.into_iter().map(|batch| engine.handle_carried_batch(batch)).collect();
            let kept = perform(engine, store, &mut others).await;
            let _ = reply.send(kept.map(|()| outcomes));
            return others;
        }
        Ask::Receipt(bytes, reply) => {
            let _ = reply.send(engine.handle_carried_receipt(bytes, now_ms));
        }
    }
    // Without a batch there is nothing to wait for that could fail.
    let _ = perform(engine, store, &mut others).await;
    others
}

/// Performs what the engine asks for; batches together, so that they share flushes.
async fn perform(engine: &mut Engine, store: &Store, others: &mut Vec<Effect>) -> Result<(), WriteError> {
    let mut batches = Vec::new();
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::StoreBatch(batch) => batches.push(*batch),
            Effect::KeepIdentity(identity) => store.keep_identity(*identity),
            Effect::KeepReceipt { log, head, bytes } => store.keep_receipt(log, head, bytes),
            other @ (Effect::Dial
            | Effect::SendHello
            | Effect::SendKeys
            | Effect::SendBatch { .. }
            | Effect::Fetch(_)
            | Effect::KeepLoss { .. }
            | Effect::FetchSnapshot(_)
            | Effect::KeepSnapshot(_)
            | Effect::KeepSnapshotPart(_)
            | Effect::LoadSnapshot(_)
            | Effect::SendSnapshot(_)
            | Effect::SendSnapshotPart { .. }
            | Effect::SnapshotSafe { .. }
            | Effect::Alarm(_)
            | Effect::Renew
            | Effect::Disconnect) => others.push(other),
        }
    }
    // The engine counts on them, as with a fetch: a full disk is waited for.
    loop {
        match store.store_batches(&batches).await {
            Err(WriteError::Full) => tokio::time::sleep(FULL_RETRY).await,
            Ok(()) => return Ok(()),
            Err(error) => {
                // Some may be held all the same; offered again, the store passes over them.
                batches.iter().rev().for_each(|batch| engine.handle_store_failed(batch.header()));
                return Err(error);
            }
        }
    }
}

/// Between two tries of what a full disk did not take.
const FULL_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves a desk without a line: a command that has opened the store itself.
pub async fn run_without_line(mut engine: Engine, store: Store, clock: Clock, mut asks: mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        // There is no line on which the others would mean anything.
        drop(answer(&mut engine, &store, ask, clock.now_ms()).await);
    }
}
