//! What happens on the lines: dialling, sending, losing; and what arrives at a box.

use sonae_proto::batch::Batch;
use sonae_proto::ids::LogName;
use sonae_proto::intake::ConnectionId;
use sonae_proto::uplink::{BatchReply, SnapshotReply};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{FRAME_HEADER_BYTES, Frame, Refusal, RefusalCode, Welcome, frame_header};

use super::event::Event;
use super::later;
use super::line::{CONTROL, Connection, Waiting};
use super::options::LanKind;
use super::slot::Slot;
use super::world::World;

/// Milliseconds after which a box gives up a connection on which nothing is answered.
const ANSWER_MS: u64 = 10_000;

impl World {
    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Connect { slot, life } => {
                if self.slots[slot].lives == life {
                    self.connect(slot);
                }
            }
            Event::ToNode { connection, stream, frame } => {
                let boot = self.connections.get(&connection).map_or(0, |line| line.boot);
                self.at_node(boot, |world| world.node_reads(connection, stream, frame));
            }
            Event::ToBox { connection, stream, frame } => self.box_reads(connection, stream, frame),
            Event::BoxLosesLine { connection } => self.box_loses_line(connection),
            Event::LookAtLine { connection } => {
                let slot = self.connections.get(&connection).map(|line| line.slot);
                let blocked =
                    slot.is_some_and(|slot| self.slots[slot].blocked_up || self.slots[slot].blocked_down);
                if blocked {
                    self.box_loses_line(connection);
                }
            }
            Event::NodeLosesLine { connection } => {
                let Some(line) = self.connections.get_mut(&connection) else { return };
                line.open_at_node = false;
                let boot = line.boot;
                self.at_node(boot, |world| {
                    if let Some(node) = world.node.as_mut().filter(|node| node.boot == boot) {
                        node.intake.handle_disconnected(ConnectionId(connection));
                    }
                    world.drain_node();
                });
            }
            Event::SiteWrote { boot, site } => self.at_node(boot, |world| world.site_wrote(boot, site)),
            Event::LossKept { slot, life } => {
                let parts = &mut self.slots[slot];
                if parts.lives == life
                    && let Some(replica) = &mut parts.replica
                {
                    parts.book.raise(replica.engine.loss_counter());
                    replica.engine.handle_loss_kept();
                    replica.resume_snapshots(&self.board, &parts.life);
                    self.drain_box(slot);
                }
            }
            Event::StartBox { slot, life } => {
                if self.slots[slot].lives == life {
                    self.start_box(slot);
                }
            }
            Event::ToNeighbour { link, end, stream, frame } => {
                self.neighbour_reads(link, end, stream, &frame);
            }
            Event::LoseLink { link, end } => self.lose_link(link, end),
            Event::LookAtLink { link, end } => self.look_at_link(link, end),
            Event::LookAtStall { from, to } => self.look_at_stall(from, to),
            Event::DialNeighbour { from, to } => self.dial_neighbour(from, to),
            Event::ToNodeByHand { slot, trip, file } => self.node_reads_file(slot, trip, file),
            Event::AnswerByHand { courier } => self.answer_by_hand(courier),
            Event::ToBoxByHand { slot, file } => self.box_reads_file(slot, &file),
            Event::CarryOver { slot } => self.try_carry_over(slot),
            Event::StartNode { boot } => {
                if self.boots == boot {
                    self.start_node(false);
                }
            }
        }
    }

    fn box_loses_line(&mut self, connection: u64) {
        let slot = self.connections.get(&connection).map(|line| line.slot);
        if let Some(slot) = slot.filter(|slot| self.slots[*slot].line == Some(connection)) {
            self.lose_line(slot);
        }
    }

    fn connect(&mut self, slot: usize) {
        let (told, found) = (self.told(slot), self.found_by(slot));
        let parts = &mut self.slots[slot];
        let Some(replica) = &mut parts.replica else { return };
        let is_cut = parts.blocked_up || parts.blocked_down || self.options.lan == LanKind::Alone;
        match found.filter(|_| !is_cut) {
            None => replica.engine.handle_disconnected(told),
            Some(boot) if parts.line.is_none() => self.next_connection(slot, boot),
            Some(_) => {}
        }
        self.drain_box(slot);
    }

    fn next_connection(&mut self, slot: usize, boot: u64) {
        let number = self.number();
        let parts = &mut self.slots[slot];
        self.connections.insert(number, Connection::new(slot, boot, parts.life.tls_key));
        parts.line = Some(number);
        if let Some(replica) = &mut parts.replica {
            replica.sent.clear();
            replica.engine.handle_connected();
        }
    }

    /// The box's end is gone at once, the node's end some time later.
    pub fn lose_line(&mut self, slot: usize) {
        self.slots[slot].welcomed_by = None;
        let Some(number) = self.slots[slot].line.take() else { return };
        self.note(format_args!("box {slot} loses its line"));
        if let Some(line) = self.connections.get_mut(&number) {
            line.open_at_box = false;
        }
        let at = self.now + self.delay() * 3;
        self.at(at, Event::NodeLosesLine { connection: number });
        let told = self.told(slot);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.sent.clear();
            replica.engine.handle_disconnected(told);
            self.drain_box(slot);
        }
    }

    pub fn open_stream(&mut self, slot: usize, waiting: Waiting) -> Option<u64> {
        let line = self.connections.get_mut(&self.slots[slot].line?)?;
        Some(line.open_stream(waiting))
    }

    pub fn send_up(&mut self, slot: usize, stream: u64, frame: &Frame) {
        match self.slots[slot].line {
            Some(number) => self.send(number, stream, frame, true),
            None => self.violate(format!("box {slot} is to send without a line")),
        }
    }

    pub fn send(&mut self, number: u64, stream: u64, frame: &Frame, up: bool) {
        let bytes = match frame.to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => return self.violate(format!("a frame has no bytes: {error}")),
        };
        let Some(line) = self.connections.get(&number) else { return };
        // The node has the later version in such a run.
        let is_later = self.options.later && (!up || later::is_later(&self.slots[line.slot].life));
        let bytes = if is_later { later::frame(bytes) } else { bytes };
        self.trace.bytes(&bytes);
        let mut at = self.now + self.delay();
        let Some(line) = self.connections.get_mut(&number) else { return };
        let parts = &self.slots[line.slot];
        if line.has_hole(stream, up) {
            return;
        }
        if if up { parts.blocked_up } else { parts.blocked_down } {
            line.lose(stream, up);
            self.note(format_args!("line {number} swallows a message"));
            return self.at(self.now + ANSWER_MS, Event::BoxLosesLine { connection: number });
        }
        if self.random.one_in(self.options.loss_one_in) {
            if self.random.one_in(2) {
                line.lose(stream, up);
                return self.at(at + 200, Event::BoxLosesLine { connection: number });
            }
            // Sent again by the transport, some round trips later.
            at += 3 * self.options.delay_ms_max;
        }
        let at = line.arrival(stream, up, at);
        let message = |connection, stream, frame| {
            if up {
                Event::ToNode { connection, stream, frame }
            } else {
                Event::ToBox { connection, stream, frame }
            }
        };
        self.at(at, message(number, stream, bytes));
    }

    /// Reads what a node or a box sent; both are honest, so it has a meaning.
    pub fn decode(&mut self, bytes: &[u8]) -> Option<Frame> {
        let frame = bytes
            .split_first_chunk::<FRAME_HEADER_BYTES>()
            .and_then(|(header, body)| Some((frame_header(*header).ok()?, body)))
            .and_then(|((kind, _), body)| Frame::from_body(kind, body.to_vec()).ok());
        if frame.is_none() {
            self.violate("a frame cannot be read".into());
        }
        frame
    }

    fn box_reads(&mut self, connection: u64, stream: u64, bytes: Vec<u8>) {
        let Some(line) = self.connections.get(&connection) else { return };
        let (slot, boot, waiting) = (line.slot, line.boot, line.streams.get(&stream).copied());
        if !line.open_at_box || waiting == Some(Waiting::Nobody) {
            return;
        }
        if stream != CONTROL
            && let Some(line) = self.connections.get_mut(&connection).filter(|line| !line.is_welcomed)
        {
            // It overtakes the welcome, without which nothing on it has a meaning.
            return line.early_down.push((stream, bytes));
        }
        let Some(frame) = self.decode(&bytes) else { return };
        let told = self.told(slot);
        self.note(format_args!("box {slot} reads {} on {stream}", kind(&frame)));
        let is_revoked = self.is_revoked(slot);
        let parts = &mut self.slots[slot];
        let Some(replica) = &mut parts.replica else { return };
        match (frame, waiting) {
            (Frame::Refusal(_), None) if is_revoked => return self.lose_line(slot),
            (Frame::Welcome(welcome), None) => {
                parts.welcomed_by = welcome.complete.then_some(boot);
                self.box_reads_welcome(slot, &welcome);
                return self.welcomed(connection);
            }
            (Frame::Keys(keys), None) => self.box_reads_keys(slot, &keys),
            (Frame::News(news), None) => {
                replica.engine.handle_news(&news, told);
                self.note_news(slot, &news.heads);
            }
            (Frame::Receipt(bytes), Some(Waiting::Reply(log))) => {
                if log.incarnation == parts.life.name {
                    parts.receipts.push((log, bytes.clone()));
                    replica.cannot_store = false;
                }
                replica.engine.handle_batch_reply(log, BatchReply::Receipt(bytes), told);
            }
            (Frame::Refusal(refusal), Some(Waiting::Reply(log))) => self.batch_refused(slot, log, refusal),
            (Frame::Batch(bytes), Some(Waiting::Fetch)) => match Batch::from_bytes(bytes) {
                Ok(batch) => replica.engine.handle_fetched(batch),
                Err(error) => self.violate(format!("a served batch is none: {error}")),
            },
            (Frame::FetchEnd(_), Some(Waiting::Fetch)) => replica.engine.handle_fetch_end(),
            (Frame::Snapshot(text), Some(Waiting::Snapshot(name))) => {
                replica.engine.handle_snapshot_root(name, &text);
            }
            (Frame::SnapshotPart(part), Some(Waiting::Snapshot(_))) => {
                replica.engine.handle_snapshot_part(*part);
            }
            (Frame::FetchEnd(_), Some(Waiting::Snapshot(name))) => replica.engine.handle_snapshot_end(name),
            (Frame::Refusal(_), Some(Waiting::Snapshot(_))) => return self.lose_line(slot),
            (Frame::Receipt(bytes), Some(Waiting::Offer(root))) => {
                replica.engine.handle_snapshot_reply(root, SnapshotReply::Receipt(bytes), told);
            }
            (Frame::SnapshotWants(wants), Some(Waiting::Offer(root))) => {
                replica.engine.handle_snapshot_reply(root, SnapshotReply::Wants(wants), told);
            }
            (Frame::Refusal(refusal), Some(Waiting::Offer(root))) => {
                replica.engine.handle_snapshot_reply(root, SnapshotReply::Refusal(refusal), told);
            }
            (frame, waiting) => {
                self.violate(format!("{} on a stream of {waiting:?}", kind(&frame)));
            }
        }
        self.drain_box(slot);
    }

    fn batch_refused(&mut self, slot: usize, log: LogName, refusal: Refusal) {
        let told = self.told(slot);
        // What a chain refusal means, the next welcome says: a branch that was on its way may have failed.
        let is_own = log.incarnation == self.slots[slot].life.name;
        let is_history = is_own && refusal.code == RefusalCode::Fork;
        let Some(replica) = &mut self.slots[slot].replica else { return };
        replica.cannot_store |= is_own && refusal.code == RefusalCode::Storage;
        let text = Refusal::clone(&refusal).text;
        replica.engine.handle_batch_reply(log, BatchReply::Refusal(refusal), told);
        if is_history {
            self.note(format_args!("box {slot} is refused {log}: {text}"));
            self.own_log_elsewhere(slot, log);
        }
    }

    fn box_reads_welcome(&mut self, slot: usize, welcome: &Welcome) {
        let (told, life) = (self.told(slot), self.slots[slot].lives);
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let welcome = replica.engine.complete(welcome).into_owned();
        replica.engine.handle_welcome(&welcome, told);
        self.compare_own(slot, &welcome.heads);
        self.drain_box(slot);
        self.were_people_told(slot);
        // One that begins a new incarnation for it has been shown nothing yet.
        if self.slots[slot].lives == life {
            self.check_shown(slot, &welcome.heads, welcome.complete);
        }
    }

    /// The welcome has been read: what overtook it goes on.
    fn welcomed(&mut self, connection: u64) {
        let Some(line) = self.connections.get_mut(&connection) else { return };
        line.is_welcomed = true;
        for (stream, bytes) in std::mem::take(&mut line.early_down) {
            self.box_reads(connection, stream, bytes);
        }
    }

    /// Compares what the cloud has of own logs with what is held, without asking the engine.
    fn compare_own(&mut self, slot: usize, heads: &Heads) {
        let Slot { replica: Some(replica), life, .. } = &mut self.slots[slot] else { return };
        for (log, head) in heads.iter().filter(|(log, _)| log.incarnation == life.name) {
            let sealed = replica.store.held.sealed.get(log).into_iter().flatten();
            let base = replica.store.held.base(*log);
            let mut points = sealed.map(|batch| batch.header().head()).chain([LogHead::EMPTY, base]);
            // Of what was pruned nobody can tell. Nothing more can become safe then, which shows at the end.
            if head.sequence > base.sequence && points.all(|point| point != *head) {
                replica.stopped.insert(*log);
            }
        }
    }

    fn were_people_told(&mut self, slot: usize) {
        let Some(replica) = &self.slots[slot].replica else { return };
        if let Some(log) = replica.stopped.difference(&replica.told).next().copied() {
            self.violate(format!("box {slot} says nothing of another history of {log}"));
        }
    }
}

pub(crate) const fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "hello",
        Frame::Welcome(_) => "welcome",
        Frame::Batch(_) => "batch",
        Frame::Receipt(_) => "receipt",
        Frame::Refusal(_) => "refusal",
        Frame::Keys(_) => "keys",
        Frame::Fetch(_) => "fetch",
        Frame::FetchEnd(_) => "fetch end",
        Frame::News(_) => "news",
        Frame::Snapshot(_) => "snapshot",
        Frame::SnapshotPart(_) => "part of a snapshot",
        Frame::SnapshotWants(_) => "missing parts",
        Frame::FetchSnapshot(_) => "fetch of a snapshot",
        Frame::Proof(_) => "proof",
    }
}

/// The stream on which the node speaks unasked.
pub(crate) const NODE_STREAM: u64 = CONTROL;
