//! Drives all parts: generator, demo, drills, benches.

pub mod generate;
