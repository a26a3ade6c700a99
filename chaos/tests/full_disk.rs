//! A small real file system that somebody else fills under the real programs. It needs root; without it the tests say "not
//! verified" and show nothing. `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use sonae_chaos::drill::full_disk::run_drill;
use sonae_chaos::small_disk::missing;

fn can_verify() -> bool {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let missing = missing();
    if let Some(what) = &missing {
        println!("not verified: {what}");
    }
    missing.is_none()
}

/// Goal: on a disk that fills, tier 2 is refused first, then tier 1, and imports whole; tier 0 is kept on a disk without
/// a free page, is replicated from it, survives `kill -9` and a start there; peers' batches obey and come later.
/// Method: the drill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tier_0_goes_on_when_the_disk_is_full() {
    if !can_verify() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let report = run_drill(dir.path(), false).await.unwrap();
    assert_eq!(report.objections(), Vec::<&str>::new(), "{report:#?}");
}

/// Goal: the drill can fail. Method: an appliance without a reserve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_reserve_is_found_out() {
    if !can_verify() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let report = run_drill(dir.path(), true).await.unwrap();
    assert!(report.objections().contains(&"tier 0 was refused"), "{report:#?}");
}
