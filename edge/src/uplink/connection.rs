//! One connection to the cloud: its control stream and the streams of batches and fetches, each in a task of
//! its own that reports events. Events of an earlier connection carry its number and are ignored.

use std::sync::Arc;
use std::time::Duration;

use sonae_line::Transport;
use sonae_proto::batch::Batch;
use sonae_proto::ids::{Hash32, LogName};
use sonae_proto::uplink::{BatchReply, SnapshotReply};
use sonae_proto::wire::{Fetch, Frame, ProofText, SnapshotName, SnapshotPart};
use sonae_store::Store;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

use super::dial::{Dialled, Dialler};
use super::route::Plan;
use crate::frames::{self, StreamError};

/// How long a probe waits for its answer; then it has been given up by whoever asked.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Times that control frames, one or several, may wait to be sent.
const CONTROL_WAITING_MAX: usize = 8;

/// What tasks of a connection report.
pub(super) enum Event {
    Connected { generation: u64, connection: Connection, host: usize },
    Lost { generation: u64, reason: String },
    Control { generation: u64, frame: Box<Frame> },
    Answer { generation: u64, log: LogName, changes: u64, bytes: u64, reply: BatchReply },
    Missing { generation: u64, log: LogName },
    Fetched { generation: u64, batch: Box<Batch> },
    FetchEnd { generation: u64 },
    SnapshotRoot { generation: u64, name: SnapshotName, text: String },
    SnapshotPart { generation: u64, part: Box<SnapshotPart> },
    SnapshotEnd { generation: u64, name: SnapshotName },
    SnapshotAnswer { generation: u64, root: Hash32, reply: SnapshotReply },
    Published { generation: u64, outcome: Result<ProofText, String> },
}

impl Event {
    pub fn generation(&self) -> u64 {
        match self {
            Self::Connected { generation, .. }
            | Self::Lost { generation, .. }
            | Self::Control { generation, .. }
            | Self::Answer { generation, .. }
            | Self::Missing { generation, .. }
            | Self::Fetched { generation, .. }
            | Self::SnapshotRoot { generation, .. }
            | Self::SnapshotPart { generation, .. }
            | Self::SnapshotEnd { generation, .. }
            | Self::SnapshotAnswer { generation, .. }
            | Self::Published { generation, .. }
            | Self::FetchEnd { generation } => *generation,
        }
    }
}

/// A connection.
pub(super) struct Connection {
    generation: u64,
    line: sonae_line::Connection,
    control: mpsc::Sender<Vec<Frame>>,
    /// Held while a probe has no answer.
    probe: Arc<Semaphore>,
    /// Whether the welcome has been handed to the engine.
    welcomed: watch::Sender<bool>,
}

/// Dials and then serves the connection, in a task of its own.
pub(super) fn dial(
    dialler: Dialler,
    first_host: usize,
    plan: Plan,
    generation: u64,
    events: mpsc::Sender<Event>,
) -> AbortHandle {
    let dialling = async move {
        match dialler.dial(first_host, plan).await {
            Ok(dialled) => greet(dialled, generation, events).await,
            Err(reason) => drop(events.send(Event::Lost { generation, reason }).await),
        }
    };
    tokio::spawn(dialling).abort_handle()
}

/// Opens the control stream and serves it.
async fn greet(dialled: Dialled, generation: u64, events: mpsc::Sender<Event>) {
    let Dialled { connection: line, host } = dialled;
    let lost = |reason: String| Event::Lost { generation, reason };
    let (mut send, mut receive) = match line.open().await {
        Ok(streams) => streams,
        Err(error) => return drop(events.send(lost(error.to_string())).await),
    };
    let (control, mut waiting) = mpsc::channel(CONTROL_WAITING_MAX);
    let connection = Connection {
        generation,
        line: line.clone(),
        control,
        probe: Arc::new(Semaphore::new(1)),
        welcomed: watch::Sender::new(false),
    };
    if events.send(Event::Connected { generation, connection, host }).await.is_err() {
        return;
    }
    let outgoing = async {
        while let Some(some) = waiting.recv().await {
            for frame in &some {
                frames::write(&mut send, frame).await?;
            }
        }
        // The driver has dropped the connection.
        Err::<(), StreamError>(StreamError::Gone)
    };
    let incoming = async {
        loop {
            let frame = Box::new(frames::read(&mut receive).await?);
            if events.send(Event::Control { generation, frame }).await.is_err() {
                return Err::<(), StreamError>(StreamError::Gone);
            }
        }
    };
    let ended = tokio::select! { ended = outgoing => ended, ended = incoming => ended };
    let reason = match line.close_reason() {
        Some(reason) => reason,
        None => ended.err().map(|error| error.to_string()).unwrap_or_default(),
    };
    drop(events.send(lost(reason)).await);
}

impl Connection {
    /// Queues control frames that follow one another. Returns whether there was room.
    pub fn tell(&self, frames: Vec<Frame>) -> bool {
        self.control.try_send(frames).is_ok()
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn line(&self) -> sonae_line::Connection {
        self.line.clone()
    }

    /// The engine has been told the welcome.
    pub fn welcome(&self) {
        self.welcomed.send_replace(true);
    }

    pub(super) fn welcomed(&self) -> watch::Receiver<bool> {
        self.welcomed.subscribe()
    }

    /// Returns what carries it.
    pub fn transport(&self) -> Transport {
        self.line.transport()
    }

    /// Returns bytes sent and received.
    pub fn bytes(&self) -> (u64, u64) {
        let traffic = self.line.traffic();
        (traffic.sent, traffic.received)
    }

    /// Returns a number that stands still while nothing is acknowledged.
    pub fn progress(&self) -> u64 {
        self.line.progress()
    }

    pub fn close(&self) {
        self.line.close(0, b"");
    }

    /// Asks for a sign of life, which shows in [`Self::progress`], unless the last question has no answer yet.
    pub fn probe(&self) {
        let Ok(asking) = Arc::clone(&self.probe).try_acquire_owned() else { return };
        let line = self.line.clone();
        tokio::spawn(async move {
            let _asking = asking;
            let _ = tokio::time::timeout(PROBE_TIMEOUT, line.probe()).await;
        });
    }

    /// Sends a batch on a stream of its own and reports its answer.
    pub fn send_batch(&self, log: LogName, first: u64, store: Store, events: mpsc::Sender<Event>) {
        let (generation, line) = (self.generation, self.line.clone());
        tokio::spawn(async move {
            let event = match send_batch(&line, log, first, &store).await {
                Ok(Some((changes, bytes, reply))) => Event::Answer { generation, log, changes, bytes, reply },
                Ok(None) => Event::Missing { generation, log },
                Err(reason) => Event::Lost { generation, reason },
            };
            drop(events.send(event).await);
        });
    }

    /// Sends the evidence of a restore proof on a stream of its own and reports what became of it.
    pub fn publish(&self, proof: ProofText, events: mpsc::Sender<Event>) {
        let (generation, line) = (self.generation, self.line.clone());
        tokio::spawn(async move {
            let outcome = publish(&line, proof).await;
            drop(events.send(Event::Published { generation, outcome }).await);
        });
    }

    /// Asks for the batches of a log and reports them.
    pub fn fetch(&self, fetch: Fetch, events: mpsc::Sender<Event>) {
        let (generation, line) = (self.generation, self.line.clone());
        tokio::spawn(async move {
            let event = match receive_batches(&line, fetch, generation, &events).await {
                Ok(()) => Event::FetchEnd { generation },
                Err(reason) => Event::Lost { generation, reason },
            };
            drop(events.send(event).await);
        });
    }
}

/// Sends the batch that holds a change, and waits for the answer; `None` when it is not here, because a snapshot stands
/// for it.
async fn send_batch(
    line: &sonae_line::Connection,
    log: LogName,
    first: u64,
    store: &Store,
) -> Result<Option<(u64, u64, BatchReply)>, String> {
    let Some(bytes) = store.batch_after(log, first.saturating_sub(1)).await else { return Ok(None) };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let batch = Batch::from_bytes(bytes).map_err(|error| error.to_string())?;
    if batch.header().first > first {
        return Ok(None);
    }
    let (_send, mut receive) = frames::ask(line, &Frame::Batch(batch.bytes().to_vec())).await?;
    let answer = frames::read(&mut receive).await.map_err(|error| error.to_string())?;
    let reply = batch_reply(answer).ok_or("the cloud answered a batch with another frame")?;
    Ok(Some((batch.header().changes(), length, reply)))
}

async fn publish(line: &sonae_line::Connection, proof: ProofText) -> Result<ProofText, String> {
    let (_send, mut receive) = frames::ask(line, &Frame::Proof(proof.clone())).await?;
    match frames::read(&mut receive).await.map_err(|error| error.to_string())? {
        Frame::Proof(held) if held == proof => Ok(proof),
        Frame::Refusal(refusal) => Err(refusal.text),
        Frame::Hello(_)
        | Frame::Welcome(_)
        | Frame::Batch(_)
        | Frame::Receipt(_)
        | Frame::Keys(_)
        | Frame::Fetch(_)
        | Frame::FetchEnd(_)
        | Frame::News(_)
        | Frame::Snapshot(_)
        | Frame::SnapshotPart(_)
        | Frame::SnapshotWants(_)
        | Frame::FetchSnapshot(_)
        | Frame::Proof(_) => Err("the cloud answered evidence with another frame".to_owned()),
    }
}

async fn receive_batches(
    line: &sonae_line::Connection,
    fetch: Fetch,
    generation: u64,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let (_send, mut receive) = frames::ask(line, &Frame::Fetch(fetch)).await?;
    loop {
        match frames::read(&mut receive).await.map_err(|error| error.to_string())? {
            Frame::Batch(bytes) => {
                let batch = Box::new(Batch::from_bytes(bytes).map_err(|error| error.to_string())?);
                if events.send(Event::Fetched { generation, batch }).await.is_err() {
                    return Ok(());
                }
            }
            Frame::FetchEnd(_) => return Ok(()),
            Frame::Refusal(refusal) => return Err(refusal.text),
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Receipt(_)
            | Frame::Keys(_)
            | Frame::Fetch(_)
            | Frame::Snapshot(_)
            | Frame::SnapshotPart(_)
            | Frame::SnapshotWants(_)
            | Frame::FetchSnapshot(_)
            | Frame::News(_)
            | Frame::Proof(_) => return Err("the cloud sent a frame out of turn".to_owned()),
        }
    }
}

/// The answer to a batch as the engine takes it; anything else is a broken line.
fn batch_reply(frame: Frame) -> Option<BatchReply> {
    match frame {
        Frame::Receipt(bytes) => Some(BatchReply::Receipt(bytes)),
        Frame::Refusal(refusal) => Some(BatchReply::Refusal(refusal)),
        Frame::Hello(_)
        | Frame::Welcome(_)
        | Frame::Batch(_)
        | Frame::Keys(_)
        | Frame::Fetch(_)
        | Frame::FetchEnd(_)
        | Frame::Snapshot(_)
        | Frame::SnapshotPart(_)
        | Frame::SnapshotWants(_)
        | Frame::FetchSnapshot(_)
        | Frame::News(_)
        | Frame::Proof(_) => None,
    }
}
