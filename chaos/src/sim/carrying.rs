//! Couriers between boxes and the cloud: a box writes a bundle to a stick, somebody carries it to a node, and the node's
//! answer back; late, twice, or only half of it. The files are the real ones; what is read of them goes to the real
//! engines, as `cloud/src/courier` and `edge/src/courier` do.
//!
//! **Invariants** that it checks: what a box exports, it may import again; of what honest couriers bring nothing is
//! refused but where a log has two histories; a stick makes nothing safe, a receipt does (the ledger knows no sticks).

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::Batch;
use sonae_proto::courier::{CloudOpening, Decoder, Encoder, FORMAT, Opening, Origin, Record, ReplicaOpening};
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::{Incarnation, LogName};
use sonae_proto::intake::{ConnectionId, ReplyTo, StoredBatch};
use sonae_proto::uplink::CarriedReceipt;
use sonae_proto::wire::{Fetch, Frame, Hello, PROTOCOL, Welcome};

use super::event::Event;
use super::item::Item;
use super::node;
use super::options::Trouble;
use super::planted::Planted;
use super::world::World;

/// Milliseconds after which a courier who finds no node comes again.
const AGAIN_MS: u64 = 30_000;

/// Batches that a box takes together.
const GROUP_BATCHES: usize = 3;

/// How a stick is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    /// Milliseconds of one way.
    pub ms: u64,
    /// Of a thousand parts of the file only so many can be read.
    pub readable: u64,
    /// The same stick comes a second time, later.
    pub twice: bool,
}

/// A courier at the node.
pub(crate) struct Courier {
    slot: usize,
    trip: Trip,
    replica: ReplicaOpening,
    to: Incarnation,
    welcome: Option<Welcome>,
    /// The last sequence of each log that was offered, or that the node had.
    offered: BTreeMap<LogName, u64>,
    stopped: BTreeSet<LogName>,
    /// Batches without an answer, by stream.
    waiting: BTreeMap<u64, LogName>,
    receipts: BTreeMap<LogName, Vec<u8>>,
    served: Vec<StoredBatch>,
}

/// Reads a file as far as it goes.
fn read(bytes: &[u8]) -> Vec<Record> {
    let (mut decoder, mut records) = (Decoder::default(), Vec::new());
    decoder.feed(bytes);
    while let Ok(Some(record)) = decoder.poll() {
        records.push(record);
    }
    records
}

fn write(opening: &Opening, records: &[Record]) -> Option<Vec<u8>> {
    let (mut encoder, mut bytes) = Encoder::start(opening).ok()?;
    for record in records {
        bytes.extend(encoder.record(record).ok()?);
    }
    bytes.extend(encoder.finish().0);
    Some(bytes)
}

impl World {
    /// A box writes a bundle of all that it holds, and a courier takes it.
    pub fn carry_out(&mut self, slot: usize, trip: Trip) {
        if self.is_revoked(slot) || self.is_rebuilding(slot) {
            return;
        }
        self.seal(slot, 100);
        let Some(replica) = self.slots[slot].replica.as_ref().filter(|r| !r.engine.is_renewing()) else {
            return;
        };
        let opening = ReplicaOpening {
            identity: self.slots[slot].life.identity.clone(),
            loss_counter: replica.engine.loss_counter(),
            receipted: replica.engine.receipted(),
            have: replica.fold.sequences.clone(),
            manifest_version: replica.engine.manifest_version(),
        };
        let mut records = vec![Record::Keys(Box::new(self.board.documents()))];
        let newest = self.board.documents_at(replica.engine.manifest_version());
        records.push(Record::Keys(Box::new(newest)));
        let others = replica.engine.peer_identities().into_iter();
        records.extend(others.map(|identity| Record::Identity(Box::new(identity))));
        let held = replica.store.held.peers.values().chain(replica.store.held.sealed.values());
        records.extend(held.flatten().map(|batch| Record::Batch(batch.bytes().to_vec())));
        let left: Vec<_> = replica.store.held.own_batches();
        for header in &left {
            let sent = self.slots[slot].book.leave(header);
            self.hold(sent);
        }
        let Some(file) = self.file(Origin::Replica(Box::new(opening)), &records) else { return };
        if self.planted == Some(Planted::StickMakesSafe) {
            for header in left {
                self.keep_or_later(slot, Item::Receipt { log: header.log, head: header.head() }, true);
            }
        }
        self.tally.counts.carried += 1;
        self.note(format_args!("box {slot} gives a courier {} bytes", file.len()));
        self.on_the_way(trip, |ms, file| (ms, Event::ToNodeByHand { slot, trip, file }), file);
    }

    fn file(&mut self, from: Origin, records: &[Record]) -> Option<Vec<u8>> {
        let (school, made_ms) = (self.board.school, self.now);
        let opening =
            Opening { format: FORMAT.to_owned(), school, made_ms, software: "sim".to_owned(), from };
        let file = write(&opening, records);
        match &file {
            Some(file) => self.trace.bytes(file),
            None => self.violate("a bundle cannot be written".into()),
        }
        file
    }

    fn on_the_way(&mut self, trip: Trip, event: impl Fn(u64, Vec<u8>) -> (u64, Event), mut file: Vec<u8>) {
        let length = u64::try_from(file.len()).unwrap_or(u64::MAX);
        file.truncate(usize::try_from(length.saturating_mul(trip.readable) / 1_000).unwrap_or(usize::MAX));
        let ways = if trip.twice { &[1, 3][..] } else { &[1] };
        for way in ways {
            let (ms, event) = event(trip.ms * way, file.clone());
            self.at(self.now + 1 + ms, event);
        }
    }

    /// A courier comes to the node.
    pub fn node_reads_file(&mut self, slot: usize, trip: Trip, file: Vec<u8>) {
        if self.node.is_none() {
            return self.at(self.now + AGAIN_MS, Event::ToNodeByHand { slot, trip, file });
        }
        let mut records = read(&file).into_iter();
        let Some(Record::Opening(opening)) = records.next() else { return };
        let Origin::Replica(replica) = opening.from else { return };
        let to = match self.board.identity(&replica.identity) {
            Ok(identity) => identity.name(),
            Err(error) => return self.violate(format!("a bundle's identity does not verify: {error}")),
        };
        let connection = self.number();
        self.note(format_args!("node reads a bundle of box {slot} as {connection}"));
        let courier = Courier {
            slot,
            trip,
            replica: *replica,
            to,
            welcome: None,
            offered: BTreeMap::new(),
            stopped: BTreeSet::new(),
            waiting: BTreeMap::new(),
            receipts: BTreeMap::new(),
            served: Vec::new(),
        };
        self.couriers.insert(connection, courier);
        self.greet_by_hand(connection, None);
        for record in records {
            match record {
                Record::Keys(keys) => {
                    if let Some(node) = &mut self.node {
                        node.intake.handle_keys(ConnectionId(connection), &keys);
                    }
                    self.drain_node();
                }
                Record::Identity(identity) => self.greet_by_hand(connection, Some(*identity)),
                Record::Batch(bytes) => self.offer_by_hand(connection, bytes),
                Record::Opening(_) | Record::Receipt(_) | Record::End(_) | Record::Unknown(_) => {}
            }
        }
        self.look_at_courier(connection);
    }

    /// Greets as the one who made a bundle, or as another, so that the node learns who that is.
    fn greet_by_hand(&mut self, courier: u64, other: Option<sonae_proto::identity::IdentityText>) {
        let Some(known) = self.couriers.get(&courier) else { return };
        let replica = &known.replica;
        let hello = Hello {
            protocol: PROTOCOL,
            school: self.board.school,
            identity: other.clone().unwrap_or_else(|| replica.identity.clone()),
            loss_counter: if other.is_some() { 0 } else { replica.loss_counter },
            receipted: replica.receipted.clone(),
            have: replica.have.clone(),
            manifest_version: replica.manifest_version,
            nonce: String::new(),
            software: "sim".into(),
            ended: EndedHashes::new(),
        };
        let (number, now) = (if other.is_some() { self.number() } else { courier }, self.now);
        let Some(node) = &mut self.node else { return };
        let connection = ConnectionId(number);
        node.intake.handle_carried_hello(ReplyTo { connection, stream: 0 }, &hello, now);
        if other.is_some() {
            node.intake.handle_disconnected(connection);
        }
        self.drain_node();
    }

    fn offer_by_hand(&mut self, connection: u64, bytes: Vec<u8>) {
        let stream = self.number();
        let Some(courier) = self.couriers.get_mut(&connection) else { return };
        let Ok(batch) = Batch::from_bytes(bytes.clone()) else { return };
        let header = batch.header();
        let held = courier.offered.get(&header.log).copied().unwrap_or(0);
        // It would wait for one that never comes.
        if courier.stopped.contains(&header.log) || header.first > held + 1 {
            return;
        }
        courier.offered.insert(header.log, held.max(header.last));
        courier.waiting.insert(stream, header.log);
        self.carried.insert((connection, stream), header.hash());
        let now = self.now;
        let to = ReplyTo { connection: ConnectionId(connection), stream };
        if let Some(node) = &mut self.node {
            node.intake.handle_batch(to, bytes, now);
        }
        self.drain_node();
    }

    /// The node answers a courier. Returns whether it was one.
    pub fn courier_hears(&mut self, to: ReplyTo, frame: &Frame) -> bool {
        let Some(courier) = self.couriers.get_mut(&to.connection.0) else { return false };
        let log = courier.waiting.remove(&to.stream);
        match (frame, log) {
            (Frame::Welcome(welcome), _) => {
                courier.offered = welcome.heads.iter().map(|(log, head)| (*log, head.sequence)).collect();
                courier.welcome = Some(Welcome::clone(welcome));
            }
            (Frame::Receipt(bytes), Some(log)) => drop(courier.receipts.insert(log, bytes.clone())),
            (_, Some(log)) => drop(courier.stopped.insert(log)),
            (_, None) => {}
        }
        self.look_at_courier(to.connection.0);
        true
    }

    /// A batch that a courier brought is in quarantine: that is its answer.
    pub fn courier_is_done(&mut self, to: ReplyTo) {
        if let Some(courier) = self.couriers.get_mut(&to.connection.0) {
            courier.waiting.remove(&to.stream);
            self.look_at_courier(to.connection.0);
        }
    }

    /// What a courier asked for is served. Returns whether it was one.
    pub fn courier_is_served(&mut self, to: ReplyTo, batches: &[StoredBatch]) -> bool {
        let courier = self.couriers.get_mut(&to.connection.0);
        courier.map(|courier| courier.served.extend(batches.iter().cloned())).is_some()
    }

    /// When everything has its answer, the answer to the bundle is written.
    fn look_at_courier(&mut self, connection: u64) {
        let is_done = |courier: &Courier| courier.waiting.is_empty() && courier.welcome.is_some();
        if self.couriers.get(&connection).is_some_and(is_done) {
            self.at(self.now + 1, Event::AnswerByHand { courier: connection });
        }
    }

    pub fn answer_by_hand(&mut self, connection: u64) {
        let is_done = |courier: &Courier| courier.waiting.is_empty();
        if !self.couriers.get(&connection).is_some_and(is_done) || self.node.is_none() {
            return;
        }
        // Greeted anew: now it knows what the bundle has brought.
        self.greet_by_hand(connection, None);
        let Some(courier) = self.couriers.get(&connection) else { return };
        let Some(welcome) = courier.welcome.clone() else { return };
        let others = welcome.heads.keys().filter(|log| log.incarnation != courier.to);
        let wants: Vec<Fetch> = others
            .map(|log| Fetch { log: *log, after: courier.replica.have.get(log).copied().unwrap_or(0) })
            .collect();
        for fetch in wants {
            let to = ReplyTo { connection: ConnectionId(connection), stream: 1 };
            if let Some(node) = &mut self.node {
                node.intake.handle_fetch(to, &fetch);
            }
            self.drain_node();
        }
        let Some(courier) = self.couriers.remove(&connection) else { return };
        let identities = welcome.identities.into_iter();
        let mut records: Vec<Record> =
            identities.map(|identity| Record::Identity(Box::new(identity))).collect();
        records.extend(courier.receipts.into_values().map(Record::Receipt));
        let served = courier.served.iter().filter_map(|stored| node::read(&self.sites, &stored.location));
        records.extend(served.map(Record::Batch));
        let (heads, complete) = (welcome.heads, welcome.complete);
        let from = Origin::Cloud(CloudOpening { to: courier.to, heads, complete });
        let Some(file) = self.file(from, &records) else { return };
        let (slot, trip) = (courier.slot, courier.trip);
        self.on_the_way(trip, |ms, file| (ms, Event::ToBoxByHand { slot, file }), file);
        if let Some(node) = &mut self.node {
            node.intake.handle_disconnected(ConnectionId(connection));
        }
        self.drain_node();
    }

    /// A courier comes back to a box.
    pub fn box_reads_file(&mut self, slot: usize, file: &[u8]) {
        let life = self.slots[slot].lives;
        let is_fit = self.slots[slot].replica.as_ref().is_some_and(|replica| !replica.engine.is_renewing());
        if !is_fit || self.is_revoked(slot) || self.is_rebuilding(slot) {
            return;
        }
        self.note(format_args!("box {slot} reads an answer"));
        let mut group = Vec::new();
        for record in read(file) {
            if self.slots[slot].lives != life {
                return;
            }
            let told = self.told(slot);
            let Some(replica) = &mut self.slots[slot].replica else { return };
            match record {
                Record::Identity(identity) => replica.engine.handle_carried_identities(&[*identity]),
                Record::Batch(bytes) => group.extend(Batch::from_bytes(bytes)),
                Record::Receipt(bytes) => {
                    let outcome = replica.engine.handle_carried_receipt(bytes, told);
                    self.tally.counts.receipts_by_hand += u64::from(outcome == CarriedReceipt::Moved);
                    let is_clear = !self.options.has(Trouble::Clone) && !self.options.has(Trouble::Rot);
                    if outcome == CarriedReceipt::Refused && is_clear {
                        self.violate(format!("box {slot} refuses a receipt that a courier brought"));
                    }
                }
                Record::Keys(_) | Record::Opening(_) | Record::End(_) | Record::Unknown(_) => {}
            }
            self.drain_box(slot);
            if group.len() >= GROUP_BATCHES {
                // What continues nothing here waits for an earlier bundle.
                self.take_carried(slot, slot, std::mem::take(&mut group)).ok();
            }
        }
        if self.slots[slot].lives == life {
            self.take_carried(slot, slot, group).ok();
        }
    }
}
