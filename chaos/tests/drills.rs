//! The drills with few rounds, and the proof that they can fail. They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use sonae_chaos::drill::{canary, kill_cloud, kill_edge};

fn scratch() -> tempfile::TempDir {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tempfile::tempdir().unwrap()
}

/// Goal: no acknowledged write is lost by `kill -9` of the appliance. Method: kills under load, outside ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_survives_a_kill() {
    let dir = scratch();
    let report = kill_edge::run_drill(dir.path(), 3, 1).await.unwrap();
    assert!(report.acknowledged > 0, "nothing was written, so nothing was shown");
    assert_eq!((report.lost, report.sequences_lost), (0, 0));
}

/// Goal: nothing safe is lost by `kill -9` of the cloud. Method: kill when "safe" moves, compare heads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_safe_change_survives_a_kill() {
    let dir = scratch();
    let report = kill_cloud::run_drill(dir.path(), 2, 1, None).await.unwrap();
    assert!(report.safe_changes > 0, "nothing was safe, so nothing was shown");
    assert_eq!((report.lost, report.alarms), (0, 0));
}

/// Goal: neither cloud nor line sees plaintext, and the search can find some. Method: canaries and controls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_and_line_are_blind() {
    let dir = scratch();
    let search = canary::run_drill(dir.path(), 1).await.unwrap();
    assert_eq!(search.objections(), Vec::<&str>::new(), "{search:?}");
}
