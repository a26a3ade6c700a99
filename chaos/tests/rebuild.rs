//! Rebuilds that are cut off, and rebuilds that lack something. They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sonae_chaos::line::Line;
use sonae_chaos::program::{Daemon, Running, run, run_to_end};
use sonae_chaos::town::{Appliance, Settled, Town};

/// A school whose changes are all safe, and whose appliance is gone.
struct Ruin {
    dir: tempfile::TempDir,
    town: Town,
    _cloud: Daemon,
    line: Line,
    digest: Value,
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
        let pupil = client.pupils("").await.unwrap().remove(0);
        let path = format!("/api/v1/attendance/2026-11-25/{pupil}");
        client.put(&path, serde_json::json!({ "code": "late" })).await.unwrap();
        appliance.wait_until_safe(&client, Duration::from_secs(300)).await.unwrap();
        let digest = appliance.digest().unwrap();
        edge.kill_hard().unwrap();
        std::fs::remove_dir_all(&appliance.data).unwrap();
        let Settled { town, cloud, line, .. } = settled;
        Self { dir, town, _cloud: cloud, line, digest }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) -> String {
        std::fs::write(self.path(name), value.to_string()).unwrap();
        self.path(name).display().to_string()
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

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Goal: a rebuild that is cut off in its middle is never served, and the same command ends it. Method: cut the line
/// once some of the data has come, `kill -9`, try to run it, mend the line, rebuild again, compare digests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_resumes_after_a_kill() {
    let ruin = Ruin::new().await;
    let (bundle, passphrase) = ruin.town.enrol_bundle("spare", "spare.bundle").unwrap();
    let spare: Appliance = ruin.town.appliance_at("spare");
    let arguments = ruin.rebuild(&spare.data, &bundle);
    // More than the greeting, less than the whole.
    ruin.line.set_cut_after(Some(30_000));
    let mut rebuild = Running::start("sonae-edge", &words(&arguments), &passphrase).unwrap();
    let journal = spare.data.join("journal");
    while !(ruin.line.is_cut() && journal.exists()) {
        assert!(!rebuild.has_ended().unwrap(), "the rebuild ended before the line was cut");
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rebuild.kill_hard().unwrap();
    let data = spare.data.display().to_string();
    let (code, _, said) = run_to_end("sonae-edge", &["run", "--data", &data], "").unwrap();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("sonae-edge rebuild"), "{said}");
    let begun = spare.digest().unwrap();
    assert_ne!(essence(&begun), essence(&ruin.digest), "the cut came too late");
    ruin.line.set_cut_after(None);
    let said = run("sonae-edge", &words(&arguments), &passphrase).unwrap();
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["snapshots"].as_object().unwrap().len(), 1, "{report}");
    assert_eq!(report["completeness"], "unverified", "a snapshot proves nothing");
    assert_eq!(essence(&spare.digest().unwrap()), essence(&ruin.digest));
    let edge = ruin.town.start_edge(&spare, &ruin.line).unwrap();
    assert_ne!(edge.said("incarnation").unwrap(), "", "it serves once it is whole");
}

/// Goal: what an outside witness knows and the cloud lacks is named, and nothing else is. Method: rebuild with the
/// heads as they were, then with one that says more.
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
    let mut more = ruin.digest.clone();
    let heads = more.get_mut("heads").and_then(Value::as_object_mut).unwrap();
    let (log, head) = heads.iter_mut().next().unwrap();
    head["sequence"] = Value::from(head["sequence"].as_u64().unwrap() + 1);
    let log = log.clone();
    let (code, report) = expect("more", &more);
    assert_eq!((code, &report["completeness"]), (7, &Value::from("incomplete")), "{report}");
    assert_eq!(report["missing"], serde_json::json!([log]), "{report}");
}
