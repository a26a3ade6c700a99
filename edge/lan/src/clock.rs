//! The clock of sessions and waits: monotonic, told, and going on while the machine sleeps.
//!
//! **Left out:** the time of day, which is the store's ([`sonae_store::Clock`]).

use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

/// A monotonic clock, milliseconds since some moment before the process began.
#[derive(Clone)]
pub struct Monotonic(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Monotonic {
    /// The kernel's clock since boot; a session that was left open does not outlive a night in standby.
    ///
    /// # Source
    /// `clock_gettime(2)`, `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn system() -> Self {
        Self::told(|| {
            let now = clock_gettime(ClockId::Boottime);
            let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
            let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
            seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
        })
    }

    /// A clock that says what it is told.
    pub fn told(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Returns the time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Monotonic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monotonic(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the system's clock runs and does not step back. Method: read it twice.
    #[test]
    fn runs_forward() {
        let clock = Monotonic::system();
        let first = clock.now_ms();
        assert!(first > 0);
        assert!(clock.now_ms() >= first);
    }
}
