//! The adversary on the line: stands between a box and the cloud, or is the cloud, and alters what is served. It
//! has everything that the cloud ever stored, said or was sent, and no private key of board or replicas; where the
//! options say so, it has the cloud's receipt key.
//!
//! **Invariant**: with no mutations it changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sonae_proto::batch::Batch;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::LogName;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::{FRAME_HEADER_BYTES, Fetch, Frame, Hello, KeyDocuments, Welcome, frame_header};

use super::board::Life;
use super::cloud::Cloud;
use super::history::History;
use super::options::{Mutation, Options};
use super::served::{self, Served};
use crate::random::Random;

/// What an adversary does, and with what luck.
pub(crate) struct Plan {
    pub mutations: Vec<Mutation>,
    pub persistent: bool,
    pub signs_receipts: bool,
}

/// The adversary.
pub(crate) struct Proxy<'a> {
    pub(super) history: &'a History,
    /// The honest cloud.
    pub honest: Cloud,
    /// What stands in its place, on connections on which it does.
    pub shadow: Option<Cloud>,
    pub(super) in_shadow: bool,
    /// What the honest cloud has now.
    pub(super) moment: usize,
    plan: Plan,
    pub(super) random: Random,
    pub(super) connection: u64,
    pub(super) own: Vec<LogName>,
    /// Logs that are shown up to here only.
    pub(super) limits: BTreeMap<LogName, LogHead>,
    /// An incarnation that the board has not certified.
    pub(super) stranger: Life,
    /// What it does where snapshots are served; `None` where nobody asks for one.
    pub(super) snapshots: Option<Served>,
    /// What was really done.
    pub done: BTreeSet<Mutation>,
    /// A receipt was signed for what was thrown away.
    pub lied: bool,
    pub notes: Vec<String>,
}

impl<'a> Proxy<'a> {
    /// Stands before the cloud of a moment.
    pub fn new(history: &'a History, options: &Options, moment: usize, victim: &Life) -> Result<Self> {
        let plan = Plan {
            mutations: options.mutations.clone(),
            persistent: options.persistent,
            signs_receipts: options.signs_receipts,
        };
        let root = super::board::key("stranger root");
        let board = &history.board;
        let snapshots = options.snapshots.as_ref().map(Served::new);
        let objects = served::objects(history, snapshots.as_ref(), moment)?;
        Ok(Self {
            history,
            honest: Cloud::boot(board, objects, history.options.sites, history.options.quorum),
            snapshots,
            shadow: None,
            in_shadow: false,
            moment,
            plan,
            random: Random::new(options.seed, "adversary proxy"),
            connection: 1_000,
            own: victim.logs().to_vec(),
            limits: BTreeMap::new(),
            stranger: board.begin_under(
                &root,
                &board.school,
                "stranger",
                "stranger",
                Beginning::Enrolment,
            )?,
            done: BTreeSet::new(),
            lied: false,
            notes: Vec::new(),
        })
    }

    /// Stands before a cloud and changes nothing.
    pub fn honest(history: &'a History, options: &Options, cloud: Cloud, victim: &Life) -> Result<Self> {
        let mut proxy = Self::new(history, &options.honest(), 0, victim)?;
        proxy.honest = cloud;
        Ok(proxy)
    }

    /// The cloud that is behind it now.
    pub const fn front(&mut self) -> &mut Cloud {
        match &mut self.shadow {
            Some(shadow) if self.in_shadow => shadow,
            _ => &mut self.honest,
        }
    }

    /// A connection begins.
    pub fn connected(&mut self) {
        self.connection += 1;
        self.in_shadow &= self.plan.persistent;
        if !self.plan.persistent {
            self.limits.clear();
        }
    }

    /// A connection is gone.
    pub fn gone(&mut self) {
        let connection = self.connection;
        self.front().leave(connection);
    }

    /// Whether a mutation is done at this opportunity.
    pub(super) fn is_due(&mut self, mutation: Mutation) -> bool {
        self.plan.mutations.contains(&mutation)
            && (self.plan.persistent || !self.done.contains(&mutation))
            && self.random.one_in(2)
    }

    /// The same at an opportunity that a box may give once only.
    pub(super) fn is_surely_due(&mut self, mutation: Mutation) -> bool {
        self.plan.mutations.contains(&mutation)
            && (self.plan.persistent || !self.done.contains(&mutation))
            && !self.random.one_in(8)
    }

    pub(super) fn did(&mut self, mutation: Mutation, what: &str) {
        self.done.insert(mutation);
        if self.notes.len() < 40 {
            self.notes.push(format!("{mutation:?}: {what}"));
        }
    }

    pub(super) fn planned(&self) -> Vec<Mutation> {
        self.plan.mutations.clone()
    }

    pub(super) const fn signs_receipts(&self) -> bool {
        self.plan.signs_receipts
    }

    /// A hello. Returns bytes of frames of the control stream.
    pub fn hello(&mut self, tls_key: &[u8; 32], hello: &Hello) -> Vec<Vec<u8>> {
        if self.alters_logs() {
            self.stand_in();
        }
        let connection = self.connection;
        let mut hello = hello.clone();
        if !self.limits.is_empty() {
            // To leave a log out is to say that it is held whole.
            hello.ended.clear();
        }
        let mut frames = self.front().hello(connection, tls_key, &hello);
        for mutation in self.planned() {
            if self.alters_logs() && self.is_due(mutation) {
                self.alter_control(mutation, &mut frames);
            }
        }
        self.mask(&mut frames);
        self.alter_offers(&mut frames);
        if self.alters_logs() { self.encode(frames) } else { encode(&frames) }
    }

    /// Key documents from the box.
    pub fn keys(&mut self, documents: &KeyDocuments) {
        let connection = self.connection;
        self.front().keys(connection, documents);
    }

    /// A batch from a box. Returns bytes of what is answered on its stream.
    pub fn batch(&mut self, batch: &Batch, loss_counter: u64) -> Vec<Vec<u8>> {
        for mutation in self.planned() {
            if self.is_due(mutation)
                && let Some(frames) = self.answer_instead(mutation, batch, loss_counter)
            {
                return self.encode(frames);
            }
        }
        let connection = self.connection;
        let mut frames = self.front().batch(connection, batch.bytes().to_vec());
        for mutation in self.planned() {
            if self.is_due(mutation) {
                self.alter_reply(mutation, batch, &mut frames);
            }
        }
        self.encode(frames)
    }

    /// A fetch. Returns bytes of the frames of its stream.
    pub fn fetch(&mut self, fetch: &Fetch) -> Vec<Vec<u8>> {
        let connection = self.connection;
        let mut frames = self.front().fetch(connection, fetch);
        if let Some(limit) = self.limits.get(&fetch.log).copied() {
            frames.retain(|frame| header_last(frame).is_none_or(|last| last <= limit.sequence));
        }
        if fetch.log.incarnation == self.stranger.name {
            self.serve_stranger(&mut frames);
        }
        for mutation in self.planned() {
            if self.alters_logs() && self.is_due(mutation) {
                self.alter_fetch(mutation, fetch, &mut frames);
            }
        }
        if self.alters_logs() { self.encode(frames) } else { encode(&frames) }
    }

    /// Encodes frames, and flips a bit on the way where that is planned.
    pub(super) fn encode(&mut self, frames: Vec<Frame>) -> Vec<Vec<u8>> {
        let mut all = encode(&frames);
        if !all.is_empty() && self.is_due(Mutation::Flip) {
            let number = self.random.index(all.len());
            let byte = self.random.index(all[number].len());
            let bit = self.random.index(8);
            all[number][byte] ^= 1 << bit;
            self.did(Mutation::Flip, &format!("bit {bit} of byte {byte} of frame {number}"));
        }
        all
    }

    /// Heads of logs that are shown in part only, and a masked loss.
    fn mask(&mut self, frames: &mut [Frame]) {
        for frame in frames {
            let Frame::Welcome(welcome) = frame else { continue };
            for (log, limit) in &self.limits {
                if welcome.heads.get(log).is_some_and(|head| head.sequence > limit.sequence) {
                    if *limit == LogHead::EMPTY {
                        welcome.heads.remove(log);
                    } else {
                        welcome.heads.insert(*log, *limit);
                    }
                }
            }
        }
    }
}

/// The bytes of frames.
fn encode(frames: &[Frame]) -> Vec<Vec<u8>> {
    frames.iter().filter_map(|frame| frame.to_bytes().ok()).collect()
}

/// Reads the bytes of a frame.
pub(super) fn decode(bytes: &[u8]) -> Option<Frame> {
    let (header, body) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let (kind, length) = frame_header(*header).ok()?;
    // A longer length is waited for in vain; what is behind a shorter one is read as the next frame.
    Frame::from_body(kind, body.get(..length)?.to_vec()).ok()
}

/// The last sequence of a served batch.
pub(super) fn header_last(frame: &Frame) -> Option<u64> {
    let Frame::Batch(bytes) = frame else { return None };
    Batch::from_bytes(bytes.clone()).ok().map(|batch| batch.header().last)
}

/// The welcome among frames.
pub(super) fn welcome(frames: &mut [Frame]) -> Option<&mut Welcome> {
    frames.iter_mut().find_map(|frame| {
        let Frame::Welcome(welcome) = frame else { return None };
        Some(&mut **welcome)
    })
}
