//! The command line of the ring: many seeds, or one that tells all.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::options::Options;
use super::report::Report;
use super::{Plan, missing, planted};

/// Fails where nothing could be shown.
fn must_be_possible() -> Result<()> {
    missing().map_or(Ok(()), |what| bail!("not verified: {what}"))
}

/// Runs seeds and prints a report as JSON.
///
/// # Errors
/// What the oracle objects to, or what kept the ring from running.
pub async fn run(dir: &Path, seeds: std::ops::Range<u64>, seconds: Option<u64>, plant: bool) -> Result<()> {
    must_be_possible()?;
    let mut report = Report::of_seeds(dir, seeds, seconds.map(Duration::from_secs)).await?;
    if plant {
        for (defect, troubles, seed) in planted::ALL {
            report.planted.push(planted::find(dir, defect, troubles, seed).await?);
        }
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    match report.objections().as_slice() {
        [] => Ok(()),
        objections => bail!("the ring of programs objects: {}", objections.join("; ")),
    }
}

/// Does what a seed says, and prints what it decides and all that happens.
///
/// # Errors
/// As [`run`].
pub async fn replay(dir: &Path, seed: u64) -> Result<()> {
    must_be_possible()?;
    let options = Options::of_seed(seed);
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&options)?)?;
    let outcome = super::run(dir, options, Plan::default()).await?;
    let mut out = std::io::stdout().lock();
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{}", serde_json::to_string_pretty(&outcome.tally)?)?;
    outcome.violation.map_or(Ok(()), |violation| bail!("seed {seed}: {violation}"))
}
