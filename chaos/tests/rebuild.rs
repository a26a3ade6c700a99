//! Rebuilds that are cut off, and rebuilds that lack something. They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::line::{Line, Slowness};
use sonae_chaos::program::{Daemon, Running, run, run_to_end};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Settled, Town};

/// A day of the register.
const DAY: &str = "2026-11-25";

/// Bytes of handshake, greeting and tail that an attempt may take besides the parts that are not here: 24 KB, and acknowledgements
/// and packets that are sent twice. Less than one part.
const SLACK_BYTES: u64 = 36 * 1024;

/// Tier 0 takes a second or two, the rest twenty.
const NARROW: Slowness = Slowness { delay: Duration::ZERO, bytes_per_second: 12_000, lost_per_thousand: 0 };

/// Nobody waits.
const WIDE: Slowness =
    Slowness { delay: Duration::ZERO, bytes_per_second: 100_000_000, lost_per_thousand: 0 };

/// A school whose changes are all safe, and whose appliance is gone.
struct Ruin {
    dir: tempfile::TempDir,
    town: Town,
    _cloud: Daemon,
    line: Line,
    digest: Value,
    /// Of whom the register has an entry behind the snapshot.
    pupil: String,
    pupils: usize,
    /// Of the snapshot of tier 1.
    snapshot_bytes: u64,
    otpauth: String,
}

impl Ruin {
    async fn new() -> Self {
        // A second install changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let settled = Settled::found(dir.path(), 120, 5).await.unwrap();
        let (mut edge, client) = settled.start(&settled.appliance).await.unwrap();
        let appliance = &settled.appliance;
        appliance.wait_until_safe(&client, Duration::from_secs(300)).await.unwrap();
        let snapshots = appliance.wait_for_snapshots(Duration::from_secs(300)).await.unwrap();
        assert_eq!(
            snapshots.keys().copied().collect::<Vec<_>>(),
            [1],
            "what there is of tier 0 comes as fast without one"
        );
        // What a snapshot does not have comes behind it.
        let mut pupils = client.pupils("").await.unwrap();
        let (count, pupil) = (pupils.len(), pupils.remove(0));
        let path = format!("/api/v1/attendance/{DAY}/{pupil}");
        client.put(&path, serde_json::json!({ "code": "late" })).await.unwrap();
        appliance.wait_until_safe(&client, Duration::from_secs(300)).await.unwrap();
        let digest = appliance.digest().unwrap();
        edge.kill_hard().unwrap();
        std::fs::remove_dir_all(&appliance.data).unwrap();
        let Settled { town, cloud, line, otpauth, .. } = settled;
        Self {
            dir,
            town,
            _cloud: cloud,
            line,
            digest,
            pupil,
            pupils: count,
            snapshot_bytes: snapshots[&1],
            otpauth,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) -> String {
        std::fs::write(self.path(name), value.to_string()).unwrap();
        self.path(name).display().to_string()
    }

    fn register(&self) -> String {
        format!("/api/v1/attendance/{DAY}/{}", self.pupil)
    }

    /// Rebuilds a box whole and returns its digest.
    fn rebuilt(&self, name: &str) -> Value {
        let (bundle, passphrase) = self.town.enrol_bundle("spare", &format!("{name}.bundle")).unwrap();
        let fresh = self.town.appliance_at(name);
        run("sonae-edge", &words(&self.rebuild(&fresh.data, &bundle)), &passphrase).unwrap();
        fresh.digest().unwrap()
    }

    fn rebuild(&self, data: &Path, bundle: &Path) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["rebuild", "--json", "--passphrase-stdin"].map(str::to_owned).into();
        arguments.extend(["--cloud".into(), self.line.address().to_string()]);
        arguments.extend(["--data".into(), data.display().to_string()]);
        arguments.extend(["--bundle".into(), bundle.display().to_string()]);
        arguments
    }
}

fn essence(digest: &Value) -> (&Value, &Value) {
    (digest.get("digests").unwrap(), digest.get("version_vector").unwrap())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Goal: a rebuild that is cut off goes on where it was, by the same command, and what has come whole is not fetched again.
/// Method: in one directory, cut the line after so many bytes and `kill -9`, several times; mend the line, rebuild; digests,
/// and the bytes of the last attempt, which are no more than the parts that were not here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_resumes_after_a_kill() {
    let ruin = Ruin::new().await;
    let (bundle, passphrase) = ruin.town.enrol_bundle("spare", "spare.bundle").unwrap();
    let spare: Appliance = ruin.town.appliance_at("spare");
    let arguments = ruin.rebuild(&spare.data, &bundle);
    let journal = spare.data.join("journal");
    let mut kept = 0;
    // In the greeting, in tier 0, in parts of the snapshot.
    for (bytes, is_behind_tier_0) in [(4_000, false), (20_000, false), (60_000, true), (60_000, true)] {
        let started = Instant::now();
        ruin.line.set_cut_after(Some(bytes));
        let mut rebuild = Running::start("sonae-edge", &words(&arguments), &passphrase).unwrap();
        while !(ruin.line.is_cut() && journal.exists()) {
            assert!(!rebuild.has_ended().unwrap(), "the rebuild ended before the line was cut");
            // paced: looks again
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What came whole is kept a moment after the line is gone.
        while is_behind_tier_0 && shelf_bytes(&spare) <= kept {
            assert!(started.elapsed() < Duration::from_secs(60), "no part came whole: {kept} bytes are here");
            // paced: looks again
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kept = shelf_bytes(&spare);
        rebuild.kill_hard().unwrap();
        let begun = spare.digest().unwrap();
        assert_ne!(essence(&begun), essence(&ruin.digest), "the cut after {bytes} came too late");
    }
    let lacking = ruin.snapshot_bytes - kept;
    assert!(kept > SLACK_BYTES, "{kept} bytes are here, {lacking} are not");
    ruin.line.set_cut_after(None);
    let before = ruin.line.traffic().down_bytes;
    let said = run("sonae-edge", &words(&arguments), &passphrase).unwrap();
    let report: Value = serde_json::from_str(&said).unwrap();
    let came = ruin.line.traffic().down_bytes - before;
    assert!(came < lacking + SLACK_BYTES, "{came} bytes came, {lacking} were lacking, {kept} were here");
    assert_eq!(report["snapshots"].as_object().unwrap().len(), 1, "{report}");
    assert_eq!(report["completeness"], "unverified", "a snapshot proves nothing");
    assert_eq!(essence(&spare.digest().unwrap()), essence(&ruin.digest));
    let edge = ruin.town.start_edge(&spare, &ruin.line).unwrap();
    assert_ne!(edge.said("incarnation").unwrap(), "", "it serves once it is whole");
}

/// Bytes of the parts of snapshots that a box has.
fn shelf_bytes(appliance: &Appliance) -> u64 {
    let files = std::fs::read_dir(appliance.data.join("snapshots")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Which tiers a box calls usable; all when no rebuild is under way.
fn usable(status: &Value) -> [bool; 3] {
    let tiers = status.pointer("/rebuild/tiers");
    ["0", "1", "2"].map(|tier| tiers.is_none_or(|tiers| tiers[tier]["usable"] == true))
}

/// What a box with tier 0 and without a line serves.
async fn serves_tier_0(client: &LanClient, ruin: &Ruin) {
    assert_eq!(client.pupils("").await.unwrap().len(), ruin.pupils);
    let (code, said) = client.ask(Method::GET, &ruin.register(), None).await.unwrap();
    assert_eq!(
        (code, &said["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &Value::from("not_here_yet"))
    );
    assert!(!usable(&client.status().await.unwrap())[1], "tier 1 is not here");
}

/// Goal: P5 where the line dies in between. A box serves tier 0 as soon as it is there, takes writes to it, says of the rest
/// that it is coming, goes on so after a power cut without a line, and ends as the same state as every other box. Method:
/// serve over a narrow line, cut it as soon as somebody has signed in, read, write, `kill -9`, start, read; mend the line;
/// digests against a box that is rebuilt from the cloud afterwards, where the write must have come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tier_0_is_served_before_the_rest() {
    let ruin = Ruin::new().await;
    let (bundle, passphrase) = ruin.town.enrol_bundle("spare", "spare.bundle").unwrap();
    let spare = ruin.town.appliance_at("spare");
    ruin.line.set_slow(NARROW);
    let mut edge = ruin.town.start_rebuild(&spare, &ruin.line, &bundle, &passphrase).unwrap();
    let listen = edge.said("listen").unwrap();
    let started = Instant::now();
    let client = loop {
        assert!(started.elapsed() < Duration::from_secs(120), "tier 0 was never usable");
        match LanClient::sign_in(&listen, &spare.ca, LOGIN, PASSWORD, Some(&ruin.otpauth)).await {
            Ok(client) => break client,
            Err(error) => assert!(error.to_string().contains("not_here_yet"), "{error:#}"),
        }
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ruin.line.set_cut(true);
    serves_tier_0(&client, &ruin).await;
    let left = client.status().await.unwrap()["rebuild"]["left_bytes"].as_u64().unwrap();
    assert!((1..2 * ruin.snapshot_bytes).contains(&left), "{left} bytes are left");
    let contact = format!("/api/v1/students/{}/contacts/4", ruin.pupil);
    client
        .put(&contact, serde_json::json!({ "name": "架空 祖母", "phone1": "090-0000-0009" }))
        .await
        .unwrap();
    edge.kill_hard().unwrap();

    let edge = ruin.town.start_edge(&spare, &ruin.line).unwrap();
    let listen = edge.said("listen").unwrap();
    let client = LanClient::sign_in(&listen, &spare.ca, LOGIN, PASSWORD, None).await.unwrap();
    serves_tier_0(&client, &ruin).await;
    let status = client.status().await.unwrap();
    assert_ne!(status["unsafe"], 0, "the write waits for the line");
    assert!(status["rebuild"]["left_bytes"].is_null(), "nobody has said since the start what there is");
    ruin.line.set_slow(WIDE);
    ruin.line.set_cut(false);
    let started = Instant::now();
    loop {
        let status = client.status().await.unwrap();
        if status["rebuild"].is_null() && status["unsafe"] == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{}", status["rebuild"]);
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.get(&ruin.register()).await.unwrap()["code"], "late");
    let digest = spare.digest().unwrap();
    assert!(digest["waiting"].is_null() && !spare.data.join("rebuilding").exists());
    assert_eq!(digest["digests"]["1"], ruin.digest["digests"]["1"]);
    assert_ne!(digest["digests"]["0"], ruin.digest["digests"]["0"], "the contact is new");
    assert_eq!(essence(&ruin.rebuilt("third")), essence(&digest), "the cloud has it, too");
}

/// Goal: what an outside witness knows and the cloud lacks is named, and nothing else is. Method: rebuild with the
/// heads as they were, then with two changes more that were kept and never safe, then with a head that says more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_head_is_named() {
    let ruin = Ruin::new().await;
    let (bundle, passphrase) = ruin.town.enrol_bundle("spare", "spare.bundle").unwrap();
    let expect = |name: &str, heads: &Value| {
        let mut arguments = ruin.rebuild(&ruin.path(&format!("data-{name}")), &bundle);
        arguments.extend(["--expect".to_owned(), ruin.write(name, heads)]);
        let (code, out, said) = run_to_end("sonae-edge", &words(&arguments), &passphrase).unwrap();
        (code, serde_json::from_str::<Value>(&out).unwrap_or_else(|_| Value::String(said)))
    };
    let (code, report) = expect("true", &ruin.digest);
    assert_eq!((code, &report["completeness"]), (0, &Value::from("verified")), "{report}");
    assert_eq!(report["snapshots"], serde_json::json!({}), "the logs themselves prove it");
    // What was kept and never safe has no head in it; the cloud cannot have it.
    let mut kept = ruin.digest.clone();
    let vector = kept.get_mut("version_vector").and_then(Value::as_object_mut).unwrap();
    let (log, sequence) = vector.iter_mut().next().unwrap();
    *sequence = Value::from(sequence.as_u64().unwrap() + 2);
    let log = log.clone();
    let (code, report) = expect("kept", &kept);
    assert_eq!((code, &report["completeness"]), (7, &Value::from("incomplete")), "{report}");
    assert_eq!(report["lacking"], serde_json::json!({ log: 2 }), "{report}");
    let mut more = ruin.digest.clone();
    let heads = more.get_mut("heads").and_then(Value::as_object_mut).unwrap();
    let (log, head) = heads.iter_mut().next().unwrap();
    head["sequence"] = Value::from(head["sequence"].as_u64().unwrap() + 1);
    let log = log.clone();
    let (code, report) = expect("more", &more);
    assert_eq!((code, &report["completeness"]), (7, &Value::from("incomplete")), "{report}");
    assert_eq!(report["missing"], serde_json::json!([log]), "{report}");

    // Cut off in its greeting, it is ended by a box that serves: the question stays, and so does the answer.
    let spare = ruin.town.appliance_at("data-cut");
    let mut arguments = ruin.rebuild(&spare.data, &bundle);
    arguments.extend(["--expect".to_owned(), ruin.path("more").display().to_string()]);
    ruin.line.set_cut(true);
    let mut rebuild = Running::start("sonae-edge", &words(&arguments), &passphrase).unwrap();
    let marker = spare.data.join("rebuilding");
    let is_noted = || std::fs::read_to_string(&marker).is_ok_and(|note| note.contains(&log));
    until("the heads are noted", || is_noted() && spare.data.join("journal").exists()).await;
    rebuild.kill_hard().unwrap();
    ruin.line.set_cut(false);
    let _edge = ruin.town.start_edge(&spare, &ruin.line).unwrap();
    until("the rebuild has ended", || spare.status().is_ok_and(|status| status["rebuild"].is_null())).await;
    let status = spare.status().unwrap();
    let errors = status["uplink"]["errors"].as_array().unwrap();
    let said = errors.iter().find(|error| error["code"] == "rebuild_incomplete").unwrap();
    assert!(said["text"].as_str().unwrap().contains(&log), "{said}");
    assert!(shelf_bytes(&spare) < ruin.snapshot_bytes, "it came as logs");
    assert_eq!(essence(&spare.digest().unwrap()), essence(&ruin.digest));
}
