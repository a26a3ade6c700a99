//! Runs many seeds and adds up what they showed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::planted::Find;
use super::run_seed;
use super::school::CHANGES_A_DAY;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;

/// Of 100 runs at least so many must differ, or the seeds explore nothing.
const DISTINCT_PERCENT_MIN: usize = 99;

/// A seed that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The seed: `sonae-chaos replay --seed` runs it again.
    pub seed: u64,
    /// What the oracle has against it.
    pub violation: String,
}

impl Failure {
    /// What a report says of it.
    pub(crate) fn objection(&self) -> String {
        format!("seed {}: {}", self.seed, self.violation)
    }
}

/// What a report says when too many of its runs were the same.
pub(crate) fn only_some_differ(distinct: usize, seeds: usize) -> Option<String> {
    let are_too_few = distinct * 100 < seeds * DISTINCT_PERCENT_MIN;
    are_too_few.then(|| format!("only {distinct} of {seeds} traces differ"))
}

/// What many runs showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The first seed.
    pub from: u64,
    /// Runs.
    pub seeds: usize,
    /// Different traces among them.
    pub distinct_traces: usize,
    /// Starts after a crash, of boxes and of nodes.
    pub crash_and_heal_cycles: u64,
    /// Simulated time.
    pub simulated_days: f64,
    /// Changes that were acknowledged.
    pub acknowledged_changes: u64,
    /// Of these, changes of school days, in days of a thousand.
    pub school_days: f64,
    /// New incarnations after a fork.
    pub renewals: u64,
    /// How often boxes pruned.
    pub prunes: u64,
    /// How often the cloud had lost what a box had pruned.
    pub unfillable: u64,
    /// Snapshots that boxes made.
    pub snapshots: u64,
    /// Tiers that began with one.
    pub beginnings: u64,
    /// Tombstones that persons wrote.
    pub erasures: u64,
    /// Changes of erased records that came later, in the views at the ends of runs.
    pub without_effect: u64,
    /// Connections between boxes.
    pub links: u64,
    /// Batches that were taken from neighbours.
    pub from_neighbours: u64,
    /// Batches that were brought to the cloud by others than their writers.
    pub relayed: u64,
    /// Writes that were refused because a disk was full.
    pub refused_for_room: u64,
    /// How often a second node stood beside the first.
    pub splits: u64,
    /// Bits that rotted on disks.
    pub rots: u64,
    /// How often a journal was made again for that.
    pub repairs: u64,
    /// Bundles that boxes gave to couriers.
    pub carried: u64,
    /// Receipts that couriers brought and that moved what is safe.
    pub receipts_by_hand: u64,
    /// Visits of an auditor.
    pub audits: u64,
    /// Objects that a node did not find at a site, because that listed them late.
    pub unlisted: u64,
    /// Crashes by what was being done.
    pub crash_points: BTreeMap<String, u64>,
    /// Seeds that failed.
    pub failures: Vec<Failure>,
    /// How each planted defect was found, if that was asked for.
    pub planted: Vec<Find>,
    /// Seconds that it took, without those for planted defects.
    pub seconds: f64,
}

impl Report {
    /// Runs `count` seeds from `from` on, and no more than fit into `limit`.
    ///
    /// # Errors
    /// As [`super::run`].
    pub fn of_seeds(from: u64, count: u64, limit: Option<Duration>) -> Result<Self> {
        let start = Instant::now();
        let mut report = Self { from, ..Self::default() };
        let mut traces = BTreeSet::new();
        for seed in from..from.saturating_add(count) {
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                break;
            }
            let outcome = run_seed(seed, None)?;
            report.seeds += 1;
            traces.insert(outcome.digest);
            report.crash_and_heal_cycles += outcome.cycles;
            report.simulated_days +=
                Duration::from_millis(outcome.simulated_ms).as_secs_f64() * 1_000.0 / DAY_MS;
            report.acknowledged_changes += outcome.acknowledged;
            report.school_days += f64::from(outcome.worked) / f64::from(CHANGES_A_DAY);
            report.renewals += outcome.renewals;
            report.prunes += outcome.prunes;
            report.unfillable += outcome.unfillable;
            report.snapshots += outcome.snapshots;
            report.beginnings += outcome.beginnings;
            report.erasures += outcome.erasures;
            report.without_effect += outcome.without_effect;
            report.links += outcome.links;
            report.from_neighbours += outcome.from_neighbours;
            report.relayed += outcome.relayed;
            report.refused_for_room += outcome.refused_for_room;
            report.splits += outcome.splits;
            report.unlisted += outcome.unlisted;
            report.audits += outcome.audits;
            report.carried += outcome.carried;
            report.receipts_by_hand += outcome.receipts_by_hand;
            report.rots += outcome.rots;
            report.repairs += outcome.repairs;
            for (point, count) in outcome.crash_points {
                *report.crash_points.entry(point).or_default() += count;
            }
            if let Some(violation) = outcome.violation {
                report.failures.push(Failure { seed, violation });
            }
        }
        report.distinct_traces = traces.len();
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// What is wrong with it; nothing when every promise held and the runs differ.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.seeds == 0 {
            found.push("no seed was run".to_owned());
        }
        found.extend(only_some_differ(self.distinct_traces, self.seeds));
        found.extend(self.planted.iter().filter_map(Find::objection));
        found.extend(self.failures.iter().map(Failure::objection));
        found
    }
}
