//! Boxes that were restored from an old copy, and copies that run at the same time: nothing acknowledged is lost,
//! nothing stops silently (P6). They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::program::{Daemon, run};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Settled, copy_dir};

const LONG: Duration = Duration::from_secs(300);

/// What was acknowledged: path and code.
type Ledger = BTreeMap<String, &'static str>;

async fn settle(pupils: u32) -> (tempfile::TempDir, Settled) {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let settled = Settled::found(dir.path(), pupils, 3).await.unwrap();
    (dir, settled)
}

async fn mark(client: &LanClient, ledger: &mut Ledger, pupil: &str, day: u32, code: &'static str) {
    let path = format!("/api/v1/attendance/2026-11-{day:02}/{pupil}");
    client.put(&path, json!({ "code": code })).await.unwrap();
    ledger.insert(path, code);
}

/// Waits until the command line says of a running appliance what is asked.
async fn wait_for(appliance: &Appliance, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        // While it changes over nobody answers.
        if let Ok(status) = appliance.status()
            && is_so(&status)
        {
            return status;
        }
        assert!(began.elapsed() < LONG, "{what}: {:?}", appliance.status());
        // paced: asks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_renewed(status: &Value) -> bool {
    status["forks"] == 1 && status["unsafe"] == 0 && status["uplink"]["up"] == true
}

/// Asserts that each acknowledged value is among those that stand.
async fn assert_all_there(edge: &Daemon, appliance: &Appliance, ledger: &Ledger) {
    let listen = edge.said("listen").unwrap();
    let client = LanClient::sign_in(&listen, &appliance.ca, LOGIN, PASSWORD, None).await.unwrap();
    for (path, code) in ledger {
        let answer = client.get(path).await.unwrap();
        assert!(answer.to_string().contains(&format!("\"{code}\"")), "{path}: {code} is gone: {answer}");
    }
}

/// The digests of a box that the cloud alone has made.
fn rebuilt(settled: &Settled) -> Value {
    let (bundle, passphrase) = settled.town.enrol_bundle("spare", "spare.bundle").unwrap();
    let spare = settled.town.appliance_at("spare");
    let (data, bundle) = (spare.data.display().to_string(), bundle.display().to_string());
    let cloud = settled.line.address().to_string();
    let arguments =
        ["rebuild", "--data", &data, "--bundle", &bundle, "--passphrase-stdin", "--cloud", &cloud];
    run("sonae-edge", &arguments, &passphrase).unwrap();
    spare.digest().unwrap()["digests"].clone()
}

/// Goal: a box that comes back from an old copy goes on under a new incarnation by itself, with what it had written
/// in between and with what the cloud had. Method: copy the data, go on until safe, put the copy back, write without
/// the line, mend it; `kill -9` in the renewal, at several moments; compare with a rebuild.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_goes_on_under_a_new_name() {
    let (dir, settled) = settle(30).await;
    let appliance = &settled.appliance;
    let mut ledger = Ledger::new();
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    let pupils = client.pupils("").await.unwrap();
    mark(&client, &mut ledger, &pupils[0], 1, "late").await;
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    edge.kill_hard().unwrap();
    copy_dir(&appliance.data, &dir.path().join("copy")).unwrap();
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    mark(&client, &mut ledger, &pupils[1], 2, "absent_sick").await;
    mark(&client, &mut ledger, &pupils[2], 2, "late").await;
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    let ended = edge.said("incarnation").unwrap();
    edge.kill_hard().unwrap();
    std::fs::remove_dir_all(&appliance.data).unwrap();
    copy_dir(&dir.path().join("copy"), &appliance.data).unwrap();
    settled.line.set_cut(true);
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    // The same place in the log as what the cloud has; the last one is a conflict for a person.
    for (pupil, code) in [(3, "late"), (4, "left_early"), (2, "absent_other")] {
        let mut branch = Ledger::new();
        mark(&client, &mut branch, &pupils[pupil], 2, code).await;
        if pupil != 2 {
            ledger.extend(branch);
        }
    }
    settled.line.set_cut(false);
    let renewal = appliance.data.join("renewal");
    for stage in ["enrolment.json", "journal", "view"] {
        let began = Instant::now();
        while !renewal.join(stage).exists() && appliance.status().is_ok_and(|status| status["forks"] == 0) {
            assert!(began.elapsed() < LONG, "no renewal began");
            // paced: looks again
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        edge.kill_hard().unwrap();
        edge = settled.town.start_edge(appliance, &settled.line).unwrap();
    }
    let status = wait_for(appliance, "renewed", is_renewed).await;
    assert_ne!(status["incarnation"], ended.as_str());
    assert_eq!(status["disputed"], 1, "both values of the conflict stand");
    assert_all_there(&edge, appliance, &ledger).await;
    assert_eq!(appliance.digest().unwrap()["digests"], rebuilt(&settled));
    edge.stop().unwrap();
}

/// Goal: a process that has given the word for an exchange of stores and cannot finish it serves neither store, and the
/// next start finishes. Method: put an old copy back, with a file in the place of the folder for branches; write, wait for
/// the process to end, take the file away, start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_fails_is_finished_by_the_next_start() {
    let (dir, settled) = settle(30).await;
    let appliance = &settled.appliance;
    let mut ledger = Ledger::new();
    copy_dir(&appliance.data, &dir.path().join("copy")).unwrap();
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    let pupils = client.pupils("").await.unwrap();
    mark(&client, &mut ledger, &pupils[0], 1, "late").await;
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    edge.kill_hard().unwrap();
    std::fs::remove_dir_all(&appliance.data).unwrap();
    copy_dir(&dir.path().join("copy"), &appliance.data).unwrap();
    let forked = appliance.data.join("forked");
    std::fs::write(&forked, "").unwrap();
    settled.line.set_cut(true);
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    mark(&client, &mut ledger, &pupils[1], 2, "absent_sick").await;
    settled.line.set_cut(false);
    let began = Instant::now();
    while !edge.has_ended().unwrap() {
        assert!(began.elapsed() < LONG, "it goes on without its exchange");
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(appliance.data.join("renewal/ready").exists(), "the word was not given");
    std::fs::remove_file(&forked).unwrap();
    let mut edge = settled.town.start_edge(appliance, &settled.line).unwrap();
    wait_for(appliance, "the exchange is not finished", is_renewed).await;
    assert_all_there(&edge, appliance, &ledger).await;
    edge.stop().unwrap();
}

/// Goal: two boxes that run from one data directory's copy both go on, and end with one state. Method: copy, start
/// both, write on both, wait until each has all of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_runs_beside_it_parts_and_merges() {
    let (dir, settled) = settle(30).await;
    let (first, second) = (&settled.appliance, &settled.town.appliance_at("clone"));
    copy_dir(&first.data, &second.data).unwrap();
    let mut ledger = Ledger::new();
    let (mut one, client) = settled.start(first).await.unwrap();
    let (mut two, other) = settled.start(second).await.unwrap();
    let pupils = client.pupils("").await.unwrap();
    for day in 1..5 {
        mark(&client, &mut ledger, &pupils[0], day, "late").await;
        mark(&other, &mut ledger, &pupils[1], day, "absent_sick").await;
    }
    let forked = |status: &Value| status["forks"] == 1;
    let began = Instant::now();
    while ![first, second].iter().any(|box_| box_.status().is_ok_and(|status| forked(&status))) {
        assert!(began.elapsed() < LONG, "nobody noticed: {:?} {:?}", first.status(), second.status());
        // paced: asks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for appliance in [first, second] {
        wait_for(appliance, "safe", |status| status["unsafe"] == 0 && status["uplink"]["up"] == true).await;
    }
    let began = Instant::now();
    while first.digest().unwrap()["digests"] != second.digest().unwrap()["digests"] {
        assert!(began.elapsed() < LONG, "the two do not end with one state");
        // paced: asks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_all_there(&one, first, &ledger).await;
    assert_all_there(&two, second, &ledger).await;
    one.stop().unwrap();
    two.stop().unwrap();
    drop(dir);
}

/// Goal: a box that began with snapshots holds no batches of what they brought, and takes a new name and exports bundles
/// all the same. Method: rebuild from snapshots, copy, go on until safe, put the copy back, write; then a bundle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_began_with_snapshots_renews_too() {
    let (dir, settled) = settle(120).await;
    let (mut edge, client) = settled.start(&settled.appliance).await.unwrap();
    settled.appliance.wait_until_safe(&client, LONG).await.unwrap();
    let pupils = client.pupils("").await.unwrap();
    let snapshots = settled.appliance.wait_for_snapshots(LONG).await.unwrap();
    assert!(snapshots.contains_key(&1), "{snapshots:?}");
    edge.kill_hard().unwrap();
    rebuilt(&settled);
    let spare = settled.town.appliance_at("spare");
    copy_dir(&spare.data, &dir.path().join("copy")).unwrap();
    let mut ledger = Ledger::new();
    let (mut edge, client) = settled.start(&spare).await.unwrap();
    mark(&client, &mut ledger, &pupils[1], 2, "absent_sick").await;
    spare.wait_until_safe(&client, LONG).await.unwrap();
    edge.kill_hard().unwrap();
    std::fs::remove_dir_all(&spare.data).unwrap();
    copy_dir(&dir.path().join("copy"), &spare.data).unwrap();
    let (mut edge, client) = settled.start(&spare).await.unwrap();
    mark(&client, &mut ledger, &pupils[2], 2, "late").await;
    wait_for(&spare, "it does not take a new name", is_renewed).await;
    assert_all_there(&edge, &spare, &ledger).await;
    edge.kill_hard().unwrap();
    // The copy itself still has its foundation.
    let copy = dir.path().join("copy").display().to_string();
    let stick = dir.path().join("stick");
    std::fs::create_dir(&stick).unwrap();
    let said = run(
        "sonae-edge",
        &["bundle", "export", "--data", &copy, "--to", &stick.display().to_string(), "--json"],
        "",
    );
    let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
    assert!(said["batches"].as_u64().is_some_and(|batches| batches > 0), "{said}");
}
