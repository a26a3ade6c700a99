//! The replica's side of the sync engine, sans-IO: it is told what happened and asks for effects.
//!
//! Contract: after each `handle_*`, drain [`Uplink::poll_effect`] until `None`, then sleep until
//! [`Uplink::poll_timeout`] or the next input. A log is *receipted* up to the last receipt that was verified
//! here under the present loss counter; that and nothing else is called safe.
//!
//! **Invariant**: batches of a log are sent in order, oldest first, tier 0 before the others.
//! **Invariant**: a receipt counts only for a batch that this replica holds with that very hash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ed25519_dalek::VerifyingKey;

use crate::batch::{Batch, BatchHeader};
use crate::descriptor::CloudDescriptor;
use crate::identity::{Identity, IdentityText};
use crate::ids::{Incarnation, LogName, SchoolCode};
use crate::limits::{BATCHES_IN_FLIGHT_MAX, VECTOR_LOGS_MAX};
use crate::receipt::Receipt;
use crate::vector::{Heads, LogHead};
use crate::wire::{Fetch, News, Refusal, RefusalCode, Welcome};

/// Shortest wait before the next dial, in milliseconds. Doubles with each failure.
pub const DIAL_MS_MIN: u64 = 500;

/// Longest wait before the next dial.
pub const DIAL_MS_MAX: u64 = 30_000;

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open a connection; then `handle_connected` or `handle_disconnected`.
    Dial,
    /// Send a hello with the state of this moment.
    SendHello,
    /// The cloud's manifest is older: send the key documents.
    SendKeys,
    /// Send a held batch on a stream of its own and hand its reply to `handle_batch_reply`.
    SendBatch {
        /// Which log.
        log: LogName,
        /// First sequence of the batch.
        first: u64,
    },
    /// Ask for the batches of a log, hand each to `handle_fetched`, then call `handle_fetch_end`.
    Fetch(Fetch),
    /// Keep a peer's batch durably and apply it, then call `handle_stored`.
    StoreBatch(Box<Batch>),
    /// Keep a peer's identity durably.
    KeepIdentity(Box<IdentityText>),
    /// Keep the bytes of a receipt; it moves "safe".
    KeepReceipt {
        /// Which log.
        log: LogName,
        /// Up to where it is safe now.
        head: LogHead,
        /// The receipt, as evidence.
        bytes: Vec<u8>,
    },
    /// Keep a raised loss counter and the lowered heads durably, then call `handle_loss_kept`.
    KeepLoss {
        /// The new counter.
        loss_counter: u64,
        /// Heads that are still safe.
        receipted: Heads,
    },
    /// Tell people.
    Alarm(Alarm),
    /// Close the connection; a new hello is needed.
    Disconnect,
}

/// What people must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The cloud has lost what it had receipted. It is sent again.
    CloudLost {
        /// Which log.
        log: LogName,
        /// What was receipted.
        had: u64,
        /// What is left.
        has: u64,
    },
    /// The cloud knows more of this replica's own log, or another history of it: this data directory was
    /// restored from a copy, or its bundle is in use twice. Nothing of that log is sent any more.
    OwnLogElsewhere {
        /// Which log.
        log: LogName,
        /// What is held here.
        here: u64,
        /// What the cloud has.
        there: u64,
    },
    /// The cloud refused something.
    Refused(Refusal),
    /// What the cloud served does not verify.
    BadPeerBatch {
        /// Which log.
        log: LogName,
        /// What is wrong.
        reason: String,
    },
    /// The cloud could not read enough sites to say what it has.
    Incomplete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    first: u64,
    head: LogHead,
}

#[derive(Debug, Default)]
struct OwnLog {
    receipted: Option<LogHead>,
    /// Held batches after the receipted head, oldest first.
    unsafe_batches: VecDeque<Held>,
    /// How many of them have been sent on this connection.
    sent: usize,
    /// Not sent any more: the cloud has another history.
    wedged: bool,
}

impl OwnLog {
    fn held(&self) -> LogHead {
        self.unsafe_batches.back().map(|held| held.head).or(self.receipted).unwrap_or(LogHead::EMPTY)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Down { retry_at_ms: u64, failures: u32 },
    Dialling { failures: u32 },
    Greeting,
    Up,
}

/// The engine of one replica.
#[derive(Debug)]
pub struct Uplink {
    school: SchoolCode,
    board: VerifyingKey,
    cloud: CloudDescriptor,
    jitter: u64,
    line: Line,
    loss_counter: u64,
    loss_being_kept: bool,
    own: BTreeMap<LogName, OwnLog>,
    /// Batches that were receipted under an earlier loss counter: needed again when the cloud loses its tail.
    receipted_batches: BTreeMap<LogName, Vec<Held>>,
    peers: BTreeMap<LogName, LogHead>,
    identities: BTreeMap<Incarnation, Identity>,
    cloud_heads: Heads,
    to_fetch: BTreeSet<LogName>,
    fetching: Option<LogName>,
    in_flight: usize,
    manifest_version: u64,
    effects: VecDeque<Effect>,
    last_contact_ms: Option<u64>,
}

/// What an engine starts from.
#[derive(Debug)]
pub struct Start {
    /// Whose data.
    pub school: SchoolCode,
    /// The board's root key.
    pub board: VerifyingKey,
    /// The cloud.
    pub cloud: CloudDescriptor,
    /// Any number; spreads dials of many boxes.
    pub jitter: u64,
    /// The kept loss counter.
    pub loss_counter: u64,
    /// Version of the manifest held.
    pub manifest_version: u64,
    /// Receipted heads of own logs.
    pub receipted: Heads,
    /// Headers of all held batches of own logs, in order.
    pub own_batches: Vec<BatchHeader>,
    /// Incarnations of this replica, whose logs it sends.
    pub own: BTreeSet<Incarnation>,
    /// Heads of peers' logs that are held.
    pub peers: Heads,
    /// Peers' identities.
    pub identities: Vec<Identity>,
}

impl Uplink {
    /// Starts with the line down; the first dial is due at once.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let mut uplink = Self {
            school: start.school,
            board: start.board,
            cloud: start.cloud,
            jitter: start.jitter | 1,
            line: Line::Down { retry_at_ms: 0, failures: 0 },
            loss_counter: start.loss_counter,
            loss_being_kept: false,
            own: BTreeMap::new(),
            receipted_batches: BTreeMap::new(),
            peers: start.peers,
            identities: start.identities.into_iter().map(|identity| (identity.name(), identity)).collect(),
            cloud_heads: Heads::new(),
            to_fetch: BTreeSet::new(),
            fetching: None,
            in_flight: 0,
            manifest_version: start.manifest_version,
            effects: VecDeque::new(),
            last_contact_ms: None,
        };
        for incarnation in start.own {
            for tier in crate::ids::Tier::ALL {
                let log = LogName { tier, incarnation };
                let receipted = start.receipted.get(&log).copied();
                uplink.own.insert(log, OwnLog { receipted, ..OwnLog::default() });
            }
        }
        for header in start.own_batches {
            uplink.hold(&header);
        }
        uplink
    }

    fn hold(&mut self, header: &BatchHeader) {
        let held = Held { first: header.first, head: header.head() };
        let Some(own) = self.own.get_mut(&header.log) else { return };
        if own.receipted.is_some_and(|head| head.sequence >= header.last) {
            self.receipted_batches.entry(header.log).or_default().push(held);
        } else {
            own.unsafe_batches.push_back(held);
        }
    }

    /// A new batch of an own log is durable here.
    pub fn handle_sealed(&mut self, header: &BatchHeader) {
        self.hold(header);
        self.send_more();
    }

    /// The time has come that `poll_timeout` named.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        if let Line::Down { retry_at_ms, failures } = self.line
            && retry_at_ms <= now_ms
        {
            self.line = Line::Dialling { failures };
            self.effects.push_back(Effect::Dial);
        }
    }

    /// Returns when `handle_timeout` is due, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.line {
            Line::Down { retry_at_ms, .. } => Some(retry_at_ms),
            Line::Dialling { .. } | Line::Greeting | Line::Up => None,
        }
    }

    /// Returns the next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The connection stands.
    pub fn handle_connected(&mut self) {
        self.line = Line::Greeting;
        self.effects.push_back(Effect::SendHello);
    }

    /// The connection is gone or could not be made.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        let failures = match self.line {
            Line::Down { failures, .. } | Line::Dialling { failures } => failures,
            Line::Greeting | Line::Up => 0,
        };
        let wait = DIAL_MS_MIN.saturating_mul(1 << failures.min(10)).min(DIAL_MS_MAX);
        // xorshift: a spread of half the wait, so that a district's boxes do not dial in step.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let retry_at_ms = now_ms + wait / 2 + self.jitter % (wait / 2 + 1);
        self.line = Line::Down { retry_at_ms, failures: failures.saturating_add(1) };
        self.in_flight = 0;
        self.fetching = None;
        self.to_fetch.clear();
        for own in self.own.values_mut() {
            own.sent = 0;
        }
        let stale = |effect: &Effect| {
            !matches!(
                effect,
                Effect::SendHello | Effect::SendKeys | Effect::SendBatch { .. } | Effect::Fetch(_)
            )
        };
        self.effects.retain(stale);
    }

    /// The cloud has answered the hello.
    pub fn handle_welcome(&mut self, welcome: &Welcome, now_ms: u64) {
        if welcome.heads.len() > VECTOR_LOGS_MAX {
            self.effects.push_back(Effect::Disconnect);
            return;
        }
        self.line = Line::Up;
        self.last_contact_ms = Some(now_ms);
        self.cloud_heads = welcome.heads.clone();
        for text in &welcome.identities {
            self.learn(text);
        }
        if welcome.manifest_version < self.manifest_version {
            self.effects.push_back(Effect::SendKeys);
        }
        if !welcome.complete {
            self.effects.push_back(Effect::Alarm(Alarm::Incomplete));
        }
        if self.compare_own_logs(welcome) {
            return;
        }
        self.want_peers(&welcome.heads.clone());
        self.send_more();
    }

    /// Compares own logs with what the cloud has. Returns whether a loss was found, after which nothing is
    /// sent before the raised counter is kept.
    fn compare_own_logs(&mut self, welcome: &Welcome) -> bool {
        let mut lost = false;
        for (log, own) in &mut self.own {
            let there = welcome.heads.get(log).copied().unwrap_or(LogHead::EMPTY);
            let held = own.held();
            let known = there == LogHead::EMPTY
                || own.receipted == Some(there)
                || own.unsafe_batches.iter().any(|batch| batch.head == there)
                || self
                    .receipted_batches
                    .get(log)
                    .is_some_and(|batches| batches.iter().any(|batch| batch.head == there));
            if !known {
                if !own.wedged {
                    let alarm = Alarm::OwnLogElsewhere {
                        log: *log,
                        here: held.sequence,
                        there: there.sequence,
                    };
                    self.effects.push_back(Effect::Alarm(alarm));
                }
                own.wedged = true;
                continue;
            }
            let had = own.receipted.unwrap_or(LogHead::EMPTY);
            if welcome.complete && there.sequence < had.sequence {
                let alarm = Alarm::CloudLost { log: *log, had: had.sequence, has: there.sequence };
                self.effects.push_back(Effect::Alarm(alarm));
                own.receipted = (there != LogHead::EMPTY).then_some(there);
                let receipted = self.receipted_batches.entry(*log).or_default();
                let keep = receipted.partition_point(|batch| batch.head.sequence <= there.sequence);
                for batch in receipted.drain(keep..).rev() {
                    own.unsafe_batches.push_front(batch);
                }
                lost = true;
            }
        }
        if lost {
            self.loss_counter += 1;
            self.loss_being_kept = true;
            self.effects.push_back(Effect::KeepLoss {
                loss_counter: self.loss_counter,
                receipted: self.receipted(),
            });
        }
        lost
    }

    /// The raised loss counter is durable: greet again with it.
    pub fn handle_loss_kept(&mut self) {
        self.loss_being_kept = false;
        self.effects.push_back(Effect::Disconnect);
    }

    fn learn(&mut self, text: &IdentityText) {
        let Ok(identity) = text.verify(&self.board, self.school) else { return };
        let name = identity.name();
        if !self.identities.contains_key(&name) {
            self.identities.insert(name, identity);
            self.effects.push_back(Effect::KeepIdentity(Box::new(text.clone())));
        }
    }

    fn want_peers(&mut self, heads: &Heads) {
        for (log, there) in heads {
            let here = self.peers.get(log).map_or(0, |head| head.sequence);
            if !self.own.contains_key(log) && there.sequence > here {
                self.to_fetch.insert(*log);
            }
        }
        self.fetch_next();
    }

    fn fetch_next(&mut self) {
        if self.fetching.is_some() || self.line != Line::Up {
            return;
        }
        if let Some(log) = self.to_fetch.pop_first() {
            self.fetching = Some(log);
            let after = self.peers.get(&log).map_or(0, |head| head.sequence);
            self.effects.push_back(Effect::Fetch(Fetch { log, after }));
        }
    }

    /// Other replicas' logs have moved.
    pub fn handle_news(&mut self, news: &News, now_ms: u64) {
        self.last_contact_ms = Some(now_ms);
        for text in &news.identities {
            self.learn(text);
        }
        for (log, head) in &news.heads {
            self.cloud_heads.insert(*log, *head);
        }
        self.want_peers(&news.heads);
    }

    /// A batch of a peer has come. It is stored only if it verifies and continues what is held.
    pub fn handle_fetched(&mut self, batch: Batch) {
        let header = *batch.header();
        let held = self.peers.get(&header.log).copied().unwrap_or(LogHead::EMPTY);
        if header.last <= held.sequence {
            return;
        }
        let checked = match self.identities.get(&header.log.incarnation) {
            _ if self.own.contains_key(&header.log) => Err("it is this replica's own log".to_owned()),
            None => Err("its incarnation is not known".to_owned()),
            Some(_) if header.school != self.school => Err("it is of another school".to_owned()),
            Some(_) if !header.continues(&held) => Err("it does not continue its log".to_owned()),
            Some(identity) => batch.verify(identity.key()).map_err(|error| error.to_string()),
        };
        match checked {
            Ok(()) => {
                self.peers.insert(header.log, header.head());
                self.effects.push_back(Effect::StoreBatch(Box::new(batch)));
            }
            Err(reason) => {
                self.effects.push_back(Effect::Alarm(Alarm::BadPeerBatch { log: header.log, reason }));
            }
        }
    }

    /// A fetch has ended, whole or not.
    pub fn handle_fetch_end(&mut self) {
        self.fetching = None;
        self.fetch_next();
    }

    /// The cloud has answered a batch.
    pub fn handle_batch_reply(&mut self, log: LogName, reply: BatchReply, now_ms: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_contact_ms = Some(now_ms);
        match reply {
            BatchReply::Receipt(bytes) => self.receipt(bytes),
            BatchReply::Refusal(refusal) => {
                let again = refusal.code == RefusalCode::Storage;
                if let Some(own) = self.own.get_mut(&log) {
                    own.wedged |= !again;
                }
                self.effects.push_back(Effect::Alarm(Alarm::Refused(refusal)));
                if again {
                    self.effects.push_back(Effect::Disconnect);
                }
            }
        }
        self.send_more();
    }

    fn receipt(&mut self, bytes: Vec<u8>) {
        let Ok(receipt) = Receipt::verify(&bytes, &self.cloud) else { return };
        let current = receipt.school == self.school
            && receipt.loss_counter == self.loss_counter
            && !self.loss_being_kept;
        let Some(own) = self.own.get_mut(&receipt.log).filter(|_| current) else { return };
        let Some(position) = own.unsafe_batches.iter().position(|batch| batch.head == receipt.head) else {
            return;
        };
        let safe: Vec<Held> = own.unsafe_batches.drain(..=position).collect();
        own.sent = own.sent.saturating_sub(safe.len());
        own.receipted = Some(receipt.head);
        self.receipted_batches.entry(receipt.log).or_default().extend(safe);
        self.cloud_heads.insert(receipt.log, receipt.head);
        self.effects.push_back(Effect::KeepReceipt { log: receipt.log, head: receipt.head, bytes });
    }

    fn send_more(&mut self) {
        if self.line != Line::Up || self.loss_being_kept {
            return;
        }
        for (log, own) in &mut self.own {
            while !own.wedged && self.in_flight < BATCHES_IN_FLIGHT_MAX {
                let Some(batch) = own.unsafe_batches.get(own.sent) else { break };
                self.effects.push_back(Effect::SendBatch { log: *log, first: batch.first });
                own.sent += 1;
                self.in_flight += 1;
            }
        }
    }

    /// Returns the receipted heads of own logs: what is safe.
    #[must_use]
    pub fn receipted(&self) -> Heads {
        self.own.iter().filter_map(|(log, own)| Some((*log, own.receipted?))).collect()
    }

    /// Returns the loss counter.
    #[must_use]
    pub fn loss_counter(&self) -> u64 {
        self.loss_counter
    }

    /// Whether the cloud has been greeted and has answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.line == Line::Up
    }

    /// Returns when the cloud was last heard of.
    #[must_use]
    pub fn last_contact_ms(&self) -> Option<u64> {
        self.last_contact_ms
    }

    /// Returns the heads that the cloud has said it has.
    #[must_use]
    pub fn cloud_heads(&self) -> &Heads {
        &self.cloud_heads
    }

    /// Returns the heads of peers' logs that are verified here.
    #[must_use]
    pub fn peer_heads(&self) -> &Heads {
        &self.peers
    }

    /// Whether everything that the cloud has of others is here.
    #[must_use]
    pub fn has_all_of_peers(&self) -> bool {
        self.line == Line::Up
            && self.fetching.is_none()
            && self.cloud_heads.iter().all(|(log, there)| {
                self.own.contains_key(log) || self.peers.get(log).is_some_and(|here| here == there)
            })
    }
}

/// What came back for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchReply {
    /// Bytes of a receipt.
    Receipt(Vec<u8>),
    /// A refusal.
    Refusal(Refusal),
}
