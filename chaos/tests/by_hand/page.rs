//! The page for reading by hand, as a person uses it on an export.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Types the commands of the page, from the keys to the records, in a folder with `recovery.key` and `export`. Returns the
/// records, and what was complained of.
pub fn read(folder: &Path) -> (String, String) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks/by-hand.en.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let output =
        Command::new("sh").args(["-c", &blocks[1..4].concat()]).current_dir(folder).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    (std::fs::read_to_string(folder.join("records.jsonl")).unwrap(), told)
}

/// The ids of the records of a collection.
pub fn record_ids(records: &str, collection: &str) -> BTreeSet<String> {
    let of = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        (record["collection"] == collection).then(|| record["record"].as_str().unwrap().to_owned())
    };
    records.lines().filter_map(of).collect()
}
