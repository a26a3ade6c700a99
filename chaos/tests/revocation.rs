//! What the board says of a box, with the real programs. A stolen one: sent away, what it writes later kept aside, new
//! keys that it cannot open, and the board's later word. One that is dug out: it merges, and people only read there.
//! `make build` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::program::{run, run_to_end};
use sonae_chaos::town::{Appliance, Settled};
use sonae_proto::seal::{OpenKey, decrypt};

const LONG: Duration = Duration::from_secs(300);

fn text(path: &Path) -> String {
    path.display().to_string()
}

struct Scene {
    dir: tempfile::TempDir,
    settled: Settled,
}

impl Scene {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let settled = Settled::found(&dir.path().join("town"), 30, 3).await.unwrap();
        std::fs::create_dir(dir.path().join("stick")).unwrap();
        Self { dir, settled }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the cloud says of the school what is asked; the file of what it says, for the board.
    async fn cloud_says(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> PathBuf {
        let [data, ..] = self.settled.town.cloud_dirs();
        let began = Instant::now();
        loop {
            let said = run("sonae-cloud", &["status", "--data", &text(&data), "--json"], "").unwrap();
            let status: Value = serde_json::from_str(&said).unwrap();
            if is_so(&status["schools"][0]) {
                std::fs::write(self.path(name), &said).unwrap();
                return self.path(name);
            }
            assert!(began.elapsed() < LONG, "{said}");
            // paced: the file is written anew once a second
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Has the board say something of a replica; returns the file of its word.
    fn board(&self, verb: &str, replica: &str, heads: Option<&Path>, out: &str) -> PathBuf {
        let (board, out) = (text(&self.settled.town.dir.join("board")), self.path(out));
        let school = &self.settled.town.school;
        let arguments = ["replica", verb, "--dir", &board, "--school", school, "--replica", replica];
        let heads = heads.map(text);
        let heads: Vec<&str> = heads.iter().flat_map(|path| ["--heads", path]).collect();
        let rest = ["--out", &text(&out), "--json"];
        run("sonae-provision", &[&arguments[..], &heads, &rest].concat(), "").unwrap();
        out
    }

    fn bring_to_cloud(&self, file: &Path) -> Value {
        let [data, ..] = self.settled.town.cloud_dirs();
        let arguments = ["bundle", "import", "--data", &text(&data), "--json", &text(file)];
        let said = run("sonae-cloud", &arguments, "").unwrap();
        serde_json::from_str(said.lines().next().unwrap()).unwrap()
    }

    /// Writes what a box holds to the stick.
    fn export(&self, from: &Appliance) -> PathBuf {
        let (data, stick) = (text(&from.data), text(&self.path("stick")));
        let arguments = ["bundle", "export", "--data", &data, "--to", &stick, "--json"];
        let said = run("sonae-edge", &arguments, "").unwrap();
        let object: Value = serde_json::from_str(&said).unwrap();
        PathBuf::from(object["bundle"].as_str().unwrap())
    }
}

async fn wait_for(appliance: &Appliance, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
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

/// Marks a pupil's attendance; returns the log and the sequence at which it was kept.
async fn mark(client: &LanClient, pupil: &str, day: u32) -> (String, u64) {
    let path = format!("/api/v1/attendance/2026-11-{day:02}/{pupil}");
    client.put(&path, json!({ "code": "late" })).await.unwrap()
}

fn applied(appliance: &Appliance, log: &str) -> u64 {
    let report = appliance.digest().unwrap();
    report["version_vector"][log].as_u64().unwrap_or(0)
}

/// What the device of a box can open of the keys in an export: how many, of how many of the name's end.
fn opened_by(key: &str, keys: &Path, rotated: bool) -> (usize, usize) {
    let key = OpenKey::parse(key).unwrap();
    let files = std::fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "age"))
        .filter(|path| text(path).ends_with("001.age") == rotated)
        .collect();
    let opened = files.iter().filter(|path| decrypt(&std::fs::read(path).unwrap(), &key).is_ok()).count();
    (opened, files.len())
}

fn device_key(appliance: &Appliance) -> String {
    let enrolment = std::fs::read_to_string(appliance.data.join("enrolment.json")).unwrap();
    let enrolment: Value = serde_json::from_str(&enrolment).unwrap();
    enrolment["device_age_key"].as_str().unwrap().to_owned()
}

/// Goal: a revoked box is sent away and goes on by itself; what it writes later waits in quarantine at the cloud and at
/// another box, applied nowhere; new batches are sealed to keys that it cannot open; the board accepts, and all have it.
/// Method: revoke a box that is connected, with the heads of the cloud's status; a stick to cloud and box; export.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_box_counts_no_further() {
    let scene = Scene::new().await;
    let settled = &scene.settled;
    let stolen = &settled.appliance;
    let (other, _) = settled.town.appliance("other").unwrap();
    let (mut stolen_edge, stolen_client) = settled.start(stolen).await.unwrap();
    let pupils = stolen_client.pupils("").await.unwrap();
    let (log, accepted) = mark(&stolen_client, &pupils[0], 1).await;
    stolen.wait_until_safe(&stolen_client, LONG).await.unwrap();
    let (_other_edge, other_client) = settled.start(&other).await.unwrap();
    wait_for(&other, "the other box has all", |_| applied(&other, &log) == accepted).await;

    let replica = stolen_edge.said("replica").unwrap();
    let heads = scene.cloud_says("before.json", |school| school["heads"][&log]["sequence"] == accepted).await;
    let word = scene.board("revoke", &replica, Some(&heads), "revoked.sonae-courier");
    assert_eq!(scene.bring_to_cloud(&word)["documents"], 1);
    let status = wait_for(stolen, "it is told", |status| {
        let errors = status.pointer("/uplink/errors").and_then(Value::as_array).into_iter().flatten();
        errors.filter_map(|error| error["text"].as_str()).any(|text| text.contains("revoked"))
    })
    .await;
    assert_eq!(status["uplink"]["up"], false);
    let (_, later) = mark(&stolen_client, &pupils[1], 2).await;
    assert!(later > accepted, "it serves its school all the same");

    let bundle = scene.export(stolen);
    let arguments = ["bundle", "import", "--data", &text(&other.data), "--json", &text(&bundle)];
    let (code, out, _) = run_to_end("sonae-edge", &arguments, "").unwrap();
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && report["quarantined"].as_u64().unwrap() > 0, "{code} {report}");
    assert_eq!(applied(&other, &log), accepted);
    assert!(other.status().unwrap()["quarantine"][0]["changes"].as_u64().unwrap() > 0);
    let report = scene.bring_to_cloud(&scene.export(&other));
    assert!(report["quarantined"].as_u64().unwrap() > 0 && report["refused"] == 0, "it travels on: {report}");
    let report = scene.bring_to_cloud(&bundle);
    assert!(report["quarantined"] == 0 && report["refused"] == 0, "it is there already: {report}");

    mark(&other_client, &pupils[2], 3).await;
    other.wait_until_safe(&other_client, LONG).await.unwrap();
    new_keys_are_closed_to(&scene, stolen, &other);

    let waits = |school: &Value| school["quarantined"].as_array().is_some_and(|waiting| !waiting.is_empty());
    let is_told = |school: &Value| school["revoked"] == json!([replica]) && waits(school);
    let heads = scene.cloud_says("after.json", is_told).await;
    let word = scene.board("accept", &replica, Some(&heads), "accepted.sonae-courier");
    assert_eq!(scene.bring_to_cloud(&word)["documents"], 1);
    wait_for(&other, "what was accepted is there", |status| {
        applied(&other, &log) == later && status["quarantine"] == json!([])
    })
    .await;
    stolen_edge.kill_hard().unwrap();
}

/// Keys of the first rotation open for the board and the other box, and not for the stolen one.
fn new_keys_are_closed_to(scene: &Scene, stolen: &Appliance, other: &Appliance) {
    let [_, site_a, site_b] = scene.settled.town.cloud_dirs();
    let out = scene.path("export");
    let school = &scene.settled.town.school;
    let arguments = ["export", "--site", &text(&site_a), "--site", &text(&site_b), "--school", school];
    let (code, _, error) =
        run_to_end("sonae-cloud", &[&arguments[..], &["--out", &text(&out)]].concat(), "").unwrap();
    assert!(code == 0 || code == 7, "{error}");
    let tiers = std::fs::read_dir(out.join("batches")).unwrap();
    let sealed_anew = tiers.filter(|entry| text(&entry.as_ref().unwrap().path()).ends_with("001")).count();
    assert!(sealed_anew > 0, "the other box seals to the new keys");
    let keys = out.join("keys");
    let (opened, all) = opened_by(&device_key(stolen), &keys, true);
    assert!(opened == 0 && all >= 6, "{opened} of {all} new keys open for the stolen box");
    let (opened, all) = opened_by(&device_key(other), &keys, true);
    assert_eq!(opened, all);
    let (opened, all) = opened_by(&device_key(other), &keys, false);
    assert_eq!(opened, all);
}

/// Goal: a box that was given up for lost and is dug out sends what only it has and takes what it lacks; nobody writes
/// there, by page or by command, also after a restart, until the board releases it. Method: a box that writes in the
/// dark, another that goes on, a hold, the line back, a kill, a release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_is_dug_out_is_read_only_until_released() {
    let scene = Scene::new().await;
    let settled = &scene.settled;
    let buried = &settled.appliance;
    let (other, _) = settled.town.appliance("other").unwrap();
    let (mut edge, staff) = settled.start(buried).await.unwrap();
    let pupils = staff.pupils("").await.unwrap();
    buried.wait_until_safe(&staff, LONG).await.unwrap();
    settled.line.set_cut(true);
    let (log, unsent) = mark(&staff, &pupils[0], 1).await;
    let replica = edge.said("replica").unwrap();
    edge.kill_hard().unwrap();

    settled.line.set_cut(false);
    let (_other_edge, elsewhere) = settled.start(&other).await.unwrap();
    wait_for(&other, "the school goes on", |status| status["uplink"]["has_all"] == true).await;
    assert_eq!(applied(&other, &log), unsent - 1);
    let (other_log, later) = mark(&elsewhere, &pupils[1], 2).await;
    let word = scene.board("hold", &replica, None, "held.sonae-courier");
    assert_eq!(scene.bring_to_cloud(&word)["documents"], 1);

    let (mut edge, _) = settled.start(buried).await.unwrap();
    wait_for(buried, "it learns of the hold", |status| status["held_ms"].is_u64()).await;
    wait_for(buried, "it takes what it lacks", |_| applied(buried, &other_log) == later).await;
    wait_for(&other, "what only it had is there", |_| applied(&other, &log) == unsent).await;
    wait_for(buried, "and is safe", |status| status["unsafe"] == 0).await;
    edge.kill_hard().unwrap();

    settled.line.set_cut(true);
    let (_edge, staff) = settled.start(buried).await.unwrap();
    let path = format!("/api/v1/attendance/2026-11-03/{}", pupils[2]);
    let (code, body) = staff.ask(reqwest::Method::PUT, &path, Some(json!({ "code": "late" }))).await.unwrap();
    assert_eq!((code.as_u16(), &body["error"]["code"]), (403, &json!("held")), "{body}");
    assert!(staff.pupils("").await.unwrap().len() == pupils.len(), "reading goes on");
    let contacts = settled.town.dir.join("school/contacts.csv");
    let changed = std::fs::read_to_string(&contacts).unwrap().replacen("070-", "090-", 1);
    std::fs::write(scene.path("contacts.csv"), changed).unwrap();
    let arguments = ["import", "--data", &text(&buried.data), &text(&scene.path("contacts.csv"))];
    let (code, _, error) = run_to_end("sonae-edge", &arguments, "").unwrap();
    assert!(code == 3 && error.contains("hold"), "{code} {error}");

    let word = scene.board("release", &replica, None, "released.sonae-courier");
    run("sonae-edge", &["bundle", "import", "--data", &text(&buried.data), &text(&word)], "").unwrap();
    wait_for(buried, "it is released", |status| status["held_ms"].is_null()).await;
    mark(&staff, &pupils[2], 3).await;
}

/// Goal: a cloud that has missed many words of the board is given all of them by a box that sealed under each, and then
/// takes its batches. Method: without a line twelve words by hand, a change sealed under each; the line back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_missed_many_words_is_given_them() {
    let scene = Scene::new().await;
    let settled = &scene.settled;
    let here = &settled.appliance;
    settled.town.appliance("other").unwrap();
    let (mut edge, staff) = settled.start(here).await.unwrap();
    // Of a box that is not this one, or nobody could write here.
    let replicas = settled.town.dir.join("board/schools").join(&settled.town.school).join("replicas");
    let names = std::fs::read_dir(replicas).unwrap().map(|entry| entry.unwrap().path());
    let mut names = names.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    let other = names.find(|name| *name != edge.said("replica").unwrap()).unwrap();
    let pupils = staff.pupils("").await.unwrap();
    here.wait_until_safe(&staff, LONG).await.unwrap();
    settled.line.set_cut(true);
    for day in 1..=12 {
        let verb = if day % 2 == 1 { "hold" } else { "release" };
        let word = scene.board(verb, &other, None, &format!("word-{day}.sonae-courier"));
        run("sonae-edge", &["bundle", "import", "--data", &text(&here.data), &text(&word)], "").unwrap();
        mark(&staff, &pupils[0], day).await;
        // What is to be carried is sealed first, under the newest word.
        scene.export(here);
    }
    settled.line.set_cut(false);
    wait_for(here, "what was sealed under them is safe", |status| status["unsafe"] == 0).await;
    edge.stop().unwrap();
}
