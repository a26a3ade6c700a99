//! Control groups (version 1) with a bound on memory and processor time, one for each machine of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where the controllers are mounted.
const MOUNTED: &str = "/sys/fs/cgroup";

/// Microseconds in which a processor's share is counted.
const PERIOD_US: u64 = 100_000;

/// Says what is missing here for control groups, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    let is_there = |controller: &str| Path::new(MOUNTED).join(controller).join("cgroup.procs").exists();
    let controller = ["memory", "cpu"].into_iter().find(|controller| !is_there(controller))?;
    Some(format!("there is no control group `{controller}` of version 1"))
}

/// A control group, taken away when dropped.
#[derive(Debug)]
pub struct Group {
    memory: PathBuf,
    cpu: PathBuf,
}

impl Group {
    /// Makes one without bounds.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn make(name: &str) -> Result<Self> {
        let [memory, cpu] =
            ["memory", "cpu"].map(|controller| Path::new(MOUNTED).join(controller).join(name));
        for path in [&memory, &cpu] {
            std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self { memory, cpu })
    }

    /// The files that take the id of a process that joins.
    #[must_use]
    pub fn joins(&self) -> Vec<PathBuf> {
        [&self.memory, &self.cpu].map(|path| path.join("cgroup.procs")).into()
    }

    /// Bounds memory in MiB and processor time in percent of one processor, or neither any more.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn bound(&self, bounds: Option<(u64, u64)>) -> Result<()> {
        let (memory, quota) = match bounds {
            Some((mib, percent)) => ((mib << 20).to_string(), (PERIOD_US * percent / 100).to_string()),
            None => ("-1".into(), "-1".into()),
        };
        let files = [
            (self.memory.join("memory.limit_in_bytes"), memory),
            (self.cpu.join("cpu.cfs_period_us"), PERIOD_US.to_string()),
            (self.cpu.join("cpu.cfs_quota_us"), quota),
        ];
        for (file, text) in files {
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One with a process in it stays; whoever takes its name next finds it empty.
        let _ = std::fs::remove_dir(&self.memory);
        let _ = std::fs::remove_dir(&self.cpu);
    }
}
