//! The page for reading by hand, as a person uses it: its commands, one shell, the stock tools.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Set to anything: a fixture that is missing is written. One that exists is never touched.
pub const BLESS: &str = "SONAE_BLESS_VECTORS";

pub fn page(language: &str) -> String {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/runbooks/by-hand.{language}.md"));
    fs::read_to_string(path).unwrap()
}

/// The commands of a page: its blocks of shell.
pub fn blocks(page: &str) -> Vec<String> {
    let shell = page.split("```sh\n").skip(1);
    shell.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

pub fn require_tools() {
    for tool in ["age", "zstd", "jq"] {
        let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
        assert!(found, "'{tool}' is not installed; run: apt-get install age zstd jq");
    }
}

/// Types commands into one shell in a directory.
pub fn type_in(directory: &Path, commands: &[String]) -> Output {
    Command::new("sh").arg("-c").arg(commands.concat()).current_dir(directory).output().unwrap()
}

pub fn all_went_well(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

pub fn copy(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Takes the path of this machine, and the pages of this day, out of an export that becomes a fixture.
pub fn without_this_machine(directory: &Path) {
    let index = directory.join("export/index.jsonl");
    let here = format!("{}/", directory.display());
    fs::write(&index, fs::read_to_string(&index).unwrap().replace(&here, "")).unwrap();
    for page in ["BY-HAND.ja.md", "BY-HAND.en.md"] {
        fs::remove_file(directory.join("export").join(page)).unwrap();
    }
}
