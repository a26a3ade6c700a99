//! The whole store on a simulated disk, exhaustively: the power goes before every operation, every operation
//! fails, and an outside ledger says what must be there afterwards.
//!
//! One recorded run of a workload gives the disk before each of its operations, so each power cut costs one
//! recovery only. `make test` takes every n-th; `SONAE_EXHAUSTIVE=all` (`make exhaustive`) takes all.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod full;
mod imports;
mod judge;
mod recording;
mod rig;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::path::Path;

use judge::{Expected, judge};
use recording::{CUTS, FAULTS, Point, Recording, cut, cut_salted, fail, record, workloads};
use sonae_journal::sim::{Cut, Fault, Operation};
use sonae_journal::{Disk as _, Planted};
use sonae_store::options::{Defects, Options};
use workload::{Step, by_hand};
use world::options;

/// Counts of one kind of operation: cuts in four ways, EIO, ENOSPC.
type Counts = BTreeMap<(&'static str, Operation), [u64; 3]>;

/// Whether a point is taken: all of them, or every n-th, others for each workload.
fn is_taken(seed: u64, number: u64, every: u64) -> bool {
    std::env::var("SONAE_EXHAUSTIVE").is_ok_and(|asked| asked == "all")
        || (number + seed * 7).is_multiple_of(every)
}

fn report(counts: &Counts, wrong: &[String]) {
    for ((place, operation), [cuts, io, room]) in counts {
        println!(
            "{{\"place\":\"{place}\",\"operation\":\"{operation:?}\",\"cuts\":{cuts},\"eio\":{io},\"enospc\":{room}}}"
        );
    }
    assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
}

fn all_cuts(
    recording: &Recording,
    every: u64,
    options: &Options,
    counts: &mut Counts,
    wrong: &mut Vec<String>,
) {
    for (number, point) in recording.points.iter().enumerate() {
        for (way, each) in (0..).zip(CUTS) {
            if is_taken(recording.seed, number as u64 * 4 + way, every) {
                counts.entry((point.place, point.operation)).or_default()[0] += 1;
                wrong.extend(cut(recording, number, each, options).err());
            }
        }
    }
}

fn all_faults(
    recording: &Recording,
    every: u64,
    options: &Options,
    counts: &mut Counts,
    wrong: &mut Vec<String>,
) {
    for (number, point) in recording.points.iter().enumerate() {
        for (way, fault) in (0..).zip(FAULTS) {
            if is_taken(recording.seed, number as u64 * 2 + way, every) {
                counts.entry((point.place, point.operation)).or_default()[1 + way as usize] += 1;
                let failed = fail(recording, number, fault, options);
                let (place, operation) = (point.place, point.operation);
                let described = |what| {
                    format!("{}: {fault:?} at {number} ({place} {operation:?}): {what}", recording.name)
                };
                wrong.extend(failed.map_err(described).err());
            }
        }
    }
}

/// Goal: whatever the power does, what was answered and handed out is there, nothing else is, and the view is the
/// fold of it. Method: cuts before every operation of all workloads, in four ways, with the view missing, present
/// or old.
#[test]
fn power_cuts_before_every_operation() {
    let (mut counts, mut wrong) = (Counts::new(), Vec::new());
    for (name, seed, steps) in workloads() {
        let recording = record(&name, seed, &steps, &options()).unwrap();
        all_cuts(&recording, 37, &options(), &mut counts, &mut wrong);
    }
    report(&counts, &wrong);
}

/// Goal: a failing or full disk loses and invents nothing; the store refuses clearly and opens again. Method: EIO
/// and ENOSPC at every operation, then to the end of the workload, then a power cut.
#[test]
fn faults_at_every_operation() {
    let (mut counts, mut wrong) = (Counts::new(), Vec::new());
    for (name, seed, steps) in workloads() {
        let recording = record(&name, seed, &steps, &options()).unwrap();
        all_faults(&recording, 47, &options(), &mut counts, &mut wrong);
    }
    report(&counts, &wrong);
}

/// Goal: a number names the same operation in every run. Method: record twice, compare.
#[test]
fn runs_are_the_same() {
    for (name, seed, steps) in workloads() {
        let trace = || {
            let recording = record(&name, seed, &steps, &options()).unwrap();
            let points = recording.points.iter().map(|point| (point.place, point.operation, point.step));
            (points.collect::<Vec<_>>(), recording.essences.clone())
        };
        assert!(trace() == trace(), "{name}");
    }
}

/// Says what is found first when store and journal have these defects.
fn caught(defects: Defects, journal: Planted) -> Option<String> {
    let mut options = Options { defects, ..options() };
    options.journal.planted = journal;
    for (name, seed, steps) in workloads().into_iter().take(10) {
        let recording = match record(&name, seed, &steps, &options) {
            Ok(recording) => recording,
            Err(what) => return Some(what),
        };
        let numbers = 0..recording.points.len();
        let taken = |ways: u64, number: usize, way: u64| is_taken(seed, number as u64 * ways + way, 5);
        let found = numbers.clone().find_map(|number| {
            let cuts = (0..).zip(CUTS).filter(|(way, _)| taken(4, number, *way));
            cuts.into_iter().find_map(|(_, each)| cut(&recording, number, each, &options).err())
        });
        let found = found.or_else(|| {
            numbers.clone().find_map(|number| {
                let faults = (0..).zip(FAULTS).filter(|(way, _)| taken(2, number, *way));
                faults.into_iter().find_map(|(_, fault)| fail(&recording, number, fault, &options).err())
            })
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Goal: these tests can fail. Method: stores and journals with one planted defect each.
#[test]
fn planted_defects_are_caught() {
    let planted = [
        Defects::AnswerBeforeCommit,
        Defects::ToldBeforeCommit,
        Defects::ArchiveUnflushed,
        Defects::ArchiveNameUnflushed,
        Defects::ArchiveAfterRest,
        Defects::AnyCheckpoint,
    ];
    for defects in planted {
        let wrong = caught(defects, Planted::None);
        println!("{defects:?}: {}", wrong.as_deref().unwrap_or_default());
        assert!(wrong.is_some(), "{defects:?} was not caught");
    }
    assert!(
        caught(Defects::None, Planted::SkipFlush).is_some(),
        "a journal that never flushes was not caught"
    );
}

/// Tears what was appended to the archive and not flushed, in many ways. Returns what was wrong.
fn torn_archives(defects: Defects) -> Vec<String> {
    let options = Options { defects, ..options() };
    let mut wrong = Vec::new();
    for (name, seed, steps) in workloads().into_iter().take(2) {
        let recording = record(&name, seed, &steps, &options).unwrap();
        let is_unflushed = |point: &Point| point.place == "archive" && point.operation == Operation::Flush;
        for number in (0..recording.points.len()).filter(|number| is_unflushed(&recording.points[*number])) {
            let torn = |salt| cut_salted(&recording, number, Cut::Torn, salt, &options).err();
            wrong.extend((1..=24).filter_map(torn));
        }
    }
    wrong
}

/// Goal: a batch of the right length with sectors missing is not taken for an archived one. Method: many tears of
/// every append; a control that trusts the length.
#[test]
fn a_torn_archive_is_not_trusted() {
    let wrong = torn_archives(Defects::None);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(!torn_archives(Defects::ArchiveUnread).is_empty(), "the control was not caught");
}

/// Lets the batch that a step seals find no room, goes on with tier 0, and cuts the power at once. Returns how
/// often that could be done, and what was wrong.
fn batches_without_room(defects: Defects) -> (u64, Vec<String>) {
    let options = Options { defects, ..options() };
    let (mut tried, mut wrong) = (0, Vec::new());
    for changes in 8..16 {
        let steps = workload::no_room(changes);
        let recording = record(&format!("no room {changes}"), changes as u64, &steps, &options).unwrap();
        for (number, point) in recording.points.iter().enumerate() {
            let is_new_segment = point.operation == Operation::Create && point.place == "journal";
            if is_new_segment && matches!(steps[point.step], Step::Seal) {
                tried += 1;
                wrong.extend(fail(&recording, number, Fault::NoSpace, &options).err());
            }
        }
    }
    (tried, wrong)
}

/// Goal: changes stay in the journal until the batch that holds them is durable, also when it has found no room
/// and the keeper goes on meanwhile. Method: ENOSPC where the batch needs a new segment; a control without care.
#[test]
fn a_batch_without_room_is_not_recycled() {
    let (tried, wrong) = batches_without_room(Defects::None);
    assert!(tried > 0, "no batch needed a new segment");
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(!batches_without_room(Defects::RecycleUnkeptBatches).1.is_empty(), "the control was not caught");
}

/// Goal: rot in the archive is said and never passes for a shorter log, nor is what is behind it cut off. Method:
/// flip a bit of the first archived header of a closed store; open with and without its view; flip it back.
#[test]
fn a_rotten_archive_is_said() {
    let steps: Vec<Step> = by_hand().into_iter().find(|(name, _)| *name == "recycling").unwrap().1;
    let recording = record("recycling", 1000, &steps, &options()).unwrap();
    let last = recording.points.last().unwrap();
    last.disk.power_cycle(Cut::Keep);
    let name = last.disk.list(Path::new("/batches")).unwrap().remove(0);
    let path = Path::new("/batches").join(name);
    for view in [None, Some(last.view.as_ref())] {
        let wanted = Expected { essences: vec![], claims: &last.claims, bytes: &recording.bytes };
        assert!(last.disk.flip(&path, 40, 1));
        let what = judge(&last.disk.fork(), view, &options(), &wanted).unwrap_err();
        assert!(what.starts_with("does not open: log ") && what.contains("has a hole"), "{what}");
        assert!(last.disk.flip(&path, 40, 1));
    }
    let essences = recording.essences.iter().map(String::as_str).collect();
    let wanted = Expected { essences, claims: &last.claims, bytes: &recording.bytes };
    judge(&last.disk, None, &options(), &wanted).unwrap();
}
