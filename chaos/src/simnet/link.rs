//! One direction of a line: what becomes of a datagram, and when. Pure but for its own random choices.

use std::time::Duration;

use tokio::time::Instant;

use super::options::Conditions;
use crate::random::Random;

/// Bytes that wait before a slow line; what comes on top is dropped. As in a router.
const QUEUE_BYTES_MAX: u64 = 64 * 1024;

/// What becomes of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is gone.
    Dropped(&'static str),
    /// It arrives at these times, each time with the bit flipped that is named.
    Arrives(Vec<(Instant, Option<u64>)>),
}

/// One direction of a line.
pub(crate) struct Link {
    conditions: Conditions,
    random: Random,
    /// Nothing passes.
    pub is_cut: bool,
    /// When the last datagram has left that was taken.
    free_at: Option<Instant>,
}

impl Link {
    pub fn new(conditions: Conditions, random: Random) -> Self {
        Self { conditions, random, is_cut: false, free_at: None }
    }

    /// Takes a datagram of so many bytes.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Fate {
        // Drawn for every datagram, so that a cut shifts no later choice.
        let [lost, twice, flipped] = [(); 3].map(|()| self.random.below(1_000));
        let jitter = [(); 2].map(|()| self.random.below(self.conditions.jitter_ms + 1));
        let bit = self.random.bits();
        if self.is_cut {
            return Fate::Dropped("cut");
        }
        if bytes > self.conditions.datagram_bytes_max {
            return Fate::Dropped("too long");
        }
        if lost < self.conditions.lost {
            return Fate::Dropped("lost");
        }
        let Some(leaves) = self.leaves(bytes, now) else { return Fate::Dropped("queue full") };
        let flip = (flipped < self.conditions.flipped).then_some(bit);
        let arrives = |jitter| leaves + Duration::from_millis(self.conditions.delay_ms + jitter);
        let mut times = vec![(arrives(jitter[0]), flip)];
        if twice < self.conditions.twice {
            times.push((arrives(jitter[1]), None));
        }
        Fate::Arrives(times)
    }

    fn leaves(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.conditions.bytes_per_second else { return Some(now) };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let time = |bytes: u64| Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        let start = self.free_at.map_or(now, |at| at.max(now));
        if start - now > time(QUEUE_BYTES_MAX) {
            return None;
        }
        let leaves = start + time(bytes);
        self.free_at = Some(leaves);
        Some(leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(change: impl FnOnce(&mut Conditions)) -> Link {
        let mut conditions = Conditions {
            delay_ms: 10,
            jitter_ms: 0,
            lost: 0,
            twice: 0,
            flipped: 0,
            bytes_per_second: None,
            datagram_bytes_max: 1_472,
        };
        change(&mut conditions);
        Link::new(conditions, Random::new(1, "link"))
    }

    /// Goal: each condition does what it says. Method: one datagram through lines that do one thing always.
    #[test]
    fn a_line_does_what_it_is_told() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(link(|_| {}).take(100, now), Fate::Arrives(vec![(at(10), None)]));
        assert_eq!(link(|line| line.lost = 1_000).take(100, now), Fate::Dropped("lost"));
        assert_eq!(link(|_| {}).take(1_473, now), Fate::Dropped("too long"));
        let Fate::Arrives(times) = link(|line| line.twice = 1_000).take(100, now) else { panic!() };
        assert_eq!(times.len(), 2);
        let Fate::Arrives(times) = link(|line| line.flipped = 1_000).take(100, now) else { panic!() };
        assert!(times[0].1.is_some());
        let mut cut = link(|_| {});
        cut.is_cut = true;
        assert_eq!(cut.take(100, now), Fate::Dropped("cut"));
    }

    /// Goal: a slow line delays by its rate and holds no more than its queue. Method: a burst.
    #[test]
    fn a_slow_line_has_a_bounded_queue() {
        let now = Instant::now();
        let mut slow = link(|line| line.bytes_per_second = Some(1_000));
        assert_eq!(slow.take(1_000, now), Fate::Arrives(vec![(now + Duration::from_millis(1_010), None)]));
        let dropped = (0..100).filter(|_| slow.take(1_000, now) == Fate::Dropped("queue full")).count();
        assert!(dropped > 30 && dropped < 40, "{dropped}");
    }
}
