//! Pairs of engines in virtual time: replicas and a node of the cloud on a line that drops, doubles, reorders and
//! parts, with sites in memory and an outside ledger. No sleeps, no sockets, no clock.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking, and anything unexpected fails"
)]

mod board;
mod desk;
mod happen;
mod ledger;
mod line;
mod node;
mod random;
mod replica;
mod world;

mod at_once;
mod beginnings;
mod destruction;
mod documents;
mod ended;
mod forks;
mod key_sets;
mod losses;
mod peers;
mod receipts;
mod relay;
mod replay;
mod revocation;
mod revoked_forks;
mod revoked_snapshots;
mod snapshots;
mod storage;
mod tiers;
