//! Frames on streams, read with the bounds of `proto`.

use sonae_line::{RecvStream, SendStream};
use sonae_proto::wire::{FRAME_HEADER_BYTES, Frame, FrameError, frame_header};

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side has gone.
    #[error("the stream to the cloud is gone")]
    Gone,
    /// The other side sent what is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Reads one frame.
///
/// # Errors
/// [`StreamError`]; nothing over the limit is allocated.
pub async fn read(stream: &mut RecvStream) -> Result<Frame, StreamError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(|_| StreamError::Gone)?;
    let (kind, length) = frame_header(header)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(|_| StreamError::Gone)?;
    Ok(Frame::from_body(kind, body)?)
}

/// Writes one frame.
///
/// # Errors
/// [`StreamError`].
pub async fn write(stream: &mut SendStream, frame: &Frame) -> Result<(), StreamError> {
    stream.write_all(&frame.to_bytes()?).await.map_err(|_| StreamError::Gone)
}

/// Asks something on a stream of its own. Its sending half is ended, and is kept until the answer has been read.
pub(crate) async fn ask(
    line: &sonae_line::Connection,
    frame: &Frame,
) -> Result<(SendStream, RecvStream), String> {
    let (mut send, receive) = line.open().await.map_err(|error| error.to_string())?;
    write(&mut send, frame).await.map_err(|error| error.to_string())?;
    send.finish().await.map_err(|error| error.to_string())?;
    Ok((send, receive))
}
