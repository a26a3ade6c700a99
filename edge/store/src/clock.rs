//! The told clocks: whoever needs the time is told it, so that tests tell theirs.
//!
//! Two times. The *wall* says when something was, for people; it may be wrong, and jumps. The *steady* time never
//! goes back and never jumps, and says how long ago something was.

use std::sync::Arc;
use std::time::Instant;

use sonae_proto::clock::Stamp;

/// Steady milliseconds at the start of a program: seventy years, so that what lies before the start has a time too.
const STEADY_BEGIN_MS: u64 = 70 * 365 * 86_400_000;

type Tells = dyn Fn() -> u64 + Send + Sync;

/// The told clocks.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<Tells>,
    steady: Arc<Tells>,
}

impl Clock {
    /// The system's clocks.
    #[must_use]
    pub fn system() -> Self {
        let wall = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
        };
        let begin = Instant::now();
        let steady = move || {
            let elapsed = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            STEADY_BEGIN_MS.saturating_add(elapsed)
        };
        Self::told_apart(wall, steady)
    }

    /// Clocks that both say what they are told.
    pub fn told(now_ms: impl Fn() -> u64 + Clone + Send + Sync + 'static) -> Self {
        Self::told_apart(now_ms.clone(), now_ms)
    }

    /// Clocks that say what they are told, each something else.
    pub fn told_apart(
        wall: impl Fn() -> u64 + Send + Sync + 'static,
        steady: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { wall: Arc::new(wall), steady: Arc::new(steady) }
    }

    /// Returns the time, milliseconds since 1970 UTC. It may jump.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.wall)()
    }

    /// Returns the steady time in milliseconds. Only differences mean anything.
    #[must_use]
    pub fn steady_ms(&self) -> u64 {
        (self.steady)()
    }

    /// Returns the wall's time of something steady, as far as the wall is right now.
    #[must_use]
    pub fn wall_of(&self, steady_ms: u64) -> u64 {
        self.now_ms().saturating_sub(self.steady_ms().saturating_sub(steady_ms))
    }
}

/// Returns where the own hybrid clock goes on: a stamp of a far future must not drag it along.
pub(crate) fn own_stamp(highest: Stamp, now_ms: u64) -> Stamp {
    let mut clock = sonae_proto::clock::Clock::default();
    clock.observe(highest, now_ms);
    clock.next(0)
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock(..)")
    }
}
