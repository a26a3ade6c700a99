//! What becomes of old snapshots when objects are merged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonae_cloud::compaction::Judge;
use sonae_proto::digest::Digest;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::object::RecordKind;
use sonae_proto::proof::{Proof, ProofResult};
use sonae_proto::snapshot::{PartName, Snapshot, SnapshotRoot};
use sonae_proto::vector::Heads;

use super::common::board::EPOCH;
use super::scene::{RULES, Scene, records};

const DAY: Duration = Duration::from_hours(24);

fn part(text: &str) -> Vec<u8> {
    format!("a sealed part: {text}").into_bytes()
}

/// A snapshot of tier 0 at the `n`-th batch, of these parts.
fn snapshot(scene: &Scene, n: usize, parts: &[&str]) -> Snapshot {
    let log = &scene.logs[0];
    let root = SnapshotRoot {
        school: scene.device.school,
        tier: Tier::Safety,
        author: scene.life.name,
        epoch: EPOCH,
        manifest: scene.keys.manifest.hash(),
        merge_version: 1,
        heads: Heads::from([(log.log, log.batches[n].header().head())]),
        digest: Digest::default(),
        records: 1,
        parts: parts.iter().map(|text| PartName::of(&part(text))).collect(),
    };
    Snapshot::sign(root, &scene.life.key).unwrap()
}

async fn put(scene: &mut Scene, made: &Snapshot, parts: &[&str]) {
    for text in parts {
        scene.put(&[(RecordKind::SnapshotPart.number(), &part(text))]).await;
    }
    scene.put(&[(RecordKind::Snapshot.number(), made.text().as_bytes())]).await;
}

async fn put_proof(scene: &mut Scene, number: u64, root: Hash32) {
    let proof = Proof {
        school: scene.device.school,
        incarnation: scene.life.name,
        number,
        result: ProofResult::Proved,
        cause: String::new(),
        tiers: Vec::new(),
        heads: Heads::from([(scene.logs[0].log, scene.logs[0].head())]),
        digests: Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect(),
        merge_version: 1,
        began_ms: 1,
        duration_ms: 1,
        bytes: 1,
        software: "test".into(),
        snapshots: BTreeMap::from([(Tier::Safety, root)]),
    };
    let text = proof.sign(&scene.life.key).unwrap().text().to_owned();
    scene.put(&[(RecordKind::Proof.number(), text.as_bytes())]).await;
}

/// Texts of the parts, and the roots, that a site holds.
async fn left(scene: &Scene) -> (BTreeSet<String>, BTreeSet<String>) {
    let text = |kind: RecordKind, records: &BTreeSet<(u8, Vec<u8>)>| {
        let of_kind = records.iter().filter(|(number, _)| *number == kind.number());
        of_kind.map(|(_, body)| String::from_utf8(body.clone()).unwrap()).collect::<BTreeSet<_>>()
    };
    let all = records(&scene.stores[0]).await;
    let parts = text(RecordKind::SnapshotPart, &all);
    let parts = parts.iter().map(|part| part.trim_start_matches("a sealed part: ").to_owned()).collect();
    (parts, text(RecordKind::Snapshot, &all))
}

/// Six snapshots, all with one part in common. The second is named by evidence, the last is not whole.
async fn scene() -> (Scene, Vec<Snapshot>) {
    let mut scene = Scene::new(2).await;
    let own = ["0", "1", "2", "3", "4", "5"];
    let made: Vec<_> =
        own.iter().enumerate().map(|(n, own)| snapshot(&scene, 2 * n, &["common", own])).collect();
    for (made, own) in made.iter().zip(own) {
        let parts = if own == "5" { vec!["common"] } else { vec!["common", own] };
        put(&mut scene, made, &parts).await;
    }
    put_proof(&mut scene, 1, made[0].hash()).await;
    put_proof(&mut scene, 2, made[1].hash()).await;
    scene.put(&[(RecordKind::SnapshotPart.number(), &part("nobody names it"))]).await;
    (scene, made)
}

/// Goal: of old snapshots nothing stays that nobody needs, and all that somebody does. Method: six, as above; what is kept
/// are the two newest whole ones, that of the last evidence, the one that is under way, and a part of which nobody here knows.
#[tokio::test]
async fn old_snapshots_go_and_no_other_record() {
    let (scene, made) = scene().await;
    let before = records(&scene.stores[0]).await;
    let mut compactor = scene.compactor(RULES);
    for _ in 0..2 {
        let keeping = scene.start().await.0.keeping();
        compactor.pass(DAY, &Judge { keeping: Some(keeping), keys: None }).await.unwrap();
    }
    let (parts, roots) = left(&scene).await;
    // Another node may have taken the root that names it.
    assert_eq!(parts, ["common", "1", "3", "4", "nobody names it"].map(str::to_owned).into());
    let expected = [1, 3, 4, 5].map(|n: usize| made[n].text().to_owned());
    assert_eq!(roots, expected.into());
    let is_of_snapshot = |(number, _): &&(u8, Vec<u8>)| [4, 5].contains(number);
    let after = records(&scene.stores[0]).await;
    let others = |all: &BTreeSet<(u8, Vec<u8>)>| {
        all.iter().filter(|record| !is_of_snapshot(record)).cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(others(&before), others(&after));
    scene.assert_all_there("old snapshots went").await;
    let (_, fed, ..) = scene.start().await;
    assert_eq!(fed.snapshots, 4);
}

/// Goal: who cannot tell which snapshots are needed keeps all. Method: the same, told nothing.
#[tokio::test]
async fn who_cannot_tell_keeps_all() {
    let (scene, _) = scene().await;
    let before = records(&scene.stores[0]).await;
    let mut compactor = scene.compactor(RULES);
    for _ in 0..2 {
        compactor.pass(DAY, &Judge::default()).await.unwrap();
    }
    assert_eq!(records(&scene.stores[0]).await, before);
}

/// Goal: what is needed again is not deleted because it was left out before. Method: leave a snapshot out of a merged
/// object; then evidence names it: the inputs stay until an object holds it.
#[tokio::test]
async fn what_is_needed_again_stays() {
    let (mut scene, made) = scene().await;
    let mut compactor = scene.compactor(RULES);
    let keeping = scene.start().await.0.keeping();
    compactor.pass(DAY, &Judge { keeping: Some(keeping), keys: None }).await.unwrap();
    put_proof(&mut scene, 3, made[2].hash()).await;
    for _ in 0..6 {
        let keeping = scene.start().await.0.keeping();
        compactor.pass(DAY, &Judge { keeping: Some(keeping), keys: None }).await.unwrap();
    }
    let (parts, roots) = left(&scene).await;
    assert!(parts.contains("2") && roots.contains(made[2].text()), "{parts:?}");
    scene.assert_all_there("it is needed again").await;
}
