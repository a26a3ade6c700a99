//! Pruning by the real programs: a box keeps its sealed batches until what stands for them has been proved, and is the
//! same to everybody afterwards. `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::program::{Daemon, run, run_to_end};
use sonae_chaos::town::{Appliance, Settled};

const LONG: Duration = Duration::from_secs(300);

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Waits until something is so.
async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !tokio::task::block_in_place(&is_so) {
        assert!(began.elapsed() < LONG, "{what}");
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is known of what a box keeps of its tiers, those that keep anything.
fn retention(appliance: &Appliance) -> Vec<Value> {
    let status = appliance.status().unwrap();
    let tiers = status["storage"]["tiers"].as_object().unwrap();
    tiers.values().map(|tier| tier["retention"].clone()).filter(|tier| *tier != json!(null)).collect()
}

fn waits_for(appliance: &Appliance, lack: &str) -> bool {
    let found = retention(appliance);
    let waiting: Vec<_> = found.iter().filter(|tier| tier["left_ms"] != json!(null)).collect();
    !waiting.is_empty() && waiting.iter().all(|tier| tier["lacks"] == lack)
}

fn pruned(appliance: &Appliance) -> u64 {
    retention(appliance).iter().map(|tier| tier["pruned_changes"].as_u64().unwrap()).sum()
}

/// Makes what is known of the snapshots of a box that does not run thirty days older.
fn age(appliance: &Appliance) -> usize {
    let mut aged = 0;
    for entry in fs::read_dir(appliance.data.join("snapshots")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("prune-") {
            let mut note: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            note["aged_ms"] = json!(30_u64 * 86_400_000);
            fs::write(entry.path(), note.to_string()).unwrap();
            aged += 1;
        }
    }
    aged
}

async fn settle(pupils: u32, seed: u64) -> (tempfile::TempDir, Settled) {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let settled = Settled::found(dir.path(), pupils, seed).await.unwrap();
    (dir, settled)
}

/// Starts a box and takes it to where it waits for nothing but its age, then makes it old.
async fn prune(settled: &Settled) -> (Daemon, LanClient) {
    let appliance = &settled.appliance;
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    appliance.wait_for_snapshots(LONG).await.unwrap();
    wait_for("a snapshot is chosen", || waits_for(appliance, "read_back")).await;
    let (code, said) = appliance.prove().await.unwrap();
    assert_eq!((code, said["result"].as_str()), (0, Some("proved")), "{said}");
    let through: Vec<Value> = said["snapshots"].as_array().unwrap().clone();
    assert!(!through.is_empty(), "it came through snapshots: {said}");
    wait_for("it has come back", || waits_for(appliance, "proof")).await;
    let (code, whole) = appliance.prove().await.unwrap();
    assert_eq!((code, whole["result"].as_str()), (0, Some("proved")), "{whole}");
    assert_eq!(whole["snapshots"], json!([]), "the batches themselves were read back");
    wait_for("it waits for its age alone", || waits_for(appliance, "age")).await;
    assert_eq!(pruned(appliance), 0, "nothing has gone yet");
    edge.stop().unwrap();
    assert!(age(appliance) > 0);
    let (edge, client) = settled.start(appliance).await.unwrap();
    wait_for("it has pruned", || pruned(appliance) > 0).await;
    (edge, client)
}

async fn rebuilt(settled: &Settled, name: &str) -> Appliance {
    let (bundle, passphrase) = settled.town.enrol_bundle("spare", &format!("{name}.bundle")).unwrap();
    let fresh = settled.town.appliance_at(name);
    let (data, bundle, cloud) = (text(&fresh.data), text(&bundle), settled.line.address().to_string());
    let arguments =
        ["rebuild", "--data", &data, "--bundle", &bundle, "--passphrase-stdin", "--cloud", &cloud];
    let rebuilding = arguments.map(str::to_owned);
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = rebuilding.iter().map(String::as_str).collect();
        run("sonae-edge", &arguments, &passphrase).unwrap();
    })
    .await
    .unwrap();
    fresh
}

/// Goal: a box that has pruned is the same to the people at it, to the cloud, to a new box and to its next proof; a
/// bundle says where it begins. Method: prune; power cut, view gone; write; prove both ways; rebuild; export.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pruned_box_is_the_same_to_everybody() {
    let (_dir, settled) = settle(60, 21).await;
    let appliance = &settled.appliance;
    let (mut edge, _) = prune(&settled).await;
    let expected = appliance.digest().unwrap();
    edge.kill_hard().unwrap();
    fs::remove_dir_all(appliance.data.join("view")).unwrap();
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    let now = appliance.digest().unwrap();
    assert_eq!(
        (&now["digests"], &now["version_vector"]),
        (&expected["digests"], &expected["version_vector"])
    );
    assert_eq!(appliance.status().unwrap()["unsafe"], 0);
    let pupil = &client.pupils("").await.unwrap()[0];
    client.put(&format!("/api/v1/attendance/2026-11-04/{pupil}"), json!({ "code": "late" })).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    let (code, said) = appliance.prove().await.unwrap();
    assert_eq!((code, said["result"].as_str()), (0, Some("proved")), "{said}");
    let fresh = rebuilt(&settled, "fresh").await;
    assert_eq!(appliance.digest().unwrap()["digests"], fresh.digest().unwrap()["digests"]);

    let (data, stick) = (text(&appliance.data), settled.town.dir.join("stick"));
    fs::create_dir(&stick).unwrap();
    let to = text(&stick);
    let said = run("sonae-edge", &["bundle", "export", "--data", &data, "--to", &to, "--json"], "").unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let begins = said["begin_behind"].as_object().unwrap();
    assert_eq!(
        begins.values().map(|behind| behind.as_u64().unwrap()).sum::<u64>(),
        pruned(appliance),
        "{said}"
    );
    let since = settled.town.dir.join("since.json");
    fs::write(&since, fresh.digest().unwrap().to_string()).unwrap();
    let arguments = ["bundle", "export", "--data", &data, "--to", &to, "--json", "--since", &text(&since)];
    let said: Value = serde_json::from_str(&run("sonae-edge", &arguments, "").unwrap()).unwrap();
    assert_eq!(said["begin_behind"], json!({}), "whoever has what was pruned lacks nothing");
    let bundle = said["bundle"].as_str().unwrap();
    let fresh = text(&fresh.data);
    let (code, out, error) =
        run_to_end("sonae-edge", &["bundle", "import", "--data", &fresh, "--json", bundle], "").unwrap();
    assert_eq!(code, 0, "{out}{error}");
    edge.stop().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Goal: a cloud that has lost what was pruned is told aloud, "safe" is lowered, and everything that people see becomes
/// safe again, by itself. Method: both sites as they were before the box came; then compare what people read, and a
/// rebuild.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_lost_what_was_pruned_gets_the_state_again() {
    let (_dir, mut settled) = settle(60, 22).await;
    let appliance = settled.appliance.clone();
    let [_, a, b] = settled.town.cloud_dirs();
    let image = settled.town.dir.join("image");
    for (number, site) in [&a, &b].into_iter().enumerate() {
        copy(site, &image.join(number.to_string()));
    }
    let (mut edge, client) = prune(&settled).await;
    let (pupils, life) = (client.get("/api/v1/students").await.unwrap(), edge.said("incarnation").unwrap());
    settled.cloud.kill_hard().unwrap();
    for (number, site) in [&a, &b].into_iter().enumerate() {
        fs::remove_dir_all(site).unwrap();
        copy(&image.join(number.to_string()), site);
    }
    settled.cloud = settled.town.start_cloud().unwrap();
    // While the stores are exchanged nobody answers.
    let goes_on = || appliance.status().is_ok_and(|status| status["incarnation"] != life.as_str());
    wait_for("it goes on under a new incarnation", goes_on).await;
    let log = fs::read_to_string(settled.town.dir.join("edge.log")).unwrap();
    assert!(log.contains("cloud_lost_pruned"), "it was told");
    edge.stop().unwrap();
    let (mut edge, client) = settled.start(&appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    assert_eq!(client.get("/api/v1/students").await.unwrap(), pupils);
    assert_eq!(appliance.status().unwrap()["forks"], 1, "what the box had lies aside, its snapshots too");
    let aside = appliance.data.join("forked").join(&life);
    assert!(fs::read_dir(aside.join("snapshots")).unwrap().count() > 1);
    let fresh = rebuilt(&settled, "fresh").await;
    assert_eq!(appliance.digest().unwrap()["digests"], fresh.digest().unwrap()["digests"]);
    edge.stop().unwrap();
}
