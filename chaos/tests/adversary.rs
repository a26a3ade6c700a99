//! The adversary ring over fixed seeds, and the proof that it can fail: every planted defect must be found.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use sonae_chaos::adversary::Ring;
use sonae_chaos::adversary::options::Options;
use sonae_chaos::adversary::planted;
use sonae_chaos::adversary::report::Report;

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
}

/// Goal: a case is a function of its seed. Method: some seeds twice, in rings of their own; equal digests.
#[test]
fn the_same_seed_gives_the_same_case() {
    for seed in [3, 17, 40, 55, 71, 90, 123] {
        let digest = || Ring::new().unwrap().run(&Options::of_seed(seed), None).unwrap().digest;
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

/// Goal: the ring can fail. Method: plant each defect and run cases until it is found.
#[test]
fn every_planted_defect_is_found() {
    let found = planted::find_all().unwrap();
    for find in &found {
        let (seed, runs, seconds) = (find.seed, find.runs, find.cpu_seconds);
        println!("{}: {seed:?} after {runs} case(s), {seconds:.2} s of CPU: {}", find.defect, find.violation);
    }
    let missed: Vec<_> = found.iter().filter(|find| find.seed.is_none()).map(|find| &find.defect).collect();
    assert!(missed.is_empty(), "not found in {} cases: {missed:?}", planted::CASES_TO_FIND);
}
