//! Streams of snapshots: one for each fetch, offer and part.

use sonae_proto::ids::Hash32;
use sonae_proto::uplink::SnapshotReply;
use sonae_proto::wire::{FetchSnapshot, Frame};
use tokio::sync::{mpsc, watch};

use super::connection::{Connection, Event};
use crate::frames;

impl Connection {
    /// Asks for a snapshot and reports what comes of it.
    pub fn fetch_snapshot(&self, fetch: FetchSnapshot, events: mpsc::Sender<Event>) {
        let (generation, line, name) = (self.generation(), self.line(), fetch.name);
        let welcomed = self.welcomed();
        tokio::spawn(async move {
            let event = match receive(&line, fetch, welcomed, generation, &events).await {
                Ok(()) => Event::SnapshotEnd { generation, name },
                Err(reason) => Event::Lost { generation, reason },
            };
            drop(events.send(event).await);
        });
    }

    /// Sends a root or a part and reports the answer.
    pub fn send_snapshot(&self, root: Hash32, frame: Frame, events: mpsc::Sender<Event>) {
        let (generation, line) = (self.generation(), self.line());
        tokio::spawn(async move {
            let event = match offer(&line, &frame).await {
                Ok(reply) => Event::SnapshotAnswer { generation, root, reply },
                Err(reason) => Event::Lost { generation, reason },
            };
            drop(events.send(event).await);
        });
    }
}

async fn receive(
    line: &sonae_line::Connection,
    fetch: FetchSnapshot,
    mut welcomed: watch::Receiver<bool>,
    generation: u64,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let name = fetch.name;
    let (_send, mut receive) = frames::ask(line, &Frame::FetchSnapshot(fetch)).await?;
    // Streams overtake each other, and only the welcome says who its author is.
    welcomed.wait_for(|welcomed| *welcomed).await.map_err(|error| error.to_string())?;
    loop {
        let event = match frames::read(&mut receive).await.map_err(|error| error.to_string())? {
            Frame::Snapshot(text) => Event::SnapshotRoot { generation, name, text },
            Frame::SnapshotPart(part) => Event::SnapshotPart { generation, part },
            Frame::FetchEnd(_) => return Ok(()),
            Frame::Refusal(refusal) => return Err(refusal.text),
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Batch(_)
            | Frame::Receipt(_)
            | Frame::Keys(_)
            | Frame::Fetch(_)
            | Frame::News(_)
            | Frame::SnapshotWants(_)
            | Frame::FetchSnapshot(_)
            | Frame::Proof(_) => return Err("the cloud sent a frame out of turn".to_owned()),
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

async fn offer(line: &sonae_line::Connection, frame: &Frame) -> Result<SnapshotReply, String> {
    let (_send, mut receive) = frames::ask(line, frame).await?;
    match frames::read(&mut receive).await.map_err(|error| error.to_string())? {
        Frame::Receipt(bytes) => Ok(SnapshotReply::Receipt(bytes)),
        Frame::SnapshotWants(wants) => Ok(SnapshotReply::Wants(wants)),
        Frame::Refusal(refusal) => Ok(SnapshotReply::Refusal(refusal)),
        Frame::Hello(_)
        | Frame::Welcome(_)
        | Frame::Batch(_)
        | Frame::Keys(_)
        | Frame::Fetch(_)
        | Frame::FetchEnd(_)
        | Frame::News(_)
        | Frame::Snapshot(_)
        | Frame::SnapshotPart(_)
        | Frame::FetchSnapshot(_)
        | Frame::Proof(_) => Err("the cloud answered a snapshot with another frame".to_owned()),
    }
}
