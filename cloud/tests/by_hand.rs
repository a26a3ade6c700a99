//! Reading without our software (P8): the commands of `docs/runbooks/by-hand.en.md`, taken from the page itself,
//! run with the stock tools `age`, `zstd` and `jq`, on what is exported today and on what earlier versions
//! exported.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
#[path = "export/page.rs"]
mod page;
#[path = "export/scene.rs"]
mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::board::SCHOOL;
use page::{BLESS, all_went_well, blocks, copy, page, require_tools, tree, type_in, without_this_machine};
use scene::Scene;
use sonae_cloud::compaction::{Compactor, Judge, Rules};
use sonae_cloud::export::{Request, run};
use sonae_cloud::site::open_all;
use sonae_proto::export::Line;
use sonae_proto::seal::OpenKey;

/// Every version that was ever exported stays readable.
const FIXTURES: [&str; 1] = ["by-hand-v1"];

/// The blocks of the page: from the site, keys, changes, records, look.
const BLOCKS: usize = 5;

/// Writes what a board would have: the recovery key, an export, and the site that it came from.
fn make(directory: &Path) {
    let scene = Scene::new();
    let site = directory.join("site");
    fs::create_dir_all(directory).unwrap();
    scene.fill(&site);
    fs::write(directory.join("recovery.key"), scene.recovery_file()).unwrap();
    let request = Request {
        school: SCHOOL.parse().unwrap(),
        out: directory.join("export"),
        sites: vec![site],
        root: Some(scene.board.root.verifying_key()),
        expect: scene.heads(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let summary = runtime.block_on(run(&request, &mut |_| {})).unwrap();
    assert!(summary.complete, "{:?}", summary.problems);
}

/// Pins a fixture, without the path of this machine.
fn bless(pinned: &Path) {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    without_this_machine(directory.path());
    copy(directory.path(), pinned);
}

const RECORDS: &str = r#"{"collection":"attendance","record":"2026-04-08/p1/day","fields":{"code":"late"}}
{"collection":"guardian_contact","record":"p1/1","fields":{"phone":"03-0000-0000"}}
{"collection":"student","record":"p1","fields":{"family_name":"見本","given_name":{"disputed":["はな","華子"]},"note":null}}
"#;

const LOOK: &str = r#"      1 attendance
      1 guardian_contact
      1 student
{"phone":"03-0000-0000"}
["2026-03-31T23:33:20Z","tanaka","guardian_contact","p1/1",{"phone":"03-0000-0000"}]
["2026-03-31T23:33:20Z","tanaka","guardian_contact","p1/1",{"phone":"03-0000-0000"}]
"#;

fn read_by_page(directory: &Path, commands: &[String]) {
    let said = all_went_well(&type_in(directory, commands));
    assert_eq!(fs::read_to_string(directory.join("records.jsonl")).unwrap(), RECORDS);
    assert_eq!(said, LOOK);
    let changes = fs::read_to_string(directory.join("changes.jsonl")).unwrap();
    assert_eq!(changes.lines().count(), 8, "{changes}");
}

/// Goal: both pages give the same commands. Method: compare their blocks.
#[test]
fn the_pages_agree() {
    let (english, japanese) = (blocks(&page("en")), blocks(&page("ja")));
    assert_eq!(english.len(), BLOCKS);
    assert_eq!(english, japanese);
    assert!(page("ja").contains("回復鍵"), "the Japanese page is Japanese");
}

/// Goal: an export reads with the page alone. Method: a fresh school, every block but the first.
#[test]
fn an_export_reads_with_the_page() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    read_by_page(directory.path(), &blocks(&page("en"))[1..]);
}

/// Has the page alone read a site, after something was done to it, to the same files as the export.
fn read_site_by_page(change: impl FnOnce(&Path)) {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let exported = directory.path().join("export");
    let expected = tree(&exported);
    fs::remove_dir_all(&exported).unwrap();
    change(directory.path());
    read_by_page(directory.path(), &blocks(&page("en")));
    let sealed = |name: &&String| name.starts_with("batches/") || name.starts_with("keys/");
    let written = tree(&exported);
    assert!(written.len() >= 9);
    assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().filter(sealed).collect::<Vec<_>>());
    assert!(written.iter().all(|(name, bytes)| expected[name] == *bytes));
}

/// Goal: a site reads with the page and without any program of ours, to the same files. Method: all blocks,
/// without the export; then compare with it.
#[test]
fn a_site_reads_with_the_page() {
    read_site_by_page(|_| {});
}

/// Merges all objects of a site into one, and deletes them.
async fn merge(directory: &Path) {
    let site = directory.join("site");
    let rules = Rules { inputs_min: 2, superseded: Duration::ZERO, ..Rules::default() };
    let sites = Arc::new(open_all(std::slice::from_ref(&site), 1).unwrap().0);
    let mut compactor = Compactor::new(sites, 1, rules, directory);
    for _ in 0..2 {
        compactor.pass(Duration::ZERO, &Judge::default()).await.unwrap();
    }
    let left = tree(&site.join("objects"));
    assert!(left.len() == 1 && left.keys().all(|name| name.starts_with("merged/")), "{:?}", left.keys());
}

/// Goal: a site whose objects were merged reads with the page as before. Method: merge, then as above.
#[test]
fn a_merged_site_reads_with_the_page() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    read_site_by_page(|directory| runtime.block_on(merge(directory)));
}

/// Goal: what was ever exported stays readable. Method: the page on the pinned files of every version.
#[test]
fn every_version_stays_readable() {
    require_tools();
    for fixture in FIXTURES {
        let pinned = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
        if !pinned.exists() && std::env::var_os(BLESS).is_some() {
            bless(&pinned);
        }
        let index = fs::read_to_string(pinned.join("export/index.jsonl")).unwrap();
        let lines: Vec<Line> = index.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(matches!(lines.last(), Some(Line::End { complete: true, batches: 5, .. })), "{fixture}");
        let directory = tempfile::tempdir().unwrap();
        copy(&pinned, directory.path());
        read_by_page(directory.path(), &blocks(&page("en"))[1..]);
        let again = tempfile::tempdir().unwrap();
        copy(&pinned.join("site"), &again.path().join("site"));
        fs::copy(pinned.join("recovery.key"), again.path().join("recovery.key")).unwrap();
        read_by_page(again.path(), &blocks(&page("en")));
    }
}

/// Goal: another key opens nothing. Method: the same commands with a fresh key: no key and no change comes out,
/// and every folder of batches is named.
#[test]
fn another_key_opens_nothing() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let other = OpenKey::generate();
    fs::write(directory.path().join("recovery.key"), format!("{}\n", other.secret().as_str())).unwrap();
    let output = type_in(directory.path(), &blocks(&page("en"))[1..3]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told.matches("no key for: ").count(), 4, "{told}");
    assert_eq!(tree(&directory.path().join("opened")), BTreeMap::new());
    assert_eq!(fs::read(directory.path().join("changes.jsonl")).unwrap(), b"");
}

/// Goal: a damaged batch costs itself only. Method: flip a byte of one payload, read the rest.
#[test]
fn one_damaged_batch_costs_itself() {
    require_tools();
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let batches = directory.path().join("export/batches");
    let victim = batches.join(tree(&batches).keys().next().unwrap());
    let mut bytes = fs::read(&victim).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&victim, bytes).unwrap();
    let output = type_in(directory.path(), &blocks(&page("en"))[1..3]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told.matches("does not open: ").count(), 1, "{told}");
    let changes = fs::read_to_string(directory.path().join("changes.jsonl")).unwrap();
    assert!((5..8).contains(&changes.lines().count()), "{changes}");
}
