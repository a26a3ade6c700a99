//! A node of the cloud around the real engine and the real index, with objects in memory. Honest: what it serves
//! amiss, whoever stands before it has made of it.
//!
//! **Invariant**: an object is at all sites when the engine hears of it.

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::VerifyingKey;
use sonae_cloud::contents::Position;
use sonae_cloud::index::{Fed, Index};
use sonae_cloud::object_name::ObjectName;
use sonae_proto::batch::Batch;
use sonae_proto::ids::Hash32;
use sonae_proto::intake::{ConnectionId, Effect, Intake, Location, ReplyTo, StoredBatch, Ticket};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::snapshot::PartName;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Fetch, FetchEnd, FetchSnapshot, Frame, Hello, KeyDocuments, SnapshotPart};
use ulid::Ulid;

use super::board::{Board, site};

/// The time by the clocks of nodes, in milliseconds.
const NOW_MS: u64 = 1_764_000_000_000;

/// An object with its name.
pub(crate) type Object = (ObjectName, Vec<u8>);

/// The name of the n-th object.
pub(crate) fn name(boot: u64, counter: u64) -> ObjectName {
    ObjectName { boot: Ulid::from_parts(boot, 0), counter }
}

/// A node.
pub(crate) struct Cloud {
    pub intake: Intake,
    pub objects: Vec<Object>,
    pub fed: Fed,
    sites: usize,
    boot: u64,
    queue: VecDeque<(Ticket, RecordKind, Vec<u8>)>,
    next_stream: u64,
    /// Frames that the engine tells unasked, with their connection.
    told: Vec<(ConnectionId, Frame)>,
}

impl Cloud {
    /// Starts on objects that all sites hold.
    pub fn boot(board: &Board, objects: Vec<Object>, sites: usize, quorum: usize) -> Self {
        let mut index = Index::default();
        let all: Vec<_> = (0..sites).map(site).collect();
        for (name, bytes) in &objects {
            for (ordinal, record) in object::records(bytes).0.into_iter().enumerate() {
                let Some(kind) = record.kind else { continue };
                let location = Location {
                    object: name.to_string(),
                    offset: u64::try_from(record.offset).unwrap_or(u64::MAX),
                    bytes: u64::try_from(record.body.len()).unwrap_or(u64::MAX),
                };
                index.add(kind, Position { object: *name, ordinal }, location, record.body, &all);
            }
        }
        Self::of_index(board, index, objects, (sites, quorum), true)
    }

    /// Starts on what reading the sites has shown.
    pub fn of_index(
        board: &Board,
        index: Index,
        objects: Vec<Object>,
        (sites, quorum): (usize, usize),
        complete: bool,
    ) -> Self {
        let mut intake = Intake::new(board.config(sites, quorum));
        intake.set_complete(complete);
        let root: VerifyingKey = board.root.verifying_key();
        let fed = index.feed(&mut intake, &root, quorum);
        let newest = objects.iter().map(|(name, _)| name.boot.timestamp_ms()).max().unwrap_or(0);
        Self {
            intake,
            objects,
            fed,
            sites,
            boot: newest + 1,
            queue: VecDeque::new(),
            next_stream: 1,
            told: Vec::new(),
        }
    }

    /// A hello. Returns what is answered on the control stream.
    pub fn hello(&mut self, connection: u64, tls_key: &[u8; 32], hello: &Hello) -> Vec<Frame> {
        let to = ReplyTo { connection: ConnectionId(connection), stream: 0 };
        self.intake.handle_hello(to, tls_key, hello, NOW_MS);
        let mut frames = self.drain(to);
        frames.append(&mut self.told(connection));
        frames
    }

    /// Key documents.
    pub fn keys(&mut self, connection: u64, keys: &KeyDocuments) {
        self.intake.handle_keys(ConnectionId(connection), keys);
        self.drain(ReplyTo { connection: ConnectionId(connection), stream: 0 });
    }

    /// A batch. Returns its answer, if it has one now.
    pub fn batch(&mut self, connection: u64, bytes: Vec<u8>) -> Vec<Frame> {
        let to = self.stream(connection);
        self.intake.handle_batch(to, bytes, NOW_MS);
        self.drain(to)
    }

    /// A fetch. Returns its batches and their end.
    pub fn fetch(&mut self, connection: u64, fetch: &Fetch) -> Vec<Frame> {
        let to = self.stream(connection);
        self.intake.handle_fetch(to, fetch);
        self.drain(to)
    }

    /// A fetch of a snapshot. Returns its root, its parts and their end.
    pub fn fetch_snapshot(&mut self, connection: u64, fetch: &FetchSnapshot) -> Vec<Frame> {
        let to = self.stream(connection);
        self.intake.handle_fetch_snapshot(to, fetch);
        self.drain(to)
    }

    /// A connection is gone.
    pub fn leave(&mut self, connection: u64) {
        self.intake.handle_disconnected(ConnectionId(connection));
        self.drain(ReplyTo { connection: ConnectionId(connection), stream: 0 });
    }

    /// What was told unasked on a connection since.
    pub fn told(&mut self, connection: u64) -> Vec<Frame> {
        let (mine, others) =
            std::mem::take(&mut self.told).into_iter().partition(|(to, _)| to.0 == connection);
        self.told = others;
        mine.into_iter().map(|(_, frame)| frame).collect()
    }

    /// Heads of all logs of a school.
    pub fn heads(&self, board: &Board) -> Heads {
        let overview = self.intake.overview().into_iter();
        let mut of_school = overview.filter(|one| one.school == board.school.code);
        of_school.next().map(|school| school.heads).unwrap_or_default()
    }

    /// Whether a batch with this head lies at the sites.
    pub fn holds(&self, head: LogHead) -> bool {
        self.batches().any(|batch| batch.header().head() == head)
    }

    /// Whether each head is the end of an unbroken chain of batches that lie at the sites.
    pub fn is_chained(&self, heads: &Heads) -> bool {
        let before: BTreeMap<Hash32, Hash32> =
            self.batches().map(|batch| (batch.header().hash(), batch.header().previous)).collect();
        heads.values().all(|head| {
            let mut next = head.hash;
            while next != Hash32::ZERO {
                let Some(previous) = before.get(&next) else { return false };
                next = *previous;
            }
            true
        })
    }

    fn batches(&self) -> impl Iterator<Item = Batch> {
        let records = self.objects.iter().flat_map(|(_, bytes)| object::records(bytes).0);
        records
            .filter(|record| record.kind == Some(RecordKind::Batch))
            .filter_map(|record| Batch::from_bytes(record.body.to_vec()).ok())
    }

    fn stream(&mut self, connection: u64) -> ReplyTo {
        self.next_stream += 1;
        ReplyTo { connection: ConnectionId(connection), stream: self.next_stream }
    }

    /// Does everything that the engine asks for. Returns what is answered on one stream.
    fn drain(&mut self, on: ReplyTo) -> Vec<Frame> {
        let mut answers = Vec::new();
        loop {
            while let Some(effect) = self.intake.poll_effect() {
                match effect {
                    Effect::Reply { to, frame } if to == on => answers.push(*frame),
                    Effect::Tell { connection, frame } => self.told.push((connection, *frame)),
                    Effect::Store { ticket, kind, body } => self.queue.push_back((ticket, kind, body)),
                    Effect::Serve { to, batches, .. } if to == on => self.serve(&batches, &mut answers),
                    Effect::ServeSnapshot { to, root, text, parts } if to == on => {
                        self.serve_snapshot(root, text, &parts, &mut answers);
                    }
                    Effect::Reply { .. }
                    | Effect::Serve { .. }
                    | Effect::ServeSnapshot { .. }
                    | Effect::Refused { .. }
                    | Effect::SecondIncarnation { .. }
                    | Effect::Quarantined { .. }
                    | Effect::DocumentsStored { .. }
                    | Effect::RevocationTakenBack { .. }
                    | Effect::Close(_) => {}
                }
            }
            if self.queue.is_empty() {
                return answers;
            }
            self.put();
        }
    }

    fn serve(&self, batches: &[StoredBatch], answers: &mut Vec<Frame>) {
        let mut sequence = 0;
        for stored in batches {
            let Some(bytes) = self.read(stored) else { break };
            sequence = stored.header.last;
            answers.push(Frame::Batch(bytes));
        }
        answers.push(Frame::FetchEnd(FetchEnd { sequence }));
    }

    fn serve_snapshot(
        &self,
        root: Hash32,
        text: Option<String>,
        parts: &[(u32, Hash32, Location)],
        answers: &mut Vec<Frame>,
    ) {
        answers.extend(text.map(Frame::Snapshot));
        for (number, hash, place) in parts {
            let is_it = |bytes: &[u8]| PartName::of(bytes).hash == *hash;
            let Some(sealed) = self.copies(place).find(|bytes| is_it(bytes)) else { break };
            let part = SnapshotPart { root, number: *number, sealed: sealed.to_vec() };
            answers.push(Frame::SnapshotPart(Box::new(part)));
        }
        answers.push(Frame::FetchEnd(FetchEnd { sequence: 0 }));
    }

    fn read(&self, stored: &StoredBatch) -> Option<Vec<u8>> {
        self.copies(&stored.location).find_map(|bytes| {
            let batch = Batch::from_bytes(bytes.to_vec()).ok()?;
            (*batch.header() == stored.header).then(|| batch.bytes().to_vec())
        })
    }

    /// What lies at a place. Copies of one name can differ where a site was tampered with; the right one names itself.
    fn copies(&self, place: &Location) -> impl Iterator<Item = &[u8]> {
        let start = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let end = usize::try_from(place.bytes).unwrap_or(usize::MAX).saturating_add(start);
        let copies = self.objects.iter().filter(|(name, _)| name.to_string() == place.object);
        copies.filter_map(move |(_, bytes)| bytes.get(start..end))
    }

    fn put(&mut self) {
        let counter = u64::try_from(self.objects.len()).unwrap_or(u64::MAX);
        let name = name(self.boot, counter);
        let mut bytes = Vec::new();
        let mut placed = Vec::new();
        while let Some((ticket, kind, body)) = self.queue.pop_front() {
            let offset = u64::try_from(object::append(&mut bytes, kind, &body)).unwrap_or(u64::MAX);
            let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
            placed.push((ticket, Location { object: name.to_string(), offset, bytes: length }));
        }
        self.objects.push((name, bytes));
        let sites: Vec<_> = (0..self.sites).map(site).collect();
        for (ticket, location) in placed {
            self.intake.handle_stored(ticket, &location, &sites, NOW_MS);
        }
    }
}
