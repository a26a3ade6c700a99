//! Benches: absolute figures of one machine, printed as JSON. Tests compare ratios instead.

pub mod idle;
pub mod wire;
