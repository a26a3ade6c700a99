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
#[cfg(test)]
mod tests;

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::Hash32;
use sonae_proto::uplink::{CarriedBatch, CarriedReceipt, Effect, KeysOutcome, Uplink as Engine};
use sonae_proto::vector::Heads;
use sonae_proto::wire::KeyDocuments;
use sonae_store::identity::ReplicaKeys;
use sonae_store::{Clock, Quarantine, Store, WriteError};
use tokio::sync::{mpsc, oneshot};

pub use export::Exported;
pub use import::{Early, GROUP_BATCHES, GROUP_BYTES, Imported};
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
    /// A batch of an own log is held elsewhere; its signature has been checked. Answered with whether it is no part of
    /// what is held here.
    Elsewhere(Box<BatchHeader>, oneshot::Sender<bool>),
    /// Take key documents.
    Keys(Box<KeyDocuments>, oneshot::Sender<KeysOutcome>),
}

/// Where what a courier brings is put.
#[derive(Debug, Clone, Copy)]
pub struct Shelf<'a> {
    /// What counts.
    pub store: &'a Store,
    /// What waits for the board.
    pub quarantine: &'a Quarantine,
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
    /// Where batches of revoked devices wait.
    pub quarantine: Quarantine,
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
        quarantine: Quarantine,
        clock: Clock,
    ) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, waiting) = mpsc::channel(ASKS_WAITING_MAX);
        let identity = keys.identity.text();
        (Self { identity, bundled_documents: documents, store, quarantine, clock, asks }, waiting)
    }
}

/// Does what is asked of an engine whose effects are drained. Returns effects that are not a courier's: the
/// owner of the engine performs them.
///
/// # Durability
/// Batches that are answered as taken are on stable storage; identities and receipts are with the next commit.
pub async fn answer(engine: &mut Engine, shelf: Shelf<'_>, ask: Ask, now_ms: u64) -> Vec<Effect> {
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
            let hashes: Vec<_> = batches.iter().map(|batch| batch.header().hash()).collect();
            // The cloud alone begins a tier: a snapshot of it fits only where nothing of it is held, and what batches
            // before that snapshot were sealed to may exist no more.
            let outcomes =
                batches.into_iter().map(|batch| match shelf.store.filling().check(batch.header().log.tier) {
                    Ok(()) => engine.handle_carried_batch(batch),
                    Err(error) => CarriedBatch::Refused(format!("{error}; bring it again after that")),
                });
            let mut outcomes: Vec<CarriedBatch> = outcomes.collect();
            let kept = perform(engine, shelf, &mut others).await;
            let kept = kept.map(|not_kept| {
                for (hash, outcome) in hashes.iter().zip(&mut outcomes) {
                    if let Some((_, why)) = not_kept.iter().find(|(not_kept, _)| not_kept == hash) {
                        *outcome = CarriedBatch::Refused(why.clone());
                    }
                }
                outcomes
            });
            let _ = reply.send(kept);
            engine.handle_relay(now_ms);
            return others;
        }
        Ask::Keys(keys, reply) => {
            let outcome = take_keys(engine, shelf.store, &keys).await;
            let is_newer = outcome == KeysOutcome::Newer;
            let _ = perform(engine, shelf, &mut others).await;
            if is_newer {
                others.extend(offer_quarantined(engine, shelf).await);
            }
            let _ = reply.send(outcome);
            return others;
        }
        Ask::Elsewhere(header, reply) => drop(reply.send(engine.handle_elsewhere(&header))),
        Ask::Receipt(bytes, reply) => {
            let _ = reply.send(engine.handle_carried_receipt(bytes, now_ms));
        }
    }
    // Without a batch there is nothing to wait for that could fail.
    let _ = perform(engine, shelf, &mut others).await;
    others
}

/// Has the engine take key documents, from the line, a neighbour or a stick. They are opened before it counts them as held:
/// a set that this box cannot use must not keep it from the one that it can.
pub async fn take_keys(engine: &mut Engine, store: &Store, keys: &KeyDocuments) -> KeysOutcome {
    if engine.wants_keys(keys)
        && let Err(error) = store.check_documents(keys).await
    {
        return KeysOutcome::Refused(error.to_string());
    }
    engine.handle_keys(keys)
}

/// Offers the engine again what lies in quarantine, in order, a few at a time. What is part of its log by now, or
/// was dropped by the board, is cleared away. Returns effects that are not a courier's.
pub async fn offer_quarantined(engine: &mut Engine, shelf: Shelf<'_>) -> Vec<Effect> {
    let mut others = Vec::new();
    for waiting in shelf.quarantine.list() {
        let Some(batch) = shelf.quarantine.read(&waiting) else { continue };
        if shelf.store.filling().check(batch.header().log.tier).is_err() {
            continue;
        }
        let outcome = engine.handle_carried_batch(batch);
        let is_settled = matches!(outcome, CarriedBatch::Taken | CarriedBatch::Known | CarriedBatch::Dropped);
        if perform(engine, shelf, &mut others).await.is_ok() && is_settled {
            shelf.quarantine.remove(&waiting);
        }
    }
    others
}

/// Performs what the engine asks for; batches together, so that they share flushes. Returns which could not be put into
/// quarantine, and why.
async fn perform(
    engine: &mut Engine,
    shelf: Shelf<'_>,
    others: &mut Vec<Effect>,
) -> Result<Vec<(Hash32, String)>, WriteError> {
    let store = shelf.store;
    let (mut batches, mut not_kept) = (Vec::new(), Vec::new());
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::StoreBatch(batch) => batches.push(*batch),
            Effect::Quarantine(batch) => {
                if let Err(error) = shelf.quarantine.keep(&batch) {
                    not_kept.push((batch.header().hash(), error.to_string()));
                }
            }
            Effect::KeepIdentity(identity) => store.keep_identity(*identity),
            Effect::KeepReceipt { log, head, bytes } => store.keep_receipt(log, head, bytes),
            other @ (Effect::Dial
            | Effect::SendHello
            | Effect::SendKeys
            | Effect::SendBatch { .. }
            | Effect::Fetch(_)
            | Effect::KeepShown(_)
            | Effect::KeepLoss { .. }
            | Effect::FetchSnapshot(_)
            | Effect::KeepSnapshot(_)
            | Effect::KeepSnapshotPart(_)
            | Effect::LoadSnapshot(_)
            | Effect::SendSnapshot(_)
            | Effect::SendSnapshotPart { .. }
            | Effect::SnapshotSafe { .. }
            | Effect::KeepKeys(_)
            | Effect::Alarm(_)
            | Effect::Renew
            | Effect::Disconnect) => others.push(other),
        }
    }
    let stored = store.store_batches(&batches).await;
    if stored.is_err() {
        // Some may be held all the same; offered again, the store passes over them. A full disk is not waited for:
        // whoever holds the stick is told.
        batches.iter().rev().for_each(|batch| engine.handle_store_failed(batch.header()));
    }
    stored.map(|()| not_kept)
}

/// Serves a desk without a line: a command that has opened the store itself.
pub async fn run_without_line(
    mut engine: Engine,
    store: Store,
    quarantine: Quarantine,
    clock: Clock,
    mut asks: mpsc::Receiver<Ask>,
) {
    let shelf = Shelf { store: &store, quarantine: &quarantine };
    while let Some(ask) = asks.recv().await {
        for effect in answer(&mut engine, shelf, ask, clock.steady_ms()).await {
            // There is no line on which the others would mean anything.
            if let Effect::KeepKeys(keys) = effect {
                store.keep_documents(*keys);
            }
        }
    }
}
