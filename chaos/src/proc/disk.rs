//! What the script does to the disks of boxes and sites.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::options::DiskAction;
use super::world::World;
use crate::fault_fs::{Fault, FaultFs, Loss};
use crate::town::Appliance;

/// Waits until something is so, or at most so long.
async fn until(at_most: Duration, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() && began.elapsed() < at_most {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl World {
    /// Does something to the disk of a box.
    pub async fn on_disk(&mut self, number: usize, what: DiskAction, pause: Duration) -> Result<()> {
        match what {
            DiskAction::Cut(ahead, loss) => {
                if let Some(disk) = &self.boxes[number].disk {
                    disk.cut_after(ahead);
                    until(pause, || disk.is_off()).await;
                }
                self.power_cycle(number, loss)
            }
            DiskAction::Fail(ahead, fault) => self.fail_disk(number, ahead, fault, pause).await,
            DiskAction::Slow(ms) => {
                self.boxes[number].disk.as_ref().inspect(|disk| disk.set_slow(Duration::from_millis(ms)));
                Ok(())
            }
            DiskAction::Lie => self.lie(number, pause).await,
            DiskAction::Rot(place) => self.rot(number, place).await,
        }
    }

    /// Lets the power of the node and of all sites go. What boxes call safe by what the node has said until then must
    /// have outlived it.
    pub async fn cut_house(&mut self, ahead: u64, loss: Loss, pause: Duration) -> Result<()> {
        if let Some(disk) = &self.site_disk {
            disk.cut_after(ahead);
            until(pause, || disk.is_off()).await;
            disk.cut();
        }
        self.kill_node()?;
        if let Some(disk) = &mut self.site_disk {
            disk.power_cycle(loss)?;
            self.tally.site_cuts += 1;
        }
        self.check_claims().await?;
        self.start_node();
        Ok(())
    }

    async fn fail_disk(&mut self, number: usize, ahead: u64, fault: Fault, pause: Duration) -> Result<()> {
        if let Some(disk) = &self.boxes[number].disk {
            disk.fail_after(ahead, fault);
            until(pause, || !disk.is_fault_due()).await;
            self.tally.faults += u64::from(!disk.is_fault_due());
            // The program and the people meet what comes of it.
            tokio::time::sleep(pause / 4).await;
        }
        self.power_cycle(number, Loss::Drop)
    }

    /// Lets the power of a box go, and starts it on what is left.
    fn power_cycle(&mut self, number: usize, loss: Loss) -> Result<()> {
        self.lose_power(number, loss)?;
        self.start(number);
        Ok(())
    }

    fn lose_power(&mut self, number: usize, loss: Loss) -> Result<()> {
        self.boxes[number].disk.as_ref().inspect(|disk| disk.cut());
        self.kill(number)?;
        if let Some(disk) = &mut self.boxes[number].disk {
            disk.power_cycle(loss)?;
            self.tally.cuts += 1;
        }
        Ok(())
    }

    /// Has flushes lie for a while, then lets the power go. A box that has not even its keys any more is replaced.
    async fn lie(&mut self, number: usize, pause: Duration) -> Result<()> {
        // What it has sent and forgets, somebody may have replaced meanwhile.
        self.has_parted = true;
        self.boxes[number].disk.as_ref().inspect(|disk| disk.set_lying(true));
        tokio::time::sleep(pause).await;
        self.release(number).await?;
        self.mend(number)?;
        self.lose_power(number, Loss::Drop)?;
        let seat = &self.boxes[number];
        seat.disk.as_ref().inspect(|disk| disk.set_lying(false));
        match tokio::task::block_in_place(|| self.town.start_edge_to(&seat.appliance, self.dial)) {
            Ok(daemon) => self.boxes[number].daemon = Some(daemon),
            Err(error) => {
                self.note(format_args!("box {number} cannot start after a lie: {error:#}"));
                self.rebuild(number)?;
            }
        }
        Ok(())
    }

    async fn rot(&mut self, number: usize, place: u64) -> Result<()> {
        self.has_parted = true;
        self.mend(number)?;
        self.release(number).await?;
        let seat = &self.boxes[number];
        if let Some(disk) = &seat.disk {
            let flipped = flip(disk, &seat.appliance, place)?;
            self.tally.flips += u64::from(flipped);
        }
        self.start(number);
        Ok(())
    }
}

/// Flips a bit of what a box's journal has written. Returns whether it has written anything.
fn flip(disk: &FaultFs, appliance: &Appliance, place: u64) -> Result<bool> {
    let entries = std::fs::read_dir(appliance.data.join("journal"))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut written = Vec::new();
    for (file, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path)?;
        let places = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
        written.extend(places.map(|(offset, _)| (file, offset)));
    }
    let count = u64::try_from(written.len())?.max(1);
    let Some((file, offset)) = written.get(usize::try_from(place % count)?) else { return Ok(false) };
    // The folder of the box, that of the journal, and the name of the file.
    let mut names: Vec<String> =
        paths[*file].iter().rev().take(3).map(|name| name.to_string_lossy().into_owned()).collect();
    names.reverse();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(disk.flip(&names, *offset, 1 << (place % 8)))
}
