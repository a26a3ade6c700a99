//! The adversary ring: generated attacks on what the cloud serves, what its sites hold and what couriers carry,
//! each judged by an oracle that knows what really happened (P4). Every case has an honest twin, in which an alarm
//! is a failure.
//!
//! Real are the engines of `proto`, its formats and signatures, the merge, the courier's decoder; the loader, the
//! index and the auditor of `cloud`, over object stores in memory; in one of eight histories age and zstd. Modelled
//! are the shells of box and node, as in [`crate::sim`]. Left out: TLS, which keeps strangers off the line, so that
//! whoever alters frames here is the cloud itself.

mod album;
mod appliance;
mod beginner;
mod board;
mod boxes;
mod bundle;
mod carried;
mod cloud;
pub mod command;
mod history;
mod judge;
mod laid;
mod objects;
pub mod options;
pub mod planted;
mod proxy;
pub mod report;
mod said;
mod served;
pub mod signal;
mod sites;
mod tamper;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context, Result};
use sonae_proto::courier::{Opening, ReplicaOpening};
use sonae_proto::ended::EndedHashes;
use sonae_proto::vector::{Heads, Sequences};
use sonae_proto::wire::{Hello, PROTOCOL};
use tokio::runtime::Runtime;

use history::History;
pub use judge::Found;
use judge::{Facts, judge};
use options::{HistoryOptions, Mutation, Options, Victim};
use planted::Planted;
use signal::Signal;

thread_local! {
    /// Planted in the shells of this thread.
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Whether heads from outside are asked for, as they must be.
fn is_expected() -> bool {
    PLANTED.get() != Some(Planted::ExpectIgnored)
}

/// What came of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended, or what the oracle has against it.
    pub found: Result<Found, String>,
    /// What was really done.
    pub done: BTreeSet<Mutation>,
    /// What was said of it.
    pub signals: BTreeSet<Signal>,
    /// Tiers that began with snapshots.
    pub begun: usize,
    /// What happened, for people.
    pub notes: Vec<String>,
    /// BLAKE3 of all that, in hexadecimal.
    pub digest: String,
}

/// Runs cases, and keeps the history that neighbouring seeds share.
pub struct Ring {
    runtime: Runtime,
    history: Option<Rc<History>>,
}

impl Ring {
    /// Opens the ring.
    ///
    /// # Errors
    /// When the runtime of the object stores cannot start.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { runtime, history: None })
    }

    fn history(&mut self, options: &HistoryOptions) -> Result<Rc<History>> {
        if let Some(history) = self.history.as_ref().filter(|history| history.options == *options) {
            return Ok(Rc::clone(history));
        }
        let history = Rc::new(History::new(options).context("an honest history cannot be made")?);
        self.history = Some(Rc::clone(&history));
        Ok(history)
    }

    /// Runs a case.
    ///
    /// # Errors
    /// When its world cannot be made, which no option can cause.
    pub fn run(&mut self, options: &Options, planted: Option<Planted>) -> Result<Outcome> {
        let history = self.history(&options.history)?;
        sonae_proto::planted::plant(planted.and_then(Planted::of_proto));
        PLANTED.set(planted);
        let facts = self.attack(&history, options);
        PLANTED.set(None);
        sonae_proto::planted::plant(None);
        let facts = facts?;
        let found = judge(options, &facts);
        let text = format!("{options:?} {found:?} {:?} {:?}", facts.done, facts.signals);
        let mut digest = blake3::Hasher::new();
        digest.update(text.as_bytes());
        // What age has sealed differs from run to run, and with it what is at a byte.
        if !options.history.real_sealing {
            digest.update(facts.notes.join("\n").as_bytes());
        }
        Ok(Outcome {
            found,
            done: facts.done,
            signals: facts.signals,
            begun: facts.begun,
            notes: facts.notes,
            digest: digest.finalize().to_hex().to_string(),
        })
    }

    fn attack(&self, history: &History, options: &Options) -> Result<Facts> {
        match options.victim {
            Victim::Running => boxes::running(history, options),
            Victim::Rebuild | Victim::RebuildExpect => boxes::rebuilt(history, options),
            Victim::Auditor | Victim::AuditorExpect => sites::audited(history, options, &self.runtime),
            Victim::Node => sites::node(history, options, &self.runtime),
            Victim::CourierEdge => bundle::into_box(history, options),
            Victim::CourierCloud => bundle::into_node(history, options),
            Victim::Snapshots => beginner::begun(history, options),
        }
    }
}

/// What a bundle's opening says, as a hello.
fn encode_whole(opening: &Opening, replica: &ReplicaOpening) -> Hello {
    Hello {
        protocol: PROTOCOL,
        school: opening.school,
        identity: replica.identity.clone(),
        loss_counter: replica.loss_counter,
        receipted: replica.receipted.clone(),
        have: replica.have.clone(),
        manifest_version: replica.manifest_version,
        nonce: String::new(),
        software: opening.software.clone(),
        ended: EndedHashes::new(),
    }
}

/// A hello of the first replica, for another identity to be put in.
fn hello_of(history: &History) -> Hello {
    Hello {
        protocol: PROTOCOL,
        school: history.board.school.code,
        identity: history.lives[0].identity.clone(),
        loss_counter: 0,
        receipted: Heads::new(),
        have: Sequences::new(),
        manifest_version: 2,
        nonce: String::new(),
        software: "adversary".into(),
        ended: EndedHashes::new(),
    }
}
