//! When to prove: every night, at an hour that differs from box to box, with the line up and power from the wall.
//! A night that was missed is made up for as soon as may be; a failure is tried again soon, then more seldom.
//!
//! Pure: it is told the time and what there is.

/// Milliseconds of an hour.
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * HOUR_MS;

/// 02:00 in Japan, in milliseconds since midnight UTC. Japan has no summer time.
const NIGHT_MS: u64 = 17 * HOUR_MS;

/// The night's proofs of all boxes are spread over so long.
const NIGHT_SPREAD_MS: u64 = 2 * HOUR_MS;

/// A success counts for the night that follows it at least so much later.
const REST_MS: u64 = 12 * HOUR_MS;

/// The first proof of a box waits so long, and up to as long again.
const FIRST_MS: u64 = HOUR_MS / 4;

/// Wait before a failure is tried again, and up to half as long again; doubles with each.
const RETRY_MS_MIN: u64 = HOUR_MS / 2;

/// The longest such wait.
const RETRY_MS_MAX: u64 = 6 * HOUR_MS;

/// No wait is longer: if one seems to be, the clock was set.
const WAIT_MS_MAX: u64 = 2 * DAY_MS;

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The told time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// Since when proofs are due.
    pub since_ms: u64,
    /// When the last success ended.
    pub proved_ms: Option<u64>,
    /// When the last one ended, whichever way.
    pub ended_ms: Option<u64>,
    /// Failures since the last success.
    pub failures: u32,
    /// Whether the cloud answers.
    pub is_line_up: bool,
    /// Whether power comes from the wall, as far as can be told.
    pub is_power_good: bool,
    /// Any number, the same for one box: spreads many of them.
    pub spread: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Prove now.
    Prove,
    /// It is not due yet.
    NotDue,
    /// It is due, and the line or the power is not there.
    Held,
}

/// Returns when the next one is due.
#[must_use]
pub fn due_ms(reading: &Reading) -> u64 {
    let spread_over = |ms: u64| reading.spread % ms.max(1);
    match (reading.failures, reading.ended_ms, reading.proved_ms) {
        (1.., Some(ended_ms), _) => {
            let doublings = (reading.failures - 1).min(8);
            let wait = (RETRY_MS_MIN << doublings).min(RETRY_MS_MAX);
            ended_ms.saturating_add(wait + spread_over(wait / 2))
        }
        (_, _, Some(proved_ms)) => {
            let rested = proved_ms.saturating_add(REST_MS);
            let tonight = rested - rested % DAY_MS + NIGHT_MS + spread_over(NIGHT_SPREAD_MS);
            if tonight >= rested { tonight } else { tonight + DAY_MS }
        }
        _ => reading.since_ms.saturating_add(FIRST_MS + spread_over(FIRST_MS)),
    }
}

/// Decides.
#[must_use]
pub fn step(reading: &Reading) -> Decision {
    let due_ms = due_ms(reading);
    let was_set_back = due_ms > reading.now_ms.saturating_add(WAIT_MS_MAX);
    if due_ms > reading.now_ms && !was_set_back {
        Decision::NotDue
    } else if reading.is_line_up && reading.is_power_good {
        Decision::Prove
    } else {
        Decision::Held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-27 00:00 UTC, 09:00 in Japan.
    const MORNING_MS: u64 = 1_795_737_600_000;

    fn reading() -> Reading {
        Reading {
            now_ms: MORNING_MS,
            since_ms: MORNING_MS - 30 * DAY_MS,
            proved_ms: Some(MORNING_MS - 6 * HOUR_MS),
            ended_ms: Some(MORNING_MS - 6 * HOUR_MS),
            failures: 0,
            is_line_up: true,
            is_power_good: true,
            spread: 0,
        }
    }

    /// Goal: one proof a night. Method: proved at 03:00, at 10:00 and at 20:00 in Japan.
    #[test]
    fn the_next_one_is_at_night() {
        let after = |proved_ms| due_ms(&Reading { proved_ms: Some(proved_ms), ..reading() });
        assert_eq!(MORNING_MS % DAY_MS, 0);
        let tonight = MORNING_MS + NIGHT_MS;
        assert_eq!(after(MORNING_MS - 6 * HOUR_MS), tonight, "03:00: the coming night");
        assert_eq!(after(MORNING_MS + HOUR_MS), tonight, "10:00: the coming night");
        assert_eq!(after(MORNING_MS + 11 * HOUR_MS), tonight + DAY_MS, "20:00: the night after");
    }

    /// Goal: a missed night is made up for, but not without line or power. Method: rows.
    #[test]
    fn a_missed_night_is_made_up_for() {
        assert_eq!(step(&reading()), Decision::NotDue);
        let missed = Reading { now_ms: MORNING_MS + DAY_MS, ..reading() };
        assert_eq!(step(&missed), Decision::Prove);
        assert_eq!(step(&Reading { is_line_up: false, ..missed }), Decision::Held);
        assert_eq!(step(&Reading { is_power_good: false, ..missed }), Decision::Held);
        let first = Reading { proved_ms: None, ended_ms: None, since_ms: MORNING_MS, ..reading() };
        assert_eq!(step(&first), Decision::NotDue);
        assert_eq!(step(&Reading { now_ms: MORNING_MS + FIRST_MS, ..first }), Decision::Prove);
    }

    /// Goal: a failure is tried again, ever more seldom. Method: one to twelve failures in a row.
    #[test]
    fn failures_are_tried_again() {
        let failed = |failures| Reading { failures, ended_ms: Some(MORNING_MS), ..reading() };
        let waits: Vec<u64> = (1..=12).map(|failures| due_ms(&failed(failures)) - MORNING_MS).collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[1], waits[11]), (RETRY_MS_MIN, 2 * RETRY_MS_MIN, RETRY_MS_MAX));
    }

    /// Goal: a clock that fell back does not stop proofs. Method: 1970 with a success of 2026.
    #[test]
    fn a_clock_that_fell_back_stops_nothing() {
        assert_eq!(step(&Reading { now_ms: 5, ..reading() }), Decision::Prove);
    }

    proptest! {
        /// Goal: with line and power a proof comes before the last success is too old, whatever box and hour. Method:
        /// any success, any spread.
        #[test]
        fn a_success_is_followed_in_time(proved_ms in MORNING_MS..MORNING_MS + DAY_MS, spread: u64) {
            let due = due_ms(&Reading { proved_ms: Some(proved_ms), spread, ..reading() });
            prop_assert!(due >= proved_ms + REST_MS);
            prop_assert!(due + 6 * HOUR_MS < proved_ms + sonae_proto::limits::PROOF_AGE_MS_MAX);
        }
    }
}
