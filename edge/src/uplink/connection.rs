//! One connection to the cloud: its control stream and the streams of batches and fetches, each in a task of
//! its own that reports events. Events of an earlier connection carry its number and are ignored.

use std::net::IpAddr;
use std::time::Duration;

use quinn::{Endpoint, VarInt};
use sonae_proto::batch::Batch;
use sonae_proto::ids::LogName;
use sonae_proto::uplink::BatchReply;
use sonae_proto::wire::{Fetch, Frame};
use sonae_store::Store;
use tokio::sync::mpsc;

use crate::frames::{self, StreamError};

/// A dial that has no answer after this long is given up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Control frames that may wait to be sent.
const CONTROL_WAITING_MAX: usize = 8;

/// What tasks of a connection report.
pub(super) enum Event {
    Connected { generation: u64, connection: Connection },
    Lost { generation: u64, reason: String },
    Control { generation: u64, frame: Box<Frame> },
    Answer { generation: u64, log: LogName, changes: u64, bytes: u64, reply: BatchReply },
    Fetched { generation: u64, batch: Box<Batch> },
    FetchEnd { generation: u64 },
}

impl Event {
    pub fn generation(&self) -> u64 {
        match self {
            Self::Connected { generation, .. }
            | Self::Lost { generation, .. }
            | Self::Control { generation, .. }
            | Self::Answer { generation, .. }
            | Self::Fetched { generation, .. }
            | Self::FetchEnd { generation } => *generation,
        }
    }
}

/// A connection.
pub(super) struct Connection {
    generation: u64,
    quic: quinn::Connection,
    control: mpsc::Sender<Frame>,
}

/// Dials in a task of its own.
pub(super) fn dial(endpoint: Endpoint, host: String, generation: u64, events: mpsc::Sender<Event>) {
    tokio::spawn(async move {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, connect(&endpoint, &host)).await;
        let outcome = dialled.unwrap_or_else(|_| Err(format!("{host} does not answer")));
        match outcome {
            Ok(quic) => greet(quic, generation, events).await,
            Err(reason) => drop(events.send(Event::Lost { generation, reason }).await),
        }
    });
}

async fn connect(endpoint: &Endpoint, host: &str) -> Result<quinn::Connection, String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
    let address = tokio::net::lookup_host(host)
        .await
        .map_err(|error| format!("{host} cannot be resolved: {error}"))?
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    // A v6 socket reaches v4 addresses in their mapped form.
    let is_v6 = endpoint.local_addr().is_ok_and(|local| local.is_ipv6());
    let address = match address.ip() {
        IpAddr::V4(v4) if is_v6 => (v4.to_ipv6_mapped(), address.port()).into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    };
    let connecting = endpoint.connect(address, &name).map_err(|error| format!("{host}: {error}"))?;
    connecting.await.map_err(|error| format!("{host}: {error}"))
}

/// Opens the control stream and serves it.
async fn greet(quic: quinn::Connection, generation: u64, events: mpsc::Sender<Event>) {
    let lost = |reason: String| Event::Lost { generation, reason };
    let (mut send, mut receive) = match quic.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return drop(events.send(lost(error.to_string())).await),
    };
    let (control, mut waiting) = mpsc::channel(CONTROL_WAITING_MAX);
    let connection = Connection { generation, quic: quic.clone(), control };
    if events.send(Event::Connected { generation, connection }).await.is_err() {
        return;
    }
    let outgoing = async {
        while let Some(frame) = waiting.recv().await {
            frames::write(&mut send, &frame).await?;
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
    let reason = match quic.close_reason() {
        Some(reason) => reason.to_string(),
        None => ended.err().map(|error| error.to_string()).unwrap_or_default(),
    };
    drop(events.send(lost(reason)).await);
}

impl Connection {
    /// Queues a control frame. Returns whether there was room.
    pub fn tell(&self, frame: Frame) -> bool {
        self.control.try_send(frame).is_ok()
    }

    /// Returns UDP payload bytes sent and received.
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.quic.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    pub fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"");
    }

    /// Sends a batch on a stream of its own and reports its answer.
    pub fn send_batch(&self, log: LogName, first: u64, store: Store, events: mpsc::Sender<Event>) {
        let (generation, quic) = (self.generation, self.quic.clone());
        tokio::spawn(async move {
            let event = match send_batch(&quic, log, first, &store).await {
                Ok((changes, bytes, reply)) => Event::Answer { generation, log, changes, bytes, reply },
                Err(reason) => Event::Lost { generation, reason },
            };
            drop(events.send(event).await);
        });
    }

    /// Asks for the batches of a log and reports them.
    pub fn fetch(&self, fetch: Fetch, events: mpsc::Sender<Event>) {
        let (generation, quic) = (self.generation, self.quic.clone());
        tokio::spawn(async move {
            let event = match receive_batches(&quic, fetch, generation, &events).await {
                Ok(()) => Event::FetchEnd { generation },
                Err(reason) => Event::Lost { generation, reason },
            };
            drop(events.send(event).await);
        });
    }
}

async fn send_batch(
    quic: &quinn::Connection,
    log: LogName,
    first: u64,
    store: &Store,
) -> Result<(u64, u64, BatchReply), String> {
    let bytes = store.batch(log, first).await.ok_or("a sealed batch cannot be read")?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let batch = Batch::from_bytes(bytes).map_err(|error| error.to_string())?;
    let (mut send, mut receive) = quic.open_bi().await.map_err(|error| error.to_string())?;
    let frame = Frame::Batch(batch.bytes().to_vec());
    frames::write(&mut send, &frame).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    let answer = frames::read(&mut receive).await.map_err(|error| error.to_string())?;
    let reply = batch_reply(answer).ok_or("the cloud answered a batch with another frame")?;
    Ok((batch.header().changes(), length, reply))
}

async fn receive_batches(
    quic: &quinn::Connection,
    fetch: Fetch,
    generation: u64,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let (mut send, mut receive) = quic.open_bi().await.map_err(|error| error.to_string())?;
    frames::write(&mut send, &Frame::Fetch(fetch)).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
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
            | Frame::News(_) => return Err("the cloud sent a frame out of turn".to_owned()),
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
        | Frame::News(_) => None,
    }
}
