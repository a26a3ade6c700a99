//! What is asked of a neighbour: the batches of a log, taken as a courier's would be; and the proof of a head of an own
//! log that is not known here.
//!
//! **Invariant**: at most one group of batches of a fetch is held in memory.

use std::time::Duration;

use sonae_line::Connection;
use sonae_proto::batch::Batch;
use sonae_proto::ids::LogName;
use sonae_proto::uplink::CarriedBatch;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::{Fetch, Frame};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Common;
use crate::courier::{Ask, GROUP_BATCHES, GROUP_BYTES};
use crate::frames;

/// How long a neighbour may be silent while something is asked of it. One that hangs must not keep others from being
/// asked.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Why a fetch ended early.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection is of no use any more.
    Line(String),
    /// What came is not taken here.
    Refused(String),
    /// This replica takes nothing now.
    Store(String),
}

fn line(error: impl ToString) -> Failed {
    Failed::Line(error.to_string())
}

/// The batches of one log, as they come.
struct Batches {
    log: LogName,
    _send: sonae_line::SendStream,
    receive: sonae_line::RecvStream,
}

impl Batches {
    async fn ask(connection: &Connection, fetch: Fetch) -> Result<Self, Failed> {
        let log = fetch.log;
        let asking = timeout(SILENCE_MAX, frames::ask(connection, &Frame::Fetch(fetch))).await;
        let (_send, receive) = asking.map_err(line)?.map_err(line)?;
        Ok(Self { log, _send, receive })
    }

    async fn next(&mut self) -> Result<Option<Batch>, Failed> {
        let frame = timeout(SILENCE_MAX, frames::read(&mut self.receive)).await;
        let frame = frame.map_err(line)?.map_err(line)?;
        if matches!(frame, Frame::FetchEnd(_)) {
            return Ok(None);
        }
        let Frame::Batch(bytes) = frame else { return Err(line("it answered a fetch with another frame")) };
        let batch = Batch::from_bytes(bytes).map_err(line)?;
        if batch.header().log != self.log {
            return Err(line("it sent a batch of another log than it was asked for"));
        }
        Ok(Some(batch))
    }
}

/// Asks for the batches of a log and has them taken, group by group.
///
/// # Durability
/// What was taken is on stable storage when this returns.
pub(super) async fn fetch(connection: Connection, fetch: Fetch, common: Common) -> Result<(), Failed> {
    let mut batches = Batches::ask(&connection, fetch).await?;
    let (mut group, mut bytes) = (Vec::new(), 0);
    loop {
        let batch = batches.next().await;
        let is_end = !matches!(batch, Ok(Some(_)));
        if let Ok(Some(batch)) = &batch {
            bytes += batch.bytes().len();
            group.push(batch.clone());
        }
        if is_end || group.len() >= GROUP_BATCHES || bytes >= GROUP_BYTES {
            // What came whole is taken, whatever follows.
            take(std::mem::take(&mut group), &common).await?;
            bytes = 0;
        }
        if is_end {
            return batch.map(drop);
        }
    }
}

async fn take(group: Vec<Batch>, common: &Common) -> Result<(), Failed> {
    if group.is_empty() {
        return Ok(());
    }
    let closing = || Failed::Store("this replica is closing".to_owned());
    let (reply, answer) = oneshot::channel();
    common.desk.asks.send(Ask::Batches(group, reply)).await.map_err(|_| closing())?;
    let outcomes = answer.await.map_err(|_| closing())?;
    for outcome in outcomes.map_err(|error| Failed::Store(error.to_string()))? {
        match outcome {
            CarriedBatch::Refused(reason) => return Err(Failed::Refused(reason)),
            CarriedBatch::Early { held } => {
                let text =
                    format!("what it has begins later than behind change {held}, up to which it is here");
                return Err(Failed::Refused(text));
            }
            CarriedBatch::Taken | CarriedBatch::Known | CarriedBatch::Quarantined | CarriedBatch::Dropped => {
            }
        }
    }
    Ok(())
}

/// Asks for the batch that ends an own log where this replica has no end. One that it has signed itself proves that its
/// data was restored from a copy, or that a copy runs elsewhere: the engine is told. Returns whether it was so.
pub(super) async fn question(
    connection: Connection,
    log: LogName,
    head: LogHead,
    common: Common,
) -> Result<bool, Failed> {
    let store = &common.desk.store;
    if store.has_head(log, head).await {
        return Ok(false);
    }
    let fetch = Fetch { log, after: head.sequence.saturating_sub(1) };
    let Some(batch) = Batches::ask(&connection, fetch).await?.next().await? else { return Ok(false) };
    let header = *batch.header();
    if header.school != store.school() || batch.verify(common.identity.key()).is_err() {
        return Err(line("it names a batch of this box's own log that this box has not signed"));
    }
    if store.has_head(log, header.head()).await {
        return Ok(false);
    }
    let (reply, answer) = oneshot::channel();
    common.desk.asks.send(Ask::Elsewhere(Box::new(header), reply)).await.map_err(line)?;
    answer.await.map_err(line)
}
