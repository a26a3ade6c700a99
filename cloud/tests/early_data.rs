//! Early data: a client that comes with a session of somebody else sends a frame before it has shown any
//! certificate, and nobody reads it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::board::{Board, HOST, SCHOOL};
use common::client::{hello, receive, send, tls, trusting};
use common::{PATIENCE, start, until};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sonae_proto::identity::Beginning;
use sonae_proto::wire::{ALPN, Frame};
use tokio::time::timeout;

/// A server with the name and the key of the node that hands out sessions to anybody and takes early data.
fn generous(board: &Board) -> Endpoint {
    let bundle = board.bundle();
    let chain = vec![CertificateDer::from_pem_slice(bundle.tls_certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(bundle.tls_key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = u32::MAX;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Greets whoever comes, and keeps the connections.
async fn welcome_all(endpoint: Endpoint) {
    let mut kept = Vec::new();
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.accept().unwrap().await.unwrap();
        let mut told = connection.open_uni().await.unwrap();
        told.write_all(b"welcome").await.unwrap();
        kept.push((connection, told));
    }
}

/// Waits for the greeting, behind which the tickets have come.
async fn greeted(connection: &Connection) {
    let greeting = async {
        let mut stream = connection.accept_uni().await.unwrap();
        stream.read_exact(&mut [0; 7]).await.unwrap();
    };
    timeout(PATIENCE, greeting).await.unwrap();
}

/// Goal: a frame in early data of a client without a certificate is not read, whatever session it brings.
/// Method: a client gets sessions from a generous server with the node's own key, shows there that its early data
/// works, and then sends a batch to the node in the same way; the refusals would count a batch that was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_of_a_stranger_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let node = start(&board, root.path()).await;
    let server = generous(&board);
    let generous_address = server.local_addr().unwrap();
    let welcoming = tokio::spawn(welcome_all(server));

    let mut tls = trusting(&board).with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = true;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let connect = |address| endpoint.connect_with(config.clone(), address, HOST).unwrap();
    greeted(&timeout(PATIENCE, connect(generous_address)).await.unwrap().unwrap()).await;

    let Ok((early, accepted)) = connect(generous_address).into_0rtt() else { panic!("no session was kept") };
    assert!(timeout(PATIENCE, accepted).await.unwrap(), "the control shows no early data");
    greeted(&early).await;

    let Ok((early, accepted)) = connect(node.ready().listen).into_0rtt() else {
        panic!("no session is left")
    };
    let (mut stream, _answer) = early.open_bi().await.unwrap();
    send(&mut stream, &Frame::Batch(vec![0; 400])).await;
    assert!(!timeout(PATIENCE, accepted).await.unwrap(), "the node took early data");
    timeout(PATIENCE, early.closed()).await.unwrap();
    until(&node, |status| status.handshakes_refused == 1).await;
    assert!(node.status().refusals.is_empty(), "the frame was read: {:?}", node.status().refusals);
    welcoming.abort();
}

/// Goal: the node hands out no session, to nobody. Method: a device greets and then looks for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hands_out_no_session() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let device = board.device(SCHOOL);
    let node = start(&board, root.path()).await;
    let mut tls = tls(&board, &device);
    tls.enable_early_data = true;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = node.ready().listen;
    let first = timeout(PATIENCE, endpoint.connect_with(config.clone(), address, HOST).unwrap());
    let first = first.await.unwrap().unwrap();
    let (mut control, mut told) = first.open_bi().await.unwrap();
    let life = device.life(Beginning::Enrolment, 5);
    send(&mut control, &Frame::Hello(Box::new(hello(&device, &life)))).await;
    assert!(matches!(receive(&mut told).await, Some(Frame::Welcome(_))));
    let again = endpoint.connect_with(config, address, HOST).unwrap();
    assert!(again.into_0rtt().is_err(), "a session was handed out");
}
