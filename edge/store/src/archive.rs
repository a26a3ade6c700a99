//! Sealed batches that have left the journal: one append-only file for each log, batches end to end.
//!
//! **Invariant**: a batch is recycled out of the journal only after it and its file's name are durable here, so
//! whatever is unfinished at the end of a file still stands in the journal.
//! **Invariant**: what lies behind a file's last trusted batch is never read, and is cut off before the next is
//! written. A batch that the journal holds too is trusted only if both agree: a power cut may leave the right
//! length with sectors missing.
//! **Invariant**: a file that begins below its log's foundation is read as well as one that begins behind it: whatever
//! power does while the front is cut off, what lies behind is there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sonae_journal::{Disk, DiskFile};
use sonae_proto::batch::{BatchHeader, PREFIX_BYTES};
use sonae_proto::bytes::Reader;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::vector::{Heads, LogHead};

use crate::options::Defects;
use crate::store::StoreError;

/// How the name of a file ends that is to take the place of another.
const NEW: &str = ".new";

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1024 * 1024;

/// The file of one log.
struct LogFile {
    file: Box<dyn DiskFile>,
    /// Where its last trusted batch ends.
    end: u64,
    /// Whether its name is durable.
    is_named: bool,
}

/// The archive's directory.
pub(crate) struct Archive {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: BTreeMap<LogName, LogFile>,
    pub defects: Defects,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({})", self.dir.display())
    }
}

impl Archive {
    /// Opens the archive. Returns it with the headers of all batches, each log's in order, and their offsets.
    ///
    /// # Durability
    /// What was found is on stable storage: a cache may show what a failed flush has never written.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        defects: Defects,
        foundations: &Heads,
    ) -> Result<(Self, Vec<(BatchHeader, u64)>), StoreError> {
        let mut archive = Self { disk, dir: dir.to_owned(), files: BTreeMap::new(), defects };
        let mut found = Vec::new();
        archive.disk.create_dir(dir).map_err(|source| archive.failed("open", source))?;
        archive.disk.sync_dir(dir).map_err(|source| archive.failed("open", source))?;
        for name in archive.disk.list(dir).map_err(|source| archive.failed("list", source))? {
            if name.ends_with(NEW) {
                // A cut that was cut off. The whole file is there under its own name.
                let _ = archive.disk.remove(&dir.join(&name));
                continue;
            }
            let Some(log) = log_of(&name) else {
                log::warn!(name; "a file in the archive that is no log is passed over");
                continue;
            };
            let behind = foundations.get(&log).copied().unwrap_or(LogHead::EMPTY);
            let read = archive.read_log(log, behind, &mut found);
            let file = read.map_err(|source| archive.failed("read", source))?;
            archive.files.insert(log, file);
        }
        Ok((archive, found))
    }

    /// Reads the file of a log whose batches count from this head on. Those before it may still be there.
    fn read_log(
        &self,
        log: LogName,
        behind: LogHead,
        found: &mut Vec<(BatchHeader, u64)>,
    ) -> io::Result<LogFile> {
        let file = self.disk.open(&self.path(log))?;
        file.settle()?;
        let length = file.bytes()?;
        let (mut end, mut head) = (0, None);
        while let Some((header, after)) = header_at(file.as_ref(), end, length)? {
            let before = LogHead { sequence: header.first.saturating_sub(1), hash: header.previous };
            let is_pruned = header.last <= behind.sequence;
            let counts_from = head.unwrap_or(if is_pruned { before } else { behind });
            let reaches_another = header.last == behind.sequence && header.head() != behind;
            let straddles = !is_pruned && header.first <= behind.sequence;
            if header.log != log || !header.continues(&counts_from) || reaches_another || straddles {
                break;
            }
            if !is_pruned {
                found.push((header, end));
            }
            (end, head) = (after, Some(header.head()));
        }
        if end < length {
            log::warn!(kept = end, length; "what is unfinished at the end of an archive is not used");
        }
        Ok(LogFile { file, end, is_named: true })
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::Batches { doing, path: self.dir.clone(), source }
    }

    fn path(&self, log: LogName) -> PathBuf {
        self.dir.join(format!("{}-{}", log.incarnation, log.tier))
    }

    /// Appends batches of one log and returns their offsets. After an error nothing of it counts, and the same
    /// call may be made again: it writes all of it anew, because a failed flush leaves pages that no later flush
    /// would write.
    ///
    /// # Durability
    /// They are on stable storage when this returns.
    pub fn append(&mut self, log: LogName, batches: &[Vec<u8>]) -> Result<Vec<u64>, StoreError> {
        let appended = self.try_append(log, batches);
        appended.map_err(|source| self.failed("write", source))
    }

    fn try_append(&mut self, log: LogName, batches: &[Vec<u8>]) -> io::Result<Vec<u64>> {
        if !self.files.contains_key(&log) {
            let file = self.disk.create(&self.path(log))?;
            let is_named = self.defects.archive_name_unflushed();
            self.files.insert(log, LogFile { file, end: 0, is_named });
        }
        let Some(to) = self.files.get_mut(&log) else { return Err(io::ErrorKind::NotFound.into()) };
        let mut at = to.end;
        let length = to.file.bytes()?;
        if self.defects.archive_after_rest() {
            at = length;
        } else if length > at {
            to.file.set_bytes(at)?;
        }
        let mut offsets = Vec::with_capacity(batches.len());
        for bytes in batches {
            to.file.write_at(at, bytes)?;
            offsets.push(at);
            at += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        if !self.defects.archive_unflushed() {
            to.file.sync_data()?;
        }
        if !to.is_named {
            self.disk.sync_dir(&self.dir)?;
            to.is_named = true;
        }
        to.end = at;
        Ok(offsets)
    }

    /// Cuts a log's trusted part at an offset: what is behind is not read any more and is written over.
    pub fn distrust(&mut self, log: LogName, offset: u64) {
        if let Some(file) = self.files.get_mut(&log) {
            file.end = file.end.min(offset);
        }
    }

    /// Returns the logs that have a file.
    pub fn logs(&self) -> Vec<LogName> {
        self.files.keys().copied().collect()
    }

    /// Cuts off what lies before an offset; `None` stands for the whole file. Returns by how much offsets have become
    /// smaller. It takes as much room as what stays.
    ///
    /// # Errors
    /// [`StoreError::Batches`]; the file is then as it was.
    ///
    /// # Durability
    /// What stays is on stable storage before the old file gives way to it.
    pub fn cut_front(&mut self, log: LogName, offset: Option<u64>) -> Result<u64, StoreError> {
        let cut = self.try_cut_front(log, offset);
        cut.map_err(|source| self.failed("prune", source))
    }

    fn try_cut_front(&mut self, log: LogName, offset: Option<u64>) -> io::Result<u64> {
        let path = self.path(log);
        let Some(old) = self.files.get(&log) else { return Ok(0) };
        let offset = offset.unwrap_or(old.end);
        if offset == 0 {
            return Ok(0);
        }
        if offset >= old.end {
            self.files.remove(&log);
            self.disk.remove(&path)?;
            self.disk.sync_dir(&self.dir)?;
            return Ok(offset);
        }
        let new_path = self.dir.join(format!("{}-{}{NEW}", log.incarnation, log.tier));
        let new = self.disk.create(&new_path)?;
        copy(old.file.as_ref(), offset..old.end, new.as_ref())?;
        self.disk.rename(&new_path, &path)?;
        // Whatever the flush of the name says, this is the file of that name from here on; the next batch flushes again.
        let is_named = self.disk.sync_dir(&self.dir).is_ok();
        self.files.insert(log, LogFile { file: new, end: old.end - offset, is_named });
        Ok(offset)
    }

    /// Reads a batch's bytes.
    pub fn read(&self, header: &BatchHeader, offset: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; PREFIX_BYTES + usize::try_from(header.payload_bytes).unwrap_or(0)];
        let file = self.files.get(&header.log).ok_or(io::ErrorKind::NotFound.into());
        file.and_then(|log| log.file.read_at(offset, &mut bytes))
            .map_err(|source| self.failed("read", source))?;
        Ok(bytes)
    }

    /// Returns how many bytes of batches the archive has, by tier.
    pub fn bytes_by_tier(&self) -> BTreeMap<Tier, u64> {
        let mut bytes = BTreeMap::new();
        for (log, file) in &self.files {
            *bytes.entry(log.tier).or_default() += file.end;
        }
        bytes
    }
}

/// Copies a part of a file to the beginning of another, durably.
fn copy(from: &dyn DiskFile, part: std::ops::Range<u64>, to: &dyn DiskFile) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = part.start;
    while at < part.end {
        let left = usize::try_from(part.end - at).unwrap_or(COPY_BYTES);
        let some = buffer.get_mut(..left.min(COPY_BYTES)).unwrap_or_default();
        from.read_at(at, some)?;
        to.write_at(at - part.start, some)?;
        at += u64::try_from(some.len()).unwrap_or(u64::MAX);
    }
    to.sync_data()
}

/// Reads the log's name in a file's name.
fn log_of(name: &str) -> Option<LogName> {
    let (incarnation, tier) = name.rsplit_once('-')?;
    let log = LogName { tier: tier.parse().ok()?, incarnation: incarnation.parse().ok()? };
    (format!("{}-{}", log.incarnation, log.tier) == name).then_some(log)
}

fn header_at(file: &dyn DiskFile, offset: u64, length: u64) -> io::Result<Option<(BatchHeader, u64)>> {
    let mut prefix = [0; PREFIX_BYTES];
    let prefix_bytes = u64::try_from(PREFIX_BYTES).unwrap_or(u64::MAX);
    if offset.saturating_add(prefix_bytes) > length {
        return Ok(None);
    }
    file.read_at(offset, &mut prefix)?;
    let Ok(header) = BatchHeader::from_bytes(&mut Reader::new(&prefix)) else { return Ok(None) };
    let end = offset + prefix_bytes + u64::from(header.payload_bytes);
    Ok((end <= length).then_some((header, end)))
}
