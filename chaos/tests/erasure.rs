//! The erasure of a pupil by the real programs, to the end. `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use sonae_chaos::bench::erasure::run_bench;

/// Goal: an erased pupil is gone on two boxes, the newest snapshots are sealed to new keys, the old keys are destroyed
/// when no box needs them, and then nothing of the pupil is found with all keys that are left: in what the cloud gives
/// out, in both boxes' folders, raw or opened. Before, the same search finds. Boxes can be made again all the same, after a
/// return from an old copy and after rot. Method: the bench, with a small school.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_erased_pupil_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let report = run_bench(&dir.path().join("town"), 30).await.unwrap();
    assert!(report.control_hits > 0 && report.hits == 0, "{report:?}");
    assert!(report.gone_here_seconds <= report.gone_there_seconds, "{report:?}");
    assert_eq!(report.floor_days, 30);
}
