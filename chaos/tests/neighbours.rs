//! Replicas of one school on one LAN, without the cloud, with the real programs (P7, P9): `make build` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::generate::{self, Options, Written};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::line::Line;
use sonae_chaos::program::{Daemon, run};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Town, copy_dir};

const LONG: Duration = Duration::from_secs(300);

/// An address at which nobody answers: the cloud of a dark day.
const NOWHERE: &str = "127.0.0.1:1";

fn text(path: &Path) -> String {
    path.display().to_string()
}

struct Scene {
    dir: tempfile::TempDir,
    town: Town,
    written: Written,
}

impl Scene {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let school =
            generate::school(Options { pupils: 30, years: 1, seed: 9, ..Options::default() }).unwrap();
        let town = Town::found(&dir.path().join("town"), &school.school_code, &school.school_name).unwrap();
        let written = generate::write(&school, &dir.path().join("school")).unwrap();
        Self { dir, town, written }
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
        enrol(&self.town, &self.town.school, name)
    }

    /// Starts a box that waits for neighbours, and dials these.
    fn start(&self, appliance: &Appliance, neighbours: &[&str], cloud: &str) -> Daemon {
        let mut rest = vec!["--neighbour-listen", "127.0.0.1:0"];
        neighbours.iter().for_each(|address| rest.extend(["--neighbour", address]));
        self.town.start_edge_with(appliance, cloud, &rest).unwrap()
    }

    /// Has the board revoke a device of which nothing counts; returns the file of its word.
    fn revoke(&self, daemon: &Daemon) -> PathBuf {
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
fn enrol(town: &Town, school: &str, name: &str) -> Appliance {
    let (board, bundle) = (text(&town.dir.join("board")), text(&town.dir.join(format!("{name}.bundle"))));
    let arguments =
        ["replica", "enrol", "--dir", &board, "--school", school, "--kind", "spare", "--out", &bundle];
    let said = run("sonae-provision", &arguments, "").unwrap();
    let appliance = town.appliance_at(name);
    let arguments = ["enrol", "--data", &text(&appliance.data), "--bundle", &bundle, "--passphrase-stdin"];
    run("sonae-edge", &arguments, said.lines().last().unwrap()).unwrap();
    appliance
}

fn near(daemon: &Daemon) -> String {
    daemon.said("neighbour_listen").unwrap()
}

async fn client(daemon: &Daemon, appliance: &Appliance) -> LanClient {
    LanClient::sign_in(&daemon.said("listen").unwrap(), &appliance.ca, LOGIN, PASSWORD, None).await.unwrap()
}

async fn mark(client: &LanClient, pupil: &str, day: u32) -> (String, u64) {
    let path = format!("/api/v1/attendance/2026-11-{day:02}/{pupil}");
    client.put(&path, json!({ "code": "late" })).await.unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "{what}");
        // paced: asks again
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn status(appliance: &Appliance) -> Value {
    appliance.status().unwrap_or(Value::Null)
}

fn applied(appliance: &Appliance, log: &str) -> u64 {
    appliance.digest().map_or(0, |report| report["version_vector"][log].as_u64().unwrap_or(0))
}

/// Digests and vectors, without what differs: who asks.
fn state(appliance: &Appliance) -> Value {
    let report = appliance.digest().unwrap();
    json!([report["digests"], report["version_vector"]])
}

async fn until_equal(boxes: &[&Appliance]) {
    until("the boxes have one state", || boxes.windows(2).all(|pair| state(pair[0]) == state(pair[1]))).await;
}

/// Goal: two boxes without any cloud agree, whatever is killed; nothing of it is called safe; when the cloud comes, all
/// of it becomes safe, once. Method: writes on both, `kill -9` of either while much is on its way; then the cloud.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_boxes_agree_without_a_cloud() {
    let mut scene = Scene::new();
    let (first, second) = (scene.filled("first"), scene.empty("second"));
    let mut one = scene.start(&first, &[], NOWHERE);
    let mut two = scene.start(&second, &[&near(&one)], NOWHERE);
    until("the second box learns of the first's staff", || {
        status(&second)["neighbours"][0]["lacking_here"] == 0 && applied(&second, &log_of(&one, 0)) > 0
    })
    .await;
    let (here, there) = (client(&one, &first).await, client(&two, &second).await);
    let pupils = here.pupils("").await.unwrap();
    assert_eq!(pupils, there.pupils("").await.unwrap());
    mark(&here, &pupils[0], 1).await;
    mark(&there, &pupils[1], 1).await;
    until_equal(&[&first, &second]).await;

    // Much at once, and the power of one fails.
    import_attendance(&scene, &first);
    two.kill_hard().unwrap();
    let mut two = scene.start(&second, &[&near(&one)], NOWHERE);
    mark(&client(&two, &second).await, &pupils[2], 2).await;
    one.kill_hard().unwrap();
    let mut one = scene.start(&first, &[&near(&two)], NOWHERE);
    until_equal(&[&first, &second]).await;

    let told = status(&first);
    let neighbour = &told["neighbours"][0];
    assert!(neighbour["connected"] == true && neighbour["lacking_there"] == 0, "{neighbour}");
    let tier_0 = &told["kept"]["0"]["sequence"];
    assert_eq!(&neighbour["holds_own"]["0"], tier_0, "{neighbour}");
    assert!(
        told["unsafe"].as_u64().unwrap() > 100 && told["safe"] == json!({}),
        "a copy next door is not safe"
    );

    let agreed = state(&first);
    one.stop().unwrap();
    two.stop().unwrap();
    let cloud = scene.town.start_cloud().unwrap();
    let address = scene.town.cloud_address().unwrap().to_string();
    let one = scene.start(&first, &[], &address);
    let two = scene.start(&second, &[&near(&one)], &address);
    for appliance in [&first, &second] {
        until("all is safe", || status(appliance)["unsafe"] == 0).await;
        let told = status(appliance);
        assert_eq!(
            (&told["loss_counter"], &told["forks"], &told["disputed"]),
            (&json!(0), &json!(0), &json!(0))
        );
    }
    assert_eq!((state(&first), state(&second)), (agreed.clone(), agreed.clone()));
    assert_eq!(rebuilt(&scene, &address)["digests"], agreed[0]);
    drop((one, two, cloud));
}

fn log_of(daemon: &Daemon, tier: u8) -> String {
    format!("{}/{tier}", daemon.said("incarnation").unwrap())
}

fn import_attendance(scene: &Scene, appliance: &Appliance) {
    let file = text(&scene.written.attendance);
    run("sonae-edge", &["import", "--data", &text(&appliance.data), &file], "").unwrap();
}

/// What the cloud alone makes.
fn rebuilt(scene: &Scene, cloud: &str) -> Value {
    let (bundle, passphrase) = scene.town.enrol_bundle("spare", "rebuilt.bundle").unwrap();
    let spare = scene.town.appliance_at("rebuilt");
    let (data, bundle) = (text(&spare.data), text(&bundle));
    let arguments = ["rebuild", "--data", &data, "--bundle", &bundle, "--passphrase-stdin", "--cloud", cloud];
    run("sonae-edge", &arguments, &passphrase).unwrap();
    spare.digest().unwrap()
}

/// Goal: what one end of a chain writes reaches the other through a box between, both ways, also after the middle was
/// killed. Method: three boxes, the outer ones know the middle only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_three_agrees() {
    let scene = Scene::new();
    let (left, middle, right) = (scene.filled("left"), scene.empty("middle"), scene.empty("right"));
    let at_left = scene.start(&left, &[], NOWHERE);
    let at_right = scene.start(&right, &[], NOWHERE);
    let mut between = scene.start(&middle, &[&near(&at_left), &near(&at_right)], NOWHERE);
    until_equal(&[&left, &middle, &right]).await;
    let (one, two) = (client(&at_left, &left).await, client(&at_right, &right).await);
    let pupils = one.pupils("").await.unwrap();
    between.kill_hard().unwrap();
    mark(&one, &pupils[0], 1).await;
    let (log, sequence) = mark(&two, &pupils[1], 1).await;
    let _between = scene.start(&middle, &[&near(&at_left), &near(&at_right)], NOWHERE);
    until("it comes through", || applied(&left, &log) == sequence).await;
    until_equal(&[&left, &middle, &right]).await;
}

/// Goal: only devices of this school and this board get in, not one that is revoked, and nothing reaches the others.
/// Method: boxes of another school of the board, of another board with the same school, and a revoked one dial; a box
/// that learns of the revocation from its neighbour sends it away too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_nothing() {
    let scene = Scene::new();
    let (own, friend, thief) = (scene.filled("own"), scene.empty("friend"), scene.empty("thief"));
    let board = text(&scene.town.dir.join("board"));
    let other = "B113200000022";
    let add = ["school", "add", "--dir", &board, "--code", other, "--name", "架空市立隣小学校"];
    run("sonae-provision", &add, "").unwrap();
    let other_school = enrol(&scene.town, other, "other-school");
    let elsewhere =
        Town::found(&scene.dir.path().join("elsewhere"), &scene.town.school, "架空市立同名小学校");
    let elsewhere = elsewhere.unwrap();
    let other_board = enrol(&elsewhere, &elsewhere.school, "other-board");

    let at_own = scene.start(&own, &[], NOWHERE);
    let near_own = near(&at_own);
    let at_friend = scene.start(&friend, &[&near_own], NOWHERE);
    let at_thief = scene.start(&thief, &[&near_own, &near(&at_friend)], NOWHERE);
    until_equal(&[&own, &friend, &thief]).await;
    let word = scene.revoke(&at_thief);
    run("sonae-edge", &["bundle", "import", "--data", &text(&own.data), &text(&word)], "").unwrap();
    // The friend hears it from its neighbour, not from the board.
    until("nobody keeps the thief", || {
        let neighbours = status(&thief)["neighbours"].as_array().cloned().unwrap_or_default();
        neighbours.len() == 2
            && neighbours.iter().all(|one| {
                one["connected"] == false
                    && one["last_error"].as_str().is_some_and(|text| text.contains("revoked"))
            })
    })
    .await;

    let strangers = [scene.start(&other_school, &[&near_own], NOWHERE), {
        let rest = ["--neighbour-listen", "127.0.0.1:0", "--neighbour", &near_own];
        elsewhere.start_edge_with(&other_board, NOWHERE, &rest).unwrap()
    }];
    for stranger in [&other_school, &other_board] {
        until("it is refused", || status(stranger)["neighbours"][0]["last_error"].is_string()).await;
    }
    let staff = client(&at_own, &own).await;
    let pupils = staff.pupils("").await.unwrap();
    let (log, sequence) = mark(&staff, &pupils[0], 1).await;
    until("friends go on", || applied(&friend, &log) == sequence).await;
    for stranger in [&thief, &other_school, &other_board] {
        assert_eq!(applied(stranger, &log), 0);
        assert!(
            status(stranger)["neighbours"].as_array().unwrap().iter().all(|one| one["connected"] == false)
        );
    }
    for stranger in [&other_school, &other_board] {
        assert!(status(stranger)["neighbours"][0]["replica"].is_null(), "it was never greeted");
        assert_eq!(stranger.digest().unwrap()["version_vector"], json!({}));
    }
    drop((strangers, at_friend));
}

/// Goal: a box that was restored from an old copy is told so by its neighbour, before it has met the cloud, and nothing
/// that anybody acknowledged is lost. Method: the line is down; copy, write, put the copy back, write more than before;
/// then the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_knows_a_restored_box() {
    let mut scene = Scene::new();
    let _cloud = scene.town.start_cloud().unwrap();
    let line = Line::open(scene.town.cloud_address().unwrap()).await.unwrap();
    line.set_cut(true);
    let cloud = line.address().to_string();
    let (first, second) = (scene.filled("first"), scene.empty("second"));
    let mut two = scene.start(&second, &[], &cloud);
    let mut one = scene.start(&first, &[&near(&two)], &cloud);
    until_equal(&[&first, &second]).await;
    one.kill_hard().unwrap();
    let copy = scene.dir.path().join("copy");
    copy_dir(&first.data, &copy).unwrap();
    let mut one = scene.start(&first, &[&near(&two)], &cloud);
    let staff = client(&one, &first).await;
    let pupils = staff.pupils("").await.unwrap();
    let mut ledger = Vec::new();
    let (log, sequence) = mark(&staff, &pupils[0], 1).await;
    ledger.push((0, 1));
    until("the neighbour has it", || applied(&second, &log) == sequence).await;
    let ended = one.said("incarnation").unwrap();
    one.kill_hard().unwrap();
    std::fs::remove_dir_all(&first.data).unwrap();
    copy_dir(&copy, &first.data).unwrap();
    // The longer branch: its head hides that of the neighbour.
    let mut one = scene.start(&first, &[], &cloud);
    let staff = client(&one, &first).await;
    for pupil in [1, 2, 3] {
        mark(&staff, &pupils[pupil], 2).await;
        ledger.push((pupil, 2));
    }
    one.stop().unwrap();
    let mut one = scene.start(&first, &[&near(&two)], &cloud);
    until("it is told", || {
        let told = status(&first);
        let errors = told["uplink"]["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().any(|error| error["code"] == "own_log_elsewhere")
    })
    .await;
    line.set_cut(false);
    until("it goes on under a new name", || {
        let told = status(&first);
        told["forks"] == 1 && told["unsafe"] == 0
    })
    .await;
    assert_ne!(status(&first)["incarnation"], ended.as_str());
    until("the neighbour's copy of the lost branch comes back", || applied(&first, &log) == sequence).await;
    until_equal(&[&first, &second]).await;
    for (daemon, appliance) in [(&one, &first), (&two, &second)] {
        let staff = client(daemon, appliance).await;
        for (pupil, day) in &ledger {
            let path = format!("/api/v1/attendance/2026-11-{day:02}/{}", pupils[*pupil]);
            assert!(staff.get(&path).await.unwrap().to_string().contains("\"late\""), "{path} is gone");
        }
    }
    one.stop().unwrap();
    two.stop().unwrap();
}

/// Goal: what a box wrote without a line and gave to its neighbour survives the box: the neighbour brings it to the cloud,
/// and calls nothing of it safe. Method: a box that the cloud knows; cut the line, write, destroy the box, mend the line;
/// a rebuild has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_brings_what_a_lost_box_wrote() {
    let mut scene = Scene::new();
    let _cloud = scene.town.start_cloud().unwrap();
    let line = Line::open(scene.town.cloud_address().unwrap()).await.unwrap();
    let cloud = line.address().to_string();
    let (lost, other) = (scene.filled("lost"), scene.empty("other"));
    let mut at_lost = scene.start(&lost, &[], &cloud);
    let _at_other = scene.start(&other, &[&near(&at_lost)], &cloud);
    until("all is safe", || status(&lost)["unsafe"] == 0).await;
    until_equal(&[&lost, &other]).await;
    line.set_cut(true);
    let staff = client(&at_lost, &lost).await;
    let pupils = staff.pupils("").await.unwrap();
    let (log, sequence) = mark(&staff, &pupils[0], 1).await;
    until("the neighbour has it", || applied(&other, &log) == sequence).await;
    assert!(status(&lost)["unsafe"].as_u64().unwrap() > 0);
    at_lost.kill_hard().unwrap();
    std::fs::remove_dir_all(&lost.data).unwrap();
    line.set_cut(false);
    let [data, ..] = scene.town.cloud_dirs();
    until("the cloud has it", || {
        let said = run("sonae-cloud", &["status", "--data", &text(&data), "--json"], "").unwrap();
        let told: Value = serde_json::from_str(&said).unwrap();
        told["schools"][0]["heads"][&log]["sequence"] == sequence
    })
    .await;
    assert_eq!(rebuilt(&scene, &cloud)["digests"], other.digest().unwrap()["digests"]);
    let told = status(&other);
    assert_eq!(
        (&told["safe"], &told["loss_counter"]),
        (&json!({}), &json!(0)),
        "it has written nothing itself"
    );
}
