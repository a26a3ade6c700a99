//! What an idle appliance costs: wakeups a second over all threads, and resident memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::run;
use crate::town::{LOGIN, PASSWORD, Town};

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Seconds that were watched.
    pub seconds: f64,
    /// Voluntary context switches a second, over all threads.
    pub wakeups_per_second: f64,
    /// The same by thread name, the busiest first.
    pub by_thread: Vec<(String, f64)>,
    /// Resident memory in KiB at the end.
    pub resident_kib: u64,
    /// Pupils that it holds.
    pub pupils: u32,
}

/// Watches an appliance with a full roster, a line that is up and nobody signed in.
///
/// # Errors
/// When a program fails.
pub async fn run_bench(dir: &Path, seconds: u64) -> Result<Report> {
    let pupils = 600;
    let school = generate::school(Options { pupils, years: 1, seed: 5, ..Options::default() })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    let written = generate::write(&school, &dir.join("school"))?;
    let _cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    let (appliance, _) = town.appliance("edge")?;
    let data = appliance.data.display().to_string();
    let files = [written.package.display().to_string(), written.contacts.display().to_string()];
    run("sonae-edge", &["import", "--data", &data, &files[0], &files[1]], "")?;
    let edge = town.start_edge(&appliance, &line)?;
    let client = LanClient::sign_in(&edge.said("listen")?, &appliance.ca, LOGIN, PASSWORD, None).await?;
    appliance.wait_until_safe(&client, Duration::from_secs(120)).await?;
    drop(client);
    // Longer than the keeper's idle work and the client's connection.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (before, started) = (switches(edge.id())?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, watched) = (switches(edge.id())?, started.elapsed().as_secs_f64());
    let mut by_thread: Vec<(String, f64)> = after
        .iter()
        .map(|(task, (name, count))| {
            let earlier = before.get(task).map_or(0, |(_, count)| *count);
            (name.clone(), rate(count.saturating_sub(earlier), watched))
        })
        .collect();
    by_thread.sort_by(|a, b| b.1.total_cmp(&a.1));
    let wakeups_per_second = by_thread.iter().map(|(_, rate)| rate).sum();
    by_thread.truncate(8);
    Ok(Report {
        seconds: watched,
        wakeups_per_second,
        by_thread,
        resident_kib: resident_kib(edge.id())?,
        pupils,
    })
}

fn rate(count: u64, seconds: f64) -> f64 {
    let hundredths = u32::try_from(count).map_or(f64::MAX, f64::from) / seconds * 100.0;
    hundredths.round() / 100.0
}

fn switches(process: u32) -> Result<std::collections::BTreeMap<String, (String, u64)>> {
    let mut found = std::collections::BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let path = task?.path();
        let status = std::fs::read_to_string(path.join("status"))?;
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let count = field("voluntary_ctxt_switches:").and_then(|text| text.parse().ok()).unwrap_or(0);
        found.insert(path.display().to_string(), (field("Name:").unwrap_or_default(), count));
    }
    Ok(found)
}

fn resident_kib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")
}
