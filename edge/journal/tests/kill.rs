//! A writer process is killed again and again in the same directory; an outside ledger knows what it was told.
//!
//! This test has no harness of its own process: it runs itself as the writer.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test, of which the helpers may fail too")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sonae_journal::{FrameKind, Journal, Lsn, Options, RealDisk};

/// Names the directory and makes the process a writer.
const WRITER: &str = "SONAE_JOURNAL_TEST_WRITER";

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, ..Options::default() }
}

/// What frame `lsn` holds: derived from its number, so that the ledger is just a number.
fn payload(lsn: Lsn) -> Vec<u8> {
    let length = usize::try_from(lsn.0 * 37 % 900).unwrap();
    lsn.0.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// Commits for ever, and prints each sequence number once it is acknowledged.
fn write_until_killed(dir: &Path) {
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), dir, options()).unwrap();
    let mut out = std::io::stdout();
    loop {
        let next = journal.next_lsn();
        let payloads: Vec<_> = (0..1 + next.0 % 3).map(|at| payload(next.plus(at))).collect();
        let frames: Vec<_> = payloads.iter().map(|payload| (FrameKind(1), payload.as_slice())).collect();
        let last = *journal.commit(&frames).unwrap().end();
        writeln!(out, "acknowledged {last}").unwrap();
        out.flush().unwrap();
        if last.0.is_multiple_of(64) {
            journal.recycle_before(Lsn(last.0.saturating_sub(500))).unwrap();
        }
        if last.0.is_multiple_of(7) {
            journal.mark().unwrap();
        }
    }
}

/// Runs a writer, kills it after a while, and returns the last frame that it said was kept.
fn kill_a_writer(dir: &Path, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_writers_lose_nothing", "--nocapture"])
        .env(WRITER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: &str| line.split_once("acknowledged ").and_then(|(_, lsn)| lsn.parse::<u64>().ok());
    // The time runs from the first acknowledgement on, however long starting takes.
    let first =
        lines.by_ref().map_while(Result::ok).find_map(|line| number(&line)).expect("the writer writes");
    let killer = std::thread::spawn(move || {
        // paced: the moment of the kill is random; nothing is waited for.
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let last = lines.map_while(Result::ok).filter_map(|line| number(&line)).max().unwrap_or(first);
    killer.join().unwrap();
    last
}

/// Goal: kill -9 loses nothing that was acknowledged. Method: kill a writer at twelve moments in the same
/// directory, and after each compare the journal with what the writer had said.
#[test]
fn killed_writers_lose_nothing() {
    if let Some(dir) = std::env::var_os(WRITER) {
        write_until_killed(&PathBuf::from(dir));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for kill in 0..12_u64 {
        let acknowledged = kill_a_writer(dir.path(), Duration::from_micros(500 + kill * kill * 1700));
        assert!(acknowledged > last, "each writer goes on where the one before was killed");
        last = acknowledged;
        let (journal, _) = Journal::open(Arc::new(RealDisk), dir.path(), options()).unwrap();
        assert!(journal.next_lsn() > Lsn(last), "{last} was acknowledged, {} is next", journal.next_lsn());
        assert!(
            journal.first_lsn() <= Lsn(last.saturating_sub(500).max(1)),
            "more was recycled than asked for"
        );
        let mut count = 0;
        for frame in journal.replay(journal.first_lsn()) {
            let frame = frame.unwrap();
            assert_eq!(frame.payload, payload(frame.lsn), "frame {}", frame.lsn);
            count += 1;
        }
        assert_eq!(count, journal.next_lsn().0 - journal.first_lsn().0, "replay has no gap");
    }
    assert!(last > 100, "the writers got somewhere: {last}");
}
