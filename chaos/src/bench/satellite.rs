//! A rebuild over a satellite link: a year of a school of 600 pupils at 256 kbit/s, 700 ms and 2 % loss (P5).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::line::Slowness;
use crate::program::run;
use crate::town::Settled;

/// 256 kbit/s.
const BYTES_PER_SECOND: u32 = 32_000;

/// Half of 700 ms.
const DELAY: Duration = Duration::from_millis(350);

const LOST_PER_THOUSAND: u64 = 20;

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Bytes of the snapshots that the cloud had, by tier.
    pub snapshot_bytes: BTreeMap<u64, u64>,
    /// Changes that the cloud had.
    pub changes: u64,
    /// Seconds from the start of the command until tier 0 was there.
    pub tier_0_seconds: f64,
    /// Seconds until everything was there.
    pub total_seconds: f64,
    /// UDP payload bytes from the cloud, what was lost on the way included.
    pub down_bytes: u64,
    /// The same to the cloud.
    pub up_bytes: u64,
    /// Seconds that `down_bytes` take at that speed: what no software can be under.
    pub floor_seconds: f64,
}

/// Seconds that are promised until tier 0 is there, and until everything is.
const TIER_0_SECONDS_MAX: f64 = 5.0;
const TOTAL_SECONDS_MAX: f64 = 60.0;

impl Report {
    /// Whether it is as fast as was promised.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.tier_0_seconds <= TIER_0_SECONDS_MAX && self.total_seconds <= TOTAL_SECONDS_MAX
    }
}

/// Measures.
///
/// # Errors
/// When a program fails, or the new box has another state.
pub async fn run_bench(dir: &Path) -> Result<Report> {
    let settled = Settled::found(dir, 600, 3).await?;
    let (mut edge, client) = settled.start(&settled.appliance).await?;
    settled.appliance.wait_until_safe(&client, Duration::from_secs(600)).await?;
    let snapshot_bytes = settled.appliance.wait_for_snapshots(Duration::from_secs(600)).await?;
    let before = settled.appliance.digest()?;
    edge.kill_hard()?;
    std::fs::remove_dir_all(&settled.appliance.data)?;

    let (bundle, passphrase) = settled.town.enrol_bundle("spare", "spare.bundle")?;
    let spare = settled.town.appliance_at("spare");
    let slowness =
        Slowness { delay: DELAY, bytes_per_second: BYTES_PER_SECOND, lost_per_thousand: LOST_PER_THOUSAND };
    settled.line.set_slow(slowness);
    let passed = settled.line.traffic();
    let (data, bundle) = (spare.data.display().to_string(), bundle.display().to_string());
    let cloud = settled.line.address().to_string();
    let arguments =
        ["rebuild", "--json", "--passphrase-stdin", "--data", &data, "--bundle", &bundle, "--cloud", &cloud];
    let said = tokio::task::block_in_place(|| run("sonae-edge", &arguments, &passphrase))?;
    let said: Value = serde_json::from_str(&said).context("the rebuild printed no JSON")?;
    anyhow::ensure!(said.get("digests") == before.get("digests"), "the new box has another state");
    let traffic = settled.line.traffic();
    let seconds = |name: &str| {
        let ms =
            said.get(name).and_then(Value::as_f64).context("the rebuild did not say how long it took")?;
        Ok::<_, anyhow::Error>(ms / 1_000.0)
    };
    let down_bytes = traffic.down_bytes - passed.down_bytes;
    Ok(Report {
        snapshot_bytes,
        changes: said.get("changes").and_then(Value::as_u64).unwrap_or(0),
        tier_0_seconds: seconds("tier0_ms")?,
        total_seconds: seconds("total_ms")?,
        down_bytes,
        up_bytes: traffic.up_bytes - passed.up_bytes,
        floor_seconds: Duration::from_secs(1).as_secs_f64() * f64::from(u32::try_from(down_bytes)?)
            / f64::from(BYTES_PER_SECOND),
    })
}
