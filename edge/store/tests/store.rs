//! The store through its handle: kept, recovered, sealed, rebuilt. Real disk, no network.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use sonae_journal::sim::SimDisk;
use sonae_proto::batch::{BatchHeader, PREFIX_BYTES};
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::bytes::Reader;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::uplink::Shown;
use sonae_proto::vector::LogHead;
use sonae_store::testing::{Board, Stepped, open_store, open_store_on, opening};
use sonae_store::{Action, Clock, Edit, Opened, Options, Store, StoreState, WriteError, enrolment};

fn edit(collection: &str, record: &str, field: &str, value: &str) -> Action {
    Action {
        who: Some("tester".into()),
        source: None,
        edits: vec![Edit {
            collection: collection.into(),
            record: record.into(),
            fields: BTreeMap::from([(field.into(), value.into())]),
            seen: None,
        }],
    }
}

fn replica(data: &Path) -> (Board, ReplicaBundle) {
    let board = Board::default();
    let bundle = board.bundle();
    drop(enrolment::enrol(data, &bundle, Beginning::Enrolment, 1).unwrap());
    (board, bundle)
}

fn open(data: &Path, bundle: &ReplicaBundle) -> Opened {
    open_store(data, bundle, Clock::system())
}

/// What must be the same after a restart.
fn essence(state: &StoreState) -> (String, String, Vec<(Tier, u64)>) {
    let kept = state.kept.iter().map(|(tier, point)| (*tier, point.sequence)).collect();
    (format!("{:?}", state.digests), format!("{:?}", state.vector), kept)
}

/// Goal: what was answered is there after a restart without a clean close, from the journal alone.
/// Method: write, forget the handle (the keeper ends without closing), open again.
#[test]
fn kept_changes_survive_without_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    for n in 0..20 {
        let kept = opened.store.write_blocking(edit("student", &format!("p{n}"), "grade", "P1")).unwrap();
        assert_eq!(kept.changes, 1);
    }
    opened.store.write_blocking(edit("attendance", "2026-04-08/p1/all", "code", "late")).unwrap();
    let before = essence(&opened.store.state());
    // A copy of the directory as it is now is what a power cut leaves.
    let copy = dir.path().join("copy");
    copy_dir(&data, &copy);
    opened.close();
    let opened = open(&copy, &bundle);
    assert_eq!(essence(&opened.store.state()), before);
    assert_eq!(opened.store.state().replayed, 21);
    assert_eq!(opened.store.records(Tier::Safety, "student", "").unwrap().len(), 20);
    opened.close();
}

/// Goal: what the cloud has said of own logs is known after a restart, from its frame and from a checkpoint alike.
/// Method: tell two words; open what a power cut after the next commit leaves, then the same after a clean close.
#[test]
fn what_the_cloud_has_said_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    assert_eq!(opened.evidence.shown, None);
    let log = *opened
        .store
        .write_blocking(edit("student", "p0", "grade", "P1"))
        .unwrap()
        .sequences
        .keys()
        .next()
        .unwrap();
    let said = |sequence| Shown {
        at_ms: 1_000 * sequence,
        heads: BTreeMap::from([(log, LogHead { sequence, hash: Hash32([7; 32]) })]),
        held: BTreeMap::from([(log, 9)]),
    };
    opened.store.keep_shown(said(2));
    opened.store.keep_shown(said(1));
    // The first write's round may be the one that takes them, the second's commits them.
    for grade in ["P2", "P3"] {
        opened.store.write_blocking(edit("student", "p0", "grade", grade)).unwrap();
    }
    let copy = dir.path().join("copy");
    copy_dir(&data, &copy);
    opened.close();
    for data in [copy, data] {
        let opened = open(&data, &bundle);
        assert_eq!(opened.evidence.shown, Some(said(1)));
        opened.close();
    }
}

/// Goal: a receipt that came before a loss does not stand behind it in the journal. Method: both in one round, the commit
/// after it, a power cut; what is safe after a start.
#[test]
fn a_loss_is_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    let kept = opened.store.write_blocking(edit("student", "p0", "grade", "P1")).unwrap();
    let log = *kept.sequences.keys().next().unwrap();
    opened.close();
    let disk: Arc<dyn sonae_journal::Disk> = Arc::new(sonae_store::RealDisk);
    let opening = || opening(&data, &bundle, Clock::system(), Arc::clone(&disk), Options::default());
    let mut stepped = Stepped::open(opening()).unwrap();
    stepped.store.keep_receipt(log, LogHead { sequence: 1, hash: Hash32([7; 32]) }, vec![7; 100]);
    let store = stepped.store.clone();
    let mut loss = std::pin::pin!(store.keep_loss(1, BTreeMap::new()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(loss.as_mut().poll(&mut context).is_pending());
    stepped.turn();
    assert!(loss.as_mut().poll(&mut context).is_ready());
    stepped.idle();
    drop(stepped);
    let stepped = Stepped::open(opening()).unwrap();
    assert_eq!((stepped.evidence.loss_counter, stepped.evidence.safe.len()), (1, 0));
}

/// Goal: a restart after a clean close opens the view at its checkpoint and replays nothing; a deleted view is
/// rebuilt to the same digest. Method: close, open, delete, open.
#[test]
fn the_view_is_opened_at_its_checkpoint_and_rebuilt_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    for n in 0..50 {
        opened.store.write_blocking(edit("student", &format!("p{n}"), "grade", "P1")).unwrap();
    }
    let before = essence(&opened.store.state());
    opened.close();
    let opened = open(&data, &bundle);
    assert_eq!(opened.store.state().replayed, 0);
    assert!(!opened.store.state().view_rebuilt);
    assert_eq!(essence(&opened.store.state()), before);
    opened.store.write_blocking(edit("student", "p0", "grade", "P2")).unwrap();
    let before = essence(&opened.store.state());
    opened.close();
    std::fs::remove_dir_all(data.join("view")).unwrap();
    let opened = open(&data, &bundle);
    assert!(opened.store.state().view_rebuilt);
    assert_eq!(essence(&opened.store.state()), before);
    let record = opened.store.record(Tier::Safety, "student", "p0").unwrap().unwrap();
    assert_eq!(record.text("grade"), Some("P2"));
    opened.close();
}

/// Goal: a damaged view is never trusted and never fatal. Method: overwrite each of sled's files with rubbish.
#[test]
fn a_damaged_view_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    for n in 0..50 {
        opened.store.write_blocking(edit("student", &format!("p{n}"), "grade", "P1")).unwrap();
    }
    let before = essence(&opened.store.state());
    opened.close();
    let mut damaged = 0;
    for entry in std::fs::read_dir(data.join("view")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let copy = dir.path().join(format!("copy{damaged}"));
        copy_dir(&data, &copy);
        let name = path.file_name().unwrap();
        std::fs::write(copy.join("view").join(name), b"rubbish").unwrap();
        let opened = open(&copy, &bundle);
        assert_eq!(essence(&opened.store.state()), before, "{name:?}");
        assert_eq!(opened.store.records(Tier::Safety, "student", "").unwrap().len(), 50, "{name:?}");
        opened.close();
        damaged += 1;
    }
    assert!(damaged >= 2);
}

/// Goal: the journal stays small while batches move to the archive, and all of it is still there after a
/// restart with the view gone. Method: write more than the journal's segments hold.
#[test]
fn segments_are_recycled_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    let filler = "x".repeat(8_000);
    for round in 0..60 {
        let edits = (0..50)
            .map(|n| Edit {
                collection: "school_diary".into(),
                record: format!("{round}-{n}"),
                fields: BTreeMap::from([("events".into(), format!("{round} {n} {filler}").into())]),
                seen: None,
            })
            .collect();
        let action = Action { edits, ..Action::default() };
        assert_eq!(opened.store.write_blocking(action).unwrap().changes, 50);
    }
    let before = essence(&opened.store.state());
    let journal: u64 = sizes(&data.join("journal"));
    assert!(journal < 40 * 1024 * 1024, "24 MB were written, the journal has {journal} bytes");
    assert!(sizes(&data.join("batches")) > 0, "batches have moved to the archive");
    opened.close();
    std::fs::remove_dir_all(data.join("view")).unwrap();
    let opened = open(&data, &bundle);
    assert_eq!(essence(&opened.store.state()), before);
    assert_eq!(opened.store.records(Tier::Daily, "school_diary", "").unwrap().len(), 3_000);
    opened.close();
}

/// Goal: an archive that has rotted is never taken for a shorter one, or for a longer one. Method: a tier whose batches
/// lie in the archive alone; damage the first header of its file, or have the last one name one change more; open with
/// the view and without.
#[test]
fn a_rotten_archive_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    opened.store.write_blocking(edit("grade_result", "p1", "title", "国語")).unwrap();
    let filler = "x".repeat(8_000);
    for round in 0..40 {
        let mut action = edit("school_diary", "0", "events", "");
        action.edits = (0..50)
            .map(|n| edit("school_diary", &format!("{round}-{n}"), "events", &filler).edits.remove(0))
            .collect();
        opened.store.write_blocking(action).unwrap();
    }
    opened.close();
    let archived = std::fs::read_dir(data.join("batches")).unwrap().map(|entry| entry.unwrap().path());
    let archived = archived.filter(|path| path.to_string_lossy().ends_with("-2")).collect::<Vec<_>>();
    let bytes = std::fs::read(&archived[0]).unwrap();
    let (mut last, mut next) = (0, 0);
    while next < bytes.len() {
        let header = BatchHeader::from_bytes(&mut Reader::new(&bytes[next..])).unwrap();
        last = next;
        next += PREFIX_BYTES + usize::try_from(header.payload_bytes).unwrap();
    }
    let disk = || Arc::new(sonae_journal::RealDisk);
    for has_view in [true, false] {
        if !has_view {
            std::fs::remove_dir_all(data.join("view")).unwrap();
        }
        // The lowest byte of the last change that the header names.
        for place in [0, last + 61] {
            let mut damaged = bytes.clone();
            damaged[place] = damaged[place].wrapping_add(1);
            std::fs::write(&archived[0], damaged).unwrap();
            let request = opening(&data, &bundle, Clock::system(), disk(), Options::default());
            let refused = Store::open(request).map(drop).unwrap_err();
            assert!(refused.is_damage(), "{place}: {refused}");
        }
    }
}

/// Goal: the same value again is no change; bad actions keep nothing. Method: repeat, unknown collection,
/// an action whose second edit is too long.
#[test]
fn no_ops_and_bad_actions_keep_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    assert_eq!(opened.store.write_blocking(edit("student", "p", "grade", "P1")).unwrap().changes, 1);
    assert_eq!(opened.store.write_blocking(edit("student", "p", "grade", "P1")).unwrap().changes, 0);
    let before = essence(&opened.store.state());
    assert!(opened.store.write_blocking(edit("nonsense", "p", "grade", "P1")).is_err());
    let mut action = edit("student", "q", "grade", "P1");
    action.edits.extend(edit("student", "r", "address", &"x".repeat(70_000)).edits);
    assert!(opened.store.write_blocking(action).is_err());
    assert_eq!(essence(&opened.store.state()), before);
    assert!(opened.store.record(Tier::Safety, "student", "q").unwrap().is_none());
    opened.close();
}

/// Goal: writers who did not see each other leave both values, and only they. Method: two writes that name
/// the same seen value.
#[test]
fn concurrent_edits_keep_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let opened = open(&data, &bundle);
    opened.store.write_blocking(edit("student", "p", "address", "old")).unwrap();
    let seen = opened.store.record(Tier::Safety, "student", "p").unwrap().unwrap().fields["address"].bases();
    for value in ["one", "two"] {
        let mut action = edit("student", "p", "address", value);
        action.edits[0].seen = Some(BTreeMap::from([("address".into(), seen.clone())]));
        opened.store.write_blocking(action).unwrap();
    }
    let record = opened.store.record(Tier::Safety, "student", "p").unwrap().unwrap();
    let mut values: Vec<String> =
        record.fields["address"].heads.iter().map(|head| head.value.to_string()).collect();
    values.sort();
    assert_eq!(values, ["\"one\"", "\"two\""]);
    assert_eq!(opened.store.state().disputed, 1);
    opened.store.write_blocking(edit("student", "p", "address", "two")).unwrap();
    assert_eq!(opened.store.state().disputed, 0);
    opened.close();
}

/// Goal: a full disk refuses clearly, keeps tier 0 writable, and nothing is lost or forked when room comes back.
/// Method: a simulated disk that is full; write until nothing more fits; give it room; restart.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_board, bundle) = replica(&data);
    let disk = SimDisk::new(7);
    let steady = Arc::new(AtomicU64::new(1_000_000));
    let told = Arc::clone(&steady);
    let clock = Clock::told_apart(|| 1_780_000_000_000, move || told.load(Ordering::Relaxed));
    let reopen = || open_store_on(&data, &bundle, clock.clone(), Arc::new(disk.clone()));
    let opened = reopen();
    opened.store.write_blocking(edit("student", "p", "grade", "P1")).unwrap();
    // It does not say so, but refuses; what is told before is refused before.
    disk.fill_at(disk.counters().operations, false);
    let filler = "x".repeat(45_000);
    let mut kept = 0_u64;
    let refused = (0..2_000).find_map(|n| {
        let action = edit("school_diary", &format!("{n}"), "events", &format!("{n}{filler}"));
        match opened.store.write_blocking(action) {
            Ok(_) => {
                kept += 1;
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(matches!(refused, Some(WriteError::Full)) && kept > 0, "{refused:?}");
    for n in 0..20 {
        let action = edit("student", &format!("full{n}"), "grade", "P2");
        assert_eq!(opened.store.write_blocking(action).unwrap().changes, 1, "tier 0 stays writable");
    }
    disk.set_room(None);
    // A full disk is not tried again at once.
    steady.fetch_add(2_000, Ordering::Relaxed);
    opened.store.write_blocking(edit("school_diary", "after", "events", "room again")).unwrap();
    assert_eq!(opened.store.state().failed, None);
    let before = essence(&opened.store.state());
    opened.close();
    std::fs::remove_dir_all(data.join("view")).unwrap();
    let opened = reopen();
    assert_eq!(essence(&opened.store.state()), before);
    let diary = opened.store.records(Tier::Daily, "school_diary", "").unwrap();
    assert_eq!(u64::try_from(diary.len()).unwrap(), kept + 1);
    opened.close();
}

fn sizes(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
