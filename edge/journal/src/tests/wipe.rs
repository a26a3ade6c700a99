//! Overwriting what was recycled: gone from every file, and harmless wherever the power goes.

use std::path::Path;

use super::harness::{DIR, Ledger, Step, Stop, open, options};
use crate::sim::{Cut, SimDisk};
use crate::{Disk as _, FrameKind, Options};

const SECRET: &[u8] = b"what was erased";

fn is_on(disk: &SimDisk, needle: &[u8]) -> bool {
    let names = disk.list(Path::new(DIR)).unwrap();
    let contents = names.iter().filter_map(|name| disk.contents(&Path::new(DIR).join(name)));
    contents.into_iter().any(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
}

/// Goal: after a turn, recycling and wiping, no file has a byte of the recycled frame, and what was needed is there.
/// Method: a secret, then the three steps, and a search of all files; recycling alone leaves it there.
#[test]
fn recycled_frames_are_overwritten() {
    let disk = SimDisk::new(1);
    let options = Options { free_segments_max: 4, ..options() };
    let (mut journal, _) = open(&disk, &options).unwrap();
    journal.commit(&[(FrameKind(1), SECRET)]).unwrap();
    journal.turn();
    let kept = journal.commit(&[(FrameKind(1), b"what stays")]).unwrap();
    assert_eq!(journal.recycle_before(*kept.start()).unwrap(), 1);
    assert!(is_on(&disk, SECRET), "recycling alone is not enough");
    journal.wipe_free().unwrap();
    assert!(!is_on(&disk, SECRET) && is_on(&disk, b"what stays"));
    drop(journal);
    let (mut journal, opened) = open(&disk, &options).unwrap();
    assert_eq!(
        (opened.first_lsn, journal.read(*kept.start()).unwrap().payload.as_slice()),
        (*kept.start(), &b"what stays"[..])
    );
    journal.commit(&[(FrameKind(1), b"goes on")]).unwrap();
}

/// Goal: nothing acknowledged is lost when the power goes while segments are turned and wiped. Method: a workload with
/// three wipes, cut before each operation in four ways, opened again, checked, gone on with.
#[test]
fn a_cut_while_wiping_loses_nothing() {
    let commit = || Step::Commit(vec![700, 40]);
    let steps = [
        commit(),
        commit(),
        commit(),
        Step::Wipe,
        commit(),
        Step::Wipe,
        commit(),
        commit(),
        Step::Reopen,
        Step::Mark,
        Step::Wipe,
        commit(),
    ];
    let run = |disk: &SimDisk, ledger: &mut Ledger| ledger.run(disk, &options(), &steps);
    let clean = SimDisk::new(1);
    run(&clean, &mut Ledger::default()).unwrap();
    let operations = clean.counters().operations;
    assert!(operations > 40, "{operations}");
    for at in 0..operations {
        for cut in [Cut::Drop, Cut::Keep, Cut::Prefix, Cut::Torn] {
            let (disk, mut ledger) = (SimDisk::new(at + 1), Ledger::default());
            disk.cut_at(at);
            match run(&disk, &mut ledger) {
                Err(Stop::Journal(_)) if disk.is_off() => {}
                other => panic!("{cut:?} before {at}: {other:?}"),
            }
            disk.power_cycle(cut);
            run(&disk, &mut ledger).unwrap_or_else(|error| panic!("after {cut:?} before {at}: {error:?}"));
        }
    }
}
