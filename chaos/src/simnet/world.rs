//! Everything together: boxes, lines, the cloud, and the witness that looks at them while time passes.

use std::path::Path;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use serde_json::Value;
use sonae_journal::sim::Cut;
use sonae_store::testing::Board;
use sonae_store::{Action, Edit};

use super::keepers;
use super::logs;
use super::net::Net;
use super::node::Cloud;
use super::options::{Options, Step, Way};
use super::oracle::{Measured, Oracle, Seen};
use super::planted::Planted;
use super::replica::Replica;
use super::sites::Mood;
use super::time::{Time, sleep_ms};
use crate::random::Random;

/// Between two looks of the witness.
const LOOK_MS: u64 = 100;

/// Between two looks while something is measured.
const LOOK_CLOSELY_MS: u64 = 10;

/// Between two times at which keepers do their idle work.
const IDLE_MS: u64 = 2_000;

/// How long nothing must have been wrong before news are expected.
const CALM_MS: u64 = 180_000;

/// How long is waited for rest before a measurement; without it nothing is measured.
const REST_MS_MAX: u64 = 60_000;

/// How long a receipt is waited for.
const RECEIPT_MS_MAX: u64 = 120_000;

/// Within which all must have converged after everything was mended.
const SETTLE_MS_MAX: u64 = 400_000;

/// The longest round trip at which the promise of [`blackout_limit_ms`] is held today: a receipt takes three round
/// trips, after a pause of up to half a second between two knocks. On a line that lets datagrams overtake one another,
/// the hello can overtake the end of the handshake; then it is thrown away, and comes again after three more.
const fn round_trip_ms_max(keeps_order: bool) -> u64 {
    if keeps_order { 450 } else { 200 }
}

/// What is written: of each tier one collection with one field.
const FIELDS: [(&str, &str); 3] = [("student", "grade"), ("attendance", "code"), ("grade_result", "score")];

/// Records that are written to: few, so that boxes meet in them.
const RECORDS: u64 = 6;

/// The first receipt after a blackout of so many seconds.
const fn blackout_limit_ms(seconds: u64) -> u64 {
    if seconds <= 30 { 2_000 } else { 5_000 }
}

/// Everything.
pub(crate) struct World {
    pub options: Options,
    pub time: Time,
    pub net: Net,
    pub oracle: Oracle,
    replicas: Vec<Replica>,
    cloud: Cloud,
    random: Random,
    writes: u64,
    troubled_ms: u64,
    idle_ms: u64,
}

impl World {
    /// Makes and starts everything. Directories lie in `dir`.
    pub async fn start(
        options: Options,
        dir: &Path,
        planted: Option<Planted>,
        keep_trace: bool,
    ) -> Result<Self> {
        let (time, net) = (Time::begin(), Net::new(keep_trace));
        tokio::spawn(net.clone().run());
        let mut board = Board::default();
        let mut cloud = Cloud::found(&mut board, dir, &options, planted, &time)?;
        cloud.start(&net).await.context("the node does not start")?;
        let mut replicas = Vec::new();
        for (slot, bundle) in board.bundles(options.boxes).into_iter().enumerate() {
            let mut replica = Replica::enrol(&board, bundle, dir, slot, options.seed, &time)?;
            let random = |way: &str| Random::new(options.seed, &format!("simnet line {slot} {way}"));
            net.add_line(replica.inside, &options.line, random);
            replica.start(&net, &time)?;
            replicas.push(replica);
        }
        let oracle = Oracle::new(options.boxes, options.quorum);
        let random = Random::new(options.seed, "simnet world");
        Ok(Self {
            options,
            time,
            net,
            oracle,
            replicas,
            cloud,
            random,
            writes: 0,
            troubled_ms: 0,
            idle_ms: 0,
        })
    }

    /// Whether nothing is wrong yet.
    pub const fn is_well(&self) -> bool {
        self.oracle.violation.is_none()
    }

    /// Lets time pass, and looks.
    async fn pass(&mut self, ms: u64, look_ms: u64) {
        let end = self.time.since_ms() + ms;
        while self.is_well() && self.time.since_ms() < end {
            sleep_ms(look_ms.min(end - self.time.since_ms())).await;
            let now_ms = self.time.since_ms();
            if now_ms >= self.idle_ms {
                self.idle_ms = now_ms + IDLE_MS;
                keepers::idle();
            }
            let calm_from_ms = self.troubled_ms.saturating_add(CALM_MS);
            let is_calm = self.options.line.is_sound() && now_ms > calm_from_ms;
            self.oracle.look(now_ms, &self.replicas, &self.cloud, is_calm);
            if let Err(storm) = self.net.sent() {
                self.oracle.violate(storm);
            }
            for line in logs::take_lines() {
                self.net.note(format_args!("{line}"));
            }
            if let Some(error) = logs::take_error() {
                self.oracle.violate(format!("an error was logged: {error}"));
            }
        }
    }

    /// Does one step of the script.
    pub async fn step(&mut self, step: Step) -> Result<()> {
        self.net.note(format_args!("{step:?}"));
        let is_trouble = !matches!(step, Step::Write { .. } | Step::Quiet { .. } | Step::Rebind { .. });
        if is_trouble {
            self.troubled_ms = u64::MAX;
        }
        match step {
            Step::Write { slot, actions } => {
                for _ in 0..actions {
                    self.write(slot).await?;
                    let pause_ms = self.random.pick(&[0, 0, 20, 700]);
                    self.pass(pause_ms, LOOK_MS).await;
                }
            }
            Step::Quiet { seconds } => self.pass(seconds * 1_000, LOOK_MS).await,
            Step::Blackout { slot, seconds } => self.blackout(slot, seconds).await?,
            Step::OneWay { slot, way, seconds } => {
                self.net.set_cut(self.replicas[slot].inside, way, true);
                self.write(slot).await?;
                self.pass(seconds * 1_000, LOOK_MS).await;
                self.net.set_cut(self.replicas[slot].inside, way, false);
            }
            Step::Rebind { slot } => self.rebind(slot).await?,
            Step::Site { site, hangs, seconds } => {
                self.cloud.disks[site].set_mood(if hangs { Mood::Hangs } else { Mood::Fails });
                for slot in 0..self.options.boxes {
                    self.write(slot).await?;
                }
                self.pass(seconds * 1_000, LOOK_MS).await;
                self.cloud.disks[site].set_mood(Mood::Well);
            }
            Step::NodeRestarts { pause_seconds } => {
                self.write(0).await?;
                self.cloud.stop(&self.net).await;
                self.pass(pause_seconds * 1_000, LOOK_MS).await;
                self.cloud.start(&self.net).await?;
            }
            Step::PowerCut { slot, pause_seconds } => self.power_cut(slot, pause_seconds).await?,
        }
        if is_trouble {
            self.troubled_ms = self.time.since_ms();
        }
        Ok(())
    }

    async fn write(&mut self, slot: usize) -> Result<()> {
        let Some(life) = &self.replicas[slot].life else { return Ok(()) };
        self.writes += 1;
        let (collection, field) = self.random.pick(&FIELDS);
        let record = format!("r{}", self.random.below(RECORDS));
        let value = Value::from(format!("write {} of box {slot}", self.writes));
        let fields = [(field.to_owned(), value.clone())].into();
        let edit = Edit { collection: collection.to_owned(), record: record.clone(), fields, seen: None };
        let action = Action { who: Some("somebody".to_owned()), edits: vec![edit], ..Action::default() };
        let kept = life.store.write(action).await.context("a write was refused")?;
        self.net.note(format_args!("box {slot} keeps {collection}/{record}, {:?}", kept.sequences));
        self.oracle.acknowledge((collection, &record, field), value, kept);
        Ok(())
    }

    fn seen(&self, slot: usize) -> Option<Seen> {
        self.replicas[slot].life.as_ref().map(Seen::of)
    }

    fn is_at_rest(&self, slot: usize) -> bool {
        self.seen(slot).is_some_and(|seen| seen.is_at_rest())
    }

    /// Waits until a box is at rest. Returns whether it is.
    async fn rest(&mut self, slot: usize, ms_max: u64, look_ms: u64) -> bool {
        let end = self.time.since_ms() + ms_max;
        while self.is_well() && !self.is_at_rest(slot) && self.time.since_ms() < end {
            self.pass(look_ms, look_ms).await;
        }
        self.is_at_rest(slot)
    }

    /// Waits for a receipt for all that a box has, from now on.
    async fn measure(&mut self, slot: usize, after: String, is_clean: bool, limit_ms: u64) {
        let begin_ms = self.time.since_ms();
        self.rest(slot, RECEIPT_MS_MAX, LOOK_CLOSELY_MS).await;
        if !self.is_well() {
            return;
        }
        let receipt_ms = self.time.since_ms() - begin_ms;
        self.net.note(format_args!("box {slot} has its receipt {receipt_ms} ms after {after}"));
        let round_trip_ms = self.options.line.round_trip_ms();
        let keeps_order = self.options.line.jitter_ms == 0;
        let is_promised = is_clean && round_trip_ms <= round_trip_ms_max(keeps_order);
        let limit_ms = is_promised.then_some(limit_ms);
        self.oracle.measure(Measured { after, round_trip_ms, receipt_ms, is_clean, limit_ms });
    }

    /// Nothing passes; the first receipt afterwards is waited for.
    async fn blackout(&mut self, slot: usize, seconds: u64) -> Result<()> {
        let is_clean = self.rest(slot, REST_MS_MAX, LOOK_MS).await && self.options.line.is_sound();
        let inside = self.replicas[slot].inside;
        // No two blackouts end at the same moment between the tries of a driver.
        let total_ms = seconds * 1_000 + self.random.below(4_000);
        let write_ms = self.random.pick(&[0, total_ms / 2, total_ms.saturating_sub(4_000)]);
        for way in [Way::Up, Way::Down] {
            self.net.set_cut(inside, way, true);
        }
        self.pass(write_ms, LOOK_MS).await;
        for slot in 0..self.options.boxes {
            self.write(slot).await?;
        }
        self.pass(total_ms - write_ms, LOOK_MS).await;
        for way in [Way::Up, Way::Down] {
            self.net.set_cut(inside, way, false);
        }
        self.measure(slot, format!("blackout {seconds} s"), is_clean, blackout_limit_ms(seconds)).await;
        Ok(())
    }

    /// The address changes and the box writes: the receipt comes as if nothing had been.
    async fn rebind(&mut self, slot: usize) -> Result<()> {
        let is_clean = self.rest(slot, REST_MS_MAX, LOOK_MS).await && self.options.line.is_sound();
        // The window of sealing is over, so that what is written next leaves at once.
        self.pass(3_000, LOOK_MS).await;
        self.net.rebind(self.replicas[slot].inside);
        self.write(slot).await?;
        let limit_ms = 1_000 + 3 * self.options.line.round_trip_ms();
        self.measure(slot, "address change".to_owned(), is_clean, limit_ms).await;
        Ok(())
    }

    async fn power_cut(&mut self, slot: usize, pause_seconds: u64) -> Result<()> {
        self.write(slot).await?;
        let ms = self.random.pick(&[0, 30, 400, 3_000]);
        self.pass(ms, LOOK_CLOSELY_MS).await;
        let before = self.replicas[slot].life.as_ref().map(|life| life.store.state());
        let cut = self.random.pick(&[Cut::Drop, Cut::Keep, Cut::Prefix, Cut::Torn]);
        self.replicas[slot].power_cut(&self.net, cut).await;
        self.pass(pause_seconds * 1_000, LOOK_MS).await;
        self.replicas[slot].start(&self.net, &self.time)?;
        if let (Some(before), Some(life)) = (before, &self.replicas[slot].life) {
            self.oracle.recovered(slot, &before, life);
        }
        Ok(())
    }

    /// Everything is mended by now: all must become safe, equal and complete. Returns how long that took.
    pub async fn settle(&mut self) -> u64 {
        self.net.note(format_args!("settle"));
        let begin_ms = self.time.since_ms();
        while self.is_well() {
            let missing = match self.oracle.converged(&self.replicas) {
                Ok(()) => break,
                Err(missing) => missing,
            };
            if self.time.since_ms() > begin_ms + SETTLE_MS_MAX {
                self.oracle.violate(format!("not converged: {missing}"));
            }
            self.pass(LOOK_MS, LOOK_MS).await;
        }
        if self.is_well() {
            self.oracle.complete(&self.replicas);
            let held = join_all(self.cloud.disks.iter().map(|disk| disk.objects())).await;
            let held: Vec<_> = held.into_iter().map(Result::unwrap_or_default).collect();
            self.oracle.keeps_the_quorum(&held);
        }
        self.time.since_ms() - begin_ms
    }
}
