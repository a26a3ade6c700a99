//! Power cuts before every operation of seeded workloads, twice in a row.

use super::harness::{Ledger, Random, Stop, options, workload};
use crate::sim::{Cut, SimDisk};
use crate::{JournalError, Options, Planted};

const CUTS: [Cut; 5] = [Cut::Drop, Cut::Keep, Cut::Prefix, Cut::Torn, Cut::Torn];

/// Runs a workload, cuts the power before the operation `at`, opens, checks, goes on with another workload, cuts
/// again, checks. Returns how many cuts happened.
fn cut_twice(seed: u64, at: u64, cut: Cut, salt: u64, options: &Options) -> Result<u64, String> {
    let disk = SimDisk::new(seed ^ (at << 20) ^ (salt << 40));
    let mut random = Random((seed << 32 | at << 8 | salt) | 1);
    let mut ledger = Ledger::default();
    let mut cuts = 0;
    let mut limit = at;
    for round in 0..3 {
        disk.cut_at(limit);
        match ledger.run(&disk, options, &workload(seed + round * 1000, 18)) {
            Ok(()) => {}
            Err(Stop::Journal(JournalError::Corrupt { what, .. })) => {
                return Err(format!("false rot: {what}"));
            }
            Err(Stop::Journal(error)) if disk.is_off() => drop(error),
            Err(Stop::Journal(error)) => return Err(format!("without a cut: {error}")),
            Err(Stop::Wrong(what)) => return Err(what),
        }
        cuts += u64::from(disk.is_off());
        disk.power_cycle(if round == 0 { cut } else { CUTS[random.below(5) as usize] });
        limit = disk.counters().operations + random.below(40);
    }
    match ledger.run(&disk, options, &workload(seed + 77, 6)) {
        Ok(()) => Ok(cuts),
        Err(Stop::Journal(error)) => Err(format!("after the last cut: {error}")),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

/// Cuts the workload of the seed before each of its operations. Returns the cuts and what went wrong.
fn exhaust(seed: u64, options: &Options) -> (u64, Vec<String>) {
    let disk = SimDisk::new(seed);
    let clean = Ledger::default().run(&disk, options, &workload(seed, 18));
    assert!(clean.is_ok(), "seed {seed} without a cut: {clean:?}");
    let mut cuts = 0;
    let mut wrong = Vec::new();
    for at in 0..disk.counters().operations {
        for (salt, cut) in (0..).zip(CUTS) {
            match cut_twice(seed, at, cut, salt, options) {
                Ok(count) => cuts += count,
                Err(what) => {
                    wrong.push(format!("seed {seed}, cut {cut:?} (salt {salt}) before {at}: {what}"))
                }
            }
        }
    }
    (cuts, wrong)
}

/// Goal: nothing acknowledged is lost, nothing is invented, whatever the power does. Method: twelve workloads
/// with roll-over and recycling, cut before every single operation in five ways, then twice more at random.
#[test]
fn no_acknowledged_frame_is_lost_in_a_power_cut() {
    let mut cuts = 0;
    for seed in 1..=12 {
        let (count, wrong) = exhaust(seed, &options());
        assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
        cuts += count;
    }
    println!("{cuts} power cuts");
    assert!(cuts > 5000, "the workloads are long enough to mean something: {cuts} cuts");
}

/// Goal: the same for segments in which a commit can take many pages. Method: as above, with 64 KiB.
#[test]
fn longer_segments_survive_power_cuts() {
    let options = Options { segment_bytes: 64 * 1024, ..options() };
    for seed in 101..=103 {
        let (_, wrong) = exhaust(seed, &options);
        assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
    }
}

/// Goal: the harness can fail. Method: journals with a planted defect, which it must catch.
#[test]
fn planted_defects_are_caught_by_power_cuts() {
    for planted in [Planted::SkipFlush, Planted::SkipDirectoryFlush] {
        let options = Options { planted, ..options() };
        let caught = (1..=3).any(|seed| !exhaust(seed, &options).1.is_empty());
        assert!(caught, "{planted:?} was not caught");
    }
}
