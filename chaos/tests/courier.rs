//! A USB stick in place of the line, with the real programs (P7, P9): `make build` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sonae_chaos::canary::Canaries;
use sonae_chaos::generate::{self, Options, Written};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::line::Line;
use sonae_chaos::program::{run, run_to_end};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Town};

struct Scene {
    dir: tempfile::TempDir,
    town: Town,
    written: Written,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Scene {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let school =
            generate::school(Options { pupils: 30, years: 1, seed: 7, ..Options::default() }).unwrap();
        let town = Town::found(&dir.path().join("town"), &school.school_code, &school.school_name).unwrap();
        let written = generate::write(&school, &dir.path().join("school")).unwrap();
        fs::create_dir(dir.path().join("stick")).unwrap();
        Self { dir, town, written }
    }

    fn stick(&self) -> PathBuf {
        self.dir.path().join("stick")
    }

    /// A box of the school with its staff and its pupils.
    fn filled(&self, name: &str) -> Appliance {
        let (appliance, _) = self.town.appliance(name).unwrap();
        for file in [&self.written.package, &self.written.contacts] {
            run("sonae-edge", &["import", "--data", &text(&appliance.data), &text(file)], "").unwrap();
        }
        appliance
    }

    /// An empty box of the school.
    fn empty(&self, name: &str) -> Appliance {
        let (bundle, passphrase) = self.town.enrol_bundle("spare", &format!("{name}.bundle")).unwrap();
        let appliance = self.town.appliance_at(name);
        let arguments =
            ["enrol", "--data", &text(&appliance.data), "--bundle", &text(&bundle), "--passphrase-stdin"];
        run("sonae-edge", &arguments, &passphrase).unwrap();
        appliance
    }

    fn export(&self, from: &Appliance, rest: &[&str]) -> PathBuf {
        let (data, stick) = (text(&from.data), text(&self.stick()));
        let arguments = ["bundle", "export", "--data", &data, "--to", &stick, "--json"];
        let said = run("sonae-edge", &[&arguments, rest].concat(), "").unwrap();
        let object: Value = serde_json::from_str(&said).unwrap();
        PathBuf::from(object["bundle"].as_str().unwrap())
    }

    /// Imports on a box; the exit code and the report.
    fn import(to: &Appliance, file: &Path) -> (i32, Value) {
        let arguments = ["bundle", "import", "--data", &text(&to.data), "--json", &text(file)];
        let (code, out, error) = run_to_end("sonae-edge", &arguments, "").unwrap();
        (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code}: {out}{error}")))
    }

    /// Brings a bundle to the cloud; the answer and the report.
    fn deliver(&self, file: &Path) -> (PathBuf, Value) {
        let before = self.answers();
        let [data, ..] = self.town.cloud_dirs();
        let stick = text(&self.stick());
        let arguments =
            ["bundle", "import", "--data", &text(&data), "--receipts-to", &stick, "--json", &text(file)];
        let said = run("sonae-cloud", &arguments, "").unwrap();
        let new = self.answers().into_iter().find(|answer| !before.contains(answer)).unwrap();
        (new, serde_json::from_str(said.lines().next().unwrap()).unwrap())
    }

    fn answers(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.stick()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| text(path).contains("-answer-")).collect()
    }
}

fn unsafe_changes(appliance: &Appliance) -> u64 {
    appliance.status().unwrap()["unsafe"].as_u64().unwrap()
}

fn digests(appliance: &Appliance) -> Value {
    appliance.digest().unwrap()["digests"].clone()
}

/// Goal: bundle there and answer back make everything safe, and the file holds no plain text. Method: no line at
/// all; search the stick for canaries; import the bundle and the answer twice.
#[test]
fn a_stick_makes_it_safe() {
    let mut scene = Scene::new();
    let edge = scene.filled("edge");
    let _cloud = scene.town.start_cloud().unwrap();
    assert!(unsafe_changes(&edge) > 100);
    let bundle = scene.export(&edge, &[]);
    let canaries = Canaries::of(&scene.written.summary, &[PASSWORD]).unwrap();
    assert_eq!(canaries.hits(&fs::read(&bundle).unwrap()), 0);

    let (answer, report) = scene.deliver(&bundle);
    assert!(report["taken"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(canaries.hits(&fs::read(&answer).unwrap()), 0);
    let (code, report) = Scene::import(&edge, &answer);
    assert_eq!((code, &report["receipts"]), (0, &json!(1)), "{report}");
    assert_eq!(unsafe_changes(&edge), 0);

    let (second, report) = scene.deliver(&bundle);
    assert_eq!(report["taken"], 0, "{report}");
    let (code, report) = Scene::import(&edge, &second);
    assert_eq!((code, &report["receipts"], &report["receipts_known"]), (0, &json!(0), &json!(1)), "{report}");

    // With the answer, the next bundle carries only what is new.
    let next = scene.export(&edge, &["--since", &text(&answer)]);
    assert!(fs::metadata(&next).unwrap().len() < fs::metadata(&bundle).unwrap().len());
    let (_, report) = scene.deliver(&next);
    assert_eq!((&report["taken"], &report["known"]), (&json!(0), &json!(0)), "{report}");
}

/// Goal: the same batches by stick, by the cloud's answer, in any order, twice, give the same state. Method: two
/// boxes that both write; exchange in both directions; a third that gets all of it in another order.
#[test]
fn any_way_gives_the_same_state() {
    let mut scene = Scene::new();
    let (first, second, third) = (scene.filled("first"), scene.empty("second"), scene.empty("third"));
    let _cloud = scene.town.start_cloud().unwrap();
    let add = [
        "staff",
        "add",
        "--data",
        &text(&second.data),
        "--login",
        "suzuki",
        "--name",
        "架空 鈴木",
        "--role",
        "teacher",
        "--password-stdin",
    ];
    run("sonae-edge", &add, PASSWORD).unwrap();
    let (of_first, of_second) = (scene.export(&first, &[]), scene.export(&second, &[]));
    for _ in 0..2 {
        assert_eq!(Scene::import(&second, &of_first).0, 0);
        assert_eq!(Scene::import(&first, &of_second).0, 0);
    }
    assert_eq!(digests(&first), digests(&second));

    // The third gets the second's by its own answer from the cloud, then the first's again from a stick.
    scene.deliver(&of_second);
    scene.deliver(&of_first);
    let (answer, _) = scene.deliver(&scene.export(&third, &[]));
    let (code, report) = Scene::import(&third, &answer);
    assert!(code == 0 && report["taken"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(digests(&third), digests(&first));
    let (code, report) = Scene::import(&third, &of_first);
    assert_eq!((code, &report["taken"]), (0, &json!(0)), "{report}");
    assert_eq!(digests(&third), digests(&first));
    // A receipt counts for its own box only.
    let (_, report) = Scene::import(&third, &scene.deliver(&of_first).0);
    assert_eq!((&report["receipts"], &report["receipts_foreign"]), (&json!(0), &json!(1)), "{report}");
}

/// Goal: daemons need not stop for a stick, what it made safe is safe on the line, and a loss of it is noticed.
/// Method: cut the line, write, carry, mend it; then take the cloud's objects away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_daemons_take_bundles() {
    let mut scene = Scene::new();
    let edge = scene.filled("edge");
    let mut cloud = scene.town.start_cloud().unwrap();
    let line = Line::open(scene.town.cloud_address().unwrap()).await.unwrap();
    line.set_cut(true);
    let mut daemon = scene.town.start_edge(&edge, &line).unwrap();
    let listen = daemon.said("listen").unwrap();
    let client = LanClient::sign_in(&listen, &edge.ca, LOGIN, PASSWORD, None).await.unwrap();
    assert!(client.status().await.unwrap()["unsafe"].as_u64().unwrap() > 0);
    let bundle = scene.export(&edge, &[]);
    let (answer, _) = scene.deliver(&bundle);
    let (code, report) = Scene::import(&edge, &answer);
    assert_eq!((code, &report["receipts"]), (0, &json!(1)), "{report}");
    assert_eq!(client.status().await.unwrap()["unsafe"], 0);

    line.set_cut(false);
    edge.wait_until_up(&client).await;
    let status = client.status().await.unwrap();
    assert_eq!((&status["loss_counter"], &status["unsafe"]), (&json!(0), &json!(0)), "{status}");

    // The stick's receipts are remembered as those of the line: the loss of what they called safe is found.
    cloud.stop().unwrap();
    for site in ["site-a", "site-b"] {
        fs::remove_dir_all(scene.town.dir.join(site).join("objects")).unwrap();
    }
    let _cloud = scene.town.start_cloud().unwrap();
    edge.wait_for(&client, |status| status["loss_counter"].as_u64().is_some_and(|losses| losses > 0)).await;
    edge.wait_until_safe(&client, Duration::from_secs(60)).await.unwrap();
    // An old receipt says nothing any more of what is safe anew.
    let (code, report) = Scene::import(&edge, &answer);
    assert_eq!((code, &report["receipts"], &report["receipts_known"]), (0, &json!(0), &json!(1)), "{report}");
    daemon.stop().unwrap();
}

/// Waiting for a status of the daemon.
trait Waits {
    async fn wait_for(&self, client: &LanClient, wanted: impl Fn(&Value) -> bool);
    async fn wait_until_up(&self, client: &LanClient);
}

impl Waits for Appliance {
    async fn wait_for(&self, client: &LanClient, wanted: impl Fn(&Value) -> bool) {
        let watch = async {
            while !wanted(&client.status().await.unwrap()) {
                // paced: the status is asked over HTTPS; faster asking only warms the machine
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(60), watch).await;
        assert!(seen.is_ok(), "{}", client.status().await.unwrap());
    }

    async fn wait_until_up(&self, client: &LanClient) {
        self.wait_for(client, |status| status["uplink"]["up"] == true).await;
    }
}
