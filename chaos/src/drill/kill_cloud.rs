//! `kill -9` of the cloud at the moment of a receipt: nothing that was called safe may be gone (P2).
//!
//! With `CUT=cloud-fsync` the cloud signs before it stores, and this drill must find the loss.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::{Daemon, planted, run};
use crate::town::{LOGIN, PASSWORD, Town};

/// The report of a drill.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Kills.
    pub rounds: u32,
    /// Changes that were called safe when the cloud was killed.
    pub safe_changes: u64,
    /// Changes that were called safe and that the cloud did not have afterwards.
    pub lost: u64,
    /// Losses that the appliance itself found and alarmed.
    pub alarms: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Runs the drill in an empty folder.
///
/// # Errors
/// When a program fails; a loss is no error but stands in the report.
pub async fn run_drill(dir: &Path, rounds: u32, seed: u64, cut: Option<&str>) -> Result<Report> {
    let school = generate::school(Options { pupils: 30, years: 1, seed, ..Options::default() })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    town.cloud_environment.extend(cut.map(planted));
    let written = generate::write(&school, &dir.join("school"))?;
    let mut cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    let (appliance, _) = town.appliance("edge")?;
    let (data, package) = (appliance.data.display().to_string(), written.package.display().to_string());
    run("sonae-edge", &["import", "--data", &data, &package], "")?;
    let mut edge = town.start_edge(&appliance, &line)?;
    let client = LanClient::sign_in(&edge.said("listen")?, &appliance.ca, LOGIN, PASSWORD, None).await?;
    let report = kill_rounds(&mut town, &mut cloud, &line, &client, rounds).await?;
    edge.stop()?;
    Ok(report)
}

/// Kills the cloud again and again while a client writes, each time just after "safe" has moved.
///
/// The line is cut at the kill and mended only after the heads were read: what the appliance would send again
/// must not stand in for what the cloud has lost.
///
/// # Errors
/// When a program fails.
pub async fn kill_rounds(
    town: &mut Town,
    cloud: &mut Daemon,
    line: &Line,
    client: &LanClient,
    rounds: u32,
) -> Result<Report> {
    let started = Instant::now();
    let mut report = Report { rounds, ..Report::default() };
    let pupils = client.pupils("").await?;
    wait_for_line(client).await?;
    for round in 0..rounds {
        let at_kill = write_until_safe_moves(client, &pupils, round).await?;
        let connections = connections(&client.status().await?);
        line.set_cut(true);
        cloud.kill_hard()?;
        *cloud = town.start_cloud()?;
        let has = cloud_sequences(town, &cloud.said("boot")?).await?;
        report.safe_changes += at_kill.values().sum::<u64>();
        report.lost += missing(&at_kill, &has);
        line.set_cut(false);
        wait_for_new_connection(client, connections).await?;
    }
    let losses = client.status().await?.get("loss_counter").and_then(Value::as_u64);
    report.alarms = losses.context("the status has no loss counter")?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Writes until a receipt moves "safe". Returns what the appliance calls safe then.
async fn write_until_safe_moves(
    client: &LanClient,
    pupils: &[String],
    round: u32,
) -> Result<BTreeMap<String, u64>> {
    let (first, mut turn) = (safe(&client.status().await?), 0_usize);
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let pupil = pupils.get(turn % pupils.len().max(1)).context("no pupils")?;
        let path = format!("/api/v1/attendance/2026-11-{:02}/{pupil}", 1 + round % 28);
        // After 28 rounds the days begin again, and the same code again would be no change.
        let is_late = (turn + usize::try_from(round / 28)?).is_multiple_of(2);
        let code = if is_late { "late" } else { "left_early" };
        client.put(&path, json!({ "code": code })).await?;
        turn += 1;
        let now = safe(&client.status().await?);
        // The first receipt of a round may be for what was written before it.
        if turn > 2 && now != first {
            return Ok(now);
        }
        if Instant::now() > give_up {
            bail!("no receipt came for 60 s");
        }
    }
}

/// Counts the changes that were called safe and lie beyond what the cloud has.
fn missing(safe: &BTreeMap<String, u64>, has: &BTreeMap<String, u64>) -> u64 {
    safe.iter().map(|(log, sequence)| sequence.saturating_sub(has.get(log).copied().unwrap_or(0))).sum()
}

fn connections(status: &Value) -> u64 {
    status.pointer("/uplink/connections").and_then(Value::as_u64).unwrap_or(0)
}

/// Waits until the appliance has greeted the cloud on a newer connection: the old one looks up for a while
/// after the cloud is gone, and only a greeting can find a loss.
async fn wait_for_new_connection(client: &LanClient, before: u64) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let status = client.status().await?;
        if connections(&status) > before && status.pointer("/uplink/up") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!("the appliance did not greet the restarted cloud within 60 s");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the appliance has greeted the cloud.
///
/// # Errors
/// After a minute.
pub async fn wait_for_line(client: &LanClient) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let status = client.status().await?;
        if status.pointer("/uplink/up") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!(
                "the line did not come back: {}",
                status.pointer("/last_error/text").unwrap_or(&Value::Null)
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the appliance calls safe: log to sequence.
pub(crate) fn safe(status: &Value) -> BTreeMap<String, u64> {
    let incarnation = status.get("incarnation").and_then(Value::as_str).unwrap_or_default();
    let tiers = status.get("safe").and_then(Value::as_object).into_iter().flatten();
    tiers
        .filter_map(|(tier, point)| {
            let sequence = point.get("sequence")?.as_u64()?;
            Some((format!("{incarnation}/{tier}"), sequence))
        })
        .collect()
}

/// What the cloud has after its start, by its own word. Its status file is written anew within a second, so the
/// one of this boot is waited for.
async fn cloud_sequences(town: &Town, boot: &str) -> Result<BTreeMap<String, u64>> {
    let [data, _, _] = town.cloud_dirs();
    let give_up = Instant::now() + Duration::from_secs(30);
    let status: Value = loop {
        let said = run("sonae-cloud", &["status", "--data", &data.display().to_string(), "--json"], "")?;
        let status: Value = serde_json::from_str(&said)?;
        if status.get("boot").and_then(Value::as_str) == Some(boot) {
            break status;
        }
        if Instant::now() > give_up {
            bail!("the cloud's status stays that of an earlier boot");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut sequences = BTreeMap::new();
    for school in status.get("schools").and_then(Value::as_array).into_iter().flatten() {
        for (log, head) in school.get("heads").and_then(Value::as_object).into_iter().flatten() {
            let sequence = head.get("sequence").and_then(Value::as_u64).unwrap_or(0);
            sequences.insert(log.clone(), sequence);
        }
    }
    Ok(sequences)
}
