//! The task that owns the sans-IO engine: inputs in, one after another, effects out, in order.
//!
//! **Invariant**: nothing here waits for a disk or a peer. The writer has a queue of its own, and a peer whose
//! control queue is full is disconnected. What waits in the queues is bounded by the frames that all
//! connections together may hold ([`crate::limits::FRAMES_BYTES_MAX`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sonae_proto::ids::{Hash32, ReplicaId};
use sonae_proto::intake::{
    ConnectionId, Effect, Intake, Keeping, Location, ReplyTo, SchoolOverview, StoredBatch, Ticket,
};
use sonae_proto::receipt::SiteId;
use sonae_proto::wire::{
    Fetch, FetchSnapshot, Frame, Hello, KeyDocuments, ProofText, RefusalCode, SnapshotPart,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::compaction::Places;
use crate::status::Board;
use crate::writer::Record;

/// The stream number of a connection's control stream.
pub const CONTROL: u64 = 0;

/// Devices whose connections are closed before a stream is read.
pub type Barred = Arc<BTreeSet<ReplicaId>>;

/// What a stream gets.
#[derive(Debug)]
pub enum Answer {
    /// This frame, and no more.
    Frame(Box<Frame>),
    /// These batches, and the end of a fetch.
    Serve(Vec<StoredBatch>),
    /// A snapshot, and the end of a fetch.
    ServeSnapshot {
        /// Hash of its root.
        root: Hash32,
        /// The root's text, unless it is not whole here any more.
        text: Option<String>,
        /// Of each part its place, its hash and its location.
        parts: Vec<(u32, Hash32, Location)>,
    },
    /// A carried batch of a revoked device is in quarantine.
    Quarantined {
        /// Whether it was not there before.
        is_new: bool,
    },
    /// What became of the board's key documents: whether the quorum has them, or why they are not taken.
    Documents(Result<bool, String>),
}

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// A connection whose certificate is the board's.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Frames for its control stream.
        control: mpsc::Sender<Frame>,
        /// Told when it is to be closed.
        closing: watch::Sender<bool>,
    },
    /// Its hello.
    Hello {
        /// Which connection.
        connection: ConnectionId,
        /// The Ed25519 key of its certificate; `None` for a courier's bundle, which has none.
        tls_key: Option<[u8; 32]>,
        /// The hello.
        hello: Box<Hello>,
    },
    /// Key documents.
    Keys {
        /// Which connection.
        connection: ConnectionId,
        /// The documents.
        keys: Box<KeyDocuments>,
    },
    /// Key documents that the board brought by hand.
    Documents {
        /// Which stream.
        to: ReplyTo,
        /// The documents.
        keys: Box<KeyDocuments>,
        /// For the answer.
        reply: oneshot::Sender<Answer>,
    },
    /// A batch.
    Batch {
        /// Which stream.
        to: ReplyTo,
        /// Its bytes.
        bytes: Vec<u8>,
        /// For the answer; `None` on the control stream, where a batch is out of turn.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// A fetch.
    Fetch {
        /// Which stream.
        to: ReplyTo,
        /// What.
        fetch: Fetch,
        /// For the answer.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// A snapshot is offered.
    Snapshot {
        /// Which stream.
        to: ReplyTo,
        /// Text of its root.
        text: String,
        /// For the answer.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// A part of one.
    SnapshotPart {
        /// Which stream.
        to: ReplyTo,
        /// The part.
        part: Box<SnapshotPart>,
        /// For the answer.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// A snapshot is asked for.
    FetchSnapshot {
        /// Which stream.
        to: ReplyTo,
        /// What.
        fetch: FetchSnapshot,
        /// For the answer.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// Evidence of a restore proof.
    Proof {
        /// Which stream.
        to: ReplyTo,
        /// The evidence.
        proof: ProofText,
        /// For the answer.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// Something without meaning.
    Nonsense {
        /// Which stream.
        to: ReplyTo,
        /// What is wrong with it.
        code: RefusalCode,
        /// For logs.
        text: String,
        /// For the answer.
        reply: Option<oneshot::Sender<Answer>>,
    },
    /// An object was written, or was not.
    Stored {
        /// Its records.
        placed: Vec<(Ticket, Location)>,
        /// The sites that have it.
        sites: Vec<SiteId>,
    },
    /// Batches that were below the quorum are not any more.
    Repaired {
        /// Which, at their new places.
        batches: Vec<StoredBatch>,
        /// The sites that have them.
        sites: Vec<SiteId>,
    },
    /// Somebody who merges objects asks what is kept.
    Keeping(oneshot::Sender<Keeping>),
    /// Where records lie since objects were merged.
    Moved(Places),
    /// A connection is gone.
    Disconnected(ConnectionId),
    /// Somebody asks for an overview.
    Overview(oneshot::Sender<Vec<SchoolOverview>>),
    /// Store nothing more.
    StopStoring,
    /// Close all connections and end.
    Finish,
}

struct Peer {
    control: mpsc::Sender<Frame>,
    closing: watch::Sender<bool>,
}

/// The engine and where its effects go.
pub struct Engine {
    intake: Intake,
    writer: Option<mpsc::UnboundedSender<Record>>,
    board: Arc<Board>,
    clock: Clock,
    barred: watch::Sender<Barred>,
    peers: BTreeMap<ConnectionId, Peer>,
    streams: BTreeMap<ReplyTo, oneshot::Sender<Answer>>,
}

impl Engine {
    /// Takes an engine that has been told what the sites hold.
    #[must_use]
    pub fn new(
        intake: Intake,
        writer: mpsc::UnboundedSender<Record>,
        board: Arc<Board>,
        barred: watch::Sender<Barred>,
        clock: Clock,
    ) -> Self {
        let (peers, streams) = (BTreeMap::new(), BTreeMap::new());
        let engine = Self { intake, writer: Some(writer), board, clock, barred, peers, streams };
        engine.bar();
        engine
    }

    /// Runs until [`Input::Finish`].
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        while let Some(input) = inputs.recv().await {
            if matches!(input, Input::Finish) {
                break;
            }
            self.handle(input);
            while let Some(effect) = self.intake.poll_effect() {
                self.perform(effect);
            }
        }
        for peer in self.peers.values() {
            peer.closing.send_replace(true);
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Connected { connection, control, closing } => {
                self.peers.insert(connection, Peer { control, closing });
                self.board.update(|status| status.connections += 1);
            }
            Input::Hello { connection, tls_key, hello } => {
                let to = ReplyTo { connection, stream: CONTROL };
                match tls_key {
                    Some(tls_key) => self.intake.handle_hello(to, &tls_key, &hello, self.clock.now_ms()),
                    None => self.intake.handle_carried_hello(to, &hello, self.clock.now_ms()),
                }
                self.board.touch();
            }
            Input::Keys { connection, keys } => {
                self.intake.handle_keys(connection, &keys);
                self.bar();
            }
            Input::Documents { to, keys, reply } => {
                self.expect_answer(to, Some(reply));
                if let Err(text) = self.intake.handle_documents(to, &keys) {
                    self.answer(to, Answer::Documents(Err(text)));
                }
                self.bar();
            }
            Input::Batch { to, bytes, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_batch(to, bytes, self.clock.now_ms());
            }
            Input::Fetch { to, fetch, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_fetch(to, &fetch);
            }
            Input::Snapshot { to, text, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_snapshot(to, &text, self.clock.now_ms());
            }
            Input::SnapshotPart { to, part, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_snapshot_part(to, *part);
            }
            Input::FetchSnapshot { to, fetch, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_fetch_snapshot(to, &fetch);
            }
            Input::Proof { to, proof, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_proof(to, &proof);
            }
            Input::Nonsense { to, code, text, reply } => {
                self.expect_answer(to, reply);
                self.intake.handle_nonsense(to, code, &text);
            }
            Input::Stored { placed, sites } => {
                for (ticket, location) in placed {
                    self.intake.handle_stored(ticket, &location, &sites, self.clock.now_ms());
                }
                self.board.touch();
            }
            Input::Repaired { batches, sites } => {
                for batch in batches {
                    self.intake.load_batch(batch, sites.clone());
                }
            }
            Input::Keeping(ask) => drop(ask.send(self.intake.keeping())),
            Input::Moved(places) => places.tell(&mut self.intake),
            Input::Disconnected(connection) => self.forget(connection),
            Input::Overview(ask) => drop(ask.send(self.intake.overview())),
            Input::StopStoring => self.writer = None,
            Input::Finish => {}
        }
    }

    /// Tells the door whom to send away.
    fn bar(&self) {
        self.barred.send_replace(Arc::new(self.intake.revoked()));
        self.board.touch();
    }

    fn expect_answer(&mut self, to: ReplyTo, reply: Option<oneshot::Sender<Answer>>) {
        if let Some(reply) = reply {
            self.streams.insert(to, reply);
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.intake.handle_disconnected(connection);
        if self.peers.remove(&connection).is_some() {
            self.board.update(|status| status.connections = status.connections.saturating_sub(1));
        }
        self.streams.retain(|to, _| to.connection != connection);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { to, frame } if to.stream == CONTROL => self.tell(to.connection, *frame),
            Effect::Reply { to, frame } => self.answer(to, Answer::Frame(frame)),
            Effect::Tell { connection, frame } => self.tell(connection, *frame),
            Effect::Store { ticket, kind, body } => {
                if let Some(writer) = &self.writer {
                    let _ = writer.send(Record { ticket, kind, body });
                }
            }
            Effect::Serve { to, batches, .. } => self.answer(to, Answer::Serve(batches)),
            Effect::ServeSnapshot { to, root, text, parts } => {
                self.answer(to, Answer::ServeSnapshot { root, text, parts });
            }
            Effect::Refused { school, code, text } => {
                let school = school.map(|school| school.to_string()).unwrap_or_default();
                log::warn!(school = school.as_str(), code:? = code, reason = text.as_str(); "refused");
                self.board.note_refusal(code);
            }
            Effect::SecondIncarnation { school, replica, incarnations } => log::warn!(
                school:% = school, replica = replica.as_str(), incarnations = incarnations;
                "a device began another incarnation: a rebuild, or its bundle was used twice"
            ),
            Effect::Quarantined { to, is_new } => {
                log::warn!(is_new = is_new; "a batch of a revoked device is in quarantine");
                self.answer(to, Answer::Quarantined { is_new });
                self.board.touch();
            }
            Effect::DocumentsStored { to, durable } => self.answer(to, Answer::Documents(Ok(durable))),
            Effect::RevocationTakenBack { school, version } => {
                log::error!(school:% = school, version = version;
                    "a manifest takes back a revocation or the destruction of a key; it is refused");
                self.board.note_error(&format!(
                    "manifest {version} of {school} takes back a revocation or the destruction of a key; it is \
                     refused. Was the board's directory set back to an old copy?"
                ));
            }
            Effect::Close(connection) => self.close(connection),
        }
    }

    /// After this the connection's control stream ends behind the frames that it has been told.
    fn close(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.peers.remove(&connection) {
            self.board.update(|status| status.connections = status.connections.saturating_sub(1));
            peer.closing.send_replace(true);
        }
        // Streams that still wait will not be answered; those that were answered are not here any more.
        self.streams.retain(|to, _| to.connection != connection);
        self.intake.handle_disconnected(connection);
    }

    fn tell(&mut self, connection: ConnectionId, frame: Frame) {
        let Some(peer) = self.peers.get(&connection) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = peer.control.try_send(frame) {
            log::warn!(connection = connection.0; "a peer does not read what it is told");
            self.close(connection);
        }
    }

    fn answer(&mut self, to: ReplyTo, answer: Answer) {
        if let Some(stream) = self.streams.remove(&to) {
            // A stream that is gone asks again.
            let _ = stream.send(answer);
        }
    }
}
