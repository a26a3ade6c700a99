//! Formats, data model, merge, sealing and the sans-IO replication engine of Sonae.
//!
//! Every byte that leaves a process is defined here and specified in `docs/spec/`. This crate has no clock,
//! no files, no sockets, no threads and no async runtime: it is told the time and asks for effects.
//!
//! **Invariant**: equal version vectors give equal [`digest`]s, whatever order the changes arrived in.
//! **Invariant**: no decoder panics; every input has a bound in [`limits`].

pub mod batch;
pub mod bundle;
pub mod bytes;
pub mod change;
pub mod clock;
pub mod collection;
pub mod courier;
pub mod descriptor;
pub mod destruction;
pub mod digest;
pub mod ended;
pub mod erasure;
pub mod export;
pub mod hold;
pub mod identity;
pub mod ids;
pub mod intake;
pub mod limits;
pub mod manifest;
pub mod neighbours;
pub mod object;
pub mod padme;
pub mod planted;
pub mod proof;
pub mod receipt;
pub mod record;
pub mod reissue;
pub mod retention;
pub mod revocation;
pub mod seal;
pub mod signed;
pub mod snapshot;
pub mod uplink;
pub mod vector;
pub mod view;
pub mod wire;
