//! A node and a client over real QUIC on loopback: what is accepted, what is refused, that all is counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::board::{Board, Device, Life, OTHER_SCHOOL, SCHOOL, SchoolKeys};
use common::client::{Client, dial, hello, send};
use common::writer::LogWriter;
use common::{start, until};
use sonae_cloud::node::Node;
use sonae_proto::batch::Place;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::limits::FRAME_BYTES_MAX;
use sonae_proto::seal::OpenKey;
use sonae_proto::wire::{Fetch, Frame, RefusalCode};

/// A node with a greeted client of one school.
struct Scene {
    _root: tempfile::TempDir,
    board: Board,
    device: Device,
    life: Life,
    keys: SchoolKeys,
    node: Node,
    client: Client,
    log: LogWriter,
}

async fn scene() -> Scene {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
    let life = device.life(Beginning::Enrolment, 5);
    let node = start(&board, root.path()).await;
    let (client, welcome) = Client::greet_with_keys(&board, &device, &life, &keys, node.ready().listen).await;
    assert!(welcome.complete && welcome.heads.is_empty());
    assert_eq!((welcome.sites, welcome.quorum), (2, 2));
    let log = LogWriter::new(&device, &life, &keys, Tier::Daily);
    Scene { _root: root, board, device, life, keys, node, client, log }
}

impl Scene {
    async fn counted(&self, code: RefusalCode) {
        until(&self.node, |status| status.refusals.get(&code) == Some(&1)).await;
    }
}

/// Goal: a batch gets a receipt of both sites, and the same again. Method: send it twice, fetch it, greet again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_gets_a_receipt_and_is_served_back() {
    let mut scene = scene().await;
    let first = scene.log.write("one");
    let receipt = scene.client.receipt(&scene.board, first.bytes()).await;
    assert_eq!(receipt.head, first.header().head());
    assert_eq!((receipt.log, receipt.loss_counter, receipt.sites.len()), (scene.log.log, 3, 2));
    let again = scene.client.receipt(&scene.board, first.bytes()).await;
    assert_eq!((again.head, again.sites), (receipt.head, receipt.sites));
    let second = scene.log.write("two");
    scene.client.receipt(&scene.board, second.bytes()).await;
    let (batches, end) = scene.client.fetch(Fetch { log: scene.log.log, after: 0 }).await;
    assert_eq!(batches, [first.bytes().to_vec(), second.bytes().to_vec()]);
    assert_eq!(end, 2);
    let (batches, end) = scene.client.fetch(Fetch { log: scene.log.log, after: 2 }).await;
    assert_eq!((batches.len(), end), (0, 2));
    let address = scene.node.ready().listen;
    let (_, welcome) = Client::greet(&scene.board, &scene.device, &scene.life, address).await;
    assert_eq!(welcome.heads.get(&scene.log.log), Some(&second.header().head()));
    scene.node.stop().await;
}

/// Goal: streams may overtake one another. Method: send 6 batches at once, the last one first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_may_arrive_out_of_order() {
    let mut scene = scene().await;
    scene.client.receipt(&scene.board, scene.log.write("0").bytes()).await;
    let mut batches: Vec<_> = (1..7).map(|n| scene.log.write(&n.to_string())).collect();
    batches.reverse();
    let receipts = batches.iter().map(|batch| scene.client.receipt(&scene.board, batch.bytes()));
    let receipts = futures_util::future::join_all(receipts).await;
    for (batch, receipt) in batches.iter().zip(receipts) {
        assert_eq!(receipt.head, batch.header().head());
    }
    scene.node.stop().await;
}

/// Goal: each kind of wrong batch is refused with its own code, and counted. Method: one of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_batches_are_refused_and_counted() {
    let mut scene = scene().await;
    scene.client.receipt(&scene.board, scene.log.write("one").bytes()).await;
    scene.client.receipt(&scene.board, scene.log.write("two").bytes()).await;
    let log = &scene.log;
    let (next, payload) = (log.next_place(), log.payload("x"));
    let fork = Place { after: log.batches[0].header().head(), last: 2, ..next };
    let mut broken = next;
    broken.after.hash = Hash32([9; 32]);
    let stranger = scene.device.life(Beginning::Enrolment, 6);
    let mut unknown_log = next;
    unknown_log.log.incarnation = stranger.name;
    let mut bad_signature = log.sign(&next, &payload).bytes().to_vec();
    bad_signature[sonae_proto::batch::HEADER_BYTES] ^= 1;
    let other = OpenKey::generate().recipient();
    let cases = [
        (RefusalCode::Fork, log.sign(&fork, &payload).bytes().to_vec()),
        (RefusalCode::Chain, log.sign(&broken, &payload).bytes().to_vec()),
        (
            RefusalCode::WrongSchool,
            log.sign(&log.place_in(OTHER_SCHOOL.parse().unwrap()), &payload).bytes().to_vec(),
        ),
        (RefusalCode::Identity, log.sign(&unknown_log, &payload).bytes().to_vec()),
        (RefusalCode::Signature, bad_signature),
        (RefusalCode::Recipients, log.sign(&next, &log.payload_for_two(&other)).bytes().to_vec()),
        (RefusalCode::Malformed, b"not a batch".to_vec()),
    ];
    for (code, bytes) in cases {
        assert_eq!(scene.client.refused(&bytes).await.code, code);
        scene.counted(code).await;
    }
    // The batches before the keys came may have been refused for their manifest; this one always is.
    let before = scene.node.status().refusals.get(&RefusalCode::Manifest).copied().unwrap_or(0);
    let unknown = log.sign(&Place { manifest: Hash32([7; 32]), ..next }, &payload);
    assert_eq!(scene.client.refused(unknown.bytes()).await.code, RefusalCode::Manifest);
    until(&scene.node, |status| status.refusals.get(&RefusalCode::Manifest) == Some(&(before + 1))).await;
    let good = scene.log.write("three");
    scene.client.receipt(&scene.board, good.bytes()).await;
    scene.node.stop().await;
}

/// Goal: wrong frames are refused and end the connection. Method: too large, unknown type, out of turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_frames_end_the_connection() {
    let scene = scene().await;
    let address = scene.node.ready().listen;
    let oversized = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    let header = |length: [u8; 4], kind: u8| [&length[..], &[kind]].concat();
    let cases = [
        (RefusalCode::Oversized, header(oversized, 3)),
        (RefusalCode::Malformed, header([0, 0, 0, 0], 77)),
        (RefusalCode::Unexpected, Frame::Receipt(vec![1]).to_bytes().unwrap()),
    ];
    for (code, bytes) in cases {
        let (client, _) = Client::greet(&scene.board, &scene.device, &scene.life, address).await;
        let (mut stream, mut answers) = client.connection.open_bi().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        match common::client::receive(&mut answers).await {
            Some(Frame::Refusal(refusal)) => assert_eq!(refusal.code, code),
            other => panic!("no refusal but {other:?}"),
        }
        client.connection.closed().await;
        scene.counted(code).await;
    }
    scene.node.stop().await;
}

/// Goal: nothing is taken before a hello. Method: a batch as first frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_before_a_hello_is_refused() {
    let mut scene = scene().await;
    let first = Frame::Batch(scene.log.write("one").bytes().to_vec());
    let address = scene.node.ready().listen;
    let mut client = Client::open(&scene.board, &scene.device, address, &first).await;
    match client.told().await {
        Some(Frame::Refusal(refusal)) => assert_eq!(refusal.code, RefusalCode::Unexpected),
        other => panic!("no refusal but {other:?}"),
    }
    client.connection.closed().await;
    scene.counted(RefusalCode::Unexpected).await;
    scene.node.stop().await;
}

/// Goal: an identity counts only with its own certificate and in its own school. Method: mix them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_borrowed_identity_is_refused() {
    let scene = scene().await;
    let address = scene.node.ready().listen;
    let thief = scene.board.device(SCHOOL);
    let mut elsewhere = hello(&scene.device, &scene.life);
    elsewhere.school = OTHER_SCHOOL.parse().unwrap();
    let mut later = hello(&scene.device, &scene.life);
    later.protocol = 99;
    let cases = [
        (&thief, hello(&scene.device, &scene.life), RefusalCode::Identity),
        (&scene.device, elsewhere, RefusalCode::Identity),
        (&scene.device, later, RefusalCode::Protocol),
    ];
    for (device, hello, code) in cases {
        let mut client = Client::open(&scene.board, device, address, &Frame::Hello(Box::new(hello))).await;
        match client.told().await {
            Some(Frame::Refusal(refusal)) => assert_eq!(refusal.code, code),
            other => panic!("no refusal but {other:?}"),
        }
        client.connection.closed().await;
    }
    let wanted =
        |code, count| move |status: &sonae_cloud::status::Status| status.refusals.get(&code) == Some(&count);
    until(&scene.node, wanted(RefusalCode::Identity, 2)).await;
    until(&scene.node, wanted(RefusalCode::Protocol, 1)).await;
    scene.node.stop().await;
}

/// Goal: a certificate of another authority never reaches a stream. Method: a device of another board.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_certificate_is_refused_and_counted() {
    let scene = scene().await;
    let stranger = Board::new().device(SCHOOL);
    let (_endpoint, connection) = dial(&scene.board, &stranger, scene.node.ready().listen).await;
    if let Ok((mut stream, mut answers)) = connection.open_bi().await {
        let life = stranger.life(Beginning::Enrolment, 1);
        let frame = Frame::Hello(Box::new(hello(&stranger, &life)));
        let _ = stream.write_all(&frame.to_bytes().unwrap()).await;
        assert_eq!(common::client::receive(&mut answers).await, None);
    }
    let error = connection.closed().await.to_string();
    assert!(error.contains("certificate"), "{error}");
    until(&scene.node, |status| status.handshakes_refused == 1).await;
    scene.node.stop().await;
}

/// Goal: a second life of a device is told and marked, and its peers hear of its batches. Method: two lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_incarnation_is_marked_and_news_spread() {
    let mut scene = scene().await;
    let address = scene.node.ready().listen;
    scene.client.receipt(&scene.board, scene.log.write("one").bytes()).await;
    let second = scene.device.life(Beginning::Rebuild, 9);
    let (mut other, welcome) = Client::greet(&scene.board, &scene.device, &second, address).await;
    assert_eq!(welcome.identities.len(), 2);
    assert!(welcome.heads.contains_key(&scene.log.log));
    assert_eq!(other.keys.as_ref().unwrap().manifest, scene.keys.manifest.text());
    let batch = scene.log.write("two");
    scene.client.receipt(&scene.board, batch.bytes()).await;
    let Some(Frame::News(news)) = other.told().await else { panic!("no news") };
    assert_eq!(news.heads.get(&scene.log.log), Some(&batch.header().head()));
    send(&mut other.control_send, &Frame::Keys(Box::new(scene.board.school_keys(OTHER_SCHOOL).documents())))
        .await;
    scene.counted(RefusalCode::WrongSchool).await;
    let data = scene._root.path().join("data");
    scene.node.stop().await;
    let status = sonae_cloud::status::read(&data).unwrap();
    let marks: Vec<_> =
        status.schools[0].incarnations.iter().map(|one| (one.incarnation, one.second)).collect();
    assert_eq!(marks, [(scene.life.name, false), (second.name, true)]);
    assert_eq!(status.schools[0].heads.get(&scene.log.log), Some(&batch.header().head()));
    let text = sonae_cloud::report::text(&status, false, 0).unwrap();
    assert!(text.contains("SECOND INCARNATION") && text.contains("refused   wrong_school 1"), "{text}");
}
