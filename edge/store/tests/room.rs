//! Room on the disk and honest ages, through the store's handle. Real disk, no network.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sonae_proto::batch::Batch;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Incarnation, ReplicaId, Tier};
use sonae_store::room::Quota;
use sonae_store::status::{StatusSource, Uplink};
use sonae_store::testing::{Board, open_store, opening};
use sonae_store::{Action, Clock, Edit, Opened, Store, WriteError, enrolment};

fn edit(collection: &str, record: &str, field: &str, value: &str) -> Action {
    let fields = BTreeMap::from([(field.into(), value.into())]);
    let edit = Edit { collection: collection.into(), record: record.into(), fields, seen: None };
    Action { who: Some("tester".into()), source: None, edits: vec![edit] }
}

/// Enrols a replica of a board in a folder and opens it.
fn enrolled(board: &Board, dir: &tempfile::TempDir, clock: Clock) -> impl Fn() -> Opened + use<> {
    let (bundle, data) = (board.bundle(), dir.path().join("data"));
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    move || open_store(&data, &bundle, clock.clone())
}

/// Goal: ages say how long something has waited, whatever the wall clock does, before and after a restart. Method: jumps
/// of decades, ahead and back; a restart in 1970, and one by a clock that is right.
#[test]
fn ages_do_not_jump_with_the_clock() {
    const NOW_MS: u64 = 1_780_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (wall, steady) = (Arc::new(AtomicU64::new(NOW_MS)), Arc::new(AtomicU64::new(1 << 50)));
    let (told, counted) = (Arc::clone(&wall), Arc::clone(&steady));
    let clock =
        Clock::told_apart(move || told.load(Ordering::Relaxed), move || counted.load(Ordering::Relaxed));
    let uplink = Uplink::default();
    let open = enrolled(&Board::default(), &dir, clock.clone());
    let status = |opened: &Opened| {
        let source = StatusSource {
            store: opened.store.clone(),
            proofs: sonae_store::proof::Proofs::default(),
            uplink: uplink.clone(),
            neighbours: sonae_store::neighbours::Neighbours::default(),
            school_name: String::new(),
            replica: ReplicaId::from_bytes([1; 16]),
            incarnation: Incarnation::from_bytes([1; 16]),
            data: dir.path().to_owned(),
        };
        source.status()
    };
    let opened = open();
    opened.store.write_blocking(edit("attendance", "p", "code", "late")).unwrap();
    uplink.note_error(&clock, "line_down", "gone".into());
    steady.fetch_add(60_000, Ordering::Relaxed);
    opened.store.write_blocking(edit("student", "p", "grade", "P1")).unwrap();
    for jump in [NOW_MS * 2, 0, NOW_MS] {
        wall.store(jump, Ordering::Relaxed);
        let status = status(&opened);
        assert_eq!(status.lag_ms_by_tier, BTreeMap::from([(Tier::Safety, 0), (Tier::Daily, 60_000)]));
        assert_eq!((status.lag_ms, status.last_error.unwrap().age_ms), (Some(60_000), 60_000));
    }
    opened.close();
    wall.store(NOW_MS + 3_600_000, Ordering::Relaxed);
    let opened = open();
    assert_eq!(status(&opened).lag_ms, Some(3_600_000), "the clock is right, so the age is");
    opened.close();
    for wrong in [5_000, NOW_MS * 3] {
        wall.store(wrong, Ordering::Relaxed);
        let opened = open();
        steady.fetch_add(7_000, Ordering::Relaxed);
        assert_eq!(status(&opened).lag_ms, Some(7_000), "since this start, which is sure");
        opened.close();
    }
}

/// Goal: peers' batches and imports obey the room as people do; tier 0 of people does not; nothing is left half. Method:
/// quotas that leave no room for tier 1, then for tier 2; each way of writing; lifted again.
#[test]
fn every_way_of_writing_obeys_the_room() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let board = Board::default();
    let opened = enrolled(&board, &dir, Clock::system())();
    let peer = enrolled(&board, &other, Clock::system())();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let edits = [("student", "grade"), ("attendance", "code"), ("grade_result", "title")];
    for (collection, field) in edits {
        peer.store.write_blocking(edit(collection, "peer", field, "x")).unwrap();
    }
    runtime.block_on(peer.store.seal_now());
    let held = runtime.block_on(peer.store.held()).unwrap();
    let batches: BTreeMap<Tier, Batch> = held
        .iter()
        .map(|(log, headers)| {
            let bytes = runtime.block_on(peer.store.batch(*log, headers[0].first)).unwrap();
            (log.tier, Batch::from_bytes(bytes).unwrap())
        })
        .collect();
    let whatever_is_free = BTreeMap::from([(Tier::Daily, 0), (Tier::Archive, 0)]);
    let refuses =
        |error: WriteError, tier: Tier| matches!(error, WriteError::NoRoom { tier: t } if t == tier);
    for (first, refused) in [(Tier::Daily, vec![1, 2]), (Tier::Archive, vec![2])] {
        let bytes_max = BTreeMap::from([(first, 0)]);
        opened.store.set_quota(Quota { bytes_max, free_min: whatever_is_free.clone() });
        for (n, (collection, field)) in edits.into_iter().enumerate() {
            let tier = Tier::ALL[n];
            let outcome = opened.store.write_blocking(edit(collection, &format!("{first}"), field, "x"));
            assert_eq!(outcome.is_err(), refused.contains(&n), "{collection} {first}");
            assert!(outcome.err().is_none_or(|error| refuses(error, tier)));
            let import = Action {
                source: Some("oneroster".into()),
                ..edit(collection, &format!("import {first}"), field, "x")
            };
            let is_bulk = n == 0 && first == Tier::Daily;
            let outcome = opened.store.write_blocking(import);
            assert_eq!(outcome.is_err(), refused.contains(&n) || is_bulk, "import of {collection} {first}");
            let stored = runtime.block_on(opened.store.store_batch(batches[&tier].clone()));
            assert_eq!(stored.is_err(), refused.contains(&n), "a peer's batch of {collection} {first}");
        }
        assert_eq!(opened.store.pressure().refused_from(), Some(first));
    }
    opened.store.set_quota(Quota { bytes_max: BTreeMap::new(), free_min: whatever_is_free });
    for batch in batches.values() {
        runtime.block_on(opened.store.store_batch(batch.clone())).unwrap();
    }
    let vector = opened.store.state().vector;
    assert!(held.keys().all(|log| vector.get(log) == Some(&1)), "nothing is missing");
    peer.close();
    opened.close();
}

/// Goal: a box whose view cannot be made serves and keeps all the same, and makes the view later. Method: a link to
/// nowhere above its directory; a directory in place of the link; checkpoint, restart.
#[test]
fn a_view_that_cannot_be_made_is_made_later() {
    let dir = tempfile::tempdir().unwrap();
    let (data, bundle) = (dir.path().join("data"), Board::default().bundle());
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let above = data.join("above");
    let open = || {
        let options = sonae_store::Options::default();
        let mut open = opening(&data, &bundle, Clock::system(), Arc::new(sonae_store::RealDisk), options);
        open.view = above.join("view");
        Store::open(open).unwrap()
    };
    let records = |opened: &Opened| opened.store.records(Tier::Safety, "student", "").unwrap();
    let opened = open();
    opened.store.write_blocking(edit("student", "p", "grade", "P1")).unwrap();
    opened.close();
    std::fs::remove_dir_all(&above).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", &above).unwrap();
    let opened = open();
    opened.store.write_blocking(edit("student", "q", "grade", "P2")).unwrap();
    let before = records(&opened);
    assert_eq!(before.len(), 2);
    std::fs::remove_file(&above).unwrap();
    opened.close();
    assert!(above.join("view/conf").exists(), "the checkpoint at the end has made it");
    let opened = open();
    assert_eq!((records(&opened), opened.store.state().replayed), (before, 0));
    opened.close();
}

/// Goal: a store that was filled without a reserve has one once it serves. Method: the free room that the journal's files
/// hold, before and after it is opened as a box that serves does.
#[test]
fn a_filled_store_gets_its_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let (data, bundle) = (dir.path().join("data"), Board::default().bundle());
    drop(enrolment::enrol(&data, &bundle, Beginning::Rebuild, 1).unwrap());
    let journal_mib_after_a_write = |options| {
        let disk = Arc::new(sonae_store::RealDisk);
        let opened = Store::open(opening(&data, &bundle, Clock::system(), disk, options)).unwrap();
        opened.store.write_blocking(edit("student", "p", "grade", "P1")).unwrap();
        opened.close();
        let files = std::fs::read_dir(data.join("journal")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() / (1024 * 1024)
    };
    assert!(journal_mib_after_a_write(sonae_store::Options::without_reserve()) < 16);
    assert!(journal_mib_after_a_write(sonae_store::Options::default()) >= 16 + 4);
}
