//! The handle: limits, flush counts, recycling, bounds, locking, options.

use std::path::Path;
use std::sync::Arc;

use super::harness::{DIR, Ledger, Step, open, options};
use crate::limits::{COMMIT_OVERHEAD_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX};
use crate::sim::{Cut, SimDisk};
use crate::{FrameKind, Journal, JournalError, Lsn, Options, RealDisk};

/// Goal: N commits are exactly N writes and N flushes, also across roll-overs into prepared segments. Method:
/// count on the simulated disk.
#[test]
fn one_write_and_one_flush_for_each_commit() {
    let disk = SimDisk::new(1);
    let options = Options { segment_bytes: 64 * 1024, reserve_segments: 8, ..options() };
    let (mut journal, _) = open(&disk, &options).unwrap();
    let before = disk.counters();
    for _ in 0..100 {
        // The reserve is what has been prepared; the commits use it up, one segment for 14 of them.
        journal.commit_reserved(&[(FrameKind(1), &[7; 284]), (FrameKind(2), b"second")]).unwrap();
    }
    let after = disk.counters();
    assert_eq!(journal.segments().count(), 8, "the commits rolled over");
    assert_eq!(after.flushes - before.flushes, 100);
    assert_eq!(after.writes - before.writes, 100);
    assert_eq!(after.directory_flushes, before.directory_flushes);
    assert_eq!(after.operations - before.operations, 200);
    assert_eq!(journal.flushes(), 100);
    // A page for each commit and a header page for each segment.
    assert_eq!(after.bytes_written - before.bytes_written, (100 + 8) * 4096);
}

/// Goal: recycling bounds the disk for ever and the files are re-used. Method: 500 commits, recycled as they go.
#[test]
fn recycling_bounds_the_disk() {
    let disk = SimDisk::new(1);
    let (mut journal, opened) = open(&disk, &options()).unwrap();
    let mut ledger = Ledger::default();
    ledger.check(&journal, &opened).unwrap();
    let mut bytes_max = 0;
    for _ in 0..500 {
        ledger.step(&mut journal, &Step::Commit(vec![100, 1000])).unwrap();
        ledger.step(&mut journal, &Step::Recycle(4)).unwrap();
        bytes_max = bytes_max.max(journal.bytes_on_disk());
    }
    assert!(bytes_max <= 6 * 16 * 1024, "{bytes_max}");
    assert!(journal.first_lsn() > Lsn(900));
    let newest = journal.segments().last().unwrap();
    assert!(newest.epoch > 200, "files were used again and again: {newest:?}");
    assert!(matches!(journal.read(Lsn(5)), Err(JournalError::NotHeld { lsn: Lsn(5), .. })));
    assert!(matches!(journal.replay(Lsn(5)).next(), Some(Err(JournalError::NotHeld { .. }))));
    drop(journal);
    let (journal, opened) = open(&disk, &options()).unwrap();
    ledger.check(&journal, &opened).unwrap();
    assert!(journal.first_lsn() > Lsn(900), "what was recycled stays recycled");
}

/// Goal: the bounds of the segments tell what recycling would free. Method: recycle to the end of the oldest.
#[test]
fn segment_bounds_are_contiguous() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, &options()).unwrap();
    for _ in 0..9 {
        journal.commit(&[(FrameKind(1), b"a"), (FrameKind(1), b"b")]).unwrap();
    }
    let bounds: Vec<_> = journal.segments().collect();
    assert!(bounds.len() > 3);
    assert_eq!(bounds[0].first_lsn, journal.first_lsn());
    assert_eq!(bounds[bounds.len() - 1].next_lsn, journal.next_lsn());
    assert!(
        bounds.windows(2).all(|pair| pair[0].next_lsn == pair[1].first_lsn && pair[0].epoch < pair[1].epoch)
    );
    assert_eq!(journal.recycle_before(bounds[0].next_lsn.before()).unwrap(), 0, "its last frame is needed");
    assert_eq!(journal.recycle_before(bounds[0].next_lsn).unwrap(), 1);
    assert_eq!(journal.first_lsn(), bounds[1].first_lsn);
    assert_eq!(journal.recycle_before(Lsn(u64::MAX)).unwrap(), bounds.len() - 2, "the active one stays");
    assert_eq!(journal.next_lsn(), Lsn(19));
}

/// Goal: the limits hold to the byte, and what is refused writes nothing. Method: the largest and one more.
#[test]
fn sizes_are_limited() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, &options()).unwrap();
    let largest = (journal.commit_bytes_max() - COMMIT_OVERHEAD_BYTES - FRAME_HEADER_BYTES) as usize;
    let before = disk.counters().operations;
    let refused = journal.commit(&[(FrameKind(1), &vec![1; largest + 1])]);
    assert!(matches!(refused, Err(JournalError::TooLarge { what: "a commit", .. })), "{refused:?}");
    assert!(matches!(journal.commit(&[]), Err(JournalError::Empty)));
    let refused = journal.commit(&[(FrameKind(1), &vec![1; FRAME_PAYLOAD_BYTES_MAX as usize + 1])]);
    assert!(matches!(refused, Err(JournalError::TooLarge { what: "a frame", .. })), "{refused:?}");
    assert_eq!(disk.counters().operations, before);
    let lsn = *journal.commit(&[(FrameKind(1), &vec![1; largest])]).unwrap().start();
    assert_eq!(journal.read(lsn).unwrap().payload.len(), largest);

    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, &Options::default()).unwrap();
    let payload = vec![2; FRAME_PAYLOAD_BYTES_MAX as usize];
    let lsn = *journal.commit(&[(FrameKind(1), &payload)]).unwrap().start();
    drop(journal);
    let (journal, _) = open(&disk, &Options::default()).unwrap();
    assert_eq!(journal.read(lsn).unwrap().payload, payload);
}

/// Goal: a mark is one flush, is idempotent, and is seen after reopening. Method: count and reopen.
#[test]
fn marks_are_written_once() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, &options()).unwrap();
    assert!(!journal.mark().unwrap(), "an empty journal has nothing to mark");
    journal.commit(&[(FrameKind(1), b"x")]).unwrap();
    let flushes = disk.counters().flushes;
    assert!(journal.mark().unwrap());
    assert!(!journal.mark().unwrap());
    assert_eq!(disk.counters().flushes, flushes + 1);
    drop(journal);
    disk.power_cycle(Cut::Drop);
    let (mut journal, opened) = open(&disk, &options()).unwrap();
    assert!(opened.marked);
    assert!(!journal.mark().unwrap());
    journal.commit(&[(FrameKind(1), b"y")]).unwrap();
    drop(journal);
    assert!(!open(&disk, &options()).unwrap().1.marked);
}

/// Goal: one handle at a time, on the real and the simulated disk. Method: open twice, drop, open again.
#[test]
fn a_second_handle_is_refused() {
    let disk = SimDisk::new(1);
    let (journal, _) = open(&disk, &options()).unwrap();
    assert!(matches!(open(&disk, &options()), Err(JournalError::Locked { .. })));
    drop(journal);
    open(&disk, &options()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let real = || Journal::open(Arc::new(RealDisk), dir.path(), options());
    let (journal, _) = real().unwrap();
    assert!(matches!(real(), Err(JournalError::Locked { .. })));
    drop(journal);
    real().unwrap();
}

/// Goal: the real disk does what the simulated one does. Method: the same steps and checks in a directory.
#[test]
fn the_real_disk_works_alike() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("a").join("b");
    let mut ledger = Ledger::default();
    for seed in 1..=6 {
        let (mut journal, opened) = Journal::open(Arc::new(RealDisk), &nested, options()).unwrap();
        ledger.check(&journal, &opened).unwrap();
        for step in super::harness::workload(seed, 30) {
            ledger.step(&mut journal, &step).unwrap();
        }
    }
    let (journal, opened) = Journal::open(Arc::new(RealDisk), &nested, options()).unwrap();
    ledger.check(&journal, &opened).unwrap();
    assert!(ledger.acknowledged > 100);
}

/// Goal: the segment size can change between two openings. Method: small segments, then larger ones, then small.
#[test]
fn segment_size_may_change() {
    let disk = SimDisk::new(1);
    let mut ledger = Ledger::default();
    for bytes in [16, 64, 32, 16] {
        let options = Options { segment_bytes: bytes * 1024, ..options() };
        let (mut journal, opened) = open(&disk, &options).unwrap();
        ledger.check(&journal, &opened).unwrap();
        for _ in 0..6 {
            ledger.step(&mut journal, &Step::Commit(vec![5000])).unwrap();
        }
        ledger.step(&mut journal, &Step::Recycle(4)).unwrap();
    }
    let (journal, opened) = open(&disk, &options()).unwrap();
    ledger.check(&journal, &opened).unwrap();
}

/// Goal: options outside the limits and unknown versions are refused, not guessed at. Method: wrong values, and
/// a header with a higher version and a right checksum.
#[test]
fn options_and_versions_are_checked() {
    let disk = SimDisk::new(1);
    for segment_bytes in [0, 4096, 16 * 1024 + 1, u32::MAX] {
        let refused = open(&disk, &Options { segment_bytes, ..options() });
        assert!(matches!(refused, Err(JournalError::Options { .. })));
    }
    let (mut journal, _) = open(&disk, &options()).unwrap();
    journal.commit(&[(FrameKind(1), b"x")]).unwrap();
    drop(journal);
    let path = Path::new(DIR).join("segment-0000000000000001.snj");
    let mut header = crate::layout::SegmentHeader::decode(&disk.contents(&path).unwrap()).unwrap();
    header.version = 2;
    crate::Disk::open(&disk, &path).unwrap().write_at(0, &header.encode_page()).unwrap();
    let refused = open(&disk, &options()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, JournalError::Version { version: 2, known: 1, .. }), "{refused}");
}

/// Goal: each error says what to do next. Method: compare the text of some.
#[test]
fn errors_say_what_to_do_next() {
    let locked = JournalError::Locked { dir: "/j".into() };
    assert_eq!(locked.to_string(), "the journal in /j is in use: stop the other process first");
    let corrupt =
        JournalError::Corrupt { segment: "s".into(), offset: 4096, first: Lsn(3), last: Lsn(5), what: "w" };
    assert!(corrupt.is_corrupt() && !corrupt.is_full());
    assert_eq!(
        corrupt.to_string(),
        "segment s is corrupt at byte 4096 (w), frames 3 to 5: open with salvage, fetch the lost frames from the \
         cloud, commit again what is still needed and recycle the old segments"
    );
    assert!(JournalError::Poisoned.to_string().ends_with("drop it and open the journal again"));
}
