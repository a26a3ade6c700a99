//! Evidence of restore proofs at a node: taken from its own device only, kept durably, shown to the board.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::board::{Board, Device, Life, SCHOOL};
use common::client::Client;
use common::fault_store::{FaultStore, Faults};
use common::writer::LogWriter;
use common::{options, start};
use object_store::memory::InMemory;
use sonae_cloud::identity::NodeIdentity;
use sonae_cloud::lock::DataLock;
use sonae_cloud::node::Node;
use sonae_cloud::site::Site;
use sonae_cloud::status::ProofStatus;
use sonae_proto::digest::Digest;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::proof::{Proof, ProofResult};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{Frame, ProofText, RefusalCode};

/// 2026-11-27 03:10 in Japan.
const NIGHT_MS: u64 = 1_795_716_600_000;

fn evidence(device: &Device, life: &Life, number: u64, result: ProofResult) -> ProofText {
    let cause = if result == ProofResult::Proved { "" } else { "missing" };
    let proof = Proof {
        school: device.school,
        incarnation: life.name,
        number,
        result,
        cause: cause.into(),
        tiers: Vec::new(),
        heads: Heads::new(),
        digests: Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect::<BTreeMap<_, _>>(),
        merge_version: 1,
        began_ms: NIGHT_MS,
        duration_ms: number,
        bytes: 1,
        software: "test".into(),
        snapshots: BTreeMap::new(),
    };
    ProofText { document: proof.sign(&life.key).unwrap().text().to_owned() }
}

async fn refused(client: &Client, proof: ProofText) -> RefusalCode {
    match client.ask(&Frame::Proof(proof)).await {
        Some(Frame::Refusal(refusal)) => refusal.code,
        other => panic!("no refusal but {other:?}"),
    }
}

fn shown(root: &std::path::Path) -> Vec<ProofStatus> {
    sonae_cloud::status::read(&root.join("data")).unwrap().schools.remove(0).proofs
}

/// Goal: evidence outlives the node, the last and the last success are shown, and the words never call a failure or an
/// old success proved. Method: success, failure, stop, start, stop; the report at several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_is_kept_and_shown() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let device = board.device(SCHOOL);
    let life = device.life(Beginning::Enrolment, 5);
    let node = start(&board, root.path()).await;
    let (client, welcome) = Client::greet(&board, &device, &life, node.ready().listen).await;
    assert!(welcome.proofs);
    for (number, result) in [(1, ProofResult::Proved), (2, ProofResult::Incomplete)] {
        let proof = evidence(&device, &life, number, result);
        for _ in 0..2 {
            assert_eq!(client.ask(&Frame::Proof(proof.clone())).await, Some(Frame::Proof(proof.clone())));
        }
    }
    node.stop().await;
    for _ in 0..2 {
        let [proof] = shown(root.path()).try_into().unwrap();
        assert_eq!((proof.incarnation, proof.number, proof.result), (life.name, 2, ProofResult::Incomplete));
        assert_eq!((proof.ended_ms, proof.proved_ms), (NIGHT_MS + 2, Some(NIGHT_MS + 1)));
        start(&board, root.path()).await.stop().await;
    }
    let node = start(&board, root.path()).await;
    let says = |now_ms: u64| {
        let status = sonae_cloud::status::read(&root.path().join("data")).unwrap();
        sonae_cloud::report::text(&status, false, now_ms).unwrap()
    };
    assert!(says(NIGHT_MS).contains("NOT PROVED"), "{}", says(NIGHT_MS));
    let (client, _) = Client::greet(&board, &device, &life, node.ready().listen).await;
    let proof = evidence(&device, &life, 3, ProofResult::Proved);
    assert_eq!(client.ask(&Frame::Proof(proof.clone())).await, Some(Frame::Proof(proof)));
    node.stop().await;
    let (young, old) = (says(NIGHT_MS + 3_600_000), says(NIGHT_MS + 49 * 3_600_000));
    assert!(young.contains("restore  proved by") && young.contains("last success 0 h ago"), "{young}");
    assert!(old.contains("NOT PROVED") && says(0).contains("NOT PROVED"), "{old}");
}

/// Goal: nobody speaks for another device, another incarnation or with a changed word, and a school of which nothing
/// came is called unproved. Method: one of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_evidence_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let (device, other) = (board.device(SCHOOL), board.device(SCHOOL));
    let (life, stranger) = (device.life(Beginning::Enrolment, 5), device.life(Beginning::Rebuild, 6));
    let others = other.life(Beginning::Enrolment, 7);
    let node = start(&board, root.path()).await;
    let (client, _) = Client::greet(&board, &device, &life, node.ready().listen).await;
    let (_other_client, _) = Client::greet(&board, &other, &others, node.ready().listen).await;
    let unknown = evidence(&device, &stranger, 1, ProofResult::Proved);
    assert_eq!(refused(&client, unknown).await, RefusalCode::Signature);
    let foreign = evidence(&other, &others, 1, ProofResult::Proved);
    assert_eq!(refused(&client, foreign).await, RefusalCode::Identity);
    let mut changed = evidence(&device, &life, 1, ProofResult::Proved);
    changed.document = changed.document.replacen("\"number\":1", "\"number\":2", 1);
    assert_eq!(refused(&client, changed).await, RefusalCode::Signature);
    node.stop().await;
    assert!(shown(root.path()).is_empty());
    let status = sonae_cloud::status::read(&root.path().join("data")).unwrap();
    let text = sonae_cloud::report::text(&status, false, NIGHT_MS).unwrap();
    assert!(text.contains("NEVER PROVED"), "{text}");
}

/// Goal: evidence below the quorum is not called kept, and holds up no receipt. Method: a site that fails its first
/// writes after the identity's; evidence, then a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_below_the_quorum_is_not_kept() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new();
    let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
    let life = device.life(Beginning::Enrolment, 5);
    let faults = Arc::new(Faults::default());
    let site = |number: u8, faults: &Arc<Faults>| {
        let store = Arc::new(FaultStore { inner: Arc::new(InMemory::new()), faults: Arc::clone(faults) });
        Site::over([number; 16], format!("site {number}"), store)
    };
    let (data, paths) = (root.path().join("data"), vec![root.path().to_owned(); 2]);
    let identity = NodeIdentity::of_bundle(&board.bundle()).unwrap();
    let sites = vec![site(1, &Arc::default()), site(2, &faults)];
    let lock = DataLock::take(&data).unwrap();
    let node = Node::start_on(identity, &options(&data, &paths, 2), sites, &[], lock).await.unwrap();
    let (client, _) = Client::greet_with_keys(&board, &device, &life, &keys, node.ready().listen).await;
    let mut log = LogWriter::new(&device, &life, &keys, Tier::Daily);
    client.receipt(&board, log.write("one").bytes()).await;
    let puts = faults.puts.load(std::sync::atomic::Ordering::SeqCst);
    faults.count.store(1, std::sync::atomic::Ordering::SeqCst);
    faults.from.store(puts + 1, std::sync::atomic::Ordering::SeqCst);
    let proof = evidence(&device, &life, 1, ProofResult::Proved);
    assert_eq!(refused(&client, proof.clone()).await, RefusalCode::Storage);
    client.receipt(&board, log.write("two").bytes()).await;
    assert_eq!(client.ask(&Frame::Proof(proof.clone())).await, Some(Frame::Proof(proof)));
    node.stop().await;
}
