//! The uplink: drives the sync engine of `proto` over QUIC, or TCP where UDP is blocked, and keeps what it asks
//! to be kept.
//!
//! **Invariant**: a batch is sent only after its sealed bytes are durable, and always the same bytes.

mod connection;
mod dial;
mod driver;
mod fill;
mod purpose;
mod route;
mod silence;
mod snapshot_streams;
mod snapshots;
mod speak;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, TransportConfig, VarInt};
use sonae_proto::batch::BatchHeader;
use sonae_proto::planted::{Defect, is_planted};
use sonae_proto::uplink::{Start, Uplink as Engine};
use sonae_proto::wire::KeyDocuments;
use sonae_store::identity::ReplicaKeys;
use sonae_store::proof::Proofs;
use sonae_store::status::Uplink as Shared;
use sonae_store::{Clock, Evidence, Quarantine, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::neighbours::Known;
use crate::{courier, tls};
use connection::Event;
use dial::Dialler;
use driver::Driver;
use fill::Fill;
pub use purpose::Purpose;
use route::Route;
use snapshots::Maker;

/// Keep-alive of an idle connection: under the 30 s after which common routers forget a UDP mapping.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// After this long without a packet a connection is given up.
const IDLE_TIMEOUT_MS: u32 = 120_000;

/// Events that may wait for the driver; back-pressure on what a fetch brings.
const EVENTS_WAITING_MAX: usize = 64;

/// What an uplink goes through.
#[derive(Debug, Clone)]
pub struct Ways {
    /// For QUIC.
    pub endpoint: Endpoint,
    /// Whether there is TCP, too.
    pub tcp: bool,
}

impl Ways {
    /// Those of the system.
    fn of_system() -> Result<Self, UplinkError> {
        let endpoint = Endpoint::client(SocketAddr::from(([0; 16], 0)))
            .or_else(|_| Endpoint::client(SocketAddr::from(([0; 4], 0))))
            .map_err(UplinkError::Socket)?;
        Ok(Self { endpoint, tcp: true })
    }
}

/// What an uplink needs.
pub struct Config {
    /// The replica's keys.
    pub keys: ReplicaKeys,
    /// PEM of the device's TLS certificate.
    pub tls_certificate_pem: String,
    /// Key documents as the bundle brought them.
    pub bundled_documents: KeyDocuments,
    /// The cloud.
    pub cloud: sonae_proto::descriptor::CloudDescriptor,
    /// Dialled instead of the descriptor's hosts.
    pub cloud_override: Option<String>,
    /// What it goes through; those of the system if absent.
    pub ways: Option<Ways>,
    /// The store.
    pub store: Store,
    /// What the engine starts from.
    pub evidence: Evidence,
    /// Headers of batches sealed from now on.
    pub sealed: mpsc::UnboundedReceiver<BatchHeader>,
    /// Where the state is told.
    pub shared: Shared,
    /// The told clock.
    pub clock: Clock,
    /// Becomes true when the cloud has another history of an own log.
    pub renew: watch::Sender<bool>,
    /// Whether tiers of which nothing is held may come as snapshots.
    pub snapshots: bool,
    /// Where batches of revoked devices wait.
    pub quarantine: Quarantine,
    /// What couriers bring and ask.
    pub couriers: mpsc::Receiver<courier::Ask>,
    /// What it is for.
    pub purpose: Purpose,
    /// Where evidence of restore proofs waits to be published.
    pub proofs: Proofs,
    /// Where neighbours read what decides about them.
    pub known: watch::Sender<Known>,
}

/// Why an uplink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// No socket.
    #[error("no UDP socket can be opened for the uplink")]
    Socket(#[source] std::io::Error),
}

/// Runs until `stop` says so. Errors on the line are retried for ever; they are in the status.
///
/// # Errors
/// [`UplinkError`] when it cannot start at all.
pub async fn run(config: Config, mut stop: watch::Receiver<bool>) -> Result<(), UplinkError> {
    let (mut driver, mut inputs) = driver(config)?;
    driver.resume_snapshots();
    driver.offer_quarantined().await;
    loop {
        driver.drain().await;
        driver.fill().await;
        let sleep = driver.sleep();
        tokio::select! {
            _ = stop.changed() => break,
            Some(event) = inputs.events.recv() => driver.event(event).await,
            Some(header) = inputs.sealed.recv() => driver.sealed(&header),
            Some(outcome) = inputs.made.recv() => driver.snapshot_made(outcome),
            Ok(()) = inputs.unpublished.changed() => driver.publish(),
            Some(ask) = inputs.couriers.recv() => {
                // What was sealed before it was asked is known when it is answered.
                while let Ok(header) = inputs.sealed.try_recv() {
                    driver.sealed(&header);
                }
                let now_ms = driver.engine_ms();
                let desk = courier::Shelf { store: &driver.store, quarantine: &driver.quarantine };
                for effect in courier::answer(&mut driver.engine, desk, ask, now_ms).await {
                    driver.effect(effect).await;
                }
            }
            () = sleep => driver.timeout(),
        }
    }
    driver.close().await;
    Ok(())
}

/// What a driver waits for.
struct Inputs {
    events: mpsc::Receiver<Event>,
    sealed: mpsc::UnboundedReceiver<BatchHeader>,
    couriers: mpsc::Receiver<courier::Ask>,
    made: mpsc::UnboundedReceiver<snapshots::Outcome>,
    /// Evidence of restore proofs that is to be published.
    unpublished: watch::Receiver<Option<String>>,
}

fn driver(config: Config) -> Result<(Driver, Inputs), UplinkError> {
    let client = Arc::new(tls::client(&config.keys, &config.tls_certificate_pem, &config.cloud)?);
    let mut ways = config.ways.map_or_else(Ways::of_system, Ok)?;
    let crypto = QuicClientConfig::try_from(Arc::clone(&client)).map_err(tls::TlsError::from)?;
    let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
    quic.transport_config(Arc::new(transport()));
    ways.endpoint.set_default_client_config(quic);
    let (events, waiting) = mpsc::channel(EVENTS_WAITING_MAX);
    let unpublished = config.proofs.unpublished();
    let mut start = start(&config.keys, config.cloud.clone(), config.clock.now_ms(), config.evidence);
    start.snapshots = config.snapshots;
    let (maker, made) = Maker::new();
    let hosts = config.cloud_override.map_or_else(|| config.cloud.hosts.clone(), |host| vec![host]);
    let inputs =
        Inputs { events: waiting, sealed: config.sealed, couriers: config.couriers, made, unpublished };
    let mut engine = Engine::new(start);
    // A proof takes the snapshots that the box names, not the newest.
    if config.store.shelf().is_empty() && config.purpose == Purpose::Serve {
        engine.ask_at_once();
    }
    if config.purpose == Purpose::Serve {
        engine.set_relay();
    }
    let driver = Driver {
        engine,
        dialler: Dialler::new(ways, client, hosts),
        keys: config.keys,
        bundled_documents: config.bundled_documents,
        newest_documents: None,
        quarantine: config.quarantine,
        later: VecDeque::new(),
        next_host: 0,
        route: Route::new(Instant::now()),
        store: config.store,
        shared: config.shared,
        clock: config.clock,
        renew: config.renew,
        events,
        connection: None,
        generation: 0,
        last_generation: 0,
        under_way: 0,
        fetching: 0,
        silence: None,
        patience: 1,
        standby: None,
        closed_bytes: (0, 0),
        maker,
        purpose: config.purpose,
        proofs: config.proofs,
        known: config.known,
        takes_proofs: false,
        publishing: false,
        fill: Fill::default(),
        refused_from: None,
        room_at: Instant::now(),
    };
    Ok((driver, inputs))
}

/// Makes what a sync engine starts from.
#[must_use]
pub fn start(
    keys: &ReplicaKeys,
    cloud: sonae_proto::descriptor::CloudDescriptor,
    jitter: u64,
    evidence: Evidence,
) -> Start {
    Start {
        school: keys.school,
        board: keys.board,
        cloud,
        jitter,
        loss_counter: evidence.loss_counter,
        manifest_version: evidence.manifest_version,
        receipted: evidence.receipted(),
        shown: evidence.shown,
        pruned: evidence.pruned,
        own_batches: evidence.own_batches,
        own: evidence.own,
        peers: evidence.peers,
        identities: evidence.identities,
        snapshots: false,
        revocations: evidence.revocations,
        destroyed: evidence.destroyed,
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE).filter(|_| !is_planted(Defect::KeepAliveForgotten)));
    transport.max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(4));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport
}
