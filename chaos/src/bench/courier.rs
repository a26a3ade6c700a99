//! A year of a school of 600 pupils by USB stick: bundle, cloud, answer, and a second box.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::generate::{self, Options};
use crate::program::run;
use crate::town::{Appliance, Town};

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Changes in the bundle.
    pub changes: u64,
    /// Batches in the bundle.
    pub batches: u64,
    /// Its bytes.
    pub bundle_bytes: u64,
    /// Seconds of `sonae-edge bundle export`.
    pub export_seconds: f64,
    /// Seconds of `sonae-cloud bundle import`, receipts written.
    pub cloud_import_seconds: f64,
    /// Seconds of `sonae-edge bundle import` of the answer, after which everything is safe.
    pub answer_import_seconds: f64,
    /// Seconds of `sonae-edge bundle import` of the bundle on an empty box of the same school.
    pub peer_import_seconds: f64,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn timed(name: &str, arguments: &[&str]) -> Result<(f64, Value)> {
    let started = Instant::now();
    let said = run(name, arguments, "")?;
    let seconds = (started.elapsed().as_secs_f64() * 100.0).round() / 100.0;
    let line = said.lines().next().context("a command printed nothing")?;
    Ok((seconds, serde_json::from_str(line)?))
}

/// Measures.
///
/// # Errors
/// When a program fails, or the stick did not make everything safe.
pub fn run_bench(dir: &Path) -> Result<Report> {
    let school = generate::school(Options { pupils: 600, years: 1, seed: 3, ..Options::default() })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    let written = generate::write(&school, &dir.join("school"))?;
    let (first, _) = town.appliance("first")?;
    let second = empty_box(&town, "second")?;
    for file in [&written.package, &written.contacts, &written.attendance] {
        run("sonae-edge", &["import", "--data", &text(&first.data), &text(file)], "")?;
    }
    let _cloud = town.start_cloud()?;
    let stick = dir.join("stick");
    std::fs::create_dir_all(&stick)?;
    let stick = text(&stick);

    let (export_seconds, exported) =
        timed("sonae-edge", &["bundle", "export", "--data", &text(&first.data), "--to", &stick, "--json"])?;
    let bundle = exported.get("bundle").and_then(Value::as_str).context("no bundle")?.to_owned();
    let [cloud, ..] = town.cloud_dirs().map(|path| text(&path));
    let arguments = ["bundle", "import", "--data", &cloud, "--receipts-to", &stick, "--json", &bundle];
    let (cloud_import_seconds, taken) = timed("sonae-cloud", &arguments)?;
    let answer = text(&answer(Path::new(&stick))?);
    let import = |to: &Appliance, file: &str| {
        timed("sonae-edge", &["bundle", "import", "--data", &text(&to.data), "--json", file])
    };
    let (answer_import_seconds, _) = import(&first, &answer)?;
    let (peer_import_seconds, _) = import(&second, &bundle)?;
    let left = first.status()?.get("unsafe").and_then(Value::as_u64);
    anyhow::ensure!(left == Some(0), "{left:?} changes are not safe after the stick came back");
    let digests = |of: &Appliance| Ok::<_, anyhow::Error>(of.digest()?.get("digests").cloned());
    anyhow::ensure!(digests(&first)? == digests(&second)?, "the second box has another state");
    let count = |name: &str| taken.get(name).and_then(Value::as_u64).unwrap_or(0);
    Ok(Report {
        changes: count("changes"),
        batches: count("taken"),
        bundle_bytes: std::fs::metadata(&bundle)?.len(),
        export_seconds,
        cloud_import_seconds,
        answer_import_seconds,
        peer_import_seconds,
    })
}

fn empty_box(town: &Town, name: &str) -> Result<Appliance> {
    let (bundle, passphrase) = town.enrol_bundle("spare", &format!("{name}.bundle"))?;
    let appliance = town.appliance_at(name);
    let data = text(&appliance.data);
    let arguments = ["enrol", "--data", &data, "--bundle", &text(&bundle), "--passphrase-stdin"];
    run("sonae-edge", &arguments, &passphrase)?;
    Ok(appliance)
}

fn answer(stick: &Path) -> Result<PathBuf> {
    let mut files = std::fs::read_dir(stick)?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| text(path).contains("-answer-")).context("the cloud wrote no answer")
}
