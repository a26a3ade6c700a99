//! Bytes on the wire per change: on a school morning with a 2 s window, and for a backlog after an outage.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::drill::kill_cloud::wait_for_line;
use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::{Line, Traffic};
use crate::program::run;
use crate::town::{Appliance, LOGIN, PASSWORD, Town};

/// Changes of the backlog.
const BACKLOG: usize = 10_000;

/// Edits of the morning, and the pause between two: 1.2 a second is 2.4 in a window of 2 s.
const MORNING: usize = 60;
const PAUSE: Duration = Duration::from_millis(833);

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Changes that became safe.
    pub changes: u64,
    /// Sealed batches, headers included, per change.
    pub batch_bytes_per_change: f64,
    /// UDP payload from school to cloud per change.
    pub up_bytes_per_change: f64,
    /// UDP payload both ways per change.
    pub both_bytes_per_change: f64,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// A school morning.
    pub morning: Measured,
    /// A backlog.
    pub backlog: Measured,
}

/// Measures.
///
/// # Errors
/// When a program fails.
pub async fn run_bench(dir: &Path) -> Result<Report> {
    let school = generate::school(Options { pupils: 600, years: 1, seed: 3, ..Options::default() })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    let written = generate::write(&school, &dir.join("school"))?;
    let _cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    let (appliance, _) = town.appliance("edge")?;
    let data = appliance.data.display().to_string();
    run("sonae-edge", &["import", "--data", &data, &written.package.display().to_string()], "")?;
    let edge = town.start_edge(&appliance, &line)?;
    let client = LanClient::sign_in(&edge.said("listen")?, &appliance.ca, LOGIN, PASSWORD, None).await?;
    let pupils = client.pupils("").await?;
    appliance.wait_until_safe(&client, Duration::from_secs(120)).await?;

    let before = Point::now(&line, &client).await?;
    for turn in 0..MORNING {
        let pupil = pupils.get(turn * 7 % pupils.len().max(1)).context("no pupils")?;
        client.put(&format!("/api/v1/attendance/2026-10-01/{pupil}"), json!({ "code": "late" })).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let morning = measure(&appliance, &client, &line, before).await?;

    line.set_cut(true);
    let rows = dir.join("backlog.csv");
    std::fs::write(&rows, backlog(&written.attendance)?)?;
    run("sonae-edge", &["import", "--data", &data, &rows.display().to_string()], "")?;
    let before = Point::now(&line, &client).await?;
    line.set_cut(false);
    wait_for_line(&client).await?;
    let backlog = measure(&appliance, &client, &line, before).await?;
    Ok(Report { morning, backlog })
}

/// The head of an attendance file: its first rows, so that each row is one change.
fn backlog(attendance: &Path) -> Result<String> {
    let text = std::fs::read_to_string(attendance)?;
    Ok(text.lines().take(BACKLOG + 1).flat_map(|line| [line, "\n"]).collect())
}

struct Point {
    traffic: Traffic,
    safe: u64,
    batch_bytes: u64,
}

impl Point {
    async fn now(line: &Line, client: &LanClient) -> Result<Self> {
        let status = client.status().await?;
        let tiers = status.get("safe").and_then(Value::as_object).into_iter().flatten();
        let safe = tiers.filter_map(|(_, point)| point.get("sequence").and_then(Value::as_u64)).sum();
        let batch_bytes = status.pointer("/uplink/batch_bytes_sent").and_then(Value::as_u64).unwrap_or(0);
        Ok(Self { traffic: line.traffic(), safe, batch_bytes })
    }
}

async fn measure(appliance: &Appliance, client: &LanClient, line: &Line, before: Point) -> Result<Measured> {
    appliance.wait_until_safe(client, Duration::from_secs(300)).await?;
    let after = Point::now(line, client).await?;
    let changes = after.safe - before.safe;
    let per_change = |bytes: u64| {
        let tenths = u32::try_from(bytes * 10 / changes.max(1)).map_or(f64::MAX, f64::from);
        tenths / 10.0
    };
    let up = after.traffic.up_bytes - before.traffic.up_bytes;
    let down = after.traffic.down_bytes - before.traffic.down_bytes;
    Ok(Measured {
        changes,
        batch_bytes_per_change: per_change(after.batch_bytes - before.batch_bytes),
        up_bytes_per_change: per_change(up),
        both_bytes_per_change: per_change(up + down),
    })
}
