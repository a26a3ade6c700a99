//! Other replicas of the school on the same LAN, without the cloud (P7, P9): each tells what it holds, and gets what it
//! lacks. Spec: `docs/spec/neighbours.md`.
//!
//! | file | owns |
//! | --- | --- |
//! | `tls` | who may connect at all |
//! | `door` | listening and dialling, within bounds |
//! | `connection` | greeting, control stream, what is asked of this replica |
//! | `fetch` | what this replica asks of another |
//! | `driver` | the task around the engine |
//!
//! **Invariant**: nothing is sent to a device, and nothing is read of it, before the board's authority, the school and
//! the revocations that are known here have been checked.
//! **Invariant**: what comes is taken as a courier's would be, by the same engine.
//! **Invariant**: without an address to listen on or to dial there is no socket.

mod connection;
mod door;
mod driver;
mod fetch;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls_pki_types::CertificateDer;
use sonae_proto::identity::Identity;
use sonae_proto::ids::ReplicaId;
use sonae_proto::neighbours::NeighbourId;
use sonae_proto::uplink::Uplink as Engine;
use sonae_proto::wire::KeyDocuments;
use sonae_store::Evidence;
use sonae_store::neighbours::Neighbours as Shared;
use sonae_trust::entropy::{Entropy, EntropyError, SystemEntropy};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::courier::Desk;
use crate::tls::TlsError;
use connection::Event;
use door::Door;
use driver::Driver;

/// Neighbours at a time: a school has a few boxes, and each costs a connection and what waits on it.
pub const NEIGHBOURS_MAX: usize = 16;

/// Addresses that are dialled at most.
pub const ADDRESSES_MAX: usize = 16;

/// Events that may wait for the driver.
const EVENTS_WAITING_MAX: usize = 64;

/// What the uplink's engine knows that decides who may be a neighbour and what it is told.
#[derive(Debug, Clone)]
pub struct Known {
    /// Version of the manifest that is held.
    pub manifest_version: u64,
    /// The key documents with it.
    pub documents: Arc<KeyDocuments>,
    /// Devices that the board has revoked.
    pub revoked: BTreeSet<ReplicaId>,
    /// Whether this incarnation ends.
    pub is_renewing: bool,
}

impl Known {
    /// What an engine that has not started yet will know.
    #[must_use]
    pub fn at_start(evidence: &Evidence, documents: KeyDocuments) -> Self {
        Self {
            manifest_version: evidence.manifest_version,
            documents: Arc::new(documents),
            revoked: evidence.revocations.devices().collect(),
            is_renewing: false,
        }
    }

    /// Reads what an engine knows; `documents` are those of its manifest.
    #[must_use]
    pub fn of(engine: &Engine, documents: KeyDocuments) -> Self {
        Self {
            manifest_version: engine.manifest_version(),
            documents: Arc::new(documents),
            revoked: engine.revoked_devices().collect(),
            is_renewing: engine.is_renewing(),
        }
    }
}

/// What the task needs.
pub struct Config {
    /// The way into the sync engine, with identity, store and clock.
    pub desk: Desk,
    /// This incarnation, verified.
    pub identity: Identity,
    /// The board's root key.
    pub board: ed25519_dalek::VerifyingKey,
    /// The device's key and its TLS certificate.
    pub tls: Own,
    /// What the sync engine knows.
    pub known: watch::Receiver<Known>,
    /// Where the state is told.
    pub shared: Shared,
    /// Where neighbours are waited for, if they are.
    pub listener: Option<TcpListener>,
    /// Whom to dial, HOST:PORT.
    pub addresses: Vec<String>,
}

pub use tls::Own;

/// What connections share.
#[derive(Debug, Clone)]
struct Common {
    desk: Desk,
    identity: Arc<Identity>,
    board: ed25519_dalek::VerifyingKey,
    authority: Arc<CertificateDer<'static>>,
    /// Of this life of the process: two copies of one data directory are two neighbours.
    nonce: String,
    known: watch::Receiver<Known>,
    events: mpsc::Sender<Event>,
    ids: Arc<AtomicU64>,
}

impl Common {
    fn next_id(&self) -> NeighbourId {
        NeighbourId(self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

/// A neighbour: its device, and which life of its process.
type Who = (ReplicaId, String);

/// Who is there now.
type Present = BTreeMap<Who, NeighbourId>;

/// Why neighbours cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no entropy.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Serves neighbours until `stop` says so; returns at once when there is neither a listener nor an address.
///
/// # Errors
/// [`NeighboursError`].
pub async fn run(config: Config, mut stop: watch::Receiver<bool>) -> Result<(), NeighboursError> {
    if config.listener.is_none() && config.addresses.is_empty() {
        return Ok(());
    }
    let tls = tls::Both::new(&config.tls, config.desk.store.school())?;
    let (events, mut waiting) = mpsc::channel(EVENTS_WAITING_MAX);
    let common = Common {
        identity: Arc::new(config.identity),
        board: config.board,
        authority: Arc::new(tls.authority.clone()),
        nonce: random_nonce()?,
        known: config.known.clone(),
        events,
        ids: Arc::default(),
        desk: config.desk,
    };
    let (present, seen) = watch::channel(Present::new());
    let door = Door { common: common.clone(), tls, present: seen };
    let mut tasks = JoinSet::new();
    let addresses: Vec<String> = config.addresses.into_iter().take(ADDRESSES_MAX).collect();
    let mut filling = common.desk.store.filling().changes();
    let mut driver = Driver::new(common, present, config.shared, &addresses);
    if let Some(listener) = config.listener {
        tasks.spawn(door.clone().listen(listener));
    }
    for address in addresses {
        tasks.spawn(door.clone().dial(address));
    }
    let mut heads = driver.heads();
    let mut known = config.known;
    loop {
        driver.drain().await;
        tokio::select! {
            _ = stop.changed() => break,
            Some(event) = waiting.recv() => driver.event(event).await,
            Ok(()) = heads.changed() => driver.held(),
            Ok(()) = known.changed() => driver.known(),
            () = driver.wait() => driver.look_again(),
            () = filling.next() => driver.look_at_room(),
        }
    }
    driver.close();
    Ok(())
}

fn random_nonce() -> Result<String, EntropyError> {
    let mut nonce = [0; connection::NONCE_CHARS / 2];
    SystemEntropy.fill(&mut nonce)?;
    Ok(data_encoding::HEXLOWER.encode(&nonce))
}
