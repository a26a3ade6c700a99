//! One bundle on its way into the engine: a connection without a line.
//!
//! **Invariant**: a batch is offered only when it can follow what the engine has or was offered, so each gets an
//! answer: nothing waits for an earlier batch that never comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::courier::{CourierError, Decoder, Opening, Origin, Record, ReplicaOpening};
use sonae_proto::ended::EndedHashes;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Incarnation, LogName, SchoolCode};
use sonae_proto::intake::{ConnectionId, ReplyTo};
use sonae_proto::wire::{Frame, Hello, KeyDocuments, PROTOCOL, Refusal, RefusalCode, Welcome};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{Desk, Early, IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES, Report};
use crate::engine::{Answer, Input};
use crate::limits::{ANSWER_TIMEOUT, CONTROL_FRAMES_MAX};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Texts of refusals that are kept; the rest is counted.
const REFUSALS_MAX: usize = 20;

/// A greeted connection without a line.
pub(super) struct Greeted {
    pub connection: ConnectionId,
    /// Newer key documents than those that the hello named.
    pub keys: Option<Box<KeyDocuments>>,
    pub control: mpsc::Receiver<Frame>,
    pub welcome: Box<Welcome>,
    /// Held so that the engine does not find the connection gone.
    _closed: watch::Receiver<bool>,
}

/// Why a file is not read on.
pub(super) enum Stop {
    File(CourierError),
    Refused(String),
    Cut(String),
}

fn stopping<E>(_: E) -> Stop {
    Stop::Cut("the node is stopping".into())
}

impl Desk {
    /// Greets the engine as an incarnation would. The identity has proven itself; there is no certificate.
    pub(super) async fn greet(&self, next: &mut u64, hello: Hello) -> Result<Greeted, Stop> {
        let identity = hello.identity.verify(&self.board, hello.school);
        identity.map_err(|error| Stop::Refused(crate::export::said(&error)))?;
        let connection = ConnectionId(*next);
        *next += 1;
        let (control, mut told) = mpsc::channel(CONTROL_FRAMES_MAX);
        let (closing, closed) = watch::channel(false);
        self.engine.send(Input::Connected { connection, control, closing }).await.map_err(stopping)?;
        let hello = Box::new(hello);
        self.engine.send(Input::Hello { connection, tls_key: None, hello }).await.map_err(stopping)?;
        let mut keys = None;
        loop {
            match timeout(ANSWER_TIMEOUT, told.recv()).await {
                Ok(Some(Frame::Keys(newer))) => keys = Some(newer),
                Ok(Some(Frame::Welcome(welcome))) => {
                    return Ok(Greeted { connection, keys, control: told, welcome, _closed: closed });
                }
                Ok(Some(Frame::Refusal(refusal))) => return Err(Stop::Refused(refusal.text)),
                Ok(_) | Err(_) => return Err(stopping(())),
            }
        }
    }

    pub(super) async fn leave(&self, connection: ConnectionId) {
        let _ = self.engine.send(Input::Disconnected(connection)).await;
    }
}

pub(super) fn hello(school: SchoolCode, replica: &ReplicaOpening, software: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        school,
        identity: replica.identity.clone(),
        loss_counter: replica.loss_counter,
        receipted: replica.receipted.clone(),
        have: replica.have.clone(),
        manifest_version: replica.manifest_version,
        nonce: String::new(),
        software: software.to_owned(),
        ended: EndedHashes::new(),
    }
}

/// What an answer is made of.
pub(super) struct Told {
    pub opening: Opening,
    pub replica: ReplicaOpening,
    pub incarnation: Incarnation,
    /// The newest receipt of each of its logs.
    pub receipts: BTreeMap<LogName, Vec<u8>>,
}

struct Waiting {
    header: BatchHeader,
    bytes: usize,
    answer: oneshot::Receiver<Answer>,
}

/// A bundle being read.
pub(super) struct Session<'a> {
    desk: &'a Desk,
    next: &'a mut u64,
    greeted: Option<Greeted>,
    told: Option<Told>,
    streams: u64,
    in_flight: VecDeque<Waiting>,
    in_flight_bytes: usize,
    /// Last sequence of each log that was offered, or that the engine had at the beginning.
    offered: BTreeMap<LogName, u64>,
    early: BTreeMap<LogName, Early>,
    stopped: BTreeSet<LogName>,
    /// The bundle is the board's.
    is_of_board: bool,
    report: Report,
}

impl<'a> Session<'a> {
    pub fn new(desk: &'a Desk, next: &'a mut u64) -> Self {
        Self {
            desk,
            next,
            greeted: None,
            told: None,
            streams: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            offered: BTreeMap::new(),
            early: BTreeMap::new(),
            stopped: BTreeSet::new(),
            is_of_board: false,
            report: Report::default(),
        }
    }

    /// Reads a bundle to its end, or as far as it goes.
    pub async fn read(&mut self, input: &mut (impl AsyncRead + Unpin)) {
        let outcome = self.read_all(input).await;
        // What came whole is taken, whatever followed.
        while !self.in_flight.is_empty() {
            self.settle_first().await;
        }
        match outcome {
            Ok(()) => {}
            Err(Stop::File(error @ (CourierError::Magic | CourierError::Format { .. }))) => {
                self.report.refused_file = Some(error.to_string());
            }
            Err(Stop::File(error)) => self.report.cut = Some(error.to_string()),
            Err(Stop::Refused(text)) => self.report.refused_file = Some(text),
            Err(Stop::Cut(text)) => self.report.cut = Some(text),
        }
    }

    /// Ends the conversation with the engine. Returns the report and what an answer needs.
    pub async fn finish(mut self) -> (Report, Option<Told>) {
        if let Some(greeted) = &self.greeted {
            self.desk.leave(greeted.connection).await;
        }
        self.report.early = self.early.into_values().collect();
        self.report.answer = self.told.is_some();
        (self.report, self.told)
    }

    async fn read_all(&mut self, input: &mut (impl AsyncRead + Unpin)) -> Result<(), Stop> {
        let mut decoder = Decoder::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = input.read(&mut piece).await;
            let count = count.map_err(|error| Stop::Cut(format!("the file cannot be read: {error}")))?;
            if count == 0 {
                return decoder.finish().map(|_| ()).map_err(Stop::File);
            }
            decoder.feed(piece.get(..count).unwrap_or_default());
            while let Some(record) = decoder.poll().map_err(Stop::File)? {
                self.take(record).await?;
            }
        }
    }

    async fn take(&mut self, record: Record) -> Result<(), Stop> {
        match record {
            Record::Opening(opening) => self.open(*opening).await,
            Record::Batch(bytes) => self.batch(bytes).await,
            Record::Identity(identity) => self.identity(*identity).await,
            Record::Keys(keys) if self.is_of_board => self.documents(*keys).await,
            Record::Keys(keys) => {
                let Some(greeted) = &self.greeted else { return Ok(()) };
                let connection = greeted.connection;
                let keys = Box::new(*keys);
                self.desk.engine.send(Input::Keys { connection, keys }).await.map_err(stopping)
            }
            Record::Receipt(_) | Record::End(_) | Record::Unknown(_) => Ok(()),
        }
    }

    /// The board's own key documents: whether they are at the quorum is part of the answer.
    async fn documents(&mut self, keys: KeyDocuments) -> Result<(), Stop> {
        self.streams += 1;
        let (reply, answer) = oneshot::channel();
        let to = ReplyTo { connection: ConnectionId(*self.next), stream: self.streams };
        let keys = Box::new(keys);
        self.desk.engine.send(Input::Documents { to, keys, reply }).await.map_err(stopping)?;
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(Answer::Documents(Ok(true)))) => self.report.documents += 1,
            Ok(Ok(Answer::Documents(Ok(false)))) => self.report.storage = true,
            Ok(Ok(Answer::Documents(Err(text)))) => self.refuse(1, format!("key documents: {text}")),
            Ok(_) | Err(_) => self.refuse(1, "the node gave no answer to key documents".into()),
        }
        Ok(())
    }

    async fn open(&mut self, opening: Opening) -> Result<(), Stop> {
        self.report.school = Some(opening.school);
        if opening.from == Origin::Board {
            self.is_of_board = true;
            return Ok(());
        }
        let Origin::Replica(replica) = opening.from.clone() else {
            let text =
                "this is an answer of the cloud; carry it to the school and import it on the box there";
            return Err(Stop::Refused(text.into()));
        };
        let verified = replica.identity.verify(&self.desk.board, opening.school);
        let identity = verified.map_err(|error| Stop::Refused(crate::export::said(&error)))?;
        let hello = hello(opening.school, &replica, &opening.software);
        let greeted = self.desk.greet(self.next, hello).await?;
        let heads = &greeted.welcome.heads;
        self.offered = heads.iter().map(|(log, head)| (*log, head.sequence)).collect();
        if greeted.welcome.complete {
            let had = replica.receipted.iter();
            let lost =
                had.filter(|(log, head)| heads.get(log).map_or(0, |there| there.sequence) < head.sequence);
            self.report.lost = lost.map(|(log, _)| *log).collect();
        }
        self.greeted = Some(greeted);
        let (incarnation, receipts) = (identity.name(), BTreeMap::new());
        self.told = Some(Told { opening, replica: *replica, incarnation, receipts });
        Ok(())
    }

    /// Has the engine learn the identity of another incarnation.
    async fn identity(&mut self, identity: IdentityText) -> Result<(), Stop> {
        let Some(told) = &self.told else { return Ok(()) };
        if identity == told.replica.identity {
            return Ok(());
        }
        let peer = ReplicaOpening { identity, loss_counter: 0, ..told.replica.clone() };
        let hello = hello(told.opening.school, &peer, &told.opening.software);
        match self.desk.greet(self.next, hello).await {
            Ok(greeted) => self.desk.leave(greeted.connection).await,
            Err(Stop::Refused(text)) => self.refuse(1, format!("an identity is refused: {text}")),
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    async fn batch(&mut self, bytes: Vec<u8>) -> Result<(), Stop> {
        let Some(greeted) = &mut self.greeted else { return Ok(()) };
        // News of what this very bundle brings; a full queue would be taken for a peer that does not read.
        while greeted.control.try_recv().is_ok() {}
        let connection = greeted.connection;
        let header = match Batch::from_bytes(bytes.clone()) {
            Ok(batch) => *batch.header(),
            Err(error) => {
                self.refuse(1, error.to_string());
                return Ok(());
            }
        };
        let log = header.log;
        if self.stopped.contains(&log) {
            self.refuse(1, format!("log {log}: what follows a refused batch is not taken"));
            return Ok(());
        }
        let held = self.offered.get(&log).copied().unwrap_or(0);
        if header.first > held.saturating_add(1) {
            let early = Early { log, held, first: header.first, batches: 0 };
            self.early.entry(log).or_insert(early).batches += 1;
            return Ok(());
        }
        self.offered.insert(log, held.max(header.last));
        self.streams += 1;
        let (reply, answer) = oneshot::channel();
        let to = ReplyTo { connection, stream: self.streams };
        self.in_flight_bytes += bytes.len();
        self.in_flight.push_back(Waiting { header, bytes: bytes.len(), answer });
        self.desk.engine.send(Input::Batch { to, bytes, reply: Some(reply) }).await.map_err(stopping)?;
        while self.in_flight.len() >= IN_FLIGHT_BATCHES || self.in_flight_bytes >= IN_FLIGHT_BYTES {
            self.settle_first().await;
        }
        Ok(())
    }

    /// Waits for the answer to the oldest batch.
    async fn settle_first(&mut self) {
        let Some(Waiting { header, bytes, answer }) = self.in_flight.pop_front() else { return };
        self.in_flight_bytes -= bytes;
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(Answer::Frame(frame))) => match *frame {
                Frame::Receipt(bytes) => self.receipted(&header, bytes),
                Frame::Refusal(refusal) => self.refused(&header, &refusal),
                Frame::Hello(_)
                | Frame::Welcome(_)
                | Frame::Batch(_)
                | Frame::Keys(_)
                | Frame::Fetch(_)
                | Frame::FetchEnd(_)
                | Frame::Snapshot(_)
                | Frame::SnapshotPart(_)
                | Frame::SnapshotWants(_)
                | Frame::FetchSnapshot(_)
                | Frame::News(_)
                | Frame::Proof(_) => self.stop_log(&header, "the node gave no answer"),
            },
            Ok(Ok(Answer::Quarantined { is_new: true })) => self.report.quarantined += 1,
            Ok(Ok(Answer::Quarantined { is_new: false })) => self.report.known += 1,
            Ok(_) | Err(_) => self.stop_log(&header, "the node gave no answer"),
        }
    }

    fn receipted(&mut self, header: &BatchHeader, receipt: Vec<u8>) {
        let had = self.greeted.as_ref().and_then(|greeted| greeted.welcome.heads.get(&header.log));
        if had.is_some_and(|had| had.sequence >= header.last) {
            self.report.known += 1;
        } else {
            self.report.taken += 1;
            self.report.changes += header.changes();
        }
        if let Some(told) = self.told.as_mut().filter(|told| told.incarnation == header.log.incarnation) {
            // In the order of the log, so the last one covers all.
            told.receipts.insert(header.log, receipt);
        }
    }

    fn refused(&mut self, header: &BatchHeader, refusal: &Refusal) {
        self.report.storage |= refusal.code == RefusalCode::Storage;
        self.stop_log(header, &refusal.text);
    }

    /// Gives up a log: what follows a batch that was not taken cannot be taken either.
    fn stop_log(&mut self, header: &BatchHeader, why: &str) {
        let (log, first, last) = (header.log, header.first, header.last);
        self.stopped.insert(log);
        let before = self.in_flight.len();
        self.in_flight.retain(|waiting| waiting.header.log != log);
        self.in_flight_bytes = self.in_flight.iter().map(|waiting| waiting.bytes).sum();
        let behind = u64::try_from(before - self.in_flight.len()).unwrap_or(u64::MAX);
        self.refuse(1 + behind, format!("changes {first} to {last} of log {log}: {why}"));
    }

    fn refuse(&mut self, batches: u64, reason: String) {
        self.report.refused += batches;
        if self.report.reasons.len() < REFUSALS_MAX && !self.report.reasons.contains(&reason) {
            self.report.reasons.push(reason);
        }
    }
}
