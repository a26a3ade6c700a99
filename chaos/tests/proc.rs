//! The ring of real programs over fixed seeds that together have every kind of trouble. They need root, networks of
//! their own and FUSE; what is missing is said as "not verified" and shows nothing. `make build` first.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeSet;

use sonae_chaos::proc::options::{Options, Trouble};
use sonae_chaos::proc::report::Report;
use sonae_chaos::proc::{missing, missing_for};

/// Seeds that together have every kind of trouble.
const SEEDS: [u64; 4] = [24, 77, 300, 239];

/// Goal: the seeds below have every kind of trouble. Method: what they decide.
#[test]
fn the_seeds_have_every_trouble() {
    let troubles: BTreeSet<Trouble> =
        SEEDS.iter().flat_map(|seed| Options::of_seed(*seed).troubles).collect();
    let lacking: Vec<_> = Trouble::ALL.into_iter().filter(|trouble| !troubles.contains(trouble)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

/// Runs a seed. What this machine cannot do is said; what it can must have been done.
async fn holds(seed: u64) {
    if let Some(what) = missing() {
        println!("not verified: {what}");
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let report = Report::of_seeds(dir.path(), seed..=seed, None).await.unwrap();
    assert_eq!(
        report.objections(),
        Vec::<String>::new(),
        "{}",
        serde_json::to_string_pretty(&report).unwrap()
    );
    let cannot: BTreeSet<Trouble> = missing_for().into_iter().map(|(trouble, _)| trouble).collect();
    for (trouble, what) in missing_for() {
        println!("not verified: {trouble:?}: {what}");
    }
    for trouble in Options::of_seed(seed).troubles.difference(&cannot) {
        assert!(report.tally.troubles.contains_key(trouble), "{trouble:?} was to be done");
    }
    println!("{}", serde_json::to_string_pretty(&report.tally).unwrap());
}

/// Goal: nothing acknowledged is lost, forked or quietly wrong, whatever happens to real programs. Method: a seed of
/// the ring; outside ledger and sites after every step, then all heals and must converge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_seed_holds() {
    holds(SEEDS[0]).await;
}

/// Goal and method: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_seed_holds() {
    holds(SEEDS[1]).await;
}

/// Goal and method: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_seed_holds() {
    holds(SEEDS[2]).await;
}

/// Goal and method: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fourth_seed_holds() {
    holds(SEEDS[3]).await;
}
