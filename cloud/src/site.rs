//! A site: one independent place where objects are stored. Here a local directory with fsync.
//!
//! ```text
//! SITE/site.json                              {"format":"sonae/site/v1","id":"32 hexadecimal digits"}
//! SITE/objects/BOOT-ULID/00000000             objects, immutable, names never reused
//! SITE/objects/merged/HASH                    made of others
//! ```
//! **Invariant**: one directory never claims to be two sites: paths, ids and locks of all sites differ.
//! **Invariant**: when [`Site::put`] returns, file, directory and all directories above it are durable.
//! **Invariant**: nothing here replaces an object. Only [`crate::compaction`] deletes any.

mod directory;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use sonae_proto::planted::{Defect, is_planted};
use sonae_proto::receipt::SiteId;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::limits::{GET_TIMEOUT, MERGED_BYTES_MAX, MERGED_TIMEOUT, PUT_TIMEOUT, SITES_MAX, WRITES_LOOK};
use crate::object_name::{DIRECTORY, StoredName};
use directory::{mint, open_file, read_id, remove_leavings, sync_names};

/// Why a site cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The directory cannot be made, read or written.
    #[error("site {path}: {what} failed; check that the directory is mounted and writable")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// `site.json` has no meaning.
    #[error(
        "site {path}: site.json is damaged; restore it from a backup, or give this node another directory"
    )]
    Damaged {
        /// Which directory.
        path: PathBuf,
    },
    /// Another process has the site open.
    #[error("site {path} is in use by another process; stop that one first")]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// Two sites are one directory, or one is a copy of the other.
    #[error(
        "sites {first} and {second} are one and the same; give each site a directory on a disk of its own"
    )]
    Same {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Too few or too many.
    #[error(
        "{sites} sites with a quorum of {quorum} cannot work; give 1 to {SITES_MAX} sites and a quorum of at most that many"
    )]
    Count {
        /// Sites that were named.
        sites: usize,
        /// The quorum.
        quorum: usize,
    },
    /// Fewer sites than the quorum can be used.
    #[error("{usable} of {sites} sites can be used but the quorum is {quorum}; first fault: {first}")]
    Quorum {
        /// Sites that open.
        usable: usize,
        /// Sites that were named.
        sites: usize,
        /// The quorum.
        quorum: usize,
        /// The first fault.
        first: String,
    },
}

/// Why an object was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// It took too long; it may still finish, which does no harm.
    #[error("the site did not answer in time")]
    Timeout,
    /// An earlier write has not come back yet.
    #[error("an earlier write to the site has not come back")]
    Busy,
    /// The store said no.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// The names at the site cannot be made durable.
    #[error("the directory of the site cannot be flushed")]
    Names(#[from] std::io::Error),
    /// The object is larger than any that is written.
    #[error("the object is larger than {MERGED_BYTES_MAX} bytes")]
    TooLarge,
    /// The task that wrote it broke.
    #[error("the task of the write ended early")]
    Broken,
}

impl TransferError {
    /// Whether there is no object of that name.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }
}

impl SiteError {
    /// Returns the directory that it is about, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Directory { path, .. } | Self::Damaged { path } | Self::InUse { path } => {
                path.display().to_string()
            }
            Self::Same { first, .. } | Self::Quorum { first, .. } => first.clone(),
            Self::Count { .. } => String::new(),
        }
    }
}

/// An open site.
#[derive(Debug)]
pub struct Site {
    id: SiteId,
    label: String,
    directory: Option<PathBuf>,
    store: Arc<dyn ObjectStore>,
    /// One write at a time, so that a hanging disk holds one thread and not one for each group.
    writing: Arc<Semaphore>,
    /// The same for merged objects, which are larger: no batch waits for one of them.
    merging: Arc<Semaphore>,
    _lock: Option<File>,
}

impl Site {
    /// Opens a directory as a site, makes it and mints its id when it is new, and locks it.
    ///
    /// # Errors
    /// [`SiteError::Directory`], [`SiteError::Damaged`], [`SiteError::InUse`].
    ///
    /// # Durability
    /// The directory, `objects/` and everything that lies in them are durable by name when this returns: a
    /// process that was killed between writing and fsync may have left names that only the cache knew. What it was
    /// writing and had not named is gone.
    pub fn open(path: &Path) -> Result<Self, SiteError> {
        let fault = |what| move |source| SiteError::Directory { path: path.to_owned(), what, source };
        fs::create_dir_all(path.join(DIRECTORY)).map_err(fault("creating the directory"))?;
        let path = path.canonicalize().map_err(fault("finding the directory"))?;
        let fault = |what| {
            let path = path.clone();
            move |source| SiteError::Directory { path, what, source }
        };
        let file = match open_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                mint(&path).map_err(fault("writing site.json"))?;
                open_file(&path).map_err(fault("reading site.json"))?
            }
            Err(error) => return Err(fault("reading site.json")(error)),
        };
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SiteError::InUse { path: path.clone() })?;
        let id = read_id(&file).ok_or_else(|| SiteError::Damaged { path: path.clone() })?;
        remove_leavings(&path).map_err(fault("removing unfinished writes"))?;
        sync_names(&path).map_err(fault("fsync"))?;
        let store = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| fault("opening the store")(std::io::Error::other(error)))?
            .with_fsync(!is_planted(Defect::SiteNotFlushed));
        let label = path.display().to_string();
        Ok(Self { directory: Some(path), _lock: Some(file), ..Self::over(id, label, Arc::new(store)) })
    }

    /// Opens a directory for reading beside whatever uses it: nothing is locked, made or made durable, and a
    /// damaged `site.json` does not matter. Nothing must be put to such a site.
    ///
    /// # Errors
    /// [`SiteError::Directory`].
    pub fn open_to_read(path: &Path) -> Result<Self, SiteError> {
        let fault = |source| SiteError::Directory { path: path.to_owned(), what: "reading", source };
        fs::read_dir(path.join(DIRECTORY)).map_err(fault)?;
        let store =
            LocalFileSystem::new_with_prefix(path).map_err(|error| fault(std::io::Error::other(error)))?;
        let id = open_file(path).ok().and_then(|file| read_id(&file)).unwrap_or_default();
        Ok(Self::over(id, path.display().to_string(), Arc::new(store)))
    }

    /// Makes a site of any object store whose `put` is durable when it returns.
    #[must_use]
    pub fn over(id: SiteId, label: String, store: Arc<dyn ObjectStore>) -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { id, label, directory: None, store, writing: one(), merging: one(), _lock: None }
    }

    /// Returns its id.
    #[must_use]
    pub const fn id(&self) -> SiteId {
        self.id
    }

    /// Returns its id in hexadecimal.
    #[must_use]
    pub fn id_text(&self) -> String {
        HEXLOWER.encode(&self.id)
    }

    /// Returns where it is, for people.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Lists its objects in the order in which they were written, merged ones last.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn list(&self) -> Result<Vec<(StoredName, u64)>, TransferError> {
        let prefix = ObjectPath::from(DIRECTORY);
        let listing = self.store.list(Some(&prefix)).try_collect::<Vec<_>>();
        let listed = timeout(GET_TIMEOUT * 6, listing).await.map_err(|_| TransferError::Timeout)??;
        let mut found: Vec<_> = listed
            .iter()
            .filter_map(|meta| Some((StoredName::parse(meta.location.as_ref())?, meta.size)))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Writes a new object.
    ///
    /// # Errors
    /// [`TransferError`]; an object of that name is never replaced. A merged one that is there already is no error: who
    /// relies on it reads it back.
    ///
    /// # Durability
    /// The object and its name are on stable storage when this returns `Ok`. The store fsyncs the file before
    /// it is named, its directory after, and the directories that it had to make up to the first that was
    /// there; [`Site::open`] has seen to those above.
    pub async fn put(&self, name: impl Into<StoredName>, body: Bytes) -> Result<(), TransferError> {
        let name = name.into();
        let (place, patience, is_merged) = match name {
            StoredName::Written(_) => (&self.writing, PUT_TIMEOUT, false),
            StoredName::Merged(_) => (&self.merging, MERGED_TIMEOUT, true),
        };
        let permit = Arc::clone(place).try_acquire_owned().map_err(|_| TransferError::Busy)?;
        let (store, path) = (Arc::clone(&self.store), name.path());
        let write = tokio::spawn(async move {
            let outcome = store.put_opts(&path, PutPayload::from_bytes(body), PutMode::Create.into()).await;
            drop(permit);
            outcome
        });
        let outcome = timeout(patience, write).await.map_err(|_| TransferError::Timeout)?;
        match outcome.map_err(|_| TransferError::Broken)? {
            Err(object_store::Error::AlreadyExists { .. }) if is_merged => Ok(()),
            outcome => Ok(outcome.map(|_| ())?),
        }
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`TransferError`]; more than [`MERGED_BYTES_MAX`] is not read.
    pub async fn get(&self, name: impl Into<StoredName>) -> Result<Bytes, TransferError> {
        let path = name.into().path();
        let read = async {
            let found = self.store.get(&path).await?;
            if found.meta.size > MERGED_BYTES_MAX {
                return Err(TransferError::TooLarge);
            }
            Ok(found.bytes().await?)
        };
        timeout(MERGED_TIMEOUT, read).await.map_err(|_| TransferError::Timeout)?
    }

    /// Deletes an object. One that is not there is no error.
    ///
    /// # Errors
    /// [`TransferError`].
    ///
    /// # Durability
    /// After a loss of power it may be there again, unless [`Self::settle`] came after it.
    pub(crate) async fn delete(&self, name: &StoredName) -> Result<(), TransferError> {
        let path = name.path();
        match timeout(PUT_TIMEOUT, self.store.delete(&path)).await.map_err(|_| TransferError::Timeout)? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until no write is under way, not even one that was given up, so that none of them names an object later.
    ///
    /// # Errors
    /// [`TransferError`].
    ///
    /// # Durability
    /// What was deleted before is not there again after a loss of power.
    pub(crate) async fn settle(&self) -> Result<(), TransferError> {
        let idle = async {
            while [&self.writing, &self.merging].iter().any(|place| place.available_permits() == 0) {
                sleep(WRITES_LOOK).await;
            }
        };
        timeout(MERGED_TIMEOUT, idle).await.map_err(|_| TransferError::Busy)?;
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let synced =
            spawn_blocking(move || sync_names(&directory)).await.map_err(|_| TransferError::Broken)?;
        Ok(synced?)
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn get_part(&self, object: &str, offset: u64, bytes: u64) -> Result<Bytes, TransferError> {
        let path = ObjectPath::from(object);
        let read = self.store.get_range(&path, offset..offset.saturating_add(bytes));
        Ok(timeout(GET_TIMEOUT, read).await.map_err(|_| TransferError::Timeout)??)
    }
}

/// Opens the sites of a node. Returns those that work and the faults of those that do not.
///
/// # Errors
/// [`SiteError::Count`], [`SiteError::Same`]; [`SiteError::Quorum`] when fewer than `quorum` work.
pub fn open_all(paths: &[PathBuf], quorum: usize) -> Result<(Vec<Site>, Vec<SiteError>), SiteError> {
    if quorum == 0 || paths.len() < quorum || paths.len() > SITES_MAX {
        return Err(SiteError::Count { sites: paths.len(), quorum });
    }
    let same = |first: String, second: String| Err(SiteError::Same { first, second });
    let mut open: Vec<Site> = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        // The path first: its own lock would make a directory that is named twice look busy. It is made before
        // that, for a path may lead over a directory that is not there yet; opening reports what fails here.
        let _ = fs::create_dir_all(path);
        let canonical = path.canonicalize().ok();
        let twin = open.iter().find(|site| site.directory.is_some() && site.directory == canonical);
        if let Some(twin) = twin {
            return same(twin.label.clone(), path.display().to_string());
        }
        match Site::open(path) {
            Ok(site) => {
                if let Some(twin) = open.iter().find(|other| other.id == site.id) {
                    return same(twin.label.clone(), site.label);
                }
                open.push(site);
            }
            Err(fault) => faults.push(fault),
        }
    }
    match faults.first() {
        Some(first) if open.len() < quorum => {
            let first = first.to_string();
            Err(SiteError::Quorum { usable: open.len(), sites: paths.len(), quorum, first })
        }
        _ => Ok((open, faults)),
    }
}
