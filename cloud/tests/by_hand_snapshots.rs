//! Reading without our software what only snapshots tell (P8): a year whose keys are destroyed, read with the page and
//! the stock tools, is what the product makes of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
#[path = "export/history.rs"]
mod history;
#[path = "export/page.rs"]
mod page;
#[path = "export/scene.rs"]
mod scene;
#[path = "export/year.rs"]
mod year;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use common::board::SCHOOL;
use page::{BLESS, blocks, copy, page, require_tools, tree, type_in, without_this_machine};
use scene::Scene;
use serde_json::{Value, json};
use sonae_cloud::export::{Request, run};
use sonae_proto::export::Line;
use sonae_proto::object::{RecordKind, append};
use sonae_proto::snapshot::{Snapshot, SnapshotRoot};
use year::Year;

/// Snapshots of every version: their folder, and whether roots named parts by SHA-256, so that parts are found in a site
/// without our program.
const FIXTURES: [(&str, bool); 2] = [("by-hand-v2", false), ("by-hand-v3", true)];

/// What a person types with an export: the keys, all changes, the records.
const EXPORT: Range<usize> = 1..4;

/// And with a site alone.
const SITE: Range<usize> = 0..4;

/// Seeds of histories.
const SEEDS: Range<u64> = 1..6;

type Records = BTreeMap<(String, String), Value>;

/// Writes what a board would have: the recovery key, an export, and the site that it came from.
fn make(directory: &Path, sha256: bool) -> Year {
    export(directory, Year::of(sha256))
}

fn export(directory: &Path, year: Year) -> Year {
    let site = directory.join("site");
    fs::create_dir_all(directory).unwrap();
    year.fill(&site);
    year.scrub(&site);
    fs::write(directory.join("recovery.key"), year.scene.recovery_file()).unwrap();
    let request = Request {
        school: SCHOOL.parse().unwrap(),
        out: directory.join("export"),
        sites: vec![site],
        root: Some(year.scene.board.root.verifying_key()),
        expect: year.scene.heads(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let summary = runtime.block_on(run(&request, &mut |_| {})).unwrap();
    assert!(summary.complete, "{:?}", summary.problems);
    year
}

/// Reads with the page. Returns what was complained of, and the records.
fn read(directory: &Path, steps: Range<usize>) -> (Vec<String>, Records) {
    let output = type_in(directory, &blocks(&page("en"))[steps]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    let told = told.lines().filter(|line| !line.starts_with("age: ") && !line.is_empty());
    let records = fs::read_to_string(directory.join("records.jsonl")).unwrap();
    (told.map(str::to_owned).collect(), parse(&records))
}

fn parse(records: &str) -> Records {
    let parse = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| record[key].as_str().unwrap().to_owned();
        ((text("collection"), text("record")), record["fields"].clone())
    };
    let parsed: Vec<_> = records.lines().map(parse).collect();
    let count = parsed.len();
    let records: Records = parsed.into_iter().collect();
    assert_eq!(records.len(), count, "one line for each record");
    records
}

/// What is said of batches that nobody can open: a line for each log and key.
fn closed(told: &[String]) -> usize {
    told.iter()
        .filter(|line| line.starts_with("no key for: export/batches/tier") && line.contains("-2026/"))
        .count()
}

/// Goal: what still stands of a destroyed year, and what was written since, is one state by hand, and it is the product's:
/// records, fields, and all heads. Method: the page on an export, against the fold of all lines; then what the scene is
/// made of is looked for, so that it cannot have gone out of both.
#[test]
fn a_destroyed_year_is_read_with_the_page() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    let year = make(directory.path(), true);
    let (told, records) = read(directory.path(), EXPORT);
    assert_eq!((closed(&told), told.len()), (4, 4), "{told:?}");
    assert_eq!(records, year.records());

    let of =
        |collection: &str, record: &str| records.get(&(collection.to_owned(), record.to_owned())).cloned();
    let pupil = of("student", "p1").unwrap();
    assert_eq!(pupil["given_name"], json!({"disputed": ["華子", "はな"]}), "both heads stand");
    assert_eq!(pupil["seat"], json!({"disputed": [3, 2]}), "one head of the snapshot, one behind it");
    assert_eq!(pupil["note"], "新しい", "what was replaced before it came does not come back");
    assert_eq!(
        of("student", "p2").unwrap(),
        json!({"family_name": "架空二"}),
        "carried over twice, replaced once"
    );
    assert_eq!(of("guardian_contact", "p1/1").unwrap(), json!({"phone": "03-0000-0001"}));
    assert_eq!(
        of("attendance", "2026-04-09/p1/day").unwrap(),
        json!({"code": "absent_sick"}),
        "of the second box"
    );
    assert!(!records.keys().any(|(_, record)| record.contains("p9")), "an erased pupil stays erased");
    let stones = records.keys().filter(|(collection, _)| collection.starts_with("erased.")).count();
    assert_eq!(stones, 2);
}

/// Goal: with the snapshots away what the test above compares is missing. Method: the same without their folder.
#[test]
fn without_snapshots_the_year_is_gone() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    let year = make(directory.path(), true);
    fs::remove_dir_all(directory.path().join("export/snapshots")).unwrap();
    let (_, records) = read(directory.path(), EXPORT);
    let expected = year.records();
    let lost = expected.keys().filter(|key| !records.contains_key(*key)).count();
    assert!(lost >= 4, "{lost}");
    assert!(records.keys().any(|(_, record)| record.contains("p9")), "what was erased can be opened");
}

/// Goal: whatever two boxes wrote, and whatever of it lies in whose snapshot, by hand it is what the product has. Method:
/// histories by seed; the first half of each is sealed to the destroyed key.
#[test]
fn any_history_is_read_as_the_product_has_it() {
    require_tools();
    let (mut disputed, mut two) = (0, 0);
    for seed in SEEDS {
        let directory = tempfile::tempdir().unwrap();
        let year = export(directory.path(), history::of_seed(seed));
        let (told, records) = read(directory.path(), EXPORT);
        assert_eq!(closed(&told), told.len(), "seed {seed}: {told:?}");
        assert_eq!(records, year.records(), "seed {seed}");
        disputed += usize::from(records.values().any(|fields| fields.to_string().contains("disputed")));
        two += usize::from(
            fs::read_dir(directory.path().join("export/snapshots/tier1-2027")).unwrap().count() == 2,
        );
    }
    assert!(disputed > 0 && two > 0, "{disputed} with disputes, {two} with two snapshots");
}

/// Goal: a site reads without any program of ours, snapshots too: what is exported is found there, and the state is the
/// product's. Method: all blocks on the site alone; then compare with the export. Found besides are an older snapshot, and
/// one under the destroyed key, which is named and passed over.
#[test]
fn a_destroyed_year_is_read_from_a_site() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    let year = make(directory.path(), true);
    let early = year.snapshots[0].snapshot.root();
    let closed_root = SnapshotRoot { epoch: 2026, ..early.clone() };
    let closed_root = Snapshot::sign(closed_root, &year.scene.lives[0].key).unwrap();
    let mut object = Vec::new();
    append(&mut object, RecordKind::Snapshot, closed_root.text().as_bytes());
    fs::write(Scene::object(&directory.path().join("site"), 20), object).unwrap();

    let exported = directory.path().join("export");
    let tops = ["batches/", "keys/tier", "keys/digest", "snapshots/"];
    let is_sealed = |name: &str| tops.iter().any(|top| name.starts_with(top));
    let expected: BTreeMap<_, _> = tree(&exported).into_iter().filter(|(name, _)| is_sealed(name)).collect();
    fs::remove_dir_all(&exported).unwrap();
    let (told, records) = read(directory.path(), SITE);
    let folder = |epoch: u32| format!("snapshots/tier0-{epoch}/{}-{:012}", early.author, early.changes());
    assert_eq!((closed(&told), told.len()), (4, 5), "{told:?}");
    assert_eq!(told[4], format!("no key for: export/{}", folder(2026)));
    assert_eq!(records, year.records());
    let mut found = tree(&exported);
    let is_found = |(name, bytes): (&String, &Vec<u8>)| found.remove(name).as_ref() == Some(bytes);
    assert!(expected.len() > 20 && expected.iter().all(is_found));
    let others = [folder(2026), folder(2027)];
    let is_other = |name: &String| others.iter().any(|folder| name.starts_with(folder));
    assert!(!found.is_empty() && found.keys().all(is_other), "{:?}", found.keys());
    assert!(!directory.path().join("incomplete").exists());
}

/// Goal: a snapshot that is not whole at a site is set aside there. Method: a part less, all blocks.
#[test]
fn a_site_with_a_missing_part_sets_the_snapshot_aside() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    let year = make(directory.path(), true);
    fs::remove_dir_all(directory.path().join("export")).unwrap();
    year.drop_parts(&directory.path().join("site"), 1, &[1]);
    let (told, records) = read(directory.path(), SITE);
    assert_eq!((closed(&told), told.len()), (4, 4), "{told:?}");
    assert_eq!(records, year.records(), "an older one is whole, and the rest can be opened");
    let aside = tree(&directory.path().join("incomplete/tier0-2027"));
    assert!(aside.keys().filter(|name| name.ends_with(".age")).count() >= 2, "{:?}", aside.keys());
}

/// Does something to one part of an export, and reads the rest.
fn read_damaged(change: impl FnOnce(&Path)) -> (Vec<String>, Records, Records) {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    let year = make(directory.path(), true);
    let snapshots = directory.path().join("export/snapshots");
    let victim =
        tree(&snapshots).into_keys().find(|name| name.starts_with("tier0-") && name.ends_with("000001.age"));
    change(&snapshots.join(victim.unwrap()));
    let (told, records) = read(directory.path(), EXPORT);
    (told, records, year.records())
}

/// A part less costs its records, and nothing that stands elsewhere: what the snapshot has seen no longer counts as
/// replaced by what cannot be read.
fn costs_itself((told, records, expected): (Vec<String>, Records, Records)) {
    let count = |what: &str| told.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!((closed(&told), count("does not open: "), count("not whole: ")), (4, 1, 1), "{told:?}");
    let of_tier = |tier: u8, records: &Records| -> Records {
        let is_daily =
            |(collection, _): &(String, String)| collection == "attendance" || collection == "erased.daily";
        records
            .iter()
            .filter(|(key, _)| is_daily(key) == (tier == 1))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    assert_eq!(of_tier(1, &records), of_tier(1, &expected), "another tier's snapshots are whole");
    let (here, there) = (of_tier(0, &records), of_tier(0, &expected));
    assert_ne!(here, there);
    assert!(here.keys().filter(|key| there.contains_key(*key)).count() >= 3, "{here:?}");
    let seat = &here[&("student".to_owned(), "p1".to_owned())]["seat"];
    let seat = seat["disputed"].as_array().unwrap();
    assert!(seat.contains(&json!(3)) && seat.contains(&json!(2)), "what can be opened is read: {seat:?}");
}

/// Goal: a part that is missing is named, and the rest is read. Method: remove one of an export.
#[test]
fn a_missing_part_costs_itself() {
    costs_itself(read_damaged(|part| fs::remove_file(part).unwrap()));
}

/// Goal: one flipped bit in a part costs that part, and is named. Method: flip one in the middle of an exported part.
#[test]
fn a_flipped_bit_costs_its_part() {
    costs_itself(read_damaged(|part| {
        let mut bytes = fs::read(part).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(part, bytes).unwrap();
    }));
}

/// Pins a fixture with what is to be read from it.
fn bless(pinned: &Path, sha256: bool) {
    let directory = tempfile::tempdir().unwrap();
    let year = make(directory.path(), sha256);
    without_this_machine(directory.path());
    let records = year.records().into_iter().map(|((collection, record), fields)| {
        format!("{}\n", json!({"collection": collection, "record": record, "fields": fields}))
    });
    fs::write(directory.path().join("expected.jsonl"), records.collect::<String>()).unwrap();
    copy(directory.path(), pinned);
}

/// Goal: snapshots of every version that was ever exported stay readable. Method: the page on the pinned files, against
/// what the product made of them on that day; an export, and a site if its roots name what a person can find.
#[test]
fn every_version_of_snapshots_stays_readable() {
    require_tools();
    for (fixture, sha256) in FIXTURES {
        let pinned = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
        if !pinned.exists() && std::env::var_os(BLESS).is_some() {
            bless(&pinned, sha256);
        }
        let index = fs::read_to_string(pinned.join("export/index.jsonl")).unwrap();
        let lines: Vec<Line> = index.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(matches!(lines.last(), Some(Line::End { complete: true, snapshots: 3, .. })), "{fixture}");
        let expected = parse(&fs::read_to_string(pinned.join("expected.jsonl")).unwrap());
        let directory = tempfile::tempdir().unwrap();
        copy(&pinned.join("export"), &directory.path().join("export"));
        fs::copy(pinned.join("recovery.key"), directory.path().join("recovery.key")).unwrap();
        let (told, records) = read(directory.path(), EXPORT);
        assert_eq!((closed(&told), told.len()), (4, 4), "{told:?}");
        assert_eq!(records, expected, "{fixture}");
        let again = tempfile::tempdir().unwrap();
        copy(&pinned.join("site"), &again.path().join("site"));
        fs::copy(pinned.join("recovery.key"), again.path().join("recovery.key")).unwrap();
        let (_, records) = read(again.path(), SITE);
        assert_eq!(records == expected, sha256, "{fixture}");
        assert_eq!(again.path().join("incomplete").exists(), !sha256, "{fixture}");
    }
}
