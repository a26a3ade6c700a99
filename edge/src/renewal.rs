//! Renewal: going on under a new incarnation, by itself, when the cloud has another history of an own log (P6).
//!
//! That happens to a box that was restored from an old copy, and to a box whose copy runs elsewhere. A second
//! store beside the first fetches everything that the cloud has, the other branch included, while the first goes on
//! serving. Then what only this box has is written again into the second, and they are exchanged.
//!
//! **Invariant**: what was kept here is in the store that goes on, and the old branch stays aside, before anybody is
//! served again.
//! **Invariant**: cut off anywhere, it is begun again or finished by the next start, and nothing applies twice.

mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::change::{Change, ChangeError};
use sonae_proto::destruction::Destroyed;
use sonae_proto::erasure::tombstones;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::reissue::{parting, reissue};
use sonae_proto::seal::{SealError, open_lines};
use sonae_proto::vector::LogHead;
use sonae_store::data_dir::DataDir;
use sonae_store::keyring::{Keyring, KeyringError};
use sonae_store::{RealDisk, Shelf, StoreError, ViewError, WriteError, enrolment, held_keys, renewal};

use crate::fetch::{FetchError, fetch_all};
use crate::replica::{Replica, ReplicaError};

/// Changes that are taken over in one commit: with the largest lines a quarter of what a commit may hold.
const REISSUED_AT_ONCE: usize = 16;

/// Why a renewal did not happen. The box goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The second store cannot be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The cloud cannot be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A store fails or is full.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A view cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Keys cannot be opened.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A held batch cannot be read or opened.
    #[error("a batch of log {log} cannot be read")]
    Batch {
        /// Which log.
        log: LogName,
        /// Why, if sealing says it.
        #[source]
        source: Option<SealError>,
    },
    /// A kept line is no change.
    #[error("a change of log {log} cannot be read by this version")]
    Change {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: ChangeError,
    },
    /// The cloud cannot say what it has.
    #[error("the cloud cannot read enough of its sites to say what it has")]
    Incomplete,
    /// The second store is itself a copy of one that lives.
    #[error("the half-made store is a copy of one that runs elsewhere; it is begun anew")]
    Copied,
    /// The files cannot be exchanged.
    #[error("the stores cannot be exchanged")]
    Exchange(#[source] std::io::Error),
}

impl RenewalError {
    /// Whether the half-made second store can never be finished. Nothing that lives is in it.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Copied | Self::Fetch(FetchError::Parted { .. }))
    }
}

/// What a second store is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// All logs from their first change on, so that branches can be compared change by change.
    Logs,
    /// Snapshots where the cloud has them: keys were destroyed, and what is sealed to them opens no more.
    Snapshots,
}

impl Source {
    /// What there is to make it of, by the keys that exist no more.
    #[must_use]
    pub fn of(destroyed: &Destroyed) -> Self {
        if destroyed.keys().is_empty() { Self::Logs } else { Self::Snapshots }
    }
}

/// Makes the second store and fetches everything that the cloud has into it. Resumes what an earlier try left, unless
/// that cannot be used.
///
/// # Errors
/// [`RenewalError`]; try again later.
pub async fn prepare(old: &Path, cloud: Option<String>, source: Source) -> Result<Replica, RenewalError> {
    let mut next = open_next(old)?;
    let begun = next.opened.store.state();
    if source == Source::Snapshots && begun.foundations.is_empty() && !begun.vector.is_empty() {
        log::warn!("a half-made store began with logs that may not open any more; it is begun anew");
        next.opened.close();
        renewal::discard(old).map_err(RenewalError::Exchange)?;
        next = open_next(old)?;
    }
    let (mut config, _desk) = next.uplink(cloud)?;
    config.snapshots = source == Source::Snapshots;
    let mut forked = config.renew.subscribe();
    let fetched = tokio::select! {
        fetched = fetch_all(config, &next.status, Instant::now(), |_| {}) => fetched.map_err(RenewalError::from),
        Ok(_) = forked.wait_for(|is_forked| *is_forked) => Err(RenewalError::Copied),
    };
    match fetched {
        Ok(_) if next.status.uplink.get().is_complete => Ok(next),
        // What lies beyond would be taken for what only this box has.
        Ok(_) => Err(RenewalError::Incomplete),
        Err(error) => {
            if error.is_final() {
                next.opened.close();
                renewal::discard(old).map_err(RenewalError::Exchange)?;
            }
            Err(error)
        }
    }
}

fn open_next(old: &Path) -> Result<Replica, RenewalError> {
    let path = renewal::next(old);
    if path.join("enrolment.json").exists() {
        match Replica::open_dir(DataDir::open(&path).map_err(ReplicaError::from)?) {
            Err(error) if error.is_damage() => {
                log::warn!(error = error.to_string(); "a half-made store has rotted; it is begun anew");
            }
            opened => return Ok(opened?),
        }
    }
    renewal::discard(old).map_err(RenewalError::Exchange)?;
    let bundle = enrolment::load(old).map_err(ReplicaError::from)?;
    let now_ms = sonae_store::Clock::system().now_ms();
    let dir = enrolment::enrol(&path, &bundle, Beginning::Restored, now_ms).map_err(ReplicaError::from)?;
    // What only this box has may be sealed to a key that was destroyed meanwhile.
    let shelf = |data: &Path| Shelf::new(Arc::new(RealDisk), &data.join("snapshots"));
    held_keys::copy(&shelf(old), &shelf(&path)).map_err(RenewalError::Exchange)?;
    Ok(Replica::open_dir(dir)?)
}

/// Writes into the second store what only the first has, and exchanges them. Nobody may write to the first any
/// more. Returns the directory, still locked, and how many changes were carried over.
///
/// # Errors
/// [`RenewalError`]; the first store stays what it was.
///
/// # Durability
/// The exchange is on stable storage when this returns.
pub async fn exchange(old: Replica, next: Replica) -> (DataDir, Result<u64, RenewalError>) {
    let carried = carry_over(&old, &next).await;
    let (dir, ends) = (old.dir, old.status.incarnation);
    let closed = tokio::task::spawn_blocking(move || {
        old.opened.close();
        next.opened.close();
    });
    // A store that failed to close has said so; the next start recovers it.
    let _ = closed.await;
    let exchanged = carried.and_then(|carried| {
        renewal::set_ready(dir.path(), ends).map_err(RenewalError::Exchange)?;
        renewal::finish(&dir).map_err(RenewalError::Exchange)?;
        Ok(carried)
    });
    (dir, exchanged)
}

async fn carry_over(old: &Replica, next: &Replica) -> Result<u64, RenewalError> {
    old.opened.store.freeze();
    // Everything that was kept is then in a batch, which is what the branches are compared by.
    old.opened.store.seal_now().await;
    next.opened.store.keep_documents(old.opened.store.documents());
    let (here, there) = (old.opened.store.held().await?, next.opened.store.held().await?);
    let own = &old.opened.evidence.own;
    for (log, sequence) in old.opened.store.state().vector {
        // What is held of others came in batches, or a snapshot stands for it.
        if !own.contains(&log.incarnation) {
            continue;
        }
        let pruned = old.opened.store.state().pruned.get(&log).map_or(0, |base| base.sequence);
        let sealed = here.get(&log).and_then(|headers| headers.last()).map_or(pruned, |header| header.last);
        // A full disk may have kept some of it from being sealed; it must not stay behind.
        if sealed < sequence {
            return Err(WriteError::Full.into());
        }
    }
    let (mut carried, before) = (0, old.opened.store.state());
    let begins = next.opened.store.state().pruned;
    for (log, headers) in &here {
        let base = before.pruned.get(log).map_or(0, |base| base.sequence);
        let others = there.get(log).map(Vec::as_slice).unwrap_or_default();
        // What was pruned had its receipt and came back: it is the same in both.
        let others = others.get(others.partition_point(|header| header.last <= base)..).unwrap_or_default();
        let begins = begins.get(log).copied();
        if old.opened.evidence.own.contains(&log.incarnation) {
            let safe = before.safe_heads.get(log).map_or(0, |head| head.sequence);
            let headers = beyond(headers, begins, safe);
            carried += carry_branch(old, next, *log, headers, others).await?;
        } else {
            let reached = others.last().map(BatchHeader::head).or(begins);
            carry_batches(old, next, *log, headers, reached.unwrap_or(LogHead::EMPTY)).await?;
        }
    }
    carried += state::carry_state(old, next, &there).await?;
    next.opened.store.seal_now().await;
    Ok(carried)
}

/// Returns what an own log has beyond the snapshot with which the second store begins it. If its head is not in this
/// branch, what had a receipt is there, and the rest is taken for what only this box has.
fn beyond(headers: &[BatchHeader], begins: Option<LogHead>, safe: u64) -> &[BatchHeader] {
    let Some(begins) = begins else { return headers };
    let leads_there = headers.iter().any(|header| header.head() == begins);
    let common = if leads_there { begins.sequence } else { safe };
    headers.get(headers.partition_point(|header| header.last <= common)..).unwrap_or_default()
}

/// Re-issues what an own log holds beyond where the branches part.
async fn carry_branch(
    old: &Replica,
    next: &Replica,
    log: LogName,
    here: &[BatchHeader],
    there: &[BatchHeader],
) -> Result<u64, RenewalError> {
    let common = here.iter().zip(there).take_while(|(one, other)| one.hash() == other.hash()).count();
    let mine = lines(old, log, here.get(common..).unwrap_or_default()).await?;
    let theirs = lines(next, log, there.get(common..).unwrap_or_default()).await?;
    let Some(from) = parting(&mine, &theirs) else { return Ok(0) };
    let branch: Vec<_> = mine.into_iter().filter(|(sequence, _)| *sequence >= from).collect();
    let changes = reissue(log, &branch).map_err(|source| RenewalError::Change { log, source })?;
    write_again(next, log.tier, &changes).await
}

/// Writes changes of another branch into a store. Returns how many.
pub(crate) async fn write_again(next: &Replica, tier: Tier, changes: &[Change]) -> Result<u64, RenewalError> {
    // Tombstones first: nothing that is erased is sealed again on the way. The order of changes decides nothing else.
    let is_tombstone = |change: &&Change| change.collection == tombstones(tier);
    let (first, then): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(is_tombstone);
    let changes: Vec<Change> = first.into_iter().chain(then).cloned().collect();
    for some in changes.chunks(REISSUED_AT_ONCE) {
        next.opened.store.reissue(tier, some.to_vec()).await?;
    }
    Ok(u64::try_from(changes.len()).unwrap_or(u64::MAX))
}

/// Reads the lines of held batches with their sequences.
pub(crate) async fn lines(
    replica: &Replica,
    log: LogName,
    headers: &[BatchHeader],
) -> Result<Vec<(u64, Vec<u8>)>, RenewalError> {
    let keyring = keyring(replica)?;
    let mut lines = Vec::new();
    for header in headers {
        let batch = read(replica, log, header.first).await?;
        lines.extend(lines_of(&batch, &keyring)?);
    }
    Ok(lines)
}

/// Opens a replica's newest keys.
pub(crate) fn keyring(replica: &Replica) -> Result<Keyring, RenewalError> {
    let documents = replica.opened.store.documents();
    let device = &replica.bundle.device_age_key;
    let held = held_keys::read(replica.opened.store.shelf());
    Ok(Keyring::open(&replica.keys()?.board, &documents, device)?.holding(held, device))
}

/// Opens a batch into its lines with their sequences.
pub(crate) fn lines_of(batch: &Batch, keyring: &Keyring) -> Result<Vec<(u64, Vec<u8>)>, RenewalError> {
    let (header, log) = (batch.header(), batch.header().log);
    let key = keyring.opening(log.tier, header.epoch);
    let key = key.ok_or_else(|| keyring.missing(log.tier, header.epoch))?;
    let opened = open_lines(batch.payload(), key)
        .map_err(|source| RenewalError::Batch { log, source: Some(source) })?;
    let texts = opened.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    Ok((header.first..=header.last).zip(texts).collect())
}

async fn read(replica: &Replica, log: LogName, first: u64) -> Result<Batch, RenewalError> {
    let bytes = replica.opened.store.batch(log, first).await;
    let batch = bytes.and_then(|bytes| Batch::from_bytes(bytes).ok());
    batch.ok_or(RenewalError::Batch { log, source: None })
}

/// Takes over what is held of a peer's log beyond the head to which the cloud has it.
async fn carry_batches(
    old: &Replica,
    next: &Replica,
    log: LogName,
    here: &[BatchHeader],
    mut head: LogHead,
) -> Result<(), RenewalError> {
    for header in here.iter().filter(|header| header.first > head.sequence).collect::<Vec<_>>() {
        if !header.continues(&head) {
            log::error!(log = log.to_string(), after = head.sequence;
                "another history of a peer's log stays aside with this branch");
            break;
        }
        next.opened.store.store_batch(read(old, log, header.first).await?).await?;
        head = header.head();
    }
    Ok(())
}
