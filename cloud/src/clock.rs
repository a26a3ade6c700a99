//! The node's clock. The engine is told the time; this is the one place that asks the system for it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns milliseconds since 1970 UTC; 0 before that.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
