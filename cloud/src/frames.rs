//! Frames on streams. No body is allocated before its header was checked and its share of the memory for
//! frames was granted.

use std::sync::Arc;

use sonae_line::{RecvStream, SendStream};
use sonae_proto::wire::{FRAME_HEADER_BYTES, Frame, FrameError, RefusalCode, frame_header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limits::FRAME_TIMEOUT;

/// Memory for frames, in KiB.
pub type FrameMemory = Arc<Semaphore>;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream ended between frames.
    #[error("the stream has ended")]
    End,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// It took too long.
    #[error("a frame did not arrive in time")]
    Timeout,
    /// The stream or the connection is gone.
    #[error("the stream is gone")]
    Gone,
    /// What came is not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl ReadError {
    /// Returns the code with which the peer is told; `None` when there is nobody to tell.
    #[must_use]
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Self::Frame(FrameError::Oversized { .. }) => Some(RefusalCode::Oversized),
            Self::Frame(
                FrameError::Kind { .. } | FrameError::Body { .. } | FrameError::Part(_) | FrameError::Text,
            )
            | Self::Cut => Some(RefusalCode::Malformed),
            Self::End | Self::Timeout | Self::Gone => None,
        }
    }
}

/// A frame and the memory that it holds until this is dropped.
#[derive(Debug)]
pub struct Held {
    /// The frame.
    pub frame: Frame,
    /// Its share.
    pub memory: OwnedSemaphorePermit,
}

/// Reads one frame. Waits for its first byte without limit, for the rest [`FRAME_TIMEOUT`].
///
/// # Errors
/// [`ReadError`].
pub async fn read(stream: &mut RecvStream, memory: &FrameMemory) -> Result<Held, ReadError> {
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.map_err(|error| match error {
        sonae_line::ReadError::Ended => ReadError::End,
        sonae_line::ReadError::Gone => ReadError::Gone,
    })?;
    let whole = async {
        let mut header = [0; FRAME_HEADER_BYTES];
        if let Some((start, rest)) = header.split_first_mut() {
            [*start] = first;
            read_exact(stream, rest).await?;
        }
        let (kind, bytes) = frame_header(header)?;
        let share = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let memory = Arc::clone(memory).acquire_many_owned(share).await.map_err(|_| ReadError::Gone)?;
        let mut body = vec![0; bytes];
        read_exact(stream, &mut body).await?;
        Ok(Held { frame: Frame::from_body(kind, body)?, memory })
    };
    timeout(FRAME_TIMEOUT, whole).await.map_err(|_| ReadError::Timeout)?
}

async fn read_exact(stream: &mut RecvStream, into: &mut [u8]) -> Result<(), ReadError> {
    stream.read_exact(into).await.map_err(|error| match error {
        sonae_line::ReadError::Ended => ReadError::Cut,
        sonae_line::ReadError::Gone => ReadError::Gone,
    })
}

/// Writes one frame. Returns whether the stream took it.
pub async fn write(stream: &mut SendStream, frame: &Frame) -> bool {
    match frame.to_bytes() {
        Ok(bytes) => stream.write_all(&bytes).await.is_ok(),
        Err(error) => {
            log::error!(error:% = error; "a frame cannot be sent");
            false
        }
    }
}

/// Ends a stream and waits until the peer has all of it, so that closing the connection loses nothing.
pub async fn finish(stream: &mut SendStream) {
    if stream.finish().await.is_ok() {
        let _ = timeout(FRAME_TIMEOUT, stream.stopped()).await;
    }
}
