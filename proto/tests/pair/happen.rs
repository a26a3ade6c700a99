//! What happens in the world: messages, lines, disks, and the effects of both engines.

use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::intake::{self, ConnectionId, ReplyTo};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::receipt::Receipt;
use sonae_proto::uplink::{BatchReply, Effect};
use sonae_proto::wire::{FRAME_HEADER_BYTES, FetchEnd, Frame, Hello, PROTOCOL, frame_header};

use crate::board::{school, site};
use crate::line::{CONTROL, Connection, Waiting};
use crate::node;
use crate::world::World;

/// What happens at a moment.
#[derive(Debug)]
pub enum Event {
    Connect { replica: usize, life: u64 },
    ToNode { connection: u64, stream: u64, frame: Vec<u8> },
    ToReplica { connection: u64, stream: u64, frame: Vec<u8> },
    ReplicaLosesLine { connection: u64 },
    NodeLosesLine { connection: u64 },
    SiteWrote { boot: u64, site: usize },
    LossKept { replica: usize, life: u64 },
}

impl World {
    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Connect { replica, life } => {
                if self.lives[replica] == life {
                    self.connect(replica);
                }
            }
            Event::ToNode { connection, stream, frame } => self.node_reads(connection, stream, frame),
            Event::ToReplica { connection, stream, frame } => self.replica_reads(connection, stream, frame),
            Event::ReplicaLosesLine { connection } => {
                let replica = self.connections[&connection].replica;
                if self.line_of[replica] == Some(connection) {
                    self.lose_line(replica);
                }
            }
            Event::NodeLosesLine { connection } => {
                let line = self.connections.get_mut(&connection).unwrap();
                line.open_at_node = false;
                let boot = line.boot;
                if let Some(node) = self.node.as_mut().filter(|node| node.boot == boot) {
                    node.intake.handle_disconnected(ConnectionId(connection));
                }
                self.drain_node();
            }
            Event::SiteWrote { boot, site } => self.site_wrote(boot, site),
            Event::LossKept { replica, life } => {
                if self.lives[replica] == life {
                    self.replicas[replica].engine.handle_loss_kept();
                    self.drain_replica(replica);
                }
            }
        }
    }

    fn connect(&mut self, replica: usize) {
        if self.is_cut[replica] || self.node.is_none() {
            self.replicas[replica].engine.handle_disconnected(self.now);
        } else if self.line_of[replica].is_none() {
            self.next += 1;
            let (number, boot) = (self.next, self.boots);
            self.connections.insert(number, Connection::new(replica, boot));
            self.line_of[replica] = Some(number);
            self.replicas[replica].engine.handle_connected();
        }
        self.drain_replica(replica);
    }

    /// The replica's end is gone at once, the node's end some time later.
    pub fn lose_line(&mut self, replica: usize) {
        self.welcomed_by[replica] = None;
        if let Some(number) = self.line_of[replica].take() {
            self.connections.get_mut(&number).unwrap().open_at_replica = false;
            let at = self.now + self.delay() * 3;
            self.at(at, Event::NodeLosesLine { connection: number });
            self.replicas[replica].engine.handle_disconnected(self.now);
            self.drain_replica(replica);
        }
    }

    fn send(&mut self, number: u64, stream: u64, frame: &Frame, up: bool) {
        let bytes = frame.to_bytes().unwrap();
        let at = self.now + self.delay();
        if self.shape.drop_one_in > 0 && self.random.one_in(self.shape.drop_one_in) {
            self.at(at + 200, Event::ReplicaLosesLine { connection: number });
            return;
        }
        let at = self.connections.get_mut(&number).unwrap().arrival(stream, up, at);
        if up {
            self.at(at, Event::ToNode { connection: number, stream, frame: bytes });
        } else {
            self.at(at, Event::ToReplica { connection: number, stream, frame: bytes });
        }
    }

    pub fn drain_replica(&mut self, replica: usize) {
        while let Some(effect) = self.replicas[replica].engine.poll_effect() {
            self.perform(replica, effect);
        }
    }

    fn perform(&mut self, replica: usize, effect: Effect) {
        let line = self.line_of[replica];
        match effect {
            Effect::Dial => {
                let (at, life) = (self.now + self.delay(), self.lives[replica]);
                self.at(at, Event::Connect { replica, life });
            }
            Effect::SendHello => {
                let mut hello = self.hello(replica);
                self.replicas[replica].engine.say_ended(&mut hello);
                self.send(line.unwrap(), CONTROL, &Frame::Hello(Box::new(hello)), true);
            }
            Effect::SendKeys => {
                let keys = Frame::Keys(Box::new(self.board.documents()));
                self.send(line.unwrap(), CONTROL, &keys, true);
            }
            Effect::SendBatch { log, first } => {
                let batches = &self.replicas[replica].disk.sealed[&log];
                let batch = batches.iter().find(|batch| batch.header().first == first).unwrap();
                let frame = Frame::Batch(batch.bytes().to_vec());
                let twice =
                    self.shape.duplicate_one_in > 0 && self.random.one_in(self.shape.duplicate_one_in);
                let copies =
                    if twice { &[Waiting::Reply(log), Waiting::Nobody][..] } else { &[Waiting::Reply(log)] };
                for waiting in copies {
                    let stream = self.connections.get_mut(&line.unwrap()).unwrap().open_stream(*waiting);
                    self.send(line.unwrap(), stream, &frame, true);
                }
            }
            Effect::Fetch(fetch) => {
                let stream = self.connections.get_mut(&line.unwrap()).unwrap().open_stream(Waiting::Fetch);
                self.send(line.unwrap(), stream, &Frame::Fetch(fetch), true);
            }
            Effect::StoreBatch(batch) => {
                self.replicas[replica].apply_batch(&self.board, &batch);
                self.replicas[replica].disk.peers.push(*batch);
            }
            Effect::KeepIdentity(text) => self.replicas[replica].disk.identities.push(*text),
            Effect::KeepReceipt { log, head, .. } => {
                self.replicas[replica].disk.receipted.insert(log, head);
            }
            Effect::KeepShown(shown) => self.replicas[replica].disk.shown = Some(*shown),
            Effect::KeepLoss { loss_counter, receipted } => {
                let disk = &mut self.replicas[replica].disk;
                (disk.loss_counter, disk.receipted) = (loss_counter, receipted);
                let (at, life) = (self.now + self.delay(), self.lives[replica]);
                self.at(at, Event::LossKept { replica, life });
            }
            other @ (Effect::KeepKeys(_) | Effect::Quarantine(_)) => {
                panic!("nothing is revoked here: {other:?}")
            }
            Effect::Renew => self.replicas[replica].renewals += 1,
            Effect::Alarm(alarm) => self.replicas[replica].alarms.push(alarm),
            Effect::Disconnect => self.lose_line(replica),
            Effect::FetchSnapshot(_)
            | Effect::KeepSnapshot(_)
            | Effect::KeepSnapshotPart(_)
            | Effect::LoadSnapshot(_)
            | Effect::SendSnapshot(_)
            | Effect::SendSnapshotPart { .. }
            | Effect::SnapshotSafe { .. } => panic!("nobody makes snapshots here"),
        }
    }

    fn hello(&self, number: usize) -> Hello {
        let replica = &self.replicas[number];
        Hello {
            protocol: PROTOCOL,
            school: school(),
            identity: replica.life.identity.clone(),
            loss_counter: replica.engine.loss_counter(),
            receipted: replica.engine.receipted(),
            have: replica.fold.sequences.clone(),
            manifest_version: self.board.manifest.body().version,
            nonce: "00".repeat(16),
            software: "pair".into(),
            ended: EndedHashes::new(),
        }
    }

    fn replica_reads(&mut self, connection: u64, stream: u64, bytes: Vec<u8>) {
        let line = &self.connections[&connection];
        let (replica, boot, waiting) = (line.replica, line.boot, line.streams.get(&stream).copied());
        if !line.open_at_replica {
            return;
        }
        let engine = &mut self.replicas[replica].engine;
        let now = self.now;
        match (decode(bytes), waiting) {
            (Frame::Welcome(welcome), None) => {
                engine.handle_welcome(&welcome, now);
                self.welcomed_by[replica] = welcome.complete.then_some(boot);
            }
            (Frame::News(news), None) => engine.handle_news(&news, now),
            (Frame::Keys(_), None) => panic!("all have the same keys"),
            (Frame::Receipt(bytes), Some(Waiting::Reply(log))) => {
                engine.handle_batch_reply(log, BatchReply::Receipt(bytes), now);
            }
            (Frame::Refusal(refusal), Some(Waiting::Reply(log))) => {
                engine.handle_batch_reply(log, BatchReply::Refusal(refusal), now);
            }
            (Frame::Batch(bytes), Some(Waiting::Fetch)) => {
                engine.handle_fetched(Batch::from_bytes(bytes).unwrap());
            }
            (Frame::FetchEnd(_), Some(Waiting::Fetch)) => engine.handle_fetch_end(),
            (_, Some(Waiting::Nobody)) => {}
            (frame, waiting) => panic!("{frame:?} on a stream of {waiting:?}"),
        }
        self.drain_replica(replica);
    }

    fn node_reads(&mut self, connection: u64, stream: u64, bytes: Vec<u8>) {
        let line = &self.connections[&connection];
        let (boot, life) = (line.boot, &self.replicas[line.replica].life);
        let open = line.open_at_node;
        let Some(node) = self.node.as_mut().filter(|node| node.boot == boot && open) else { return };
        let (to, now) = (ReplyTo { connection: ConnectionId(connection), stream }, self.now);
        match decode(bytes) {
            Frame::Hello(hello) => node.intake.handle_hello(to, &life.tls_key, &hello, now),
            Frame::Keys(keys) => node.intake.handle_keys(to.connection, &keys),
            Frame::Batch(bytes) => node.intake.handle_batch(to, bytes, now),
            Frame::Fetch(fetch) => node.intake.handle_fetch(to, &fetch),
            frame => panic!("{frame:?}"),
        }
        self.drain_node();
    }

    fn drain_node(&mut self) {
        while let Some(effect) = self.node.as_mut().and_then(|node| node.intake.poll_effect()) {
            self.perform_for_node(effect);
        }
        let sites = self.sites.len();
        if let Some(node) = self.node.as_mut().filter(|node| !node.queue.is_empty())
            && node.begin_write(sites)
        {
            let boot = node.boot;
            for site in 0..sites {
                let at = self.now + self.delay();
                self.at(at, Event::SiteWrote { boot, site });
            }
        }
    }

    fn perform_for_node(&mut self, effect: intake::Effect) {
        match effect {
            intake::Effect::Reply { to, frame } => {
                if let Frame::Receipt(bytes) = &*frame
                    && !self.shape.sabotage
                {
                    let receipt = Receipt::verify(bytes, &self.board.descriptor()).unwrap();
                    let durable = self.ledger.is_durable(receipt.log, receipt.head);
                    self.fail(durable);
                }
                self.tell(to.connection, to.stream, &frame);
            }
            intake::Effect::Tell { connection, frame } => self.tell(connection, CONTROL, &frame),
            intake::Effect::Store { ticket, kind, body } => {
                self.node.as_mut().unwrap().queue.push_back((ticket, kind, body));
            }
            intake::Effect::Serve { to, batches, log } => {
                let mut sequence = 0;
                for stored in batches {
                    assert_eq!(stored.header.log, log);
                    let Some(bytes) = node::read(&self.sites, &stored) else { break };
                    sequence = stored.header.last;
                    self.tell(to.connection, to.stream, &Frame::Batch(bytes));
                }
                self.tell(to.connection, to.stream, &Frame::FetchEnd(FetchEnd { sequence }));
            }
            intake::Effect::ServeSnapshot { .. } => panic!("nobody makes snapshots here"),
            intake::Effect::Refused { .. } | intake::Effect::SecondIncarnation { .. } => {}
            other @ (intake::Effect::Quarantined { .. }
            | intake::Effect::DocumentsStored { .. }
            | intake::Effect::RevocationTakenBack { .. }) => panic!("nothing is revoked here: {other:?}"),
            intake::Effect::Close(connection) => {
                let at = self.now + self.delay();
                self.at(at, Event::ReplicaLosesLine { connection: connection.0 });
            }
        }
    }

    fn tell(&mut self, connection: ConnectionId, stream: u64, frame: &Frame) {
        if self.connections.get(&connection.0).is_some_and(|line| line.open_at_node) {
            self.send(connection.0, stream, frame, false);
        }
    }

    fn site_wrote(&mut self, boot: u64, number: usize) {
        let Some(node) = self.node.as_mut().filter(|node| node.boot == boot) else { return };
        let writing = node.writing.as_mut().unwrap();
        writing.left.remove(&number);
        if !self.sites[number].is_down {
            self.sites[number].objects.insert(writing.name.clone(), writing.bytes.clone());
            writing.done.push(number);
            let records = object::records(&writing.bytes).0;
            for record in records.iter().filter(|record| record.kind == Some(RecordKind::Batch)) {
                self.ledger.written(&Batch::from_bytes(record.body.to_vec()).unwrap(), number);
            }
        }
        if writing.left.is_empty() {
            let written = node.writing.take().unwrap();
            let sites: Vec<_> = written.done.iter().map(|number| site(*number)).collect();
            node.intake.handle_stored(written.ticket, &written.location, &sites, self.now);
            self.drain_node();
        }
    }
}

fn decode(bytes: Vec<u8>) -> Frame {
    let (kind, length) = frame_header(*bytes.first_chunk::<FRAME_HEADER_BYTES>().unwrap()).unwrap();
    assert_eq!(bytes.len(), FRAME_HEADER_BYTES + length);
    Frame::from_body(kind, bytes[FRAME_HEADER_BYTES..].to_vec()).unwrap()
}
