//! One process for one data directory.

use std::fs::File;
use std::path::Path;

/// Holds a data directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why a data directory cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("data directory {path} is in use by another process; stop that one or give another --data")]
    InUse {
        /// Which directory.
        path: String,
    },
    /// It cannot be made or opened.
    #[error("data directory {path} cannot be used; check that it exists and is writable")]
    Directory {
        /// Which directory.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl DataLock {
    /// Makes the directory when it is new, and locks it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let directory = |source| LockError::Directory { path: path.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(directory)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(directory)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                LockError::InUse { path: path.display().to_string() }
            } else {
                directory(error.into())
            }
        })?;
        Ok(Self { _file: file })
    }

    /// Whether some process holds the directory now.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        File::open(path.join("lock")).is_ok_and(|file| {
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a second holder is told so, and a released directory is free. Method: take, take, drop, take.
    #[test]
    fn one_directory_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataLock::take(directory.path()).unwrap();
        assert!(matches!(DataLock::take(directory.path()), Err(LockError::InUse { .. })));
        assert!(DataLock::is_held(directory.path()));
        drop(first);
        assert!(!DataLock::is_held(directory.path()));
        DataLock::take(directory.path()).unwrap();
    }
}
