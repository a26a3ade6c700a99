//! Runs many cases with their honest twins and counts them by mutation, victim and outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::Ring;
use super::judge::Found;
use super::options::{MUTATIONS, Mutation, Options, VICTIMS, Victim};
use super::signal::Signal;
use crate::sim::planted::{self, Find};
use crate::sim::report::only_some_differ;

/// Cases of a mutation from which on it must have been detected at least once.
const CASES_TO_JUDGE: u64 = 50;

/// A case that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// `make replay RING=adversary SEED=…` runs it again.
    pub seed: u64,
    /// Everything that the seed decides.
    pub options: Options,
    /// What the oracle has against it.
    pub violation: String,
}

/// Cases of one mutation against one victim.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Row {
    /// The victim said it.
    pub said: u64,
    /// Heads from outside showed it.
    pub witnessed: u64,
    /// Only heads from outside could, and none were given: "completeness unverified".
    pub unverified: u64,
    /// It changed nothing.
    pub harmless: u64,
    /// There was no opportunity.
    pub idle: u64,
    /// Undetected.
    pub failed: u64,
}

impl Row {
    fn count(&mut self, found: &Result<Found, String>) {
        *match found {
            Ok(Found::Said) => &mut self.said,
            Ok(Found::Witnessed) => &mut self.witnessed,
            Ok(Found::Unverified) => &mut self.unverified,
            Ok(Found::Harmless) => &mut self.harmless,
            Ok(Found::Idle) => &mut self.idle,
            Err(_) => &mut self.failed,
        } += 1;
    }

    const fn cases(&self) -> u64 {
        self.said + self.witnessed + self.unverified + self.harmless + self.failed
    }
}

/// What many cases showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The first seed.
    pub from: u64,
    /// Seeds.
    pub seeds: u64,
    /// Cases in which something was done.
    pub adversarial_cases: u64,
    /// The same without an adversary.
    pub honest_runs: u64,
    /// Cases that nobody detected.
    pub undetected: u64,
    /// Honest runs with an alarm.
    pub false_alarms: u64,
    /// Different digests among the cases.
    pub distinct_traces: usize,
    /// By mutation and victim. A case with two mutations counts for both.
    pub table: BTreeMap<Mutation, BTreeMap<Victim, Row>>,
    /// How often each word was said.
    pub signals: BTreeMap<Signal, u64>,
    /// Cases with real age and zstd.
    pub really_sealed: u64,
    /// Tiers that began with snapshots, in attacked and in honest runs.
    pub begun: usize,
    /// Cases that failed.
    pub failures: Vec<Failure>,
    /// How each planted defect was found, if that was asked for.
    pub planted: Vec<Find>,
    /// Seconds that it took, without those for planted defects.
    pub seconds: f64,
}

/// Failures that are kept with their options.
const FAILURES_MAX: usize = 20;

impl Report {
    /// Runs `count` seeds from `from` on, and no more than fit into `limit`.
    ///
    /// # Errors
    /// As [`Ring::run`].
    pub fn of_seeds(from: u64, count: u64, limit: Option<Duration>) -> Result<Self> {
        let start = Instant::now();
        let mut report = Self { from, ..Self::default() };
        let mut traces = BTreeSet::new();
        let mut ring = Ring::new()?;
        for seed in from..from.saturating_add(count) {
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                break;
            }
            let options = Options::of_seed(seed);
            let outcome = ring.run(&options, None)?;
            report.seeds += 1;
            report.really_sealed += u64::from(options.history.real_sealing);
            report.adversarial_cases += u64::from(outcome.found != Ok(Found::Idle));
            report.begun += outcome.begun;
            traces.insert(outcome.digest);
            for mutation in &options.mutations {
                if outcome.done.contains(mutation) || outcome.found == Ok(Found::Idle) {
                    let row = report.table.entry(*mutation).or_default().entry(options.victim).or_default();
                    row.count(&outcome.found);
                }
            }
            for signal in &outcome.signals {
                *report.signals.entry(*signal).or_default() += 1;
            }
            if let Err(violation) = outcome.found {
                report.undetected += 1;
                report.fail(options.clone(), violation);
            }
            let honest = options.honest();
            let twin = ring.run(&honest, None)?;
            report.honest_runs += 1;
            report.begun += twin.begun;
            if let Err(violation) = twin.found {
                report.false_alarms += 1;
                report.fail(honest, format!("the honest twin: {violation}"));
            }
        }
        report.distinct_traces = traces.len();
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    fn fail(&mut self, options: Options, violation: String) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure { seed: options.seed, options, violation });
        }
    }

    /// What is wrong with it; nothing when everything was detected, nobody cried wolf, and each mutation was seen.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.seeds == 0 {
            found.push("no case was run".to_owned());
        }
        if self.undetected + self.false_alarms > 0 {
            found.push(format!("{} undetected, {} false alarms", self.undetected, self.false_alarms));
        }
        let seeds = usize::try_from(self.seeds).unwrap_or(usize::MAX);
        found.extend(only_some_differ(self.distinct_traces, seeds));
        for mutation in MUTATIONS {
            let rows = self.table.get(&mutation).into_iter().flat_map(BTreeMap::values);
            let (mut cases, mut detected) = (0, 0);
            for row in rows {
                cases += row.cases();
                detected += row.said + row.witnessed;
            }
            if cases >= CASES_TO_JUDGE && detected == 0 {
                found.push(format!("{mutation:?} was never detected in {cases} cases"));
            }
            if cases == 0 && self.seeds >= 1_000 {
                found.push(format!("{mutation:?} was never done"));
            }
        }
        found.extend(planted::objections(&self.planted));
        found.extend(
            self.failures.iter().map(|failure| format!("seed {}: {}", failure.seed, failure.violation)),
        );
        found
    }

    /// The table as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:<12} {:<15} {:>7} {:>7} {:>7} {:>8} {:>6} {:>6}",
            "mutation", "victim", "said", "witness", "unverif", "harmless", "idle", "failed"
        )];
        for mutation in MUTATIONS {
            for victim in VICTIMS {
                let Some(row) = self.table.get(&mutation).and_then(|rows| rows.get(&victim)) else {
                    continue;
                };
                lines.push(format!(
                    "{:<12} {:<15} {:>7} {:>7} {:>7} {:>8} {:>6} {:>6}",
                    format!("{mutation:?}"),
                    format!("{victim:?}"),
                    row.said,
                    row.witnessed,
                    row.unverified,
                    row.harmless,
                    row.idle,
                    row.failed
                ));
            }
        }
        lines.join("\n")
    }
}
