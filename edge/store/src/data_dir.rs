//! The data directory: what lies where, and the lock that keeps a second process out.
//!
//! ```text
//! DATA/lock              held by the one process that may write here
//! DATA/enrolment.json    0600: device keys, LAN key, certificates, as the board's bundle brought them
//! DATA/incarnation.json  0600: the key that signs this life's batches
//! DATA/journal/          the truth
//! DATA/batches/          sealed batches that have left the journal
//! DATA/snapshots/        roots and sealed parts of snapshots
//! DATA/view/             derived; may be deleted at any time
//! DATA/rebuilding        a rebuild has begun here and not ended; which tiers are usable
//! DATA/control.sock      commands to the running daemon
//! DATA/courier.sock      bundles to and from the running daemon
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The file that says that a rebuild has begun here and not ended, and what is usable already.
pub const REBUILDING: &str = "rebuilding";

/// What an enrolment leaves that was cut off before its last file. A directory with nothing else counts as
/// empty.
const UNFINISHED: [&str; 4] = ["lock", "incarnation.json", REBUILDING, "rebuilding.new"];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("{} is in use by another process; stop it, or let the command reach it through its control socket", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It is not there or not accessible.
    #[error("cannot use the data directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It holds another replica already.
    #[error("{} already holds a replica; choose an empty directory, so that nothing is overwritten, or start what is there with `sonae-edge run`", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// It holds no replica.
    #[error("{} holds no replica; run `sonae-edge enrol --data {}` first", path.display(), path.display())]
    NotEnrolled {
        /// The directory.
        path: PathBuf,
    },
}

/// A data directory that this process alone may write. Unlocked when dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens a directory that holds a replica.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        if !path.join("enrolment.json").exists() {
            return Err(DataDirError::NotEnrolled { path: path.to_owned() });
        }
        Self::lock(path)
    }

    /// Makes a directory for a new replica. An existing one must be empty.
    ///
    /// # Errors
    /// [`DataDirError`].
    ///
    /// # Durability
    /// The directory and those above it that were missing have durable names when this returns; without them a
    /// power cut would take everything that is ever kept inside.
    pub fn create(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        if path.exists() {
            for entry in fs::read_dir(path).map_err(io)? {
                let name = entry.map_err(io)?.file_name();
                if !UNFINISHED.iter().any(|left| name == *left) {
                    return Err(DataDirError::Occupied { path: path.to_owned() });
                }
            }
        }
        let missing = path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        // The last one also where it was there: whoever made it may have been cut off before this.
        for named in missing.iter().map(PathBuf::as_path).rev().chain([path]) {
            let above = named.parent().filter(|above| !above.as_os_str().is_empty());
            sync_dir(above.unwrap_or(Path::new("."))).map_err(io)?;
        }
        // Also where the directory was there before: nobody else reads what is kept here.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io)?;
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(error) => Err(io(error.into())),
        }
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the journal lies.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Returns where sealed batches lie.
    #[must_use]
    pub fn batches(&self) -> PathBuf {
        self.path.join("batches")
    }

    /// Returns where snapshots lie.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Returns where the derived view lies.
    #[must_use]
    pub fn view(&self) -> PathBuf {
        self.path.join("view")
    }
}

/// Returns where a daemon's control socket lies.
#[must_use]
pub fn control_socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Makes a directory's entries durable.
///
/// # Errors
/// Those of the system.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: one writer. Method: lock twice, then again after the first is gone.
    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::create(&path).unwrap();
        fs::write(path.join("enrolment.json"), "{}").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse { .. })));
        drop(first);
        DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::create(&path), Err(DataDirError::Occupied { .. })));
    }
}
