//! The command line of the ring: many seeds with a report, one again, or one in this very process.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::options::Options;
use super::planted::{self, Planted};
use super::report::Report;
use super::{Ring, run_here};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs this seed only and prints what it decides and all that happens
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs so many of them twice, to show that a seed can be had again
    #[arg(long, default_value_t = 3)]
    twice: usize,
    /// Stops after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Also plants each defect and reports how fast it is found
    #[arg(long)]
    planted: bool,
    /// Plants this defect
    #[arg(long, requires = "seed")]
    plant: Option<String>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
    /// Runs the seed in this process, which the ring has started; its stores lie in this folder
    #[arg(long, hide = true, requires = "seed")]
    alone: Option<PathBuf>,
    /// Keeps the trace
    #[arg(long, hide = true, requires = "alone")]
    trace: bool,
}

/// Does what is asked.
///
/// # Errors
/// When the report has an objection.
pub fn run(arguments: &Arguments) -> Result<()> {
    let planted = arguments.plant.as_deref().map(Planted::named).transpose()?;
    match (arguments.seed, &arguments.alone) {
        (Some(seed), Some(dir)) => print(&run_here(seed, planted, dir, arguments.trace)?),
        (Some(seed), None) => show(seed, planted),
        (None, _) => many(arguments),
    }
}

fn print(value: &impl Serialize) -> Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

fn many(arguments: &Arguments) -> Result<()> {
    let ring = Ring::new()?;
    let limit = arguments.seconds.map(Duration::from_secs);
    let mut report = Report::of_seeds(&ring, arguments.from, arguments.seeds, arguments.twice, limit)?;
    if arguments.planted {
        report.planted = planted::find_all(&ring)?;
    }
    print(&report)?;
    match report.objections().as_slice() {
        [] => Ok(()),
        objections => bail!("the ring simnet objects: {}", objections.join("; ")),
    }
}

/// Runs one seed again and prints what it decides and all that happens.
///
/// # Errors
/// When the seed breaks a promise.
pub fn replay(seed: u64) -> Result<()> {
    show(seed, None)
}

fn show(seed: u64, planted: Option<Planted>) -> Result<()> {
    let outcome = Ring::new()?.run(seed, planted, true)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&Options::of_seed(seed))?)?;
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "digest {}", outcome.digest)?;
    match outcome.violation {
        Some(violation) => bail!("seed {seed}: {violation}"),
        None => Ok(()),
    }
}
