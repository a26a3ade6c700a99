//! Repair: a store whose journal or archive has rotted is made again from the cloud and from what can still be read
//! (P1, P5). The way is that of a renewal; but nothing is served meanwhile, since nothing that is served would be
//! known to be right.
//!
//! **Invariant**: what had a receipt comes from the cloud, what had none from what can be read here; what neither
//! has is counted and said. The damaged files stay aside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::destruction::Destroyed;
use sonae_proto::ids::LogName;
use sonae_proto::manifest::Manifest;
use sonae_proto::reissue::reissue;
use sonae_proto::signed::unverified;
use sonae_proto::vector::LogHead;
use sonae_store::data_dir::DataDir;
use sonae_store::enrolment;
use sonae_store::identity::ReplicaKeys;
use sonae_store::salvage::{self, Salvaged};
use sonae_store::{RealDisk, renewal};

use crate::renewal::{RenewalError, Source, keyring, lines, lines_of, prepare, write_again};
use crate::replica::{Replica, ReplicaError};

/// What a repair found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// Changes that only this box had and that could be read.
    pub carried: u64,
    /// Changes that only this box had and that cannot be read any more, as far as can be told.
    pub unreadable: u64,
}

/// Makes the store of a data directory again. `dir` is locked by the caller.
///
/// # Errors
/// [`RenewalError`]; try again, what has been fetched stays.
///
/// # Durability
/// The new store is on stable storage, and in place, when this returns.
pub async fn repair(dir: &DataDir, cloud: Option<String>) -> Result<Repaired, RenewalError> {
    let data = dir.path();
    let ended = present(data)?;
    let salvaged = salvage::read(&dir.journal(), &dir.batches(), ended.name(), Arc::new(RealDisk))?;
    let next = prepare(data, cloud, source(&salvaged)).await?;
    if let Some(documents) = &salvaged.documents {
        next.opened.store.keep_documents(documents.clone());
    }
    let (held, begins) = (next.opened.store.held().await?, next.opened.store.state().pruned);
    let mut repaired = Repaired { carried: 0, unreadable: 0 };
    for (log, reached) in &salvaged.reached {
        let there = held.get(log).map(Vec::as_slice).unwrap_or_default();
        let begins = begins.get(log).copied().unwrap_or(LogHead::EMPTY);
        let mut mine = own_lines(&salvaged, *log, there, &next)?;
        if !parts_before(&salvaged, *log, begins) {
            mine = mine.split_off(&(begins.sequence + 1));
        }
        let safe = there.last().map_or(begins.sequence, |header| header.last);
        repaired.unreadable += unreadable(*reached, safe, &mine);
        repaired.carried += carry(&next, *log, mine, there).await?;
    }
    next.opened.store.seal_now().await;
    // A store that failed to close has said so; the next start recovers it.
    let _ = tokio::task::spawn_blocking(move || next.opened.close()).await;
    renewal::set_ready(data, ended.name()).map_err(RenewalError::Exchange)?;
    renewal::finish(dir).map_err(RenewalError::Exchange)?;
    Ok(repaired)
}

/// What the new store is made of. Without key documents nobody here knows whether keys were destroyed.
fn source(salvaged: &Salvaged) -> Source {
    let kept = salvaged.documents.as_ref();
    let manifest: Option<Manifest> = kept.and_then(|documents| unverified(&documents.manifest));
    manifest.map_or(Source::Snapshots, |manifest| Source::of(&Destroyed::of(&manifest)))
}

/// Whether this branch of a log is another one than that which the snapshot stands for with which the new store begins it.
fn parts_before(salvaged: &Salvaged, log: LogName, begins: LogHead) -> bool {
    let mut batches = salvaged.batches.get(&log).into_iter().flat_map(BTreeMap::values).map(Batch::header);
    batches.any(|header| header.last == begins.sequence && header.head() != begins)
}

fn present(data: &Path) -> Result<ReplicaKeys, RenewalError> {
    let bundle = enrolment::load(data).map_err(ReplicaError::from)?;
    Ok(ReplicaKeys::load(data, &bundle).map_err(ReplicaError::from)?)
}

/// All lines of an own log that can be read, but those of batches that the cloud has byte for byte.
fn own_lines(
    salvaged: &Salvaged,
    log: LogName,
    there: &[BatchHeader],
    next: &Replica,
) -> Result<BTreeMap<u64, Vec<u8>>, RenewalError> {
    let mut mine = BTreeMap::new();
    let keyring = keyring(next)?;
    let known: Vec<_> = there.iter().map(BatchHeader::hash).collect();
    for batch in salvaged.batches.get(&log).into_iter().flat_map(BTreeMap::values) {
        if known.contains(&batch.header().hash()) {
            continue;
        }
        match lines_of(batch, &keyring) {
            Ok(lines) => mine.extend(lines),
            // Counted with what is unreadable.
            Err(error) => log::error!(log = log.to_string(), error = error.to_string(); "a batch is lost"),
        }
    }
    mine.extend(salvaged.lines.get(&log).cloned().unwrap_or_default());
    Ok(mine)
}

/// Counts the places of a log that neither the cloud nor this box can fill.
fn unreadable(reached: u64, safe: u64, mine: &BTreeMap<u64, Vec<u8>>) -> u64 {
    let readable = mine.range(safe.saturating_add(1)..).count();
    reached.saturating_sub(safe).saturating_sub(u64::try_from(readable).unwrap_or(u64::MAX))
}

/// Writes again what the cloud does not have in the same place.
async fn carry(
    next: &Replica,
    log: LogName,
    mine: BTreeMap<u64, Vec<u8>>,
    there: &[BatchHeader],
) -> Result<u64, RenewalError> {
    let first = mine.keys().next().copied().unwrap_or(u64::MAX);
    let overlapping: Vec<_> = there.iter().filter(|header| header.last >= first).copied().collect();
    let theirs: BTreeMap<u64, Vec<u8>> = lines(next, log, &overlapping).await?.into_iter().collect();
    let branch: Vec<_> =
        mine.into_iter().filter(|(sequence, line)| theirs.get(sequence) != Some(line)).collect();
    let changes = reissue(log, &branch).map_err(|source| RenewalError::Change { log, source })?;
    write_again(next, log.tier, &changes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what cannot be told is not called whole. Method: a log of ten, with none, some and all beyond the cloud.
    #[test]
    fn unreadable_changes_are_counted() {
        let lines = |sequences: &[u64]| sequences.iter().map(|sequence| (*sequence, Vec::new())).collect();
        assert_eq!(unreadable(10, 0, &lines(&[])), 10);
        assert_eq!(unreadable(10, 0, &lines(&[1, 2, 9])), 7);
        assert_eq!(unreadable(10, 4, &lines(&[1, 2, 9])), 5);
        assert_eq!(unreadable(0, 0, &lines(&[])), 0);
    }
}
