//! Benches: absolute figures of one machine, printed as JSON. Tests compare ratios instead.

pub mod blackout;
pub mod courier;
pub mod erasure;
pub mod idle;
pub mod satellite;
pub mod wire;
