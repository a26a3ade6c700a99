//! Whoever reads while objects are merged and deleted under him: a running node, a node that starts, an auditor.

use std::time::Duration;

use object_store::{ObjectStoreExt as _, PutPayload};
use sonae_cloud::compaction::Rules;
use sonae_cloud::export::audit::{Question, of_sites};
use sonae_cloud::identity::NodeIdentity;
use sonae_cloud::lock::DataLock;
use sonae_cloud::node::Node;
use sonae_cloud::object_name::StoredName;
use sonae_cloud::site::Site;
use sonae_proto::export::Problem;
use sonae_proto::vector::Heads;
use sonae_proto::wire::Fetch;

use super::common::client::Client;
use super::common::{options, until};
use super::scene::{OBJECTS, RULES, Scene, names, open, other, pass, written};

const DAY: Duration = Duration::from_hours(24);

async fn node(scene: &Scene, rules: Rules) -> Node {
    let identity = NodeIdentity::of_bundle(&scene.board.bundle()).unwrap();
    let paths = vec![scene.data.path().to_owned(); scene.stores.len()];
    let mut options = options(&scene.data.path().join("data"), &paths, scene.stores.len());
    options.compaction = rules;
    let lock = DataLock::take(&options.data).unwrap();
    let sites: Vec<Site> = std::sync::Arc::into_inner(open(&scene.stores, &scene.trouble)).unwrap();
    Node::start_on(identity, &options, sites, &[], lock).await.unwrap()
}

async fn assert_serves(scene: &Scene, client: &Client) {
    for log in &scene.logs {
        let (batches, end) = client.fetch(Fetch { log: log.log, after: 0 }).await;
        assert_eq!(end, log.head().sequence);
        let expected: Vec<_> = log.batches.iter().map(|batch| batch.bytes().to_vec()).collect();
        assert_eq!(batches, expected);
    }
}

/// Puts merged objects that say that they stand for what they do not hold.
async fn say_falsely(scene: &Scene) {
    let all: Vec<String> = names(&scene.stores[0]).await.iter().map(ToString::to_string).collect();
    for left_out in all.iter().take(7) {
        let said = all.iter().filter(|name| *name != left_out).cloned().collect();
        let (hash, bytes) = sonae_proto::object::merge(said, Vec::new(), []);
        for store in &scene.stores {
            let path = StoredName::Merged(hash).path();
            store.put(&path, PutPayload::from(bytes.clone())).await.unwrap();
        }
    }
}

/// Goal: a node serves what another node has merged and deleted under it, whatever others say that they hold. Method: start one, merge and delete with
/// another, twice, fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_finds_what_another_has_merged() {
    let mut scene = Scene::new(2).await;
    let node = node(&scene, Rules::default()).await;
    let (client, welcome) =
        Client::greet(&scene.board, &scene.device, &scene.life, node.ready().listen).await;
    assert!(welcome.complete);
    say_falsely(&scene).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut compactor = other(&scene, elsewhere.path());
    pass(&mut compactor, DAY).await;
    pass(&mut compactor, DAY).await;
    assert_eq!(written(&scene.stores[0]).await, 0);
    assert_serves(&scene, &client).await;
    assert_serves(&scene, &client).await;
    // What it was told of goes as well: merged once more.
    let batches = scene.logs.iter().map(|log| log.batches.len()).collect::<Vec<_>>();
    for text in 0..20 {
        scene.write(&format!("more {text}")).await;
        pass(&mut compactor, DAY).await;
        pass(&mut compactor, DAY).await;
    }
    scene.logs.iter_mut().zip(batches).for_each(|(log, batches)| log.batches.truncate(batches));
    assert_serves(&scene, &client).await;
    assert!(node.status().last_error.is_none(), "{:?}", node.status().last_error);
    node.stop().await;
}

/// Goal: a node merges and deletes by itself, says so, and serves the same before and after a restart. Method: short times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_it_by_itself() {
    let scene = Scene::new(2).await;
    let rules = Rules { interval: Duration::from_millis(20), ..RULES };
    let running = node(&scene, rules).await;
    let (client, _) = Client::greet(&scene.board, &scene.device, &scene.life, running.ready().listen).await;
    until(&running, |status| status.compaction.deleted == 2 * (OBJECTS as u64 + 1)).await;
    let said = running.status().compaction;
    assert_eq!((said.made, said.waits_for.clone()), (1, None), "{said:?}");
    assert_serves(&scene, &client).await;
    assert!(running.status().last_error.is_none());
    running.stop().await;
    assert_eq!(names(&scene.stores[0]).await.len(), 1);
    let again = node(&scene, Rules::default()).await;
    let (client, welcome) =
        Client::greet(&scene.board, &scene.device, &scene.life, again.ready().listen).await;
    let expected: Heads = scene.logs.iter().map(|log| (log.log, log.head())).collect();
    assert_eq!((welcome.heads, welcome.complete), (expected, true));
    assert_serves(&scene, &client).await;
    again.stop().await;
}

/// A scene whose objects are merged and not yet deleted. The merged one is not listed until they vanish.
async fn about_to_vanish(scene: &mut Scene, step: u64) {
    let all = names(&scene.stores[0]).await;
    let inputs: Vec<_> = all.iter().filter(|name| name.written().is_some()).map(|name| name.path()).collect();
    for trouble in &scene.trouble {
        *trouble.hides.lock().unwrap() = Some("merged");
        trouble.vanish(step, inputs.clone());
    }
}

/// Goal: objects that go away while a node starts, or an auditor reads, are found where they are now. Method: everything
/// goes at operation 1, 2, 3 … of each site, and what stands for it is listed only from then on.
#[tokio::test]
async fn a_reader_lists_again_and_resumes() {
    let mut scene = Scene::new(2).await;
    pass(&mut scene.compactor(RULES), DAY).await;
    let (whole, _) = scene.fork();
    let expect: Heads = scene.logs.iter().map(|log| (log.log, log.head())).collect();
    for step in 1.. {
        scene.stores = whole.iter().map(|store| store.fork().into()).collect();
        about_to_vanish(&mut scene, step).await;
        let (_, fed, heads, loaded) = scene.start().await;
        assert_eq!(heads, expect, "a start, at {step}");
        assert_eq!(fed.undurable.len(), 0, "a start, at {step}");
        assert!(loaded.sites.iter().all(|site| site.fault.is_none()), "a start, at {step}");
        let start_vanished = scene.trouble.iter().all(|trouble| trouble.has_vanished());
        assert!(!start_vanished || written(&scene.stores[0]).await == 0, "it was healed back, at {step}");

        scene.stores = whole.iter().map(|store| store.fork().into()).collect();
        about_to_vanish(&mut scene, step).await;
        let root = scene.board.root.verifying_key();
        let question = Question { school: scene.device.school, root, expect: expect.clone() };
        let sites = std::sync::Arc::into_inner(scene.sites()).unwrap();
        let verdict = of_sites(&question, sites, Vec::new(), &mut |_| {}).await.unwrap();
        let counted: Vec<_> = verdict.summary.problems.iter().filter(|problem| problem.counts()).collect();
        // Of each object there is one record that this version does not know, and the scene has no wrapped keys.
        let is_of_scene =
            |problem: &Problem| matches!(problem, Problem::UnknownRecord { .. } | Problem::KeyMissing { .. });
        assert!(counted.iter().all(|problem| is_of_scene(problem)), "an audit, at {step}: {counted:?}");
        assert_eq!(verdict.summary.batches, 2 * OBJECTS as u64, "an audit, at {step}");
        if !start_vanished && !scene.trouble.iter().any(|trouble| trouble.has_vanished()) {
            assert!(step > 20, "nothing vanished in time: {step}");
            return;
        }
    }
}

/// Goal: an object that goes away and for which nothing stands is told. Method: the same without the merged one.
#[tokio::test]
async fn what_is_really_gone_is_said() {
    let mut scene = Scene::new(2).await;
    let gone: Vec<_> = names(&scene.stores[0]).await.iter().skip(3).take(1).map(|name| name.path()).collect();
    for trouble in &scene.trouble {
        trouble.vanish(2, gone.clone());
    }
    let (.., loaded) = scene.start().await;
    assert!(loaded.sites.iter().all(|site| site.fault.is_some()));
    scene = Scene::new(1).await;
    let gone: Vec<_> = names(&scene.stores[0]).await.iter().skip(3).take(1).map(|name| name.path()).collect();
    scene.trouble[0].vanish(2, gone);
    let question = Question {
        school: scene.device.school,
        root: scene.board.root.verifying_key(),
        expect: Heads::new(),
    };
    let sites = std::sync::Arc::into_inner(scene.sites()).unwrap();
    let verdict = of_sites(&question, sites, Vec::new(), &mut |_| {}).await.unwrap();
    let said = |problem: &Problem| matches!(problem, Problem::Unreadable { object: Some(_), .. });
    assert!(verdict.summary.problems.iter().any(said), "{:?}", verdict.summary.problems);
}
