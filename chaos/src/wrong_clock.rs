//! A clock that shows another time to one machine's programs, by `libfaketime`; it can jump while they run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Says what is missing here for wrong clocks, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    library().is_none().then(|| "`libfaketime` is missing; `make setup` installs it".into())
}

/// The library lies in a folder that is named after the processor.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let paths = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    paths.into_iter().find(|path| path.exists())
}

/// A clock of one machine.
#[derive(Debug)]
pub struct WrongClock {
    file: PathBuf,
}

impl WrongClock {
    /// Makes a clock that is right.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn make(file: &Path) -> Result<Self> {
        let clock = Self { file: file.to_owned() };
        clock.set_days(0)?;
        Ok(clock)
    }

    /// Shows a time so many days away from the right one, from the next look on.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_days(&self, days: i64) -> Result<()> {
        // Whoever looks finds the old time or the new one, never half a file.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{days:+}d\n")).context("cannot set a clock")?;
        std::fs::rename(&next, &self.file).context("cannot set a clock")
    }

    /// What a program needs in its environment to see this clock. Steady time stays as it is.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let Some(library) = library() else { return Vec::new() };
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Drop for WrongClock {
    fn drop(&mut self) {
        forget_the_dead();
    }
}

/// Removes what the library leaves in shared memory of processes that were killed: it removes it only when one ends.
fn forget_the_dead() {
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let id = name.strip_prefix("faketime_shm_").or_else(|| name.strip_prefix("sem.faketime_sem_"));
        let is_dead = id
            .and_then(|id| id.parse::<u32>().ok())
            .is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists());
        if is_dead {
            // Another run may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
