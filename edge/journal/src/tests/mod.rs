//! The tests of the journal that need its inside or the simulated disk.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod decay;
mod faults;
mod handle;
mod harness;
mod layout;
mod power_cut;
mod rot;
mod wipe;
