//! The ring of real programs: boxes of one school and a node with its sites, each machine with a network, a disk, a
//! clock and bounds of its own, under trouble that a seed decides, while people write through the LAN.
//!
//! A run draws a script, does it, looks at every box and every site after each step, then heals everything and proves
//! that all becomes safe, equal and complete. What is checked is listed in `judge.rs`; what a seed decides, at
//! [`options`]. The same seed does the same things in the same order, but real programs take their own time, and keys
//! are drawn anew: a failing seed is run again until it fails again.
//!
//! It needs root. What a machine cannot do is named by [`missing`] and shown as not verified, never as passed.

mod act;
pub mod command;
mod disk;
mod groups;
mod judge;
mod ledger;
mod lives;
pub mod network;
pub mod options;
pub mod planted;
pub mod report;
mod sites;
mod staff;
mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use options::{Options, Trouble};
use report::Tally;
use world::World;

use crate::fault_fs;

/// How a run is done, besides what its seed decides.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A defect that is planted in all programs, by its name; they must be built with them.
    pub planted: Option<String>,
    /// How long a program may take to answer or to become ready, and everything to converge after healing.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { planted: None, patience: Duration::from_secs(120) }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What the oracle has against it.
    pub violation: Option<String>,
    /// What happened, with times.
    pub trace: Vec<String>,
    /// What was done and seen.
    pub tally: Tally,
}

/// Says what is missing here for any run at all, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    network::missing()
}

/// Says for which kinds of trouble something is missing here, and what.
#[must_use]
pub fn missing_for() -> Vec<(Trouble, String)> {
    let of = |troubles: &[Trouble], what: Option<String>| {
        let each = |what: String| troubles.iter().map(move |trouble| (*trouble, what.clone())).collect();
        what.map_or_else(Vec::new, each)
    };
    let disks = [
        Trouble::Power,
        Trouble::DiskError,
        Trouble::SlowDisk,
        Trouble::LyingDisk,
        Trouble::Rot,
        Trouble::Site,
        Trouble::SitePower,
    ];
    [
        of(&disks, fault_fs::missing()),
        of(&[Trouble::Limits], groups::missing()),
        of(&[Trouble::Clock], crate::wrong_clock::missing()),
    ]
    .concat()
}

/// Does what options say in an empty folder.
///
/// # Errors
/// When the world cannot be made or told what to do. What the programs do wrong is no error but stands in the outcome.
pub async fn run(dir: &Path, mut options: Options, plan: Plan) -> Result<Outcome> {
    let missing: Vec<Trouble> = missing_for().into_iter().map(|(trouble, _)| trouble).collect();
    options.leave_out(&missing);
    let began = Instant::now();
    let script = options.script.clone();
    let mut world = World::found(dir, options, plan).await?;
    for line in script {
        world.act(line).await?;
        world.check().await?;
        if world.violation.is_some() {
            break;
        }
    }
    if world.violation.is_none() {
        world.heal().await?;
    }
    if world.violation.is_none() {
        world.settle().await?;
    }
    world.tally.acknowledged = world.acknowledged();
    world.tally.seconds = began.elapsed().as_secs_f64();
    world.tally.disk_operations = world.disk_operations();
    Ok(Outcome {
        violation: world.violation.take(),
        trace: std::mem::take(&mut world.trace),
        tally: world.tally.clone(),
    })
}
