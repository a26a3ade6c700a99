//! A disk that has damaged what it kept: the box makes its data again from the cloud and from what is still readable.
//! They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sonae_chaos::program::run;
use sonae_chaos::town::Settled;

const LONG: Duration = Duration::from_secs(300);

/// Overwrites a page in the middle of what the oldest journal segment holds.
fn damage(journal: &Path) {
    let mut segments: Vec<_> =
        std::fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let written = |path: &Path| std::fs::read(path).unwrap().iter().filter(|byte| **byte != 0).count();
    let oldest = segments.iter().find(|path| written(path) > 200_000).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(oldest).unwrap();
    file.write_all_at(&[0xA5; 4096], 81_920).unwrap();
}

/// Goal: rot never loses what had a receipt, nor what is still readable without one, is said, and asks for nobody's
/// help. Method: safe changes, then changes without a line; damage the journal; start with the line cut, then mended;
/// compare with a ledger and with a rebuild.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_made_again() {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let settled = Settled::found(dir.path(), 120, 4).await.unwrap();
    let appliance = &settled.appliance;
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    settled.line.set_cut(true);
    let pupils = client.pupils("").await.unwrap();
    let paths: Vec<_> = pupils[..20].iter().map(|id| format!("/api/v1/attendance/2026-11-02/{id}")).collect();
    for path in &paths {
        client.put(path, json!({ "code": "absent_sick" })).await.unwrap();
    }
    let only_here = client.status().await.unwrap()["unsafe"].as_u64().unwrap();
    assert!(only_here > 0);
    let ended = edge.said("incarnation").unwrap();
    edge.kill_hard().unwrap();
    damage(&appliance.data.join("journal"));
    let data = appliance.data.display().to_string();
    let said = run("sonae-edge", &["status", "--data", &data], "").unwrap_err().to_string();
    assert!(said.contains("corrupt") && said.contains("sonae-edge run"), "{said}");

    settled.line.set_cut(false);
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    assert_ne!(edge.said("incarnation").unwrap(), ended);
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    for path in &paths {
        let answer = client.get(path).await.unwrap();
        assert_eq!(answer["code"], "absent_sick", "{path}: {answer}");
    }
    let status = client.status().await.unwrap();
    let note = status["uplink"]["errors"].to_string();
    let carried = format!("{only_here} change(s) that only this box had; 0 change(s)");
    assert!(note.contains("repaired") && note.contains(&carried), "{note}");
    assert_eq!(status["forks"], 1);
    let began = Instant::now();
    let (bundle, passphrase) = settled.town.enrol_bundle("spare", "spare.bundle").unwrap();
    let spare = settled.town.appliance_at("spare");
    let (fresh, bundle) = (spare.data.display().to_string(), bundle.display().to_string());
    let cloud = settled.line.address().to_string();
    let arguments =
        ["rebuild", "--data", &fresh, "--bundle", &bundle, "--passphrase-stdin", "--cloud", &cloud];
    run("sonae-edge", &arguments, &passphrase).unwrap();
    assert_eq!(
        appliance.digest().unwrap()["digests"],
        spare.digest().unwrap()["digests"],
        "{:?}",
        began.elapsed()
    );
    edge.stop().unwrap();
}
