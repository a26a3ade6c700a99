//! Exports of a school: what is written, what is said to be missing, and that nothing is lost on the way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
#[path = "export/folder.rs"]
mod folder;
#[path = "export/scene.rs"]
mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::board::{Board, SCHOOL};
use folder::Folder;
use scene::Scene;
use sonae_cloud::export::{ExportError, Request, Summary, run};
use sonae_proto::batch::Batch;
use sonae_proto::export::{Line, Place, Problem};
use sonae_proto::ids::Tier;
use sonae_proto::manifest::KeyUse;
use sonae_proto::object::{RecordKind, append, records};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::KeyDocuments;

struct Town {
    folder: Folder,
    scene: Scene,
}

impl Town {
    fn new() -> Self {
        let town = Self { folder: Folder::new(), scene: Scene::new() };
        town.sites().iter().for_each(|site| town.scene.fill(site));
        town
    }

    fn sites(&self) -> [PathBuf; 2] {
        self.folder.sites()
    }

    fn out(&self) -> PathBuf {
        self.folder.out()
    }

    fn request(&self) -> Request {
        self.folder.request(self.scene.board.root.verifying_key(), self.scene.heads())
    }

    async fn export(&self) -> Summary {
        self.folder.export(&self.request()).await
    }

    async fn export_as(&self, request: &Request) -> Summary {
        self.folder.export(request).await
    }

    fn index(&self) -> Vec<Line> {
        self.folder.index()
    }

    /// The batches of the index, put together again from prefix and payload.
    fn batches(&self) -> Vec<(Place, Batch)> {
        let of = |line: Line| {
            let Line::Batch(batch) = line else { return None };
            let payload = fs::read(self.out().join(&batch.file)).unwrap();
            Some((batch.place, Batch::from_bytes([batch.prefix, payload].concat()).unwrap()))
        };
        self.index().into_iter().filter_map(of).collect()
    }

    fn hashes(&self) -> BTreeSet<String> {
        self.batches().iter().map(|(_, batch)| batch.header().hash().to_string()).collect()
    }

    fn all_hashes(&self) -> BTreeSet<String> {
        self.scene.batches.iter().map(|batch| batch.header().hash().to_string()).collect()
    }
}

fn flip(path: &Path, position: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Goal: every batch of the school comes out, byte for byte, and none of another. Method: put them together again.
#[tokio::test]
async fn nothing_is_lost() {
    let town = Town::new();
    let summary = town.export().await;
    assert_eq!((summary.problems, summary.complete), (Vec::new(), true));
    assert_eq!((summary.batches, summary.changes), (5, 8));
    assert_eq!(town.hashes(), town.all_hashes());
    assert!(town.batches().iter().all(|(place, _)| *place == Place::Chain));
    let index = town.index();
    let verified = |line: &Line| match line {
        Line::Batch(batch) => batch.verified,
        Line::Manifest { verified, .. } | Line::Identity { verified, .. } | Line::Proof { verified, .. } => {
            *verified
        }
        Line::Snapshot(snapshot) => snapshot.verified,
        Line::Export { .. } | Line::WrappedKey { .. } | Line::Problem(_) | Line::End { .. } => true,
    };
    assert!(index.iter().all(verified));
    assert_eq!(index.iter().filter(|line| matches!(line, Line::WrappedKey { .. })).count(), 4);
    assert_eq!(index.iter().filter(|line| matches!(line, Line::Identity { .. })).count(), 2);
    assert!(town.out().join("BY-HAND.ja.md").exists());
}

/// Goal: damage at one site is told and costs nothing. Method: flip a bit in every object of one site in turn.
#[tokio::test]
async fn damage_at_one_site_costs_nothing() {
    let town = Town::new();
    for number in 0..3 {
        let path = Scene::object(&town.sites()[0], number);
        let length = town.scene.objects[number].len();
        for position in [0, length / 3, length - 1] {
            flip(&path, position);
            let summary = town.export().await;
            assert!(summary.complete, "{:?}", summary.problems);
            assert!(matches!(summary.problems[..], [Problem::DamagedCopy { .. }]), "{:?}", summary.problems);
            assert_eq!(town.hashes(), town.all_hashes());
            flip(&path, position);
        }
    }
}

/// Goal: what is damaged everywhere makes the export incomplete, and all other batches are there, also those
/// behind the damage. Method: flip a bit in the middle of each batch at both sites.
#[tokio::test]
async fn batches_behind_damage_are_saved() {
    let town = Town::new();
    for number in 0..3 {
        let object = &town.scene.objects[number];
        for record in records(object).0.iter().filter(|record| record.kind == Some(RecordKind::Batch)) {
            let position = record.offset + record.body.len() / 2;
            let Ok(hurt) = Batch::from_bytes(record.body.to_vec()) else { panic!("a batch") };
            if hurt.header().school.to_string() != SCHOOL {
                continue;
            }
            town.sites().iter().for_each(|site| flip(&Scene::object(site, number), position));
            let summary = town.export().await;
            assert!(!summary.complete);
            assert!(summary.problems.iter().any(|problem| matches!(problem, Problem::DamagedObject { .. })));
            let missing = summary
                .problems
                .iter()
                .any(|p| matches!(p, Problem::Gap { .. } | Problem::MissingHead { .. }));
            assert!(missing, "{:?}", summary.problems);
            let lost: BTreeSet<String> = town.all_hashes().difference(&town.hashes()).cloned().collect();
            assert_eq!(lost, BTreeSet::from([hurt.header().hash().to_string()]));
            town.sites().iter().for_each(|site| flip(&Scene::object(site, number), position));
        }
    }
}

/// Goal: a gap has its numbers; a missing end is only known by a witness. Method: remove objects at both sites.
#[tokio::test]
async fn what_is_missing_is_said() {
    let town = Town::new();
    let remove =
        |number| town.sites().iter().for_each(|site| fs::remove_file(Scene::object(site, number)).unwrap());
    remove(1);
    let summary = town.export().await;
    let log = town.scene.batches[0].header().log;
    assert!(summary.problems.contains(&Problem::Gap { log, first: 3, last: 3 }), "{:?}", summary.problems);
    assert_eq!(town.batches().iter().filter(|(place, _)| *place == Place::BehindAGap).count(), 1);
    remove(2);
    let blind = town.export_as(&Request { expect: Heads::new(), ..town.request() }).await;
    assert!(blind.complete, "{:?}", blind.problems);
    let summary = town.export().await;
    assert!(!summary.complete);
    assert!(
        summary.problems.contains(&Problem::MissingHead { log, expected: 5, held: 2 }),
        "{:?}",
        summary.problems
    );
}

/// Goal: a site that cannot be read makes the export incomplete, none at all is refused. Method: wrong paths.
#[tokio::test]
async fn an_unreadable_site_is_said() {
    let town = Town::new();
    let [a, _] = town.sites();
    let nowhere = town.folder.join("nowhere");
    let request = Request { sites: vec![a, nowhere.clone()], ..town.request() };
    let summary = town.export_as(&request).await;
    assert!(matches!(summary.problems[..], [Problem::Unreadable { .. }]) && !summary.complete);
    assert_eq!(town.hashes(), town.all_hashes());
    assert!(!nowhere.exists(), "an export makes no site");
    fs::remove_dir_all(town.out()).unwrap();
    let none = run(&Request { sites: vec![nowhere], ..town.request() }, &mut |_| {}).await;
    assert!(matches!(none, Err(ExportError::Sites(_))));
    let other = Request { school: "B113200000033".parse().unwrap(), ..town.request() };
    assert!(matches!(run(&other, &mut |_| {}).await, Err(ExportError::Nothing { .. })));
}

/// Goal: "not verified" is never a pass, and loses nothing. Method: no root, another board's root.
#[tokio::test]
async fn without_the_root_nothing_counts_as_verified() {
    let town = Town::new();
    let summary = town.export_as(&Request { root: None, ..town.request() }).await;
    assert_eq!((summary.problems, summary.complete), (vec![Problem::NoRoot], false));
    assert_eq!(town.hashes(), town.all_hashes());
    let other = Board::new().root.verifying_key();
    let summary = town.export_as(&Request { root: Some(other), ..town.request() }).await;
    assert!(!summary.complete);
    let count =
        |wanted: fn(&Problem) -> bool| summary.problems.iter().filter(|problem| wanted(problem)).count();
    assert_eq!(count(|problem| matches!(problem, Problem::UnverifiedBatch { .. })), 5);
    assert_eq!(count(|problem| matches!(problem, Problem::UnverifiedDocument { .. })), 3);
    assert_eq!(town.hashes(), town.all_hashes());
}

/// Goal: both branches of a fork come out, under names of their own, and records of later versions are told.
/// Method: an object with a second batch 2 and a record of kind 9 behind the others.
#[tokio::test]
async fn forks_and_unknown_records_are_told() {
    let town = Town::new();
    let after = town.scene.batches[0].header().head();
    let rival = town.scene.seal(0, Tier::Safety, 2026, after, "{}\n");
    let mut object = Vec::new();
    append(&mut object, RecordKind::Batch, rival.bytes());
    let mut later = vec![9, 0, 0, 0, 1, 7];
    later.extend_from_slice(&blake3::hash(&later).as_bytes()[..8]);
    object.extend(later);
    fs::write(Scene::object(&town.sites()[1], 3), object).unwrap();
    let summary = town.export().await;
    assert!(summary.problems.iter().any(|problem| matches!(problem, Problem::UnknownRecord { .. })));
    assert!(summary.problems.iter().any(|problem| matches!(problem, Problem::Fork { .. })));
    assert_eq!(town.batches().len(), 6);
    // The one that was written later is in the chain; what followed the other is a fork as well.
    let forks = town.batches().iter().filter(|(place, _)| *place == Place::Fork).count();
    assert_eq!(forks, 2);
}

/// Goal: the program says what is missing, ends with 7 then, writes into no full directory, and does not disturb
/// a node. Method: run it, with a lock on the site as a node has it.
#[test]
fn the_program_says_it() {
    let town = Town::new();
    let lock = fs::File::open(town.sites()[0].join("site.json")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let root = data_encoding::HEXLOWER.encode(town.scene.board.root.verifying_key().as_bytes());
    let export = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-cloud"));
        command.args(["export", "--school", SCHOOL, "--out"]).arg(town.out());
        town.sites().iter().for_each(|site| {
            command.arg("--site").arg(site);
        });
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, said, told) = export(&["--root", &root]);
    assert_eq!(code, Some(0), "{told}");
    assert!(said.contains("5 batches with 8 changes") && said.contains("only --expect can tell"), "{said}");
    assert!(told.contains("6 of 6 objects"), "{told}");
    let (code, _, told) = export(&["--root", &root]);
    assert_eq!(code, Some(2));
    assert!(told.contains("is not empty"), "{told}");

    fs::remove_dir_all(town.out()).unwrap();
    let heads = town.folder.join("heads.json");
    let log = town.scene.batches[0].header().log;
    let ahead = Heads::from([(log, LogHead { sequence: 9, ..LogHead::EMPTY })]);
    fs::write(&heads, serde_json::to_string(&ahead).unwrap()).unwrap();
    let (code, said, told) = export(&["--root", &root, "--expect", heads.to_str().unwrap()]);
    assert_eq!(code, Some(7), "{told}");
    assert!(
        told.contains("change 9 was expected, the sites have 5") && said.contains("不完全"),
        "{told}{said}"
    );
    fs::remove_dir_all(town.out()).unwrap();
    let (code, said, _) = export(&[]);
    assert_eq!(code, Some(7));
    assert!(said.contains("not verified"), "{said}");
}

/// Goal: an export leaves out every wrapped copy of a destroyed key and says so, and that no snapshot tells what still stands
/// of it. Method: the order at the sites beside the older documents; search all files.
#[tokio::test]
async fn a_destroyed_key_is_not_exported() {
    let town = Town::new();
    let key_use = KeyUse::Tier(Tier::Daily);
    let named = |documents: &KeyDocuments| {
        documents.wrapped_keys.iter().find(|key| (key.key_use, key.epoch) == (key_use, 2026)).cloned()
    };
    let wrapped = named(&town.scene.documents).unwrap().file;
    let everywhere = |needle: &[u8]| {
        let mut paths = vec![town.out()];
        let mut is_found = false;
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                is_found |= fs::read(&path).unwrap().windows(needle.len()).any(|part| part == needle);
            }
        }
        is_found
    };
    town.export().await;
    assert!(everywhere(&wrapped), "the search finds what is there");
    town.sites().iter().for_each(|site| town.scene.destroy(site, &[(key_use, 2026)]));
    let summary = town.export().await;
    let (key, log) = ("tier1-2026".to_owned(), town.scene.batches[4].header().log);
    let uncovered = Problem::Uncovered { key: key.clone(), log, first: 1, last: 1 };
    assert_eq!(summary.problems, [Problem::KeyDestroyed { key }, uncovered]);
    assert!(!summary.complete);
    assert!(!everywhere(&wrapped));
    assert_eq!(town.hashes(), town.all_hashes(), "the batches stay, for auditors");
}

/// Goal: what a revoked device wrote behind what the board accepts is written, and not where a person who reads by hand
/// looks for the school's changes. Method: the board's word behind the first of three batches; places and files.
#[tokio::test]
async fn a_revoked_device_is_written_aside() {
    let town = Town::new();
    let words = town.scene.revoking(town.scene.batches[0].header().head());
    let mut object = Vec::new();
    append(&mut object, RecordKind::Keys, &words);
    town.sites().iter().for_each(|site| fs::write(Scene::object(site, 9), &object).unwrap());
    let summary = town.export().await;
    assert!(summary.complete, "{:?}", summary.problems);
    assert_eq!(summary.changes, 2);
    let place = |line: Line| {
        let Line::Batch(batch) = line else { return None };
        Some((batch.place == Place::Quarantined, batch.file.split('/').next().unwrap().to_owned()))
    };
    let mut places: Vec<_> = town.index().into_iter().filter_map(place).collect();
    places.sort();
    let aside = (true, "quarantine".to_owned());
    assert_eq!(places, [vec![(false, "batches".to_owned())], vec![aside; 4]].concat());
    assert_eq!(town.hashes(), town.all_hashes(), "nothing is left out");
}
