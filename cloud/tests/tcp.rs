//! A node over TCP: the same frames, the same checks, and nobody gets as far as a frame without a certificate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use common::board::{Board, Device, HOST, SCHOOL};
use common::client::{hello, tls, trusting};
use common::writer::LogWriter;
use common::{PATIENCE, start, until};
use rustls_pki_types::ServerName;
use sonae_cloud::node::Node;
use sonae_line::{Connection, RecvStream, SendStream, TcpError};
use sonae_proto::batch::Batch;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::wire::{ALPN, FRAME_HEADER_BYTES, Fetch, Frame, frame_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

async fn dial(address: SocketAddr, tls: rustls::ClientConfig) -> Result<Connection, TcpError> {
    let name = ServerName::try_from(HOST).unwrap();
    let dialling = sonae_line::connect(address, name, Arc::new(tls));
    timeout(PATIENCE, dialling).await.unwrap().map(Connection::Tcp)
}

async fn send(stream: &mut SendStream, frame: &Frame) {
    stream.write_all(&frame.to_bytes().unwrap()).await.unwrap();
}

/// Reads a frame; `None` when the stream ends or is gone.
async fn receive(stream: &mut RecvStream) -> Option<Frame> {
    let read = async {
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).await.ok()?;
        let (kind, bytes) = frame_header(header).unwrap();
        let mut body = vec![0; bytes];
        stream.read_exact(&mut body).await.ok()?;
        Some(Frame::from_body(kind, body).unwrap())
    };
    timeout(PATIENCE, read).await.unwrap()
}

async fn ask(connection: &Connection, frame: &Frame) -> (SendStream, RecvStream) {
    let (mut send_stream, receive_stream) = connection.open().await.unwrap();
    send(&mut send_stream, frame).await;
    send_stream.finish().await.unwrap();
    (send_stream, receive_stream)
}

struct Scene {
    _root: tempfile::TempDir,
    board: Board,
    device: Device,
    node: Node,
}

async fn scene() -> Scene {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let device = board.device(SCHOOL);
    let node = start(&board, root.path()).await;
    Scene { _root: root, board, device, node }
}

/// Goal: what works over QUIC works over TCP: greeting, many batches at once, receipts, a fetch, a sign of life.
/// Method: a client of one school with 16 batches of half a megabyte under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_get_receipts_over_tcp() {
    let Scene { _root, board, device, node } = scene().await;
    let keys = board.school_keys(SCHOOL);
    let life = device.life(Beginning::Enrolment, 5);
    assert_eq!(Some(node.ready().listen), node.ready().listen_tcp);
    let connection = dial(node.ready().listen_tcp.unwrap(), tls(&board, &device)).await.unwrap();
    let (mut control, mut told) = connection.open().await.unwrap();
    send(&mut control, &Frame::Hello(Box::new(hello(&device, &life)))).await;
    let Some(Frame::Welcome(_)) = receive(&mut told).await else { panic!("no welcome") };
    send(&mut control, &Frame::Keys(Box::new(keys.documents()))).await;

    assert_eq!(timeout(PATIENCE, connection.probe()).await, Ok(Ok(())));

    let mut log = LogWriter::new(&device, &life, &keys, Tier::Daily);
    let batches: Vec<Batch> = (0..16).map(|turn| log.write(&format!("batch {turn}"))).collect();
    let mut streams = Vec::new();
    for batch in &batches {
        streams.push(ask(&connection, &Frame::Batch(batch.bytes().to_vec())).await);
    }
    for (_, answer) in &mut streams {
        let frame = receive(answer).await;
        assert!(matches!(frame, Some(Frame::Receipt(_))), "{frame:?}");
    }
    let (_send, mut fetched) = ask(&connection, &Frame::Fetch(Fetch { log: log.log, after: 0 })).await;
    for batch in &batches {
        assert_eq!(receive(&mut fetched).await, Some(Frame::Batch(batch.bytes().to_vec())));
    }
    assert!(matches!(receive(&mut fetched).await, Some(Frame::FetchEnd(_))));
    assert!(node.status().refusals.is_empty(), "a probe is no refusal");
    connection.close(0, b"");
    until(&node, |status| status.connections == 0).await;
}

/// Goal: nobody without a certificate of the board gets a frame read, and each is counted. Method: a client
/// without certificate, one of another board, one without ALPN, each sending a hello at once; a batch where the
/// hello should be shows that the count would rise if frames were read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_before_a_frame_is_read() {
    let scene = scene().await;
    let address = scene.node.ready().listen_tcp.unwrap();
    let stranger = Board::new();
    let other = stranger.device(SCHOOL);
    let mut nameless = trusting(&scene.board).with_no_client_auth();
    nameless.alpn_protocols = vec![ALPN.to_vec()];
    let chain = vec![other.tls_certificate.clone()];
    let mut foreign = trusting(&scene.board).with_client_auth_cert(chain, other.tls_key()).unwrap();
    foreign.alpn_protocols = vec![ALPN.to_vec()];
    for (refused, config) in (1..).zip([nameless, foreign]) {
        // The client's half of the handshake may end before the node has refused.
        if let Ok(connection) = dial(address, config).await {
            let opened = connection.open().await;
            if let Ok((mut stream, mut answer)) = opened {
                let _ = stream.write_all(&Frame::Batch(vec![0; 400]).to_bytes().unwrap()).await;
                assert_eq!(receive(&mut answer).await, None);
            }
        }
        until(&scene.node, |status| status.handshakes_refused == refused).await;
    }
    let mut wordless = tls(&scene.board, &scene.device);
    wordless.alpn_protocols.clear();
    assert!(matches!(dial(address, wordless).await, Err(TcpError::Protocol)));
    until(&scene.node, |status| status.handshakes_refused == 3).await;
    let status = scene.node.status();
    assert!(status.refusals.is_empty(), "a frame was read: {:?}", status.refusals);

    let connection = dial(address, tls(&scene.board, &scene.device)).await.unwrap();
    let _streams = ask(&connection, &Frame::Batch(vec![0; 400])).await;
    until(&scene.node, |status| status.refusals.values().sum::<u64>() == 1).await;
}

/// Goal: what is not TLS is dropped and costs nothing. Method: plain bytes, then a client that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_dropped() {
    let scene = scene().await;
    let address = scene.node.ready().listen_tcp.unwrap();
    let mut noise = TcpStream::connect(address).await.unwrap();
    let _ = noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, noise.read_to_end(&mut rest)).await.unwrap();
    until(&scene.node, |status| status.handshakes_refused + status.handshakes_failed == 1).await;
    assert!(dial(address, tls(&scene.board, &scene.device)).await.is_ok());
}

/// Goal: a client cannot open streams without bound. Method: one that knows no bound of its own greets, is
/// served, and then begins a hundred requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded() {
    let scene = scene().await;
    let tcp = TcpStream::connect(scene.node.ready().listen_tcp.unwrap()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(tls(&scene.board, &scene.device)));
    let stream = connector.connect(ServerName::try_from(HOST).unwrap(), tcp).await.unwrap();
    let mut mux = yamux::Connection::new(stream.compat(), yamux::Config::default(), yamux::Mode::Client);
    let life = scene.device.life(Beginning::Enrolment, 5);
    let greeting = Frame::Hello(Box::new(hello(&scene.device, &life))).to_bytes().unwrap();
    let mut control = poll_fn(|cx| mux.poll_new_outbound(cx)).await.unwrap().compat();
    let greeted = async {
        control.write_all(&greeting).await.unwrap();
        control.read_exact(&mut [0; FRAME_HEADER_BYTES]).await.unwrap();
    };
    tokio::select! {
        () = greeted => {}
        _ = poll_fn(|cx| mux.poll_next_inbound(cx)) => panic!("the node hangs up on a greeting"),
    }
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = poll_fn(|cx| mux.poll_new_outbound(cx)).await.unwrap().compat();
        stream.write_all(&[0]).await.unwrap();
        streams.push(stream);
    }
    let hung_up = timeout(PATIENCE, poll_fn(|cx| mux.poll_next_inbound(cx))).await;
    assert!(hung_up.is_ok(), "a hundred requests are served at once");
    until(&scene.node, |status| status.connections == 0).await;
}
