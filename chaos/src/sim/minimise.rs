//! Makes the script of a failing run shorter: leaves out runs of actions, long ones first, as long as it still fails.

use anyhow::Result;
use serde::Serialize;

use super::options::Options;
use super::planted::{Planted, cpu_seconds};
use super::run;
use super::script::Line;

/// Runs that a search may take.
const RUNS_MAX: usize = 300;

/// Seconds of a processor after which it begins no further run. Most searches need a few; where one run takes as long,
/// of a school's days, little is left out.
const CPU_SECONDS_MAX: f64 = 60.0;

/// The story of a failure: what is left when no run of actions can be left out.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// Actions of the whole script.
    pub of_actions: usize,
    /// Those that are left, and how long the world runs after each.
    pub script: Vec<String>,
    /// What the oracle has against these.
    pub violation: String,
}

/// Makes the story of a failure.
///
/// # Errors
/// As [`run`].
pub fn story(options: &Options, script: &[Line], planted: Option<Planted>) -> Result<Option<Story>> {
    let shortest = minimise(options, script, planted)?;
    Ok(shortest.map(|(short, violation)| Story {
        of_actions: script.len(),
        script: short.iter().map(ToString::to_string).collect(),
        violation,
    }))
}

/// A text without its numbers and names of logs: a shorter script must fail in the same way.
fn shape(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_hexdigit()).collect()
}

/// Returns the shortest script that was found to fail within bounds of runs and time, and what it fails with; `None` if the whole one does not.
///
/// # Errors
/// As [`run`].
pub fn minimise(
    options: &Options,
    script: &[Line],
    planted: Option<Planted>,
) -> Result<Option<(Vec<Line>, String)>> {
    let start = cpu_seconds();
    let Some(mut violation) = run(options, script, planted, false)?.violation else { return Ok(None) };
    let wanted = shape(&violation);
    let mut script = script.to_vec();
    let mut runs = 0;
    let mut length = script.len().div_ceil(2);
    while length > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < script.len() && runs < RUNS_MAX && cpu_seconds() - start < CPU_SECONDS_MAX {
            let end = script.len().min(at + length);
            let rest = [&script[..at], &script[end..]].concat();
            runs += 1;
            match run(options, &rest, planted, false)?.violation {
                Some(text) if shape(&text) == wanted => {
                    (script, violation, shorter) = (rest, text, true);
                }
                Some(_) | None => at = end,
            }
        }
        if !(shorter && length == 1) {
            length /= 2;
        }
    }
    Ok(Some((script, violation)))
}
