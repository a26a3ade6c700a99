//! What boxes must still be able to do once keys are destroyed, and logs open from their first change no more: come back
//! from an old copy, and be made again after their journal has rotted.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{LONG, Running, Scene, seconds, wait_for};
use crate::town::copy_dir;

/// Bytes of a page of the journal.
const PAGE_BYTES: usize = 4096;

impl Scene {
    /// The second box comes back from a copy of before its last writes, and writes without a line. Returns the seconds from
    /// the line's return until it has gone on under a new incarnation and everything is safe.
    pub(super) async fn comes_back(&mut self) -> Result<f64> {
        let copy = self.dir.join("copy");
        self.stop(1)?;
        let data = self.appliance(1)?.data.clone();
        copy_dir(&data, &copy)?;
        self.start(1).await?;
        self.mark(20).await?;
        self.settle().await?;
        self.stop(1)?;
        fs::remove_dir_all(&data)?;
        copy_dir(&copy, &data)?;
        self.settled.line.set_cut(true);
        self.start(1).await?;
        self.mark(21).await?;
        let began = Instant::now();
        self.settled.line.set_cut(false);
        wait_for(self.appliance(1)?, "renewed", has_gone_on).await?;
        self.agree().await?;
        let elapsed = seconds(began);
        // Nobody is signed in at a new incarnation.
        self.stop(1)?;
        self.start(1).await?;
        Ok(elapsed)
    }

    /// The first box's journal rots. Returns the seconds from its start until it serves again.
    pub(super) async fn rots(&mut self) -> Result<f64> {
        for day in 22..28 {
            self.mark(day).await?;
        }
        self.settle().await?;
        self.box_at(0)?.daemon.kill_hard()?;
        damage(&self.appliance(0)?.data.join("journal"))?;
        let began = Instant::now();
        self.start(0).await?;
        let elapsed = seconds(began);
        wait_for(self.appliance(0)?, "repaired", has_gone_on).await?;
        self.agree().await?;
        Ok(elapsed)
    }

    fn box_at(&mut self, number: usize) -> Result<&mut Running> {
        self.boxes.get_mut(number).context("no such box")
    }

    fn stop(&mut self, number: usize) -> Result<()> {
        self.box_at(number)?.daemon.stop().map(drop)
    }

    async fn start(&mut self, number: usize) -> Result<()> {
        let appliance = self.appliance(number)?.clone();
        let (daemon, client) = self.settled.start(&appliance).await?;
        *self.box_at(number)? = Running { appliance, daemon, client };
        Ok(())
    }

    /// Waits until both boxes show the same state.
    async fn agree(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let digests: Vec<Option<Value>> =
                self.boxes.iter().map(|one| one.appliance.digest().ok()?.get("digests").cloned()).collect();
            if matches!(digests.as_slice(), [Some(one), Some(other)] if one == other) {
                return Ok(());
            }
            ensure!(began.elapsed() < LONG, "the boxes never agree: {digests:?}");
            // paced: looks again
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

fn has_gone_on(status: &Value) -> bool {
    status.get("forks") == Some(&json!(1))
        && status.get("unsafe") == Some(&json!(0))
        && status.pointer("/uplink/up") == Some(&json!(true))
}

/// Overwrites the commit in the middle of a journal's newest segment. Behind its last one may lie what the file held when
/// it was a segment before.
fn damage(journal: &Path) -> Result<()> {
    let number = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut newest = (None, Vec::new(), None);
    for entry in fs::read_dir(journal)? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        let epoch = number(&bytes, 16);
        if epoch > newest.0 {
            newest = (epoch, bytes, Some(path));
        }
    }
    let (epoch, bytes, path) = newest;
    let is_commit = |page: &[u8]| page.starts_with(b"SNJC") && number(page, 8) == epoch;
    let pages = bytes.chunks(PAGE_BYTES).enumerate().filter(|(_, page)| is_commit(page));
    let pages: Vec<usize> = pages.map(|(number, _)| number).collect();
    let page = pages.get(pages.len() / 2).context("nothing is in the journal")?;
    let file = fs::OpenOptions::new().write(true).open(path.context("no segment")?)?;
    file.write_all_at(&[0xA5; PAGE_BYTES], u64::try_from(page * PAGE_BYTES)?)?;
    Ok(())
}
