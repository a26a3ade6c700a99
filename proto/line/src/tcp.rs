//! A connection over TCP: TLS 1.3 with both certificates, then yamux, driven by one task that lives as long as
//! the connection.
//! Spec: `docs/spec/wire.md#tcp`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

use crate::connection::{Closed, Traffic};
use crate::counted::{Counted, Counts};
use crate::limits::{
    CLOSE_TIMEOUT, KEEP_ALIVE, KEEP_ALIVE_COUNT, KEEP_ALIVE_INTERVAL, STREAMS_MAX, UNACKNOWLEDGED_MAX,
    UNSENT_BYTES_MAX, WINDOW_BYTES_MAX,
};

/// A stream in both directions.
pub type Stream = Compat<yamux::Stream>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// TCP, or what answers there is not TLS.
    #[error(transparent)]
    Line(io::Error),
    /// TLS: a certificate was refused, here or there, or there is no common version.
    #[error(transparent)]
    Tls(rustls::Error),
    /// The other side speaks TLS but not this protocol.
    #[error("the other side does not speak this protocol")]
    Protocol,
}

impl From<io::Error> for TcpError {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
        tls.map_or(Self::Line(error), Self::Tls)
    }
}

/// The handle of a connection; its task closes it when the last handle is gone.
#[derive(Debug, Clone)]
pub struct TcpConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    opens: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    accepted: Mutex<mpsc::Receiver<yamux::Stream>>,
    closing: watch::Sender<bool>,
    ended: Arc<OnceLock<String>>,
    counts: Arc<Counts>,
    certificate: Option<CertificateDer<'static>>,
    /// Its other end is the task's, and ends with it.
    alive: watch::Receiver<()>,
}

/// Dials a node or a neighbour. `name` goes to it in clear.
///
/// # Errors
/// [`TcpError`]. A node that refuses this side's certificate may say so only after this has returned.
pub async fn connect(
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> Result<TcpConnection, TcpError> {
    let counts = Arc::new(Counts::default());
    let stream = Counted::new(prepared(TcpStream::connect(address).await?)?, Arc::clone(&counts));
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    TcpConnection::start(stream.into(), yamux::Mode::Client, counts)
}

/// Serves a replica that has connected, to a node or to a neighbour.
///
/// # Errors
/// [`TcpError`], when it shows no certificate that `tls` accepts.
pub async fn accept(stream: TcpStream, tls: Arc<ServerConfig>) -> Result<TcpConnection, TcpError> {
    let counts = Arc::new(Counts::default());
    let stream = Counted::new(prepared(stream)?, Arc::clone(&counts));
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    TcpConnection::start(stream.into(), yamux::Mode::Server, counts)
}

/// The kernel watches over the line, so that an idle connection needs no timer here. It takes little before it
/// sends, so that what it takes tells how the line is ([`crate::Connection::progress`]).
fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_COUNT);
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(stream)
}

impl TcpConnection {
    fn start(stream: TlsStream<Counted>, mode: yamux::Mode, counts: Arc<Counts>) -> Result<Self, TcpError> {
        let (_, session) = stream.get_ref();
        // TLS has agreed on one that both configurations name; a side that names none is turned away.
        if session.alpn_protocol().is_none() {
            return Err(TcpError::Protocol);
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first).cloned();
        let certificate = certificate.map(CertificateDer::into_owned);
        let (opens, requests) = mpsc::channel(STREAMS_MAX);
        let (inbound, accepted) = mpsc::channel(STREAMS_MAX);
        let (closing, close) = watch::channel(false);
        let (life, alive) = watch::channel(());
        let ended = Arc::new(OnceLock::new());
        let inner = Inner {
            opens,
            accepted: Mutex::new(accepted),
            closing,
            ended: Arc::clone(&ended),
            counts,
            certificate,
            alive,
        };
        let driving = drive(stream, mode, Streams { requests, opening: None, inbound }, close, ended);
        tokio::spawn(async move {
            driving.await;
            drop(life);
        });
        Ok(Self(Arc::new(inner)))
    }

    pub(crate) async fn open(&self) -> Result<Stream, Closed> {
        let (reply, opened) = oneshot::channel();
        self.0.opens.send(reply).await.map_err(|_| Closed)?;
        opened.await.map(yamux::Stream::compat).map_err(|_| Closed)
    }

    pub(crate) async fn accept(&self) -> Result<Stream, Closed> {
        self.0.accepted.lock().await.recv().await.map(yamux::Stream::compat).ok_or(Closed)
    }

    pub(crate) fn close(&self) {
        self.0.closing.send_replace(true);
    }

    pub(crate) async fn closed(&self) {
        let mut alive = self.0.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    pub(crate) fn close_reason(&self) -> Option<String> {
        self.0.ended.get().cloned()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.0.counts.traffic()
    }

    pub(crate) fn resumed(&self) -> u64 {
        self.0.counts.resumed()
    }

    pub(crate) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.certificate.as_ref()
    }
}

/// The task's ends of the handle's queues.
struct Streams {
    requests: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    opening: Option<oneshot::Sender<yamux::Stream>>,
    inbound: mpsc::Sender<yamux::Stream>,
}

type Mux<'a> = yamux::Connection<Compat<&'a mut TlsStream<Counted>>>;

/// Moves bytes until either side closes, then sends what is queued and says goodbye.
async fn drive(
    mut stream: TlsStream<Counted>,
    mode: yamux::Mode,
    mut streams: Streams,
    mut close: watch::Receiver<bool>,
    ended: Arc<OnceLock<String>>,
) {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX).set_max_connection_receive_window(Some(WINDOW_BYTES_MAX));
    let mut mux: Mux<'_> = yamux::Connection::new((&mut stream).compat(), config, mode);
    let serving = std::future::poll_fn(|cx| streams.poll(&mut mux, cx));
    let reason = tokio::select! {
        reason = serving => reason,
        // The handle is gone, or says so.
        _ = close.wait_for(|close| *close) => "closed by this side".to_owned(),
    };
    let _ = ended.set(reason);
    drop(streams);
    let _ = timeout(CLOSE_TIMEOUT, std::future::poll_fn(|cx| mux.poll_close(cx))).await;
    drop(mux);
    // What the other side still sends is read: a socket that is dropped with unread bytes resets the line, and
    // what was sent last would be lost with it.
    let mut rest = [0; 4096];
    let goodbye = async { while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {} };
    let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
}

impl Streams {
    /// Ready with the reason when the connection has ended.
    fn poll(&mut self, mux: &mut Mux<'_>, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if self.opening.is_none()
                && let Poll::Ready(request) = self.requests.poll_recv(cx)
            {
                match request {
                    Some(request) => self.opening = Some(request),
                    None => return Poll::Ready("closed by this side".to_owned()),
                }
            }
            if self.opening.is_some()
                && let Poll::Ready(opened) = mux.poll_new_outbound(cx)
            {
                let Ok(stream) = opened else { return Poll::Ready("the streams are used up".to_owned()) };
                // Whoever asked may have gone; the stream ends with the reply.
                let _ = self.opening.take().map(|reply| reply.send(stream));
                continue;
            }
            match mux.poll_next_inbound(cx) {
                // A full queue cannot be: it takes as many as yamux lets be.
                Poll::Ready(Some(Ok(stream))) => drop(self.inbound.try_send(stream)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(error.to_string()),
                Poll::Ready(None) => return Poll::Ready("closed by the other side".to_owned()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
