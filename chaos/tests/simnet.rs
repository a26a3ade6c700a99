//! Real drivers over real QUIC in simulated time: fixed seeds, the same again, and planted defects that must be found.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use sonae_chaos::sim::planted::objections;
use sonae_chaos::simnet::Ring;
use sonae_chaos::simnet::planted::find_all;
use sonae_chaos::simnet::report::Report;

/// Goal: no promise is broken on any line, and a seed gives the same datagrams again. Method: fixed seeds, the first
/// few twice, each in a process of its own; the witness looks ten times a second of simulated time.
#[test]
fn no_seed_breaks_a_promise() {
    let ring = Ring::new().unwrap();
    let report = Report::of_seeds(&ring, 0, 40, 3, None).unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.objections(), Vec::<String>::new());
    assert_eq!(report.replayed, 3);
    let judged = |after: &str| report.promises.get(after).map_or(0, |promise| promise.judged);
    assert!(judged("blackout 30 s") > 0 && judged("blackout 120 s") > 0 && judged("address change") > 0);
    assert!(report.times_real_time > 1.0);
}

/// Goal: what this ring has found does not come back. Method: the seeds that found it.
#[test]
fn what_was_found_stays_away() {
    let ring = Ring::new().unwrap();
    // Batches overtook their key documents on a line with losses: two connections were lost, and an alarm was raised.
    for seed in [55, 113] {
        assert_eq!(ring.run(seed, None, false).unwrap().violation, None, "seed {seed}");
    }
}

/// Goal: the ring can fail, and soon. Method: plant each defect and run seeds until it is found; seconds of the processor
/// are bounded.
#[test]
fn every_planted_defect_is_found() {
    let found = find_all(&Ring::new().unwrap()).unwrap();
    for find in &found {
        let (runs, seconds) = (find.runs, find.cpu_seconds);
        println!(
            "{}: {:?} after {runs} run(s), {seconds:.2} s of CPU: {}",
            find.defect, find.seed, find.violation
        );
    }
    assert_eq!(objections(&found), Vec::<String>::new());
}
