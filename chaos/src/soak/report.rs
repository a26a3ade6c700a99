//! What the runs of one commit showed, as figures and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::limits::{ALL_DEFECTS_CPU_SECONDS_MAX, DEFECT_CPU_SECONDS_MAX, DISTINCT_PERCENT_MIN};

/// School days of a simulated school year: as many as the generator's calendar has (`chaos/src/generate/calendar.rs`,
/// about 200), each of 1,000 changes.
const SCHOOL_DAYS_A_YEAR: f64 = 200.0;

/// The ring of a sum, and its name.
type Sum = (&'static str, &'static str);

/// What all runs of a commit are to reach together: a name, the sums that count for it, by ring, and how much. A short
/// soak does not reach them; they are open then, which is no failure.
const GOALS: [(&str, &[Sum], f64); 4] = [
    ("crash-and-heal cycles", &[("sim", "crash-and-heal cycles")], 1_000_000.0),
    ("school days of 1,000 changes", &[("sim", "school days of 1,000 changes")], 10.0 * SCHOOL_DAYS_A_YEAR),
    // Under the real programs; those of simulated disks are counted apart.
    ("file system cuts", &[("power-cut", "file system cuts"), ("proc", "file system cuts")], 5_000.0),
    ("adversarial cases", &[("adversary", "adversarial cases")], 100_000.0),
];

/// How far all runs are on the way to a goal.
#[derive(Debug, Serialize)]
pub struct Goal {
    /// What is counted.
    pub what: &'static str,
    /// How much of it there is to be.
    pub goal: f64,
    /// How much there is.
    pub sum: f64,
    /// Whether that is enough; else the goal is open.
    pub is_reached: bool,
}

/// A failing script that was made short.
#[derive(Debug, Serialize)]
pub struct Story {
    /// What failed.
    pub failure: String,
    /// Actions of the whole script.
    pub of_actions: u64,
    /// Those that are left.
    pub script: Vec<String>,
}

impl Story {
    /// Reads what a ring tells of a failure.
    pub(super) fn read(failure: &str, story: &Value) -> Option<Self> {
        let lines = story.get("script")?.as_array()?.iter();
        Some(Self {
            failure: failure.to_owned(),
            of_actions: story.get("of_actions")?.as_u64()?,
            script: lines.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }
}

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
    /// Simulated crashes by what was being done: the effect of an engine, or the record that was being kept.
    pub crash_points: BTreeMap<String, f64>,
    /// School years that were simulated: school days of 1,000 changes, by 200.
    pub school_years: f64,
    /// What is to be reached by all runs together.
    pub goals: Vec<Goal>,
    /// The first failures with as few actions as were found to be enough.
    pub stories: Vec<Story>,
    /// What was objected to, with how to run it again.
    pub failures: Vec<String>,
}

impl Report {
    /// Objects to what the sums show: defects that were found too slowly, runs that were the same. Says which goals are
    /// reached.
    pub(super) fn judge(&mut self) {
        for (ring, planted) in &self.planted {
            for (defect, seconds) in planted.iter().filter(|(_, seconds)| **seconds > DEFECT_CPU_SECONDS_MAX)
            {
                self.failures.push(format!("{ring}: {defect} was found after {seconds:.0} s of a processor"));
            }
        }
        let all: f64 = self.planted.values().flat_map(BTreeMap::values).sum();
        if all > ALL_DEFECTS_CPU_SECONDS_MAX {
            self.failures.push(format!("all planted defects took {all:.0} s of a processor"));
        }
        for (ring, sums) in &self.rings {
            let of = |name: &str| sums.get(name).copied();
            let runs = of("seeds").or_else(|| of("honest runs"));
            let distinct = of("distinct traces").or_else(|| of("distinct scripts"));
            if let (Some(runs), Some(distinct)) = (runs, distinct)
                && distinct * 100.0 < runs * f64::from(DISTINCT_PERCENT_MIN)
            {
                self.failures.push(format!("{ring}: of {runs:.0} runs only {distinct:.0} were distinct"));
            }
        }
        let of = |(ring, name): &Sum| self.rings.get(ring).and_then(|sums| sums.get(name)).copied();
        let goal = |(what, sums, goal): (&'static str, &[Sum], f64)| {
            let sum = sums.iter().filter_map(of).fold(0.0, |sum, more| sum + more);
            Goal { what, goal, sum, is_reached: sum >= goal }
        };
        self.goals = GOALS.into_iter().map(goal).collect();
        self.school_years = of(&("sim", "school days of 1,000 changes")).unwrap_or(0.0) / SCHOOL_DAYS_A_YEAR;
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
        self.goals_text(&mut text)?;
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
        for Story { failure, of_actions, script } in &self.stories {
            writeln!(text, "\n{failure}, with {} of {of_actions} actions:\n", script.len())?;
            for line in script {
                writeln!(text, "- `{line}`")?;
            }
        }
        Ok(text)
    }

    fn goals_text(&self, text: &mut String) -> Result<()> {
        writeln!(
            text,
            "\nSimulated school years, of 200 school days with 1,000 changes each: {:.2}",
            self.school_years
        )?;
        writeln!(text, "\n| goal | of | reached | |\n| --- | ---: | ---: | --- |")?;
        for Goal { what, goal, sum, is_reached } in &self.goals {
            let word = if *is_reached { "reached" } else { "not reached yet" };
            writeln!(text, "| {what} | {goal:.0} | {sum:.0} | {word} |")?;
        }
        if !self.crash_points.is_empty() {
            writeln!(text, "\n| simulated crashes | sum |\n| --- | ---: |")?;
            for (point, count) in &self.crash_points {
                writeln!(text, "| {point} | {count:.0} |")?;
            }
        }
        Ok(())
    }
}
