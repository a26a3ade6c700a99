//! The door: a QUIC endpoint that admits connections, bounded.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{ConnectionError, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use sonae_proto::intake::ConnectionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::{self, Shared};
use crate::limits::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_UNPROVEN_MAX, RECEIVE_BUFFER_BYTES,
};
use crate::status::Board;
use crate::tls;

/// First QUIC error code of a TLS alert, and the last. RFC 9000, section 20.1.
const TLS_ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// Opens the endpoint.
///
/// # Errors
/// When the address cannot be listened on.
pub fn open(listen: SocketAddr, config: ServerConfig, reset_key: &[u8; 32]) -> std::io::Result<Endpoint> {
    let socket = UdpSocket::bind(listen)?;
    enlarge_receive_buffer(&socket);
    // The same key at every boot: a replica whose connection ended with the last boot is told so by a stateless
    // reset with its next packet, and dials anew at once instead of waiting for an answer.
    // Connection ids carry a check under the key, without which a packet of an earlier boot would be garbage.
    let id_key = reset_key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime))
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

/// Admits connections until `stopping` or the endpoint is closed; returns when all of them have ended.
pub async fn run(endpoint: Endpoint, shared: Shared, board: Arc<Board>, mut stopping: watch::Receiver<bool>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    let mut next = 0;
    loop {
        let incoming = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_) = open.join_next() => continue,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let busy = HANDSHAKES_MAX - handshakes.available_permits() > HANDSHAKES_UNPROVEN_MAX;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // It comes back with proof of its address, as another incoming connection.
            let _ = incoming.retry();
            continue;
        }
        let id = ConnectionId(next);
        next += 1;
        open.spawn(admit(incoming, id, handshake, place, shared.clone(), Arc::clone(&board)));
    }
    while open.join_next().await.is_some() {}
}

async fn admit(
    incoming: Incoming,
    id: ConnectionId,
    handshake: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
    shared: Shared,
    board: Arc<Board>,
) {
    let remote = incoming.remote_address();
    let connected = timeout(HANDSHAKE_TIMEOUT, async { incoming.accept()?.await }).await;
    drop(handshake);
    let connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return note_failure(&board, remote, &error),
        Err(_) => return board.update(|status| status.handshakes_failed += 1),
    };
    match tls::client_key(&connection) {
        Some(key) => connection::serve(connection, id, key, shared).await,
        None => {
            log::warn!(remote:% = remote; "a client certificate without an Ed25519 key was refused");
            board.update(|status| status.handshakes_refused += 1);
            connection.close(2_u32.into(), b"the certificate has no Ed25519 key");
        }
    }
}

fn note_failure(board: &Board, remote: SocketAddr, error: &ConnectionError) {
    let refused = matches!(error, ConnectionError::TransportError(error) if TLS_ALERTS.contains(&u64::from(error.code)));
    if refused {
        log::warn!(remote:% = remote, reason:% = error; "a handshake was refused");
        board.update(|status| status.handshakes_refused += 1);
    } else {
        log::debug!(remote:% = remote, reason:% = error; "a handshake failed");
        board.update(|status| status.handshakes_failed += 1);
    }
}
