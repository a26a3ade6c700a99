//! The quarantine of a box: sealed batches of revoked devices that a courier brought, one file each, until the board
//! accepts or drops them.
//!
//! ```text
//! DATA/quarantine/TIER-INCARNATION-FIRST-LAST-HASH.batch
//! ```
//! **Invariant**: nothing of it is applied, and nothing else depends on it: a box without it lacks only what waits.
//! **Invariant**: bounded by [`QUARANTINE_BATCHES_MAX`] and [`QUARANTINE_BYTES_MAX`]; what is over stays with whoever
//! carries it, and is told as not taken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sonae_proto::batch::Batch;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::limits::QUARANTINE_BATCHES_MAX;
use sonae_proto::vector::{LogHead, Sequences};

use crate::data_dir::sync_dir;

/// Bytes of all batches in quarantine: a year of one school.
pub const QUARANTINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

const EXTENSION: &str = "batch";

/// Why a batch cannot be put into quarantine.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// There is too much there.
    #[error("the quarantine is full; keep the file, and have the board decide about what waits there")]
    Full,
    /// The disk.
    #[error("the quarantine in {} cannot be written", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A batch that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// Its log.
    pub log: LogName,
    /// Its first change.
    pub first: u64,
    /// Its last.
    pub last: u64,
    /// Its hash.
    pub hash: Hash32,
}

/// What waits of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct WaitingLog {
    /// The log.
    #[schema(value_type = String)]
    pub log: LogName,
    /// Batches.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// The last of them, as the board names it to accept or drop them.
    #[schema(value_type = Object)]
    pub head: LogHead,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Quarantine {
    dir: PathBuf,
}

impl Quarantine {
    /// Names the quarantine of a data directory. Nothing is made before something is kept.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { dir: data.join("quarantine") }
    }

    /// Keeps a batch. One that is there already is not written again.
    ///
    /// # Errors
    /// [`QuarantineError`].
    ///
    /// # Durability
    /// The batch is on stable storage when this returns.
    pub fn keep(&self, batch: &Batch) -> Result<(), QuarantineError> {
        let waiting = Waiting::of(batch);
        let path = self.path(&waiting);
        if path.exists() {
            return Ok(());
        }
        let bytes = u64::try_from(batch.bytes().len()).unwrap_or(u64::MAX);
        let (batches, held) = self.size();
        if batches >= QUARANTINE_BATCHES_MAX || held.saturating_add(bytes) > QUARANTINE_BYTES_MAX {
            return Err(QuarantineError::Full);
        }
        self.write(&path, batch.bytes()).map_err(|source| QuarantineError::Io { path, source })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        if let Some(above) = self.dir.parent() {
            sync_dir(above)?;
        }
        let staged = path.with_extension("part");
        let mut file = File::create(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        sync_dir(&self.dir)
    }

    fn size(&self) -> (usize, u64) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let bytes = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len());
        bytes.fold((0, 0_u64), |(count, sum), bytes| (count + 1, sum.saturating_add(bytes)))
    }

    /// Lists what is there, each log in order. A file with another name is passed over.
    #[must_use]
    pub fn list(&self) -> Vec<Waiting> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut found: Vec<Waiting> =
            entries.filter_map(|entry| Waiting::of_name(entry.file_name().to_str()?)).collect();
        found.sort_unstable();
        found
    }

    /// Adds up by log what waits and was not applied since.
    #[must_use]
    pub fn by_log(&self, applied: &Sequences) -> Vec<WaitingLog> {
        let mut logs: BTreeMap<LogName, WaitingLog> = BTreeMap::new();
        for one in self.list() {
            let (log, head) = (one.log, LogHead { sequence: one.last, hash: one.hash });
            if applied.get(&log).is_some_and(|sequence| *sequence >= one.last) {
                continue;
            }
            let place = logs.entry(log).or_insert(WaitingLog { log, batches: 0, changes: 0, head });
            place.batches += 1;
            place.changes += (one.last - one.first).saturating_add(1);
            if head.sequence >= place.head.sequence {
                place.head = head;
            }
        }
        logs.into_values().collect()
    }

    /// Reads one; `None` when it is gone or has rotted.
    #[must_use]
    pub fn read(&self, waiting: &Waiting) -> Option<Batch> {
        let batch = Batch::from_bytes(fs::read(self.path(waiting)).ok()?).ok()?;
        (Waiting::of(&batch) == *waiting).then_some(batch)
    }

    /// Removes one that is part of its log by now, or was dropped.
    pub fn remove(&self, waiting: &Waiting) {
        // What stays is passed over the next time.
        let _ = fs::remove_file(self.path(waiting));
    }

    fn path(&self, waiting: &Waiting) -> PathBuf {
        let Waiting { log, first, last, hash } = waiting;
        self.dir.join(format!("{}-{}-{first}-{last}-{hash}.{EXTENSION}", log.tier, log.incarnation))
    }
}

impl Waiting {
    fn of(batch: &Batch) -> Self {
        let header = batch.header();
        Self { log: header.log, first: header.first, last: header.last, hash: header.hash() }
    }

    fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split('-');
        let tier: Tier = parts.next()?.parse().ok()?;
        let incarnation = parts.next()?.parse().ok()?;
        let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let hash = parts.next()?.parse().ok()?;
        let log = LogName { tier, incarnation };
        (first <= last && parts.next().is_none()).then_some(Self { log, first, last, hash })
    }
}
