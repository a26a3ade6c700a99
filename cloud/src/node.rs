//! A node: starts the parts in the order in which they need one another and stops them in reverse.

mod findings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use quinn::Endpoint;
use serde::Serialize;
use sonae_proto::intake::{Config, Intake, StoredBatch};
use sonae_proto::planted::{Defect, is_planted};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ulid::Ulid;

use crate::clock::Clock;
use crate::compaction::{Compactor, Rules, Task};
use crate::connection::Shared;
use crate::courier;
use crate::engine::{Barred, Engine, Input};
use crate::exit::Exit;
use crate::identity::{IdentityError, NodeIdentity};
use crate::limits::{DRAIN_TIMEOUT, FRAMES_BYTES_MAX, GROUP_WAIT, GROUP_WAIT_CUT, INPUTS_MAX};
use crate::load;
use crate::lock::{DataLock, LockError};
use crate::object_name::boot_after;
use crate::reader::Reader;
use crate::server::{self, Door};
use crate::site::{self, Site, SiteError};
use crate::status::{Board, Status};
use crate::writer::Writer;
use findings::{first_status, note_findings, site_statuses};

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its data directory. Holds nothing that matters.
    pub data: PathBuf,
    /// Its sites.
    pub sites: Vec<PathBuf>,
    /// How many of them make a receipt.
    pub quorum: usize,
    /// Where it listens on UDP; port 0 chooses one.
    pub listen: SocketAddr,
    /// Where it listens on TCP; without it, at the same address.
    pub listen_tcp: Option<SocketAddr>,
    /// What tells the engine the time.
    pub clock: Clock,
    /// Whether its status is kept in a file, by threads of the runtime.
    pub status_file: bool,
    /// When objects are merged, and when what they were made of is deleted.
    pub compaction: Rules,
}

/// What a node says when it serves.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Where it listens on UDP.
    pub listen: SocketAddr,
    /// Where it listens on TCP, if it does.
    pub listen_tcp: Option<SocketAddr>,
    /// Sites that were named.
    pub sites: usize,
    /// How many of them make a receipt.
    pub quorum: usize,
    /// The ULID of this start.
    pub boot: String,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The bundle.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The sites.
    #[error(transparent)]
    Sites(#[from] SiteError),
    /// The address.
    #[error("{listen} cannot be listened on; choose another with --listen, and with --listen-tcp for TCP")]
    Listen {
        /// Which address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl NodeError {
    /// Returns the exit code that says it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Identity(_) => Exit::Bundle,
            Self::Lock(LockError::InUse { .. }) => Exit::InUse,
            Self::Lock(LockError::Directory { .. }) => Exit::Internal,
            Self::Sites(SiteError::Count { .. }) => Exit::Usage,
            Self::Sites(_) => Exit::Sites,
            Self::Listen { .. } => Exit::Network,
        }
    }
}

/// Returns the quorum when none is named: more than half of the sites.
#[must_use]
pub const fn default_quorum(sites: usize) -> usize {
    sites / 2 + 1
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    ready: Ready,
    /// Where the status file lies, if there is one.
    status_in: Option<PathBuf>,
    endpoint: Endpoint,
    engine: mpsc::Sender<Input>,
    board: Arc<Board>,
    engine_task: JoinHandle<()>,
    writer_task: JoinHandle<()>,
    server_task: JoinHandle<()>,
    status_task: Option<JoinHandle<()>>,
    courier_task: Option<JoinHandle<()>>,
    compaction_task: JoinHandle<()>,
    stop_accepting: watch::Sender<bool>,
    _lock: DataLock,
}

impl Node {
    /// Starts a node: takes the data directory, opens, reads and heals the sites, then serves.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(identity: NodeIdentity, options: &Options) -> Result<Self, NodeError> {
        let lock = DataLock::take(&options.data)?;
        let (sites, faults) = site::open_all(&options.sites, options.quorum)?;
        Self::start_on(identity, options, sites, &faults, lock).await
    }

    /// Starts a node on sites that are open already; `options.sites` still says how many were named.
    ///
    /// # Errors
    /// [`NodeError::Listen`].
    pub async fn start_on(
        identity: NodeIdentity,
        options: &Options,
        sites: Vec<Site>,
        faults: &[SiteError],
        lock: DataLock,
    ) -> Result<Self, NodeError> {
        let door = Door::open(options.listen, options.listen_tcp, &identity).await;
        let door = door.map_err(|source| NodeError::Listen { listen: options.listen, source })?;
        Self::start_behind(door, identity, options, sites, faults, lock).await
    }

    /// Starts a node behind a door that is open already; `options` still says what it was to listen on.
    ///
    /// # Errors
    /// [`NodeError::Listen`].
    pub async fn start_behind(
        door: Door,
        identity: NodeIdentity,
        options: &Options,
        sites: Vec<Site>,
        faults: &[SiteError],
        lock: DataLock,
    ) -> Result<Self, NodeError> {
        let listen_error = |source| NodeError::Listen { listen: options.listen, source };
        let NodeIdentity { board: board_key, receipt_key, .. } = identity;
        let listen = door.endpoint.local_addr().map_err(listen_error)?;
        let listen_tcp = door.tcp_address().map_err(listen_error)?;

        let loaded = load::load(&sites).await;
        let mut intake = Intake::new(Config {
            board: board_key,
            receipt_key: receipt_key.clone(),
            sites: options.sites.len(),
            quorum: options.quorum,
            receipt_before_store: is_planted(Defect::ReceiptBeforeStore),
        });
        let readable = loaded.sites.iter().filter(|reading| reading.fault.is_none()).count();
        // Any N-W+1 sites share at least one with every W that made a receipt.
        let complete = readable + options.quorum > options.sites.len();
        intake.set_complete(complete);
        let fed = loaded.index.feed(&mut intake, &board_key, options.quorum);
        let boot = boot_after(loaded.newest_boot);
        let mut status = first_status(options, &boot, listen, complete);
        status.sites = site_statuses(&sites, &loaded.sites, faults);
        note_findings(&mut status, &fed);
        let ready = Ready {
            ready: true,
            listen,
            listen_tcp,
            sites: options.sites.len(),
            quorum: options.quorum,
            boot: boot.to_string(),
        };
        // What is missing or does not verify now may be what makes a snapshot count later.
        let amiss = fed.undurable.len() + fed.cut_off + fed.nameless + fed.forged + fed.meaningless;
        let sound = readable == options.sites.len() && amiss + fed.foreign_documents == 0;
        let board = Board::new(status);
        let undurable = fed.undurable;
        let parts = Parts { intake, sites, undurable, boot, board, board_key, sound, receipt_key };
        Ok(parts.run(ready, options, door, lock))
    }

    /// Returns what to print when it serves.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Returns the facts, without schools.
    #[must_use]
    pub fn status(&self) -> Status {
        self.board.copy()
    }

    /// Stops: takes nothing new, finishes what is being written, says so to whom it concerns, and closes.
    ///
    /// # Durability
    /// Everything that got a receipt is durable, as always; what did not will be sent again.
    pub async fn stop(self) {
        self.endpoint.set_server_config(None);
        // As good as a crash, which it has to survive anyway.
        self.compaction_task.abort();
        let _ = self.compaction_task.await;
        let _ = self.engine.send(Input::StopStoring).await;
        let _ = self.writer_task.await;
        if let Some(task) = self.status_task {
            task.abort();
        }
        if let Some(data) = &self.status_in {
            self.board.write(&self.engine, data).await;
        }
        let _ = self.engine.send(Input::Finish).await;
        let _ = self.engine_task.await;
        // Connections were told to close by the engine; each has a bounded time for its last answers.
        self.stop_accepting.send_replace(true);
        let _ = timeout(DRAIN_TIMEOUT * 3, self.server_task).await;
        if let Some(task) = self.courier_task {
            let _ = timeout(DRAIN_TIMEOUT, task).await;
        }
        self.endpoint.close(0_u32.into(), b"the node stops");
        let _ = timeout(DRAIN_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

struct Parts {
    intake: Intake,
    sites: Vec<Site>,
    undurable: Vec<StoredBatch>,
    boot: Ulid,
    board: Arc<Board>,
    board_key: VerifyingKey,
    /// Whether the start found nothing amiss.
    sound: bool,
    receipt_key: SigningKey,
}

impl Parts {
    fn run(self, ready: Ready, options: &Options, door: Door, lock: DataLock) -> Node {
        let Self { intake, sites, undurable, boot, board, board_key, sound, receipt_key } = self;
        let sites = Arc::new(sites);
        let (engine, inputs) = mpsc::channel(INPUTS_MAX);
        let reader = Arc::new(Reader::new(Arc::clone(&sites), Arc::clone(&board), engine.clone()));
        let compactor =
            Compactor::new(Arc::clone(&sites), options.sites.len(), options.compaction, &options.data);
        let (to_writer, queue) = mpsc::unbounded_channel();
        let group_wait = if is_planted(Defect::ReceiptBeforeStore) { GROUP_WAIT_CUT } else { GROUP_WAIT };
        let writer = Writer::new(sites, Arc::clone(&board), boot, group_wait);
        let writing = writer.run(queue, engine.clone(), Arc::clone(&reader), undurable, options.quorum);
        let memory = Arc::new(Semaphore::new(FRAMES_BYTES_MAX / 1024));
        let desk = courier::Desk { engine: engine.clone(), reader: Arc::clone(&reader), board: board_key };
        let (barring, barred) = watch::channel(Barred::default());
        let (to_engine, orders) = (engine.clone(), barred.clone());
        let compaction =
            Task { compactor, engine: to_engine, board: Arc::clone(&board), sound, orders, key: receipt_key };
        let shared = Shared { engine: engine.clone(), reader, memory, barred };
        let (stop_accepting, stopping) = watch::channel(false);
        let courier_task = start_courier(desk, options, stopping.clone(), &board);
        let endpoint = door.endpoint.clone();
        board.touch();
        let status_in = options.status_file.then(|| options.data.clone());
        let keeping = status_in.clone().map(|data| Arc::clone(&board).keep(engine.clone(), data));
        Node {
            ready,
            status_in,
            engine_task: tokio::spawn(
                Engine::new(intake, to_writer, Arc::clone(&board), barring, options.clock.clone())
                    .run(inputs),
            ),
            writer_task: tokio::spawn(writing),
            server_task: tokio::spawn(server::run(door, shared, Arc::clone(&board), stopping)),
            status_task: keeping.map(tokio::spawn),
            courier_task,
            compaction_task: tokio::spawn(compaction.run()),
            stop_accepting,
            endpoint,
            engine,
            board,
            _lock: lock,
        }
    }
}

/// Couriers are a second way: without their socket the node serves the line all the same, and says so.
fn start_courier(
    desk: courier::Desk,
    options: &Options,
    stopping: watch::Receiver<bool>,
    board: &Board,
) -> Option<JoinHandle<()>> {
    match courier::bind(&options.data) {
        Ok(listener) => Some(tokio::spawn(courier::serve(listener, desk, options.data.clone(), stopping))),
        Err(error) => {
            log::error!(error:% = error; "bundles cannot be taken: the socket of couriers cannot be made");
            board.note_error("bundles cannot be taken: the socket of couriers cannot be made");
            None
        }
    }
}
