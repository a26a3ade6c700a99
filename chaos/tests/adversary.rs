//! The adversary ring over fixed seeds, and the proof that it can fail: every planted defect must be found.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use sonae_chaos::adversary::Ring;
use sonae_chaos::adversary::options::{CASES_PER_HISTORY, Options};
use sonae_chaos::adversary::planted;
use sonae_chaos::adversary::report::Report;
use sonae_chaos::sim::planted::objections;

/// Goal: nothing that cloud, sites or couriers do to data goes undetected, and nobody cries wolf. Method: fixed seeds,
/// each with its honest twin; each mutation must have been detected.
#[test]
fn no_attack_goes_undetected() {
    let report = Report::of_seeds(0, 2_000, None).unwrap();
    println!("{}\n{}", report.text(), serde_json::to_string(&report.signals).unwrap());
    assert_eq!(report.objections(), Vec::<String>::new());
    assert_eq!(report.honest_runs, 2_000);
    assert!(report.adversarial_cases * 10 > report.seeds * 8, "few cases have no opportunity");
    assert!(report.really_sealed > 0, "some cases have real age");
    assert!(report.begun > 1_000, "boxes begin with snapshots, attacked and not");
}

/// Seeds that found something wrong: a batch of a log that nobody had asked for was stored while the snapshot of its tier
/// came; a thief's list of parts that added up to the true state was taken for false by the oracle. The last four
/// were too much asked: what a box holds already is not looked at, and of a log of which it holds more than
/// a cloud names it cannot tell another history from an older one.
const FOUND: [u64; 7] =
    [900_164, 902_787, 1_500_353, 1_795_916_401_650, 1_795_916_413_407, 1_795_916_443_897, 1_795_916_451_873];

/// Goal: what was found once is not found again. Method: those seeds.
#[test]
fn no_seed_that_found_something_finds_it_again() {
    let mut ring = Ring::new().unwrap();
    for seed in FOUND {
        let outcome = ring.run(&Options::of_seed(seed), None).unwrap();
        assert!(outcome.found.is_ok(), "seed {seed}: {:?}", outcome.found);
    }
}

/// Goal: a case is a function of its seed. Method: seeds of some histories twice, in rings of their own, whatever age
/// draws; equal digests.
#[test]
fn the_same_seed_gives_the_same_case() {
    let is_real = |number: &u64| Options::of_seed(number * CASES_PER_HISTORY).history.real_sealing;
    let histories: Vec<u64> = (0..3).chain((3..).filter(is_real).take(3)).collect();
    let digests = || {
        let mut ring = Ring::new().unwrap();
        let seeds = histories
            .iter()
            .flat_map(|number| (0..CASES_PER_HISTORY).map(move |at| number * CASES_PER_HISTORY + at));
        seeds.map(|seed| (seed, ring.run(&Options::of_seed(seed), None).unwrap().digest)).collect::<Vec<_>>()
    };
    assert_eq!(digests(), digests());
}

/// Goal: the ring can fail, and soon. Method: plant each defect and run cases until it is found; seconds of the processor
/// are bounded.
#[test]
fn every_planted_defect_is_found() {
    let found = planted::find_all().unwrap();
    for find in &found {
        let (seed, runs, seconds) = (find.seed, find.runs, find.cpu_seconds);
        println!("{}: {seed:?} after {runs} case(s), {seconds:.2} s of CPU: {}", find.defect, find.violation);
    }
    assert_eq!(objections(&found), Vec::<String>::new());
}
