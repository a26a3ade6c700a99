//! Keys that a board has destroyed leave every object.

use futures_util::FutureExt as _;
use sonae_cloud::compaction::{Compactor, Judge, Rules};
use sonae_cloud::object_name::ObjectName;
use sonae_proto::object::RecordKind;

use super::DAY;
use super::scene::{RULES, Scene, object, pass, records};

/// Goal: key documents are replaced at once, everywhere, and an old object at a site that was away brings them back
/// nowhere. Method: an order that takes one out of them, before and after a merge; then an old copy of a site.
#[tokio::test]
async fn key_documents_are_replaced_at_once() {
    let mut scene = Scene::new(2).await;
    let mut documents = scene.keys.documents();
    documents.wrapped_keys[0].file = b"a wrapped key".to_vec();
    let full = serde_json::to_vec(&documents).unwrap();
    scene.put(&[(RecordKind::Keys.number(), &full)]).await;
    let old = scene.fork().0;
    let emptied = serde_json::to_vec(&scene.keys.documents()).unwrap();
    let (from, to) = (full.clone(), emptied.clone());
    let keys: sonae_cloud::compaction::Rewrite =
        std::sync::Arc::new(move |body: &[u8]| (body == from).then(|| to.clone()));
    let order = Judge { keeping: None, keys: Some(keys) };
    for is_merged in [false, true] {
        scene.stores = old.iter().map(|store| store.fork().into()).collect();
        scene.data = tempfile::tempdir().unwrap();
        let mut compactor = scene.compactor(Rules { superseded: 7 * DAY, ..RULES });
        if is_merged {
            pass(&mut compactor, DAY).await;
        }
        let left = compactor.residue(&order).await.unwrap();
        assert!(left >= scene.stores.len(), "every copy that has them counts: {left}");
        let done = compactor.rewrite(&order).await.unwrap();
        assert_eq!(compactor.residue(&order).await.unwrap(), 0);
        assert!(done.made >= 1 && done.deleted >= 2, "{done:?}");
        for store in &scene.stores {
            let there = records(store).await;
            assert!(!there.contains(&(RecordKind::Keys.number(), full.clone())), "merged: {is_merged}");
            assert!(there.contains(&(RecordKind::Keys.number(), emptied.clone())));
        }
        scene.assert_all_there("the keys are gone").await;
        let again = compactor.rewrite(&order).await.unwrap();
        assert_eq!((again.made, again.deleted), (0, 0), "merged: {is_merged}");
        scene.stores[1] = std::sync::Arc::new(old[1].fork());
        scene.start().await;
        let there = records(&scene.stores[0]).await;
        assert!(!there.contains(&(RecordKind::Keys.number(), full.clone())), "it was healed back");
        let mut compactor = scene.compactor(RULES);
        assert!(compactor.residue(&order).await.unwrap() > 0, "it is there again");
        compactor.rewrite(&order).await.unwrap();
        assert_eq!(compactor.residue(&order).await.unwrap(), 0);
        assert!(!records(&scene.stores[1]).await.contains(&(RecordKind::Keys.number(), full.clone())));
    }
}

/// Goal: nobody signs that keys are gone while a write that was given up may still bring them. Method: a write hangs, and
/// ends while the sites are searched.
#[tokio::test]
async fn a_late_write_is_waited_for() {
    let scene = Scene::new(1).await;
    let late = b"keys that come late".to_vec();
    let object = object(RecordKind::Keys, &late);
    let keys: sonae_cloud::compaction::Rewrite =
        std::sync::Arc::new(move |body: &[u8]| (body == late).then(|| b"fewer".to_vec()));
    let order = Judge { keeping: None, keys: Some(keys) };
    let (sites, data) = (scene.sites(), tempfile::tempdir().unwrap());
    let compactor = Compactor::new(sites.clone(), 1, RULES, data.path());
    assert_eq!(compactor.residue(&order).await.unwrap(), 0);
    let hangs = scene.trouble[0].writes.write().await;
    let name = ObjectName { boot: ulid::Ulid::from_parts(1_764_000_000_000, 8), counter: 0 };
    assert!(sites[0].put(name, object.into()).now_or_never().is_none(), "nobody waits for it any more");
    let (left, ()) = tokio::join!(compactor.residue(&order), async { drop(hangs) });
    assert_eq!(left.unwrap(), 1);
}
