//! Bounds that more than one ring is held to, in tests and in a soak.

/// Seconds of a processor within which a planted defect must be found: one that takes longer is found by luck.
pub const DEFECT_CPU_SECONDS_MAX: f64 = 60.0;

/// Seconds of a processor for all planted defects of a ring, and in a soak for those of all rings: more, and people
/// would leave them out.
pub const ALL_DEFECTS_CPU_SECONDS_MAX: f64 = 120.0;

/// Of 100 runs of seeds at least so many must differ, or the seeds explore nothing.
pub const DISTINCT_PERCENT_MIN: u8 = 99;
