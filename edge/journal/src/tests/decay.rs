//! Decay: single faults of the medium in journals that have been recycled, and repairs that are interrupted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::harness::{DIR, Ledger, Random, Step, open, options, workload};
use crate::limits::SECTOR_BYTES;
use crate::sim::{Cut, SimDisk};
use crate::{Disk, Frame, Journal, JournalError, Lsn, Options};

fn salvage() -> Options {
    Options { salvage: true, ..options() }
}

/// A journal that has rolled over and been recycled, and ends with a mark.
fn marked_journal(seed: u64) -> (SimDisk, Ledger) {
    let disk = SimDisk::new(seed);
    let mut ledger = Ledger::default();
    let mut steps = workload(seed, 30);
    steps.push(Step::Commit(vec![10, 20]));
    steps.push(Step::Mark);
    ledger.run(&disk, &options(), &steps).unwrap();
    (disk, ledger)
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    names.iter().filter(|name| name.ends_with(".snj")).map(|name| Path::new(DIR).join(name)).collect()
}

/// What salvage can read and what it says is lost, which together must be everything.
fn account(disk: &SimDisk, ledger: &Ledger) -> Result<u64, String> {
    let (journal, opened) = open(disk, &salvage()).map_err(|error| format!("salvage: {error}"))?;
    let lost: u64 = opened.lost.iter().map(|range| range.end().0 + 1 - range.start().0).sum();
    let mut read = 0;
    for frame in journal.replay(journal.first_lsn()) {
        match frame {
            Ok(frame) if ledger.attempted[frame.lsn.0 as usize - 1] == frame => read += 1,
            Ok(frame) => return Err(format!("frame {} was changed", frame.lsn)),
            Err(JournalError::Lost { .. }) => {}
            Err(error) => return Err(format!("salvage: {error}")),
        }
    }
    let first =
        opened.lost.first().map_or(journal.first_lsn(), |range| journal.first_lsn().min(*range.start()));
    let wanted = ledger.acknowledged as u64 + 1 - first.0;
    if read + lost != wanted || opened.next_lsn.0 != ledger.acknowledged as u64 + 1 {
        return Err(format!("{read} read and {lost} lost of {wanted}"));
    }
    Ok(lost)
}

/// Goal: one bad sector anywhere, free segments included, is harmless or reported, and salvage accounts for every
/// frame. Method: replace each sector of recycled journals by noise, then by zeros.
#[test]
fn one_bad_sector_is_never_a_silent_loss() {
    let sector = SECTOR_BYTES as usize;
    let mut reported = 0;
    for seed in 1..=6 {
        let (whole, ledger) = marked_journal(seed);
        for path in files(&whole) {
            for at in (0..16 * 1024).step_by(sector) {
                for noise in [true, false] {
                    let (disk, mut ledger) = (whole.fork(), ledger.clone());
                    let mut random = Random(seed << 20 | at as u64 | 1);
                    let bytes: Vec<u8> =
                        (0..sector).map(|_| if noise { random.below(256) as u8 } else { 0 }).collect();
                    Disk::open(&disk, &path).unwrap().write_at(at as u64, &bytes).unwrap();
                    let place = format!("seed {seed} {path:?} byte {at} noise {noise}");
                    let lost = account(&disk, &ledger).unwrap_or_else(|what| panic!("{place}: {what}"));
                    match open(&disk, &options()) {
                        Ok((journal, opened)) => {
                            ledger.check(&journal, &opened).unwrap_or_else(|what| panic!("{place}: {what}"));
                            assert_eq!(lost, 0, "{place}");
                        }
                        Err(error) => {
                            reported += 1;
                            assert!(error.is_corrupt(), "{place}: {error}");
                        }
                    }
                }
            }
        }
    }
    assert!(reported > 50, "{reported}");
}

/// Salvages, commits everything needed again and recycles the rest, as the owner does after rot.
fn repair(disk: &SimDisk, everything: &[Frame]) -> Result<Lsn, JournalError> {
    let (mut journal, opened) = open(disk, &salvage())?;
    let begin = opened.next_lsn;
    for frame in everything {
        journal.commit_reserved(&[(frame.kind, &frame.payload)])?;
    }
    journal.recycle_before(begin)?;
    Ok(begin)
}

/// Goal: a repair can be interrupted anywhere and begun again. Method: damage, cut the power before each operation
/// of the repair, repair again, open without salvage, compare.
#[test]
fn a_repair_survives_power_cuts() {
    let (whole, ledger) = marked_journal(3);
    let damaged = || {
        let disk = whole.fork();
        let (journal, _) = open(&disk, &options()).unwrap();
        let first = journal.segments().next().unwrap();
        drop(journal);
        // The first commit of the oldest live segment, wherever it lies.
        let holds = |path: &PathBuf| {
            let header = crate::layout::SegmentHeader::decode(&disk.contents(path).unwrap());
            header.is_some_and(|header| header.epoch == first.epoch)
        };
        let path = files(&disk).into_iter().find(holds).unwrap();
        assert!(disk.flip(&path, 4096 + 100, 0xff));
        disk
    };
    let disk = damaged();
    assert!(open(&disk, &options()).is_err_and(|error| error.is_corrupt()));
    let before = disk.counters().operations;
    repair(&disk, &ledger.attempted).unwrap();
    let operations = disk.counters().operations - before;
    assert!(operations > 50, "{operations}");
    for at in 0..operations {
        let disk = damaged();
        disk.cut_at(disk.counters().operations + at);
        // The last operations delete files, which is allowed to fail.
        assert!(repair(&disk, &ledger.attempted).is_err() || disk.is_off());
        disk.power_cycle(if at % 2 == 0 { Cut::Torn } else { Cut::Drop });
        let begin = repair(&disk, &ledger.attempted).unwrap();
        disk.power_cycle(Cut::Drop);
        let (journal, opened) = Journal::open(Arc::new(disk.clone()), Path::new(DIR), options()).unwrap();
        assert!(opened.rot.is_empty(), "cut before {at}: {opened:?}");
        let payloads: Vec<_> = journal.replay(begin).map(|frame| frame.unwrap().payload).collect();
        let wanted: Vec<_> = ledger.attempted.iter().map(|frame| frame.payload.clone()).collect();
        assert_eq!(payloads, wanted, "cut before {at}");
    }
}
