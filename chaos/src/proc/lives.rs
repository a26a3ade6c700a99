//! What ends lives of boxes and begins others: losses, rebuilds, copies; and losses of the cloud.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::sites;
use super::world::{LAN_PORT, World};
use crate::drill::kill_cloud::safe;
use crate::program::{Place, run_at};
use crate::town::{Appliance, copy_dir};

/// Boxes at most, copies included.
const BOXES_MAX: usize = 4;

impl World {
    /// Lets a box reach a node that runs: what needs the cloud to go on would wait for ever.
    pub fn mend(&mut self, number: usize) -> Result<()> {
        self.block(number, None)?;
        self.cloud.shape(None)?;
        self.start_node();
        Ok(())
    }

    /// Kills a box and ends the promise for what it had kept and not called safe.
    pub async fn release(&mut self, number: usize) -> Result<()> {
        self.ask_claim(number).await;
        self.kill(number)?;
        let held = sites::at_quorum(self.sites(), self.quorum())?;
        let seat = &mut self.boxes[number];
        let is_held = |(log, sequence): (&String, &u64)| {
            (log.clone(), (*sequence).min(held.get(log).copied().unwrap_or(0)))
        };
        let safe: BTreeMap<String, u64> = seat.safe.iter().map(is_held).collect();
        seat.staff.ledger().release(&safe);
        Ok(())
    }

    /// Asks a box what it calls safe, if it answers soon.
    pub async fn ask_claim(&mut self, number: usize) {
        if let Some(client) = &self.boxes[number].client
            && let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(1), client.status()).await
        {
            self.claim(number, &status);
        }
    }

    fn claim(&mut self, number: usize, status: &Value) {
        let seat = &mut self.boxes[number];
        seat.loss_counter = status.get("loss_counter").and_then(Value::as_u64).unwrap_or(0);
        // A loss lowers it, and of a log of which nothing is safe the status says nothing.
        let incarnation = status.get("incarnation").and_then(Value::as_str).unwrap_or_default();
        seat.safe.retain(|log, _| log.split('/').next() != Some(incarnation));
        seat.safe.extend(safe(status));
    }

    /// All sites lose their newest objects, while the node is down.
    pub fn lose_tail(&mut self, count: usize) -> Result<()> {
        self.kill_node()?;
        for site in self.sites() {
            for path in sites::objects(site)?.iter().rev().take(count) {
                std::fs::remove_file(path)?;
            }
        }
        let held = sites::at_quorum(self.sites(), self.quorum())?;
        for (log, sequence) in &mut self.promised {
            *sequence = (*sequence).min(held.get(log).copied().unwrap_or(0));
        }
        for seat in &mut self.boxes {
            seat.counter_at_loss = Some(seat.loss_counter);
        }
        self.start_node();
        Ok(())
    }

    /// Takes what is left of a box away, and has another machine rebuild from the cloud.
    pub fn rebuild(&mut self, number: usize) -> Result<()> {
        self.kill(number)?;
        let seat = &mut self.boxes[number];
        let ended = seat.appliance.data.clone();
        seat.lives += 1;
        seat.appliance.data = ended.with_file_name(format!("edge-{}", seat.lives));
        seat.safe.clear();
        let (fresh, place) = (seat.appliance.data.clone(), seat.appliance.place.clone());
        if ended.exists() {
            std::fs::remove_dir_all(&ended).context("cannot take a box away")?;
        }
        match self.rebuild_into(&fresh, &place) {
            Ok(()) => self.start(number),
            Err(error) => self.violate(format_args!("box {number} is not rebuilt: {error:#}")),
        }
        Ok(())
    }

    /// Rebuilds into a folder from the cloud alone.
    pub fn rebuild_into(&mut self, data: &Path, place: &Place) -> Result<()> {
        self.tally.rebuilds += 1;
        let name = format!("spare-{}.bundle", self.tally.rebuilds);
        let (bundle, passphrase) = self.town.enrol_bundle("spare", &name)?;
        let seconds = self.plan.patience.as_secs().to_string();
        let mut place = place.clone();
        place.under.splice(0..0, ["timeout".to_owned(), seconds]);
        place.environment.extend(self.town.edge_environment.iter().cloned());
        let (data, bundle, dial) =
            (data.display().to_string(), bundle.display().to_string(), self.dial.to_string());
        let arguments =
            ["rebuild", "--data", &data, "--bundle", &bundle, "--passphrase-stdin", "--cloud", &dial];
        tokio::task::block_in_place(|| run_at(&place, "sonae-edge", &arguments, &passphrase))?;
        Ok(())
    }

    /// Starts a copy of a box beside it, with people of its own.
    pub fn clone_box(&mut self, number: usize) -> Result<()> {
        if self.boxes.len() >= BOXES_MAX {
            return Ok(());
        }
        self.has_parted = true;
        self.kill(number)?;
        let seat = &self.boxes[number];
        let copy = self.town.dir.join(format!("copy-{}", self.boxes.len()));
        copy_dir(&seat.appliance.data, &copy).context("cannot copy a box")?;
        let mut appliance = Appliance { data: copy, ..seat.appliance.clone() };
        appliance.ca = self.town.dir.join(format!("copy-{}-ca.pem", self.boxes.len()));
        let machine = seat.machine.clone();
        let port = LAN_PORT + u16::try_from(self.boxes.len())?;
        appliance.place.listen = Some((machine.address, port));
        appliance.place.joins.clear();
        self.start(number);
        if let Err(error) = self.seat(appliance, machine, None, None, None) {
            self.violate(format_args!("a copy of box {number} does not start: {error:#}"));
        }
        Ok(())
    }
}
