//! Snapshots in an export: which are written, and what is said where they lack something.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
#[path = "export/folder.rs"]
mod folder;
#[path = "export/scene.rs"]
mod scene;
#[path = "export/year.rs"]
mod year;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::board::SCHOOL;
use folder::Folder;
use scene::Scene;
use sonae_cloud::export::audit::{self, Completeness, Question};
use sonae_cloud::export::{Request, Summary};
use sonae_proto::export::{Line, Problem, SnapshotLine};
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::manifest::KeyUse;
use sonae_proto::object::{RECORD_OVERHEAD_BYTES, RecordKind, append};
use sonae_proto::snapshot::{PartName, Snapshot, SnapshotRoot};
use sonae_proto::vector::{Heads, LogHead};
use year::{SNAPSHOTS_FROM, Year};

/// The snapshots of [`Year`], by their place.
const EARLY: usize = 0;
const SAFETY: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 3;

struct Town {
    folder: Folder,
    year: Year,
}

impl Town {
    fn new(year: Year) -> Self {
        let town = Self { folder: Folder::new(), year };
        town.sites().iter().for_each(|site| town.year.fill(site));
        town
    }

    fn sites(&self) -> [PathBuf; 2] {
        self.folder.sites()
    }

    fn out(&self) -> PathBuf {
        self.folder.out()
    }

    fn request(&self) -> Request {
        self.folder.request(self.year.scene.board.root.verifying_key(), Heads::new())
    }

    async fn export(&self) -> Summary {
        self.folder.export(&self.request()).await
    }

    async fn export_as(&self, request: &Request) -> Summary {
        self.folder.export(request).await
    }

    fn snapshots(&self) -> Vec<SnapshotLine> {
        let snapshot = |line| if let Line::Snapshot(snapshot) = line { Some(*snapshot) } else { None };
        self.folder.index().into_iter().filter_map(snapshot).collect()
    }

    /// Which snapshots of the scene were written, and whether they are whole.
    fn written(&self) -> Vec<(usize, bool)> {
        let place = |line: &SnapshotLine| {
            self.year.snapshots.iter().position(|made| made.snapshot.hash() == line.hash).unwrap()
        };
        self.snapshots().iter().map(|line| (place(line), line.whole)).collect()
    }

    fn log(&self, life: usize, tier: Tier) -> LogName {
        LogName { tier, incarnation: self.year.scene.lives[life].name }
    }

    /// Puts one more object to both sites.
    fn put(&self, number: usize, records: &[(RecordKind, &[u8])]) {
        let mut object = Vec::new();
        for (kind, body) in records {
            append(&mut object, *kind, body);
        }
        self.sites().iter().for_each(|site| fs::write(Scene::object(site, number), &object).unwrap());
    }
}

fn destroyed() -> [Problem; 2] {
    ["tier0-2026", "tier1-2026"].map(|key| Problem::KeyDestroyed { key: key.to_owned() })
}

/// Goal: a destroyed year that snapshots cover is no fault, and what covers it is written, byte for byte, with what the
/// index has to say of it. Method: look at each file; an older snapshot that tells nothing more is left out.
#[tokio::test]
async fn a_destroyed_year_is_in_snapshots() {
    let town = Town::new(Year::new());
    let summary = town.export().await;
    assert_eq!(summary.problems, destroyed());
    assert!(summary.complete);
    assert_eq!(summary.snapshots, 3);
    assert_eq!(town.written(), [(SAFETY, true), (FIRST, true), (SECOND, true)]);
    for line in town.snapshots() {
        let made = town.year.snapshots.iter().find(|made| made.snapshot.hash() == line.hash).unwrap();
        let root = made.snapshot.root();
        assert_eq!((line.tier, line.epoch, line.author), (root.tier, 2027, root.author));
        assert_eq!((line.changes, line.records), (root.changes(), root.records));
        assert!(line.verified && line.parts > 1);
        assert_eq!(fs::read_to_string(town.out().join(&line.root_file)).unwrap(), made.snapshot.text());
        let parts: Vec<PartName> =
            line.files.iter().map(|file| PartName::of(&fs::read(town.out().join(file)).unwrap())).collect();
        assert_eq!(parts, root.parts);
    }
}

/// Goal: what only a snapshot of the second box holds is told when that is not there, by the program with exit code 7, and
/// by an audit. Method: the year without it; two changes of the second box, sealed to the destroyed key.
#[tokio::test]
async fn what_no_snapshot_covers_is_told() {
    let town = Town::new(Year::without_the_second_box());
    let log = town.log(1, Tier::Daily);
    let uncovered = Problem::Uncovered { key: "tier1-2026".into(), log, first: 3, last: 3 };
    let summary = town.export().await;
    assert_eq!(summary.problems, [destroyed().to_vec(), vec![uncovered.clone()]].concat());
    assert!(!summary.complete);
    assert_eq!(town.written(), [(SAFETY, true), (FIRST, true)]);

    let root = data_encoding::HEXLOWER.encode(town.year.scene.board.root.verifying_key().as_bytes());
    fs::remove_dir_all(town.out()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-cloud"));
    command.args(["export", "--school", SCHOOL, "--root", &root, "--out"]).arg(town.out());
    for site in town.sites() {
        command.arg("--site").arg(site);
    }
    let output = command.output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("changes 3 to 3 are sealed to the destroyed key tier1-2026"), "{told}");
    assert!(said.contains("and 2 snapshots of") && said.contains("スナップショット 2 件"), "{said}");

    let (school, key) = (SCHOOL.parse().unwrap(), town.year.scene.board.root.verifying_key());
    let question = Question { school, root: key, expect: town.year.scene.heads() };
    let verdict = audit::of_directories(&question, &town.sites(), &mut |_| {}).await.unwrap();
    assert_eq!(verdict.completeness, Completeness::Incomplete);
    assert!(verdict.summary.problems.contains(&uncovered));
}

/// Goal: without any snapshot all of the year is told to be lost, log by log. Method: the objects of snapshots removed.
#[tokio::test]
async fn a_year_without_any_snapshot_is_lost() {
    let town = Town::new(Year::new());
    for number in SNAPSHOTS_FROM..SNAPSHOTS_FROM + town.year.snapshots.len() {
        town.sites().iter().for_each(|site| fs::remove_file(Scene::object(site, number)).unwrap());
    }
    let summary = town.export().await;
    let uncovered = |life, tier: Tier, last| {
        let key = format!("{}-2026", if tier == Tier::Safety { "tier0" } else { "tier1" });
        Problem::Uncovered { key, log: town.log(life, tier), first: 1, last }
    };
    for expected in [
        uncovered(0, Tier::Safety, 8),
        uncovered(1, Tier::Safety, 3),
        uncovered(0, Tier::Daily, 3),
        uncovered(1, Tier::Daily, 3),
    ] {
        assert!(summary.problems.contains(&expected), "{expected:?} in {:?}", summary.problems);
    }
    assert_eq!((summary.problems.len(), summary.complete, summary.snapshots), (6, false, 0));
}

/// Goal: a part that is missing at one site costs nothing, and at both is told; then the older snapshot that is whole
/// stands in, and what is left of the newer is written too. Method: drop a part of the newest of tier 0.
#[tokio::test]
async fn a_missing_part_is_told() {
    let town = Town::new(Year::new());
    let [a, b] = town.sites();
    town.year.drop_parts(&a, SAFETY, &[1]);
    assert!(town.export().await.complete);
    town.year.drop_parts(&b, SAFETY, &[1]);
    let summary = town.export().await;
    let root = town.year.snapshots[SAFETY].snapshot.root();
    let (tier, author, changes) = (root.tier, root.author, root.changes());
    let damaged = Problem::SnapshotNotWhole { tier, author, changes, missing: vec![1] };
    assert_eq!(summary.problems, [destroyed().to_vec(), vec![damaged]].concat());
    assert!(!summary.complete);
    assert_eq!(town.written(), [(EARLY, true), (SAFETY, false), (FIRST, true), (SECOND, true)]);
    let line = town.snapshots().remove(1);
    assert_eq!(line.parts, u64::try_from(line.files.len()).unwrap() + 1);
    assert!(line.files.iter().all(|file| !file.ends_with("000001.age") && town.out().join(file).exists()));
}

/// Goal: of what only a damaged snapshot holds as much is written as there is, and it does not count as covered. Method:
/// drop a part of the second box's snapshot at both sites.
#[tokio::test]
async fn a_damaged_snapshot_covers_nothing() {
    let town = Town::new(Year::new());
    town.sites().iter().for_each(|site| town.year.drop_parts(site, SECOND, &[0]));
    let summary = town.export().await;
    assert_eq!(town.written(), [(SAFETY, true), (FIRST, true), (SECOND, false)]);
    let log = town.log(1, Tier::Daily);
    let uncovered = Problem::Uncovered { key: "tier1-2026".into(), log, first: 3, last: 3 };
    assert!(summary.problems.contains(&uncovered), "{:?}", summary.problems);
    assert!(summary.problems.iter().any(|problem| matches!(problem, Problem::SnapshotNotWhole { .. })));
}

/// Goal: a flipped bit in a part at one site costs nothing; at both sites it costs that part alone, and what lies behind it in
/// the object is found. Method: flip one in the first part of a snapshot.
#[tokio::test]
async fn a_flipped_bit_in_a_part_is_seen() {
    let town = Town::new(Year::new());
    let part = &town.year.snapshots[FIRST].parts[0];
    let object = &town.year.scene.objects[SNAPSHOTS_FROM + FIRST];
    let at = object.windows(part.len()).position(|window| window == &part[..]).unwrap() + part.len() / 2;
    let flip = |site: &PathBuf| {
        let path = Scene::object(site, SNAPSHOTS_FROM + FIRST);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let [a, b] = town.sites();
    flip(&a);
    let summary = town.export().await;
    assert!(summary.complete && town.written().contains(&(FIRST, true)), "{:?}", summary.problems);
    assert!(summary.problems.iter().any(|problem| matches!(problem, Problem::DamagedCopy { .. })));
    flip(&b);
    let summary = town.export().await;
    assert!(!summary.complete && town.written().contains(&(FIRST, false)), "{:?}", summary.problems);
    assert!(summary.problems.iter().any(|problem| matches!(problem, Problem::DamagedObject { .. })));
    let is_first =
        |problem: &&Problem| matches!(problem, Problem::SnapshotNotWhole { missing, .. } if *missing == [0]);
    assert_eq!(summary.problems.iter().filter(is_first).count(), 1, "{:?}", summary.problems);
}

/// Goal: a snapshot names ends of logs that were durable, so a cloud that has lost them is found out without any witness;
/// and what of them stands is in the snapshot. Method: remove the object with all batches at both sites.
#[tokio::test]
async fn a_lost_end_shows_in_a_snapshot() {
    let town = Town::new(Year::new());
    town.sites().iter().for_each(|site| fs::remove_file(Scene::object(site, 1)).unwrap());
    let summary = town.export().await;
    let missing = Problem::MissingHead { log: town.log(0, Tier::Safety), expected: 10, held: 0 };
    assert!(summary.problems.contains(&missing) && !summary.complete, "{:?}", summary.problems);
    assert_eq!(town.written(), [(SAFETY, true), (FIRST, true), (SECOND, true)]);
}

/// Goal: a snapshot of another history than that of the chains is not taken. Method: the same sequence with another hash.
#[tokio::test]
async fn a_snapshot_of_another_history_is_not_written() {
    let town = Town::new(Year::new());
    let made = &town.year.snapshots[SAFETY];
    let mut root = made.snapshot.root().clone();
    let log = town.log(0, Tier::Safety);
    root.heads.insert(log, LogHead { sequence: 10, ..LogHead::EMPTY });
    root.records += 1;
    let life = &town.year.scene.lives[0];
    let other = Snapshot::sign(root, &life.key).unwrap();
    town.sites()
        .iter()
        .for_each(|site| fs::remove_file(Scene::object(site, SNAPSHOTS_FROM + SAFETY)).unwrap());
    town.put(7, &[(RecordKind::Snapshot, other.text().as_bytes())]);
    for (number, part) in made.parts.iter().enumerate() {
        town.put(20 + number, &[(RecordKind::SnapshotPart, part)]);
    }
    assert!(!town.export().await.complete, "it contradicts the chain");
    assert_eq!(town.written(), [(EARLY, true), (FIRST, true), (SECOND, true)]);
}

/// Goal: a snapshot that nobody can open is not taken for the newest, and does not cover anything. Method: one under the
/// destroyed key that adds up more than the only other of its tier.
#[tokio::test]
async fn a_snapshot_under_a_destroyed_key_is_not_written() {
    let town = Town::new(Year::new());
    let made = &town.year.snapshots[SAFETY];
    let root = SnapshotRoot { epoch: 2026, ..made.snapshot.root().clone() };
    let closed = Snapshot::sign(root, &town.year.scene.lives[0].key).unwrap();
    for site in town.sites() {
        town.year.drop_parts(&site, SAFETY, &[]);
        let path = Scene::object(&site, SNAPSHOTS_FROM + SAFETY);
        let text = made.snapshot.text().as_bytes();
        let mut object = fs::read(&path).unwrap();
        object.truncate(object.len() - text.len() - RECORD_OVERHEAD_BYTES);
        append(&mut object, RecordKind::Snapshot, closed.text().as_bytes());
        fs::write(&path, object).unwrap();
    }
    assert_eq!(town.export().await.problems, destroyed());
    assert_eq!(town.written(), [(EARLY, true), (FIRST, true), (SECOND, true)]);
}

/// Goal: a snapshot that is sealed to a key of which no wrapped file is here is no use, and that is said. Method: no batches,
/// and documents without that key.
#[tokio::test]
async fn a_snapshot_without_its_key_is_told() {
    let town = Town::new(Year::new());
    for site in town.sites() {
        fs::remove_file(Scene::object(&site, 1)).unwrap();
        town.year.strip(&site, &[(KeyUse::Tier(Tier::Safety), 2027)]);
    }
    let summary = town.export().await;
    let missing = Problem::KeyMissing { key: "tier0-2027".into() };
    assert!(summary.problems.contains(&missing), "{:?}", summary.problems);
}

/// Goal: what the author has not signed, and what nobody knows, is written aside and told. Method: a changed number.
#[tokio::test]
async fn a_forged_snapshot_is_set_aside() {
    let town = Town::new(Year::new());
    let text = town.year.snapshots[SAFETY].snapshot.text().replacen("\"records\":", "\"records\":1", 1);
    town.put(7, &[(RecordKind::Snapshot, text.as_bytes()), (RecordKind::Snapshot, b"no root")]);
    let summary = town.export().await;
    let foreign = summary.problems.iter().filter(|problem| matches!(problem, Problem::UnverifiedDocument { file, .. } if file.starts_with("foreign/snapshot-")));
    assert_eq!((foreign.count(), summary.complete), (2, false));
    assert_eq!(town.written(), [(SAFETY, true), (FIRST, true), (SECOND, true)]);
}

/// Goal: a snapshot by a device that is revoked brings a state that nobody can check, so it is not written. Method: the
/// board's word on the device of both boxes, which accepts all that the snapshot adds up.
#[tokio::test]
async fn a_revoked_author_is_not_believed() {
    let town = Town::new(Year::new());
    let made = &town.year.snapshots[SAFETY];
    let (log, root) = (town.log(0, Tier::Safety), made.snapshot.root());
    let head = root.heads[&log];
    let root = SnapshotRoot { heads: Heads::from([(log, head)]), ..root.clone() };
    let own = Snapshot::sign(root, &town.year.scene.lives[0].key).unwrap();
    town.put(7, &[(RecordKind::Snapshot, own.text().as_bytes())]);
    town.put(10, &[(RecordKind::Keys, &town.year.scene.revoking(head))]);
    let summary = town.export().await;
    assert_eq!((summary.snapshots, summary.complete), (0, false));
    let uncovered = |last| Problem::Uncovered { key: "tier0-2026".into(), log, first: 1, last };
    assert!(summary.problems.contains(&uncovered(8)), "{:?}", summary.problems);
}

/// Goal: nor is one written that holds more of a revoked device than the board accepts, whoever made it. Method: a third
/// box, that has seen everything; then the board's word on the others.
#[tokio::test]
async fn more_than_the_board_accepts_is_not_believed() {
    let town = Town::new(Year::new());
    let life = town.year.scene.board.device(SCHOOL).life(Beginning::Enrolment, 1);
    let made = &town.year.snapshots[SAFETY];
    let root = SnapshotRoot { author: life.name, ..made.snapshot.root().clone() };
    let third = Snapshot::sign(root, &life.key).unwrap();
    let identity = serde_json::to_vec(&life.text).unwrap();
    town.put(6, &[(RecordKind::Identity, &identity)]);
    town.put(7, &[(RecordKind::Snapshot, third.text().as_bytes())]);
    town.export().await;
    let is_third = |line: &SnapshotLine| line.author == life.name;
    assert!(town.snapshots().iter().any(is_third), "of two that are equal the one that came later");
    let accepted = town.year.scene.batches[0].header().head();
    town.put(10, &[(RecordKind::Keys, &town.year.scene.revoking(accepted))]);
    let summary = town.export().await;
    assert_eq!(summary.snapshots, 0, "{:?}", town.snapshots());
}

/// Goal: what lies behind a gap is part of the school's data, and if its key is destroyed it is told too. Method: no
/// snapshots, and the first batch missing.
#[tokio::test]
async fn changes_behind_a_gap_are_told() {
    let town = Town::new(Year::new());
    let batches = &town.year.scene.batches;
    let left: Vec<_> = batches[1..].iter().map(|batch| (RecordKind::Batch, batch.bytes())).collect();
    town.put(1, &left);
    for number in SNAPSHOTS_FROM..SNAPSHOTS_FROM + town.year.snapshots.len() {
        town.sites().iter().for_each(|site| fs::remove_file(Scene::object(site, number)).unwrap());
    }
    let summary = town.export().await;
    let log = town.log(0, Tier::Safety);
    assert!(summary.problems.contains(&Problem::Gap { log, first: 1, last: 4 }));
    let uncovered = Problem::Uncovered { key: "tier0-2026".into(), log, first: 5, last: 8 };
    assert!(summary.problems.contains(&uncovered), "{:?}", summary.problems);
}

/// Goal: without the board's key all is written and nothing called verified, and no order of the board is believed. Method:
/// no root.
#[tokio::test]
async fn without_the_root_a_snapshot_is_not_verified() {
    let town = Town::new(Year::new());
    let summary = town.export_as(&Request { root: None, ..town.request() }).await;
    assert_eq!((summary.problems, summary.complete), (vec![Problem::NoRoot], false));
    assert!(town.snapshots().iter().all(|line| line.whole && !line.verified));
    assert_eq!(town.written(), [(SAFETY, true), (FIRST, true)], "nothing is known to be destroyed");
}
