//! The answer to a bundle, a bundle itself: receipts, newer keys, and what the replica lacks of other logs.

use sonae_proto::courier::{CloudOpening, Encoder, FORMAT, Opening, Origin, Record, TooLarge};
use sonae_proto::ids::LogName;
use sonae_proto::intake::{ConnectionId, ReplyTo, StoredBatch};
use sonae_proto::wire::Fetch;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::Desk;
use super::session::{Told, hello};
use crate::clock::now_ms;
use crate::engine::{Answer, Input};

fn large(error: TooLarge) -> std::io::Error {
    std::io::Error::other(error)
}

fn stopping<E>(_: E) -> std::io::Error {
    std::io::Error::other("the node is stopping")
}

/// Writes an answer.
pub(super) async fn write(
    desk: &Desk,
    next: &mut u64,
    told: &Told,
    out: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    // Greeted anew: now it knows what the bundle has brought.
    let hello = hello(told.opening.school, &told.replica, &told.opening.software);
    let greeted = desk.greet(next, hello).await.map_err(stopping)?;
    let heads = greeted.welcome.heads.clone();
    let opening = Opening {
        format: FORMAT.to_owned(),
        school: told.opening.school,
        made_ms: now_ms(),
        software: concat!("sonae-cloud ", env!("CARGO_PKG_VERSION")).to_owned(),
        from: Origin::Cloud(CloudOpening {
            to: told.incarnation,
            heads: heads.clone(),
            complete: greeted.welcome.complete,
        }),
    };
    let (mut encoder, start) = Encoder::start(&opening).map_err(large)?;
    out.write_all(&start).await?;
    let mut served = Vec::new();
    for log in heads.keys().filter(|log| log.incarnation != told.incarnation) {
        let after = told.replica.have.get(log).copied().unwrap_or(0);
        served.extend(fetch(desk, greeted.connection, *log, after).await?);
    }
    let mut records: Vec<Record> = greeted.keys.into_iter().map(Record::Keys).collect();
    let identities = greeted.welcome.identities.iter().cloned();
    records.extend(identities.map(|identity| Record::Identity(Box::new(identity))));
    records.extend(told.receipts.values().cloned().map(Record::Receipt));
    for record in &records {
        out.write_all(&encoder.record(record).map_err(large)?).await?;
    }
    for stored in served {
        // One that no site has whole is left out, and with it what follows: the receiver sees the gap.
        let Some(bytes) = desk.reader.batch(&stored).await else { continue };
        out.write_all(&encoder.record(&Record::Batch(bytes)).map_err(large)?).await?;
    }
    desk.leave(greeted.connection).await;
    out.write_all(&encoder.finish().0).await
}

async fn fetch(
    desk: &Desk,
    connection: ConnectionId,
    log: LogName,
    after: u64,
) -> std::io::Result<Vec<StoredBatch>> {
    let (reply, answer) = oneshot::channel();
    let to = ReplyTo { connection, stream: 1 };
    let fetch = Fetch { log, after };
    desk.engine.send(Input::Fetch { to, fetch, reply: Some(reply) }).await.map_err(stopping)?;
    match answer.await.map_err(stopping)? {
        Answer::Serve(batches) => Ok(batches),
        Answer::Frame(_)
        | Answer::ServeSnapshot { .. }
        | Answer::Quarantined { .. }
        | Answer::Documents(_) => Ok(Vec::new()),
    }
}
