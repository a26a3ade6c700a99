//! Drives all parts from outside, as a board, a school and a disaster would: generator, demo, drills, benches.
//!
//! Everything here runs the real programs as processes of their own and believes only what it saw answered.

#[cfg(feature = "sim")]
pub mod adversary;
pub mod bench;
pub mod canary;
pub mod demo;
pub mod drill;
pub mod fault_fs;
pub mod fuzz;
pub mod generate;
pub mod lan_client;
pub mod limits;
pub mod line;
pub mod proc;
pub mod program;
pub(crate) mod random;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "sim")]
pub mod simnet;
pub mod small_disk;
pub mod soak;
pub mod town;
pub mod wrong_clock;
