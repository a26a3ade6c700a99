//! The real binary: exit codes, messages, what is printed and what never is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sonae_proto::bundle::{CloudBundle, ReplicaBundle, open};
use sonae_provision::secret_text;
use support::{CODE, Place, check_replica_bundle};

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let (noun, rest) = arguments.split_at(if arguments[0] == "show" { 1 } else { 2 });
    Command::new(env!("CARGO_BIN_EXE_sonae-provision"))
        .args(noun)
        .arg("--dir")
        .arg(dir)
        .args(rest)
        .output()
        .unwrap()
}

fn ok(place: &Place, arguments: &[&str]) -> String {
    let output = run(&place.dir(), arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail and returns its message; nothing is on standard output then.
fn fails(place: &Place, exit: i32, arguments: &[&str]) -> String {
    let output = run(&place.dir(), arguments);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text<'a>(place: &Place, name: &str, store: &'a mut String) -> &'a str {
    *store = place.path(name).to_str().unwrap().to_owned();
    store
}

fn board(place: &Place) {
    ok(place, &["board", "init", "--name", "架空市教育委員会"]);
    ok(place, &["school", "add", "--code", CODE, "--name", "架空小学校"]);
}

/// Goal: a session as in the manual works, the passphrase is the last line, and no other secret is printed.
/// Method: run it, open both bundles with the last lines, search all output for every secret.
#[test]
fn session() {
    let place = Place::empty();
    let (mut cloud, mut replica) = (String::new(), String::new());
    let cloud = text(&place, "cloud.bundle", &mut cloud);
    let replica = text(&place, "replica.bundle", &mut replica);
    let mut printed = vec![
        ok(&place, &["board", "init", "--name", "架空市教育委員会"]),
        ok(&place, &["school", "add", "--code", CODE, "--name", "架空小学校"]),
        ok(&place, &["cloud", "enrol", "--host", "localhost", "--out", cloud]),
        ok(
            &place,
            &[
                "replica",
                "enrol",
                "--school",
                CODE,
                "--kind",
                "appliance",
                "--out",
                replica,
                "--lan-name",
                "a.jp",
            ],
        ),
        ok(&place, &["show"]),
        ok(&place, &["show", "--json"]),
    ];
    assert!(printed[0].contains("Print recovery.key") && printed[0].contains("印刷"));
    let last = |text: &str| text.lines().last().unwrap().to_owned();
    let cloud = open::<CloudBundle>(&fs::read(cloud).unwrap(), &last(&printed[2])).unwrap();
    let bundle = open::<ReplicaBundle>(&fs::read(replica).unwrap(), &last(&printed[3])).unwrap();
    let root = place.open().facts().root;
    assert_eq!(check_replica_bundle(&bundle, &root).version, 2);
    let shown: Value = serde_json::from_str(&printed[5]).unwrap();
    assert_eq!(shown["schools"][0]["manifest_version"], 2);
    assert_eq!(shown["schools"][0]["replicas"][0]["kind"], "appliance");
    assert_eq!(shown["cloud"]["hosts"][0], "localhost:4433");

    let mut secrets: Vec<String> = vec![
        cloud.tls_key_pem.lines().nth(1).unwrap().to_owned(),
        cloud.receipt_seed.clone(),
        bundle.device_seed.clone(),
        bundle.device_age_key.clone(),
        bundle.lan_key_pem.lines().nth(1).unwrap().to_owned(),
        "AGE-SECRET-KEY".into(),
        "PRIVATE KEY".into(),
    ];
    for name in ["root.key", "operations.key", "recovery.key"] {
        let file = fs::read_to_string(place.dir().join(name)).unwrap();
        secrets.push(secret_text::secret_of(&file).unwrap().to_owned());
    }
    let passphrases = [last(&printed[2]), last(&printed[3])];
    for text in &printed {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
    }
    // Each passphrase stands once in all that was printed.
    let all = printed.drain(..).collect::<String>();
    for passphrase in &passphrases {
        assert_eq!(all.matches(passphrase.as_str()).count(), 1);
    }
}

/// Goal: with `--json` each command prints one object on one line. Method: run all; the passphrase is a field
/// and opens the bundle.
#[test]
fn json() {
    let place = Place::empty();
    let (mut cloud, mut replica) = (String::new(), String::new());
    let cloud = text(&place, "cloud.bundle", &mut cloud);
    let replica = text(&place, "replica.bundle", &mut replica);
    let object = |arguments: &[&str]| -> Value {
        let printed = ok(&place, arguments);
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).unwrap()
    };
    let made = object(&["board", "init", "--name", "架空市", "--json"]);
    assert_eq!(made["board"]["name"], "架空市");
    assert_eq!(made["secret_files"].as_array().unwrap().len(), 4);
    let school = object(&["school", "add", "--code", CODE, "--name", "架空小", "--json"]);
    assert_eq!((&school["code"], &school["manifest_version"]), (&CODE.into(), &1.into()));
    let node = object(&["cloud", "enrol", "--host", "[::1]:5", "--out", cloud, "--json"]);
    assert_eq!((&node["host"], &node["bundle"]), (&"[::1]:5".into(), &Value::from(cloud.to_owned())));
    open::<CloudBundle>(&fs::read(cloud).unwrap(), node["passphrase"].as_str().unwrap()).unwrap();
    let member =
        object(&["replica", "enrol", "--school", CODE, "--kind", "continuity", "--out", replica, "--json"]);
    assert_eq!((&member["kind"], &member["manifest_version"]), (&"continuity".into(), &2.into()));
    open::<ReplicaBundle>(&fs::read(replica).unwrap(), member["passphrase"].as_str().unwrap()).unwrap();
}

/// Goal: bad input ends with code 3 and says what to do, and changes nothing. Method: each kind of it.
#[test]
fn bad_input() {
    let place = Place::empty();
    let mut out = String::new();
    let out = text(&place, "x.bundle", &mut out);
    let enrol = ["replica", "enrol", "--school", CODE, "--kind", "spare", "--out", out];
    let message = fails(&place, 3, &["show"]);
    assert!(message.contains("is not a board's directory; make one with"), "{message}");
    board(&place);

    let message = fails(&place, 3, &["board", "init", "--name", "もう一つ"]);
    assert!(message.contains("is not empty and stays as it is"), "{message}");
    let message = fails(&place, 3, &["school", "add", "--code", "B11320000001", "--name", "x"]);
    assert!(message.contains("'B11320000001' is not a school code"), "{message}");
    let message = fails(&place, 3, &["school", "add", "--code", CODE, "--name", "x"]);
    assert!(message.contains("exists already"), "{message}");
    let message = fails(&place, 3, &enrol);
    assert!(message.contains("run `sonae-provision cloud enrol` first"), "{message}");
    let message = fails(&place, 3, &["cloud", "enrol", "--host", "https://x", "--out", out]);
    assert!(message.contains("is not a host; give --host"), "{message}");
    assert!(!Path::new(out).exists());

    ok(&place, &["cloud", "enrol", "--host", "cloud.example.jp", "--out", out]);
    let kept = fs::read(out).unwrap();
    for arguments in [&enrol[..], &["cloud", "enrol", "--host", "cloud.example.jp", "--out", out]] {
        let message = fails(&place, 3, arguments);
        assert!(message.contains("exists and stays as it is; choose another --out"), "{message}");
    }
    assert_eq!(fs::read(out).unwrap(), kept);
    let mut other = String::new();
    let other = text(&place, "other.bundle", &mut other);
    let unknown = "C113200000011";
    let arguments = ["replica", "enrol", "--school", unknown, "--kind", "spare", "--out", other];
    let message = fails(&place, 3, &arguments);
    assert!(message.contains("unknown to this board; add it with"), "{message}");
    let message = fails(
        &place,
        3,
        &["replica", "enrol", "--school", CODE, "--kind", "spare", "--out", other, "--lan-name", "*.jp"],
    );
    assert!(message.contains("--lan-name") && message.contains("\"*.jp\" is not a host name"), "{message}");
    assert!(!Path::new(other).exists());
    let shown: Value = serde_json::from_str(&ok(&place, &["show", "--json"])).unwrap();
    assert_eq!(shown["schools"][0]["manifest_version"], 1);
    assert_eq!(shown["cloud"]["version"], 1);
}

/// Goal: a directory that is not ours stays untouched. Method: init over a directory with a file in it.
#[test]
fn foreign_directory_is_untouched() {
    let place = Place::empty();
    fs::create_dir(place.dir()).unwrap();
    fs::write(place.dir().join("root.key"), "mine").unwrap();
    fails(&place, 3, &["board", "init", "--name", "x"]);
    let names = sonae_provision::disk::names_in(&place.dir()).unwrap();
    assert_eq!(names, ["root.key"]);
}

/// Goal: two processes never work in one directory. Method: hold the board open here; every command ends with
/// code 4; after release it works.
#[test]
fn in_use() {
    let place = Place::empty();
    board(&place);
    let mut out = String::new();
    let out = text(&place, "x.bundle", &mut out);
    let held = place.open();
    for arguments in [
        &["show"][..],
        &["school", "add", "--code", "B113200000022", "--name", "x"],
        &["cloud", "enrol", "--host", "localhost", "--out", out],
        &["replica", "enrol", "--school", CODE, "--kind", "spare", "--out", out],
    ] {
        let message = fails(&place, 4, arguments);
        assert!(message.contains("wait until it has ended"), "{message}");
    }
    drop(held);
    ok(&place, &["show"]);
}

/// Goal: of many processes at once, those that do not get the lock change nothing and say so. Method: start
/// eight `school add`; codes are 0 or 4, and exactly the schools of the zeros exist.
#[test]
fn many_at_once() {
    let place = Place::empty();
    board(&place);
    let children: Vec<_> = (2..10)
        .map(|number| {
            let code = format!("B11320000{number}011");
            let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-provision"));
            command
                .args(["school", "add", "--json", "--name", "x", "--code", &code])
                .arg("--dir")
                .arg(place.dir());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            (code, command.spawn().unwrap())
        })
        .collect();
    let mut expected = vec![CODE.to_owned()];
    for (code, mut child) in children {
        match child.wait().unwrap().code() {
            Some(0) => expected.push(code),
            Some(4) => {}
            other => panic!("{other:?}"),
        }
    }
    expected.sort();
    let shown: Value = serde_json::from_str(&ok(&place, &["show", "--json"])).unwrap();
    let schools = shown["schools"].as_array().unwrap().iter();
    let codes: Vec<_> = schools.map(|school| school["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, expected);
}

/// Goal: help and usage are as documented. Method: `--help` of each command names all exit codes; a missing
/// argument and an unknown kind end with code 2; a full disk with code 5.
#[test]
fn help_usage_and_io() {
    let place = Place::empty();
    for command in [
        &["board", "init"][..],
        &["school", "add"],
        &["cloud", "enrol"],
        &["replica", "enrol"],
        &["show"],
        &[],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sonae-provision")).args(command).arg("--help").output();
        let output = output.unwrap();
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).unwrap();
        for line in ["0   done", "2   usage", "3   bad input", "4   ", "5   input", "70  internal"] {
            assert!(help.contains(line), "{command:?}: {help}");
        }
    }
    fails(&place, 2, &["board", "init"]);
    board(&place);
    let mut out = String::new();
    let out = text(&place, "none/x.bundle", &mut out);
    fails(&place, 2, &["replica", "enrol", "--school", CODE, "--kind", "other", "--out", out]);
    let message = fails(&place, 5, &["cloud", "enrol", "--host", "localhost", "--out", out]);
    assert!(message.contains("could not write") && message.contains("because:"), "{message}");
    ok(&place, &["show"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut show = Command::new(env!("CARGO_BIN_EXE_sonae-provision"));
    let output = show.args(["show", "--dir"]).arg(place.dir()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
}
