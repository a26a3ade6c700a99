//! Revocation, rotation and school years, through the library: what the board signs, who can open it, what a run that is
//! interrupted leaves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

mod support;

use std::fs;
use std::path::Path;

use sonae_proto::courier::{Decoder, Origin, Record};
use sonae_proto::ids::{Hash32, LogName, ReplicaId, Tier};
use sonae_proto::manifest::{Epoch, Manifest};
use sonae_proto::revocation::Revocations;
use sonae_proto::seal::{OpenKey, decrypt};
use sonae_proto::signed::Signed;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::KeyDocuments;
use sonae_provision::board::Board;
use sonae_provision::disk::Disk;
use sonae_provision::epochs::add_year;
use sonae_provision::error::{Exit, ProvisionError};
use sonae_provision::heads::{Which, of_status, parse};
use sonae_provision::hold;
use sonae_provision::revoke::{Decision, decide, revoke};
use sonae_provision::school::School;
use sonae_provision::words;
use support::{CODE, NOW, Place, board_key, check_wrapped, code, enrol_replica};
use time::Duration;

/// The key documents in the file of a word, verified.
fn said(path: &Path, board: &Board) -> (KeyDocuments, Manifest) {
    let mut decoder = Decoder::default();
    decoder.feed(&fs::read(path).unwrap());
    let mut found = None;
    while let Some(record) = decoder.poll().unwrap() {
        match record {
            Record::Opening(opening) => assert_eq!((opening.school, opening.from), (code(), Origin::Board)),
            Record::Keys(keys) => found = Some(*keys),
            Record::End(_) => {}
            other @ (Record::Batch(_) | Record::Identity(_) | Record::Receipt(_) | Record::Unknown(_)) => {
                panic!("{other:?}")
            }
        }
    }
    decoder.finish().unwrap();
    let keys = found.unwrap();
    let manifest = Signed::<Manifest>::verify(&keys.manifest, &board.facts().root).unwrap().body().clone();
    (keys, manifest)
}

fn log(byte: u8) -> LogName {
    LogName { tier: Tier::Safety, incarnation: sonae_proto::ids::Incarnation::of_key(&[byte; 32]) }
}

fn head(sequence: u64) -> LogHead {
    LogHead { sequence, hash: Hash32([7; 32]) }
}

fn opens(keys: &KeyDocuments, key: &OpenKey) -> Vec<u32> {
    let opened = keys.wrapped_keys.iter().filter(|wrapped| decrypt(&wrapped.file, key).is_ok());
    opened.map(|wrapped| wrapped.epoch).collect()
}

/// Goal: one run revokes, names what counts, takes the replica off the readers and makes keys that it cannot open; the
/// others open everything. Method: two replicas, one revoked; open every wrapped key with every key; then enrol a third.
#[test]
fn a_revoked_replica_opens_nothing_new() {
    let place = Place::with_cloud();
    let stolen = enrol_replica(&place.open(), &place.path("1.bundle")).unwrap();
    let stays = enrol_replica(&place.open(), &place.path("2.bundle")).unwrap();
    let board = place.open();
    let school = School::load(&board, code()).unwrap();
    let stolen_key = OpenKey::parse(&stolen.device_age_key).unwrap();
    let facts = school.replicas.iter().find(|known| known.recipient == stolen_key.recipient()).unwrap();
    let (replica, accepted) = (facts.replica, Heads::from([(log(1), head(9))]));
    let word = revoke(&board, &school, replica, accepted.clone(), &place.path("word"), NOW).unwrap();
    assert_eq!((word.manifest_version, word.rotation, &word.accepted), (4, 1, &accepted));
    let (keys, manifest) = said(&place.path("word"), &board);
    assert_eq!(opens(&keys, &stolen_key), Vec::<u32>::new(), "wrapped anew to the others only");
    for reader in [
        board_key(&place.dir(), "operations.key"),
        board_key(&place.dir(), "recovery.key"),
        OpenKey::parse(&stays.device_age_key).unwrap(),
    ] {
        check_wrapped(&manifest, &keys.wrapped_keys, &reader);
    }
    for tier in Tier::ALL {
        for (year, number) in [(2026, 2026001), (2027, 2027001), (2031, 2027001)] {
            assert_eq!(manifest.sealing_key(tier, year).unwrap().epoch, number);
        }
    }
    let old = Signed::<Manifest>::verify(&stolen.manifest, &board.facts().root).unwrap();
    assert!(old.body().keys.iter().all(|key| manifest.keys.contains(key)), "what was sealed stays readable");
    let mut known = Revocations::default();
    known.learn(&manifest);
    assert_eq!(known.accepted(replica, log(1)), Some(head(9)));
    let school = School::load(&board, code()).unwrap();
    let again = revoke(&board, &school, replica, Heads::new(), &place.path("again"), NOW);
    assert!(matches!(again, Err(ProvisionError::Revoked { .. })) && !place.path("again").exists());
    let third = enrol_replica(&board, &place.path("3.bundle")).unwrap();
    let third = Signed::<Manifest>::verify(&third.manifest, &board.facts().root).unwrap();
    assert!(known.are_in(third.body()), "no later manifest forgets it");
}

/// Goal: what waits is accepted or dropped by naming its end, and never less than before. Method: each, then again, then
/// a lower head, then an unknown replica.
#[test]
fn decisions_only_rise() {
    let place = Place::with_cloud();
    enrol_replica(&place.open(), &place.path("1.bundle")).unwrap();
    let board = place.open();
    let load = || School::load(&board, code()).unwrap();
    let replica = load().replicas[0].replica;
    let up_to = |sequence| Heads::from([(log(1), head(sequence))]);
    let decided = |decision, heads: &Heads, name: &str| {
        decide(&board, &load(), replica, decision, heads, &place.path(name), NOW)
    };
    let early = decided(Decision::Accept, &up_to(5), "early");
    assert!(matches!(early, Err(ProvisionError::UnknownReplica { .. })), "it is not revoked");
    revoke(&board, &load(), replica, up_to(5), &place.path("0"), NOW).unwrap();
    let word = decided(Decision::Accept, &up_to(9), "1").unwrap();
    assert_eq!((word.accepted, word.dropped, word.rotation), (up_to(9), Heads::new(), 1));
    let word = decided(Decision::Drop, &up_to(20), "2").unwrap();
    assert_eq!((word.accepted, word.dropped), (up_to(9), up_to(20)));
    let (_, manifest) = said(&place.path("2"), &board);
    assert_eq!(manifest.revoked[0].dropped, up_to(20));
    for (number, sequence) in [(3, 9), (4, 4)] {
        let nothing = decided(Decision::Accept, &up_to(sequence), &number.to_string());
        assert!(
            matches!(&nothing, Err(error @ ProvisionError::NothingNew { .. }) if error.exit() == Exit::BadInput)
        );
    }
    let stranger = ReplicaId::of_key(&[9; 32]);
    let unknown = revoke(&board, &load(), stranger, Heads::new(), &place.path("5"), NOW);
    assert!(matches!(unknown, Err(ProvisionError::UnknownReplica { .. })));
    assert!(!place.path("5").exists());
}

/// Goal: the keys of a year are there before it begins, once, and each later enrolment brings them too; after a rotation
/// they belong to it. Method: the same school in three school years.
#[test]
fn years_are_added_ahead() {
    let place = Place::with_cloud();
    let board = place.open();
    let load = || School::load(&board, code()).unwrap();
    let nothing = add_year(&board, load(), &place.path("0"), NOW);
    assert!(matches!(nothing, Err(ProvisionError::NothingNew { .. })));
    let next = NOW + Duration::days(365);
    let school = add_year(&board, load(), &place.path("1"), next).unwrap();
    let years = |school: &School| -> Vec<Epoch> {
        let keys = school.manifest.body().keys.iter().filter(|key| key.epoch > 0);
        let mut years: Vec<Epoch> = keys.map(|key| Epoch::of(key.epoch)).collect();
        years.sort_unstable();
        years.dedup();
        years
    };
    let epoch = |year, rotation| Epoch { year, rotation };
    assert_eq!(years(&school), [2026, 2027, 2028].map(|year| epoch(year, 0)));
    check_wrapped(
        school.manifest.body(),
        &said(&place.path("1"), &board).0.wrapped_keys,
        &board_key(&place.dir(), "recovery.key"),
    );
    enrol_replica(&board, &place.path("1.bundle")).unwrap();
    let replica = load().replicas[0].replica;
    revoke(&board, &load(), replica, Heads::new(), &place.path("2"), next).unwrap();
    let after = next + Duration::days(365);
    let school = add_year(&board, load(), &place.path("3"), after).unwrap();
    let expected = [(2026, 0), (2027, 0), (2027, 1), (2028, 0), (2028, 1), (2029, 1)];
    assert_eq!(years(&school), expected.map(|(year, rotation)| epoch(year, rotation)));
    assert_eq!(school.manifest.body().sealing_key(Tier::Daily, 2029).unwrap().epoch, 2029001);
}

/// Goal: a run that is cut off anywhere leaves the school as it was or as it is meant to be, and its word can be written
/// again. Method: cut after each operation; open, look, and write the word.
#[test]
fn an_interrupted_revocation_is_whole_or_absent() {
    let place = Place::with_cloud();
    enrol_replica(&place.open(), &place.path("1.bundle")).unwrap();
    let (mut absent, mut whole) = (0, 0);
    for operations in 1.. {
        let copy = Place::empty();
        copy_dir(&place.dir(), &copy.dir());
        let replica = School::load(&copy.open(), code()).unwrap().replicas[0].replica;
        let board = Board::open(&copy.dir(), Disk::cut_after(operations)).unwrap();
        let school = School::load(&board, code()).unwrap();
        let outcome = revoke(&board, &school, replica, Heads::new(), &copy.path("word"), NOW);
        drop(board);
        let board = copy.open();
        let school = School::load(&board, code()).unwrap();
        match school.manifest.body().revoked.len() {
            0 => absent += 1,
            _ => {
                whole += 1;
                assert_eq!(school.manifest.body().rotation(), 1);
                words::write(&board, &school, &copy.path("again"), NOW).unwrap();
                assert_eq!(said(&copy.path("again"), &board).1.revoked[0].replica, replica);
            }
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert!(absent > 3 && whole > 1, "{absent} {whole}");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Goal: the board reads what belongs to a replica out of the cloud's status, and asks a person when it is not clear.
/// Method: a status with two devices, then two branches of one log; heads on the command line, right and wrong.
#[test]
fn heads_are_read_from_a_status() {
    let place = Place::empty();
    let (one, two) = (ReplicaId::of_key(&[1; 32]), ReplicaId::of_key(&[2; 32]));
    let hash = Hash32([7; 32]);
    let waiting = |sequence| {
        serde_json::json!({ "replica": one, "log": log(1), "batches": 1, "changes": 1,
            "head": { "sequence": sequence, "hash": hash } })
    };
    let mut status = serde_json::json!({ "format": "sonae/cloud-status/v1", "schools": [{
        "school": CODE,
        "heads": { log(1).to_string(): head(9), log(2).to_string(): head(4) },
        "incarnations": [
            { "incarnation": log(1).incarnation, "replica": one, "kind": "appliance" },
            { "incarnation": log(2).incarnation, "replica": two, "kind": "appliance" },
        ],
        "quarantined": [waiting(12)],
    }] });
    let path = place.path("status.json");
    let read = |status: &serde_json::Value, which| {
        fs::write(&path, status.to_string()).unwrap();
        of_status(&path, code(), one, which)
    };
    assert_eq!(read(&status, Which::Stored).unwrap(), Heads::from([(log(1), head(9))]));
    assert_eq!(read(&status, Which::Quarantined).unwrap(), Heads::from([(log(1), head(12))]));
    status["schools"][0]["quarantined"] = serde_json::json!([waiting(12), waiting(13)]);
    assert!(matches!(read(&status, Which::Quarantined), Err(ProvisionError::Heads { .. })));
    assert!(matches!(read(&serde_json::json!({}), Which::Stored), Err(ProvisionError::Heads { .. })));
    assert_eq!(parse(&format!("{}:12:{hash}", log(1))).unwrap(), (log(1), head(12)));
    for wrong in ["", "x", &format!("{}:12", log(1)), &format!("{}:12:{hash}:1", log(1))] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

/// Goal: the board holds a replica and releases it, each once; keys and readers stay, and who is revoked is not held.
/// Method: hold, release, the same again, a stranger, a revocation of one that is held.
#[test]
fn a_hold_is_said_and_taken_back() {
    let place = Place::with_cloud();
    let board = place.open();
    let load = || School::load(&board, code()).unwrap();
    let bundle = enrol_replica(&board, &place.path("1.bundle")).unwrap();
    let device_key = OpenKey::parse(&bundle.device_age_key).unwrap();
    let before = load();
    let replica = before.replicas[0].replica;
    let say = |is_held, name: &str| hold::say(&board, &load(), replica, is_held, &place.path(name), NOW);
    say(true, "held").unwrap();
    let (keys, manifest) = said(&place.path("held"), &board);
    assert_eq!(manifest.hold(replica).map(|hold| hold.replica), Some(replica));
    assert_eq!(
        (&manifest.keys, &manifest.readers),
        (&before.manifest.body().keys, &before.manifest.body().readers)
    );
    assert_eq!(opens(&keys, &device_key).len(), manifest.keys.len(), "it goes on reading: it has to merge");
    assert!(matches!(say(true, "again"), Err(ProvisionError::NothingNew { .. })));
    assert!(!place.path("again").exists());
    say(false, "released").unwrap();
    let (_, manifest) = said(&place.path("released"), &board);
    assert!(manifest.hold(replica).is_none() && manifest.version == before.manifest.body().version + 2);
    assert!(matches!(say(false, "again"), Err(ProvisionError::NothingNew { .. })));

    let stranger = ReplicaId::of_key(&[9; 32]);
    let outcome = hold::say(&board, &load(), stranger, true, &place.path("stranger"), NOW);
    assert!(matches!(outcome, Err(ProvisionError::UnknownReplica { .. })));
    say(true, "held again").unwrap();
    revoke(&board, &load(), replica, Heads::new(), &place.path("revoked"), NOW).unwrap();
    let (_, manifest) = said(&place.path("revoked"), &board);
    assert!(manifest.held.is_empty() && manifest.revoked.len() == 1);
}
