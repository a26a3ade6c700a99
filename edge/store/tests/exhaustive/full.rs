//! Somebody else fills the disk at every stage: tier 0 is kept all the same, survives a restart while the disk is
//! still full and a power cut after it, and everything goes on when there is room again (P9).

use sonae_journal::sim::SimDisk;
use sonae_proto::ids::Tier;
use sonae_store::options::Options;
use sonae_store::room::RESERVE_CHANGES_MIN;
use sonae_store::testing::Stepped;

use crate::is_taken;
use crate::judge::{Expected, files, judge};
use crate::recording::{CUTS, workloads};
use crate::rig::{Asked, Run, Stop, action, ask, essence, poll};
use crate::workload::Step;
use crate::world::{open_own, options, scratch};

/// Changes of tier 0 that are written after the restart.
const AFTERWARDS: usize = 4;

/// Small segments, and a reserve that takes what a short workload has of tier 0.
fn with_reserve(segments: usize) -> Options {
    let mut options = options();
    options.journal.reserve_segments = segments;
    options
}

/// Whether a step must be kept whatever the disk says.
fn is_safety(step: &Step) -> bool {
    match step {
        Step::Write { edits, import } => !import && edits.iter().all(|edit| tier(edit.0) == Tier::Safety),
        Step::Loss => true,
        Step::Seal
        | Step::Peer(_)
        | Step::Receipts
        | Step::Identity
        | Step::Reissue
        | Step::Idle
        | Step::Wait(_)
        | Step::Line(_)
        | Step::Reopen
        | Step::Kill => false,
    }
}

fn tier(collection: &str) -> Tier {
    sonae_proto::collection::find(collection).unwrap().tier
}

fn write(
    stepped: &mut Stepped,
    collection: &'static str,
    field: &'static str,
    n: usize,
) -> Result<(), String> {
    let (edits, store) = (vec![(collection, format!("f{n}"), field, format!("{n}"))], stepped.store.clone());
    let kept = ask(stepped, async move { store.write(action(&edits, false)).await });
    kept.map(drop).map_err(|error| format!("{collection} {n}: {error}"))
}

/// Runs a workload on a disk that is full from an operation on, opens it again while it is full, cuts the power, and
/// gives it room. Returns how many writes were refused.
fn fill(seed: u64, steps: &[Step], at: u64, is_told: bool, options: &Options) -> Result<u64, String> {
    let (dir, disk) = (scratch(), SimDisk::new(seed ^ (at << 20)));
    let view = dir.path().join("view");
    disk.fill_at(at, is_told);
    let mut run = Run::new(&disk, &view, options);
    let wrong = |stop: Stop| format!("{stop:?}");
    let mut stepped = run.open().map_err(wrong)?;
    run.essences.push(essence(&stepped));
    let mut refused = 0;
    for number in 0..steps.len() {
        let step = &steps[number];
        stepped = run.steps(stepped, &steps[..=number], number).map_err(wrong)?;
        let is_kept = run.flight.lock().unwrap().is_kept;
        if is_safety(step) && !is_kept {
            return Err(format!("step {number} is of tier 0 and was not kept: {step:?}"));
        }
        refused += u64::from(matches!(step, Step::Write { .. }) && !is_kept);
    }
    drop(stepped);
    let mut stepped = run.open().map_err(|stop| format!("opened while it is full: {stop:?}"))?;
    for n in 0..AFTERWARDS {
        write(&mut stepped, "student", "grade", n)?;
    }
    run.flight.lock().unwrap().look();
    let after = essence(&stepped);
    drop(stepped);
    disk.power_cycle(CUTS[at as usize % 4]);
    disk.set_room(None);
    let claims = run.flight.lock().unwrap().claims.clone();
    let wanted = Expected { essences: vec![&after], claims: &claims, bytes: &run.bytes };
    judge(&disk, Some(&files(&view)), options, &wanted)?;
    let mut stepped = run.open().map_err(wrong)?;
    for (n, (collection, field)) in crate::workload::COLLECTIONS.into_iter().enumerate() {
        write(&mut stepped, collection, field, 100 + n)?;
    }
    let (store, told) = (stepped.store.clone(), run.flight.lock().unwrap().claims.told.len());
    ask(&mut stepped, async move { store.seal_now().await });
    let mut flight = run.flight.lock().unwrap();
    flight.look();
    if flight.claims.told.len() < told + Tier::ALL.len() {
        return Err("with room again not every tier is sealed".into());
    }
    Ok(refused)
}

/// Fills the disk before every n-th operation. Returns how often, how many writes were refused, and what was wrong.
fn fill_everywhere(every: u64, options: &Options) -> (u64, u64, Vec<String>) {
    let (mut filled, mut refused, mut wrong) = (0, 0, Vec::new());
    for (name, seed, steps) in workloads() {
        let (first, end) = operations(seed, &steps, options);
        for at in (first..end).filter(|at| is_taken(seed, *at, every)) {
            for is_told in [true, false] {
                filled += 1;
                match fill(seed, &steps, at, is_told, options) {
                    Ok(count) => refused += count,
                    Err(what) => wrong.push(format!("{name}: full at {at}, told {is_told}: {what}")),
                }
            }
        }
    }
    (filled, refused, wrong)
}

/// Returns after how many operations the store is first open, and how many the whole workload has.
fn operations(seed: u64, steps: &[Step], options: &Options) -> (u64, u64) {
    let (dir, disk) = (scratch(), SimDisk::new(seed));
    let view = dir.path().join("view");
    let mut run = Run::new(&disk, &view, options);
    let stepped = run.open().unwrap();
    let first = disk.counters().operations;
    drop(run.steps(stepped, steps, 0).unwrap());
    (first, disk.counters().operations)
}

/// Goal: wherever the disk becomes full, tier 0 and the loss counter are kept, the others are kept or refused whole,
/// a restart while it is full works, nothing is lost, and with room everything goes on. Method: no room from every
/// n-th operation of all workloads on, told and untold; restart, tier 0, power cut, room; outside ledger.
#[test]
fn a_disk_that_fills_at_every_stage_keeps_tier_0() {
    let (filled, refused, wrong) = fill_everywhere(29, &with_reserve(12));
    println!("{{\"filled\":{filled},\"refused\":{refused}}}");
    assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
    assert!(filled > 100 && refused > filled / 2, "nothing was shown: {filled} {refused}");
}

/// Goal: that test can fail, and for this reason. Method: no reserve; a journal whose ordinary commits use the reserve
/// up.
#[test]
fn a_missing_reserve_is_caught() {
    let is_caught = |options: &Options| {
        let wrong = fill_everywhere(97, options).2;
        wrong.iter().any(|what| what.contains("is of tier 0 and was not kept") || what.contains(": student "))
    };
    assert!(is_caught(&with_reserve(0)), "no reserve was not caught");
    let mut spent = with_reserve(12);
    spent.journal.planted = sonae_journal::Planted::SpendReserve;
    assert!(is_caught(&spent), "a reserve that is spent was not caught");
}

/// Writes changes of tier 0 by themselves, each sealed and marked, until one is refused or there are so many.
fn alone_on_a_full_disk(options: &Options, at_most: usize) -> usize {
    let (dir, disk) = (scratch(), SimDisk::new(1));
    let (mut stepped, _) = open_own(&disk, &dir.path().join("view"), options).unwrap();
    disk.fill_at(disk.counters().operations, false);
    // Ordinary commits first, until none finds room: the segment that is being written is at its end.
    (0..10_000).find(|n| write(&mut stepped, "attendance", "code", *n).is_err()).unwrap();
    for n in 0..at_most {
        if write(&mut stepped, "student", "grade", n).is_err() {
            return n;
        }
        let store = stepped.store.clone();
        ask(&mut stepped, async move { store.seal_now().await });
        stepped.idle();
    }
    at_most
}

/// Goal: the number of changes that is promised for a full disk is kept by the reserve of the product. Method: its own
/// sizes, the worst case, and one segment less as the control.
#[test]
fn the_reserve_takes_what_is_promised() {
    let product = Options::default();
    assert_eq!(alone_on_a_full_disk(&product, RESERVE_CHANGES_MIN), RESERVE_CHANGES_MIN);
    let mut smaller = product;
    smaller.journal.reserve_segments -= 1;
    assert!(alone_on_a_full_disk(&smaller, RESERVE_CHANGES_MIN) < RESERVE_CHANGES_MIN);
}

/// Goal: a write of tier 0 that shares its commit with one that finds no room is kept all the same. Method: pairs of
/// both in one round on a disk that is full and does not say so, until the other is refused for that.
#[test]
fn tier_0_waits_for_nobody() {
    let (dir, disk) = (scratch(), SimDisk::new(1));
    let (mut stepped, now_ms) = open_own(&disk, &dir.path().join("view"), &with_reserve(8)).unwrap();
    disk.fill_at(disk.counters().operations, false);
    let mut refused = 0;
    for n in 0..8 {
        // Beyond the time for which a journal without room is believed to have none.
        now_ms.fetch_add(5_000, std::sync::atomic::Ordering::Relaxed);
        let large = vec![("school_diary", format!("d{n}"), "events", "y".repeat(9_000))];
        let small = vec![("student", format!("s{n}"), "grade", "P1".to_owned())];
        let store = stepped.store.clone();
        // Asked first, and both before the keeper takes its turn.
        let mut other: Asked<_> = Box::pin(async move { store.write(action(&large, false)).await });
        assert!(poll(&mut other).is_none());
        let store = stepped.store.clone();
        let kept = ask(&mut stepped, async move { store.write(action(&small, false)).await });
        assert!(kept.is_ok(), "{n}: {kept:?}");
        refused += u64::from(matches!(poll(&mut other), Some(Err(sonae_store::WriteError::Full))));
    }
    assert!(refused > 0, "no commit was shared with one that found no room");
}
