//! A rebuild over a satellite link: a year of a school of 600 pupils at 256 kbit/s, 700 ms and 2 % loss (P5).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::lan_client::LanClient;
use crate::line::Slowness;
use crate::town::{LOGIN, PASSWORD, Settled};

/// 256 kbit/s.
const BYTES_PER_SECOND: u32 = 32_000;

/// Half of 700 ms.
const DELAY: Duration = Duration::from_millis(350);

const LOST_PER_THOUSAND: u64 = 20;

/// Between two looks: what is measured is a matter of seconds.
const PACE: Duration = Duration::from_millis(50);

/// After this long nothing is waited for any more.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Bytes of the snapshots that the cloud had, by tier.
    pub snapshot_bytes: BTreeMap<u64, u64>,
    /// Changes that the cloud had.
    pub changes: u64,
    /// Seconds from the start of the command until tier 0 was usable: the sign-in that succeeded began then.
    pub tier_0_seconds: f64,
    /// Seconds until the roster was shown to somebody who had signed in. Hashing the password is in it.
    pub served_seconds: f64,
    /// Seconds until everything was there, on the box that served meanwhile.
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
    let (passed, started) = (settled.line.traffic(), Instant::now());
    let edge = settled.town.start_rebuild(&spare, &settled.line, &bundle, &passphrase)?;
    let listen = edge.said("listen")?;
    let (usable, client) = loop {
        let tried = started.elapsed();
        match LanClient::sign_in(&listen, &spare.ca, LOGIN, PASSWORD, None).await {
            Ok(client) => break (tried, client),
            Err(error) if error.to_string().contains("not_here_yet") => {}
            Err(error) => return Err(error),
        }
        anyhow::ensure!(tried < GIVEN_UP, "tier 0 was not usable after {tried:?}");
        // paced: asks again
        tokio::time::sleep(PACE).await;
    };
    anyhow::ensure!(!client.pupils("").await?.is_empty(), "the roster is empty");
    let served = started.elapsed();
    while !client.status().await?.get("rebuild").is_none_or(Value::is_null) {
        anyhow::ensure!(started.elapsed() < GIVEN_UP, "the rebuild has not ended");
        // paced: asks again
        tokio::time::sleep(PACE).await;
    }
    let (total, traffic) = (started.elapsed(), settled.line.traffic());
    let after = spare.digest()?;
    anyhow::ensure!(after.get("digests") == before.get("digests"), "the new box has another state");
    let vector = after.get("version_vector").and_then(Value::as_object);
    let down_bytes = traffic.down_bytes - passed.down_bytes;
    Ok(Report {
        snapshot_bytes,
        changes: vector.into_iter().flatten().filter_map(|(_, sequence)| sequence.as_u64()).sum(),
        tier_0_seconds: usable.as_secs_f64(),
        served_seconds: served.as_secs_f64(),
        total_seconds: total.as_secs_f64(),
        down_bytes,
        up_bytes: traffic.up_bytes - passed.up_bytes,
        floor_seconds: Duration::from_secs(1).as_secs_f64() * f64::from(u32::try_from(down_bytes)?)
            / f64::from(BYTES_PER_SECOND),
    })
}
