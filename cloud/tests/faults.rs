//! Sites that fail: no receipt without the quorum, and nothing that got a receipt is missing afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::board::{Board, Device, Life, SCHOOL, SchoolKeys};
use common::client::Client;
use common::fault_store::{FaultStore, Faults};
use common::writer::LogWriter;
use common::{options, until};
use object_store::memory::InMemory;
use sonae_cloud::identity::NodeIdentity;
use sonae_cloud::lock::DataLock;
use sonae_cloud::node::Node;
use sonae_cloud::site::Site;
use sonae_cloud::status::SiteState;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::{Fetch, Frame, RefusalCode};

/// Batches of one run.
const BATCHES: usize = 6;

struct Scene {
    root: tempfile::TempDir,
    board: Board,
    device: Device,
    life: Life,
    keys: SchoolKeys,
    stores: Vec<Arc<InMemory>>,
}

impl Scene {
    fn new(sites: usize) -> Self {
        let board = Board::new();
        let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
        Self {
            root: tempfile::tempdir().unwrap(),
            life: device.life(Beginning::Enrolment, 1),
            device,
            keys,
            board,
            stores: (0..sites).map(|_| Arc::new(InMemory::new())).collect(),
        }
    }

    /// Starts a node whose last site has `faults`.
    async fn start(&self, quorum: usize, faults: &Arc<Faults>) -> Node {
        self.start_on(&self.stores, quorum, faults).await
    }

    async fn start_on(&self, stores: &[Arc<InMemory>], quorum: usize, faults: &Arc<Faults>) -> Node {
        let last = stores.len() - 1;
        let site = |(number, inner): (usize, &Arc<InMemory>)| {
            let faults = if number == last { Arc::clone(faults) } else { Arc::default() };
            let store = Arc::new(FaultStore { inner: Arc::clone(inner), faults });
            Site::over([u8::try_from(number).unwrap() + 1; 16], format!("site {number}"), store)
        };
        let sites: Vec<Site> = stores.iter().enumerate().map(site).collect();
        let data = self.root.path().join("data");
        let paths = vec![self.root.path().to_owned(); stores.len()];
        let identity = NodeIdentity::of_bundle(&self.board.bundle()).unwrap();
        let lock = DataLock::take(&data).unwrap();
        Node::start_on(identity, &options(&data, &paths, quorum), sites, &[], lock).await.unwrap()
    }

    async fn client(&self, node: &Node) -> (Client, sonae_proto::wire::Welcome) {
        let address = node.ready().listen;
        Client::greet_with_keys(&self.board, &self.device, &self.life, &self.keys, address).await
    }
}

/// Sends the batches of a log one after another, again and again until each has its receipt. Returns how often
/// storage was refused.
async fn send_all(scene: &Scene, client: &Client, log: &LogWriter) -> usize {
    let mut refused = 0;
    for batch in &log.batches {
        loop {
            match client.ask(&Frame::Batch(batch.bytes().to_vec())).await {
                Some(Frame::Receipt(bytes)) => {
                    let cloud = scene.board.descriptor.body();
                    let receipt = sonae_proto::receipt::Receipt::verify(&bytes, cloud).unwrap();
                    assert_eq!((receipt.head, receipt.sites.len()), (batch.header().head(), 2));
                    break;
                }
                Some(Frame::Refusal(refusal)) if refusal.code == RefusalCode::Storage => refused += 1,
                // The keys are still on their way.
                Some(Frame::Refusal(refusal)) if refusal.code == RefusalCode::Manifest => {}
                other => panic!("{other:?}"),
            }
        }
    }
    refused
}

/// Goal: whichever write fails, a receipt means both sites, and a new start finds all of it, identity and keys
/// included, in either site alone. Method: fail put 1, 2, 3 … of one site until a run is clean.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_failing_write_costs_a_retry_and_no_batch() {
    let mut refusals = 0;
    for nth in 1.. {
        let scene = Scene::new(2);
        let faults = Faults::nth(nth);
        let node = scene.start(2, &faults).await;
        let (client, _) = scene.client(&node).await;
        let mut log = LogWriter::new(&scene.device, &scene.life, &scene.keys, Tier::Daily);
        (0..BATCHES).for_each(|n| {
            log.write(&n.to_string());
        });
        refusals += send_all(&scene, &client, &log).await;
        node.stop().await;
        for alone in 0..2 {
            let node = scene.start_on(&scene.stores[alone..=alone], 1, &Arc::default()).await;
            let address = node.ready().listen;
            let (client, welcome) = Client::greet(&scene.board, &scene.device, &scene.life, address).await;
            assert_eq!(welcome.heads.get(&log.log), Some(&log.head()), "put {nth}, site {alone}");
            assert_eq!(welcome.manifest_version, 1, "put {nth}, site {alone}");
            let (batches, _) = client.fetch(Fetch { log: log.log, after: 0 }).await;
            assert_eq!(batches.len(), BATCHES, "put {nth}, site {alone}");
            node.stop().await;
        }
        if !faults.was_hit() {
            assert!(nth > 3 && refusals > 0, "the faults hit nothing: {nth}, {refusals}");
            return;
        }
    }
}

/// Goal: with the quorum at two of three, a dead site costs nothing but its place in the receipt; a quorum of
/// three is refused, counted and shown. Method: a third site that fails every write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_site_matters_only_to_the_quorum() {
    let scene = Scene::new(3);
    let dead = Faults::nth(1);
    dead.count.store(u64::MAX / 2, Ordering::SeqCst);
    let node = scene.start(2, &dead).await;
    let (client, _) = scene.client(&node).await;
    let mut log = LogWriter::new(&scene.device, &scene.life, &scene.keys, Tier::Daily);
    log.write("one");
    assert_eq!(send_all(&scene, &client, &log).await, 0);
    let failing = |status: &sonae_cloud::status::Status| status.sites[2].state == SiteState::Failing;
    until(&node, failing).await;
    node.stop().await;

    let node = scene.start(3, &dead).await;
    let (client, welcome) = scene.client(&node).await;
    assert!(welcome.complete);
    assert_eq!(welcome.heads.get(&log.log), Some(&log.head()));
    let refusal = client.refused(log.batches[0].bytes()).await;
    assert_eq!(refusal.code, RefusalCode::Storage);
    until(&node, |status| status.refusals.get(&RefusalCode::Storage) >= Some(&1)).await;
    node.stop().await;

    // It comes back: healed at the start, and the same batch gets its receipt.
    let node = scene.start(3, &Arc::default()).await;
    let (client, _) = scene.client(&node).await;
    assert!(node.status().sites[2].healed > 0);
    let receipt = client.receipt(&scene.board, log.batches[0].bytes()).await;
    assert_eq!(receipt.sites.len(), 3);
    node.stop().await;
}

/// Goal: a site that is away for long does not fill the others with copies of what is sent again and again, and is
/// noticed when it is back. Method: two sites of which one fails, a client that asks without a pause; the site returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_is_away_is_tried_now_and_then() {
    let scene = Scene::new(2);
    let away = Faults::nth(u64::MAX / 2);
    let node = scene.start(2, &away).await;
    let (client, _) = scene.client(&node).await;
    let mut log = LogWriter::new(&scene.device, &scene.life, &scene.keys, Tier::Daily);
    log.write("one");
    send_all(&scene, &client, &log).await;
    log.write("two");
    let before = away.puts.load(Ordering::SeqCst);
    away.count.store(u64::MAX / 4, Ordering::SeqCst);
    away.from.store(1, Ordering::SeqCst);
    for _ in 0..500 {
        let refusal = client.refused(log.batches[1].bytes()).await;
        assert_eq!(refusal.code, RefusalCode::Storage);
    }
    let tried = away.puts.load(Ordering::SeqCst) - before;
    assert!((1..50).contains(&tried), "{tried} objects for 500 questions");
    away.from.store(0, Ordering::SeqCst);
    assert!(send_all(&scene, &client, &log).await > 0);
    assert!(client.receipt(&scene.board, log.batches[1].bytes()).await.sites.len() == 2);
    node.stop().await;
}

/// Goal: a batch that reached one site only and was never receipted does not shadow the one that took its
/// place. Method: fail its write at one site, store another for its place, start again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receipted_branch_of_a_fork_survives_a_restart() {
    let scene = Scene::new(2);
    let faults = Arc::<Faults>::default();
    let node = scene.start(2, &faults).await;
    let (client, _) = scene.client(&node).await;
    let mut log = LogWriter::new(&scene.device, &scene.life, &scene.keys, Tier::Daily);
    log.write("one");
    send_all(&scene, &client, &log).await;
    let lost_branch = log.sign(&log.next_place(), &log.payload("never receipted"));
    faults.from.store(faults.puts.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    faults.count.store(1, Ordering::SeqCst);
    assert_eq!(client.refused(lost_branch.bytes()).await.code, RefusalCode::Storage);
    let kept_branch = log.write("receipted");
    client.receipt(&scene.board, kept_branch.bytes()).await;
    node.stop().await;

    let node = scene.start(2, &Arc::default()).await;
    let (client, welcome) = scene.client(&node).await;
    assert_eq!(welcome.heads.get(&log.log), Some(&kept_branch.header().head()));
    assert_eq!(node.status().equivocations, 1);
    assert_eq!(client.refused(lost_branch.bytes()).await.code, RefusalCode::Fork);
    client.receipt(&scene.board, kept_branch.bytes()).await;
    assert_ne!(log.head(), LogHead::EMPTY);
    node.stop().await;
}
