//! What the runs of one commit showed, as figures and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

/// Seconds of a processor within which each planted defect must be found, and all that a ring plants.
const PLANTED_SECONDS_MAX: f64 = 60.0;
const ALL_PLANTED_SECONDS_MAX: f64 = 120.0;

/// What the runs of one commit showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The commit.
    pub commit: String,
    /// Runs that were added up.
    pub runs: usize,
    /// Sums by ring.
    pub rings: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
    /// Planted defects that were found, by ring: name to the most seconds of a processor that it took.
    pub planted: BTreeMap<&'static str, BTreeMap<String, f64>>,
    /// What was objected to, with how to run it again.
    pub failures: Vec<String>,
}

impl Report {
    /// Objects to what the sums show: defects that were found too slowly, runs that were the same.
    pub(super) fn judge(&mut self) {
        for (ring, planted) in &self.planted {
            for (defect, seconds) in planted.iter().filter(|(_, seconds)| **seconds > PLANTED_SECONDS_MAX) {
                self.failures.push(format!("{ring}: {defect} was found after {seconds:.0} s of a processor"));
            }
            let all: f64 = planted.values().sum();
            if all > ALL_PLANTED_SECONDS_MAX {
                self.failures.push(format!("{ring}: its planted defects took {all:.0} s of a processor"));
            }
        }
        for (ring, sums) in &self.rings {
            let of = |name: &str| sums.get(name).copied();
            let runs = of("seeds").or_else(|| of("honest runs"));
            if let (Some(runs), Some(distinct)) = (runs, of("distinct traces"))
                && distinct < 0.99 * runs
            {
                self.failures.push(format!("{ring}: of {runs:.0} runs only {distinct:.0} were distinct"));
            }
        }
    }

    /// The report for people.
    ///
    /// # Errors
    /// None that could happen.
    pub fn text(&self) -> Result<String> {
        let mut text = format!(
            "# Soak of {}\n\n{} run(s), added up.\n\n| ring | what | sum |\n| --- | --- | ---: |\n",
            self.commit, self.runs
        );
        for (ring, sums) in &self.rings {
            for (what, sum) in sums {
                writeln!(text, "| {ring} | {what} | {sum:.0} |")?;
            }
        }
        for (ring, planted) in self.planted.iter().filter(|(_, planted)| !planted.is_empty()) {
            writeln!(text, "\nPlanted defects that `{ring}` found, with the most seconds of a processor:\n")?;
            for (defect, seconds) in planted {
                writeln!(text, "- {defect}: {seconds:.2}")?;
            }
        }
        writeln!(text, "\n{} objection(s).", self.failures.len())?;
        for failure in &self.failures {
            writeln!(text, "- {failure}")?;
        }
        Ok(text)
    }
}
