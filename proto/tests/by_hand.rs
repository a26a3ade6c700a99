//! Reading without our software (P8): the stock tools `age`, `zstd` and `jq`, and what every shell has. The
//! commands are those of `docs/spec/batch.md#by-hand`; a tool that is missing fails the test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "vectors/file.rs"]
#[allow(dead_code, reason = "writing vectors is for the other test")]
mod file;

use file::Vector;

fn vector(name: &str) -> Vector {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name).with_extension("txt");
    Vector::from_file(&std::fs::read_to_string(path).unwrap())
}

fn require_tools() {
    for tool in ["age", "zstd", "jq"] {
        let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
        assert!(found, "'{tool}' is not installed; run: apt-get install age zstd jq");
    }
}

/// A directory with the files of a test, under the build directory, made afresh.
fn directory(name: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    for (file, bytes) in files {
        std::fs::write(directory.join(file), bytes).unwrap();
    }
    directory
}

fn shell(directory: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn key() -> Vec<u8> {
    vector("payload-good").get("identity").as_bytes().to_vec()
}

fn expected() -> String {
    vector("payload-good").section_text("lines")
}

/// Goal: a payload and a whole batch open with stock tools. Method: the commands of the spec on pinned bytes; the
/// lines are compared as `jq` prints them.
#[test]
fn a_batch_opens_with_stock_tools() {
    require_tools();
    let files = [
        ("key", key()),
        ("payload", vector("payload-good").section("body")),
        ("batch", vector("batch-good").section("body")),
    ];
    let directory = directory("a_batch", &files);
    assert_eq!(shell(&directory, "age -d -i key payload | zstd -d | jq -c ."), expected());
    assert_eq!(shell(&directory, "tail -c +231 batch | age -d -i key | zstd -d | jq -c ."), expected());
}

/// Goal: all batches of an object of a cloud site, and of a courier's bundle, open with stock tools. Method: the
/// loop of the spec over an object with two batches and an identity between them, and over a bundle.
#[test]
fn an_object_opens_with_stock_tools() {
    require_tools();
    opens_with_the_loop("an_object", "object-good");
    opens_with_the_loop("a_bundle", "courier-good");
}

fn opens_with_the_loop(name: &str, of: &str) {
    let directory = directory(name, &[("key", key()), ("object", vector(of).section("body"))]);
    let script = "
        grep -abo 'sonae/batch/v1' object | cut -d: -f1 | while read -r at; do
            bytes=$(od -An -tu4 --endian=big -j $((at + 130)) -N4 object | tr -d ' ')
            tail -c +$((at + 231)) object | head -c \"$bytes\" | age -d -i key | zstd -dq
        done | jq -c .";
    assert_eq!(shell(&directory, script), expected().repeat(2));
}

/// Goal: a wrong key opens nothing. Method: the same command with a fresh key must fail.
#[test]
fn another_key_opens_nothing() {
    require_tools();
    let directory = directory("another_key", &[("payload", vector("payload-good").section("body"))]);
    shell(
        &directory,
        "age-keygen -o other 2>keygen.log && ! age -d -i other payload >opened 2>age.log && ! test -s opened",
    );
}

/// Goal: a signed document reads with `head` and `jq`. Method: the version and the first reader of a manifest.
#[test]
fn a_manifest_reads_with_stock_tools() {
    require_tools();
    let directory = directory("a_manifest", &[("manifest", vector("document-manifest").section("body"))]);
    let script = "head -1 manifest | jq -r '.doc, .version, .readers[0].name'";
    assert_eq!(shell(&directory, script), "sonae/manifest/v1\n7\noperations\n");
}
