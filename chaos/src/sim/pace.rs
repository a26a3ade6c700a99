//! The pace of a run: simulated time goes on, and a run ends. Whoever does something over and over at one moment, or all
//! the time, never stands still for the oracle to find it stalled; without a bound that is a run that hangs, and no
//! failure.

/// Things done at one moment of simulated time: steps of the world, and effects of engines. Of 519 honest seeds, 19 of
/// them with school days, none did more than 1,680: sixty times that.
const AT_ONCE_MAX: u64 = 100_000;

/// Things done in a run. Of the same seeds none did more than 2,802,650 (seed 7000094; without school days 227,265): ten
/// times that.
const IN_ALL_MAX: u64 = 30_000_000;

/// Counts what is done.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    at: u64,
    at_once: u64,
    /// The most at one moment.
    pub at_once_most: u64,
    /// Since the run began.
    pub in_all: u64,
    at_once_max: u64,
    in_all_max: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::within(AT_ONCE_MAX, IN_ALL_MAX)
    }
}

impl Pace {
    pub const fn within(at_once_max: u64, in_all_max: u64) -> Self {
        Self { at: 0, at_once: 0, at_once_most: 0, in_all: 0, at_once_max, in_all_max }
    }

    /// Something is done at this moment; an error says that it is too much.
    pub fn count(&mut self, now: u64) -> Result<(), String> {
        if self.at != now {
            (self.at, self.at_once) = (now, 0);
        }
        self.at_once += 1;
        self.in_all += 1;
        self.at_once_most = self.at_once_most.max(self.at_once);
        if self.at_once > self.at_once_max {
            return Err(format!("livelock: more than {} steps at one moment", self.at_once_max));
        }
        if self.in_all > self.in_all_max {
            return Err(format!("livelock: more than {} steps in one run", self.in_all_max));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Options;
    use super::super::world::World;
    use super::*;

    /// Goal: a run that turns in place fails instead of hanging, and so does one that goes on for ever. Method: honest
    /// runs under bounds that they must exceed: two things at a moment, ten in all.
    #[test]
    fn a_livelock_is_a_failure() {
        for (pace, expected) in [
            (Pace::within(2, u64::MAX), "livelock: more than 2 steps at one moment"),
            (Pace::within(u64::MAX, 10), "livelock: more than 10 steps in one run"),
        ] {
            let mut world = World::new(Options::of_seed(0), None, false).unwrap();
            assert_eq!(world.violation, None);
            world.pace = pace;
            world.run_for(60_000);
            assert_eq!(world.violation.as_deref(), Some(expected));
            let done = world.pace.in_all;
            world.run_for(60_000);
            assert_eq!(world.pace.in_all, done, "nothing is done after that");
        }
    }

    /// Goal: an engine that never has enough is caught within one step of the world. Method: effects at one moment, up
    /// to the bound and beyond; a moment later they count anew.
    #[test]
    fn each_moment_counts_anew() {
        let mut pace = Pace::within(3, 100);
        for now in 0..5 {
            (0..3).for_each(|_| pace.count(now).unwrap());
        }
        assert_eq!((pace.at_once_most, pace.in_all), (3, 15));
        assert!(pace.count(4).is_err());
    }
}
