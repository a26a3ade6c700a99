//! The cloud's side of the sync engine, sans-IO. It verifies identity, chain, manifest and signature with
//! public keys only; it holds no key to any data.
//!
//! Contract: after each `handle_*`, drain [`Intake::poll_effect`] until `None`.
//!
//! **Invariant**: a receipt is signed only when the batch and all of its log before it were written to, or
//! found on, at least the quorum of sites by this node.
//! **Invariant**: nothing that a replica sends shortens or replaces what is stored.

mod log;

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::batch::{Batch, BatchError};
use crate::identity::{Identity, IdentityText};
use crate::ids::{Hash32, Incarnation, LogName, SchoolCode};
use crate::limits::VECTOR_LOGS_MAX;
use crate::manifest::{KeyUse, Manifest};
use crate::object::RecordKind;
use crate::receipt::{Receipt, SiteId};
use crate::signed::Signed;
use crate::vector::{Heads, LogHead};
use crate::wire::{
    Fetch, Frame, Hello, KeyDocuments, News, PROTOCOL, Refusal, RefusalCode, Welcome,
};

use log::{Log, Offer};
pub use log::StoredBatch;

/// A connection, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Where a reply goes: a stream of a connection, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyTo {
    /// The connection.
    pub connection: ConnectionId,
    /// The stream.
    pub stream: u64,
}

/// A record on its way to the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame on a stream.
    Reply {
        /// Where.
        to: ReplyTo,
        /// What.
        frame: Box<Frame>,
    },
    /// Send a frame on the control stream of a connection.
    Tell {
        /// Whom.
        connection: ConnectionId,
        /// What.
        frame: Box<Frame>,
    },
    /// Put a record into the next object, write that to the sites, then call `handle_stored`. Records are
    /// stored in the order in which they are asked for.
    Store {
        /// Named in `handle_stored`.
        ticket: Ticket,
        /// What it is.
        kind: RecordKind,
        /// Its bytes.
        body: Vec<u8>,
    },
    /// Send stored batches on a stream, then a `FetchEnd`.
    Serve {
        /// Where.
        to: ReplyTo,
        /// Which, in order.
        batches: Vec<StoredBatch>,
        /// Which log, for the end.
        log: LogName,
    },
    /// Log and count a refusal.
    Refused {
        /// Whose data, when known.
        school: Option<SchoolCode>,
        /// Why.
        code: RefusalCode,
        /// For the log.
        text: String,
    },
    /// A device began another incarnation while an earlier one exists: a rebuild, or its bundle used twice.
    SecondIncarnation {
        /// Whose data.
        school: SchoolCode,
        /// The device's name.
        replica: String,
        /// How many incarnations it has now.
        incarnations: usize,
    },
    /// Close a connection.
    Close(ConnectionId),
}

/// Where a record lies in an object. The shell resolves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The object's name.
    pub object: String,
    /// Offset of the body.
    pub offset: u64,
    /// Bytes of the body.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct School {
    identities: BTreeMap<Incarnation, Identity>,
    manifests: BTreeMap<Hash32, Manifest>,
    newest: Option<(u64, KeyDocuments)>,
    logs: BTreeMap<LogName, Log>,
}

#[derive(Debug)]
struct Connection {
    school: SchoolCode,
    incarnation: Incarnation,
    loss_counter: u64,
}

#[derive(Debug)]
enum Pending {
    Batch { school: SchoolCode, log: LogName, last: u64 },
    Document,
}

/// What a node is told at its start.
#[derive(Debug)]
pub struct Config {
    /// The board's root key.
    pub board: VerifyingKey,
    /// The key that signs this node's receipts.
    pub receipt_key: SigningKey,
    /// Sites that this node writes to.
    pub sites: usize,
    /// How many of them make a receipt.
    pub quorum: usize,
    /// Test switch of `CUT=cloud-fsync`: receipts are signed before anything is stored. Breaks P2 on purpose.
    pub receipt_before_store: bool,
}

/// The engine of one node.
#[derive(Debug)]
pub struct Intake {
    config: Config,
    schools: BTreeMap<SchoolCode, School>,
    connections: BTreeMap<ConnectionId, Connection>,
    pending: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    complete: bool,
    effects: VecDeque<Effect>,
}

impl Intake {
    /// Starts with nothing stored; load what the sites hold with `load_*`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            schools: BTreeMap::new(),
            connections: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_ticket: 0,
            complete: false,
            effects: VecDeque::new(),
        }
    }

    /// Says whether enough sites were read at the start for heads to be complete.
    pub fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
    }

    /// Returns the next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Learns an identity that a site holds. Anything that does not verify is passed over.
    pub fn load_identity(&mut self, text: &IdentityText, school: SchoolCode) -> bool {
        let Ok(identity) = text.verify(&self.config.board, school) else { return false };
        self.schools.entry(school).or_default().identities.insert(identity.name(), identity);
        true
    }

    /// Learns key documents that a site holds.
    pub fn load_keys(&mut self, keys: &KeyDocuments) -> bool {
        self.learn_keys(keys).is_ok()
    }

    /// Learns a batch that sites hold. Batches of a log are loaded in order of their first sequence.
    pub fn load_batch(&mut self, batch: StoredBatch, sites: Vec<SiteId>) {
        let school = self.schools.entry(batch.header.school).or_default();
        school.logs.entry(batch.header.log).or_default().load(batch, sites);
    }

    /// The first message of a connection. `tls_key` is the Ed25519 key of its TLS certificate.
    pub fn handle_hello(&mut self, to: ReplyTo, tls_key: &[u8; 32], hello: &Hello, now_ms: u64) {
        if hello.protocol != PROTOCOL {
            return self.refuse_and_close(to, RefusalCode::Protocol, "this node speaks protocol 1");
        }
        let identity = match hello.identity.verify(&self.config.board, hello.school) {
            Ok(identity) if identity.device.body().key.as_bytes() == tls_key => identity,
            Ok(_) => {
                let text = "the identity is not that of the TLS certificate";
                return self.refuse_and_close(to, RefusalCode::Identity, text);
            }
            Err(error) => {
                return self.refuse_and_close(to, RefusalCode::Identity, &error.to_string());
            }
        };
        let school = self.schools.entry(hello.school).or_default();
        let name = identity.name();
        if !school.identities.contains_key(&name) {
            if school.identities.len() * 3 >= VECTOR_LOGS_MAX {
                return self.refuse_and_close(to, RefusalCode::Identity, "too many incarnations");
            }
            self.remember_identity(hello.school, &hello.identity, identity);
        }
        let connection =
            Connection { school: hello.school, incarnation: name, loss_counter: hello.loss_counter };
        self.connections.insert(to.connection, connection);
        let welcome = self.welcome(hello, now_ms);
        let newer_keys = self.schools.get(&hello.school).and_then(|school| {
            school.newest.as_ref().filter(|(version, _)| *version > hello.manifest_version)
        });
        let keys = newer_keys.map(|(_, keys)| Frame::Keys(Box::new(keys.clone())));
        self.reply(to, Frame::Welcome(Box::new(welcome)));
        if let Some(frame) = keys {
            self.effects.push_back(Effect::Tell { connection: to.connection, frame: Box::new(frame) });
        }
    }

    fn remember_identity(&mut self, code: SchoolCode, text: &IdentityText, identity: Identity) {
        let body = serde_json::to_vec(text).unwrap_or_default();
        self.store(RecordKind::Identity, body, Pending::Document);
        let replica = identity.incarnation.body().replica;
        let school = self.schools.entry(code).or_default();
        school.identities.insert(identity.name(), identity);
        let of_device =
            school.identities.values().filter(|other| other.incarnation.body().replica == replica).count();
        if of_device > 1 {
            self.effects.push_back(Effect::SecondIncarnation {
                school: code,
                replica: replica.to_string(),
                incarnations: of_device,
            });
        }
    }

    fn welcome(&self, hello: &Hello, now_ms: u64) -> Welcome {
        let school = self.schools.get(&hello.school);
        Welcome {
            protocol: PROTOCOL,
            nonce: hello.nonce.clone(),
            time_ms: now_ms,
            heads: school.map(heads).unwrap_or_default(),
            complete: self.complete,
            identities: school
                .map(|school| school.identities.values().map(Identity::text).collect())
                .unwrap_or_default(),
            manifest_version: school
                .and_then(|school| school.newest.as_ref())
                .map_or(0, |(version, _)| *version),
            sites: u32::try_from(self.config.sites).unwrap_or(u32::MAX),
            quorum: u32::try_from(self.config.quorum).unwrap_or(u32::MAX),
        }
    }

    /// Key documents from a replica.
    pub fn handle_keys(&mut self, connection: ConnectionId, keys: &KeyDocuments) {
        let Some(known) = self.connections.get(&connection) else {
            return self.effects.push_back(Effect::Close(connection));
        };
        if keys.school != known.school {
            return self.note_refusal(Some(known.school), RefusalCode::WrongSchool, "key documents");
        }
        match self.learn_keys(keys) {
            Ok(true) => {
                let body = serde_json::to_vec(keys).unwrap_or_default();
                self.store(RecordKind::Keys, body, Pending::Document);
            }
            Ok(false) => {}
            Err(text) => self.note_refusal(Some(keys.school), RefusalCode::Manifest, &text),
        }
    }

    fn learn_keys(&mut self, keys: &KeyDocuments) -> Result<bool, String> {
        let signed = Signed::<Manifest>::verify(&keys.manifest, &self.config.board)
            .map_err(|error| error.to_string())?;
        let manifest = signed.body();
        if manifest.school != keys.school || !manifest.is_within_limits() {
            return Err("the manifest is of another school or over its limits".into());
        }
        let named = keys.wrapped_keys.iter().all(|key| manifest.key(key.key_use, key.epoch).is_some());
        if !named {
            return Err("a wrapped key is not named by the manifest".into());
        }
        let school = self.schools.entry(keys.school).or_default();
        let is_new = school.manifests.insert(signed.hash(), manifest.clone()).is_none();
        if school.newest.as_ref().is_none_or(|(version, _)| *version < manifest.version) {
            school.newest = Some((manifest.version, keys.clone()));
        }
        Ok(is_new)
    }

    /// A batch on a stream of a greeted connection.
    pub fn handle_batch(&mut self, to: ReplyTo, bytes: Vec<u8>, now_ms: u64) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a batch before a hello");
        };
        let (code, loss_counter) = (connection.school, connection.loss_counter);
        let batch = match self.verify_batch(code, bytes) {
            Ok(batch) => batch,
            Err((code_of_refusal, text)) => return self.refuse(to, code, code_of_refusal, &text),
        };
        let (name, head) = (batch.header().log, batch.header().head());
        let school = self.schools.entry(code).or_default();
        let log = school.logs.entry(name).or_default();
        match log.offer(&batch, to, loss_counter, self.config.quorum) {
            Offer::Durable(sites) => self.send_receipt(to, code, name, head, loss_counter, sites, now_ms),
            Offer::Wait => {}
            Offer::Refuse(code_of_refusal) => {
                self.refuse(to, code, code_of_refusal, "the batch does not continue its log");
            }
            Offer::Store(ready) => {
                if self.config.receipt_before_store {
                    self.send_receipt(to, code, name, head, loss_counter, vec![[0xEE; 16]], now_ms);
                }
                for batch in ready {
                    let last = batch.header().last;
                    let pending = Pending::Batch { school: code, log: name, last };
                    self.store(RecordKind::Batch, batch.bytes().to_vec(), pending);
                }
            }
        }
    }

    fn verify_batch(&self, code: SchoolCode, bytes: Vec<u8>) -> Result<Batch, (RefusalCode, String)> {
        let refuse = |code, error: &BatchError| Err((code, error.to_string()));
        let batch = match Batch::from_bytes(bytes) {
            Ok(batch) => batch,
            Err(error) => return refuse(RefusalCode::Malformed, &error),
        };
        let header = batch.header();
        if header.school != code {
            return Err((RefusalCode::WrongSchool, format!("a batch of school {}", header.school)));
        }
        let school = self.schools.get(&code);
        let Some(identity) = school.and_then(|s| s.identities.get(&header.log.incarnation)) else {
            return Err((RefusalCode::Identity, "a batch of an unknown incarnation".into()));
        };
        match batch.verify(identity.key()) {
            Err(error @ BatchError::Recipients(_)) => return refuse(RefusalCode::Recipients, &error),
            Err(error) => return refuse(RefusalCode::Signature, &error),
            Ok(()) => {}
        }
        let manifest = school.and_then(|s| s.manifests.get(&header.manifest));
        if manifest.and_then(|m| m.key(KeyUse::Tier(header.log.tier), header.epoch)).is_none() {
            let text = format!("no known manifest names the key of tier {} epoch {}", header.log.tier, header.epoch);
            return Err((RefusalCode::Manifest, text));
        }
        Ok(batch)
    }

    /// A record is durable on `sites`, or on fewer than the quorum.
    pub fn handle_stored(
        &mut self,
        ticket: Ticket,
        location: &Location,
        sites: &[SiteId],
        now_ms: u64,
    ) {
        let Some(Pending::Batch { school: code, log: name, last }) = self.pending.remove(&ticket) else {
            return;
        };
        let quorum = self.config.quorum;
        let Some(log) = self.schools.get_mut(&code).and_then(|school| school.logs.get_mut(&name)) else {
            return;
        };
        let outcome = log.stored(last, location, sites, quorum);
        for waiter in outcome.durable {
            self.send_receipt(waiter.to, code, name, waiter.head, waiter.loss_counter, waiter.sites, now_ms);
        }
        for waiter in outcome.failed {
            self.refuse(waiter, code, RefusalCode::Storage, "fewer sites than the quorum could be written");
        }
        if let Some(head) = outcome.moved {
            self.spread_news(code, name, head);
        }
    }

    fn spread_news(&mut self, code: SchoolCode, log: LogName, head: LogHead) {
        let Some(school) = self.schools.get(&code) else { return };
        let identities: Vec<IdentityText> =
            school.identities.get(&log.incarnation).map(Identity::text).into_iter().collect();
        let others = self.connections.iter().filter(|(_, connection)| {
            connection.school == code && connection.incarnation != log.incarnation
        });
        for (connection, _) in others {
            let news = News { heads: Heads::from([(log, head)]), identities: identities.clone() };
            let frame = Box::new(Frame::News(Box::new(news)));
            self.effects.push_back(Effect::Tell { connection: *connection, frame });
        }
    }

    /// A replica asks for a log.
    pub fn handle_fetch(&mut self, to: ReplyTo, fetch: &Fetch) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a fetch before a hello");
        };
        let batches = self
            .schools
            .get(&connection.school)
            .and_then(|school| school.logs.get(&fetch.log))
            .map(|log| log.after(fetch.after))
            .unwrap_or_default();
        self.effects.push_back(Effect::Serve { to, batches, log: fetch.log });
    }

    /// Something that has no meaning came on a stream.
    pub fn handle_nonsense(&mut self, to: ReplyTo, code: RefusalCode, text: &str) {
        self.refuse_and_close(to, code, text);
    }

    /// A connection is gone.
    pub fn handle_disconnected(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
        for school in self.schools.values_mut() {
            school.logs.values_mut().for_each(|log| log.forget_waiters(connection));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one receipt and where it goes")]
    fn send_receipt(
        &mut self,
        to: ReplyTo,
        school: SchoolCode,
        log: LogName,
        head: LogHead,
        loss_counter: u64,
        sites: Vec<SiteId>,
        now_ms: u64,
    ) {
        let receipt = Receipt { school, log, head, loss_counter, issued_ms: now_ms, sites };
        self.reply(to, Frame::Receipt(receipt.sign(&self.config.receipt_key)));
    }

    fn store(&mut self, kind: RecordKind, body: Vec<u8>, pending: Pending) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        self.effects.push_back(Effect::Store { ticket, kind, body });
    }

    fn reply(&mut self, to: ReplyTo, frame: Frame) {
        self.effects.push_back(Effect::Reply { to, frame: Box::new(frame) });
    }

    fn refuse(&mut self, to: ReplyTo, school: SchoolCode, code: RefusalCode, text: &str) {
        let heads = self.schools.get(&school).map(heads).unwrap_or_default();
        self.reply(to, Frame::Refusal(Refusal { code, text: text.to_owned(), heads }));
        self.note_refusal(Some(school), code, text);
    }

    fn refuse_and_close(&mut self, to: ReplyTo, code: RefusalCode, text: &str) {
        let refusal = Refusal { code, text: text.to_owned(), heads: Heads::new() };
        self.reply(to, Frame::Refusal(refusal));
        let school = self.connections.get(&to.connection).map(|connection| connection.school);
        self.note_refusal(school, code, text);
        self.effects.push_back(Effect::Close(to.connection));
    }

    fn note_refusal(&mut self, school: Option<SchoolCode>, code: RefusalCode, text: &str) {
        self.effects.push_back(Effect::Refused { school, code, text: text.to_owned() });
    }
}

fn heads(school: &School) -> Heads {
    school.logs.iter().filter_map(|(name, log)| Some((*name, log.head()?))).collect()
}
