//! A file system in memory that fails on purpose, mounted through FUSE under the real programs.
//!
//! It knows what would have been on stable storage at every moment. All controls are synchronous: when a call
//! returns, the next operation of any program meets the new state.
//!
//! Left out: permissions, times, memory maps that are written (sled and the journal have none), and room.

mod serve;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, MountOption};

pub use state::{Fault, Loss};
use state::{Shared, State};

/// Says what is missing here for such a file system, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("/dev/fuse is not there; load the module `fuse`".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("mounting without a helper takes root".into());
    }
    None
}

/// The file system, mounted or not. Unmounted when dropped.
#[derive(Debug)]
pub struct FaultFs {
    shared: Shared,
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl FaultFs {
    /// Makes an empty one and mounts it on a folder, which is made. Everything random follows from the seed.
    ///
    /// # Errors
    /// When the system does not mount it.
    pub fn mount(at: &Path, seed: u64) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let shared = Arc::new((Mutex::new(State::new(seed)), Condvar::new()));
        let mut made = Self { shared, at: at.to_owned(), session: None };
        made.mount_again()?;
        Ok(made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mount_again(&mut self) -> Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("sonae-fault".into())];
        let server = serve::Server(Arc::clone(&self.shared));
        let mounted = fuser::spawn_mount(server, &self.at, &config);
        self.session = Some(mounted.with_context(|| format!("cannot mount on {}", self.at.display()))?);
        Ok(())
    }

    /// Lets the power go now: every operation fails from here on.
    pub fn cut(&self) {
        self.state().is_off = true;
        self.shared.1.notify_all();
    }

    /// Lets the power go before the operation that comes after so many more.
    pub fn cut_after(&self, operations: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.operations.saturating_add(operations));
    }

    /// Lets the operation fail that comes after so many more, once.
    pub fn fail_after(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations.saturating_add(operations), fault));
    }

    /// Has flushes answer well and do nothing, or tell the truth again.
    pub fn set_lying(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// Makes each flush take longer.
    pub fn set_slow(&self, by: Duration) {
        self.state().slow_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    }

    /// Makes everything durable that can be read, as after a long quiet time.
    pub fn keep_all(&self) {
        self.state().keep_all();
    }

    /// Flips bits of a byte of a file, named by its folders and its name. Returns whether there is such a byte.
    /// The kernel may have the old one in its cache until the file is opened again.
    #[must_use]
    pub fn flip(&self, path: &[&str], offset: usize, mask: u8) -> bool {
        self.state().flip(path, offset, mask)
    }

    /// Returns how many operations have changed or flushed something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// Whether the fault that was asked for is still to come.
    #[must_use]
    pub fn is_fault_due(&self) -> bool {
        self.state().fault.is_some()
    }

    /// Waits until the power has gone, or at most so long. Returns whether it has.
    #[must_use]
    pub fn wait_off(&self, at_most: Duration) -> bool {
        let waited = self.shared.1.wait_timeout_while(self.state(), at_most, |state| !state.is_off);
        waited.map_or(true, |(state, _)| state.is_off)
    }

    /// Unmounts, decides what is left of what was not flushed, and mounts what is durable. All programs that used
    /// it must have ended.
    ///
    /// # Errors
    /// When the system does not unmount or mount it.
    pub fn power_cycle(&mut self, loss: Loss) -> Result<()> {
        self.cut();
        if let Some(session) = self.session.take() {
            session.umount_and_join().context("cannot unmount")?;
        }
        self.state().lose(loss);
        self.mount_again()
    }
}
