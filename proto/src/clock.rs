//! The hybrid logical clock. It is told the time; it never reads one.
//!
//! Stamps order what is truly concurrent, for display. They never decide which value stands: bases do.
//! **Invariant**: stamps of one clock strictly increase, also when the told time jumps back.
//! **Invariant**: a peer's stamp pushes the clock at most [`CLOCK_AHEAD_MS_MAX`] past the told time.

use serde::{Deserialize, Serialize};

use crate::limits::CLOCK_AHEAD_MS_MAX;
use crate::planted::{Defect, is_planted};

/// A point on the hybrid clock: `[milliseconds since 1970 UTC, counter]` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "(u64, u32)", into = "(u64, u32)")]
pub struct Stamp {
    /// Milliseconds since 1970 UTC.
    pub ms: u64,
    /// Orders stamps of the same millisecond.
    pub counter: u32,
}

impl From<(u64, u32)> for Stamp {
    fn from((ms, counter): (u64, u32)) -> Self {
        Self { ms, counter }
    }
}

impl From<Stamp> for (u64, u32) {
    fn from(stamp: Stamp) -> Self {
        (stamp.ms, stamp.counter)
    }
}

/// The clock of one replica.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// Continues after `last`, the highest stamp in the replica's own logs.
    #[must_use]
    pub const fn after(last: Stamp) -> Self {
        Self { last }
    }

    /// Makes the next stamp. `now_ms` is the told time.
    pub fn next(&mut self, now_ms: u64) -> Stamp {
        self.last = if now_ms > self.last.ms {
            Stamp { ms: now_ms, counter: 0 }
        } else {
            match self.last.counter.checked_add(1) {
                Some(counter) => Stamp { ms: self.last.ms, counter },
                None => Stamp { ms: self.last.ms.saturating_add(1), counter: 0 },
            }
        };
        self.last
    }

    /// Learns a peer's stamp, so that what is written after reading it sorts after it.
    ///
    /// A stamp too far ahead is not learnt: the batch is kept all the same, because refusing one would wedge
    /// its gapless log.
    pub fn observe(&mut self, stamp: Stamp, now_ms: u64) {
        let is_near = stamp.ms <= now_ms.saturating_add(CLOCK_AHEAD_MS_MAX);
        if stamp > self.last && (is_near || is_planted(Defect::ClockDragged)) {
            self.last = stamp;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: stamps increase through a jump back and through 1970. Method: told times out of order.
    #[test]
    fn stamps_increase_whatever_the_told_time_does() {
        let mut clock = Clock::default();
        let mut last = Stamp::default();
        for now in [0, 0, 1_000, 999, 5, 0, 1_001, 1_001] {
            let stamp = clock.next(now);
            assert!(stamp > last, "{stamp:?} after {last:?}");
            last = stamp;
        }
    }

    /// Goal: a clock that runs years ahead cannot drag others along. Method: observe both sides of the bound.
    #[test]
    fn a_far_future_peer_is_not_followed() {
        let mut clock = Clock::default();
        clock.next(1_000);
        clock.observe(Stamp { ms: 1_000 + CLOCK_AHEAD_MS_MAX + 1, counter: 0 }, 1_000);
        assert_eq!(clock.next(1_000).ms, 1_000);
        clock.observe(Stamp { ms: 1_000 + CLOCK_AHEAD_MS_MAX, counter: 3 }, 1_000);
        assert_eq!(clock.next(1_000), Stamp { ms: 1_000 + CLOCK_AHEAD_MS_MAX, counter: 4 });
    }
}
