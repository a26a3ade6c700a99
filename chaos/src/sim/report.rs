//! Runs many seeds and adds up what they showed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::counts::Counts;
use super::minimise::{self, Story};
use super::options::Options;
use super::planted::{self, Find, Planted};
use super::school::CHANGES_A_DAY;
use super::{run_seed, script};
use crate::limits::DISTINCT_PERCENT_MIN;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;

/// A seed that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The seed: `sonae-chaos replay --seed` runs it again.
    pub seed: u64,
    /// What the oracle has against it.
    pub violation: String,
    /// The same with as few actions as were found to be enough, of the first failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub story: Option<Story>,
}

/// Failures that are made short: what comes after the first ones mostly has the same cause.
const STORIES: usize = 2;

impl Failure {
    /// A failure without a story.
    pub(crate) const fn new(seed: u64, violation: String) -> Self {
        Self { seed, violation, story: None }
    }

    /// What a report says of it.
    pub(crate) fn objection(&self) -> String {
        format!("seed {}: {}", self.seed, self.violation)
    }
}

/// What a report says when too many of its runs were the same.
pub(crate) fn only_some_differ(distinct: usize, seeds: usize) -> Option<String> {
    let are_too_few = distinct * 100 < seeds * usize::from(DISTINCT_PERCENT_MIN);
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
    /// The most steps of a run: how far honest runs are from what counts as a livelock.
    pub steps_most: u64,
    /// The most at one moment of simulated time.
    pub steps_at_once_most: u64,
    /// What else happened.
    #[serde(flatten)]
    pub counts: Counts,
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
            report.steps_most = report.steps_most.max(outcome.steps);
            report.steps_at_once_most = report.steps_at_once_most.max(outcome.steps_at_once);
            report.counts += outcome.counts;
            for (point, count) in outcome.crash_points {
                *report.crash_points.entry(point).or_default() += count;
            }
            if let Some(violation) = outcome.violation {
                report.failures.push(Failure::new(seed, violation));
            }
        }
        report.distinct_traces = traces.len();
        report.seconds = start.elapsed().as_secs_f64();
        report.tell(None)?;
        Ok(report)
    }

    /// Makes the first failures short.
    fn tell(&mut self, planted: Option<Planted>) -> Result<()> {
        for failure in self.failures.iter_mut().take(STORIES) {
            let options = Options::of_seed(failure.seed);
            failure.story = minimise::story(&options, &script::draw(&options), planted)?;
        }
        Ok(())
    }

    /// What is wrong with it; nothing when every promise held and the runs differ.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.seeds == 0 {
            found.push("no seed was run".to_owned());
        }
        found.extend(only_some_differ(self.distinct_traces, self.seeds));
        found.extend(planted::objections(&self.planted));
        found.extend(self.failures.iter().map(Failure::objection));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever reads of a failure reads the short story too, without running it again. Method: three failures of a
    /// planted defect; the first two have stories, which stand in the JSON.
    #[test]
    fn the_first_failures_have_stories() {
        let planted = Planted::ReceiptBeforeStore;
        let seed = planted::find(planted).unwrap().seed.unwrap();
        let failures = (0..3).map(|_| Failure::new(seed, "lost".into())).collect();
        let mut report = Report { failures, ..Report::default() };
        report.tell(Some(planted)).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let actions = |number: usize| {
            let story = json["failures"][number].get("story")?;
            Some((story["of_actions"].as_u64()?, story["script"].as_array()?.len()))
        };
        let (whole, short) = actions(0).unwrap();
        assert!(0 < short && short < 10 && whole > 20, "{json}");
        assert_eq!(actions(1), Some((whole, short)));
        assert_eq!(actions(2), None);
    }
}
