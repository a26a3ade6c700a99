//! The real binary: exit codes, messages, what is printed, what is written and what is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, where a panic is the report"
)]

#[path = "../roster/tests/support/mod.rs"]
mod package;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use support::{End, PASSPHRASE, Place};

/// A password that the rules allow.
const PASSWORD: &str = "kunren-no-tame-7";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn staff(place: &Place, login: &str, password: &str, rest: &[&str]) -> End {
    let arguments = ["--login", login, "--name", "見本 花子", "--role", "teacher", "--password-stdin"];
    place.edge("staff add", &[&arguments, rest].concat(), password)
}

fn changes(end: End) -> u64 {
    end.json()["changes"].as_u64().unwrap()
}

/// Every file below a folder, with what it holds.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Goal: a bundle makes a replica whose secrets only its owner reads. Method: enrol, look at modes, ask its status.
#[test]
fn enrolment() {
    let place = Place::new();
    let said = place.enrol("data", "bundle", PASSPHRASE).ok();
    assert!(said.contains("B113200000011") && said.contains("0600"), "{said}");
    assert_eq!(mode(&place.data()), 0o700);
    for name in ["enrolment.json", "incarnation.json"] {
        assert_eq!(mode(&place.data().join(name)), 0o600, "{name}");
    }
    assert_eq!(place.status()["school"], "B113200000011");
}

/// Goal: each bad enrolment has its exit code, says what to do and leaves nothing behind. Method: wrong passphrase,
/// no passphrase, damaged, cut and missing bundle, occupied directory.
#[test]
fn refused_enrolments() {
    let place = Place::new();
    let sealed = fs::read(place.path("bundle")).unwrap();
    let mut flipped = sealed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    place.write("flipped", &flipped);
    place.write("cut", &sealed[..sealed.len() / 2]);
    place.write("none", b"PK\x03\x04");
    let wrong = place.enrol("data", "bundle", "correct-horse").fails(3);
    assert!(wrong.contains("passphrase does not open"), "{wrong}");
    assert!(place.enrol("data", "bundle", "").fails(2).contains("standard input"));
    for damaged in ["flipped", "cut", "none"] {
        let said = place.enrol("data", damaged, PASSPHRASE).fails(3);
        assert!(said.contains("damaged") && said.contains("copy it again"), "{damaged}: {said}");
    }
    assert!(place.enrol("data", "gone", PASSPHRASE).fails(3).contains("gone"));
    assert!(!place.data().exists(), "a refused enrolment left something behind");
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("letter.txt"), "keep me").unwrap();
    let occupied = place.enrol("data", "bundle", PASSPHRASE).fails(4);
    assert!(occupied.contains("empty directory"), "{occupied}");
    assert_eq!(contents(&place.data()).len(), 1);
}

/// Goal: a rebuild with a wrong key ends at once, without a line, and leaves nothing behind. Method: a wrong passphrase; its
/// time against that of an enrolment, which opens the same bundle.
#[test]
fn a_rebuild_with_a_wrong_key_ends_at_once() {
    let place = Place::new();
    let bundle = place.path("bundle").display().to_string();
    let arguments = ["--bundle", &bundle, "--cloud", "127.0.0.1:1", "--passphrase-stdin"];
    let began = Instant::now();
    let wrong = place.edge("rebuild", &arguments, "correct-horse").fails(3);
    let refused = began.elapsed();
    assert!(wrong.contains("passphrase does not open"), "{wrong}");
    assert!(!place.data().exists());
    let began = Instant::now();
    place.enrol("data", "bundle", PASSPHRASE).ok();
    assert!(refused < began.elapsed() * 4, "{refused:?}");
}

/// Goal: a second enrolment never overwrites a replica. Method: enrol into its directory, compare all its files.
#[test]
fn an_enrolled_directory_stays_as_it_is() {
    let place = Place::enrolled();
    let before = contents(&place.data());
    place.enrol("data", "bundle", PASSPHRASE).fails(4);
    assert!(before == contents(&place.data()), "files of the replica have changed");
    let nowhere = Place::new();
    assert!(nowhere.edge("status", &["--json"], "").fails(4).contains("sonae-edge enrol"));
}

/// Goal: scripts find the facts that they rely on. Method: look for the documented keys, before and after an import.
#[test]
fn facts_for_scripts() {
    let place = Place::enrolled();
    for turn in 0..2 {
        let (status, digest) = (place.status(), place.edge("digest", &["--json"], "").json());
        for key in ["kept", "safe", "unsafe", "replica", "school", "replayed"] {
            assert!(keys(&status).contains(&key), "{key} is not in {status}");
        }
        for key in ["digests", "version_vector"] {
            assert!(keys(&digest).contains(&key), "{key} is not in {digest}");
        }
        for (tier, text) in digest["digests"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            assert!(text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()), "{tier}: {text}");
        }
        assert_eq!(status["safe"].as_object().unwrap().len(), 0, "no receipt can have come: {status}");
        if turn == 0 {
            assert_eq!(status["unsafe"], 0);
            place.import(&place.write("roster.zip", &package::sound().zip()), &[]).ok();
        } else {
            assert!(status["unsafe"].as_u64().unwrap() > 0, "{status}");
            assert!(status["kept"]["0"]["sequence"].as_u64().unwrap() > 0, "{status}");
        }
    }
    let text = place.edge("status", &[], "").ok();
    for word in ["kept", "safe", "unsafe", "last error"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

/// Goal: an import is kept once, and a dry run writes nothing. Method: dry run, import, the same again; digests.
#[test]
fn imports() {
    let place = Place::enrolled();
    let file = place.write("roster.zip", &package::sound().zip());
    let empty = place.digests();
    let dry = place.import(&file, &["--dry-run", "--json"]).json();
    assert_eq!((&dry["changes"], &dry["dry_run"]), (&Value::from(0), &Value::from(true)), "{dry}");
    assert!(dry["records"].as_u64().unwrap() > 0, "{dry}");
    assert_eq!(place.digests(), empty);
    assert!(changes(place.import(&file, &["--json"])) > 0);
    let full = place.digests();
    assert_ne!(full, empty);
    assert_eq!(changes(place.import(&file, &["--json"])), 0);
    assert_eq!(place.digests(), full);
    let renamed = package::sound().edit("users.csv", "架空,,101", "見本,,101");
    let file = place.write("renamed.zip", &renamed.zip());
    assert_eq!(changes(place.import(&file, &["--json"])), 1);
    assert_ne!(place.digests(), full);
}

/// Goal: contacts and attendance find the pupils that came before them. Method: import both; then a pupil whom
/// nobody knows, an unknown code, an unknown file.
#[test]
fn plain_files() {
    let place = Place::enrolled();
    let pupil = package::PUPIL;
    let header = "date,student_id,period,code,reason_text\n";
    let good = place.write("attendance.csv", format!("{header}2026-11-02,{pupil},all,late,\n").as_bytes());
    let said = place.import(&good, &[]).fails(3);
    assert!(said.contains("line 2") && said.contains("student_id"), "{said}");
    let roster = place.write("roster.zip", &package::sound().zip());
    // The order on the command line does not matter.
    place.import(&good, &[roster.to_str().unwrap()]).ok();
    assert_eq!(changes(place.import(&good, &["--json"])), 0);
    let before = place.digests();
    let unknown = format!("{header}2026-11-03,{pupil},all,late,\n2026-11-04,{pupil},all,asleep,\n");
    let said = place.import(&place.write("attendance.csv", unknown.as_bytes()), &[]).fails(3);
    assert!(said.contains("line 3") && said.contains("column code"), "{said}");
    let said = place.import(&place.write("menu.csv", b"day,soup\n1,miso\n"), &[]).fails(3);
    assert!(said.contains("menu.csv") && said.contains("neither"), "{said}");
    assert_eq!(place.digests(), before);
}

/// Goal: bad input gets a message with file, line and column, and nothing is imported by halves. Method: damage a
/// package in every way that the issue names; compare the message and the digests.
#[test]
fn refused_imports() {
    let place = Place::enrolled();
    let good = place.write("good.zip", &package::sound().zip());
    place.import(&good, &[]).ok();
    let before = place.digests();
    let sound = || package::sound().edit("users.csv", "見本,", "変更,");
    let whole = sound().zip();
    // 一郎 in Shift_JIS.
    let users = sound().bytes("users.csv").to_vec();
    let name = "一郎".as_bytes();
    let at = users.windows(name.len()).position(|window| window == name).unwrap();
    let shift_jis = [&users[..at], b"\x88\xea\x98\x59", &users[at + name.len()..]].concat();
    let dangling = format!("{},{}", package::SCHOOL, package::PUPIL);
    let nobody = format!("{},{}", package::SCHOOL, package::NOBODY);
    let cases: [(&str, Vec<u8>, &[&str]); 7] = [
        ("text.zip", b"no zip at all".to_vec(), &["not-a-zip", "text.zip"]),
        ("cut.zip", whole[..whole.len() / 2].to_vec(), &["zip-damaged", "cut.zip"]),
        ("encoding.zip", sound().set("users.csv", shift_jis).zip(), &["users.csv", "line 3", "UTF-8"]),
        (
            "columns.zip",
            sound().edit("users.csv", ",familyName,", ",surname,").zip(),
            &["users.csv", "line 1", "familyName"],
        ),
        (
            "dangling.zip",
            sound().edit("enrollments.csv", &dangling, &nobody).zip(),
            &["enrollments.csv", "line 3", "userSourcedId", &package::NOBODY[..24]],
        ),
        (
            "school.zip",
            sound().edit("orgs.csv", "B113200000011", "B113200000029").zip(),
            &["B113200000029", "B113200000011"],
        ),
        ("missing.zip", sound().without("users.csv").zip(), &["users.csv"]),
    ];
    for (name, bytes, words) in cases {
        let file = place.write(name, &bytes);
        let said = place.import(&file, &[]).fails(3);
        for word in words {
            assert!(said.contains(word), "{name}: {word} is not in: {said}");
        }
        assert!(said.contains("nothing was imported"), "{name}: {said}");
        // A bad file beside a good one spoils both.
        let renamed = place.write("renamed.zip", &whole);
        place.import(&renamed, &[file.to_str().unwrap()]).fails(3);
        assert_eq!(place.digests(), before, "{name} has changed something");
    }
    assert!(place.import(&place.path("gone.zip"), &[]).fails(3).contains("gone.zip"));
    // The same words without the damage are taken, so the refusals were for the damage.
    assert!(changes(place.import(&place.write("whole.zip", &whole), &["--json"])) > 0);
}

/// Goal: accounts are added once, with the secret as the last line, and short passwords are refused. Method: the
/// command with and without `--totp`; a short password, a login twice, a role that does not exist.
#[test]
fn accounts() {
    let place = Place::enrolled();
    let said = staff(&place, "hanako", PASSWORD, &["--totp"]).ok();
    assert!(said.lines().last().unwrap().starts_with("otpauth://totp/"), "{said}");
    assert!(!said.contains(PASSWORD), "the password was printed");
    assert!(!staff(&place, "taro", PASSWORD, &[]).ok().contains("otpauth://"));
    let sequence = |place: &Place| place.status()["kept"].clone();
    let before = sequence(&place);
    for weak in ["short-7", "六文字の言葉"] {
        let said = staff(&place, "jiro", weak, &[]).fails(3);
        assert!(said.contains("password") && !said.contains(weak), "{weak}: {said}");
    }
    staff(&place, "hanako", "another-tame-8-word", &[]).fails(3);
    let arguments = ["--login", "saburo", "--name", "x", "--role", "pirate", "--password-stdin"];
    place.edge("staff add", &arguments, PASSWORD).fails(3);
    assert_eq!(sequence(&place), before);
}

/// Goal: while the daemon runs, commands work through its socket and no second process writes. Method: run, then
/// status, import, staff add, a second run; stop; the disk says the same as the daemon did.
#[test]
fn the_daemon_is_reached_through_its_socket() {
    let place = Place::enrolled();
    let daemon = place.start();
    assert_eq!(daemon.ready["ready"], true);
    assert!(daemon.ready["listen"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", daemon.ready);
    assert!(fs::read_to_string(place.path("ca.pem")).unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(mode(&place.data().join("control.sock")), 0o600);
    assert!(place.edge("status", &[], "").ok().contains("daemon     running"));
    let file = place.write("roster.zip", &package::sound().zip());
    assert!(changes(place.import(&file, &["--json"])) > 0);
    staff(&place, "hanako", PASSWORD, &["--totp"]).ok();
    staff(&place, "hanako", PASSWORD, &[]).fails(3);
    let said = place.edge("run", &["--listen", "127.0.0.1:0"], "").fails(4);
    assert!(said.contains("in use by another process"), "{said}");
    let served = place.digests();
    assert!(daemon.terminate().success());
    assert!(!place.data().join("control.sock").exists());
    assert!(place.edge("status", &[], "").ok().contains("daemon     not running"));
    assert_eq!(place.digests(), served);
}

/// Goal: `kill -9` loses nothing that was kept, and what it left does not stand in the way. Method: import through
/// the daemon, kill it, start it again in the same directory; digests, and changes replayed.
#[test]
fn a_killed_daemon_replays() {
    let place = Place::enrolled();
    let daemon = place.start();
    let file = place.write("roster.zip", &package::sound().zip());
    let written = changes(place.import(&file, &["--json"]));
    let kept = place.digests();
    daemon.kill();
    assert!(place.data().join("control.sock").exists(), "the kill was no kill");
    let daemon = place.start();
    let replayed = place.status()["replayed"].as_u64().unwrap();
    assert!(replayed >= written && written > 0, "{replayed} replayed of {written}");
    assert_eq!(place.digests(), kept);
    daemon.kill();
    // Without a daemon the command opens the directory itself, past the dead socket.
    assert_eq!(place.digests(), kept);
    assert_eq!(changes(place.import(&file, &["--json"])), 0);
}

/// Goal: a box that was enrolled for a rebuild runs at once, without a line too, says that nothing is usable yet, and no
/// command takes what is not here for nothing. Method: enrol, run with a cloud that nobody serves, each command that reads
/// or writes; then the same with the daemon gone.
#[test]
fn an_unfilled_box_runs_and_says_so() {
    let place = Place::new();
    let bundle = place.path("bundle").display().to_string();
    let begin = ["--bundle", &bundle, "--passphrase-stdin", "--enrol-only"];
    assert!(place.edge("rebuild", &begin, PASSPHRASE).ok().contains("sonae-edge run --data"));
    let again = place.edge("rebuild", &[&begin[..], &["--json"]].concat(), PASSPHRASE).json();
    assert_eq!(again["rebuilding"], true, "the same command goes on");
    let file = place.write("roster.zip", &package::sound().zip());
    let daemon = place.start();
    let status = place.status();
    assert_eq!(status["rebuild"]["tiers"]["0"]["usable"], false, "{status}");
    assert!(status["rebuild"]["left_bytes"].is_null(), "nobody has said what there is");
    let said = place.edge("status", &[], "").ok();
    assert!(said.contains("rebuild    tier 0 coming, 0 of an unknown number change(s)"), "{said}");
    let waiting = place.edge("digest", &["--json"], "").json()["waiting"].clone();
    assert_eq!(waiting, serde_json::json!(["0", "1", "2"]));
    let coming = "tier 0 is still being fetched";
    assert!(staff(&place, "hanako", PASSWORD, &[]).error.contains(coming));
    assert!(place.import(&file, &["--json"]).error.contains(coming));
    assert!(place.edge("prove", &["--json"], "").error.contains("still filling this box"));
    daemon.kill();
    assert!(place.data().join("rebuilding").exists());
    assert!(staff(&place, "hanako", PASSWORD, &[]).error.contains(coming));
    // As it is once the cloud has brought tier 0.
    fs::write(place.data().join("rebuilding"), r#"{"usable":["0"]}"#).unwrap();
    staff(&place, "hanako", PASSWORD, &[]).ok();
    assert!(changes(place.import(&file, &["--json"])) > 0, "a roster is tier 0");
    let rows = format!("date,student_id,period,code,reason_text\n2026-11-02,{},all,late,\n", package::PUPIL);
    let rows = place.write("attendance.csv", rows.as_bytes());
    let renamed = package::sound().edit("users.csv", "架空,,101", "見本,,101").zip();
    let renamed = place.write("renamed.zip", &renamed);
    let before = place.digests();
    let said = place.import(&rows, &["--json", renamed.to_str().unwrap()]).error;
    assert!(said.contains("tier 1 is still being fetched"), "{said}");
    assert_eq!(place.digests(), before, "not the half that could be kept");
}
