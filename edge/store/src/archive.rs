//! Sealed batches that have left the journal: one append-only file for each log, batches end to end.
//!
//! **Invariant**: a batch is recycled out of the journal only after it is durable here, so that an unfinished
//! batch at the end of a file still stands in the journal, and cutting it off loses nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sonae_proto::batch::{BatchHeader, PREFIX_BYTES};
use sonae_proto::bytes::Reader;
use sonae_proto::ids::LogName;

use crate::store::StoreError;

/// The archive's directory.
#[derive(Debug)]
pub(crate) struct Archive {
    dir: PathBuf,
}

impl Archive {
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let archive = Self { dir: dir.to_owned() };
        fs::create_dir_all(dir).map_err(|source| archive.failed("open", source))?;
        Ok(archive)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::Batches { doing, path: self.dir.clone(), source }
    }

    fn path(&self, log: LogName) -> PathBuf {
        self.dir.join(format!("{}-{}", log.incarnation, log.tier))
    }

    /// Reads the headers of all whole batches, with their offsets, and cuts off an unfinished last one.
    pub fn load(&self) -> Result<Vec<(BatchHeader, u64)>, StoreError> {
        let mut found = Vec::new();
        let read = |source| self.failed("read", source);
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let file =
                OpenOptions::new().read(true).write(true).open(entry.map_err(read)?.path()).map_err(read)?;
            let length = file.metadata().map_err(read)?.len();
            let mut offset = 0;
            while let Some((header, end)) = header_at(&file, offset, length).map_err(read)? {
                found.push((header, offset));
                offset = end;
            }
            if offset < length {
                log::warn!(kept = offset, length; "unfinished batch in the archive is cut off");
                file.set_len(offset).map_err(|source| self.failed("cut", source))?;
            }
        }
        Ok(found)
    }

    /// Appends batches of one log and returns their offsets.
    ///
    /// # Durability
    /// They are on stable storage when this returns.
    pub fn append(&self, log: LogName, batches: &[Vec<u8>]) -> Result<Vec<u64>, StoreError> {
        let write = |source| self.failed("write", source);
        let path = self.path(log);
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(write)?;
        let mut end = file.metadata().map_err(write)?.len();
        let mut offsets = Vec::with_capacity(batches.len());
        for bytes in batches {
            file.write_all(bytes).map_err(write)?;
            offsets.push(end);
            end += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        file.sync_data().map_err(write)?;
        if is_new {
            crate::data_dir::sync_dir(&self.dir).map_err(write)?;
        }
        Ok(offsets)
    }

    /// Reads a batch's bytes.
    pub fn read(&self, header: &BatchHeader, offset: u64) -> Result<Vec<u8>, StoreError> {
        let read = |source| self.failed("read", source);
        let file = File::open(self.path(header.log)).map_err(read)?;
        let mut bytes = vec![0; PREFIX_BYTES + usize::try_from(header.payload_bytes).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset).map_err(read)?;
        Ok(bytes)
    }

    /// Returns how many bytes the archive has.
    pub fn bytes(&self) -> u64 {
        let sizes = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        sizes.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

fn header_at(file: &File, offset: u64, length: u64) -> io::Result<Option<(BatchHeader, u64)>> {
    let mut prefix = [0; PREFIX_BYTES];
    let prefix_bytes = u64::try_from(PREFIX_BYTES).unwrap_or(u64::MAX);
    if offset + prefix_bytes > length {
        return Ok(None);
    }
    file.read_exact_at(&mut prefix, offset)?;
    let Ok(header) = BatchHeader::from_bytes(&mut Reader::new(&prefix)) else { return Ok(None) };
    let end = offset + prefix_bytes + u64::from(header.payload_bytes);
    Ok((end <= length).then_some((header, end)))
}
