//! Writes a bundle: opening, key documents, identities, then all batches after given sequences, tier 0 first.

use serde::{Deserialize, Serialize};
use sonae_proto::batch::Batch;
use sonae_proto::courier::{Encoder, FORMAT, Opening, Origin, Record, ReplicaOpening, TooLarge};
use sonae_proto::ids::LogName;
use sonae_proto::vector::Sequences;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::{Ask, Desk};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Batches.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
}

fn gone<E>(_: E) -> std::io::Error {
    std::io::Error::other("the replica is closing")
}

fn large(error: TooLarge) -> std::io::Error {
    std::io::Error::other(error)
}

/// Writes a bundle of everything that is held after `since`. What is kept and not sealed yet is sealed first.
///
/// # Errors
/// When `out` fails, a held batch cannot be read, or the replica is closing. What was written is cut then, and
/// says so to whoever reads it.
pub async fn export(
    desk: &Desk,
    since: &Sequences,
    out: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<Exported> {
    // First the vector, then the seal: so all of it is sealed, whatever is written meanwhile.
    let have = desk.store.state().vector;
    desk.store.seal_now().await;
    let (reply, standing) = oneshot::channel();
    desk.asks.send(Ask::Standing(reply)).await.map_err(gone)?;
    let standing = standing.await.map_err(gone)?;
    if standing.is_renewing {
        // What a stick carried out now would come to stand under two names.
        return Err(std::io::Error::other(
            "this box goes on under a new incarnation once the cloud can be reached; export again after that",
        ));
    }
    let opening = Opening {
        format: FORMAT.to_owned(),
        school: desk.store.school(),
        made_ms: desk.clock.now_ms(),
        software: concat!("sonae-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
        from: Origin::Replica(Box::new(ReplicaOpening {
            identity: desk.identity.clone(),
            loss_counter: standing.loss_counter,
            receipted: standing.receipted,
            have: have.clone(),
            manifest_version: standing.manifest_version,
        })),
    };
    let (mut encoder, start) = Encoder::start(&opening).map_err(large)?;
    out.write_all(&start).await?;
    // Batches may have been sealed under any of them.
    let present = desk.store.documents();
    for keys in desk.store.all_documents(&desk.bundled_documents, present).await {
        let record = encoder.record(&Record::Keys(Box::new(keys))).map_err(large)?;
        out.write_all(&record).await?;
    }
    for identity in std::iter::once(desk.identity.clone()).chain(standing.identities) {
        let record = encoder.record(&Record::Identity(Box::new(identity))).map_err(large)?;
        out.write_all(&record).await?;
    }
    let mut changes = 0;
    for (log, last) in &have {
        changes += write_log(desk, *log, *last, since, &mut encoder, out).await?;
    }
    // What waits for the board travels on, behind its logs: at the cloud it survives this box.
    for waiting in desk.quarantine.list() {
        let Some(batch) = desk.quarantine.read(&waiting) else { continue };
        changes += batch.header().changes();
        out.write_all(&encoder.record(&Record::Batch(batch.bytes().to_vec())).map_err(large)?).await?;
    }
    let (record, end) = encoder.finish();
    out.write_all(&record).await?;
    out.flush().await?;
    Ok(Exported { batches: end.batches, changes })
}

async fn write_log(
    desk: &Desk,
    log: LogName,
    last: u64,
    since: &Sequences,
    encoder: &mut Encoder,
    out: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<u64> {
    let after = since.get(&log).copied().unwrap_or(0);
    if after >= last {
        return Ok(0);
    }
    let mut next = after + 1;
    // Batches are found by their first change. One that begins elsewhere belongs to another history than the
    // receiver's, or the numbers are made up: then the log goes as a whole, and the receiver decides.
    if next > 1 && desk.store.batch(log, next).await.is_none() {
        next = 1;
    }
    // What a snapshot stands for is not held in batches: the log begins behind it, and whoever lacks that says so.
    if next == 1 && desk.store.batch(log, next).await.is_none() {
        let held = desk.store.held().await.map_err(std::io::Error::other)?;
        let first = held.get(&log).and_then(|headers| headers.first());
        next = first.map_or(last + 1, |header| header.first);
    }
    let mut changes = 0;
    while next <= last {
        let Some(bytes) = desk.store.batch(log, next).await else { break };
        let batch = Batch::from_bytes(bytes).map_err(std::io::Error::other)?;
        changes += batch.header().changes();
        next = batch.header().last + 1;
        let record = encoder.record(&Record::Batch(batch.bytes().to_vec())).map_err(large)?;
        out.write_all(&record).await?;
    }
    if next <= last {
        let text = format!("change {next} of log {log} cannot be read; run `sonae-edge status`");
        return Err(std::io::Error::other(text));
    }
    Ok(changes)
}
