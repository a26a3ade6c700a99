//! Compaction over sites in memory: nothing is lost, whatever fails, whoever else does the same, and whoever reads
//! meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod keys;
mod readers;
mod scene;
mod snapshots;
mod store;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::{ObjectStoreExt as _, PutPayload};
use scene::{OBJECTS, RULES, Scene, names, object, other, pass, records, written};
use sonae_cloud::compaction::{Compactor, Judge, Rules, Waits};
use sonae_cloud::object_name::{ObjectName, StoredName};
use sonae_proto::object::RecordKind;

const DAY: Duration = Duration::from_hours(24);

/// Goal: many become one, byte for byte, and go. Method: two passes over two sites; compare all records, those of a later
/// version too.
#[tokio::test]
async fn many_become_one_and_nothing_is_lost() {
    let scene = Scene::new(2).await;
    let before = records(&scene.stores[0]).await;
    let mut compactor = scene.compactor(RULES);
    let made = pass(&mut compactor, DAY).await;
    assert_eq!((made.made, made.deleted, made.objects), (1, 0, OBJECTS + 1));
    assert_eq!(written(&scene.stores[0]).await, OBJECTS + 1, "inputs stay for now");
    scene.assert_all_there("merged").await;
    let gone = pass(&mut compactor, DAY).await;
    assert_eq!((gone.made, gone.deleted), (0, 2 * (OBJECTS + 1)));
    for store in &scene.stores {
        assert_eq!(names(store).await.len(), 1);
        assert_eq!(records(store).await, before);
    }
    scene.assert_all_there("deleted").await;
    let idle = pass(&mut compactor, DAY).await;
    assert_eq!((idle.made, idle.deleted, idle.superseded), (0, 0, 0));
}

/// Goal: merged objects are merged again, and stand for all that they ever stood for. Method: write on between passes;
/// an object of the beginning comes back at one site: it goes again, and is copied nowhere.
#[tokio::test]
async fn what_was_merged_is_merged_again() {
    let mut scene = Scene::new(2).await;
    let old = scene.put(&[(200, b"an old one")]).await;
    let bytes = object_of(&scene, old).await;
    let mut compactor = scene.compactor(RULES);
    for round in 0..6 * RULES.inputs_min {
        scene.write(&format!("round {round}")).await;
        pass(&mut compactor, DAY).await;
        pass(&mut compactor, DAY).await;
    }
    let merged = names(&scene.stores[0]).await.len();
    assert!(merged <= 2 * RULES.inputs_min, "{merged} objects lie there");
    scene.stores[1].put(&old.path(), PutPayload::from(bytes)).await.unwrap();
    scene.assert_all_there("an old one came back").await;
    assert!(!names(&scene.stores[0]).await.contains(&old.into()), "it was healed back");
    assert_eq!(pass(&mut compactor, DAY).await.deleted, 1);
    assert!(!names(&scene.stores[1]).await.contains(&old.into()));
}

async fn object_of(scene: &Scene, name: ObjectName) -> Vec<u8> {
    scene.stores[0].get(&name.path()).await.unwrap().bytes().await.unwrap().to_vec()
}

/// Goal: only running time counts, over restarts, and only at the same sites. Method: pass the floor but for a moment;
/// start anew in between; then with another data directory.
#[tokio::test]
async fn nothing_goes_before_its_time() {
    let scene = Scene::new(2).await;
    let rules = Rules { superseded: 7 * DAY, ..RULES };
    pass(&mut scene.compactor(rules), Duration::ZERO).await;
    assert_eq!(pass(&mut scene.compactor(rules), 100 * DAY).await.deleted, 0, "it begins to wait only now");
    assert_eq!(pass(&mut scene.compactor(rules), 6 * DAY).await.deleted, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut fresh = Compactor::new(scene.sites(), 2, rules, elsewhere.path());
    assert_eq!(pass(&mut fresh, 6 * DAY).await.deleted, 0);
    let waits = pass(&mut scene.compactor(rules), DAY - Duration::from_secs(1)).await;
    assert_eq!((waits.deleted, waits.superseded), (0, OBJECTS + 1));
    assert_eq!(pass(&mut scene.compactor(rules), Duration::from_secs(1)).await.deleted, 2 * (OBJECTS + 1));
    scene.assert_all_there("after the floor").await;
}

/// Goal: a merged object that did not come back from every site supersedes nothing; when it does, it does. Method: a site
/// that takes merged objects and loses them; then it is mended.
#[tokio::test]
async fn an_input_goes_when_every_site_gave_the_merged_one_back() {
    let scene = Scene::new(2).await;
    let mut compactor = scene.compactor(RULES);
    scene.trouble[1].loses_merged.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        let done = pass(&mut compactor, 100 * DAY).await;
        assert_eq!((done.made, done.deleted, done.left_alone), (0, 0, 1));
    }
    assert_eq!(written(&scene.stores[1]).await, OBJECTS + 1);
    scene.trouble[1].loses_merged.store(false, Ordering::SeqCst);
    assert_eq!(pass(&mut compactor, DAY).await.deleted, 0, "it has it again, but not for long");
    assert_eq!(pass(&mut compactor, DAY).await.deleted, 2 * (OBJECTS + 1));
    scene.assert_all_there("mended").await;
    // A copy that is lost after it was read back is noticed before the deletion, too.
    let scene = Scene::new(2).await;
    let mut compactor = scene.compactor(RULES);
    pass(&mut compactor, DAY).await;
    let merged = names(&scene.stores[1]).await.into_iter().find(|name| name.written().is_none()).unwrap();
    scene.stores[1].delete(&merged.path()).await.unwrap();
    assert_eq!(pass(&mut compactor, DAY).await.deleted, 0, "it was lost a moment ago");
    scene.stores[1].delete(&merged.path()).await.unwrap();
    scene.trouble[1].loses_merged.store(true, Ordering::SeqCst);
    assert_eq!(pass(&mut compactor, DAY).await.deleted, 0);
    assert_eq!(written(&scene.stores[1]).await, OBJECTS + 1);
}

/// Goal: a crash between any two steps costs nothing, and the next start finishes. Method: all sites fail from operation
/// 1, 2, 3 … on, until two passes are clean.
#[tokio::test]
async fn a_crash_at_any_step_costs_nothing() {
    let mut scene = Scene::new(2).await;
    let whole = scene.fork().0;
    for step in 1.. {
        scene.stores = whole.iter().map(|store| store.fork().into()).collect();
        scene.data = tempfile::tempdir().unwrap();
        let trouble = std::sync::Arc::new(store::Trouble::default());
        scene.trouble = vec![trouble.clone(), trouble.clone()];
        trouble.die_at(step);
        let mut compactor = scene.compactor(RULES);
        for _ in 0..2 {
            // What the sites say while they die is not what this is about.
            let _ = compactor.pass(DAY, &Judge::default()).await;
        }
        let was_hit = trouble.was_hit();
        trouble.die_at(0);
        scene.assert_all_there(&format!("cut at {step}")).await;
        let mut again = scene.compactor(RULES);
        for _ in 0..3 {
            pass(&mut again, DAY).await;
        }
        scene.assert_all_there(&format!("finished after {step}")).await;
        assert_eq!(written(&scene.stores[0]).await, 0, "cut at {step}");
        if !was_hit {
            assert!(step > 60, "the faults hit nothing: {step}");
            return;
        }
    }
}

/// Goal: while a site is away nothing is merged or deleted. Method: a node with two of three sites; a listing that fails.
#[tokio::test]
async fn nothing_happens_while_a_site_is_away() {
    let scene = Scene::new(2).await;
    let mut compactor = Compactor::new(scene.sites(), 3, RULES, scene.data.path());
    let waits = compactor.pass(DAY, &Judge::default()).await;
    assert!(matches!(waits, Err(Waits::Sites { usable: 2, named: 3 })), "{waits:?}");
    let mut compactor = scene.compactor(RULES);
    pass(&mut compactor, DAY).await;
    scene.trouble[0].die_at(1);
    let waits = compactor.pass(DAY, &Judge::default()).await;
    assert!(matches!(waits, Err(Waits::Listing { .. })), "{waits:?}");
    assert_eq!(written(&scene.stores[1]).await, OBJECTS + 1);
}

/// Goal: a site that comes back from before the merge brings nothing back, gets what it lacks, and is cleared. Method: put
/// an old copy of one site in place after the inputs have gone.
#[tokio::test]
async fn a_site_that_was_away_raises_no_dead() {
    let mut scene = Scene::new(3).await;
    let old = scene.fork().0;
    let mut compactor = scene.compactor(RULES);
    pass(&mut compactor, DAY).await;
    pass(&mut compactor, DAY).await;
    scene.stores[2] = old[2].clone();
    scene.assert_all_there("it came back").await;
    assert_eq!(written(&scene.stores[0]).await, 0, "superseded objects were healed back");
    assert_eq!(names(&scene.stores[2]).await.len(), OBJECTS + 2, "it got the merged one");
    let mut compactor = scene.compactor(RULES);
    assert_eq!(pass(&mut compactor, DAY).await.deleted, OBJECTS + 1);
    scene.assert_all_there("cleared").await;
}

/// Goal: two nodes that see the same make the same, and in each other's way nothing is lost. Method: two take turns over
/// the same sites, one of them with a listing that comes late.
#[tokio::test]
async fn two_nodes_do_no_harm() {
    let mut scene = Scene::new(2).await;
    let (stores, data) = scene.fork();
    let elsewhere = scene::open(&stores, &scene.trouble);
    let mut twin = Compactor::new(elsewhere, 2, RULES, data.path());
    pass(&mut twin, DAY).await;
    pass(&mut scene.compactor(RULES), DAY).await;
    assert_eq!(
        names(&scene.stores[0]).await,
        names(&stores[0]).await,
        "the same inputs make the same object"
    );

    let data = tempfile::tempdir().unwrap();
    let mut first = scene.compactor(RULES);
    let mut second = other(&scene, data.path());
    for round in 0..6 {
        for text in 0..5 {
            scene.write(&format!("{round} {text}")).await;
        }
        *scene.trouble[0].hides.lock().unwrap() = (round % 2 == 0).then_some("/0000000");
        *scene.trouble[1].hides.lock().unwrap() = (round % 3 == 0).then_some("merged");
        pass(&mut first, DAY).await;
        *scene.trouble[0].hides.lock().unwrap() = None;
        pass(&mut second, DAY).await;
        *scene.trouble[1].hides.lock().unwrap() = None;
        scene.assert_all_there(&format!("round {round}")).await;
    }
}

/// Goal: rot and copies that differ are neither merged nor deleted, and hold nothing up. Method: one copy damaged, one
/// object damaged everywhere, one that differs.
#[tokio::test]
async fn damage_is_left_where_it_is() {
    let mut scene = Scene::new(2).await;
    let (one, both, differs) = (
        scene.put(&[(200, b"one copy")]).await,
        scene.put(&[(200, b"both copies")]).await,
        scene.put(&[(200, b"they differ")]).await,
    );
    let mut rotten = object_of(&scene, one).await;
    rotten[10] ^= 1;
    let mut rotten_twice = object_of(&scene, both).await;
    rotten_twice[10] ^= 1;
    let altered = object(RecordKind::Batch, b"another");
    for (store, name, bytes) in
        [(0, one, &rotten), (0, both, &rotten_twice), (1, both, &rotten_twice), (1, differs, &altered)]
    {
        scene.stores[store].delete(&name.path()).await.unwrap();
        scene.stores[store].put(&name.path(), PutPayload::from(bytes.clone())).await.unwrap();
    }
    let mut compactor = scene.compactor(RULES);
    for _ in 0..3 {
        pass(&mut compactor, DAY).await;
    }
    let left = |name: ObjectName| StoredName::from(name);
    let (a, b) = (names(&scene.stores[0]).await, names(&scene.stores[1]).await);
    assert!(
        a.contains(&left(one)) && !b.contains(&left(one)),
        "the whole copy was merged, the damaged one stays"
    );
    assert!([both, differs].into_iter().all(|name| a.contains(&left(name)) && b.contains(&left(name))));
    assert_eq!(pass(&mut compactor, DAY).await.left_alone, 3);
    let residue = compactor.residue(&Judge::default()).await.unwrap();
    assert_eq!(residue, 3, "a damaged copy may hold anything");
}

/// Goal: a merged object that says that it stands for what it does not hold supersedes nothing. Method: somebody puts one
/// that names all objects and holds none of their records.
#[tokio::test]
async fn a_false_word_supersedes_nothing() {
    let scene = Scene::new(2).await;
    let inputs = names(&scene.stores[0]).await.iter().map(ToString::to_string).collect();
    let (hash, bytes) = sonae_proto::object::merge(inputs, Vec::new(), []);
    let name = StoredName::Merged(hash);
    for store in &scene.stores {
        store.put(&name.path(), PutPayload::from(bytes.clone())).await.unwrap();
    }
    let lost = names(&scene.stores[0]).await.into_iter().next().unwrap();
    scene.stores[1].delete(&lost.path()).await.unwrap();
    scene.assert_all_there("it lies there").await;
    assert!(names(&scene.stores[1]).await.contains(&lost), "what it names is healed as ever");
    let mut compactor = scene.compactor(RULES);
    for _ in 0..3 {
        pass(&mut compactor, DAY).await;
        scene.assert_all_there("it was looked at").await;
    }
}

/// Goal: of two batches for one place the later written stands, whichever was listed late, merged or both. Method: a rival
/// that was never receipted before the true one; each of the two is hidden while the other is merged, and then neither.
#[tokio::test]
async fn the_order_outlives_the_objects() {
    for hidden in [Some(0), Some(1), None] {
        let mut scene = Scene::new(2).await;
        let log = &mut scene.logs[0];
        let rival = log.sign(&log.next_place(), &log.payload("never receipted"));
        let kept = log.write("receipted");
        let mut rivals = Vec::new();
        for batch in [&rival, &kept] {
            rivals.push(scene.put(&[(1, batch.bytes())]).await.to_string());
        }
        let hides: Option<&'static str> = hidden.map(|number: usize| &*rivals[number].clone().leak());
        scene.trouble.iter().for_each(|trouble| *trouble.hides.lock().unwrap() = hides);
        let mut compactor = scene.compactor(RULES);
        pass(&mut compactor, DAY).await;
        pass(&mut compactor, DAY).await;
        scene.trouble.iter().for_each(|trouble| *trouble.hides.lock().unwrap() = None);
        let left = usize::from(hidden.is_some());
        assert_eq!(written(&scene.stores[0]).await, left, "{hidden:?}");
        let (_, fed, heads, _) = scene.start().await;
        assert_eq!(heads.get(&scene.logs[0].log), Some(&kept.header().head()), "{hidden:?}");
        assert_eq!(fed.equivocations, 1, "{hidden:?}");
    }
}

/// Goal: a merged object that is damaged, and that another merged object stands for, takes no site away from a start. Method:
/// one copy damaged between the merge and the deletion; several times, since objects are read in the order of hashes.
#[tokio::test]
async fn damage_that_is_made_good_faults_no_site() {
    for round in 0..6 {
        let mut scene = Scene::new(2).await;
        let mut compactor = scene.compactor(RULES);
        let mut merged = BTreeSet::new();
        for group in 0..4 {
            for number in 0..20 {
                scene.write(&format!("{round}-{group}-{number}")).await;
            }
            merged =
                names(&scene.stores[1]).await.into_iter().filter(|name| name.written().is_none()).collect();
            pass(&mut compactor, DAY).await;
            pass(&mut compactor, DAY).await;
        }
        assert_eq!(merged.len(), 3, "the pass that made the fourth has merged all four, and deletes next");
        let victim = merged.into_iter().next().unwrap();
        let mut rotten = scene.stores[1].get(&victim.path()).await.unwrap().bytes().await.unwrap().to_vec();
        *rotten.last_mut().unwrap() ^= 1;
        scene.stores[1].put(&victim.path(), PutPayload::from(rotten)).await.unwrap();
        pass(&mut compactor, DAY).await;
        let (a, b) = (names(&scene.stores[0]).await, names(&scene.stores[1]).await);
        assert_eq!((a.contains(&victim), b.contains(&victim)), (false, true), "only the damaged copy stays");
        let loaded = scene.start().await.3;
        let faults: Vec<_> = loaded.sites.iter().map(|site| site.fault.clone()).collect();
        assert_eq!(faults, [None, None]);
    }
}
