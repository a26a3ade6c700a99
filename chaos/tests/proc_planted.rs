//! The proof that the ring of real programs can fail. It runs programs that were built with defects: `make planted`
//! builds them, and `SONAE_BIN_DIR` names their folder.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use sonae_chaos::drill::{full_disk, kill_cloud};
use sonae_chaos::limits::{ALL_DEFECTS_CPU_SECONDS_MAX, DEFECT_CPU_SECONDS_MAX};
use sonae_chaos::proc::missing;
use sonae_chaos::proc::planted::{ALL, Find, find};
use sonae_chaos::small_disk;

/// Goal: the ring sees a defect of the engine through the real programs, and nothing where there is none. Method: plant
/// it for one run, and do the same without it. One test for each, so that two run at a time.
async fn is_found(defect: &str) {
    if let Some(what) = missing() {
        println!("not verified: {what}");
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (_, troubles, seed) = ALL.into_iter().find(|(name, ..)| *name == defect).unwrap();
    let Find { violation, without, cpu_seconds, .. } =
        find(dir.path(), defect, troubles, seed).await.unwrap();
    println!("{defect}: {cpu_seconds:.1} s of CPU: {violation:?}");
    assert_eq!(without, None, "{defect} is not needed for that");
    assert!(violation.is_some(), "{defect} was not found");
    // Each test may be a process of its own and knows nothing of the others: its part of what all may take.
    let cpu_seconds_max = DEFECT_CPU_SECONDS_MAX.min(ALL_DEFECTS_CPU_SECONDS_MAX / ALL.len() as f64);
    assert!(cpu_seconds <= cpu_seconds_max, "{defect} took {cpu_seconds} s of CPU");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipt_before_store_is_found() {
    is_found("receipt_before_store").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn base_ignored_is_found() {
    is_found("base_ignored").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_not_noticed_is_found() {
    is_found("loss_not_noticed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_as_they_came_is_found() {
    is_found("heads_as_they_came").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_for_good_is_found() {
    is_found("sent_for_good").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn site_not_flushed_is_found() {
    is_found("site_not_flushed").await;
}

/// Goal: no defect is left out. Method: as many tests as defects.
#[test]
fn each_defect_has_its_test() {
    assert_eq!(ALL.len(), 6);
}

/// Goal: the drill `kill-cloud` can fail, and the appliance itself sees the loss. Method: a cloud that signs before it
/// stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drill_of_the_cloud_can_fail() {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let report = kill_cloud::run_drill(dir.path(), 1, 1, Some("cloud-fsync")).await.unwrap();
    assert!(report.lost > 0, "the ledger saw no loss");
    assert!(report.alarms > 0, "the appliance saw no loss");
}

/// Goal: the drill `full-disk` can fail. Method: an appliance without a reserve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drill_of_the_full_disk_can_fail() {
    if let Some(what) = small_disk::missing() {
        println!("not verified: {what}");
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let report = full_disk::run_drill(dir.path(), true).await.unwrap();
    assert!(report.objections().contains(&"tier 0 was refused"), "{report:#?}");
}
