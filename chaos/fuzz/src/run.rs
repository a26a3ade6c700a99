//! The loop: takes an input of the pool, changes it a little, lets the target judge it, keeps what said
//! something new. Everything follows from the seed, so a run of a number of executions is the same every time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::random::Random;
use crate::{Broken, Planted, Target, mutate};

/// Failing inputs that a run keeps; it goes on after the first.
pub const FAILURES_MAX: usize = 8;

/// Most inputs in the pool beside the seeds: one for each class of verdict, and a few more of each.
const POOL_MAX: usize = 400;

/// Larger inputs are judged and not kept: they are slow, and what they say, small ones say as well.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// Inputs that are kept of one class.
const OF_CLASS_MAX: u64 = 4;

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many executions.
    Executions(u64),
    /// After so long.
    Time(Duration),
    /// At the first failure, or after so many executions.
    FirstFailure(u64),
}

/// An input that breaks a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The input, which `--replay` takes.
    pub input: Vec<u8>,
    /// What it breaks.
    pub broken: Broken,
    /// At which execution it was found.
    pub execution: u64,
}

/// What a run of one target did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which target.
    pub target: &'static str,
    /// From which seed.
    pub seed: u64,
    /// Inputs that were judged, the corpus among them.
    pub executions: u64,
    /// How often each class was answered.
    pub verdicts: BTreeMap<String, u64>,
    /// Inputs that were kept beside the corpus.
    pub kept: usize,
    /// Executions in a second; depends on the machine.
    pub executions_per_second: u64,
    /// What was found.
    #[serde(skip)]
    pub failures: Vec<Failure>,
}

/// Judges all inputs of a corpus as they are.
///
/// # Errors
/// The name of the first input that breaks a property, and what it breaks.
pub fn replay<'a>(
    target: &dyn Target,
    corpus: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    planted: Planted,
) -> Result<u64, (String, Broken)> {
    let mut executions = 0;
    for (name, input) in corpus {
        target.judge(input, planted).map_err(|broken| (name.to_owned(), broken))?;
        executions += 1;
    }
    Ok(executions)
}

/// Runs a target over a corpus and what grows out of it.
pub fn run(target: &dyn Target, corpus: &[Vec<u8>], seed: u64, until: Until, planted: Planted) -> Report {
    let began = Instant::now();
    let mut runner = Runner {
        target,
        planted,
        random: Random::new(seed, target.name()),
        pool: corpus.to_vec(),
        seeds: corpus.len(),
        largest_seed: corpus.iter().map(Vec::len).max().unwrap_or(0),
        report: Report {
            target: target.name(),
            seed,
            executions: 0,
            verdicts: BTreeMap::new(),
            kept: 0,
            executions_per_second: 0,
            failures: Vec::new(),
        },
    };
    for input in corpus {
        runner.execute(input.clone());
    }
    while !runner.is_over(until, began) {
        let input = runner.next_input();
        runner.execute(input);
    }
    let mut report = runner.report;
    let nanoseconds = began.elapsed().as_nanos().max(1);
    let per_second = u128::from(report.executions) * 1_000_000_000 / nanoseconds;
    report.executions_per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
    report
}

struct Runner<'a> {
    target: &'a dyn Target,
    planted: Planted,
    random: Random,
    pool: Vec<Vec<u8>>,
    seeds: usize,
    largest_seed: usize,
    report: Report,
}

impl Runner<'_> {
    fn is_over(&self, until: Until, began: Instant) -> bool {
        if self.report.failures.len() >= FAILURES_MAX || self.pool.is_empty() {
            return true;
        }
        match until {
            Until::Executions(count) => self.report.executions >= count,
            Until::Time(time) => began.elapsed() >= time,
            Until::FirstFailure(count) => !self.report.failures.is_empty() || self.report.executions >= count,
        }
    }

    /// Seeds are taken half of the time, so that what was found last does not crowd them out.
    fn next_input(&mut self) -> Vec<u8> {
        let from = if self.random.once_in(2) { self.seeds } else { self.pool.len() };
        let at = self.random.below(from);
        let mut input = self.pool.get(at).cloned().unwrap_or_default();
        if self.random.once_in(16) {
            let other = self.random.below(self.pool.len());
            let other = self.pool.get(other).cloned().unwrap_or_default();
            mutate::splice(&mut input, &other, &mut self.random);
        }
        for _ in 0..1 + self.random.below(3) {
            self.target.mutate(&mut input, &mut self.random);
        }
        input
    }

    fn execute(&mut self, input: Vec<u8>) {
        self.report.executions += 1;
        match self.target.judge(&input, self.planted) {
            Ok(verdict) => {
                let seen = self.report.verdicts.entry(verdict).or_default();
                *seen += 1;
                let is_new = *seen <= OF_CLASS_MAX && self.report.executions > self.seeds_judged();
                let is_small = input.len() <= KEPT_BYTES_MAX.max(self.largest_seed);
                if is_new && is_small && self.pool.len() < self.seeds + POOL_MAX {
                    self.pool.push(input);
                    self.report.kept += 1;
                }
            }
            Err(broken) => {
                let execution = self.report.executions;
                // One input for each broken property: the text begins with its name.
                if !self.report.failures.iter().any(|known| known.broken == broken) {
                    self.report.failures.push(Failure { input, broken, execution });
                }
            }
        }
    }

    fn seeds_judged(&self) -> u64 {
        u64::try_from(self.seeds).unwrap_or(u64::MAX)
    }
}
