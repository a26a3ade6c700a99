//! The connection: two bodies, one face.

use rustls_pki_types::CertificateDer;

use crate::stream::{RecvStream, SendStream};
use crate::tcp::TcpConnection;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// yamux in TLS over TCP.
    Tcp,
}

impl Transport {
    /// Returns its name in a status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is gone")]
pub struct Closed;

/// Bytes that a connection has moved: UDP payloads of QUIC, or what TLS gave to TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// A connection. Clones are the same connection.
#[derive(Debug, Clone)]
pub enum Connection {
    /// Over QUIC.
    Quic(quinn::Connection),
    /// Over TCP.
    Tcp(TcpConnection),
}

impl Connection {
    /// Opens a stream. The other side learns of it with the first byte.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn open(&self) -> Result<(SendStream, RecvStream), Closed> {
        match self {
            Self::Quic(quic) => {
                let (send, receive) = quic.open_bi().await.map_err(|_| Closed)?;
                Ok((SendStream::Quic(send), RecvStream::Quic(receive)))
            }
            Self::Tcp(tcp) => tcp.open().await.map(halves),
        }
    }

    /// Returns the next stream that the other side has opened.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), Closed> {
        match self {
            Self::Quic(quic) => {
                let (send, receive) = quic.accept_bi().await.map_err(|_| Closed)?;
                Ok((SendStream::Quic(send), RecvStream::Quic(receive)))
            }
            Self::Tcp(tcp) => tcp.accept().await.map(halves),
        }
    }

    /// Asks for a sign of life: a stream that ends before a whole frame, which the other side ends as well.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn probe(&self) -> Result<(), Closed> {
        let (mut send, mut receive) = self.open().await?;
        if self.transport() == Transport::Tcp {
            // yamux tells of a stream with its first byte, and an end alone is none.
            send.write_all(&[0]).await?;
        }
        send.finish().await?;
        // Its end, or that it is gone while the connection is not: both are an answer.
        let _ = receive.read_exact(&mut [0]).await;
        Ok(())
    }

    /// Closes it. Over QUIC code and reason travel to the other side's log; over TCP what is queued goes first.
    pub fn close(&self, code: u32, reason: &[u8]) {
        match self {
            Self::Quic(quic) => quic.close(code.into(), reason),
            Self::Tcp(tcp) => tcp.close(),
        }
    }

    /// Waits until it has ended. After [`Self::close`] over TCP that is when what was queued has gone.
    pub async fn closed(&self) {
        match self {
            Self::Quic(quic) => drop(quic.closed().await),
            Self::Tcp(tcp) => tcp.closed().await,
        }
    }

    /// Returns why it has ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<String> {
        match self {
            Self::Quic(quic) => quic.close_reason().map(|reason| reason.to_string()),
            Self::Tcp(tcp) => tcp.close_reason(),
        }
    }

    /// Returns what carries it.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    /// Returns what it has moved.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match self {
            Self::Quic(quic) => {
                let stats = quic.stats();
                Traffic { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes }
            }
            Self::Tcp(tcp) => tcp.traffic(),
        }
    }

    /// Returns a number that grows while the other side acknowledges what was sent, and stands still when the
    /// line is dead. Over QUIC acknowledgements are received bytes. Over TCP they are the kernel's; they show when
    /// it was full and takes bytes again, but not for the last ones.
    #[must_use]
    pub fn progress(&self) -> u64 {
        let received = self.traffic().received;
        match self {
            Self::Quic(_) => received,
            Self::Tcp(tcp) => received + tcp.resumed(),
        }
    }

    /// Returns the certificate that the other side has shown and proven in the handshake.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        match self {
            Self::Quic(quic) => {
                let chain = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
                chain.first().cloned()
            }
            Self::Tcp(tcp) => tcp.peer_certificate().cloned(),
        }
    }
}

fn halves(stream: crate::tcp::Stream) -> (SendStream, RecvStream) {
    let (receive, send) = tokio::io::split(stream);
    (SendStream::Tcp(send), RecvStream::Tcp(receive))
}
