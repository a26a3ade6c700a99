//! The line as the engine sees it, and how long it waits before it dials again.

use super::Uplink;

/// Shortest wait before the next dial, in milliseconds. Doubles with each failure.
pub const DIAL_MS_MIN: u64 = 500;

/// Longest wait before the next dial.
pub const DIAL_MS_MAX: u64 = 5_000;

/// Longest wait after a connection on which the cloud could not store: it is there, and only says so again. Shorter than a
/// gap that begins the watch over receipts anew.
pub const REFUSED_MS_MAX: u64 = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Down {
        retry_at_ms: u64,
        failures: u32,
    },
    Dialling {
        failures: u32,
    },
    /// Failures are forgotten with the welcome: a refused hello is one more.
    Greeting {
        failures: u32,
    },
    Up,
}

impl Uplink {
    pub(super) const fn failures(&self) -> u32 {
        match self.line {
            Line::Down { failures, .. } | Line::Dialling { failures } | Line::Greeting { failures } => {
                failures
            }
            Line::Up => 0,
        }
    }

    /// How long to wait before the next dial, in milliseconds.
    pub(super) fn dial_wait_ms(&mut self) -> u64 {
        // A line that has gone since may be back at any moment.
        let was_refused = self.cannot_store.is_some() && self.line == Line::Up;
        let longest = if was_refused { REFUSED_MS_MAX } else { DIAL_MS_MAX };
        let doublings = self.failures().saturating_add(self.refusals).min(10);
        let wait = DIAL_MS_MIN.saturating_mul(1 << doublings).min(longest);
        // xorshift: a spread of half the wait, so that a district's boxes do not dial in step.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        wait / 2 + self.jitter % (wait / 2 + 1)
    }
}
