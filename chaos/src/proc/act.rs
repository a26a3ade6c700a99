//! What the script does to the world: to lines, programs and clocks. Disks are in [`super::disk`], what ends and begins
//! lives in [`super::lives`].

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::network::Block;
use super::options::{Action, BoxAction, CloudAction, Line};
use super::staff::conflict;
use super::world::World;
use crate::fault_fs::Fault;
use crate::program::Daemon;

/// How long a kill of the node waits for the next receipt; batches leave every two seconds.
const CLAIM_MAX: Duration = Duration::from_secs(3);

fn signal(daemon: Option<&Daemon>, signal: Signal) -> Result<()> {
    daemon.map_or(Ok(()), |daemon| daemon.signal(signal))
}

impl World {
    /// Does a line of the script, and lets the world run for its pause.
    pub async fn act(&mut self, line: Line) -> Result<()> {
        let pause = Duration::from_millis(line.then_ms);
        self.note(serde_json::to_string(&line)?);
        if let Some(trouble) = line.trouble {
            *self.tally.troubles.entry(trouble).or_default() += 1;
        }
        let at = |number: usize| number % self.boxes.len().max(1);
        match line.action {
            Action::Box(number, what) => self.on_box(at(number), what, pause).await?,
            Action::Disk(number, what) => {
                // Boxes that the run began with have such disks, copies have none.
                self.on_disk(number % self.options.boxes, what, pause).await?;
            }
            Action::Cloud(what) => self.on_cloud(what, pause).await?,
            Action::WriteEverywhere => self.conflict().await?,
            Action::Work => {}
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn on_box(&mut self, number: usize, what: BoxAction, pause: Duration) -> Result<()> {
        match what {
            BoxAction::Block(block) => self.block(number, block)?,
            BoxAction::Kill => {
                self.kill(number)?;
                self.start(number);
            }
            BoxAction::Stop => {
                signal(self.boxes[number].daemon.as_ref(), Signal::STOP)?;
                tokio::time::sleep(pause).await;
                signal(self.boxes[number].daemon.as_ref(), Signal::CONT)?;
            }
            BoxAction::Bound(mib, percent) => {
                let seat = &mut self.boxes[number];
                if let Some(group) = &seat.group {
                    group.bound(Some((mib, percent)))?;
                    seat.is_bounded = true;
                }
            }
            BoxAction::StartAt(days) => {
                self.set_clock(number, days)?;
                self.kill(number)?;
                self.start(number);
            }
            BoxAction::Jump(days) => self.set_clock(number, days)?,
            BoxAction::Rebuild => {
                self.mend(number)?;
                self.release(number).await?;
                self.rebuild(number)?;
            }
            BoxAction::Clone => self.clone_box(number)?,
        }
        Ok(())
    }

    fn set_clock(&self, number: usize, days: i64) -> Result<()> {
        self.boxes[number].clock.as_ref().map_or(Ok(()), |clock| clock.set_days(days))
    }

    async fn on_cloud(&mut self, what: CloudAction, pause: Duration) -> Result<()> {
        match what {
            CloudAction::Shape(kilobits) => self.cloud.shape(kilobits)?,
            CloudAction::Kill => {
                self.kill_at_claim().await?;
                self.start_node();
            }
            CloudAction::Move => {
                self.kill_at_claim().await?;
                self.move_node()?;
            }
            CloudAction::Stop => {
                signal(self.node.as_ref(), Signal::STOP)?;
                tokio::time::sleep(pause).await;
                signal(self.node.as_ref(), Signal::CONT)?;
            }
            CloudAction::Cut(ahead, loss) => self.cut_house(ahead, loss, pause).await?,
            CloudAction::FailSite(ahead, fault) => self.fail_site(ahead, fault),
            CloudAction::SlowSite(ms) => {
                self.site_disk.as_ref().inspect(|disk| disk.set_slow(Duration::from_millis(ms)));
            }
            CloudAction::LoseTail(count) => self.lose_tail(count)?,
        }
        Ok(())
    }

    /// Kills the node when a box has just called something safe: what the node has said, it must have done.
    async fn kill_at_claim(&mut self) -> Result<()> {
        self.wait_for_claim(CLAIM_MAX).await;
        self.kill_node()?;
        self.compare_claims()
    }

    /// Another machine takes over the address and the sites of the node, whose own is gone.
    fn move_node(&mut self) -> Result<()> {
        let mut next = self.network.add()?;
        next.take_over(&self.cloud)?;
        self.town.cloud_place.under = next.under();
        self.cloud = next;
        for seat in &self.boxes {
            seat.machine.forget_neighbours()?;
        }
        self.start_node();
        Ok(())
    }

    fn fail_site(&mut self, ahead: u64, fault: Fault) {
        if let Some(disk) = &self.site_disk {
            disk.fail_after(ahead, fault);
        }
    }

    /// People at all boxes write one record, and their boxes do not hear of one another meanwhile.
    async fn conflict(&mut self) -> Result<()> {
        self.has_parted = true;
        let blocks: Vec<Option<Block>> = self.boxes.iter().map(|seat| seat.block).collect();
        for number in 0..self.boxes.len() {
            self.block(number, Some(Block::Both))?;
        }
        for number in 0..self.boxes.len() {
            let client = self.client(number).await?;
            conflict(&client, number).await?;
        }
        for (number, block) in blocks.into_iter().enumerate() {
            self.block(number, block)?;
        }
        Ok(())
    }
}
