//! The erasure of a pupil by the real programs, to the end. `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "by_hand/page.rs"]
mod page;

use page::{read, record_ids};
use sonae_chaos::bench::erasure::run_bench;

/// Goal: an erased pupil is gone on two boxes, the newest snapshots are sealed to new keys, the old keys are destroyed
/// when no box needs them, and then nothing of the pupil is found with all keys that are left: in what the cloud gives
/// out, in both boxes' folders, raw or opened. Before, the same search finds. Boxes can be made again all the same, after a
/// return from an old copy and after rot; and the page reads by hand, from the export and with the recovery key, what still
/// stands of the time of the destroyed keys: every pupil but the one. Method: the bench, with a small school; then the page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_erased_pupil_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let town = dir.path().join("town");
    let report = run_bench(&town, 30).await.unwrap();
    assert!(report.control_hits > 0 && report.hits == 0, "{report:?}");
    assert!(report.gone_here_seconds <= report.gone_there_seconds, "{report:?}");
    assert_eq!(report.floor_days, 30);

    let folder = dir.path().join("by hand");
    std::fs::create_dir(&folder).unwrap();
    std::fs::rename(town.join("export-after"), folder.join("export")).unwrap();
    std::fs::copy(town.join("board/recovery.key"), folder.join("recovery.key")).unwrap();
    let (records, told) = read(&folder);
    // A year and its rotation are sealed to keys of their own; those of before are gone.
    assert!(!told.is_empty() && told.lines().all(|line| line.starts_with("no key for: ")), "{told}");
    assert_eq!(record_ids(&records, "student").len(), 29);
    assert!(record_ids(&records, "guardian_contact").len() >= 29);
    let marked = |id: &&String| id.starts_with("2026-11-01/");
    assert_eq!(record_ids(&records, "attendance").iter().filter(marked).count(), 2, "one mark of each box");
    assert!(!records.contains("消去対象太郎"));
}
