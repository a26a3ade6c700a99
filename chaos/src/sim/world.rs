//! Everything together in virtual time: boxes, lines, one node, its sites, and the outside ledger that is asked
//! after every step.
//!
//! **Invariant**: a run is a function of its options, its script and what is planted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sonae_journal::sim::SimDisk;
use sonae_proto::digest::Digest;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, Incarnation, Tier};
use sonae_proto::uplink::DIAL_MS_MAX;
use sonae_proto::vector::Heads;

use super::board::{Board, Life};
use super::carrying::Courier;
use super::counts::Counts;
use super::event::Event;
use super::faces::Faces;
use super::lan::Lan;
use super::ledger::{BoxLedger, Ledger};
use super::line::Connection;
use super::node::{Node, Site};
use super::options::Options;
use super::pace::Pace;
use super::planted::Planted;
use super::revoked::Word;
use super::slot::Slot;
use super::snapshots::Witnessed;
use super::store::Keeping;
use super::trace::Trace;
use crate::random::Random;

pub(crate) struct World {
    pub options: Options,
    pub planted: Option<Planted>,
    pub random: Random,
    pub trace: Trace,
    pub now: u64,
    pub board: Board,
    pub slots: Vec<Slot>,
    pub enrolled: u8,
    /// Who writes, of all that ever did, as the cloud stores it.
    pub identities: BTreeMap<Incarnation, Vec<u8>>,
    /// The device of each incarnation.
    pub devices: BTreeMap<Incarnation, u8>,
    /// What the board has said of revoked devices.
    pub revoked: BTreeMap<u8, Word>,
    /// Whether the newest of that has not been brought to a node.
    pub words_due: bool,
    /// What couriers have offered to the node, by connection and stream.
    pub carried: BTreeMap<(u64, u64), Hash32>,
    /// Couriers at the node, by connection.
    pub couriers: BTreeMap<u64, Courier>,
    pub node: Option<Node>,
    pub node_stops_in: Option<u64>,
    pub faces: Faces,
    /// The node leaves batches out when it serves a log.
    pub node_lies: bool,
    pub sites: Vec<Site>,
    /// Heads that the cloud showed to an auditor at the last visit.
    pub shown_to_auditor: Heads,
    pub sites_image: Option<Vec<Site>>,
    pub ledger: Ledger,
    /// Incarnations that more than one disk has written for.
    pub contested: BTreeSet<Incarnation>,
    /// Since when there is no trouble any more.
    pub healed_at: Option<u64>,
    /// Whether all boxes reach each other since then.
    pub is_lan_healed: bool,
    /// What the oracle has against this run.
    pub violation: Option<String>,
    /// The first life of the node after the last time that sites lost something.
    pub loss_known_from: u64,
    pub connections: BTreeMap<u64, Connection>,
    pub lan: Lan,
    events: BTreeMap<(u64, u64), Event>,
    next: u64,
    pub boots: u64,
    /// Digests of views by tier and contents.
    digests: BTreeMap<(Tier, u128), Digest>,
    /// What the authors of snapshots knew when they made them.
    pub witnessed: BTreeMap<Hash32, Witnessed>,
    pub tally: Tally,
    pub pace: Pace,
}

/// What happened, in numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub restarts: u64,
    pub boots: u64,
    /// Changes of school days that were acknowledged.
    pub worked: u32,
    pub counts: Counts,
    /// Crashes by the thing that was being done.
    pub crash_points: BTreeMap<String, u64>,
}

impl World {
    pub fn new(options: Options, planted: Option<Planted>, keep_trace: bool) -> Result<Self> {
        let mut world = Self {
            random: Random::new(options.seed, "world"),
            trace: Trace::new(keep_trace),
            now: 1_000,
            board: Board::new()?,
            slots: Vec::new(),
            enrolled: 0,
            identities: BTreeMap::new(),
            devices: BTreeMap::new(),
            revoked: BTreeMap::new(),
            words_due: false,
            carried: BTreeMap::new(),
            couriers: BTreeMap::new(),
            node: None,
            node_stops_in: None,
            faces: Faces::default(),
            node_lies: false,
            sites: vec![Site::default(); options.sites],
            sites_image: None,
            shown_to_auditor: Heads::new(),
            ledger: Ledger::new(options.quorum),
            contested: BTreeSet::new(),
            healed_at: None,
            is_lan_healed: false,
            violation: None,
            loss_known_from: 0,
            connections: BTreeMap::new(),
            lan: Lan::default(),
            events: BTreeMap::new(),
            next: 0,
            boots: 0,
            digests: BTreeMap::new(),
            witnessed: BTreeMap::new(),
            tally: Tally::default(),
            pace: Pace::default(),
            planted,
            options,
        };
        world.trace.note(0, format_args!("{:?}", world.options));
        world.start_node(false);
        for _ in 0..world.options.boxes {
            let life = world.enrol(None, false)?;
            let disk = world.new_disk();
            world.slots.push(Slot::new(life, disk, BoxLedger::default(), world.now));
            world.start_box(world.slots.len() - 1);
        }
        Ok(world)
    }

    /// The next device that the board certifies, or the next incarnation of one.
    pub fn enrol(&mut self, device: Option<u8>, rebuilds: bool) -> Result<Life> {
        self.enrolled += 1;
        let number = self.enrolled + 10;
        let beginning = if device.is_some() { Beginning::Restored } else { Beginning::Enrolment };
        let mut life = self.board.begin(device.unwrap_or(number), number, beginning)?;
        life.rebuilds = rebuilds;
        self.devices.insert(life.name, life.device);
        self.identities.insert(life.name, serde_json::to_vec(&life.identity)?);
        Ok(life)
    }

    pub fn new_disk(&mut self) -> SimDisk {
        SimDisk::new(self.random.bits())
    }

    pub fn keeping(&self) -> Keeping {
        Keeping { segment_bytes: self.options.segment_bytes, planted: Planted::of_journal(self.planted) }
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    /// A number that is not used twice.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn delay(&mut self) -> u64 {
        1 + self.random.below(self.options.delay_ms_max)
    }

    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    /// What the clock of a box shows.
    pub fn told(&self, slot: usize) -> u64 {
        let (shown, since) = self.slots[slot].clock;
        shown + (self.now - since)
    }

    pub fn hold(&mut self, result: Result<(), String>) {
        if let Err(text) = result {
            self.violate(text);
        }
    }

    pub fn violate(&mut self, text: String) {
        self.note(format_args!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    pub fn crashed_at(&mut self, point: String) {
        *self.tally.crash_points.entry(point).or_default() += 1;
    }

    // Time.

    /// Counts something that is done. Returns whether that is not too much; else the run fails and must end.
    pub fn goes_on(&mut self) -> bool {
        let counted = self.pace.count(self.now);
        let goes_on = counted.is_ok();
        self.hold(counted);
        goes_on
    }

    /// Does the next thing that is due. Returns whether there was one before `until`.
    fn step(&mut self, until: u64) -> bool {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let wakes = self.slots.iter().enumerate();
        let wake = wakes.filter_map(|(n, slot)| Some((slot.wake_at?.max(self.now), n))).min();
        if !self.goes_on() {
            return false;
        }
        match (event, wake) {
            (Some(at), _) if at <= until && wake.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            }
            (_, Some((due, slot))) if due <= until => {
                self.now = due;
                self.slots[slot].wake_at = None;
                let told = self.told(slot);
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.engine.handle_timeout(told);
                }
                self.drain_box(slot);
                self.look_at_neighbours_again(slot);
            }
            _ => {
                self.now = until;
                return false;
            }
        }
        true
    }

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.violation.is_none() && self.step(until) {}
    }

    /// When the shell of a box wakes up: when its engine says, by a clock that may have jumped, but no later than
    /// after the longest wait between dials.
    pub fn set_wake(&mut self, slot: usize) {
        let told = self.told(slot);
        let timeout = self.slots[slot].replica.as_ref().and_then(|replica| {
            let timeouts = [replica.engine.poll_timeout(), replica.neighbours.poll_timeout()];
            timeouts.into_iter().flatten().min()
        });
        let wait = timeout.map(|at| at.saturating_sub(told).min(DIAL_MS_MAX));
        self.slots[slot].wake_at = wait.map(|wait| self.now + wait);
    }

    // The oracle.

    /// Looks at one box after something happened to it.
    pub fn look(&mut self, slot: usize) {
        let Some(replica) = &self.slots[slot].replica else { return };
        let loss_is_known = self.slots[slot].welcomed_by.is_some_and(|boot| boot >= self.loss_known_from)
            && replica.engine.is_up();
        let shown = Tier::ALL.map(|tier| {
            let digest = replica.fold.digests.get(&tier).copied().unwrap_or_default();
            ((tier, replica.model.contents(tier)), digest)
        });
        let safe: Vec<_> = replica
            .engine
            .receipted()
            .into_iter()
            .map(|(log, head)| (log, head, loss_is_known && !replica.stopped.contains(&log)))
            .collect();
        for (log, head, must_be_held) in safe {
            let was = self.ledger.called_safe(log, head);
            self.hold(was);
            if must_be_held {
                let held = self.ledger.is_held(log, head);
                self.hold(held);
            }
        }
        for (contents, digest) in shown {
            if *self.digests.entry(contents).or_insert(digest) != digest {
                self.violate(format!("box {slot} shows another digest than one with the same contents"));
            }
        }
    }
}
