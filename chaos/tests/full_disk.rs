//! A small real file system that somebody else fills under the real programs. It needs root; without it the test says "not
//! verified" and shows nothing. That the drill can fail is in `proc_planted`. `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use sonae_chaos::drill::full_disk::run_drill;
use sonae_chaos::small_disk::missing;

/// Goal: on a disk that fills, tier 2 is refused first, then tier 1, and imports whole; tier 0 is kept on a disk without
/// a free page, is replicated from it, survives `kill -9` and a start there; peers' batches obey and come later.
/// Method: the drill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tier_0_goes_on_when_the_disk_is_full() {
    if let Some(what) = missing() {
        println!("not verified: {what}");
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let report = run_drill(dir.path(), false).await.unwrap();
    assert_eq!(report.objections(), Vec::<&str>::new(), "{report:#?}");
}
