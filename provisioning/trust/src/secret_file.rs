//! Files of secrets: written whole or not at all, readable by their owner alone.
//!
//! **Invariants**
//! - A file has mode 0600 before its first byte, and at no time a reader sees half of it.
//! - A file that others could have read or changed is refused, with the command that mends it.
//! - [`create`] never replaces: the only copy of an authority's key cannot be lost to a second run.
//!
//! A crash can leave a temporary file `.NAME.RANDOM.tmp` beside the target, with mode 0600; it is safe
//! to delete.
//!
//! **Left out:** encryption at rest, and who the owner is: a process that runs as root also reads files
//! of others. File systems without modes (a USB stick with FAT) are refused.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::entropy::{Entropy, EntropyError};

/// Largest file of secrets, bytes: an enrolment with wrapped keys for hundreds of readers has below 2 MiB, keys
/// and passphrases below 10 KiB.
pub const SECRET_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Owner reads and writes, nobody else.
const MODE: u32 = 0o600;

/// Bits of a mode that let anybody but the owner in.
const MODE_OTHERS: u32 = 0o077;

/// Writes a new file of secrets; an existing one stays as it is.
///
/// # Errors
/// [`SecretFileError::Exists`], [`SecretFileError::Size`], [`SecretFileError::Mode`],
/// [`SecretFileError::Io`], [`SecretFileError::Entropy`].
///
/// # Durability
/// File and directory are synchronised when this returns `Ok`.
pub fn create(path: &Path, secret: &[u8], entropy: &mut dyn Entropy) -> Result<(), SecretFileError> {
    let temporary = Temporary::write(path, secret, entropy)?;
    // A link, unlike a rename, fails when the name is taken.
    fs::hard_link(&temporary.path, path).map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            SecretFileError::Exists { path: path.to_owned() }
        } else {
            io_error("create", path)(source)
        }
    })?;
    drop(temporary);
    sync_directory(path)
}

/// Writes a file of secrets in place of what is there, atomically.
///
/// # Errors
/// [`SecretFileError::Size`], [`SecretFileError::Mode`], [`SecretFileError::Io`],
/// [`SecretFileError::Entropy`]; the old file is whole then, unless the last synchronisation failed, in
/// which case either may be there after a crash.
///
/// # Durability
/// File and directory are synchronised when this returns `Ok`.
pub fn replace(path: &Path, secret: &[u8], entropy: &mut dyn Entropy) -> Result<(), SecretFileError> {
    let mut temporary = Temporary::write(path, secret, entropy)?;
    fs::rename(&temporary.path, path).map_err(io_error("replace", path))?;
    temporary.is_moved = true;
    sync_directory(path)
}

/// Reads a file of secrets.
///
/// # Errors
/// [`SecretFileError::Exposed`] when group or others have any right to it, [`SecretFileError::Size`]
/// when it is empty or too large, [`SecretFileError::NotAFile`], [`SecretFileError::Io`].
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    // Before opening: opening a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(io_error("read", path))?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(io_error("read", path))?;
    // Of the opened file, which is the one that is read, whatever the name points at by now.
    let mode = file.metadata().map_err(io_error("read", path))?.permissions().mode();
    if mode & MODE_OTHERS != 0 {
        return Err(SecretFileError::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    // Room for all of it at once: growing would leave copies behind that nobody wipes.
    let mut secret = Zeroizing::new(Vec::with_capacity(SECRET_FILE_BYTES_MAX + 1));
    let bytes_max = u64::try_from(SECRET_FILE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    file.take(bytes_max).read_to_end(&mut secret).map_err(io_error("read", path))?;
    check_size(path, secret.len())?;
    Ok(secret)
}

/// A written and synchronised file beside its target; deleted unless it was moved there.
struct Temporary {
    path: PathBuf,
    is_moved: bool,
}

impl Temporary {
    fn write(target: &Path, secret: &[u8], entropy: &mut dyn Entropy) -> Result<Self, SecretFileError> {
        check_size(target, secret.len())?;
        let name = target.file_name().ok_or_else(|| SecretFileError::NotAFile { path: target.to_owned() })?;
        let mut random = [0u8; 8];
        entropy.fill(&mut random)?;
        let mut temporary_name = OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(".{}.tmp", data_encoding::HEXLOWER.encode(&random)));
        let path = target.with_file_name(temporary_name);

        let error = || io_error("write", &path);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path).map_err(error())?;
        let temporary = Self { path: path.clone(), is_moved: false };
        // The mask of the process can take rights away, and a file system can ignore the mode.
        file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(error())?;
        let mode = file.metadata().map_err(error())?.permissions().mode();
        if mode & 0o777 != MODE {
            return Err(SecretFileError::Mode { path: target.to_owned() });
        }
        file.write_all(secret).map_err(error())?;
        file.sync_all().map_err(error())?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_moved {
            // Nothing more can be done here; what stays behind has mode 0600.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn check_size(path: &Path, bytes: usize) -> Result<(), SecretFileError> {
    if (1..=SECRET_FILE_BYTES_MAX).contains(&bytes) {
        Ok(())
    } else {
        Err(SecretFileError::Size { path: path.to_owned() })
    }
}

fn sync_directory(path: &Path) -> Result<(), SecretFileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error("synchronise", parent))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretFileError {
    let path = path.to_owned();
    move |source| SecretFileError::Io { what, path, source }
}

/// Why a file of secrets could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The name is taken.
    #[error("{} exists and is kept: move it away first, if it is really not needed", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Group or others have rights to the file.
    #[error(
        "{} is open to others (mode {mode:04o}), so its secret may be known: consider replacing it, and run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode, permission bits only.
        mode: u32,
    },
    /// The file system does not keep the mode.
    #[error("{} would be open to others on this file system: choose a directory on an internal disk", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
    },
    /// Empty or larger than [`SECRET_FILE_BYTES_MAX`].
    #[error("{} must have 1 to {SECRET_FILE_BYTES_MAX} bytes: check that it is the right file", path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a pipe, a device, or no name at all.
    #[error("{} is not a regular file: give the path of a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("could not {what} {}: check that its directory exists, is writable and has space", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No random bytes for the temporary name.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::{Dry, Seeded};

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Goal: what is written reads back, with mode 0600 and nothing left beside it. Method: create,
    /// replace, list the directory.
    #[test]
    fn create_replace_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority.key");
        let mut entropy = Seeded::new(1);
        create(&path, b"one", &mut entropy).unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"one");
        replace(&path, b"two", &mut entropy).unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(names_in(directory.path()), ["authority.key"]);
    }

    /// Goal: create never replaces. Method: create twice; the first content stays, nothing is left over.
    #[test]
    fn create_keeps_what_exists() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority.key");
        let mut entropy = Seeded::new(2);
        create(&path, b"first", &mut entropy).unwrap();
        let error = create(&path, b"second", &mut entropy).unwrap_err();
        assert!(matches!(error, SecretFileError::Exists { .. }), "{error}");
        assert_eq!(read(&path).unwrap().as_slice(), b"first");
        assert_eq!(names_in(directory.path()), ["authority.key"]);
    }

    /// Goal: a file that others can touch is refused, and the message says what to type. Method: each
    /// bit of group and others alone.
    #[test]
    fn exposed_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path, b"secret", &mut Seeded::new(3)).unwrap();
        for bit in 0..6 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | (1 << bit))).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.ends_with(&format!("run: chmod 600 {}", path.display())), "{message}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"secret");
    }

    /// Goal: sizes are bounded on both sides, when writing and when reading. Method: the bounds and one
    /// beyond; nothing is left over.
    #[test]
    fn sizes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let mut entropy = Seeded::new(4);
        let too_many = vec![1; SECRET_FILE_BYTES_MAX + 1];
        for bytes in [&[][..], too_many.as_slice()] {
            let outcome = create(&path, bytes, &mut entropy);
            assert!(matches!(outcome, Err(SecretFileError::Size { .. })));
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            assert!(matches!(read(&path), Err(SecretFileError::Size { .. })));
            fs::remove_file(&path).unwrap();
        }
        replace(&path, &too_many[1..], &mut entropy).unwrap();
        assert_eq!(read(&path).unwrap().len(), SECRET_FILE_BYTES_MAX);
        assert_eq!(names_in(directory.path()), ["key"]);
    }

    /// Goal: failures name the file and leave nothing. Method: no directory, a directory as file, no
    /// entropy, a target that is a directory.
    #[test]
    fn failures() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none").join("key");
        let mut entropy = Seeded::new(5);
        assert!(matches!(create(&missing, b"x", &mut entropy), Err(SecretFileError::Io { .. })));
        assert!(matches!(read(&missing), Err(SecretFileError::Io { .. })));
        assert!(matches!(read(directory.path()), Err(SecretFileError::NotAFile { .. })));
        let key = directory.path().join("key");
        assert!(matches!(create(&key, b"x", &mut Dry), Err(SecretFileError::Entropy(_))));
        let taken = directory.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(matches!(replace(&taken, b"x", &mut entropy), Err(SecretFileError::Io { .. })));
        assert_eq!(names_in(directory.path()), ["taken"]);
    }
}
