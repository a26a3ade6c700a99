//! Destroying keys, through the library: what the board refuses, signs and forgets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

mod support;

use std::fs;
use std::path::PathBuf;

use sonae_proto::courier::{Decoder, Record};
use sonae_proto::ids::{ReplicaId, Tier};
use sonae_proto::manifest::{KeyUse, Manifest};
use sonae_proto::signed::Signed;
use sonae_proto::wire::KeyDocuments;
use sonae_provision::board::Board;
use sonae_provision::destroy::{Order, destroy, rotate};
use sonae_provision::error::ProvisionError;
use sonae_provision::school::School;
use support::{CODE, NOW, Place, board_key, check_wrapped, code, enrol_replica};

const OLD: u32 = 2026;

fn said(path: &std::path::Path, board: &Board) -> (KeyDocuments, Manifest) {
    let mut decoder = Decoder::default();
    decoder.feed(&fs::read(path).unwrap());
    let mut found = None;
    while let Some(record) = decoder.poll().unwrap() {
        if let Record::Keys(keys) = record {
            found = Some(*keys);
        }
    }
    let keys = found.unwrap();
    let manifest = Signed::<Manifest>::verify(&keys.manifest, &board.facts().root).unwrap().body().clone();
    (keys, manifest)
}

/// What a box would print, with so many batches of tier 1 under the old key.
fn status(place: &Place, name: &str, replica: ReplicaId, batches: u64) -> PathBuf {
    let uses = |tier: Tier| {
        let batches = if tier == Tier::Daily { batches } else { 0 };
        serde_json::json!({
            "tier": tier, "epoch": OLD, "seals": false, "destroyed": false, "destroyed_pending": false,
            "uses": {"batches": batches, "without_receipt": 0, "snapshots": 0},
        })
    };
    let status = serde_json::json!({"school": CODE, "replica": replica, "key_uses": Tier::ALL.map(uses)});
    fs::write(place.path(name), status.to_string()).unwrap();
    place.path(name)
}

fn load(board: &Board) -> School {
    School::load(board, code()).unwrap()
}

fn wrapped_file(place: &Place) -> PathBuf {
    place.dir().join("schools").join(CODE).join("keys").join(format!("tier1-{OLD}.age"))
}

/// Goal: a key goes only when it seals nothing, now or later, and every replica that lives has said that it does not need
/// it; then the board has no copy, the word destroys it and brings the others, and no later word forgets it. Method: every
/// refusal, then the order, then the same again, a rotation and an enrolment.
#[test]
fn a_key_is_destroyed_when_nobody_needs_it() {
    let place = Place::with_cloud();
    enrol_replica(&place.open(), &place.path("1.bundle")).unwrap();
    enrol_replica(&place.open(), &place.path("2.bundle")).unwrap();
    let board = place.open();
    let replicas: Vec<ReplicaId> = load(&board).replicas.iter().map(|known| known.replica).collect();
    let order = |statuses: Vec<PathBuf>, lost: &[ReplicaId]| Order {
        tiers: vec![Tier::Daily],
        epoch: OLD,
        statuses,
        lost: lost.to_vec(),
    };
    let try_out = |order: &Order| destroy(&board, load(&board), order, &place.path("word"), NOW);
    let refused = |order: &Order, text: &str| match try_out(order) {
        Err(error @ (ProvisionError::KeyInUse { .. } | ProvisionError::Status { .. })) => {
            assert!(error.to_string().contains(text), "{error}");
        }
        other => panic!("{text}: {other:?}"),
    };
    let free = |name: &str, number: usize| status(&place, name, replicas[number], 0);
    refused(&order(vec![], &replicas), "rotate");
    rotate(&board, load(&board), &place.path("rotated"), NOW).unwrap();
    let before = fs::read(wrapped_file(&place)).unwrap();
    refused(&order(vec![], &[]), "has not said");
    refused(&order(vec![free("one", 0)], &[]), &replicas[1].to_string());
    refused(&order(vec![free("one", 0), status(&place, "two", replicas[1], 3)], &[]), "3 batch(es)");
    fs::write(place.path("other"), "{}").unwrap();
    refused(&order(vec![place.path("other")], &replicas), "status --json");
    let later = Order { epoch: 2_027_001, ..order(vec![], &replicas) };
    refused(&later, "will be");
    assert_eq!(fs::read(wrapped_file(&place)).unwrap(), before, "a refusal destroys nothing");
    assert!(!place.path("word").exists());

    let done = try_out(&order(vec![free("one", 0)], &replicas[1..])).unwrap();
    assert_eq!(done.destroyed, ["tier1-2026"]);
    assert!(!wrapped_file(&place).exists(), "the board has no copy");
    let (keys, manifest) = said(&place.path("word"), &board);
    assert!(manifest.is_destroyed(KeyUse::Tier(Tier::Daily), OLD) && manifest.is_within_limits());
    assert!(manifest.key(KeyUse::Tier(Tier::Safety), OLD).is_some(), "the other tiers' keys stay");
    check_wrapped(&manifest, &keys.wrapped_keys, &board_key(&place.dir(), "recovery.key"));
    let again = destroy(&board, load(&board), &order(vec![], &replicas), &place.path("again"), NOW);
    assert!(matches!(again, Err(ProvisionError::NothingNew { .. })));
    rotate(&board, load(&board), &place.path("rotated-2"), NOW).unwrap();
    let third = enrol_replica(&board, &place.path("3.bundle")).unwrap();
    let third = Signed::<Manifest>::verify(&third.manifest, &board.facts().root).unwrap();
    assert!(third.body().is_destroyed(KeyUse::Tier(Tier::Daily), OLD), "no later manifest forgets it");
    assert!(third.body().key(KeyUse::Tier(Tier::Daily), OLD).is_none());
}
