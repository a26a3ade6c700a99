//! A node's engine under the hand of a test: nothing is stored before the test says so.

use std::collections::BTreeMap;

use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::LogName;
use sonae_proto::intake::{ConnectionId, Effect, Intake, Location, ReplyTo, Ticket};
use sonae_proto::object::RecordKind;
use sonae_proto::receipt::Receipt;
use sonae_proto::vector::{Heads, LogHead, Sequences};
use sonae_proto::wire::{
    Fetch, FetchSnapshot, Frame, Hello, KeyDocuments, PROTOCOL, RefusalCode, SnapshotPart, Welcome,
};

use crate::board::{Board, Life, site};

pub struct Desk {
    pub board: Board,
    pub intake: Intake,
    pub replies: BTreeMap<ReplyTo, Frame>,
    pub told: Vec<(ConnectionId, Frame)>,
    pub stores: Vec<(Ticket, RecordKind, Vec<u8>)>,
    pub served: Vec<Vec<LogHead>>,
    pub refused: Vec<RefusalCode>,
    pub closed: Vec<ConnectionId>,
    /// Kinds of all records that were stored.
    pub stored: Vec<RecordKind>,
    /// Snapshots that were served: the root's text and places of parts.
    pub served_snapshots: Vec<(Option<String>, Vec<u32>)>,
    pub quarantined: Vec<(ReplyTo, bool)>,
    pub documents: Vec<(ReplyTo, bool)>,
    pub taken_back: Vec<u64>,
    streams: u64,
}

impl Desk {
    /// A node that writes to two sites and needs both.
    pub fn new() -> Self {
        let board = Board::new(1);
        let intake = board.intake(2, 2);
        Self::with(board, intake)
    }

    pub fn with(board: Board, mut intake: Intake) -> Self {
        intake.set_complete(true);
        Self {
            board,
            intake,
            replies: BTreeMap::new(),
            told: Vec::new(),
            stores: Vec::new(),
            served: Vec::new(),
            refused: Vec::new(),
            closed: Vec::new(),
            stored: Vec::new(),
            served_snapshots: Vec::new(),
            quarantined: Vec::new(),
            documents: Vec::new(),
            taken_back: Vec::new(),
            streams: 0,
        }
    }

    /// A node that knows a replica and the keys, all of it durable.
    pub fn ready() -> (Self, Life) {
        let mut desk = Self::new();
        let life = desk.board.enrol(crate::board::school(), 10);
        desk.greet(1, &life, 0);
        desk.keys(1, &desk.board.documents());
        desk.store_all(2);
        (desk, life)
    }

    pub fn stream(&mut self, connection: u64) -> ReplyTo {
        self.streams += 1;
        ReplyTo { connection: ConnectionId(connection), stream: self.streams }
    }

    pub fn drain(&mut self) {
        while let Some(effect) = self.intake.poll_effect() {
            match effect {
                Effect::Reply { to, frame } => {
                    let known = self.replies.insert(to, *frame);
                    assert_eq!(known, None, "one reply for a stream");
                }
                Effect::Tell { connection, frame } => self.told.push((connection, *frame)),
                Effect::Store { ticket, kind, body } => self.stores.push((ticket, kind, body)),
                Effect::Serve { batches, .. } => {
                    self.served.push(batches.iter().map(|stored| stored.header.head()).collect());
                }
                Effect::Refused { code, .. } => self.refused.push(code),
                Effect::ServeSnapshot { text, parts, .. } => {
                    let places = parts.iter().map(|(number, _, _)| *number).collect();
                    self.served_snapshots.push((text, places));
                }
                Effect::SecondIncarnation { .. } => {}
                Effect::Quarantined { to, is_new } => self.quarantined.push((to, is_new)),
                Effect::DocumentsStored { to, durable } => self.documents.push((to, durable)),
                Effect::RevocationTakenBack { version, .. } => self.taken_back.push(version),
                Effect::Close(connection) => self.closed.push(connection),
            }
        }
    }

    pub fn hello(life: &Life, loss_counter: u64) -> Hello {
        Hello {
            protocol: PROTOCOL,
            school: life.school,
            identity: life.identity.clone(),
            loss_counter,
            receipted: Heads::new(),
            have: Sequences::new(),
            manifest_version: 1,
            nonce: "ab".repeat(16),
            software: "pair".into(),
            ended: EndedHashes::new(),
        }
    }

    pub fn greet(&mut self, connection: u64, life: &Life, loss_counter: u64) -> Welcome {
        let to = self.stream(connection);
        self.intake.handle_hello(to, &life.tls_key, &Self::hello(life, loss_counter), 5);
        self.drain();
        match self.replies.get(&to) {
            Some(Frame::Welcome(welcome)) => (**welcome).clone(),
            other => panic!("{other:?}"),
        }
    }

    /// A hello with any fields, with its answer.
    pub fn say(&mut self, connection: u64, tls_key: &[u8; 32], hello: &Hello) -> Frame {
        let to = self.stream(connection);
        self.intake.handle_hello(to, tls_key, hello, 5);
        self.drain();
        self.replies[&to].clone()
    }

    /// The opening of a courier's bundle from a life.
    pub fn greet_carried(&mut self, connection: u64, life: &Life) -> Frame {
        let to = self.stream(connection);
        self.intake.handle_carried_hello(to, &Self::hello(life, 0), 5);
        self.drain();
        self.replies[&to].clone()
    }

    /// Key documents by the board's own hand.
    pub fn bring(&mut self, keys: &KeyDocuments) -> Result<ReplyTo, String> {
        let to = self.stream(99);
        let outcome = self.intake.handle_documents(to, keys);
        self.drain();
        outcome.map(|()| to)
    }

    /// Asks for a log from its beginning. Returns the heads of the batches that are served.
    pub fn fetch(&mut self, connection: u64, log: LogName) -> Vec<LogHead> {
        let to = self.stream(connection);
        self.intake.handle_fetch(to, &Fetch { log, after: 0 });
        self.drain();
        self.served.pop().unwrap()
    }

    pub fn keys(&mut self, connection: u64, keys: &KeyDocuments) {
        self.intake.handle_keys(ConnectionId(connection), keys);
        self.drain();
    }

    pub fn offer(&mut self, connection: u64, batch: &Batch) -> ReplyTo {
        self.offer_bytes(connection, batch.bytes().to_vec())
    }

    pub fn offer_bytes(&mut self, connection: u64, bytes: Vec<u8>) -> ReplyTo {
        let to = self.stream(connection);
        self.intake.handle_batch(to, bytes, 6);
        self.drain();
        to
    }

    pub fn offer_snapshot(&mut self, connection: u64, text: &str) -> ReplyTo {
        let to = self.stream(connection);
        self.intake.handle_snapshot(to, text, 6);
        self.drain();
        to
    }

    pub fn send_part(&mut self, connection: u64, part: SnapshotPart) -> ReplyTo {
        let to = self.stream(connection);
        self.intake.handle_snapshot_part(to, part);
        self.drain();
        to
    }

    pub fn fetch_snapshot(&mut self, connection: u64, fetch: &FetchSnapshot) -> (Option<String>, Vec<u32>) {
        let to = self.stream(connection);
        self.intake.handle_fetch_snapshot(to, fetch);
        self.drain();
        self.served_snapshots.pop().unwrap()
    }

    /// The oldest record that is to be stored gets to `sites` sites.
    pub fn store_next(&mut self, sites: usize) {
        let (ticket, kind, body) = self.stores.remove(0);
        self.stored.push(kind);
        let location = Location { object: format!("o{}", ticket.0), offset: 9, bytes: body.len() as u64 };
        let sites: Vec<_> = (0..sites).map(site).collect();
        self.intake.handle_stored(ticket, &location, &sites, 7);
        self.drain();
    }

    pub fn store_all(&mut self, sites: usize) {
        while !self.stores.is_empty() {
            self.store_next(sites);
        }
    }

    pub fn receipt(&self, to: ReplyTo) -> Option<Receipt> {
        match self.replies.get(&to)? {
            Frame::Receipt(bytes) => Some(Receipt::verify(bytes, &self.board.descriptor()).unwrap()),
            _ => None,
        }
    }

    pub fn refusal(&self, to: ReplyTo) -> Option<RefusalCode> {
        match self.replies.get(&to)? {
            Frame::Refusal(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}
