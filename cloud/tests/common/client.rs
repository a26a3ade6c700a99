//! A small QUIC client that speaks frames.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rustls::RootCertStore;
use rustls::client::WantsClientCert;
use sonae_proto::ended::EndedHashes;
use sonae_proto::receipt::Receipt;
use sonae_proto::vector::{Heads, Sequences};
use sonae_proto::wire::{
    ALPN, FRAME_HEADER_BYTES, Fetch, Frame, Hello, KeyDocuments, PROTOCOL, Refusal, RefusalCode, Welcome,
    frame_header,
};
use tokio::time::timeout;

use super::PATIENCE;
use super::board::{Board, Device, HOST, Life, SchoolKeys};

pub struct Client {
    /// Keeps the socket.
    _endpoint: Endpoint,
    pub connection: Connection,
    pub control_send: SendStream,
    pub control_recv: RecvStream,
    /// The newer key documents that came with the welcome.
    pub keys: Option<Box<KeyDocuments>>,
}

/// The hello of a life.
pub fn hello(device: &Device, life: &Life) -> Hello {
    Hello {
        protocol: PROTOCOL,
        school: device.school,
        identity: life.text.clone(),
        loss_counter: 3,
        receipted: Heads::new(),
        have: Sequences::new(),
        manifest_version: 0,
        nonce: "00112233445566778899aabbccddeeff".to_owned(),
        software: "test".to_owned(),
        ended: EndedHashes::new(),
    }
}

/// TLS of a device that trusts the board's authority.
pub fn tls(board: &Board, device: &Device) -> rustls::ClientConfig {
    let chain = vec![device.tls_certificate.clone()];
    let mut tls = trusting(board).with_client_auth_cert(chain, device.tls_key()).unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls
}

/// TLS of a client that trusts the board's authority and shows nothing yet.
pub fn trusting(board: &Board) -> rustls::ConfigBuilder<rustls::ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(board.ca_der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

/// Dials with a device's certificate. In TLS 1.3 a client learns of a refusal only afterwards.
pub async fn dial(board: &Board, device: &Device, address: SocketAddr) -> (Endpoint, Connection) {
    let tls = tls(board, device);
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let connecting = endpoint.connect_with(config, address, HOST).unwrap();
    let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
    (endpoint, connection)
}

pub async fn send(stream: &mut SendStream, frame: &Frame) {
    stream.write_all(&frame.to_bytes().unwrap()).await.unwrap();
}

/// Reads a frame; `None` when the stream ends or is gone.
pub async fn receive(stream: &mut RecvStream) -> Option<Frame> {
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

impl Client {
    /// Dials and opens the control stream with any frame.
    pub async fn open(board: &Board, device: &Device, address: SocketAddr, first: &Frame) -> Self {
        let (endpoint, connection) = dial(board, device, address).await;
        let (mut control_send, control_recv) = connection.open_bi().await.unwrap();
        send(&mut control_send, first).await;
        Self { _endpoint: endpoint, connection, control_send, control_recv, keys: None }
    }

    /// Dials and greets.
    pub async fn greet(board: &Board, device: &Device, life: &Life, address: SocketAddr) -> (Self, Welcome) {
        let first = Frame::Hello(Box::new(hello(device, life)));
        let mut client = Self::open(board, device, address, &first).await;
        loop {
            match receive(&mut client.control_recv).await {
                Some(Frame::Keys(keys)) => client.keys = Some(keys),
                Some(Frame::Welcome(welcome)) => return (client, *welcome),
                other => panic!("no welcome but {other:?}"),
            }
        }
    }

    /// Greets and hands over the keys of the school.
    pub async fn greet_with_keys(
        board: &Board,
        device: &Device,
        life: &Life,
        keys: &SchoolKeys,
        address: SocketAddr,
    ) -> (Self, Welcome) {
        let (mut client, welcome) = Self::greet(board, device, life, address).await;
        send(&mut client.control_send, &Frame::Keys(Box::new(keys.documents()))).await;
        (client, welcome)
    }

    /// Next frame on the control stream.
    pub async fn told(&mut self) -> Option<Frame> {
        receive(&mut self.control_recv).await
    }

    /// One request, its first answer.
    pub async fn ask(&self, frame: &Frame) -> Option<Frame> {
        let (mut stream, mut answers) = timeout(PATIENCE, self.connection.open_bi()).await.unwrap().ok()?;
        stream.write_all(&frame.to_bytes().unwrap()).await.ok()?;
        let _ = stream.finish();
        receive(&mut answers).await
    }

    /// Sends a batch until the keys, which travel on another stream, have arrived; its receipt.
    pub async fn receipt(&self, board: &Board, batch: &[u8]) -> Receipt {
        loop {
            match self.ask(&Frame::Batch(batch.to_vec())).await {
                Some(Frame::Receipt(bytes)) => {
                    return Receipt::verify(&bytes, board.descriptor.body()).unwrap();
                }
                Some(Frame::Refusal(Refusal { code: RefusalCode::Manifest, .. })) => {}
                other => panic!("no receipt but {other:?}"),
            }
        }
    }

    /// Sends a batch that is to be refused.
    pub async fn refused(&self, batch: &[u8]) -> Refusal {
        match self.ask(&Frame::Batch(batch.to_vec())).await {
            Some(Frame::Refusal(refusal)) => refusal,
            other => panic!("no refusal but {other:?}"),
        }
    }

    /// Fetches a log; its batches and the sequence of the end.
    pub async fn fetch(&self, fetch: Fetch) -> (Vec<Vec<u8>>, u64) {
        let (mut stream, mut answers) = self.connection.open_bi().await.unwrap();
        send(&mut stream, &Frame::Fetch(fetch)).await;
        let _ = stream.finish();
        let mut batches = Vec::new();
        loop {
            match receive(&mut answers).await {
                Some(Frame::Batch(bytes)) => batches.push(bytes),
                Some(Frame::FetchEnd(end)) => return (batches, end.sequence),
                other => panic!("no batch but {other:?}"),
            }
        }
    }
}
