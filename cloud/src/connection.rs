//! One connection: its control stream and its requests.
//!
//! The client's first stream is the control stream: hello, welcome, then keys both ways and news to the client.
//! Each later stream carries one request: a batch, answered by a receipt or a refusal; a fetch, answered by batches
//! and an end; a snapshot or a part of one, answered by what is missing of it or by a receipt; a fetch of one; or the
//! evidence of a restore proof, which comes back when it is durable. All this is the same over QUIC and over TCP.

use std::sync::Arc;

use sonae_line::{Connection, RecvStream, SendStream};
use sonae_proto::ids::{Hash32, ReplicaId};
use sonae_proto::intake::{ConnectionId, Location, ReplyTo, StoredBatch};
use sonae_proto::wire::{Fetch, FetchEnd, Frame, RefusalCode, SnapshotPart};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::engine::{Answer, Barred, CONTROL, Input};
use crate::frames::{self, FrameMemory, Held, ReadError};
use crate::limits::{ANSWER_TIMEOUT, CONTROL_FRAMES_MAX, DRAIN_TIMEOUT, HELLO_TIMEOUT};
use crate::reader::Reader;

/// Close codes of the application, for the other side's log.
mod close_code {
    /// The node stops, or refused something on this connection and said why on its stream.
    pub const DONE: u32 = 0;
    /// There was no hello in time.
    pub const NO_HELLO: u32 = 1;
    /// The board has revoked the device.
    pub const REVOKED: u32 = 3;
}

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The engine's queue.
    pub engine: mpsc::Sender<Input>,
    /// For fetches.
    pub reader: Arc<Reader>,
    /// For frames.
    pub memory: FrameMemory,
    /// Devices that are sent away.
    pub barred: watch::Receiver<Barred>,
}

/// Serves a connection until it ends.
pub async fn serve(connection: Connection, id: ConnectionId, tls_key: [u8; 32], shared: Shared) {
    // Whatever the handshake was, resumed or not: the key is that of the certificate that was shown.
    if shared.barred.borrow().contains(&ReplicaId::of_key(&tls_key)) {
        log::warn!(connection = id.0; "a revoked device was sent away");
        connection.close(close_code::REVOKED, b"the board has revoked this device");
        let _ = timeout(DRAIN_TIMEOUT, connection.closed()).await;
        return;
    }
    let (control, to_send) = mpsc::channel(CONTROL_FRAMES_MAX);
    let (closing, mut closed) = watch::channel(false);
    if shared.engine.send(Input::Connected { connection: id, control, closing }).await.is_err() {
        return;
    }
    let first = timeout(HELLO_TIMEOUT, async {
        let (send, mut recv) = connection.accept().await.map_err(|_| ReadError::Gone)?;
        let frame = frames::read(&mut recv, &shared.memory).await;
        Ok::<_, ReadError>((send, recv, frame))
    });
    let Ok(Ok((send, recv, frame))) = first.await else {
        connection.close(close_code::NO_HELLO, b"no hello");
        let _ = shared.engine.send(Input::Disconnected(id)).await;
        return;
    };
    let mut writing = tokio::spawn(write_control(send, to_send));
    if greet(frame, id, tls_key, &shared).await {
        let reading = tokio::spawn(read_control(recv, id, shared.clone()));
        let requests = serve_requests(&connection, id, &shared, &mut closed).await;
        let _ = timeout(DRAIN_TIMEOUT, drain(requests)).await;
        reading.abort();
    }
    let _ = shared.engine.send(Input::Disconnected(id)).await;
    if timeout(DRAIN_TIMEOUT, &mut writing).await.is_err() {
        writing.abort();
    }
    connection.close(close_code::DONE, b"");
    let _ = timeout(DRAIN_TIMEOUT, connection.closed()).await;
}

/// Passes the first frame on. Returns whether it was a hello.
async fn greet(
    frame: Result<Held, ReadError>,
    connection: ConnectionId,
    tls_key: [u8; 32],
    shared: &Shared,
) -> bool {
    let to = ReplyTo { connection, stream: CONTROL };
    let input = match frame.map(|held| held.frame) {
        Ok(Frame::Hello(hello)) => Input::Hello { connection, tls_key: Some(tls_key), hello },
        Ok(Frame::Batch(bytes)) => Input::Batch { to, bytes, reply: None },
        Ok(Frame::Fetch(fetch)) => Input::Fetch { to, fetch, reply: None },
        Ok(_) => nonsense(to, RefusalCode::Unexpected, "not a hello", None),
        Err(error) => match error.refusal() {
            Some(code) => nonsense(to, code, &error.to_string(), None),
            None => return false,
        },
    };
    let is_hello = matches!(input, Input::Hello { .. });
    shared.engine.send(input).await.is_ok() && is_hello
}

fn nonsense(to: ReplyTo, code: RefusalCode, text: &str, reply: Option<oneshot::Sender<Answer>>) -> Input {
    Input::Nonsense { to, code, text: text.to_owned(), reply }
}

async fn write_control(mut send: SendStream, mut frames_to_send: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames_to_send.recv().await {
        if !frames::write(&mut send, &frame).await {
            return;
        }
    }
    frames::finish(&mut send).await;
}

async fn read_control(mut recv: RecvStream, connection: ConnectionId, shared: Shared) {
    let to = ReplyTo { connection, stream: CONTROL };
    loop {
        let input = match frames::read(&mut recv, &shared.memory).await.map(|held| held.frame) {
            Ok(Frame::Keys(keys)) => Input::Keys { connection, keys },
            Ok(_) => nonsense(to, RefusalCode::Unexpected, "only keys may follow a hello", None),
            Err(error) => match error.refusal() {
                Some(code) => nonsense(to, code, &error.to_string(), None),
                None => return,
            },
        };
        let ends = matches!(input, Input::Nonsense { .. });
        if shared.engine.send(input).await.is_err() || ends {
            return;
        }
    }
}

async fn serve_requests(
    connection: &Connection,
    id: ConnectionId,
    shared: &Shared,
    closed: &mut watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut requests = JoinSet::new();
    let mut next = CONTROL + 1;
    loop {
        tokio::select! {
            // The sender is dropped when the engine forgets the connection or ends.
            _ = closed.wait_for(|closed| *closed) => return requests,
            Some(_) = requests.join_next() => {}
            stream = connection.accept() => {
                let Ok((send, recv)) = stream else { return requests };
                let to = ReplyTo { connection: id, stream: next };
                next += 1;
                requests.spawn(request(send, recv, to, shared.clone()));
            }
        }
    }
}

async fn drain(mut requests: JoinSet<()>) {
    while requests.join_next().await.is_some() {}
}

async fn request(mut send: SendStream, mut recv: RecvStream, to: ReplyTo, shared: Shared) {
    let (reply, answer) = oneshot::channel();
    let reply = Some(reply);
    let mut after = 0;
    // The memory stays held until the answer is out: by then the batch has left all queues.
    let (input, _memory) = match frames::read(&mut recv, &shared.memory).await {
        Ok(Held { frame: Frame::Batch(bytes), memory }) => (Input::Batch { to, bytes, reply }, Some(memory)),
        Ok(Held { frame: Frame::Fetch(fetch), memory }) => {
            let Fetch { after: from, .. } = fetch;
            after = from;
            (Input::Fetch { to, fetch, reply }, Some(memory))
        }
        Ok(Held { frame: Frame::Snapshot(text), memory }) => {
            (Input::Snapshot { to, text, reply }, Some(memory))
        }
        Ok(Held { frame: Frame::SnapshotPart(part), memory }) => {
            (Input::SnapshotPart { to, part, reply }, Some(memory))
        }
        Ok(Held { frame: Frame::FetchSnapshot(fetch), memory }) => {
            (Input::FetchSnapshot { to, fetch, reply }, Some(memory))
        }
        Ok(Held { frame: Frame::Proof(proof), memory }) => (Input::Proof { to, proof, reply }, Some(memory)),
        Ok(_) => (nonsense(to, RefusalCode::Unexpected, "not a request", reply), None),
        Err(error) => match error.refusal() {
            Some(code) => (nonsense(to, code, &error.to_string(), reply), None),
            None => return,
        },
    };
    if shared.engine.send(input).await.is_err() {
        return;
    }
    let written = match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(Answer::Frame(frame))) => frames::write(&mut send, &frame).await,
        Ok(Ok(Answer::Serve(batches))) => send_batches(&mut send, &shared.reader, &batches, after).await,
        Ok(Ok(Answer::ServeSnapshot { root, text, parts })) => {
            send_snapshot(&mut send, &shared.reader, root, text, &parts).await
        }
        // Answers to couriers.
        Ok(Ok(Answer::Quarantined { .. } | Answer::Documents(_)) | Err(_)) | Err(_) => false,
    };
    if written {
        frames::finish(&mut send).await;
    } else {
        send.reset();
    }
}

/// Sends batches until one cannot be read; the end says how far it came.
async fn send_batches(send: &mut SendStream, reader: &Reader, batches: &[StoredBatch], after: u64) -> bool {
    let mut sequence = after;
    for stored in batches {
        let Some(bytes) = reader.batch(stored).await else { break };
        if !frames::write(send, &Frame::Batch(bytes)).await {
            return false;
        }
        sequence = stored.header.last;
    }
    frames::write(send, &Frame::FetchEnd(FetchEnd { sequence })).await
}

/// Sends a root and its parts until one cannot be read; the asker sees what is missing.
async fn send_snapshot(
    send: &mut SendStream,
    reader: &Reader,
    root: Hash32,
    text: Option<String>,
    parts: &[(u32, Hash32, Location)],
) -> bool {
    if let Some(text) = text
        && !frames::write(send, &Frame::Snapshot(text)).await
    {
        return false;
    }
    for (number, hash, location) in parts {
        let Some(sealed) = reader.part(*hash, location).await else { break };
        let part = Box::new(SnapshotPart { root, number: *number, sealed });
        if !frames::write(send, &Frame::SnapshotPart(part)).await {
            return false;
        }
    }
    frames::write(send, &Frame::FetchEnd(FetchEnd { sequence: 0 })).await
}
