//! The time of a run: tokio's paused clock, and the wall clocks that box and node are told.

use std::time::Duration;

use tokio::time::Instant;

/// What all wall clocks show at the start, milliseconds since 1970: a day of the school year 2026.
pub(crate) const BEGIN_MS: u64 = 1_780_000_000_000;

/// The time of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    begin: Instant,
}

impl Time {
    /// Time begins now.
    pub fn begin() -> Self {
        Self { begin: Instant::now() }
    }

    /// Simulated milliseconds since the start.
    pub fn since_ms(self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What a right wall clock shows.
    pub fn wall_ms(self) -> u64 {
        BEGIN_MS + self.since_ms()
    }

    /// The clock of a box.
    pub fn box_clock(self) -> sonae_store::Clock {
        sonae_store::Clock::told(move || self.wall_ms())
    }

    /// The clock of a node.
    pub fn node_clock(self) -> sonae_cloud::clock::Clock {
        sonae_cloud::clock::Clock::told(move || self.wall_ms())
    }
}

/// Waits for so many simulated milliseconds.
pub(crate) async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
