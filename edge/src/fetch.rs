//! Fetching everything that the cloud holds of a school into an empty store: for a rebuild and for a renewal.

use std::time::{Duration, Instant};

use sonae_proto::ids::{LogName, Tier};
use sonae_store::filling::SnapshotProgress;
use sonae_store::status::StatusSource;
use tokio::sync::watch;

use crate::uplink::{self, UplinkError};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Without a word from the cloud for this long, a fetch is given up; begun again, it resumes.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// An uplink that has not ended so long after it was asked to is ended.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// How a fetch went.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From `started` until tier 0 was here.
    pub tier_0: Duration,
    /// Until everything was here.
    pub total: Duration,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Changes that are here.
    pub here: u64,
    /// Changes that the cloud has said it has.
    pub there: u64,
    /// Whether tier 0 is here.
    pub tier_0: bool,
    /// The snapshot that is on its way: its changes count when it is whole.
    pub snapshot: Option<SnapshotProgress>,
}

/// Why a fetch ended early. What has come stays.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The uplink cannot start.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The cloud does not want this device.
    #[error("the cloud refuses this device: {text}")]
    Refused {
        /// What it says.
        text: String,
    },
    /// What has come of a log is of another branch than the cloud has by now, so that the rest never comes.
    #[error(
        "the cloud has lost what was fetched of log {log} and has another branch of it; only an empty store can have it all"
    )]
    Parted {
        /// Which log.
        log: LogName,
    },
    /// Nothing comes.
    #[error("nothing has come from the cloud for {} s ({text})", SILENCE_MAX.as_secs())]
    Silent {
        /// The last error of the line.
        text: String,
    },
}

/// Runs an uplink until everything that the cloud has is in its store, and ends it. `source` is the status that the
/// uplink writes to.
///
/// # Errors
/// [`FetchError`].
///
/// # Durability
/// What was fetched is on stable storage when this returns.
pub async fn fetch_all(
    config: uplink::Config,
    source: &StatusSource,
    started: Instant,
    report: impl FnMut(Progress),
) -> Result<Timing, FetchError> {
    let (stop, stopped) = watch::channel(false);
    let mut uplink = tokio::spawn(uplink::run(config, stopped));
    let timing = watch_progress(source, started, report).await;
    let _ = stop.send(true);
    match tokio::time::timeout(CLOSING_MAX, &mut uplink).await {
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(_) => timing,
        Err(_) => {
            // It waits for room on the disk, which this fetch itself may have taken.
            uplink.abort();
            timing
        }
    }
}

async fn watch_progress(
    source: &StatusSource,
    started: Instant,
    mut report: impl FnMut(Progress),
) -> Result<Timing, FetchError> {
    let mut tier_0 = None;
    let (mut last_word, mut last_count) = (Instant::now(), (0, None));
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let (uplink, state) = (source.uplink.get(), source.store.state());
        if let Some(error) = uplink.errors.iter().find(|error| error.code == "refused") {
            return Err(FetchError::Refused { text: error.text.clone() });
        }
        let there: u64 = uplink.cloud_heads.values().map(|head| head.sequence).sum();
        let here: u64 = state.vector.values().sum();
        let has = |log: &LogName, sequence: u64| state.vector.get(log).copied().unwrap_or(0) >= sequence;
        let mut first = uplink.cloud_heads.iter().filter(|(log, _)| log.tier == Tier::Safety);
        if uplink.up && tier_0.is_none() && first.all(|(log, head)| has(log, head.sequence)) {
            tier_0 = Some(started.elapsed());
        }
        report(Progress { here, there, tier_0: tier_0.is_some(), snapshot: uplink.snapshot });
        let all = uplink.cloud_heads.iter().all(|(log, head)| has(log, head.sequence));
        if uplink.has_all && all {
            let total = started.elapsed();
            return Ok(Timing { tier_0: tier_0.unwrap_or(total), total });
        }
        if let Some(log) = uplink.parted {
            return Err(FetchError::Parted { log });
        }
        // Of a snapshot bytes come long before changes count.
        let count = (here, uplink.snapshot.map(|snapshot| (snapshot.tier, snapshot.here_bytes)));
        if count != last_count {
            (last_count, last_word) = (count, Instant::now());
        }
        if last_word.elapsed() > SILENCE_MAX {
            let text = uplink.errors.last().map(|error| error.text.clone()).unwrap_or_default();
            return Err(FetchError::Silent { text });
        }
    }
}
