//! The command line: what it prints and with which code it ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::process::Command;

use common::board::Board;
use common::process::{Daemon, PASSPHRASE, command, command_on, run, write_bundle};

fn root(board: &Board) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write_bundle(board, &root.path().join("bundle"));
    root
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Goal: each wrong start has its own code and says what to do. Method: one of each.
#[test]
fn wrong_starts_say_what_is_wrong() {
    let board = Board::new();
    let root = root(&board);
    let wrong = run(&mut command(root.path()), "wrong-words");
    assert_eq!(wrong.status.code(), Some(3));
    assert!(said(&wrong).contains("check it against the line"), "{}", said(&wrong));
    assert_eq!(run(&mut command(root.path()), "").status.code(), Some(3));
    let mut sealed = std::fs::read(root.path().join("bundle")).unwrap();
    let middle = sealed.len() / 2;
    sealed[middle] ^= 1;
    std::fs::write(root.path().join("bundle"), &sealed).unwrap();
    let damaged = run(&mut command(root.path()), PASSPHRASE);
    assert_eq!(damaged.status.code(), Some(3));
    assert!(said(&damaged).contains("copy it again"), "{}", said(&damaged));
    sealed[middle] ^= 1;
    std::fs::write(root.path().join("bundle"), &sealed).unwrap();

    let same = run(command(root.path()).arg("--site").arg(root.path().join("a")), PASSPHRASE);
    assert_eq!(same.status.code(), Some(5));
    assert!(said(&same).contains("one and the same"), "{}", said(&same));
    let quorum = run(command(root.path()).args(["--quorum", "3"]), PASSPHRASE);
    assert_eq!(quorum.status.code(), Some(2), "{}", said(&quorum));
    let sooner = run(command(root.path()).args(["--superseded-days", "6"]), PASSPHRASE);
    assert_eq!(sooner.status.code(), Some(2));
    assert!(said(&sooner).contains("6 is not in 7..=36500"), "{}", said(&sooner));
    let usage = Command::new(env!("CARGO_BIN_EXE_sonae-cloud")).arg("run").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// Goal: a bundle of another board's descriptor makes no node. Method: swap the descriptor.
#[test]
fn a_node_that_edges_would_not_trust_does_not_start() {
    let (board, other) = (Board::new(), Board::new());
    let mut bundle = board.bundle();
    bundle.descriptor = other.descriptor.text().to_owned();
    assert!(sonae_cloud::identity::NodeIdentity::of_bundle(&bundle).is_err());
    let mut bundle = board.bundle();
    bundle.receipt_seed = "11".repeat(32);
    assert!(sonae_cloud::identity::NodeIdentity::of_bundle(&bundle).is_err());
}

/// Goal: one data directory, one address, one process; status says what runs. Method: start, start again, stop.
#[test]
fn a_data_directory_is_used_once() {
    let board = Board::new();
    let root = root(&board);
    let data = root.path().join("data");
    let status = |flag: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-cloud"));
        command.arg("status").arg("--data").arg(&data).args(flag).output().unwrap()
    };
    assert_eq!(status(&[]).status.code(), Some(2));
    let daemon = Daemon::start(&mut command(root.path()));
    assert_eq!(daemon.ready["ready"], true);
    assert_eq!((&daemon.ready["sites"], &daemon.ready["quorum"]), (&2.into(), &2.into()));
    assert!(daemon.ready["boot"].as_str().is_some_and(|boot| boot.len() == 26));
    let second = run(&mut command(root.path()), PASSPHRASE);
    assert_eq!(second.status.code(), Some(4), "{}", said(&second));

    let elsewhere = tempfile::tempdir().unwrap();
    write_bundle(&board, &elsewhere.path().join("bundle"));
    let address = daemon.address.to_string();
    let third = run(&mut command_on(elsewhere.path(), &address), PASSPHRASE);
    assert_eq!(third.status.code(), Some(6), "{}", said(&third));

    assert!(daemon.terminate().success());
    let json: serde_json::Value = serde_json::from_slice(&status(&["--json"]).stdout).unwrap();
    assert_eq!(json["running"], false);
    assert_eq!(json["sites"].as_array().unwrap().len(), 2);
    assert!(String::from_utf8_lossy(&status(&[]).stdout).contains("quorum    2 of 2 sites"));
    assert!(String::from_utf8_lossy(&status(&[]).stdout).contains("merging   not looked yet"));
    assert_eq!(json["compaction"]["delete_after_hours"], 168);
    let daemon = Daemon::start(&mut command(root.path()));
    let json: serde_json::Value = serde_json::from_slice(&status(&["--json"]).stdout).unwrap();
    assert_eq!(json["running"], true);
    daemon.kill();
}
