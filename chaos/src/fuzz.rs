//! Runs fuzz targets for as long as somebody wants, keeps failing inputs as files, and replays them.
//!
//! The targets and their corpus lie in `chaos/fuzz`; `make test` runs them for seconds, this for hours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sonae_fuzz::run::{self, Until};
use sonae_fuzz::{Planted, Target, corpus, targets};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// One target; all if absent.
    pub target: Option<String>,
    /// Seconds for all targets together, divided evenly.
    pub seconds: u64,
    /// The seed of the first round.
    pub seed: u64,
    /// A bug to plant, which the run must find.
    pub plant: Option<String>,
    /// Folder for failing inputs.
    pub out: PathBuf,
}

/// What was run and what was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seconds that were asked for.
    pub seconds: u64,
    /// The seed.
    pub seed: u64,
    /// The bug that was planted, if any.
    pub planted: Option<String>,
    /// Inputs that were judged, by all targets.
    pub executions: u64,
    /// What was found.
    pub failures: Vec<Failure>,
    /// Each target's own report.
    pub targets: Vec<run::Report>,
}

/// A broken property.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Which target.
    pub target: String,
    /// What is broken.
    pub broken: String,
    /// At which execution it was found.
    pub execution: u64,
    /// The input, for `--replay`.
    pub file: PathBuf,
}

fn find(name: &str) -> Result<&'static dyn Target> {
    let known = || targets::ALL.map(Target::name).join(", ");
    targets::find(name).with_context(|| format!("there is no fuzz target '{name}'; there are {}", known()))
}

fn plant(target: &dyn Target, bug: Option<&str>) -> Result<Planted> {
    let Some(bug) = bug else { return Ok(Planted::NONE) };
    let known = target.bugs().iter().find(|known| **known == bug);
    let known = known.with_context(|| {
        format!("target '{}' has no bug '{bug}' to plant; it has {}", target.name(), target.bugs().join(", "))
    })?;
    Ok(Planted::bug(known))
}

/// Runs one target or all.
///
/// # Errors
/// An unknown target or bug, or a failing input that cannot be written.
pub fn run_fuzz(options: &Options) -> Result<Report> {
    let chosen = match &options.target {
        Some(name) => vec![find(name)?],
        None => targets::ALL.to_vec(),
    };
    if options.plant.is_some() && chosen.len() > 1 {
        bail!("a bug is planted in one target: name it with --target");
    }
    let share = Duration::from_secs(options.seconds) / u32::try_from(chosen.len()).unwrap_or(u32::MAX);
    let (seconds, seed, planted) = (options.seconds, options.seed, options.plant.clone());
    let mut report =
        Report { seconds, seed, planted, executions: 0, failures: Vec::new(), targets: Vec::new() };
    for target in chosen {
        let planted = plant(target, options.plant.as_deref())?;
        let inputs = corpus::inputs(target.name());
        let ran = run::run(target, &inputs, options.seed, Until::Time(share), planted);
        report.executions += ran.executions;
        for failure in &ran.failures {
            report.failures.push(keep(target.name(), failure, &options.out)?);
        }
        report.targets.push(ran);
    }
    Ok(report)
}

/// Writes a failing input to a file whose name says the target.
fn keep(target: &str, failure: &run::Failure, out: &Path) -> Result<Failure> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let name = blake3::hash(&failure.input).to_hex();
    let file = out.join(format!("{target}.{}.input", name.get(..16).unwrap_or_default()));
    std::fs::write(&file, &failure.input).with_context(|| format!("cannot write {}", file.display()))?;
    let broken = failure.broken.to_string();
    Ok(Failure { target: target.to_owned(), broken, execution: failure.execution, file })
}

/// Judges the input of a file again and returns what the target says of it. The target is the first part of the
/// file's name, unless it is named.
///
/// # Errors
/// The property that the input breaks; a file that cannot be read; an unknown target or bug.
pub fn replay(file: &Path, target: Option<&str>, bug: Option<&str>) -> Result<String> {
    let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let target = find(target.unwrap_or_else(|| name.split('.').next().unwrap_or_default()))?;
    let verdict = target.judge(&input, plant(target, bug)?);
    verdict.with_context(|| format!("{} breaks a property of '{}'", file.display(), target.name()))
}
