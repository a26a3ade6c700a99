//! Durable file operations on the board's directory, one of which can be told to be the last.
//!
//! **Invariants**
//! - What is new is written whole and synchronised before a rename makes it count.
//! - Files have mode 0600 and directories 0700, the public ones too: nobody else has business here.
//! - Unfinished things are named `.NAME.unfinished`, and nothing else is.
//!
//! **Left out**: secrets, which `sonae_trust::secret_file` writes; they pass through here to be counted.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::secret_file;

use crate::error::ProvisionError;

/// Mode of all directories.
const DIRECTORY_MODE: u32 = 0o700;

/// Mode of all files.
const FILE_MODE: u32 = 0o600;

/// The disk, which can die after a number of operations as a killed process would.
#[derive(Debug, Default)]
pub struct Disk {
    /// Operations that were begun.
    operations: Cell<u64>,
    /// After how many operations everything fails, tidying up included.
    cut_after: Option<u64>,
}

impl Disk {
    /// Returns the disk as it is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a disk that does `operations` operations and fails from then on: what it leaves behind is what
    /// a process leaves that is killed there. For tests.
    #[must_use]
    pub fn cut_after(operations: u64) -> Self {
        Self { operations: Cell::new(0), cut_after: Some(operations) }
    }

    /// Returns how many changing operations were begun.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.get()
    }

    fn step(&self, what: &'static str, path: &Path) -> Result<(), ProvisionError> {
        if self.cut_after.is_some_and(|last| self.operations.get() >= last) {
            let source = io::Error::other("cut here by a test");
            return Err(ProvisionError::io(what, path)(source));
        }
        self.operations.set(self.operations.get() + 1);
        Ok(())
    }

    /// Makes a directory, or makes an existing one private.
    ///
    /// # Errors
    /// [`ProvisionError::Io`].
    pub fn make_directory(&self, path: &Path) -> Result<(), ProvisionError> {
        const WHAT: &str = "make the directory";
        self.step(WHAT, path)?;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other.map_err(ProvisionError::io(WHAT, path))?,
        }
        fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE))
            .map_err(ProvisionError::io(WHAT, path))?;
        synchronise(parent(path))
    }

    /// Writes a new file of secrets.
    ///
    /// # Errors
    /// [`ProvisionError::SecretFile`]; an existing file stays.
    ///
    /// # Durability
    /// File and directory are synchronised.
    pub fn write_secret(&self, path: &Path, content: &[u8]) -> Result<(), ProvisionError> {
        self.step("write", path)?;
        Ok(secret_file::create(path, content, &mut SystemEntropy)?)
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// [`ProvisionError::OutExists`] when there is one, [`ProvisionError::Io`]; a part of it can be there.
    ///
    /// # Durability
    /// File and directory are synchronised.
    pub fn write_new(&self, path: &Path, content: &[u8]) -> Result<(), ProvisionError> {
        const WHAT: &str = "write";
        self.step(WHAT, path)?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ProvisionError::OutExists { path: path.to_owned() });
            }
            other => other.map_err(ProvisionError::io(WHAT, path))?,
        };
        file.write_all(content).and_then(|()| file.sync_all()).map_err(ProvisionError::io(WHAT, path))?;
        synchronise(parent(path))
    }

    /// Writes a file in place of what is there, whole or not at all.
    ///
    /// # Errors
    /// [`ProvisionError::Io`].
    ///
    /// # Durability
    /// File and directory are synchronised.
    pub fn replace(&self, path: &Path, content: &[u8]) -> Result<(), ProvisionError> {
        let temporary = unfinished(path);
        self.write_new(&temporary, content)?;
        self.step("replace", path)?;
        fs::rename(&temporary, path).map_err(ProvisionError::io("replace", path))?;
        synchronise(parent(path))
    }

    /// Gives a finished directory its name, which nobody has.
    ///
    /// # Errors
    /// [`ProvisionError::Io`]; both are as before then, unless the last synchronisation failed.
    ///
    /// # Durability
    /// The name is on stable storage.
    pub fn publish(&self, from: &Path, to: &Path) -> Result<(), ProvisionError> {
        self.rename(from, to, RenameFlags::NOREPLACE)
    }

    /// Exchanges two directories in one step.
    ///
    /// # Errors
    /// [`ProvisionError::Io`]; both are as before then, unless the last synchronisation failed. NFS and old
    /// ZFS cannot do it.
    ///
    /// # Durability
    /// Both names are on stable storage.
    ///
    /// # Source
    /// renameat2(2), `RENAME_EXCHANGE`.
    pub fn exchange(&self, one: &Path, two: &Path) -> Result<(), ProvisionError> {
        self.rename(one, two, RenameFlags::EXCHANGE)
    }

    fn rename(&self, from: &Path, to: &Path, flags: RenameFlags) -> Result<(), ProvisionError> {
        const WHAT: &str = "put the new state in place of";
        self.step(WHAT, to)?;
        renameat_with(CWD, from, CWD, to, flags)
            .map_err(|error| ProvisionError::io(WHAT, to)(error.into()))?;
        synchronise(parent(to))
    }

    /// Removes a file or a directory with all that is in it.
    ///
    /// # Errors
    /// [`ProvisionError::Io`]; what is not there is removed already.
    ///
    /// # Durability
    /// It is gone from stable storage.
    pub fn remove(&self, path: &Path) -> Result<(), ProvisionError> {
        const WHAT: &str = "remove";
        self.step(WHAT, path)?;
        let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(ProvisionError::io(WHAT, path)),
        }?;
        synchronise(parent(path))
    }

    /// Removes what an interrupted run left in a directory.
    ///
    /// # Errors
    /// [`ProvisionError::Io`].
    pub fn remove_unfinished(&self, directory: &Path) -> Result<(), ProvisionError> {
        for name in names_in(directory)? {
            if name.starts_with('.') && name.ends_with(".unfinished") {
                self.remove(&directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Returns where `path` is written until it is finished: beside it.
#[must_use]
pub fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.unfinished"))
}

/// Lists the names in a directory, in order.
///
/// # Errors
/// [`ProvisionError::Io`].
pub fn names_in(directory: &Path) -> Result<Vec<String>, ProvisionError> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let mut names = list().map_err(ProvisionError::io("list", directory))?;
    names.sort();
    Ok(names)
}

/// Reads a public file.
///
/// # Errors
/// [`ProvisionError::Io`], [`ProvisionError::Damaged`] when it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ProvisionError> {
    String::from_utf8(read(path)?)
        .map_err(|_| ProvisionError::Damaged { path: path.to_owned(), what: "not text in UTF-8" })
}

/// Reads a public file of bytes.
///
/// # Errors
/// [`ProvisionError::Io`].
pub fn read(path: &Path) -> Result<Vec<u8>, ProvisionError> {
    fs::read(path).map_err(ProvisionError::io("read", path))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn synchronise(directory: &Path) -> Result<(), ProvisionError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(ProvisionError::io("synchronise", directory))
}
