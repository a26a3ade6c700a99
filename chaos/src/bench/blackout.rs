//! How long after a blackout the first receipt comes: seconds from the moment at which the line is back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::drill::kill_cloud::wait_for_line;
use crate::generate;
use crate::lan_client::LanClient;
use crate::line::{Line, Slowness};
use crate::program::run;
use crate::town::{LOGIN, PASSWORD, Town};

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(10);

/// Longer than any blackout may be followed by silence.
const PATIENCE: Duration = Duration::from_secs(120);

/// By how much a blackout is longer than the one before, so that each ends at another moment between the
/// appliance's tries.
const PHASE: Duration = Duration::from_millis(370);

/// One length of blackout.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Seconds without a packet.
    pub blackout_s: u64,
    /// What carried the connection before and after.
    pub transport: String,
    /// Seconds from the line's return to the first receipt, one for each round. The change without a receipt was
    /// written when the blackout began, in its middle, 4 s before its end, and so on in turn.
    pub first_receipt_s: Vec<f64>,
    /// The longest of them.
    pub worst_s: f64,
    /// What is promised.
    pub limit_s: f64,
    /// Whether it held.
    pub held: bool,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// For each length of blackout.
    pub blackouts: Vec<Measured>,
}

/// The line between the blackouts.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Blackouts of each length.
    pub rounds: u32,
    /// UDP is blocked all the time.
    pub block_udp: bool,
    /// One way; at 50 Mbit/s if there is one.
    pub delay: Duration,
}

/// Measures blackouts of some lengths.
///
/// # Errors
/// When a program fails or no receipt comes.
pub async fn run_bench(dir: &Path, seconds: &[u64], options: Options) -> Result<Report> {
    let school = generate::school(generate::Options {
        pupils: 30,
        years: 1,
        seed: 9,
        ..generate::Options::default()
    })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    let written = generate::write(&school, &dir.join("school"))?;
    let _cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    line.set_udp_blocked(options.block_udp);
    if !options.delay.is_zero() {
        line.set_slow(Slowness { delay: options.delay, bytes_per_second: 6_250_000, lost_per_thousand: 0 });
    }
    let (appliance, _) = town.appliance("edge")?;
    let (data, package) = (appliance.data.display().to_string(), written.package.display().to_string());
    run("sonae-edge", &["import", "--data", &data, &package], "")?;
    let edge = town.start_edge(&appliance, &line)?;
    let client = LanClient::sign_in(&edge.said("listen")?, &appliance.ca, LOGIN, PASSWORD, None).await?;
    let pupil = client.pupils("").await?.into_iter().next().context("no pupils")?;
    let mut blackouts = Vec::new();
    let mut day = 0;
    for &blackout_s in seconds {
        let mut first_receipt_s = Vec::new();
        let mut transport = String::new();
        for round in 0..options.rounds {
            wait_for_line(&client).await?;
            appliance.wait_until_safe(&client, PATIENCE).await?;
            transport = text(&client.status().await?, "/uplink/transport");
            let blackout = Duration::from_secs(blackout_s) + PHASE * round;
            let write_after = match round % 3 {
                0 => Duration::ZERO,
                1 => blackout / 2,
                _ => blackout.saturating_sub(Duration::from_secs(4)),
            };
            line.set_cut(true);
            let ends = Instant::now() + blackout;
            tokio::time::sleep(write_after).await;
            day += 1;
            let path = format!("/api/v1/attendance/2026-{:02}-{:02}/{pupil}", 1 + day / 28, 1 + day % 28);
            client.put(&path, json!({ "code": "late" })).await?;
            tokio::time::sleep(ends.saturating_duration_since(Instant::now())).await;
            line.set_cut(false);
            first_receipt_s.push(first_receipt(&client).await?.as_secs_f64());
        }
        let worst_s = first_receipt_s.iter().copied().fold(0.0, f64::max);
        let limit_s = if blackout_s <= 30 { 2.0 } else { 5.0 };
        let held = worst_s <= limit_s;
        blackouts.push(Measured { blackout_s, transport, first_receipt_s, worst_s, limit_s, held });
    }
    Ok(Report { blackouts })
}

/// Waits until the change of the blackout is safe.
async fn first_receipt(client: &LanClient) -> Result<Duration> {
    let back = Instant::now();
    loop {
        let status = client.status().await?;
        if status.get("unsafe").and_then(Value::as_u64) == Some(0) {
            return Ok(back.elapsed());
        }
        if back.elapsed() > PATIENCE {
            bail!("no receipt came: {}", text(&status, "/last_error/text"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn text(status: &Value, pointer: &str) -> String {
    status.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned()
}
