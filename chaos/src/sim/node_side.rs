//! What happens at the node and its sites.
//!
//! **Invariant** that it checks: a receipt is signed only for what is at the quorum at that very moment, and with it
//! the identity of who wrote it.

use sonae_proto::intake::{self, ConnectionId, Location, ReplyTo};
use sonae_proto::receipt::Receipt;
use sonae_proto::wire::{FetchEnd, Frame};

use super::board::site;
use super::event::Event;
use super::line::CONTROL;
use super::line_side::{NODE_STREAM, kind};
use super::node::{self, Boot, Node};
use super::planted::Planted;
use super::snapshots::is_of_snapshot;
use super::world::World;

/// Milliseconds after which a node that stopped is started again, at most.
const RESTART_MS_MAX: u64 = 30_000;

impl World {
    pub fn start_node(&mut self, heal: bool) {
        if self.node.is_some() {
            return;
        }
        self.boots += 1;
        self.tally.boots += 1;
        let boot = self.boots;
        self.note(format_args!("node {boot} starts, heals {heal}"));
        let quorum = self.options.quorum;
        let before_store = self.planted == Some(Planted::ReceiptBeforeStore);
        let intake = self.board.intake(self.sites.len(), quorum, before_store);
        let mut shown = self.shown_sites();
        self.delete_unfinished(&mut shown);
        match Node::boot(&self.board, self.boots, &mut shown, intake, Boot { quorum, heal }) {
            Ok(node) => self.node = Some(node),
            Err(error) => return self.violate(format!("a node does not start: {error:#}")),
        }
        if heal {
            self.heal_sites(&shown);
            self.note_sites();
        }
        self.bring_words();
    }

    fn note_sites(&mut self) {
        for (number, disk) in self.sites.iter().enumerate() {
            disk.objects.values().for_each(|object| self.ledger.written(object, number));
        }
    }

    /// The node stops dead; what was being put may be on some sites. Lines notice later.
    pub fn stop_node(&mut self) {
        self.node_stops_in = None;
        let Some(node) = self.node.take() else { return };
        self.note(format_args!("node {} stops", node.boot));
        self.couriers.clear();
        if let Some(writing) = node.writing {
            for number in writing.left {
                if self.random.one_in(2) && !self.sites[number].is_down {
                    self.ledger.written(&writing.bytes, number);
                    self.sites[number].objects.insert(writing.name.clone(), writing.bytes.clone());
                }
            }
        }
        for connection in self.slots.iter().filter_map(|slot| slot.line).collect::<Vec<_>>() {
            let at = self.now + self.delay();
            self.at(at, Event::BoxLosesLine { connection });
        }
        let at = self.now + 1 + self.random.below(RESTART_MS_MAX);
        self.at(at, Event::StartNode { boot: self.boots });
    }

    /// A site has lost something, while no node runs.
    pub fn site_lost(&mut self, number: usize) {
        self.ledger.lost(number, self.sites[number].objects.values());
        self.loss_known_from = self.boots + 1;
    }

    pub fn node_reads(&mut self, connection: u64, stream: u64, bytes: Vec<u8>) {
        let Some(line) = self.connections.get(&connection) else { return };
        let (boot, open, tls_key) = (line.boot, line.open_at_node, line.tls_key);
        if !open || self.node.as_ref().is_none_or(|node| node.boot != boot) {
            return;
        }
        if stream != CONTROL && self.waits_for_hello(connection, stream, &bytes) {
            return;
        }
        let Some(frame) = self.decode(&bytes) else { return };
        self.note(format_args!("node reads {} on {connection}/{stream}", kind(&frame)));
        let is_hello = matches!(frame, Frame::Hello(_));
        let (to, now) = (ReplyTo { connection: ConnectionId(connection), stream }, self.now);
        let Some(node) = &mut self.node else { return };
        match frame {
            Frame::Hello(hello) => node.intake.handle_hello(to, &tls_key, &hello, now),
            Frame::Keys(keys) => node.intake.handle_keys(to.connection, &keys),
            Frame::Batch(bytes) => node.intake.handle_batch(to, bytes, now),
            Frame::Fetch(fetch) => node.intake.handle_fetch(to, &fetch),
            Frame::Snapshot(text) => node.intake.handle_snapshot(to, &text, now),
            Frame::SnapshotPart(part) => node.intake.handle_snapshot_part(to, *part),
            Frame::FetchSnapshot(fetch) => self.node_reads_fetch(to, &fetch),
            Frame::Welcome(_)
            | Frame::Receipt(_)
            | Frame::Refusal(_)
            | Frame::FetchEnd(_)
            | Frame::SnapshotWants(_)
            | Frame::News(_)
            | Frame::Proof(_) => {
                self.violate("a box speaks as a node".into());
            }
        }
        self.drain_node();
        if is_hello && let Some(line) = self.connections.get_mut(&connection) {
            line.is_greeted = true;
            for (stream, bytes) in std::mem::take(&mut line.early_up) {
                self.node_reads(connection, stream, bytes);
            }
        }
    }

    /// Streams overtake each other; a node reads the others when it has read the hello.
    fn waits_for_hello(&mut self, connection: u64, stream: u64, bytes: &[u8]) -> bool {
        let line = self.connections.get_mut(&connection).filter(|line| !line.is_greeted);
        let waits = line.map(|line| line.early_up.push((stream, bytes.to_vec())));
        waits.is_some()
    }

    pub fn drain_node(&mut self) {
        self.perform_all_for_node();
        while let Some(node) = &mut self.node
            && let Some(ticket) = node.give_back(self.now)
        {
            let nowhere = Location { object: String::new(), offset: 0, bytes: 0 };
            node.intake.handle_stored(ticket, &nowhere, &[], self.now);
            self.perform_all_for_node();
        }
        let (sites, records, later) = (self.sites.len(), self.options.records_per_object, self.options.later);
        if let Some(node) = &mut self.node
            && node.begin_put(sites, records, later)
        {
            let boot = node.boot;
            for site in 0..sites {
                let at = self.now + self.delay();
                self.at(at, Event::SiteWrote { boot, site });
            }
        }
    }

    fn perform_all_for_node(&mut self) {
        while self.goes_on()
            && let Some(effect) = self.node.as_mut().and_then(|node| node.intake.poll_effect())
        {
            match self.node_stops_in {
                Some(0) => {
                    self.crashed_at(format!("node before it {}", name_of(&effect)));
                    return self.stop_node();
                }
                Some(left) => self.node_stops_in = Some(left - 1),
                None => {}
            }
            self.perform_for_node(effect);
        }
    }

    fn perform_for_node(&mut self, effect: intake::Effect) {
        self.note(format_args!("node {}", name_of(&effect)));
        match effect {
            intake::Effect::Reply { to, mut frame } => {
                if let Frame::Welcome(welcome) = &mut *frame {
                    self.lie_in_welcome(welcome);
                }
                if let Frame::Receipt(bytes) = &*frame {
                    self.check_receipt(bytes);
                }
                if let Frame::Welcome(_) = &*frame {
                    self.check_welcome(to.connection.0);
                }
                if !self.courier_hears(to, &frame) {
                    self.tell(to.connection, to.stream, &frame);
                }
            }
            intake::Effect::Tell { connection, frame } => self.tell(connection, NODE_STREAM, &frame),
            intake::Effect::Store { ticket, kind, body } => {
                if let Some(node) = &mut self.node {
                    node.queue.push_back((ticket, kind, body));
                }
            }
            intake::Effect::Serve { to, batches, .. } if self.courier_is_served(to, &batches) => {}
            intake::Effect::Serve { to, batches, .. } => {
                let mut sequence = 0;
                for stored in batches {
                    let Some(bytes) = node::read(&self.sites, &stored.location) else { break };
                    sequence = stored.header.last;
                    let copies = if self.node_lies && self.random.one_in(6) {
                        0
                    } else {
                        1 + u8::from(self.random.one_in(self.options.duplicate_one_in))
                    };
                    for _ in 0..copies {
                        self.tell(to.connection, to.stream, &Frame::Batch(bytes.clone()));
                    }
                }
                self.tell(to.connection, to.stream, &Frame::FetchEnd(FetchEnd { sequence }));
            }
            intake::Effect::Refused { code, text, .. } => {
                self.note(format_args!("node refuses {code:?}: {text}"));
            }
            intake::Effect::ServeSnapshot { to, root, text, parts } => {
                self.serve_snapshot(to, root, text, parts);
            }
            intake::Effect::SecondIncarnation { .. } | intake::Effect::DocumentsStored { .. } => {}
            intake::Effect::Quarantined { to, .. } => {
                self.check_quarantined(to);
                self.courier_is_done(to);
            }
            intake::Effect::RevocationTakenBack { version, .. } => {
                self.violate(format!(
                    "the node says that manifest {version} takes back a revocation; none does"
                ));
            }
            intake::Effect::Close(connection) => {
                let at = self.now + self.delay();
                self.at(at, Event::BoxLosesLine { connection: connection.0 });
            }
        }
    }

    fn check_receipt(&mut self, bytes: &[u8]) {
        let receipt = match Receipt::verify(bytes, &self.board.descriptor()) {
            Ok(receipt) => receipt,
            Err(error) => return self.violate(format!("the node signs what does not verify: {error}")),
        };
        if is_of_snapshot(receipt.head) {
            return self.check_snapshot_receipt(&receipt);
        }
        self.check_receipted(receipt.log, receipt.head);
        let identity = self.identities.get(&receipt.log.incarnation).map(Vec::as_slice);
        let signed = self.ledger.signed(receipt.log, receipt.head, identity);
        self.hold(signed);
    }

    pub fn tell(&mut self, connection: ConnectionId, stream: u64, frame: &Frame) {
        if self.connections.get(&connection.0).is_some_and(|line| line.open_at_node) {
            self.send(connection.0, stream, frame, false);
        }
    }

    pub fn site_wrote(&mut self, boot: u64, number: usize) {
        let Some(node) = self.node.as_mut().filter(|node| node.boot == boot) else { return };
        let Some(writing) = &mut node.writing else { return };
        writing.left.remove(&number);
        let disk = &mut self.sites[number];
        let misses = disk.misses > 0;
        disk.misses = disk.misses.saturating_sub(1);
        if !disk.is_down && !misses {
            disk.objects.insert(writing.name.clone(), writing.bytes.clone());
            if disk.lists_after > self.now {
                disk.late.insert(writing.name.clone(), disk.lists_after);
            }
            writing.done.push(number);
            self.ledger.written(&writing.bytes, number);
        }
        if !writing.left.is_empty() {
            return;
        }
        let Some(written) = node.writing.take() else { return };
        let sites: Vec<_> = written.done.iter().map(|number| site(*number)).collect();
        node.pause_after(sites.len() >= self.options.quorum, self.now);
        self.note(format_args!("node has put {} to {:?}", written.name, written.done));
        for (ticket, location) in written.tickets {
            if let Some(node) = self.node.as_mut().filter(|node| node.boot == boot) {
                node.intake.handle_stored(ticket, &location, &sites, self.now);
                self.drain_node();
            }
        }
    }
}

const fn name_of(effect: &intake::Effect) -> &'static str {
    match effect {
        intake::Effect::Reply { .. } => "replies",
        intake::Effect::Tell { .. } => "tells news",
        intake::Effect::Store { .. } => "stores a record",
        intake::Effect::Serve { .. } => "serves a log",
        intake::Effect::ServeSnapshot { .. } => "serves a snapshot",
        intake::Effect::Refused { .. } => "notes a refusal",
        intake::Effect::SecondIncarnation { .. } => "notes a second incarnation",
        intake::Effect::Quarantined { .. } => "puts a batch into quarantine",
        intake::Effect::DocumentsStored { .. } => "has stored the board's word",
        intake::Effect::RevocationTakenBack { .. } => "refuses a manifest",
        intake::Effect::Close(_) => "closes a line",
    }
}
