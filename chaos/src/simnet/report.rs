//! Runs many seeds and adds up what they showed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::Measured;
use super::Ring;
use crate::sim::planted::{self, Find};
use crate::sim::report::{Failure, only_some_differ};

/// What was measured of one promise in seconds.
#[derive(Debug, Default, Serialize)]
pub struct Promise {
    /// How often it was put to the test.
    pub times: u64,
    /// How often it was held to its limit: on a line without losses, after rest.
    pub judged: u64,
    /// The longest simulated milliseconds to a receipt, where it was judged.
    pub worst_judged_ms: u64,
    /// The longest of all.
    pub worst_ms: u64,
    /// The longest on lines without losses, after rest, by their round trip in milliseconds.
    pub worst_clean_ms_by_round_trip: BTreeMap<u64, u64>,
}

/// What many runs showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The first seed.
    pub from: u64,
    /// Seeds that were run.
    pub seeds: usize,
    /// Different digests among them.
    pub distinct_traces: usize,
    /// Seeds that were run twice, and gave the same digest again.
    pub replayed: usize,
    /// Simulated seconds.
    pub simulated_seconds: f64,
    /// Seconds of the processor that they took.
    pub cpu_seconds: f64,
    /// Simulated seconds in one second of the processor.
    pub times_real_time: f64,
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// The longest simulated milliseconds to convergence after everything was mended.
    pub settle_ms_max: u64,
    /// Promises in seconds.
    pub promises: BTreeMap<String, Promise>,
    /// Seeds that failed.
    pub failures: Vec<Failure>,
    /// How each planted defect was found, if that was asked for.
    pub planted: Vec<Find>,
    /// Seconds that it took, without those for planted defects.
    pub seconds: f64,
}

impl Report {
    /// Runs `count` seeds from `from` on, and no more than fit into `limit`; the first `twice` of them twice.
    ///
    /// # Errors
    /// As [`Ring::run`].
    pub fn of_seeds(
        ring: &Ring,
        from: u64,
        count: u64,
        twice: usize,
        limit: Option<Duration>,
    ) -> Result<Self> {
        let start = Instant::now();
        let mut report = Self { from, ..Self::default() };
        let mut traces = BTreeSet::new();
        for seed in from..from.saturating_add(count) {
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                break;
            }
            let outcome = ring.run(seed, None, false)?;
            report.seeds += 1;
            report.simulated_seconds += Duration::from_millis(outcome.simulated_ms).as_secs_f64();
            report.cpu_seconds += outcome.cpu_seconds;
            report.datagrams += outcome.datagrams;
            report.acknowledged += outcome.acknowledged;
            report.settle_ms_max = report.settle_ms_max.max(outcome.settle_ms);
            outcome.measured.iter().for_each(|measured| report.add(measured));
            if report.seeds <= twice {
                let again = ring.run(seed, None, false)?.digest;
                report.replayed += 1;
                if again != outcome.digest {
                    let violation = format!("two runs differ: {} and {again}", outcome.digest);
                    report.failures.push(Failure::new(seed, violation));
                }
            }
            traces.insert(outcome.digest);
            if let Some(violation) = outcome.violation {
                report.failures.push(Failure::new(seed, violation));
            }
        }
        report.distinct_traces = traces.len();
        report.times_real_time = report.simulated_seconds / report.cpu_seconds.max(f64::MIN_POSITIVE);
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    fn add(&mut self, measured: &Measured) {
        let promise = self.promises.entry(measured.after.clone()).or_default();
        promise.times += 1;
        promise.worst_ms = promise.worst_ms.max(measured.receipt_ms);
        if measured.is_clean {
            let worst = promise.worst_clean_ms_by_round_trip.entry(measured.round_trip_ms).or_default();
            *worst = (*worst).max(measured.receipt_ms);
        }
        if measured.limit_ms.is_some() {
            promise.judged += 1;
            promise.worst_judged_ms = promise.worst_judged_ms.max(measured.receipt_ms);
        }
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
