//! One connection to a neighbour: greeting, control stream, and what the neighbour asks.
//!
//! The dialler opens the control stream. Both say hello on it, then keys if the other's are older, then news. Each later
//! stream, from either side, carries one fetch, answered by batches and an end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sonae_line::{Connection, RecvStream, SendStream};
use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::{Incarnation, LogName, ReplicaId};
use sonae_proto::neighbours::NeighbourId;
use sonae_proto::uplink::KeysOutcome;
use sonae_proto::vector::{Heads, Sequences};
use sonae_proto::wire::{Fetch, FetchEnd, Frame, Hello, News, PROTOCOL, Refusal, RefusalCode};
use sonae_trust::device_chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fetch::Failed;
use super::{Common, Who};
use crate::courier::Ask;
use crate::frames;

/// The time for a greeting, and for the request of a stream.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Control frames that may wait to be sent. A neighbour that leaves more unread is left.
const CONTROL_WAITING_MAX: usize = 64;

/// Fetches that are served at a time: one for each tier, and a question about a head.
const SERVED_MAX: usize = 4;

/// Characters of a nonce.
pub(super) const NONCE_CHARS: usize = 32;

/// Characters of what a neighbour says for people that are kept.
const WORDS_CHARS_MAX: usize = 200;

/// What tasks report to the driver.
pub(super) enum Event {
    Greeted { id: NeighbourId, line: Line },
    News { id: NeighbourId, heads: Heads },
    FetchEnd { id: NeighbourId, log: LogName, outcome: Result<(), Failed> },
    Forked { id: NeighbourId, log: LogName },
    Gone { id: NeighbourId, reason: String },
    Unreached { address: String, reason: String },
}

/// Who has dialled, and where the other one is.
#[derive(Debug, Clone)]
pub(super) enum Side {
    Accepted(SocketAddr),
    Dialled(String),
}

/// Why a connection was not served.
#[derive(Debug)]
pub(super) enum Unserved {
    /// This process was at both ends.
    Own,
    Refused(String),
}

/// What the driver holds of a connection.
#[derive(Debug)]
pub(super) struct Line {
    pub who: Who,
    pub side: Side,
    /// Of the manifest that it holds, or was sent.
    pub manifest_version: u64,
    /// Incarnations whose identities it was told.
    pub told: BTreeSet<Incarnation>,
    pub line: Connection,
    control: mpsc::Sender<Frame>,
}

impl Line {
    /// Queues a control frame. One that finds no room ends the connection.
    pub fn tell(&self, frame: Frame) {
        if self.control.try_send(frame).is_err() {
            self.line.close(0, b"");
        }
    }
}

/// Serves a connection until it ends. Returns who was there.
pub(super) async fn serve(
    line: Connection,
    side: Side,
    common: &Common,
    handshake: Option<OwnedSemaphorePermit>,
) -> Result<Who, Unserved> {
    let greeting = timeout(FRAME_TIMEOUT, greet(&line, &side, common)).await;
    drop(handshake);
    let greeted = greeting.unwrap_or_else(|_| Err(Unserved::Refused("it said nothing".to_owned())));
    let Greeted { hello, replica, send, receive } = match greeted {
        Ok(greeted) => greeted,
        Err(unserved) => {
            if let (Unserved::Refused(reason), Side::Accepted(from)) = (&unserved, &side) {
                log::warn!(from:% = from, reason; "a neighbour was not greeted");
            }
            line.close(0, b"");
            return Err(unserved);
        }
    };
    let (control, to_send) = mpsc::channel(CONTROL_WAITING_MAX);
    let (id, who) = (common.next_id(), (replica, hello.nonce));
    let (manifest_version, told) = (hello.manifest_version, BTreeSet::new());
    let handle = Line { who: who.clone(), side, manifest_version, told, line: line.clone(), control };
    if common.events.send(Event::Greeted { id, line: handle }).await.is_err() {
        return Ok(who);
    }
    let reason = tokio::select! {
        reason = write_control(send, to_send) => reason,
        reason = read_control(receive, id, common) => reason,
        reason = serve_requests(&line, common) => reason,
    };
    let reason = line.close_reason().unwrap_or(reason);
    line.close(0, b"");
    drop(common.events.send(Event::Gone { id, reason }).await);
    Ok(who)
}

struct Greeted {
    hello: Box<Hello>,
    replica: ReplicaId,
    send: SendStream,
    receive: RecvStream,
}

async fn greet(line: &Connection, side: &Side, common: &Common) -> Result<Greeted, Unserved> {
    let refused = |reason: String| Unserved::Refused(line.close_reason().unwrap_or(reason));
    let gone = |error: sonae_line::Closed| refused(error.to_string());
    let certificate = line.peer_certificate().ok_or_else(|| refused("it has no certificate".to_owned()))?;
    let device = device_chain::verify(&certificate, &common.authority);
    let device = device.map_err(|error| refused(error.to_string()))?;
    let replica = ReplicaId::of_key(&device.key);
    let is_revoked = common.known.borrow().revoked.contains(&replica);
    let (mut send, mut receive) = match side {
        Side::Dialled(_) => line.open().await.map_err(gone)?,
        Side::Accepted(_) => line.accept().await.map_err(gone)?,
    };
    if is_revoked {
        return Err(refuse(send, "the board has revoked this device").await);
    }
    let hello = Frame::Hello(Box::new(hello(common)));
    frames::write(&mut send, &hello).await.map_err(|error| refused(error.to_string()))?;
    let answer = frames::read(&mut receive).await.map_err(|error| refused(error.to_string()))?;
    if let Frame::Refusal(refusal) = answer {
        return Err(Unserved::Refused(words(&refusal)));
    }
    let Frame::Hello(hello) = answer else { return Err(refuse(send, "there was no hello").await) };
    if hello.nonce == common.nonce {
        return Err(Unserved::Own);
    }
    match check(&hello, replica, common) {
        Ok(()) => Ok(Greeted { hello, replica, send, receive }),
        Err(reason) => Err(refuse(send, &reason).await),
    }
}

/// Tells the other side why, in a frame that names nothing of the school.
async fn refuse(mut send: SendStream, reason: &str) -> Unserved {
    let refusal = Refusal { code: RefusalCode::Identity, text: reason.to_owned(), heads: Heads::new() };
    if frames::write(&mut send, &Frame::Refusal(refusal)).await.is_ok() {
        let _ = send.finish().await;
    }
    Unserved::Refused(reason.to_owned())
}

/// Returns what a neighbour says for people, short and without what a terminal would obey.
fn words(refusal: &Refusal) -> String {
    refusal.text.chars().filter(|c| !c.is_control()).take(WORDS_CHARS_MAX).collect()
}

/// What is said first. It names no data: heads follow when the other side has been checked.
fn hello(common: &Common) -> Hello {
    Hello {
        protocol: PROTOCOL,
        school: common.desk.store.school(),
        identity: common.desk.identity.clone(),
        loss_counter: 0,
        receipted: Heads::new(),
        have: Sequences::new(),
        manifest_version: common.known.borrow().manifest_version,
        nonce: common.nonce.clone(),
        software: concat!("sonae-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
        ended: EndedHashes::new(),
    }
}

fn check(hello: &Hello, replica: ReplicaId, common: &Common) -> Result<(), String> {
    let own = common.desk.store.school();
    if hello.protocol != PROTOCOL {
        return Err(format!("it speaks version {} of the protocol, and this box {PROTOCOL}", hello.protocol));
    }
    if hello.school != own {
        return Err(format!("it is of school {}, and this box of {own}", hello.school));
    }
    let identity = hello.identity.verify(&common.board, own).map_err(|error| error.to_string())?;
    if identity.replica() != replica {
        return Err("its identity is not that of its certificate".to_owned());
    }
    if hello.nonce.len() != NONCE_CHARS {
        return Err("its nonce has another length".to_owned());
    }
    Ok(())
}

async fn write_control(mut send: SendStream, mut to_send: mpsc::Receiver<Frame>) -> String {
    while let Some(frame) = to_send.recv().await {
        if let Err(error) = frames::write(&mut send, &frame).await {
            return error.to_string();
        }
    }
    "closed by this side".to_owned()
}

async fn read_control(mut receive: RecvStream, id: NeighbourId, common: &Common) -> String {
    let closing = || "this replica is closing".to_owned();
    loop {
        match frames::read(&mut receive).await {
            Ok(Frame::News(news)) => {
                let News { heads, identities } = *news;
                if common.desk.asks.send(Ask::Identities(identities)).await.is_err()
                    || common.events.send(Event::News { id, heads }).await.is_err()
                {
                    return closing();
                }
            }
            // A revocation comes before the news that follow it, so it is known before they are acted on.
            Ok(Frame::Keys(keys)) => {
                let (reply, answer) = oneshot::channel();
                if common.desk.asks.send(Ask::Keys(keys, reply)).await.is_err() {
                    return closing();
                }
                if let Ok(KeysOutcome::Refused(reason)) = answer.await {
                    return format!("its key documents are refused: {reason}");
                }
            }
            Ok(Frame::Refusal(refusal)) => return words(&refusal),
            Ok(_) => return "it sent a frame out of turn".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

async fn serve_requests(line: &Connection, common: &Common) -> String {
    let places = Arc::new(Semaphore::new(SERVED_MAX));
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = served.join_next() => {}
            stream = line.accept() => {
                let Ok((send, receive)) = stream else { return "the connection is gone".to_owned() };
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
                served.spawn(serve_fetch(send, receive, common.clone(), place));
            }
        }
    }
}

/// Answers one fetch with what is durable here. What cannot be read, or is not given, is missing behind the end.
async fn serve_fetch(
    mut send: SendStream,
    mut receive: RecvStream,
    common: Common,
    _place: OwnedSemaphorePermit,
) {
    let Ok(Ok(Frame::Fetch(Fetch { log, mut after }))) =
        timeout(FRAME_TIMEOUT, frames::read(&mut receive)).await
    else {
        return send.reset();
    };
    // What only this incarnation has is about to be written again under another name.
    let is_ending = || log.incarnation == common.identity.name() && common.known.borrow().is_renewing;
    while !is_ending()
        && let Some(bytes) = common.desk.store.batch_after(log, after).await
    {
        let Ok(batch) = Batch::from_bytes(bytes) else { break };
        after = batch.header().last;
        if frames::write(&mut send, &Frame::Batch(batch.bytes().to_vec())).await.is_err() {
            return;
        }
    }
    if frames::write(&mut send, &Frame::FetchEnd(FetchEnd { sequence: after })).await.is_ok() {
        let _ = send.finish().await;
    }
}
