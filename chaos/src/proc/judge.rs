//! What is checked after each step, and at the end.
//!
//! After each step every box answers on its LAN, with all that people were answered, whatever its line does; and what
//! it calls safe lies at the quorum of the sites. At the end everything heals, and all must be safe, complete and equal,
//! also for a box that the cloud alone has made and for an auditor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::ledger::Ledger;
use super::sites;
use super::world::{Seat, World};
use crate::drill::kill_edge::read_back;
use crate::program::{Place, run_to_end};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

impl World {
    /// Looks at every box.
    pub async fn check(&mut self) -> Result<()> {
        self.check_claims().await?;
        for number in 0..self.boxes.len() {
            if self.has_ended(number)? {
                continue;
            }
            let (patience, began) = (self.plan.patience, Instant::now());
            let verdict = loop {
                match tokio::time::timeout(patience, self.look(number)).await {
                    Ok(Ok(verdict)) => break verdict,
                    // A box that changes over to a new incarnation asks people to sign in again.
                    Ok(Err(error)) if began.elapsed() < patience => {
                        self.note(format_args!("box {number} is asked again: {error:#}"));
                        tokio::time::sleep(LOOK).await;
                    }
                    Ok(Err(error)) => break Err(format!("its LAN fails for {patience:?}: {error:#}")),
                    Err(_) => break Err(format!("it does not answer on its LAN for {patience:?}")),
                }
            };
            if let Err(what) = verdict {
                self.violate(format_args!("box {number}: {what}"));
            }
        }
        Ok(())
    }

    /// Whether a box is gone by itself. One that may have had too little memory is started again, as a system would.
    fn has_ended(&mut self, number: usize) -> Result<bool> {
        let Some(seat) = self.boxes.get_mut(number) else { return Ok(true) };
        let Some(daemon) = &mut seat.daemon else { return Ok(true) };
        if !daemon.has_ended()? {
            return Ok(false);
        }
        seat.daemon = None;
        if !seat.is_bounded {
            self.violate(format_args!("box {number} has ended by itself"));
            return Ok(true);
        }
        self.tally.out_of_memory += 1;
        self.start(number);
        Ok(self.violation.is_some())
    }

    /// Asks a box. An error is no answer; a verdict is what is wrong with one.
    async fn look(&mut self, number: usize) -> Result<Result<(), String>> {
        let client = self.client(number).await?;
        let seat = &self.boxes[number];
        let hand = seat.staff.pause().await;
        let status = client.status().await?;
        // A copy of what is to be found, so that no lock is held meanwhile.
        let ledger = seat.staff.ledger().clone();
        let found = read_back(&client, ledger.paths()).await?;
        drop(hand);
        self.tally.looks += 1;
        Ok(ledger.judge(&found).and_then(|()| self.judge_status(&status, &ledger)))
    }

    fn judge_status(&self, status: &Value, ledger: &Ledger) -> Result<(), String> {
        let incarnation = status.get("incarnation").and_then(Value::as_str).unwrap_or_default();
        for (tier, point) in status.get("kept").and_then(Value::as_object).into_iter().flatten() {
            let kept = point.get("sequence").and_then(Value::as_u64).unwrap_or(0);
            let log = format!("{incarnation}/{tier}");
            if kept < ledger.sequence(&log) {
                return Err(format!("{} of {log} was answered, {kept} is there", ledger.sequence(&log)));
            }
        }
        let disputed = status.get("disputed").and_then(Value::as_u64).unwrap_or(0);
        if disputed > 0 && !self.has_parted {
            return Err(format!("{disputed} record(s) are disputed, and nobody wrote without having seen"));
        }
        Ok(())
    }

    /// Asks what boxes call safe, and compares.
    pub async fn check_claims(&mut self) -> Result<()> {
        for number in 0..self.boxes.len() {
            self.ask_claim(number).await;
        }
        self.compare_claims()
    }

    /// What boxes called safe lies at the quorum. A box that cannot know yet of a loss is not believed.
    pub fn compare_claims(&mut self) -> Result<()> {
        let knows = |seat: &&Seat| seat.counter_at_loss.is_none_or(|counter| seat.loss_counter > counter);
        for seat in self.boxes.iter().filter(knows) {
            for (log, sequence) in &seat.safe {
                let promised = self.promised.entry(log.clone()).or_default();
                *promised = (*promised).max(*sequence);
            }
        }
        let held = sites::at_quorum(self.sites(), self.quorum())?;
        if let Some(what) = beyond(&self.promised, &held) {
            self.violate(format_args!("called safe and not at the quorum: {what}"));
        }
        Ok(())
    }

    /// Waits until a box calls more safe than before, or at most so long.
    pub async fn wait_for_claim(&mut self, at_most: Duration) {
        let began = Instant::now();
        while began.elapsed() < at_most {
            for number in 0..self.boxes.len() {
                let before = self.boxes[number].safe.clone();
                self.ask_claim(number).await;
                if !before.is_empty() && self.boxes[number].safe != before {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Mends everything that can be mended.
    pub async fn heal(&mut self) -> Result<()> {
        self.note("heal");
        self.cloud.shape(None)?;
        self.site_disk.as_ref().inspect(|disk| disk.set_slow(Duration::ZERO));
        self.kill_node()?;
        self.start_node();
        for number in 0..self.boxes.len() {
            self.block(number, None)?;
            let seat = &mut self.boxes[number];
            seat.disk.as_ref().inspect(|disk| disk.set_slow(Duration::ZERO));
            seat.group.as_ref().map_or(Ok(()), |group| group.bound(None))?;
            seat.clock.as_ref().map_or(Ok(()), |clock| clock.set_days(0))?;
        }
        Ok(())
    }

    /// Runs until all has converged; a violation says what has not.
    pub async fn settle(&mut self) -> Result<()> {
        // Nobody writes any more, so that there is an end.
        for number in 0..self.boxes.len() {
            self.boxes[number].staff.rest().await;
        }
        let patience = self.plan.patience;
        let until = Instant::now() + patience;
        loop {
            match self.converged().await {
                Ok(()) => break,
                Err(what) if Instant::now() > until => {
                    self.violate(format_args!("not converged after {patience:?}: {what}"));
                    return Ok(());
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
        if self.violation.is_some() {
            return Ok(());
        }
        let disputed = self.client(0).await?.status().await?.get("disputed").cloned().unwrap_or_default();
        self.note(format_args!("converged, with {disputed} record(s) for a person to decide"));
        for seat in &mut self.boxes {
            seat.counter_at_loss = None;
        }
        self.check().await?;
        if self.violation.is_none() {
            self.compare().await?;
        }
        Ok(())
    }

    async fn converged(&mut self) -> Result<(), String> {
        for number in 0..self.boxes.len() {
            let client = self.client(number).await.map_err(|error| format!("box {number}: {error:#}"))?;
            let status = client.status().await.map_err(|error| format!("box {number}: {error:#}"))?;
            let waits = status.get("unsafe").and_then(Value::as_u64);
            if status.pointer("/uplink/up") != Some(&Value::Bool(true)) || waits != Some(0) {
                let said = status.pointer("/last_error/text").cloned().unwrap_or_default();
                return Err(format!("box {number} has no line or {waits:?} unsafe changes: {said}"));
            }
        }
        let digests: Result<Vec<Value>, _> =
            tokio::task::block_in_place(|| self.boxes.iter().map(|seat| seat.appliance.digest()).collect());
        let digests = digests.map_err(|error| format!("{error:#}"))?;
        let state = |digest: &Value| (digest.get("version_vector").cloned(), digest.get("digests").cloned());
        let states: Vec<_> = digests.iter().map(state).collect();
        match states.iter().position(|state| Some(state) != states.first()) {
            None => Ok(()),
            Some(number) if states[number].0 == states[0].0 => {
                // That does not get better with time.
                self.violate(format_args!("box {number} has another digest than box 0 at the same vector"));
                Ok(())
            }
            Some(number) => Err(format!("box {number} has another vector than box 0")),
        }
    }

    /// All boxes have what people at any of them were answered; so has the cloud alone, and an auditor agrees.
    async fn compare(&mut self) -> Result<()> {
        let client = self.client(0).await?;
        for number in 1..self.boxes.len() {
            let ledger = self.boxes[number].staff.ledger().clone();
            if let Err(what) = ledger.judge(&read_back(&client, ledger.paths()).await?) {
                self.violate(format_args!("box 0 lacks what box {number} was answered: {what}"));
            }
        }
        let heads = self.boxes[0].appliance.digest()?;
        if let Some(what) = beyond(&self.promised, &sequences(&heads)) {
            self.violate(format_args!("called safe and not at box 0: {what}"));
        }
        let spare = self.town.appliance_at("the-spare");
        let place = Place { under: self.boxes[0].machine.under(), ..Place::default() };
        if let Err(error) = self.rebuild_into(&spare.data, &place) {
            self.violate(format_args!("the cloud alone makes no box: {error:#}"));
            return Ok(());
        }
        let (is, was) = (spare.digest()?, heads.get("digests").cloned());
        if is.get("digests").cloned() != was {
            self.violate("a box that the cloud alone has made has another digest");
        }
        self.audit(&heads)
    }

    fn audit(&mut self, heads: &Value) -> Result<()> {
        let expect = self.town.dir.join("heads.json");
        std::fs::write(&expect, heads.to_string())?;
        let board = std::fs::read_to_string(self.town.dir.join("board/board.json"))?;
        let root =
            serde_json::from_str::<Value>(&board)?.get("root").and_then(Value::as_str).map(str::to_owned);
        let (root, expect) = (root.unwrap_or_default(), expect.display().to_string());
        let mut arguments =
            vec!["audit", "--school", &self.town.school, "--root", &root, "--expect", &expect];
        let sites: Vec<String> = self.sites().iter().map(|site| site.display().to_string()).collect();
        for site in &sites {
            arguments.extend(["--site", site]);
        }
        let (code, out, said) = run_to_end("sonae-cloud", &arguments, "")?;
        // Of a log with two histories it says so, and rightly.
        if code != 0 && !self.has_parted {
            self.violate(format_args!("the auditor objects with {code}: {out}{said}"));
        }
        Ok(())
    }

    /// What people were answered.
    pub fn acknowledged(&self) -> u64 {
        self.boxes.iter().map(|seat| seat.staff.ledger().acknowledged).sum()
    }
}

/// The first log that is called further than it is held.
fn beyond(called: &BTreeMap<String, u64>, held: &BTreeMap<String, u64>) -> Option<String> {
    let held = |log: &String| held.get(log).copied().unwrap_or(0);
    let (log, sequence) = called.iter().find(|(log, sequence)| held(log) < **sequence)?;
    Some(format!("{log} up to {sequence}, held up to {}", held(log)))
}

fn sequences(digest: &Value) -> BTreeMap<String, u64> {
    let vector = digest.get("version_vector").and_then(Value::as_object).into_iter().flatten();
    vector.filter_map(|(log, sequence)| Some((log.clone(), sequence.as_u64()?))).collect()
}
