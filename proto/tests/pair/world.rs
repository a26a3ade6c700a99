//! Everything together in virtual time: replicas, the line, one node, its sites, and the outside ledger that is
//! asked after every step.
//!
//! **Invariant**: a run is a function of its seed and of the actions of its test.

use std::collections::BTreeMap;

use sonae_proto::batch::Batch;
use sonae_proto::ids::Tier;
use sonae_proto::object::{self, RecordKind};
use sonae_proto::uplink::Alarm;

use crate::board::{Board, school};
use crate::happen::Event;
use crate::ledger::Ledger;
use crate::line::Connection;
use crate::node::{Node, Site};
use crate::random::Random;
use crate::replica::{Disk, Replica};

/// How a world is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub seed: u64,
    pub replicas: u8,
    pub sites: usize,
    pub quorum: usize,
    /// Longest delay of a message, in milliseconds.
    pub delay_ms_max: u64,
    /// A batch is sent twice once in so many times; 0 for never.
    pub duplicate_one_in: u64,
    /// A message is lost, and its connection with it, once in so many times; 0 for never.
    pub drop_one_in: u64,
    /// `receipt_before_store`.
    pub sabotage: bool,
}

impl Shape {
    pub fn calm(replicas: u8, sites: usize, quorum: usize) -> Self {
        let (delay_ms_max, duplicate_one_in, drop_one_in) = (40, 0, 0);
        Self {
            seed: 1,
            replicas,
            sites,
            quorum,
            delay_ms_max,
            duplicate_one_in,
            drop_one_in,
            sabotage: false,
        }
    }
}

pub struct World {
    pub shape: Shape,
    pub random: Random,
    pub now: u64,
    pub board: Board,
    pub replicas: Vec<Replica>,
    pub is_cut: Vec<bool>,
    pub node: Option<Node>,
    pub sites: Vec<Site>,
    pub ledger: Ledger,
    /// What the oracle has against this run.
    pub violation: Option<String>,
    pub lives: Vec<u64>,
    /// The life of the node from which each replica has a welcome, if its heads were complete.
    pub welcomed_by: Vec<Option<u64>>,
    /// The first life of the node after the last time that sites lost something.
    loss_known_from: u64,
    pub connections: BTreeMap<u64, Connection>,
    pub line_of: Vec<Option<u64>>,
    pub events: BTreeMap<(u64, u64), Event>,
    pub next: u64,
    pub boots: u64,
}

impl World {
    pub fn new(shape: Shape) -> Self {
        let board = Board::new(1);
        let count = usize::from(shape.replicas);
        let replica = |number| Replica::new(&board, board.enrol(school(), number), Disk::default(), 7);
        let replicas = (0..shape.replicas).map(|number| replica(number + 10)).collect();
        let mut world = Self {
            shape,
            random: Random::new(shape.seed),
            now: 1_000,
            replicas,
            board,
            is_cut: vec![false; count],
            node: None,
            sites: vec![Site::default(); shape.sites],
            ledger: Ledger::new(shape.quorum),
            violation: None,
            lives: vec![0; count],
            welcomed_by: vec![None; count],
            loss_known_from: 0,
            connections: BTreeMap::new(),
            line_of: vec![None; count],
            events: BTreeMap::new(),
            next: 0,
            boots: 0,
        };
        world.boot_node(false);
        world
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    pub fn delay(&mut self) -> u64 {
        1 + self.random.below(self.shape.delay_ms_max)
    }

    pub fn fail(&mut self, result: Result<(), String>) {
        if let Err(text) = result {
            self.violation.get_or_insert(text);
        }
    }

    // Actions.

    pub fn boot_node(&mut self, heal: bool) {
        if self.node.is_none() {
            self.boots += 1;
            let (sites, quorum) = (&mut self.sites, self.shape.quorum);
            let node = Node::boot(&self.board, self.boots, sites, quorum, heal, self.shape.sabotage);
            self.node = Some(node);
            for number in 0..self.sites.len() {
                self.note_site(number);
            }
        }
    }

    fn note_site(&mut self, number: usize) {
        for bytes in self.sites[number].objects.values() {
            for record in object::records(bytes).0 {
                if record.kind == Some(RecordKind::Batch) {
                    self.ledger.written(&Batch::from_bytes(record.body.to_vec()).unwrap(), number);
                }
            }
        }
    }

    /// The node stops dead; what was being written may be on some sites. Lines notice later.
    pub fn crash_node(&mut self) {
        if self.node.take().is_some() {
            for number in self.connections.keys().copied().collect::<Vec<_>>() {
                let at = self.now + self.delay();
                self.at(at, Event::ReplicaLosesLine { connection: number });
            }
        }
    }

    /// All sites lose their newest objects while no node runs.
    pub fn lose_tails(&mut self, objects: usize) {
        assert!(self.node.is_none());
        for number in 0..self.sites.len() {
            self.sites[number].lose_tail(objects);
            let left = self.sites[number].batches();
            self.ledger.lost(number, &left);
        }
        self.loss_known_from = self.boots + 1;
    }

    pub fn cut(&mut self, replica: usize) {
        self.is_cut[replica] = true;
        self.lose_line(replica);
    }

    pub fn heal(&mut self, replica: usize) {
        self.is_cut[replica] = false;
    }

    pub fn restart_replica(&mut self, number: usize) {
        let disk = self.replicas[number].disk.clone();
        self.start_replica(number, disk);
    }

    /// Starts a replica on a data directory, which may be an old copy.
    pub fn start_replica(&mut self, number: usize, disk: Disk) {
        self.lose_line(number);
        self.lives[number] += 1;
        let life = self.replicas[number].life.clone();
        let alarms = std::mem::take(&mut self.replicas[number].alarms);
        self.replicas[number] = Replica::new(&self.board, life, disk, self.now);
        self.replicas[number].alarms = alarms;
    }

    pub fn write(&mut self, number: usize, tier: Tier, record: &str) {
        let value = self.random.next();
        self.replicas[number].write(tier, record, value, self.now);
    }

    pub fn seal(&mut self, number: usize, changes_max: usize) {
        let now_ms = self.now;
        self.replicas[number].seal(&self.board, changes_max, now_ms);
        self.drain_replica(number);
    }

    // Time.

    /// Does the next thing that is due. Returns whether there was one before `until`.
    pub fn step(&mut self, until: u64) -> bool {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let timeouts = self.replicas.iter().enumerate();
        let timeout = timeouts.filter_map(|(n, r)| Some((r.engine.poll_timeout()?.max(self.now), n))).min();
        match (event, timeout) {
            (Some(at), _) if at <= until && timeout.is_none_or(|(due, _)| at <= due) => {
                self.now = at;
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            }
            (_, Some((due, number))) if due <= until => {
                self.now = due;
                self.replicas[number].engine.handle_timeout(due);
                self.drain_replica(number);
            }
            _ => {
                self.now = until;
                return false;
            }
        }
        self.check();
        true
    }

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.violation.is_none() && self.step(until) {}
        assert!(self.shape.sabotage || self.violation.is_none(), "{:?}", self.violation);
    }

    /// Runs until all is safe everywhere and everybody has everything. Panics after `ms`.
    pub fn converge(&mut self, ms: u64) {
        let until = self.now + ms;
        while !self.has_converged() {
            self.run_for(100);
            let alarms: Vec<_> = self.replicas.iter().map(|replica| &replica.alarms).collect();
            assert!(self.now < until, "seed {}: not converged, alarms {alarms:?}", self.shape.seed);
        }
    }

    pub fn has_converged(&self) -> bool {
        let of = |number: usize| &self.replicas[number];
        (0..self.replicas.len()).all(|number| {
            of(number).all_safe()
                && of(number).engine.has_all_of_peers()
                && of(number).fold.sequences == of(0).fold.sequences
                && of(number).fold.digests == of(0).fold.digests
        })
    }

    pub fn alarms(&self, number: usize, fits: impl Fn(&Alarm) -> bool) -> usize {
        self.replicas[number].alarms.iter().filter(|alarm| fits(alarm)).count()
    }

    // The oracle.

    fn check(&mut self) {
        for number in 0..self.replicas.len() {
            let loss_is_known = self.welcomed_by[number].is_some_and(|boot| boot >= self.loss_known_from);
            for (log, head) in self.replicas[number].engine.receipted() {
                let was = self.ledger.was_durable(log, head);
                self.fail(was);
                if loss_is_known && self.replicas[number].engine.is_up() {
                    let held = self.ledger.is_held(log, head);
                    self.fail(held);
                }
            }
        }
    }
}
