//! The appliance at a school: it keeps what staff enter, serves it on the LAN, streams it sealed to the cloud
//! and rebuilds itself from there.
//!
//! This crate puts the parts together: the uplink drives the sync engine over QUIC, the control socket serves
//! the command line, imports become actions. The store lies in `edge/store`, the LAN service in `edge/lan`.
//!
//! **Invariant**: no plaintext leaves this process but to signed-in people on the LAN and to the operator of
//! this machine.

pub mod control;
pub mod courier;
pub mod digest;
pub mod erase;
pub mod exit;
pub mod fetch;
pub mod frames;
pub mod import;
pub mod logging;
pub mod neighbours;
pub mod proof;
pub mod renewal;
pub mod repair;
pub mod replica;
pub mod tls;
pub mod uplink;
