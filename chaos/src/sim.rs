//! The simulation: several boxes of one school and a cloud of N sites in virtual time, around the real engines of
//! `proto` and the real journal on a simulated disk. A seed decides everything; the same seed gives the same trace.
//!
//! A run draws a script of writes and trouble, does it with an outside ledger that is asked after every step, then
//! heals everything and proves that all becomes safe, equal and complete within a bound. What is checked is listed
//! at the [`ledger`], the [`model`], the [`world`] and in [`settle`].
//!
//! Left out: the view on disk and the archive of `edge/store`, QUIC and TLS, real sealing (a deterministic double,
//! see [`seal`]). Drills run the real programs.

mod act;
mod agree;
mod auditor;
mod board;
mod box_side;
mod carried;
mod carrying;
mod counts;
mod erasure;
mod event;
mod faces;
mod item;
mod keeping;
mod lan;
mod lan_side;
mod later;
pub(crate) mod ledger;
mod line;
mod line_side;
mod link;
mod lives;
mod minimise;
mod model;
mod more;
mod node;
mod node_side;
pub mod options;
mod pace;
pub mod planted;
mod pruning;
mod replica;
pub mod report;
mod revoked;
mod rot;
mod school;
pub mod script;
pub(crate) mod seal;
mod serving;
mod settle;
pub(crate) mod shelf;
mod slot;
mod snapshots;
mod store;
pub(crate) mod trace;
mod world;

use std::collections::BTreeMap;

use anyhow::Result;

use counts::Counts;
pub use minimise::{Story, minimise, story};
use options::{LanKind, Options};
use planted::Planted;
use script::Line;
use world::World;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the oracle has against it.
    pub violation: Option<String>,
    /// BLAKE3 of its trace, in hexadecimal.
    pub digest: String,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Starts of boxes and nodes beyond the first ones: each follows a crash.
    pub cycles: u64,
    /// Crashes by what was being done.
    pub crash_points: BTreeMap<String, u64>,
    /// Changes that boxes acknowledged.
    pub acknowledged: u64,
    /// Of these, changes of school days.
    pub worked: u32,
    /// Steps of the world and effects of engines.
    pub steps: u64,
    /// The most of them at one moment of simulated time.
    pub steps_at_once: u64,
    /// What happened.
    pub counts: Counts,
}

/// Runs a script.
///
/// # Errors
/// When the world cannot be made, which no script can cause.
pub fn run(
    options: &Options,
    script: &[Line],
    planted: Option<Planted>,
    keep_trace: bool,
) -> Result<Outcome> {
    sonae_proto::planted::plant(Planted::of_proto(planted));
    let outcome = run_planted(options, script, planted, keep_trace);
    sonae_proto::planted::plant(None);
    outcome
}

fn run_planted(
    options: &Options,
    script: &[Line],
    planted: Option<Planted>,
    keep_trace: bool,
) -> Result<Outcome> {
    let mut world = World::new(options.clone(), planted, keep_trace)?;
    for line in script {
        if world.violation.is_some() {
            break;
        }
        world.act(line.action);
        world.run_for(line.then_ms);
    }
    if world.violation.is_none() {
        world.heal();
        world.settle();
    }
    let beside = usize::from(options.snapshot_every > 0 && options.lan != LanKind::Alone);
    let first = u64::try_from(options.boxes + beside).unwrap_or(u64::MAX).saturating_add(1);
    let acknowledged = world.slots.iter().map(|slot| slot.book.acknowledgements()).sum::<usize>();
    let replicas = world.slots.iter().filter_map(|slot| slot.replica.as_ref());
    let without_effect = replicas.map(|replica| replica.without_effect).sum();
    let (digest, trace) = world.trace.finish();
    Ok(Outcome {
        violation: world.violation,
        digest,
        trace,
        simulated_ms: world.now,
        cycles: (world.tally.restarts + world.tally.boots).saturating_sub(first),
        crash_points: world.tally.crash_points,
        acknowledged: u64::try_from(acknowledged).unwrap_or(u64::MAX),
        worked: world.tally.worked,
        steps: world.pace.in_all,
        steps_at_once: world.pace.at_once_most,
        counts: Counts { without_effect, ..world.tally.counts },
    })
}

/// Runs a seed.
///
/// # Errors
/// As [`run`].
pub fn run_seed(seed: u64, planted: Option<Planted>) -> Result<Outcome> {
    let options = Options::of_seed(seed);
    run(&options, &script::draw(&options), planted, false)
}
