//! One process for each seed, with its entropy told: who starts it, and how it knows that it was started so.
//!
//! **Invariant**: a run without told entropy is refused, so that no digest is taken for one that can be had again.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::Outcome;
use super::planted::Planted;
use super::time::BEGIN_MS;
use crate::program;

/// What is loaded into each process.
const ENTROPY: &str = include_str!("entropy.c");

/// Starts processes for seeds. What they leave behind goes with it.
#[derive(Debug)]
pub struct Ring {
    dir: PathBuf,
    library: PathBuf,
    program: PathBuf,
}

impl Ring {
    /// Builds what is loaded into each process.
    ///
    /// # Errors
    /// When there is no C compiler, or no folder for what runs leave behind.
    pub fn new() -> Result<Self> {
        // Memory where there is some: stores are thrown away after each run, and no power goes here.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = parent.join(format!("sonae-simnet-{}", short_name()));
        std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let ring = Self { library: dir.join("entropy.so"), program: program::find("sonae-chaos")?, dir };
        let source = ring.dir.join("entropy.c");
        std::fs::write(&source, ENTROPY)?;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&ring.library, &source])
            .arg("-ldl")
            .output()
            .context("cannot run the C compiler: install gcc and libc6-dev")?;
        ensure!(built.status.success(), "entropy.c: {}", String::from_utf8_lossy(&built.stderr));
        Ok(ring)
    }

    /// Runs a seed in a process of its own.
    ///
    /// # Errors
    /// When the process fails, which no seed can cause.
    pub fn run(&self, seed: u64, planted: Option<Planted>, keep_trace: bool) -> Result<Outcome> {
        let dir = self.dir.join(short_name());
        std::fs::create_dir(&dir)?;
        let mut command = Command::new(&self.program);
        command.args(["simnet", "--seed", &seed.to_string(), "--alone"]).arg(&dir);
        if let Some(planted) = planted {
            command.args(["--plant", &planted.name()]);
        }
        if keep_trace {
            command.arg("--trace");
        }
        let ran = command
            .env("LD_PRELOAD", &self.library)
            .env("SONAE_SIMNET_SEED", seed.to_string())
            .env("SONAE_SIMNET_WALL", (BEGIN_MS / 1_000).to_string())
            .output()
            .context("cannot start sonae-chaos")?;
        std::fs::remove_dir_all(&dir)?;
        if !ran.status.success() {
            bail!("seed {seed}: {}: {}", ran.status, String::from_utf8_lossy(&ran.stderr));
        }
        serde_json::from_slice(&ran.stdout).with_context(|| format!("seed {seed} has no outcome"))
    }
}

/// A name that is not there yet; short, because the names of sockets are.
fn short_name() -> String {
    uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect()
}

impl Drop for Ring {
    fn drop(&mut self) {
        // What stays behind is in memory or in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Whether this process was started by a [`Ring`]: its wall clock stands where that has put it.
pub(super) fn check() -> Result<()> {
    let told = UNIX_EPOCH + Duration::from_millis(BEGIN_MS);
    ensure!(SystemTime::now() == told, "entropy is not told here; leave out --alone");
    Ok(())
}
