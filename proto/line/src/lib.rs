//! One connection between replica and node with many streams in it, over QUIC or, where UDP is blocked, over TLS
//! on TCP. Both carry the same frames on the same streams; what differs ends in this crate.
//!
//! **Invariant**: a connection exists only after the TLS handshake of both sides, certificates included. There
//! is no way to read a stream before.
//! **Invariant**: nothing here is without a bound: `limits`.
//! Spec: `docs/spec/wire.md#tcp`.

mod connection;
mod counted;
pub mod limits;
mod stream;
mod tcp;

pub use connection::{Closed, Connection, Traffic, Transport};
pub use stream::{ReadError, RecvStream, SendStream};
pub use tcp::{TcpError, accept, connect};
