//! The scene of these tests: a town with one school, its boxes, and how to wait for what they say.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::generate::{self, Options, Written};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::program::{Daemon, run};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Town};

pub const LONG: Duration = Duration::from_secs(300);

/// An address at which nobody answers: the cloud of a dark day.
pub const NOWHERE: &str = "127.0.0.1:1";

pub fn text(path: &Path) -> String {
    path.display().to_string()
}

pub struct Scene {
    pub dir: tempfile::TempDir,
    pub town: Town,
    pub written: Written,
}

impl Scene {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let school =
            generate::school(Options { pupils: 30, years: 1, seed: 9, ..Options::default() }).unwrap();
        let town = Town::found(&dir.path().join("town"), &school.school_code, &school.school_name).unwrap();
        let written = generate::write(&school, &dir.path().join("school")).unwrap();
        Self { dir, town, written }
    }

    /// A box of the school with its staff and its pupils.
    pub fn filled(&self, name: &str) -> Appliance {
        let (appliance, _) = self.town.appliance(name).unwrap();
        for file in [&self.written.package, &self.written.contacts] {
            run("sonae-edge", &["import", "--data", &text(&appliance.data), &text(file)], "").unwrap();
        }
        appliance
    }

    /// An empty box of the school.
    pub fn empty(&self, name: &str) -> Appliance {
        enrol(&self.town, &self.town.school, name)
    }

    /// Starts a box that waits for neighbours, and dials these.
    pub fn start(&self, appliance: &Appliance, neighbours: &[&str], cloud: &str) -> Daemon {
        let mut rest = vec!["--neighbour-listen", "127.0.0.1:0"];
        neighbours.iter().for_each(|address| rest.extend(["--neighbour", address]));
        self.town.start_edge_with(appliance, cloud, &rest).unwrap()
    }

    /// Has the board revoke a device of which nothing counts; returns the file of its word.
    pub fn revoke(&self, daemon: &Daemon) -> PathBuf {
        let (board, out) =
            (text(&self.town.dir.join("board")), self.dir.path().join("revoked.sonae-courier"));
        let replica = daemon.said("replica").unwrap();
        let arguments = ["replica", "revoke", "--dir", &board, "--school", &self.town.school];
        run(
            "sonae-provision",
            &[&arguments[..], &["--replica", &replica, "--out", &text(&out)]].concat(),
            "",
        )
        .unwrap();
        out
    }
}

/// Enrols an empty box of a school of this board.
pub fn enrol(town: &Town, school: &str, name: &str) -> Appliance {
    let (board, bundle) = (text(&town.dir.join("board")), text(&town.dir.join(format!("{name}.bundle"))));
    let arguments =
        ["replica", "enrol", "--dir", &board, "--school", school, "--kind", "spare", "--out", &bundle];
    let said = run("sonae-provision", &arguments, "").unwrap();
    let appliance = town.appliance_at(name);
    let arguments = ["enrol", "--data", &text(&appliance.data), "--bundle", &bundle, "--passphrase-stdin"];
    run("sonae-edge", &arguments, said.lines().last().unwrap()).unwrap();
    appliance
}

pub fn near(daemon: &Daemon) -> String {
    daemon.said("neighbour_listen").unwrap()
}

pub async fn client(daemon: &Daemon, appliance: &Appliance) -> LanClient {
    LanClient::sign_in(&daemon.said("listen").unwrap(), &appliance.ca, LOGIN, PASSWORD, None).await.unwrap()
}

pub async fn mark(client: &LanClient, pupil: &str, day: u32) -> (String, u64) {
    let path = format!("/api/v1/attendance/2026-11-{day:02}/{pupil}");
    client.put(&path, json!({ "code": "late" })).await.unwrap()
}

pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "{what}");
        // paced: asks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn status(appliance: &Appliance) -> Value {
    appliance.status().unwrap_or(Value::Null)
}

pub fn applied(appliance: &Appliance, log: &str) -> u64 {
    appliance.digest().map_or(0, |report| report["version_vector"][log].as_u64().unwrap_or(0))
}

/// Digests and vectors, without what differs: who asks.
pub fn state(appliance: &Appliance) -> Value {
    let report = appliance.digest().unwrap();
    json!([report["digests"], report["version_vector"]])
}

pub async fn until_equal(boxes: &[&Appliance]) {
    until("the boxes have one state", || boxes.windows(2).all(|pair| state(pair[0]) == state(pair[1]))).await;
}

pub fn log_of(daemon: &Daemon, tier: u8) -> String {
    format!("{}/{tier}", daemon.said("incarnation").unwrap())
}

pub fn import_attendance(scene: &Scene, appliance: &Appliance) {
    let file = text(&scene.written.attendance);
    run("sonae-edge", &["import", "--data", &text(&appliance.data), &file], "").unwrap();
}

/// What the cloud alone makes.
pub fn rebuilt(scene: &Scene, cloud: &str) -> Value {
    let (bundle, passphrase) = scene.town.enrol_bundle("spare", "rebuilt.bundle").unwrap();
    let spare = scene.town.appliance_at("rebuilt");
    let (data, bundle) = (text(&spare.data), text(&bundle));
    let arguments = ["rebuild", "--data", &data, "--bundle", &bundle, "--passphrase-stdin", "--cloud", cloud];
    run("sonae-edge", &arguments, &passphrase).unwrap();
    spare.digest().unwrap()
}
