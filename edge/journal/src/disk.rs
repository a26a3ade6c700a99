//! The disk port: what the journal and the archive of batches ask of a file system, with the real body. The
//! simulated one is `sim`.
//!
//! **Invariant** Every byte that the journal reads or writes passes through these two traits.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

/// A file system, as the journal needs it.
pub trait Disk: Send + Sync + 'static {
    /// Creates the directory and its parents if they are missing, and makes their names durable.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Returns the names of the files in the directory, in no particular order.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Takes the exclusive lock on a file, which is created if it is missing; it is released on drop.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another handle has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Opens a file that exists for reading and writing.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file, or empties it if it exists. Its name is durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file. Durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in the directory durable.
    ///
    /// # Errors
    /// Whatever the operating system says; what is durable is then unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Returns how large the file system of a directory is and how much of it is free for this process.
    ///
    /// # Errors
    /// Whatever the operating system says; [`io::ErrorKind::Unsupported`] where nobody can tell.
    fn room(&self, _dir: &Path) -> io::Result<Room> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How large a file system is, and how much of it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the whole file system.
    pub total_bytes: u64,
    /// Bytes that this process may still take.
    pub free_bytes: u64,
}

/// An exclusive lock, released on drop.
pub trait DiskLock: Send + Sync {}

/// An open file, as the journal needs it.
pub trait DiskFile: Send + Sync {
    /// Returns the length in bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the buffer from the offset.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends first.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all bytes at the offset. Nothing is durable before [`DiskFile::sync_data`].
    ///
    /// # Errors
    /// Whatever the operating system says; any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file this long: cuts off what is behind, or adds zeros. Durable only after
    /// [`DiskFile::sync_data`].
    ///
    /// The journal itself never asks for this, so a disk on which nothing else lies may leave it out.
    ///
    /// # Errors
    /// Whatever the operating system says; [`io::ErrorKind::Unsupported`] where it was left out.
    fn set_bytes(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the contents durable, and of the metadata what is needed to read them: one device flush.
    ///
    /// # Errors
    /// Whatever the operating system says; what is durable is then unknown, also after another call.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes what can be read the same as what is durable: flushes, then forgets what is cached. After a failed
    /// flush the cache can hold bytes that never reached the device and never will.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn settle(&self) -> io::Result<()>;
}

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile(File);

struct RealLock(#[expect(dead_code, reason = "held for its lock, which the kernel releases on close")] File);

impl DiskLock for RealLock {}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = Some(dir);
        while let Some(path) = at {
            if path.as_os_str().is_empty() || path.exists() {
                break;
            }
            missing.push(path.to_path_buf());
            at = path.parent();
        }
        fs::create_dir_all(dir)?;
        for path in missing.iter().rev() {
            match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                _ => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        // What is kept here is for this account alone.
        Ok(Box::new(RealFile(options.mode(0o600).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn room(&self, dir: &Path) -> io::Result<Room> {
        let system = rustix::fs::statvfs(dir)?;
        // A file system that does not count answers with zeros.
        if system.f_blocks == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
        Ok(Room { total_bytes: bytes(system.f_blocks), free_bytes: bytes(system.f_bavail) })
    }
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn settle(&self) -> io::Result<()> {
        self.0.sync_data()?;
        fadvise(&self.0, 0, None, Advice::DontNeed)?;
        Ok(())
    }
}
