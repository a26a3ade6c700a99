//! Runs that are killed after each of their disk operations: the board is as before or as after.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

mod support;

use std::fs;
use std::path::Path;

use sonae_proto::seal::OpenKey;
use sonae_provision::board::Board;
use sonae_provision::disk::Disk;
use sonae_provision::error::ProvisionError;
use sonae_provision::overview::Overview;
use sonae_provision::school::School;
use support::{
    CODE, NOW, Place, board_key, check_modes, check_replica_bundle, check_wrapped, code, enrol_cloud,
    enrol_replica,
};

/// Operations that no command should ever need.
const OPERATIONS_MAX: u64 = 200;

fn has_unfinished(dir: &Path) -> bool {
    check_modes(dir).iter().any(|file| file.contains("unfinished"))
}

/// Runs `command` with the disk cut after 0, 1, 2 … operations, each time on a new board, and `check` after
/// each, until a run succeeds. `command` opens the board, so that its tidying up is cut as well.
fn cut_everywhere(
    prepare: impl Fn() -> Place,
    command: impl Fn(&Place, Disk) -> Result<(), ProvisionError>,
    check: impl Fn(&Place, bool),
) {
    for operations in 0..OPERATIONS_MAX {
        let place = prepare();
        let outcome = command(&place, Disk::cut_after(operations));
        check(&place, outcome.is_ok());
        if outcome.is_ok() {
            assert!(operations > 1, "nothing was cut");
            return;
        }
    }
    panic!("no run succeeded");
}

/// Goal: an interrupted `init` is refused by other commands and repeated by the next `init`; a finished board
/// is never cleared. Method: cut at each operation.
#[test]
fn init() {
    cut_everywhere(
        Place::empty,
        |place, disk| Board::init(&place.dir(), "架空市", NOW, disk).map(drop),
        |place, is_done| {
            let facts = Board::open(&place.dir(), Disk::new()).map(|board| board.facts().clone());
            let again = Board::init(&place.dir(), "架空市", NOW, Disk::new());
            if let Ok(facts) = facts {
                assert!(matches!(again, Err(ProvisionError::BoardExists { .. })));
                assert_eq!(place.open().facts(), &facts);
            } else {
                assert!(!is_done);
                drop(again.unwrap());
            }
            assert!(!has_unfinished(&place.dir()));
            assert_eq!(check_modes(&place.dir()).len(), 7);
        },
    );
}

/// Goal: an interrupted `school add` leaves no school, or the whole. Method: cut at each operation, then run
/// the next command.
#[test]
fn school_add() {
    let other = "B113200000022".parse().unwrap();
    cut_everywhere(
        Place::with_cloud,
        |place, disk| School::add(&Board::open(&place.dir(), disk)?, other, "第二小学校", NOW).map(drop),
        |place, is_done| {
            let board = place.open();
            assert!(!has_unfinished(&place.dir()));
            let overview = Overview::of(&board).unwrap();
            assert!(overview.schools.len() == 2 || !is_done);
            if overview.schools.len() == 1 {
                School::add(&board, other, "第二小学校", NOW).unwrap();
            }
            let school = School::load(&board, other).unwrap();
            check_wrapped(
                school.manifest.body(),
                &school.wrapped_keys,
                &board_key(&place.dir(), "recovery.key"),
            );
        },
    );
}

/// Goal: an interrupted `cloud enrol` leaves the old descriptor or the new one. Method: cut at each operation.
#[test]
fn cloud_enrol() {
    cut_everywhere(
        Place::with_cloud,
        |place, disk| {
            let board = Board::open(&place.dir(), disk)?;
            enrol_cloud(&board, "second.example.jp", &place.path("2.bundle")).map(drop)
        },
        |place, is_done| {
            let board = place.open();
            assert!(!has_unfinished(&place.dir()));
            let version = sonae_provision::cloud::descriptor(&board).unwrap().unwrap().body().version;
            assert_eq!(version == 2, is_done);
            let (_, facts) = enrol_cloud(&board, "third.example.jp", &place.path("3.bundle")).unwrap();
            assert_eq!(facts.descriptor_version, version + 1);
        },
    );
}

/// Goal: an interrupted `replica enrol` leaves manifest, wrapped keys and registry of before or of after, never
/// a mixture, and no bundle counts that the board does not know. Method: cut at each operation; check
/// everything with every reader; enrol again.
#[test]
fn replica_enrol() {
    cut_everywhere(
        || {
            let place = Place::with_cloud();
            enrol_replica(&place.open(), &place.path("1.bundle")).unwrap();
            place
        },
        |place, disk| {
            let board = Board::open(&place.dir(), disk)?;
            enrol_replica(&board, &place.path("2.bundle")).map(drop)
        },
        |place, is_done| {
            let board = place.open();
            assert!(!has_unfinished(&place.dir()));
            let school = School::load(&board, code()).unwrap();
            let manifest = school.manifest.body();
            let replicas = manifest.version - 1;
            assert!(replicas == 2 || !is_done && replicas == 1);
            assert_eq!(school.replicas.len() as u64, replicas);
            assert_eq!(manifest.readers.len() as u64, replicas + 2);
            for name in ["operations.key", "recovery.key"] {
                check_wrapped(manifest, &school.wrapped_keys, &board_key(&place.dir(), name));
            }
            let keys = place.dir().join("schools").join(CODE).join("keys");
            for name in fs::read_dir(keys).unwrap() {
                let text = String::from_utf8_lossy(&fs::read(name.unwrap().path()).unwrap()).into_owned();
                let stanzas = text.lines().filter(|line| line.starts_with("-> X25519 ")).count();
                assert_eq!(stanzas, manifest.readers.len());
            }
            let next = enrol_replica(&board, &place.path("3.bundle")).unwrap();
            let next_manifest = check_replica_bundle(&next, &board.facts().root);
            assert_eq!(next_manifest.version, manifest.version + 1);
            check_wrapped(&next_manifest, &next.wrapped_keys, &board_key(&place.dir(), "recovery.key"));
            assert!(OpenKey::parse(&next.device_age_key).is_ok());
        },
    );
}

/// Goal: an error after the bundle was written takes the bundle back. Method: a descriptor that cannot be
/// replaced, because a directory has its temporary name's place.
#[test]
fn failed_change_removes_the_bundle() {
    let place = Place::with_cloud();
    let board = place.open();
    // Made after the board was opened, so that nobody tidies it up.
    fs::create_dir(place.dir().join(".descriptor.unfinished")).unwrap();
    let out = place.path("2.bundle");
    assert!(enrol_cloud(&board, "second.example.jp", &out).is_err());
    assert!(!out.exists());
    drop(board);
    enrol_cloud(&place.open(), "second.example.jp", &out).unwrap();
}
