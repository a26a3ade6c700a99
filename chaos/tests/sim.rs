//! The simulation over fixed seeds, and the proof that it can fail: every planted defect must be found.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeSet;

use sonae_chaos::sim::options::{LanKind, Options};
use sonae_chaos::sim::planted::{self, Planted, objections};
use sonae_chaos::sim::report::Report;
use sonae_chaos::sim::{minimise, run, run_seed, script};

/// Goal: no promise is broken by any trouble. Method: fixed seeds; the ledger is asked after every step, then all
/// heals and must converge.
#[test]
fn no_seed_breaks_a_promise() {
    let report = Report::of_seeds(0, 150, None).unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.objections(), Vec::<String>::new());
    assert!(report.crash_and_heal_cycles > 500, "the runs contain crashes");
    assert!(report.counts.renewals > 0, "the runs contain forks");
    assert!(
        report.counts.prunes > 20 && report.counts.unfillable > 0,
        "the runs contain boxes that prune, and losses below that"
    );
    assert!(
        report.counts.snapshots > 200 && report.counts.beginnings > 100,
        "the runs contain boxes that begin with snapshots"
    );
    assert!(
        report.counts.links > 500 && report.counts.from_neighbours > 500 && report.counts.relayed > 20,
        "the runs contain neighbours, and bring to the cloud what only they hold"
    );
    assert!(
        report.counts.erasures > 200 && report.counts.without_effect > 100,
        "the runs contain erasures, and writes that come too late"
    );
    assert!(
        report.counts.splits > 20 && report.counts.unlisted > 20,
        "the runs contain clouds with two faces, and sites that list late"
    );
    assert!(
        report.counts.rots > 50 && report.counts.repairs > 30,
        "the runs contain disks that rot, and boxes that are made again"
    );
    assert!(
        report.counts.carried > 100 && report.counts.receipts_by_hand > 30,
        "the runs contain couriers, and receipts that only they brought"
    );
    assert!(report.counts.audits > 100, "the runs contain auditors");
}

/// Seeds that found something wrong, in the product or in this simulation of it, before it made snapshots. What a seed
/// means changes with the options that are drawn from it, so each of these has a test of its own where the cause was.
const FOUND_WITHOUT_SNAPSHOTS: [u64; 18] = [
    137, 1795824706, 1795825232, 1795825248, 1795825265, 1795825644, 1795826268, 1795826359, 1795826561,
    1795826795, 1795826988, 1795827394, 1795827716, 1795827766, 1795901493, 1796000049, 1796002358,
    1796003497,
];

/// Since then, before boxes knew each other.
const FOUND_WITHOUT_LAN: [u64; 10] = [
    1796100208, 1796100399, 1796100625, 1796100829, 1796101304, 1796101325, 1796200193, 1796500005,
    1797400139, 1797400273,
];

/// Since then, before records were erased.
const FOUND_WITHOUT_ERASURE: [u64; 8] =
    [1797500012, 1797500096, 1797500226, 1797500304, 1797500460, 1797500548, 1797510595, 1797520116];

/// Since then, before journals had the segments that they have now.
const FOUND_WITH_SMALL_SEGMENTS: [u64; 3] = [774, 1797504275, 1795874872740];

/// Since then, before clouds had two faces.
const FOUND_BEFORE_MORE: [u64; 9] = [
    1795885332896,
    1795885335920,
    1795885338087,
    1795885341321,
    1795885344509,
    1795885355018,
    1795885371795,
    1795885374216,
    1795885376708,
];

/// Since then: a receipt that a courier brings while a welcome is on its way; a box that begins a new incarnation for a
/// welcome passed for one that was shown it; two batches of a revoked device for one place, of which an audit named one.
const FOUND: [u64; 6] = [103, 7_001_233, 7_001_595, 7_001_711, 1_795_916_391_060, 1_795_916_396_720];

/// Journals had smaller segments then.
fn with_small_segments(options: Options) -> Options {
    let parts = if options.school_days > 0 { 4 } else { 2 };
    Options { segment_bytes: options.segment_bytes / parts, ..options }
}

/// Goal: what was found once is not found again. Method: those seeds, as they were.
#[test]
fn no_seed_that_found_something_finds_it_again() {
    let without_lan =
        |seed| Options { lan: LanKind::None, relays: false, erases: false, ..Options::of_seed(seed) };
    let before = FOUND_WITHOUT_SNAPSHOTS.map(|seed| Options { snapshot_every: 0, ..without_lan(seed) });
    let before = before.into_iter().chain(FOUND_WITHOUT_LAN.map(without_lan));
    let without_erasure = |seed| Options { erases: false, ..Options::of_seed(seed) };
    let before = before.chain(FOUND_WITHOUT_ERASURE.map(without_erasure));
    let before = before.chain(FOUND_WITH_SMALL_SEGMENTS.map(Options::of_seed)).map(with_small_segments);
    let before = before.chain(FOUND_BEFORE_MORE.map(Options::of_seed));
    let before = before.map(|options| Options { more: BTreeSet::new(), audits: false, ..options });
    for options in before.chain(FOUND.map(Options::of_seed)) {
        let outcome = run(&options, &script::draw(&options), None, false).unwrap();
        assert_eq!(outcome.violation, None, "seed {}", options.seed);
    }
}

/// Goal: a run is a function of its seed. Method: a few seeds twice; equal digests of everything that happened.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..12 {
        let digest = || run_seed(seed, None).unwrap().digest;
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

/// Goal: the simulation can fail, and soon. Method: plant each defect and run seeds until it is found; seconds of the
/// processor are bounded.
#[test]
fn every_planted_defect_is_found() {
    let found = planted::find_all().unwrap();
    for find in &found {
        println!(
            "{}: {:?} after {} run(s), {:.2} s of CPU",
            find.defect, find.seed, find.runs, find.cpu_seconds
        );
    }
    assert_eq!(objections(&found), Vec::<String>::new());
}

/// Goal: each kind of trouble that came later is needed. Method: plant what is planted for it, with all other kinds and
/// without it: no seed finds that.
#[test]
fn what_is_planted_for_a_trouble_shows_by_no_other() {
    for (planted, trouble) in planted::ONLY {
        let mut runs = 0;
        for seed in 0..60 {
            let mut options = Options::of_seed(seed);
            options.more.remove(&trouble);
            if options.school_days == 0 && options.boxes > 1 {
                runs += 1;
                let outcome = run(&options, &script::draw(&options), Some(planted), false).unwrap();
                assert_eq!(outcome.violation, None, "{planted:?} without {trouble:?}, seed {seed}");
            }
        }
        assert!(runs > 20, "too few seeds fit");
    }
}

/// Goal: a failing seed becomes a short story. Method: a planted defect; the shorter script fails too.
#[test]
fn a_failing_script_is_made_short() {
    let planted = Planted::SealedLazily;
    let seed = planted::find(planted).unwrap().seed.unwrap();
    let options = Options::of_seed(seed);
    let whole = script::draw(&options);
    let (short, violation) = minimise(&options, &whole, Some(planted)).unwrap().unwrap();
    println!("{} of {} actions, {violation}: {short:?}", short.len(), whole.len());
    assert!(short.len() * 2 < whole.len());
}
