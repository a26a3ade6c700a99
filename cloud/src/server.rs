//! The door: a QUIC endpoint, and TCP for where UDP is blocked. It admits connections, bounded.
//!
//! **Invariant**: no stream is read before the handshake has verified the client's certificate.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, ConnectionError, Endpoint, EndpointConfig, Incoming, Runtime, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use sonae_line::{Connection, TcpError};
use sonae_proto::intake::ConnectionId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::{self, Shared};
use crate::identity::NodeIdentity;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_TCP_MAX,
    HANDSHAKES_UNPROVEN_MAX, RECEIVE_BUFFER_BYTES,
};
use crate::status::Board;
use crate::tls;

/// First QUIC error code of a TLS alert, and the last. RFC 9000, section 20.1.
const TLS_ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// Ports that are tried when any will do, since one has to be free for both.
const PORTS_TRIED: usize = 16;

/// Where replicas knock.
#[derive(Debug)]
pub struct Door {
    /// QUIC.
    pub endpoint: Endpoint,
    /// Absent where there is no TCP.
    tcp: Option<TcpListener>,
    tcp_tls: Arc<rustls::ServerConfig>,
}

impl Door {
    /// Opens the door on UDP and on TCP: at `listen_tcp`, or at the same address.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn open(
        listen: SocketAddr,
        listen_tcp: Option<SocketAddr>,
        identity: &NodeIdentity,
    ) -> io::Result<Self> {
        let mut tries = if listen.port() == 0 { PORTS_TRIED } else { 1 };
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind(listen)?;
            match TcpListener::bind(listen_tcp.map_or_else(|| udp.local_addr(), Ok)?).await {
                Ok(tcp) => break (udp, tcp),
                Err(error) if tries == 1 => return Err(error),
                Err(_) => tries -= 1,
            }
        };
        enlarge_receive_buffer(&udp);
        let socket = TokioRuntime.wrap_udp_socket(udp)?;
        Ok(Self { tcp: Some(tcp), ..Self::over(socket, identity)? })
    }

    /// Opens the door on a socket of the caller's, without TCP.
    ///
    /// # Errors
    /// When the socket does not work.
    pub fn over(socket: Arc<dyn AsyncUdpSocket>, identity: &NodeIdentity) -> io::Result<Self> {
        let (config, tls) = (endpoint_config(identity), &identity.tls);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(config, Some(tls.quic.clone()), socket, runtime)?;
        Ok(Self { endpoint, tcp: None, tcp_tls: Arc::clone(&tls.tcp) })
    }

    /// Returns where TCP is listened on, if it is.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn tcp_address(&self) -> io::Result<Option<SocketAddr>> {
        self.tcp.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Waits for somebody over TCP; for ever where there is none.
    async fn accept_tcp(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.tcp {
            Some(tcp) => tcp.accept().await,
            None => std::future::pending().await,
        }
    }
}

fn endpoint_config(identity: &NodeIdentity) -> EndpointConfig {
    let reset_key = blake3::derive_key("sonae 2026 quic stateless reset", identity.receipt_key.as_bytes());
    // The same key at every boot: a replica whose connection ended with the last boot is told so by a stateless
    // reset with its next packet, and dials anew at once instead of waiting for an answer.
    // Connection ids carry a check under the key, without which a packet of an earlier boot would be garbage.
    let id_key = reset_key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset_key);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    endpoint
}

fn enlarge_receive_buffer(socket: &UdpSocket) {
    use rustix::net::sockopt;
    // The forced form passes the system's limit and needs a privilege.
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES);
    }
    // The kernel reports twice what was set.
    let granted = sockopt::socket_recv_buffer_size(socket).unwrap_or(0) / 2;
    if granted < RECEIVE_BUFFER_BYTES {
        log::warn!(
            granted_bytes = granted, wanted_bytes = RECEIVE_BUFFER_BYTES;
            "the receive buffer is small: raise net.core.rmem_max, or bursts of connections are dropped"
        );
    }
}

/// Somebody at the door.
enum Knock {
    Quic(Box<Incoming>),
    Tcp(TcpStream, SocketAddr),
}

/// What is needed to let somebody in.
struct Guard {
    quic_handshakes: Arc<Semaphore>,
    tcp_handshakes: Arc<Semaphore>,
    places: Arc<Semaphore>,
    tcp_tls: Arc<rustls::ServerConfig>,
    shared: Shared,
    board: Arc<Board>,
}

/// Admits connections until `stopping` or the endpoint is closed; returns when all of them have ended.
pub async fn run(door: Door, shared: Shared, board: Arc<Board>, mut stopping: watch::Receiver<bool>) {
    let guard = Guard {
        quic_handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        tcp_handshakes: Arc::new(Semaphore::new(HANDSHAKES_TCP_MAX)),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        tcp_tls: Arc::clone(&door.tcp_tls),
        shared,
        board,
    };
    let mut open = JoinSet::new();
    let mut next = 0;
    loop {
        let knock = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_) = open.join_next() => continue,
            incoming = door.endpoint.accept() => match incoming {
                Some(incoming) => Ok(Knock::Quic(Box::new(incoming))),
                None => break,
            },
            accepted = door.accept_tcp() => accepted.map(|(stream, remote)| Knock::Tcp(stream, remote)),
        };
        let knock = match knock {
            Ok(knock) => knock,
            Err(error) => {
                log::warn!(error:% = error; "a TCP connection cannot be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if guard.admit(knock, ConnectionId(next), &mut open) {
            next += 1;
        }
    }
    while open.join_next().await.is_some() {}
}

impl Guard {
    /// Lets somebody in if there is room. Returns whether there was.
    fn admit(&self, knock: Knock, id: ConnectionId, open: &mut JoinSet<()>) -> bool {
        let handshakes = match knock {
            Knock::Quic(_) => &self.quic_handshakes,
            Knock::Tcp(..) => &self.tcp_handshakes,
        };
        let busy = HANDSHAKES_MAX - self.quic_handshakes.available_permits() >= HANDSHAKES_UNPROVEN_MAX;
        let permits =
            (Arc::clone(handshakes).try_acquire_owned(), Arc::clone(&self.places).try_acquire_owned());
        let (shared, board) = (self.shared.clone(), Arc::clone(&self.board));
        match (knock, permits) {
            (Knock::Quic(incoming), (Ok(handshake), Ok(place))) => {
                if busy && !incoming.remote_address_validated() && incoming.may_retry() {
                    // It comes back with proof of its address, as another incoming connection.
                    let _ = incoming.retry();
                    return false;
                }
                open.spawn(admit_quic(*incoming, id, (handshake, place), shared, board));
                true
            }
            (Knock::Tcp(stream, remote), (Ok(handshake), Ok(place))) => {
                let tls = Arc::clone(&self.tcp_tls);
                open.spawn(admit_tcp(stream, remote, tls, id, (handshake, place), shared, board));
                true
            }
            (Knock::Quic(incoming), _) => {
                incoming.refuse();
                false
            }
            // Dropped, it is closed.
            (Knock::Tcp(..), _) => false,
        }
    }
}

/// A place for a handshake, and one for the connection that follows.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

async fn admit_quic(
    incoming: Incoming,
    id: ConnectionId,
    (handshake, _place): Permits,
    shared: Shared,
    board: Arc<Board>,
) {
    let remote = incoming.remote_address();
    let connected = timeout(HANDSHAKE_TIMEOUT, async { incoming.accept()?.await }).await;
    drop(handshake);
    match connected {
        Ok(Ok(connection)) => serve(Connection::Quic(connection), remote, id, shared, &board).await,
        Ok(Err(error)) => {
            let refused = matches!(&error, ConnectionError::TransportError(error)
                if TLS_ALERTS.contains(&u64::from(error.code)));
            note_failure(&board, remote, &error, refused);
        }
        Err(_) => board.update(|status| status.handshakes_failed += 1),
    }
}

async fn admit_tcp(
    stream: TcpStream,
    remote: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    id: ConnectionId,
    (handshake, _place): Permits,
    shared: Shared,
    board: Arc<Board>,
) {
    let connected = timeout(HANDSHAKE_TIMEOUT, sonae_line::accept(stream, tls)).await;
    drop(handshake);
    match connected {
        Ok(Ok(connection)) => serve(Connection::Tcp(connection), remote, id, shared, &board).await,
        Ok(Err(error)) => {
            let refused = matches!(error, TcpError::Tls(_) | TcpError::Protocol);
            note_failure(&board, remote, &error, refused);
        }
        Err(_) => board.update(|status| status.handshakes_failed += 1),
    }
}

async fn serve(connection: Connection, remote: SocketAddr, id: ConnectionId, shared: Shared, board: &Board) {
    match tls::client_key(&connection) {
        Some(key) => connection::serve(connection, id, key, shared).await,
        None => {
            log::warn!(remote:% = remote; "a client certificate without an Ed25519 key was refused");
            board.update(|status| status.handshakes_refused += 1);
            connection.close(2, b"the certificate has no Ed25519 key");
        }
    }
}

fn note_failure(board: &Board, remote: SocketAddr, error: &dyn std::error::Error, refused: bool) {
    if refused {
        log::warn!(remote:% = remote, reason:% = error; "a handshake was refused");
        board.update(|status| status.handshakes_refused += 1);
    } else {
        log::debug!(remote:% = remote, reason:% = error; "a handshake failed");
        board.update(|status| status.handshakes_failed += 1);
    }
}
