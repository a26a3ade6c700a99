//! A small file system in memory, real to the programs, that somebody else fills: statfs, ENOSPC and all.
//!
//! It knows nothing of power; `fault_fs` does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Bytes of zeros written at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A mounted file system. Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

/// Says what is missing here for such a file system, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "mounting takes root".into())
}

impl SmallDisk {
    /// Mounts one of so many bytes on a folder, which is made.
    ///
    /// # Errors
    /// When the system does not mount it.
    pub fn mount(at: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={bytes},mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "sonae-small"]).arg(at).status();
        if !mounted.context("cannot run mount")?.success() {
            bail!("cannot mount a small file system on {}", at.display());
        }
        Ok(Self { at: at.to_owned() })
    }

    /// Returns the bytes that are free.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn free_bytes(&self) -> Result<u64> {
        let system = rustix::fs::statvfs(&self.at)?;
        Ok(system.f_bavail * system.f_frsize)
    }

    /// Has somebody else take everything but so many bytes, or give back until so many are free. With 0 it takes every
    /// single page.
    ///
    /// # Errors
    /// When the system fails otherwise than for lack of room.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let path = self.at.join("somebody-elses");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let (free, held) = (self.free_bytes()?, file.metadata()?.len());
        if free < bytes {
            return Ok(file.set_len(held.saturating_sub(bytes - free))?);
        }
        let mut wanted = free - bytes;
        while wanted > 0 || bytes == 0 {
            let piece = if bytes == 0 { PIECE_BYTES } else { PIECE_BYTES.min(usize::try_from(wanted)?) };
            match file.write_all(&vec![0xA5; piece]) {
                Ok(()) => wanted = wanted.saturating_sub(u64::try_from(piece)?),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether not a single page can be written any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let path = self.at.join("one-more");
        let wrote = File::create(&path).and_then(|mut file| file.write_all(&[1; 4096]));
        // It may not have been made.
        let _ = fs::remove_file(&path);
        wrote.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A program that was killed may hold it for a moment; it goes when that is gone.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
