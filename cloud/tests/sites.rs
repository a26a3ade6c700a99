//! Sites as directories: their rules, healing, damage, and starting again over them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::board::{Board, Device, Life, SCHOOL, SchoolKeys};
use common::client::Client;
use common::writer::LogWriter;
use common::{start, two_sites};
use sonae_cloud::node::Node;
use sonae_cloud::site::{self, Site, SiteError};
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::wire::{Fetch, Welcome};

/// Goal: a site keeps its id; one directory, a link to it or a copy of it is not a second site. Method: open all.
#[test]
fn one_directory_never_claims_two() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, link) = (root.path().join("a"), root.path().join("b"), root.path().join("link"));
    let id = Site::open(&a).unwrap().id();
    assert_eq!(Site::open(&a).unwrap().id(), id);
    std::os::unix::fs::symlink(&a, &link).unwrap();
    let same = |paths: &[PathBuf]| matches!(site::open_all(paths, 1), Err(SiteError::Same { .. }));
    assert!(same(&[a.clone(), a.clone()]));
    assert!(same(&[a.clone(), link]));
    assert!(same(&[a.clone(), root.path().join("new/../a")]));
    fs::create_dir_all(b.join("objects")).unwrap();
    fs::copy(a.join("site.json"), b.join("site.json")).unwrap();
    assert!(same(&[a.clone(), b.clone()]));
    let held = Site::open(&a).unwrap();
    assert!(matches!(Site::open(&a), Err(SiteError::InUse { .. })));
    drop(held);
    let c = root.path().join("c");
    assert_eq!(site::open_all(&[a, c], 2).unwrap().0.len(), 2);
}

/// Goal: what a killed process was writing is gone when the site opens, since it may hold keys that were destroyed since;
/// everything that has a name stays. Method: leavings as the store names them, beside objects.
#[test]
fn unfinished_writes_are_removed() {
    let root = tempfile::tempdir().unwrap();
    drop(Site::open(root.path()).unwrap());
    let boot = root.path().join("objects/01KBW3H9M0000000000000000A");
    fs::create_dir_all(&boot).unwrap();
    let names = ["00000001", "00000002#1", "00000003#27", "00000004#", "00000005#x1"];
    for name in names {
        fs::write(boot.join(name), "x").unwrap();
    }
    drop(Site::open(root.path()).unwrap());
    let left: Vec<&str> = names.into_iter().filter(|name| boot.join(name).exists()).collect();
    assert_eq!(left, ["00000001", "00000004#", "00000005#x1"]);
}

/// Goal: sites that cannot work are told from those that can. Method: a file in place of one, a broken id.
#[test]
fn sites_that_cannot_be_used_are_counted_against_the_quorum() {
    let root = tempfile::tempdir().unwrap();
    let (good, file, broken) = (root.path().join("a"), root.path().join("f"), root.path().join("b"));
    fs::write(&file, "x").unwrap();
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("site.json"), "{}").unwrap();
    assert!(matches!(Site::open(&broken), Err(SiteError::Damaged { .. })));
    let paths = [good, file, broken];
    let (open, faults) = site::open_all(&paths, 1).unwrap();
    assert_eq!((open.len(), faults.len()), (1, 2));
    drop(open);
    assert!(matches!(site::open_all(&paths, 2), Err(SiteError::Quorum { usable: 1, .. })));
    assert!(matches!(site::open_all(&paths, 4), Err(SiteError::Count { .. })));
    assert!(matches!(site::open_all(&paths, 0), Err(SiteError::Count { .. })));
    assert!(matches!(site::open_all(&[], 1), Err(SiteError::Count { .. })));
}

struct Scene {
    root: tempfile::TempDir,
    board: Board,
    device: Device,
    life: Life,
    keys: SchoolKeys,
    log: LogWriter,
}

impl Scene {
    /// A log of 5 batches that both sites hold.
    async fn new() -> Self {
        let board = Board::new();
        let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
        let life = device.life(Beginning::Enrolment, 1);
        let log = LogWriter::new(&device, &life, &keys, Tier::Safety);
        let mut scene = Self { root: tempfile::tempdir().unwrap(), board, device, life, keys, log };
        let (node, client, _) = scene.start().await;
        for n in 0..5 {
            let batch = scene.log.write(&n.to_string());
            client.receipt(&scene.board, batch.bytes()).await;
        }
        node.stop().await;
        scene
    }

    async fn start(&self) -> (Node, Client, Welcome) {
        let node = start(&self.board, self.root.path()).await;
        let address = node.ready().listen;
        let (client, welcome) =
            Client::greet_with_keys(&self.board, &self.device, &self.life, &self.keys, address).await;
        (node, client, welcome)
    }

    /// Files of the objects of site 0 or 1, oldest first.
    fn objects(&self, site: usize) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for boot in fs::read_dir(two_sites(self.root.path())[site].join("objects")).unwrap() {
            found.extend(fs::read_dir(boot.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.sort();
        found
    }

    async fn assert_all_there(&self, client: &Client, welcome: &Welcome) {
        assert!(welcome.complete);
        assert_eq!(welcome.heads.get(&self.log.log), Some(&self.log.head()));
        let (batches, end) = client.fetch(Fetch { log: self.log.log, after: 0 }).await;
        assert_eq!(batches, self.log.batches.iter().map(|batch| batch.bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(end, self.log.head().sequence);
    }
}

fn contents(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn flip(path: &Path, position: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Goal: a start over the same sites knows the same heads and never uses a name again. Method: start twice more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_start_finds_the_same_heads() {
    let mut scene = Scene::new().await;
    let before = scene.objects(0);
    assert_eq!(contents(&before), contents(&scene.objects(1)));
    let (node, client, welcome) = scene.start().await;
    assert_eq!(welcome.manifest_version, 1);
    scene.assert_all_there(&client, &welcome).await;
    let batch = scene.log.write("after");
    client.receipt(&scene.board, batch.bytes()).await;
    node.stop().await;
    assert_eq!(scene.objects(0).len(), before.len() + 1, "nothing but the new batch is written");
    let (node, client, welcome) = scene.start().await;
    scene.assert_all_there(&client, &welcome).await;
    node.stop().await;
}

/// Goal: an emptied site is filled again. Method: remove everything of one site, start, compare bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_site_is_healed() {
    let scene = Scene::new().await;
    let objects = contents(&scene.objects(0));
    fs::remove_dir_all(&two_sites(scene.root.path())[1]).unwrap();
    let (node, client, welcome) = scene.start().await;
    assert_eq!(node.status().sites[1].healed, u64::try_from(objects.len()).unwrap());
    scene.assert_all_there(&client, &welcome).await;
    let receipt = client.receipt(&scene.board, scene.log.batches[0].bytes()).await;
    assert_eq!(receipt.sites.len(), 2);
    node.stop().await;
    assert_eq!(contents(&scene.objects(1)), objects);
}

/// Goal: a damaged object is reported, left as it is, made good under a new name, and served from the other
/// site meanwhile. Method: flip a byte in every object of one site in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_at_one_site_costs_nothing() {
    let scene = Scene::new().await;
    let objects = scene.objects(0);
    for (number, path) in objects.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        flip(path, whole.len() / 2);
        let damaged = fs::read(path).unwrap();
        let (node, client, welcome) = scene.start().await;
        assert_eq!(node.status().sites[0].damaged, 1, "object {number}");
        scene.assert_all_there(&client, &welcome).await;
        for batch in &scene.log.batches {
            // Until the repair is done the log gets no receipts.
            loop {
                match client.ask(&sonae_proto::wire::Frame::Batch(batch.bytes().to_vec())).await {
                    Some(sonae_proto::wire::Frame::Receipt(_)) => break,
                    Some(sonae_proto::wire::Frame::Refusal(refusal)) => {
                        assert_eq!(refusal.code, sonae_proto::wire::RefusalCode::Storage);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        node.stop().await;
        assert_eq!(fs::read(path).unwrap(), damaged, "a damaged object is evidence and stays");
        fs::write(path, whole).unwrap();
    }
}

/// Goal: damage that comes while the node runs is found when it serves, and the other site serves. Method: flip
/// a byte of every object of the first site after the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_under_a_running_node_is_served_around() {
    let scene = Scene::new().await;
    let (node, client, welcome) = scene.start().await;
    for path in scene.objects(0) {
        let middle = fs::read(&path).unwrap().len() / 2;
        flip(&path, middle);
    }
    scene.assert_all_there(&client, &welcome).await;
    assert!(node.status().sites[0].faults > 0);
    assert_eq!(node.status().sites[1].faults, 0);
    node.stop().await;
}

/// Goal: what is lost everywhere is said, and the log is offered up to the hole. Method: remove one object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_said() {
    let scene = Scene::new().await;
    let middle = scene.objects(0).len() - 2;
    for site in 0..2 {
        fs::remove_file(&scene.objects(site)[middle]).unwrap();
    }
    let (node, client, welcome) = scene.start().await;
    assert_eq!(node.status().cut_off, 1);
    let head = welcome.heads.get(&scene.log.log).copied();
    assert_eq!(head, Some(scene.log.batches[2].header().head()));
    // The replica sends again what it still has.
    for batch in &scene.log.batches[3..] {
        client.receipt(&scene.board, batch.bytes()).await;
    }
    let (batches, _) = client.fetch(Fetch { log: scene.log.log, after: 0 }).await;
    assert_eq!(batches.len(), 5);
    node.stop().await;
}
