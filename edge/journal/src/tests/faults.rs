//! The n-th operation fails: EIO and ENOSPC, then reopening without and with a power cut.

use super::harness::{Ledger, Step, Stop, open, options, workload};
use crate::sim::{Cut, Fault, SimDisk};
use crate::{FrameKind, Journal, JournalError, Lsn, Options, Planted};

/// Lets the operation `at` fail, opens again on the same cache, goes on, loses the power, checks.
fn fail_once(seed: u64, at: u64, fault: Fault, options: &Options) -> Result<(), String> {
    let disk = SimDisk::new(seed ^ (at << 20));
    disk.fail_at(at, fault);
    let mut ledger = Ledger::default();
    let wrong = |stop| match stop {
        Stop::Journal(error) => format!("reopened: {error}"),
        Stop::Wrong(what) => what,
    };
    match ledger.run(&disk, options, &workload(seed, 18)) {
        Err(Stop::Journal(JournalError::Corrupt { what, .. })) => return Err(format!("false rot: {what}")),
        Err(Stop::Wrong(what)) => return Err(what),
        Ok(()) | Err(Stop::Journal(_)) => {}
    }
    // Without losing power: what the cache shows is not what a failed flush has written.
    ledger.run(&disk, options, &workload(seed + 500, 8)).map_err(wrong)?;
    disk.power_cycle(Cut::Drop);
    ledger.run(&disk, options, &workload(seed + 900, 8)).map_err(wrong)
}

fn exhaust(seed: u64, fault: Fault, options: &Options) -> Vec<String> {
    let disk = SimDisk::new(seed);
    assert!(Ledger::default().run(&disk, options, &workload(seed, 18)).is_ok());
    let all = 0..disk.counters().operations;
    all.filter_map(|at| fail_once(seed, at, fault, options).err().map(|what| format!("{seed}/{at}: {what}")))
        .collect()
}

/// Goal: a failing device loses nothing that was acknowledged. Method: EIO at every operation of twelve
/// workloads; a failed flush writes some sectors and leaves the cache looking clean.
#[test]
fn io_errors_at_every_operation() {
    for seed in 1..=12 {
        let wrong = exhaust(seed, Fault::Io, &options());
        assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
    }
}

/// Goal: a full disk loses nothing either, wherever the file system notices it. Method: ENOSPC at every operation.
#[test]
fn no_room_at_every_operation() {
    for seed in 1..=12 {
        let wrong = exhaust(seed, Fault::NoSpace, &options());
        assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
    }
}

/// Goal: the fault harness can fail. Method: recovery that trusts the cache after a failed flush is caught.
#[test]
fn trusting_the_cache_is_caught() {
    let options = Options { planted: Planted::SkipSettle, ..options() };
    assert!((1..=12).any(|seed| !exhaust(seed, Fault::Io, &options).is_empty()));
}

/// Goal: on a full disk ordinary commits are refused without harm, reserved ones go on into the reserve, and
/// recycling makes room again. Method: fill a disk that has room for four segments.
#[test]
fn the_reserve_outlasts_a_full_disk() {
    let disk = SimDisk::new(1);
    disk.set_room(Some(4 * 16 * 1024));
    let (mut journal, opened) = open(&disk, &options()).unwrap();
    let mut ledger = Ledger::default();
    ledger.check(&journal, &opened).unwrap();
    let full = |ledger: &mut Ledger, journal: &mut _, step: &Step| {
        (0..100).find_map(|_| ledger.step(journal, step).err()).expect("the disk has an end")
    };
    let error = full(&mut ledger, &mut journal, &Step::Commit(vec![3000]));
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert_eq!(journal.segments().count(), 3, "the reserve is untouched");
    assert_eq!(journal.reserve_ready(), 1);
    let before = ledger.acknowledged;
    let error = full(&mut ledger, &mut journal, &Step::CommitReserved(vec![3000]));
    assert!(error.is_full(), "{error}");
    assert_eq!(ledger.acknowledged - before, 2, "the reserve holds a segment");
    assert_eq!(journal.reserve_ready(), 0);
    assert!(!journal.is_poisoned());
    // Recycling needs a page for its mark, which is held back in every segment.
    ledger.step(&mut journal, &Step::Recycle(1)).unwrap();
    assert_eq!(journal.reserve_ready(), 1);
    ledger.step(&mut journal, &Step::Commit(vec![3000])).unwrap();
    drop(journal);
    disk.power_cycle(Cut::Drop);
    let (journal, opened) = open(&disk, &options()).unwrap();
    ledger.check(&journal, &opened).unwrap();
}

/// Fills a disk, has a reserved commit begin a segment of the reserve, and counts the ordinary commits that get in
/// there.
fn ordinary_in_the_reserve(options: &Options) -> (SimDisk, Journal, usize) {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, options).unwrap();
    let frame: (FrameKind, &[u8]) = (FrameKind(1), &[7; 3_000]);
    journal.commit(&[frame]).unwrap();
    disk.fill_at(disk.counters().operations, true);
    while journal.reserve_ready() == options.reserve_segments {
        journal.commit_reserved(&[frame]).unwrap();
    }
    let taken = (0..20).take_while(|_| journal.commit(&[frame]).is_ok()).count();
    (disk, journal, taken)
}

/// Goal: a segment that was taken from the reserve is for reserved commits alone, until the reserve is whole again.
/// Method: ordinary commits that would fit; room; a journal that lets them in as the control.
#[test]
fn the_reserve_is_for_reserved_commits() {
    let options = Options { reserve_segments: 2, ..options() };
    let (disk, mut journal, taken) = ordinary_in_the_reserve(&options);
    assert_eq!(taken, 0);
    let frame: (FrameKind, &[u8]) = (FrameKind(1), b"x");
    journal.commit_reserved(&[frame]).unwrap();
    disk.set_room(None);
    journal.commit(&[frame]).unwrap();
    assert_eq!(journal.reserve_ready(), 2, "it is made whole first");
    let spent = Options { planted: Planted::SpendReserve, ..options };
    assert!(ordinary_in_the_reserve(&spent).2 > 0, "the control was not caught");
}

/// Goal: a poisoned handle refuses everything, reading included. Method: fail one flush and try each call.
#[test]
fn a_failed_flush_poisons_the_handle() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, &options()).unwrap();
    let frame: (FrameKind, &[u8]) = (FrameKind(1), b"kept");
    let kept = *journal.commit(&[frame]).unwrap().start();
    // The operation after the next is the flush: the commit is one write and one flush.
    disk.fail_at(disk.counters().operations + 1, Fault::Io);
    assert!(matches!(journal.commit(&[frame]), Err(JournalError::Io { .. })));
    assert!(journal.is_poisoned());
    assert!(matches!(journal.commit(&[frame]), Err(JournalError::Poisoned)));
    assert!(matches!(journal.commit_reserved(&[frame]), Err(JournalError::Poisoned)));
    assert!(matches!(journal.mark(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.prepare(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.recycle_before(kept), Err(JournalError::Poisoned)));
    assert!(matches!(journal.read(kept), Err(JournalError::Poisoned)));
    assert!(matches!(journal.replay(kept).next(), Some(Err(JournalError::Poisoned))));
    drop(journal);
    let (journal, _) = open(&disk, &options()).unwrap();
    assert_eq!(journal.read(kept).unwrap().payload, b"kept");
}

/// Goal: a file whose use was cut short before its first commit does not keep the segment before it from being read as it
/// is on the device. Method: a torn roll-over into a new file or one that was a segment before, a failed flush in the
/// segment before, a restart, a power cut.
#[test]
fn a_torn_roll_over_hides_no_failed_flush() {
    let frame: (FrameKind, &[u8]) = (FrameKind(1), &[7; 100]);
    let cases = (0..400 * 60).map(|case| (case / 60 + 1, case / 6 % 10, case % 6));
    let options = Options { free_segments_max: 3, ..options() };
    for (seed, cut, fault) in cases {
        let disk = SimDisk::new(seed);
        let (mut journal, _) = open(&disk, &options).unwrap();
        journal.commit(&[frame]).unwrap();
        if seed % 2 == 0 {
            for _ in 0..2 {
                journal.turn();
                journal.commit(&[frame]).unwrap();
            }
            assert_eq!(journal.recycle_before(Lsn::FIRST.plus(2)).unwrap(), 2);
            drop(journal);
            journal = open(&disk, &options).unwrap().0;
            journal.commit(&[frame]).unwrap();
        }
        journal.prepare().unwrap();
        journal.turn();
        disk.cut_at(disk.counters().operations + cut);
        if journal.commit(&[frame]).is_ok() {
            continue;
        }
        drop(journal);
        disk.power_cycle(Cut::Torn);
        let (mut journal, _) = open(&disk, &options).unwrap();
        disk.fail_at(disk.counters().operations + fault, Fault::Io);
        if journal.commit(&[frame]).is_ok() {
            continue;
        }
        drop(journal);
        let (mut journal, _) = open(&disk, &options).unwrap();
        let kept = *journal.commit(&[frame]).unwrap().start();
        drop(journal);
        disk.power_cycle(Cut::Drop);
        let (journal, _) = open(&disk, &options)
            .unwrap_or_else(|error| panic!("seed {seed} cut {cut} fault {fault}: {error}"));
        assert_eq!(journal.read(kept).unwrap().payload, frame.1, "seed {seed}");
    }
}
