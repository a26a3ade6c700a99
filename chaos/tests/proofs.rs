//! Restore proofs of a running box: it proves that the cloud alone gives back what it holds, and says so only then
//! (P5, P10). They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::line::Slowness;

use sonae_chaos::program::{Running, run, run_to_end};
use sonae_chaos::town::{Appliance, Settled};
use sonae_chaos::wrong_clock;

const LONG: Duration = Duration::from_secs(300);

async fn settle(pupils: u32, seed: u64) -> (tempfile::TempDir, Settled) {
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let settled = Settled::found(dir.path(), pupils, seed).await.unwrap();
    (dir, settled)
}

fn cloud_status(settled: &Settled) -> Value {
    let data = settled.town.cloud_dirs()[0].display().to_string();
    serde_json::from_str(&run("sonae-cloud", &["status", "--data", &data, "--json"], "").unwrap()).unwrap()
}

/// The incarnations that the cloud lists, once its file, which may be a second old, says what is asked.
async fn incarnations(settled: &Settled, is_fresh: impl Fn(&Value) -> bool) -> Value {
    wait_for("the cloud says so", || is_fresh(&cloud_status(settled)["schools"][0])).await;
    cloud_status(settled)["schools"][0]["incarnations"].clone()
}

fn is_known(school: &Value) -> bool {
    school["heads"].as_object().is_some_and(|heads| !heads.is_empty())
}

/// Waits until something is so.
async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "{what}");
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The names of the alarms that the box shows.
fn alarms(appliance: &Appliance) -> Vec<String> {
    let status = appliance.status().unwrap();
    let errors = status["uplink"]["errors"].as_array().unwrap();
    errors.iter().map(|error| error["code"].as_str().unwrap().to_owned()).collect()
}

/// Writes attendance until told to stop. Returns how often.
fn keep_writing(client: Arc<LanClient>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u32> {
    tokio::spawn(async move {
        let pupils = client.pupils("").await.unwrap();
        let mut written = 0;
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let pupil = &pupils[number % pupils.len()];
            let path = format!("/api/v1/attendance/2026-11-{:02}/{pupil}", 1 + number / pupils.len() % 28);
            client
                .put(&path, json!({ "code": if number % 2 == 0 { "late" } else { "absent_sick" } }))
                .await
                .unwrap();
            written += 1;
        }
        written
    })
}

/// Flips a byte in the middle of every object, at both sites: whether a proof reads batches or snapshots, it meets one.
fn tamper(sites: [&Path; 2]) {
    fn objects(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { objects(&path, found) } else { found.push(path) }
        }
    }
    for site in sites {
        let mut all = Vec::new();
        objects(&site.join("objects"), &mut all);
        for path in all {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

/// Goal: a proof succeeds while people write and the cloud is ahead of its mark, mints no identity, leaves nothing on
/// the disk, and its evidence is at the cloud, also after the cloud has started anew. Method: a far line; write all the while;
/// compare incarnations, folders, and what both sides show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_succeeds_while_people_write() {
    let (_dir, mut settled) = settle(60, 11).await;
    let appliance = settled.appliance.clone();
    let (mut edge, client) = settled.start(&appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    let before = incarnations(&settled, is_known).await;
    let connections = appliance.status().unwrap()["uplink"]["connections"].clone();
    assert_eq!(appliance.status().unwrap()["proof"]["is_proved"], false, "nothing was proved yet");
    let (stop, client) = (Arc::new(AtomicBool::new(false)), Arc::new(client));
    let writing = keep_writing(Arc::clone(&client), Arc::clone(&stop));
    // So far away that batches sealed after the mark are at the cloud before its own are asked for.
    let slowness =
        Slowness { delay: Duration::from_millis(400), bytes_per_second: 6_250_000, lost_per_thousand: 0 };
    settled.line.set_slow(slowness);
    for number in 1..=3 {
        let (code, said) = appliance.prove().await.unwrap();
        assert_eq!(
            (code, said["result"].as_str(), said["number"].as_u64()),
            (0, Some("proved"), Some(number)),
            "{said}"
        );
        assert!(said["bytes"].as_u64().unwrap() > 0, "it came over the line: {said}");
        assert!(!appliance.data.join("proof").exists(), "the scratch store is gone");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 3);
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    let status = appliance.status().unwrap();
    assert_eq!(
        (&status["proof"]["is_proved"], &status["proof"]["is_overdue"]),
        (&json!(true), &json!(false))
    );
    assert_eq!((&status["loss_counter"], &status["forks"]), (&json!(0), &json!(0)));
    assert_eq!(status["uplink"]["connections"], connections, "the main connection was left alone");
    wait_for("published", || appliance.status().unwrap()["proof"]["last"]["published"] == true).await;
    settled.cloud.kill_hard().unwrap();
    settled.cloud = settled.town.start_cloud().unwrap();
    let boot = settled.cloud.said("boot").unwrap();
    wait_for("the new start speaks", || cloud_status(&settled)["boot"] == boot.as_str()).await;
    let is_shown = |school: &Value| {
        let proof = &school["proofs"][0];
        proof["result"] == "proved" && proof["number"] == 3 && proof["incarnation"] == status["incarnation"]
    };
    assert_eq!(incarnations(&settled, is_shown).await, before, "no identity was minted");
    edge.stop().unwrap();
}

/// Goal: a cloud that has rotted behind its own word is found out, loudly, and a success before it does not hide
/// that. Method: prove; flip bytes at both sites under the running node; prove again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_object_is_found_out() {
    let (_dir, settled) = settle(60, 12).await;
    let appliance = &settled.appliance;
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    appliance.wait_for_snapshots(LONG).await.unwrap();
    assert_eq!(appliance.prove().await.unwrap().0, 0);
    // Nothing is written at the sites any more, so nothing is whole afterwards.
    let is_published = || appliance.status().unwrap()["proof"]["last"]["published"] == true;
    wait_for("the evidence is there", is_published).await;
    let [_, a, b] = settled.town.cloud_dirs();
    tamper([&a, &b]);
    let (code, said) = appliance.prove().await.unwrap();
    assert_eq!((code, said["result"].as_str()), (7, Some("incomplete")), "{said}");
    assert!(!said["tiers"].as_array().unwrap().is_empty(), "{said}");
    let status = appliance.status().unwrap();
    assert_eq!(status["unsafe"], 0, "the node's word alone would say that all is well");
    assert_eq!((&status["proof"]["is_proved"], &status["proof"]["failures"]), (&json!(false), &json!(1)));
    assert!(alarms(appliance).contains(&"proof_incomplete".to_owned()), "{:?}", alarms(appliance));
    let shown = || cloud_status(&settled)["schools"][0]["proofs"][0]["result"] == "incomplete";
    wait_for("the board sees it", shown).await;
    edge.stop().unwrap();
}

/// Goal: what could not be verified is a failure. Method: cut the line and ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_line_nothing_is_proved() {
    let (_dir, settled) = settle(10, 13).await;
    let appliance = &settled.appliance;
    let data = appliance.data.display().to_string();
    let (code, _, said) = run_to_end("sonae-edge", &["prove", "--data", &data], "").unwrap();
    assert!(code == 7 && said.contains("nothing was verified"), "{code}: {said}");
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    settled.line.set_cut(true);
    let (code, said) = appliance.prove().await.unwrap();
    assert_eq!((code, said["result"].as_str()), (7, Some("could_not_verify")), "{said}");
    assert!(alarms(appliance).contains(&"proof_not_verified".to_owned()), "{:?}", alarms(appliance));
    assert_eq!(appliance.status().unwrap()["proof"]["is_proved"], false);
    edge.stop().unwrap();
}

/// Goal: power that fails inside a proof costs nothing but that proof: nothing is left behind, no identity, and the
/// cut is told as what it is. Method: `kill -9` at several moments of a proof; start; look; prove.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_leaves_nothing_behind() {
    let (_dir, settled) = settle(60, 14).await;
    let appliance = &settled.appliance;
    let (mut edge, client) = settled.start(appliance).await.unwrap();
    appliance.wait_until_safe(&client, LONG).await.unwrap();
    let (before, life) = (incarnations(&settled, is_known).await, edge.said("incarnation").unwrap());
    let data = appliance.data.display().to_string();
    let scratch = appliance.data.join("proof");
    // So narrow that no proof ends before it is cut.
    settled.line.set_slow(Slowness { delay: Duration::ZERO, bytes_per_second: 4_000, lost_per_thousand: 0 });
    for (number, stage) in [(1, "journal"), (2, "view"), (3, "view/db")] {
        let mut asking = Running::start("sonae-edge", &["prove", "--data", &data], "").unwrap();
        wait_for("a proof begins", || scratch.join(stage).exists()).await;
        edge.kill_hard().unwrap();
        asking.kill_hard().unwrap();
        assert!(scratch.exists(), "it was cut inside");
        edge = settled.town.start_edge(appliance, &settled.line).unwrap();
        assert!(!scratch.exists(), "nothing is left behind");
        let proof = appliance.status().unwrap()["proof"].clone();
        assert_eq!(
            (&proof["last"]["cause"], &proof["last"]["number"]),
            (&json!("cut_off"), &json!(number)),
            "{proof}"
        );
        assert_eq!(proof["is_proved"], false);
    }
    settled.line.set_slow(Slowness {
        delay: Duration::ZERO,
        bytes_per_second: 6_250_000,
        lost_per_thousand: 0,
    });
    let (code, said) = appliance.prove().await.unwrap();
    assert_eq!((code, said["result"].as_str()), (0, Some("proved")), "{said}");
    let is_shown = |school: &Value| school["proofs"][0]["number"] == 4;
    assert_eq!(incarnations(&settled, is_shown).await, before);
    assert_eq!(edge.said("incarnation").unwrap(), life);
    edge.stop().unwrap();
}

/// Goal: a box that has not proved its restore for days says so by itself, as an alarm (P10). Method: a box without a line,
/// stopped after its first day and started three days later, by its clock; before that it says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_is_never_made_is_an_alarm() {
    if let Some(missing) = wrong_clock::missing() {
        return println!("not verified: {missing}");
    }
    let (dir, mut settled) = settle(5, 8).await;
    let clock = wrong_clock::WrongClock::make(&dir.path().join("clock")).unwrap();
    settled.town.edge_environment = clock.environment();
    settled.line.set_cut(true);
    let appliance = settled.appliance.clone();
    let (mut edge, _) = settled.start(&appliance).await.unwrap();
    let is_overdue = || appliance.status().is_ok_and(|status| status["proof"]["is_overdue"] == true);
    assert!(!is_overdue() && !alarms(&appliance).contains(&"proof_overdue".to_owned()));
    edge.stop().unwrap();
    clock.set_days(3).unwrap();
    let (_edge, _) = settled.start(&appliance).await.unwrap();
    wait_for("it is told", || is_overdue() && alarms(&appliance).contains(&"proof_overdue".to_owned())).await;
}
