//! Runs many seeds of real programs and adds up what they showed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::options::{Options, Trouble};
use super::planted::Find;
use super::{Plan, missing_for, run};

/// What was done and seen in a run, or in many.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Actions, by kind of trouble.
    pub troubles: BTreeMap<Trouble, u64>,
    /// Starts of boxes and nodes beyond the first ones.
    pub starts: u64,
    /// Power cuts of boxes' disks.
    pub cuts: u64,
    /// Power cuts of the disk of all sites.
    pub site_cuts: u64,
    /// Faults of disks that met an operation.
    pub faults: u64,
    /// Bits of journals that were flipped.
    pub flips: u64,
    /// Boxes that were made from the cloud alone.
    pub rebuilds: u64,
    /// Boxes that had too little memory to live.
    pub out_of_memory: u64,
    /// Writes that people were answered as kept.
    pub acknowledged: u64,
    /// Looks at a box: all that was answered was there.
    pub looks: u64,
    /// Operations of boxes' disks that changed or flushed something.
    pub disk_operations: u64,
    /// Seconds of the runs.
    pub seconds: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (trouble, count) in other.troubles {
            *self.troubles.entry(trouble).or_default() += count;
        }
        self.starts += other.starts;
        self.cuts += other.cuts;
        self.site_cuts += other.site_cuts;
        self.faults += other.faults;
        self.flips += other.flips;
        self.rebuilds += other.rebuilds;
        self.out_of_memory += other.out_of_memory;
        self.acknowledged += other.acknowledged;
        self.looks += other.looks;
        self.disk_operations += other.disk_operations;
        self.seconds += other.seconds;
    }
}

/// A seed that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The seed: `make replay RING=proc SEED=…` does the same again.
    pub seed: u64,
    /// Everything that the seed decides.
    pub options: Options,
    /// What the oracle has against it.
    pub violation: String,
    /// What happened, with times.
    pub trace: Vec<String>,
}

/// What many runs showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The first seed.
    pub from: u64,
    /// Runs.
    pub seeds: u64,
    /// Different scripts among them.
    pub distinct_scripts: usize,
    /// Kinds of trouble that this machine cannot make, with the reason: about them nothing was verified.
    pub not_verified: BTreeMap<Trouble, String>,
    /// What was done and seen.
    pub tally: Tally,
    /// Seeds that failed.
    pub failures: Vec<Failure>,
    /// How each planted defect was found, if that was asked for.
    pub planted: Vec<Find>,
}

impl Report {
    /// Runs seeds, each in a folder of its own below `dir`, and no more than fit into `limit`.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn of_seeds(
        dir: &Path,
        seeds: impl Iterator<Item = u64>,
        limit: Option<Duration>,
    ) -> Result<Self> {
        let began = Instant::now();
        let mut report = Self { not_verified: missing_for().into_iter().collect(), ..Self::default() };
        let mut scripts = BTreeSet::new();
        for seed in seeds {
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                break;
            }
            let options = Options::of_seed(seed);
            let folder = dir.join(seed.to_string());
            let outcome = run(&folder, options.clone(), Plan::default()).await?;
            if report.seeds == 0 {
                report.from = seed;
            }
            report.seeds += 1;
            scripts.insert(serde_json::to_string(&options.script)?);
            report.tally.add(outcome.tally);
            match outcome.violation {
                // What the programs said stays to be read.
                Some(violation) => {
                    report.failures.push(Failure { seed, options, violation, trace: outcome.trace })
                }
                None => std::fs::remove_dir_all(&folder)?,
            }
        }
        report.distinct_scripts = scripts.len();
        Ok(report)
    }

    /// What is wrong with it; nothing when every promise held.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.seeds == 0 || self.tally.acknowledged == 0 {
            found.push("nothing was run, so nothing was shown".to_owned());
        }
        let missed = self.planted.iter().filter(|find| find.violation.is_none());
        found.extend(missed.map(|find| format!("the planted defect {} was not found", find.defect)));
        found.extend(
            self.failures.iter().map(|failure| format!("seed {}: {}", failure.seed, failure.violation)),
        );
        found
    }
}
