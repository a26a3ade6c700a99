//! The one file that names sled types: a derived key-value store that may be deleted at any time.
//!
//! sled 0.34.7 is used as a cache on disk and trusted for nothing: its `flush()` is no device flush, so the
//! files are flushed by path here; opening and iterating can panic on a torn file, so both are guarded.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::data_dir::sync_dir;
use crate::filling::NotYet;

/// Bytes of page cache. A school of 600 with a year of attendance has about 40 MiB of records; the hot part,
/// today and the roster, is far smaller.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Records that are copied at a time.
const COPIED_RECORDS: usize = 1_000;

/// Why the view cannot be read or written. Unless it is only not whole yet, the remedy is to delete and rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// sled failed or panicked.
    #[error("the view in {} cannot be {doing}; it is rebuilt at the next start", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// The system failed.
    #[error("the view in {} cannot be {doing}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A record in it has no meaning.
    #[error("a record of the view cannot be read; it is rebuilt at the next start")]
    Record,
    /// A rebuild has not brought all of it yet.
    #[error(transparent)]
    NotYet(#[from] NotYet),
}

/// A key and its record's bytes.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An open view.
#[derive(Debug)]
pub struct ViewDb {
    path: PathBuf,
    db: sled::Db,
    records: sled::Tree,
}

impl ViewDb {
    /// Opens or creates the view.
    ///
    /// # Errors
    /// [`ViewError::Broken`], also where sled panics.
    pub fn open(path: &Path) -> Result<Self, ViewError> {
        let broken = |doing| ViewError::Broken { path: path.to_owned(), doing };
        let io = |source| ViewError::Io { path: path.to_owned(), doing: "created", source };
        let is_new = !path.join("conf").exists();
        let opened = guarded(|| {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .mode(sled::Mode::LowSpace)
                .open()?;
            let records = db.open_tree("records")?;
            Ok((db, records))
        });
        let (db, records) = opened.ok_or_else(|| broken("opened"))?;
        if is_new {
            // Without this a power cut leaves a database that cannot be opened.
            File::open(path.join("conf")).and_then(|conf| conf.sync_all()).map_err(io)?;
            sync_dir(path).map_err(io)?;
        }
        Ok(Self { path: path.to_owned(), db, records })
    }

    /// Deletes the view's files.
    ///
    /// # Errors
    /// [`ViewError::Io`].
    pub fn delete(path: &Path) -> Result<(), ViewError> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ViewError::Io { path: path.to_owned(), doing: "deleted", source: error })
            }
            _ => Ok(()),
        }
    }

    /// Writes all records and the checkpoint's id to a new view: what was removed here is not in its files.
    ///
    /// # Errors
    /// [`ViewError`].
    ///
    /// # Durability
    /// The new view's files are on stable storage when this returns.
    pub fn copy_to(&self, path: &Path) -> Result<(), ViewError> {
        Self::delete(path)?;
        let new = Self::open(path)?;
        let checkpoint = self.checkpoint().ok_or_else(|| self.broken("read"))?;
        let mut after = Vec::new();
        loop {
            let page = self.scan_after(&[], &after, COPIED_RECORDS)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            new.put(page.iter().map(|(key, bytes)| (key.as_slice(), Some(bytes.clone()))))?;
        }
        new.write(&checkpoint, std::iter::empty())
    }

    /// Returns the id of the checkpoint that was written last.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        let id = guarded(|| self.db.get("checkpoint"))??;
        String::from_utf8(id.to_vec()).ok()
    }

    /// Reads a record's bytes.
    ///
    /// # Errors
    /// [`ViewError::Broken`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        guarded(|| self.records.get(key))
            .map(|found| found.map(|bytes| bytes.to_vec()))
            .ok_or_else(|| self.broken("read"))
    }

    /// Reads all records whose key begins with `prefix`, in key order.
    ///
    /// # Errors
    /// [`ViewError::Broken`].
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, ViewError> {
        guarded(|| {
            self.records
                .scan_prefix(prefix)
                .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect()
        })
        .ok_or_else(|| self.broken("read"))
    }

    /// Reads at most `limit` records whose key begins with `prefix` and lies behind `after`, in key order.
    ///
    /// # Errors
    /// [`ViewError::Broken`].
    pub fn scan_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Entry>, ViewError> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        guarded(|| {
            self.records
                .range::<&[u8], _>(behind)
                .take(limit)
                .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect::<sled::Result<Vec<Entry>>>()
        })
        .map(|entries| entries.into_iter().take_while(|(key, _)| key.starts_with(prefix)).collect())
        .ok_or_else(|| self.broken("read"))
    }

    /// Writes records, or removes those without bytes, and the checkpoint's id.
    ///
    /// # Errors
    /// [`ViewError`].
    ///
    /// # Durability
    /// Everything is on stable storage when this returns, and torn when the power goes before: the caller
    /// trusts it only if it has journalled `checkpoint` afterwards.
    pub fn write<'a>(
        &self,
        checkpoint: &str,
        records: impl Iterator<Item = (&'a [u8], Option<Vec<u8>>)>,
    ) -> Result<(), ViewError> {
        self.put(records)?;
        guarded(|| {
            self.db.insert("checkpoint", checkpoint.as_bytes())?;
            self.db.flush().map(|_| ())
        })
        .ok_or_else(|| self.broken("written"))?;
        self.flush_files().map_err(|source| ViewError::Io {
            path: self.path.clone(),
            doing: "flushed",
            source,
        })
    }

    fn put<'a>(&self, records: impl Iterator<Item = (&'a [u8], Option<Vec<u8>>)>) -> Result<(), ViewError> {
        guarded(|| {
            let mut batch = sled::Batch::default();
            for (key, value) in records {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            self.records.apply_batch(batch)
        })
        .ok_or_else(|| self.broken("written"))
    }

    /// sled keeps its file handle private, so its files are opened again by path and flushed.
    fn flush_files(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_data()?;
            }
        }
        let blobs = self.path.join("blobs");
        if blobs.is_dir() {
            for entry in fs::read_dir(&blobs)? {
                File::open(entry?.path())?.sync_data()?;
            }
            sync_dir(&blobs)?;
        }
        sync_dir(&self.path)
    }

    fn broken(&self, doing: &'static str) -> ViewError {
        ViewError::Broken { path: self.path.clone(), doing }
    }
}

/// Runs a sled operation; an error and a panic are one: the view is broken.
fn guarded<T>(operation: impl FnOnce() -> sled::Result<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(operation)).ok()?.ok()
}
