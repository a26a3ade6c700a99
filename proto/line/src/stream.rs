//! The two directions of a stream.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::connection::Closed;
use crate::tcp::Stream;

/// Why bytes did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The other side has ended the stream before them.
    #[error("the stream has ended")]
    Ended,
    /// The stream or the connection is gone. Over TCP an early end looks the same.
    #[error("the stream is gone")]
    Gone,
}

/// The direction to the other side. Dropping both directions ends the stream for both sides.
#[derive(Debug)]
pub enum SendStream {
    /// Over QUIC.
    Quic(quinn::SendStream),
    /// Over TCP.
    Tcp(WriteHalf<Stream>),
}

/// The direction from the other side.
#[derive(Debug)]
pub enum RecvStream {
    /// Over QUIC.
    Quic(quinn::RecvStream),
    /// Over TCP.
    Tcp(ReadHalf<Stream>),
}

impl SendStream {
    /// Writes all bytes, as the other side grants room.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        match self {
            Self::Quic(stream) => stream.write_all(bytes).await.map_err(|_| Closed),
            Self::Tcp(stream) => stream.write_all(bytes).await.map_err(|_| Closed),
        }
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn finish(&mut self) -> Result<(), Closed> {
        match self {
            Self::Quic(stream) => stream.finish().map_err(|_| Closed),
            Self::Tcp(stream) => stream.shutdown().await.map_err(|_| Closed),
        }
    }

    /// Waits until the other side has all of it, or wants none of it. Over TCP there is nothing to wait for:
    /// closing the connection sends what is queued.
    pub async fn stopped(&mut self) {
        match self {
            Self::Quic(stream) => drop(stream.stopped().await),
            Self::Tcp(_) => {}
        }
    }

    /// Tells the other side that the rest will not come.
    pub fn reset(mut self) {
        match &mut self {
            Self::Quic(stream) => drop(stream.reset(0_u32.into())),
            // Dropped without an end, with its other direction, it is reset.
            Self::Tcp(_) => {}
        }
    }
}

impl RecvStream {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`ReadError`]; what was read until then is lost.
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        match self {
            Self::Quic(stream) => stream.read_exact(bytes).await.map_err(|error| match error {
                quinn::ReadExactError::FinishedEarly(_) => ReadError::Ended,
                quinn::ReadExactError::ReadError(_) => ReadError::Gone,
            }),
            Self::Tcp(stream) => stream.read_exact(bytes).await.map(drop).map_err(|_| ReadError::Gone),
        }
    }
}
