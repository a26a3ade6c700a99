//! The cloud's side of the sync engine, sans-IO. It verifies identity, chain, manifest and signature with
//! public keys only; it holds no key to any data.
//!
//! Contract: after each `handle_*`, drain [`Intake::poll_effect`] until `None`.
//!
//! **Invariant**: a receipt is signed only when the batch and all of its log before it were written to, or
//! found on, at least the quorum of sites by this node.
//! **Invariant**: nothing that a replica sends shortens or replaces what is stored.

mod ahead;
mod batches;
mod documents;
mod effect;
mod keeping;
mod log;
mod overview;
mod proofs;
mod quarantine;
mod snapshots;

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::batch::BatchHeader;
use crate::destruction::Destroyed;
use crate::ended::Ended;
use crate::identity::{Identity, IdentityError};
use crate::ids::{Hash32, Incarnation, LogName, SchoolCode};
use crate::limits::{DEVICE_INCARNATIONS_MAX, REVOKED_INCARNATIONS_MAX, VECTOR_LOGS_MAX};
use crate::manifest::Manifest;
use crate::object::RecordKind;
use crate::proof::Proof;
use crate::receipt::SiteId;
use crate::revocation::Revocations;
use crate::signed::Signed;
use crate::vector::{Heads, LogHead};
use crate::wire::{Frame, Hello, KeyDocuments, PROTOCOL, Refusal, RefusalCode, Welcome};

use ahead::Ahead;
use documents::Undurable;
pub use effect::{ConnectionId, Effect, Location, ReplyTo, Ticket};
pub use keeping::Keeping;
pub use log::StoredBatch;
use log::{Entry, Log};
pub use overview::{IncarnationOverview, SchoolOverview};
pub use proofs::Proofs;
pub use quarantine::QuarantinedBranch;
use quarantine::{Quarantine, REVOKED};
use snapshots::Snapshots;

#[derive(Debug, Default)]
struct School {
    identities: BTreeMap<Incarnation, Identity>,
    manifests: BTreeMap<Hash32, Manifest>,
    /// Version of the newest manifest; 0 when there is none.
    newest: u64,
    /// The newest key documents that hold every key, with their version. No others are passed on: boxes refuse them.
    whole: Option<(u64, KeyDocuments)>,
    logs: BTreeMap<LogName, Log>,
    /// What all manifests together say of revoked devices.
    revocations: Revocations,
    /// What all manifests together say of destroyed keys.
    destroyed: Destroyed,
    quarantine: Quarantine,
    /// Identities and key documents that fewer sites than the quorum hold. No receipt is signed while there
    /// are any: a rebuild could not verify or open what the receipt calls safe.
    undurable: Vec<Undurable>,
    snapshots: Snapshots,
    proofs: BTreeMap<Incarnation, Proofs>,
}

#[derive(Debug)]
struct Connection {
    school: SchoolCode,
    incarnation: Incarnation,
    loss_counter: u64,
    /// Of the newest manifest that it holds, or was told.
    manifest_version: u64,
    /// It is a courier's bundle: whoever it is from is not there.
    is_carried: bool,
    ahead: Ahead,
}

#[derive(Debug)]
enum Pending {
    Batch { school: SchoolCode, log: LogName, head: LogHead },
    Quarantined { school: SchoolCode, header: BatchHeader, to: ReplyTo },
    Document { school: SchoolCode, kind: RecordKind, body: Vec<u8>, to: Option<ReplyTo> },
    Snapshot { school: SchoolCode, root: Hash32 },
    SnapshotPart { school: SchoolCode, hash: Hash32 },
    Proof { school: SchoolCode, to: ReplyTo, proof: Box<Signed<Proof>> },
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
    /// Switch for tests: receipts are signed before anything is stored. Breaks P2 on purpose.
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

impl School {
    /// Returns what has ended of it, as it stands here.
    fn ended(&self, heads: &Heads) -> Ended {
        Ended::of(self.identities.values(), heads, &self.revocations)
    }
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

    /// Learns a batch that sites hold. Batches of a log are loaded in order of their first sequence, after the identity
    /// of who wrote them; a batch that is known gains sites. Returns whether it is part of its log now.
    ///
    /// One whose writer is not known counts for nothing: nobody could verify it, so it would be asked for in vain for
    /// ever. No receipt was signed for it, or the sites have lost the identity since; its writer sends it again.
    pub fn load_batch(&mut self, batch: StoredBatch, sites: Vec<SiteId>) -> bool {
        let school = self.schools.entry(batch.header.school).or_default();
        if !school.identities.contains_key(&batch.header.log.incarnation) {
            return false;
        }
        if school.standing(&batch.header).counts() {
            return school.logs.entry(batch.header.log).or_default().load(batch, sites);
        }
        school.keep_in_quarantine(Entry { batch, sites });
        false
    }

    /// The first message of a connection. `tls_key` is the Ed25519 key of its TLS certificate.
    pub fn handle_hello(&mut self, to: ReplyTo, tls_key: &[u8; 32], hello: &Hello, now_ms: u64) {
        self.greet(to, Some(tls_key), hello, now_ms);
    }

    /// The opening of a courier's bundle, as the hello that it stands for. There is no certificate, and whoever it is
    /// from may be revoked by now: what follows proves itself.
    pub fn handle_carried_hello(&mut self, to: ReplyTo, hello: &Hello, now_ms: u64) {
        self.greet(to, None, hello, now_ms);
    }

    /// Whose hello it is. Most are of those who have greeted before.
    fn identify(&self, hello: &Hello) -> Result<Identity, IdentityError> {
        let mut known =
            self.schools.get(&hello.school).into_iter().flat_map(|school| school.identities.values());
        let known = known.find(|known| known.has_text(&hello.identity)).cloned();
        known.map_or_else(|| hello.identity.verify(&self.config.board, hello.school), Ok)
    }

    fn greet(&mut self, to: ReplyTo, tls_key: Option<&[u8; 32]>, hello: &Hello, now_ms: u64) {
        if hello.protocol != PROTOCOL {
            return self.refuse_and_close(to, RefusalCode::Protocol, "this node speaks protocol 1");
        }
        let identity = match self.identify(hello) {
            Ok(identity) if tls_key.is_none_or(|key| identity.device.body().key.as_bytes() == key) => {
                identity
            }
            Ok(_) => {
                let text = "the identity is not that of the TLS certificate";
                return self.refuse_and_close(to, RefusalCode::Identity, text);
            }
            Err(error) => {
                return self.refuse_and_close(to, RefusalCode::Identity, &error.to_string());
            }
        };
        let school = self.schools.entry(hello.school).or_default();
        let (name, is_carried) = (identity.name(), tls_key.is_none());
        let newest = school.whole.as_ref().map_or(0, |(version, _)| *version);
        let is_revoked = school.revocations.is_revoked(identity.replica());
        if is_revoked && !is_carried {
            return self.refuse_and_close(to, RefusalCode::Identity, REVOKED);
        }
        if !school.identities.contains_key(&name) {
            let of_device = school.identities.values().filter(|known| known.replica() == identity.replica());
            let most = if is_revoked { REVOKED_INCARNATIONS_MAX } else { DEVICE_INCARNATIONS_MAX };
            let counts = |known: &&Identity| school.revocations.counts_any(known.replica(), known.name());
            let counted = school.identities.values().filter(counts).count();
            if counted * 3 >= VECTOR_LOGS_MAX || of_device.count() >= most {
                return self.refuse_and_close(to, RefusalCode::Identity, "too many incarnations");
            }
            self.remember_identity(hello.school, &hello.identity, identity);
            // Who holds something of it from a neighbour can bring it from now on.
            self.spread_news(hello.school, name, &Heads::new());
        }
        let connection = Connection {
            school: hello.school,
            incarnation: name,
            loss_counter: hello.loss_counter,
            manifest_version: hello.manifest_version.max(newest),
            is_carried,
            ahead: Ahead::of(hello.manifest_version),
        };
        self.connections.insert(to.connection, connection);
        self.store_undurable(hello.school);
        // Before the welcome: what its heads leave out of a revoked device is no loss then.
        let newer_keys = self.schools.get(&hello.school).and_then(|school| {
            school.whole.as_ref().filter(|(version, _)| *version > hello.manifest_version)
        });
        if let Some((_, keys)) = newer_keys {
            let frame = Box::new(Frame::Keys(Box::new(keys.clone())));
            self.effects.push_back(Effect::Tell { connection: to.connection, frame });
        }
        let welcome = self.welcome(hello, now_ms);
        self.reply(to, Frame::Welcome(Box::new(welcome)));
    }

    fn welcome(&self, hello: &Hello, now_ms: u64) -> Welcome {
        let school = self.schools.get(&hello.school);
        let all = school.map(heads).unwrap_or_default();
        let ended = school.map(|school| school.ended(&all)).unwrap_or_default().equal_to(&hello.ended);
        let left_out = ended.incarnations();
        let is_said = |incarnation: &Incarnation| !left_out.contains(incarnation);
        let identities = school.map(|school| school.identities.iter()).into_iter().flatten();
        Welcome {
            protocol: PROTOCOL,
            nonce: hello.nonce.clone(),
            time_ms: now_ms,
            heads: all.into_iter().filter(|(log, _)| is_said(&log.incarnation)).collect(),
            complete: self.complete,
            identities: identities
                .filter(|(name, _)| is_said(name))
                .map(|(_, identity)| identity.text())
                .collect(),
            // Whoever holds keys that are missing here is to send them.
            manifest_version: school
                .and_then(|school| school.whole.as_ref())
                .map_or(0, |(version, _)| *version),
            sites: u32::try_from(self.config.sites).unwrap_or(u32::MAX),
            quorum: u32::try_from(self.config.quorum).unwrap_or(u32::MAX),
            snapshots: Some(
                school.map(|school| snapshots::offers(school, self.config.quorum)).unwrap_or_default(),
            ),
            proofs: true,
            ended: ended.proofs(&hello.nonce),
        }
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
