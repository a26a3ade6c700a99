//! The command line of the ring: many cases with a report, or one again.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Ring;
use super::options::Options;
use super::report::Report;

fn print(value: &Value) -> Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Runs cases and prints their report: a table, or one JSON object.
///
/// # Errors
/// When the report has an objection.
pub fn run(cases: u64, from: u64, seconds: Option<u64>, planted: bool, json: bool) -> Result<()> {
    let mut report = Report::of_seeds(from, cases, seconds.map(Duration::from_secs))?;
    if planted {
        report.planted = super::planted::find_all()?;
    }
    if json {
        print(&serde_json::to_value(&report)?)?;
    } else {
        writeln!(std::io::stdout(), "{}", report.text())?;
    }
    match report.objections().as_slice() {
        [] => Ok(()),
        objections => bail!("the adversary ring objects: {}", objections.join("; ")),
    }
}

/// Runs one seed and its honest twin and prints what they decide and all that happened.
///
/// # Errors
/// When the oracle has something against one of them.
pub fn replay(seed: u64) -> Result<()> {
    let attacked = Options::of_seed(seed);
    let honest = attacked.honest();
    let mut ring = Ring::new()?;
    for options in [attacked, honest] {
        let outcome = ring.run(&options, None)?;
        print(&json!({
            "options": options,
            "done": outcome.done,
            "signals": outcome.signals,
            "notes": outcome.notes,
            "found": format!("{:?}", outcome.found),
            "digest": outcome.digest,
        }))?;
        if let Err(violation) = outcome.found {
            bail!("seed {seed}: {violation}");
        }
    }
    Ok(())
}
