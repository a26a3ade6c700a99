//! How many clients may be connected, handshakes included.
//!
//! **Invariant**: at most [`CONNECTIONS_MAX`]; one more is closed at once and tries again by itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at once: 60 staff with four each, and as many again. About 64 KiB each, 32 MiB in all.
pub const CONNECTIONS_MAX: usize = 512;

/// Admits connections.
#[derive(Debug, Clone)]
pub struct Bounded(Arc<Semaphore>);

impl Default for Bounded {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS_MAX)))
    }
}

/// A connection that gives its place back when it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl<S> Accept<TcpStream, S> for Bounded {
    type Stream = Connection;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Connection, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            log::warn!(connections = CONNECTIONS_MAX; "a connection is refused because there are too many");
            io::Error::from(io::ErrorKind::ConnectionRefused)
        });
        std::future::ready(admitted.and_then(|place| {
            // Answers are small; waiting to fill a packet only delays them.
            stream.set_nodelay(true)?;
            Ok((Connection { stream, _place: place }, service))
        }))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: places are bounded and come back. Method: one place, two connections, drop the first.
    #[tokio::test]
    async fn bounded() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounded = Bounded(Arc::new(Semaphore::new(1)));
        let connect = async || TcpStream::connect(address).await.unwrap();
        let first = bounded.accept(connect().await, ()).await.unwrap();
        assert!(bounded.accept(connect().await, ()).await.is_err());
        drop(first);
        assert!(bounded.accept(connect().await, ()).await.is_ok());
    }
}
