//! Bundles on a box: what is taken, what is told, and that no receipt counts that must not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ed25519_dalek::SigningKey;
use serde_json::Value;
use sonae_proto::bundle;
use sonae_proto::courier::{CloudOpening, Decoder, Encoder, FORMAT, Opening, Origin, Record};
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::receipt::Receipt;
use sonae_proto::vector::{Heads, LogHead};
use sonae_store::testing::Board;
use support::PASSPHRASE;

/// Boxes of one school and the stick between them.
struct School {
    dir: tempfile::TempDir,
    board: Board,
}

struct Said {
    code: i32,
    report: Value,
    error: String,
}

impl School {
    fn new() -> Self {
        let school = Self { dir: tempfile::tempdir().unwrap(), board: Board::default() };
        fs::create_dir(school.path("stick")).unwrap();
        school
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &[&str], name: &str, rest: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-edge"));
        command.args(words).arg("--data").arg(self.path(name)).args(rest).env("RUST_LOG", "off");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{input}\n").as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// An empty box.
    fn empty(&self, name: &str) {
        let file = self.path(&format!("{name}.bundle"));
        fs::write(&file, bundle::seal(&self.board.bundle(), PASSPHRASE).unwrap()).unwrap();
        let rest = ["--bundle", file.to_str().unwrap(), "--passphrase-stdin"];
        assert_eq!(self.run(&["enrol"], name, &rest, PASSPHRASE).0, 0);
    }

    /// Adds a member of staff: one change, and with the next export one batch.
    fn add(&self, name: &str, login: &str) {
        let rest = ["--login", login, "--name", "架空 太郎", "--role", "teacher", "--password-stdin"];
        assert_eq!(self.run(&["staff", "add"], name, &rest, "kunren-no-tame-7").0, 0);
    }

    fn export(&self, name: &str, rest: &[&str]) -> PathBuf {
        let stick = self.path("stick");
        let arguments = [&["--to", stick.to_str().unwrap(), "--json"], rest].concat();
        let (code, out, error) = self.run(&["bundle", "export"], name, &arguments, "");
        assert_eq!(code, 0, "{error}");
        let object: Value = serde_json::from_str(&out).unwrap();
        object["bundle"].as_str().unwrap().into()
    }

    fn import(&self, name: &str, file: &Path) -> Said {
        let rest = ["--json", file.to_str().unwrap()];
        let (code, out, error) = self.run(&["bundle", "import"], name, &rest, "");
        Said { code, report: serde_json::from_str(&out).unwrap_or(Value::Null), error }
    }

    fn import_bytes(&self, name: &str, bytes: &[u8]) -> Said {
        let file = self.path("stick/changed.sonae-courier");
        fs::write(&file, bytes).unwrap();
        self.import(name, &file)
    }

    fn asks(&self, words: &str, name: &str) -> Value {
        let (code, out, error) = self.run(&[words], name, &["--json"], "");
        assert_eq!(code, 0, "{error}");
        serde_json::from_str(&out).unwrap()
    }
}

fn read(file: &Path) -> Vec<Record> {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    decoder.feed(&fs::read(file).unwrap());
    while let Some(record) = decoder.poll().unwrap() {
        found.push(record);
    }
    found
}

/// Writes records, the first of which is an opening, without the old end.
fn write(records: &[Record]) -> Vec<u8> {
    let Some(Record::Opening(opening)) = records.first() else { panic!("no opening") };
    let (mut encoder, mut bytes) = Encoder::start(opening).unwrap();
    for record in records.iter().skip(1).filter(|record| !matches!(record, Record::End(_))) {
        bytes.extend(encoder.record(record).unwrap());
    }
    bytes.extend(encoder.finish().0);
    bytes
}

/// Goal: half a file gives its whole batches and says so; the whole one brings the rest; twice is once. Method:
/// cut a bundle of four batches at several places.
#[test]
fn half_a_file_is_half_taken() {
    let school = School::new();
    ["one", "two"].iter().for_each(|name| school.empty(name));
    for login in ["a", "b", "c", "d"] {
        school.add("one", login);
        school.export("one", &[]);
    }
    let file = school.export("one", &[]);
    let whole = fs::read(&file).unwrap();
    let mut taken = 0;
    for tenth in [3, 6, 9] {
        let said = school.import_bytes("two", &whole[..whole.len() * tenth / 10]);
        assert_eq!(said.code, 7, "{}", said.error);
        let cut = said.report["cut"].as_str().unwrap();
        assert!(cut.contains("is not whole; copy the file again"), "{cut}");
        taken += said.report["taken"].as_u64().unwrap();
    }
    assert!((1..4).contains(&taken), "{taken}");
    let said = school.import("two", &file);
    assert_eq!((said.code, said.report["taken"].as_u64()), (0, Some(4 - taken)), "{}", said.report);
    let said = school.import("two", &file);
    assert_eq!((said.code, said.report["known"].as_u64()), (0, Some(4)), "{}", said.report);
    assert_eq!(school.asks("digest", "one")["digests"], school.asks("digest", "two")["digests"]);
}

/// Goal: bundles in the wrong order are told with their numbers and cost nothing. Method: `--since` by what the
/// second box has; a third gets the later bundle first.
#[test]
fn the_wrong_order_is_told() {
    let school = School::new();
    ["one", "two", "three"].iter().for_each(|name| school.empty(name));
    school.add("one", "a");
    let earlier = school.export("one", &[]);
    assert_eq!(school.import("two", &earlier).code, 0);
    let heads = school.path("heads.json");
    fs::write(&heads, school.asks("digest", "two").to_string()).unwrap();
    school.add("one", "b");
    let later = school.export("one", &["--since", heads.to_str().unwrap()]);
    assert_eq!(read(&later).iter().filter(|record| matches!(record, Record::Batch(_))).count(), 1);
    let said = school.import("three", &later);
    assert_eq!(said.code, 7);
    let early = &said.report["early"][0];
    assert_eq!((&early["held"], &early["first"], &early["batches"]), (&0.into(), &2.into(), &1.into()));
    let rest = [later.to_str().unwrap()];
    let (_, out, _) = school.run(&["bundle", "import"], "three", &rest, "");
    assert!(out.contains("import the earlier bundle first") && out.contains("先に前の束を"), "{out}");
    for file in [&earlier, &later] {
        assert_eq!(school.import("three", file).code, 0);
    }
    assert_eq!(school.import("two", &later).code, 0);
    for name in ["two", "three"] {
        assert_eq!(school.asks("digest", name)["digests"], school.asks("digest", "one")["digests"]);
    }
}

/// Goal: what is not for this box is refused as a whole, damage is told with its place, a forged batch is not
/// applied. Method: another school, another file, a flipped bit, a flipped signature under a right check.
#[test]
fn wrong_files_are_refused() {
    let school = School::new();
    ["one", "two"].iter().for_each(|name| school.empty(name));
    school.add("one", "a");
    let file = school.export("one", &[]);
    let records = read(&file);
    let before = school.asks("digest", "two");

    let mut other = records.clone();
    let Some(Record::Opening(opening)) = other.first_mut() else { panic!("no opening") };
    opening.school = "B113200000022".parse().unwrap();
    let said = school.import_bytes("two", &write(&other));
    assert!(said.code == 3 && said.error.contains("is of school B113200000022"), "{}", said.error);
    let said = school.import_bytes("two", b"PK\x03\x04 is a zip");
    assert!(said.code == 3 && said.error.contains("not a bundle of batches"), "{}", said.error);

    let mut flipped = fs::read(&file).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let said = school.import_bytes("two", &flipped);
    assert_eq!(said.code, 7);
    assert!(said.report["cut"].as_str().unwrap().contains("damaged at byte"), "{}", said.report);

    let mut forged = records;
    for record in &mut forged {
        if let Record::Batch(bytes) = record {
            bytes[200] ^= 1;
        }
    }
    let said = school.import_bytes("two", &write(&forged));
    assert_eq!((said.code, said.report["refused"].as_u64()), (7, Some(1)), "{}", said.report);
    assert!(said.report["reasons"][0].as_str().unwrap().contains("not signed"), "{}", said.report);
    assert_eq!(school.asks("digest", "two"), before);
    let missing = school.run(&["bundle", "export"], "one", &["--to", "/nowhere/at/all"], "");
    assert!(missing.0 == 2 && missing.2.contains("is the stick mounted?"), "{}", missing.2);
}

/// Goal: a carried receipt counts as on the line, and no other does. Method: answers with receipts of a wrong
/// key, hash, loss counter and school; then the right one.
#[test]
fn only_a_right_receipt_counts() {
    let school = School::new();
    school.empty("one");
    school.add("one", "a");
    let file = school.export("one", &[]);
    let records = read(&file);
    let batch = records.iter().find_map(|record| match record {
        Record::Batch(bytes) => sonae_proto::batch::Batch::from_bytes(bytes.clone()).ok(),
        Record::Identity(_)
        | Record::Keys(_)
        | Record::Receipt(_)
        | Record::Opening(_)
        | Record::End(_)
        | Record::Unknown(_) => None,
    });
    let header = *batch.unwrap().header();
    let right = Receipt {
        school: header.school,
        log: header.log,
        head: header.head(),
        loss_counter: 0,
        issued_ms: 1,
        sites: vec![[1; 16], [2; 16]],
    };
    let answer = |receipt: &Receipt, key: &SigningKey| {
        let from = CloudOpening { to: header.log.incarnation, heads: Heads::new(), complete: true };
        let opening = Opening {
            format: FORMAT.into(),
            school: header.school,
            made_ms: 1,
            software: "test".into(),
            from: Origin::Cloud(from),
        };
        write(&[Record::Opening(Box::new(opening)), Record::Receipt(receipt.sign(key))])
    };
    let key = &school.board.receipt_key;
    let elsewhere = LogHead { sequence: header.last, ..LogHead::EMPTY };
    let foreign =
        LogName { tier: Tier::Safety, incarnation: sonae_proto::ids::Incarnation::from_bytes([9; 16]) };
    let cases = [
        (answer(&right, &SigningKey::from_bytes(&[3; 32])), 7, "receipts_refused"),
        (answer(&Receipt { head: elsewhere, ..right.clone() }, key), 7, "receipts_refused"),
        (
            answer(&Receipt { school: "B113200000022".parse().unwrap(), ..right.clone() }, key),
            7,
            "receipts_refused",
        ),
        (answer(&Receipt { loss_counter: 1, ..right.clone() }, key), 7, "receipts_outdated"),
        (answer(&Receipt { log: foreign, ..right.clone() }, key), 0, "receipts_foreign"),
    ];
    for (bytes, code, count) in cases {
        let said = school.import_bytes("one", &bytes);
        assert_eq!((said.code, said.report[count].as_u64()), (code, Some(1)), "{count}: {}", said.report);
        assert_eq!(school.asks("status", "one")["unsafe"], 1, "{count}");
    }
    for (count, code) in [("receipts", 0), ("receipts_known", 0)] {
        let said = school.import_bytes("one", &answer(&right, key));
        assert_eq!((said.code, said.report[count].as_u64()), (code, Some(1)), "{}", said.report);
        assert_eq!(school.asks("status", "one")["unsafe"], 0);
    }
}

/// Goal: a stick does not begin a tier that a rebuild is to begin with its snapshot, and goes on with one that is whole.
/// Method: a box that is being filled takes a bundle of tier 0 with nothing usable, then with tier 0 usable.
#[test]
fn a_box_that_is_filled_takes_what_is_usable() {
    let school = School::new();
    ["one", "two"].iter().for_each(|name| school.empty(name));
    school.add("one", "a");
    let file = school.export("one", &[]);
    let marker = school.path("two").join("rebuilding");
    fs::write(&marker, r#"{"usable":[]}"#).unwrap();
    let said = school.import("two", &file);
    assert_eq!((said.code, said.report["taken"].as_u64()), (7, Some(0)), "{}", said.report);
    let reason = said.report["reasons"][0].as_str().unwrap();
    assert!(reason.contains("tier 0 is still being fetched from the cloud"), "{reason}");
    assert!(reason.contains("bring it again after that"), "{reason}");
    assert_eq!(
        school.asks("digest", "two")["version_vector"],
        serde_json::json!({}),
        "nothing of it is here"
    );
    fs::write(&marker, r#"{"usable":["0"]}"#).unwrap();
    let said = school.import("two", &file);
    assert_eq!((said.code, said.report["taken"].as_u64()), (0, Some(1)), "{}", said.report);
}
