//! Bad lines with the real programs: UDP blocked, UDP gone in mid-session, back again, addresses that move, short
//! cuts. They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sonae_chaos::drill::kill_cloud::wait_for_line;
use sonae_chaos::generate::{self, Options};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::line::{Line, Slowness};
use sonae_chaos::program::{Daemon, run};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Town};

/// Long enough for a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A school whose appliance runs behind a line.
struct Scene {
    _dir: tempfile::TempDir,
    _cloud: Daemon,
    _edge: Daemon,
    line: Line,
    appliance: Appliance,
    client: LanClient,
    pupils: Vec<String>,
    attendance: String,
}

impl Scene {
    async fn open(pupils: u32, prepare: impl FnOnce(&Line)) -> Self {
        // A second install changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let school = generate::school(Options { pupils, years: 1, seed: 5, ..Options::default() }).unwrap();
        let mut town =
            Town::found(&dir.path().join("town"), &school.school_code, &school.school_name).unwrap();
        let written = generate::write(&school, &dir.path().join("school")).unwrap();
        let attendance = written.attendance.display().to_string();
        let cloud = town.start_cloud().unwrap();
        let line = Line::open(town.cloud_address().unwrap()).await.unwrap();
        prepare(&line);
        let (appliance, _) = town.appliance("edge").unwrap();
        let (data, package) = (appliance.data.display().to_string(), written.package.display().to_string());
        run("sonae-edge", &["import", "--data", &data, &package], "").unwrap();
        let edge = town.start_edge(&appliance, &line).unwrap();
        let address = edge.said("listen").unwrap();
        let client = LanClient::sign_in(&address, &appliance.ca, LOGIN, PASSWORD, None).await.unwrap();
        let pupils = client.pupils("").await.unwrap();
        wait_for_line(&client).await.unwrap();
        appliance.wait_until_safe(&client, PATIENCE).await.unwrap();
        Self { _dir: dir, _cloud: cloud, _edge: edge, line, appliance, client, pupils, attendance }
    }

    /// Writes a change.
    async fn write(&self, turn: usize) {
        let pupil = &self.pupils[turn % self.pupils.len()];
        let day = 1 + turn / self.pupils.len();
        let path = format!("/api/v1/attendance/2026-10-{day:02}/{pupil}");
        self.client.put(&path, json!({ "code": "late" })).await.unwrap();
    }

    /// Waits until all that was written is safe. Returns how long that took.
    async fn safe(&self) -> Duration {
        self.appliance.wait_until_safe(&self.client, PATIENCE).await.unwrap()
    }

    /// What the command line says of the uplink.
    fn uplink(&self, key: &str) -> Value {
        self.appliance.status().unwrap()["uplink"][key].clone()
    }

    async fn until_transport(&self, transport: &str) {
        let give_up = Instant::now() + PATIENCE;
        while self.client.status().await.unwrap().pointer("/uplink/transport") != Some(&json!(transport)) {
            assert!(Instant::now() < give_up, "the uplink never went over {transport}");
            // paced: the status is polled, as people do
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Goal: without UDP everything goes over TCP, by itself, and says so; when UDP passes again QUIC is used again,
/// and nothing is lost on the way. Method: UDP blocked from the start, then free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_tcp_serves_until_udp_is_back() {
    let scene = Scene::open(30, |line| line.set_udp_blocked(true)).await;
    assert_eq!(scene.uplink("transport"), "tcp");
    scene.write(0).await;
    scene.safe().await;
    scene.line.set_udp_blocked(false);
    scene.until_transport("quic").await;
    scene.write(1).await;
    scene.safe().await;
    assert_eq!(scene.uplink("transport"), "quic");
    assert_eq!(scene.client.status().await.unwrap()["loss_counter"], 0);
}

/// Goal: where nothing passes but port 443 the cloud is found there, by itself. Method: a node that listens on 443 alone,
/// dialled at a port at which nobody is. It needs root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_of_the_web_is_tried_too() {
    if !rustix::process::geteuid().is_root() {
        println!("not verified: to listen on port 443 takes root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut town = Town::found(dir.path(), "B113200000011", "架空小学校").unwrap();
    // An address of its own: another program may use the port at the usual one.
    let here = IpAddr::from([127, 44, 3, 1]);
    town.cloud_place.listen = Some((here, 443));
    let _cloud = town.start_cloud().unwrap();
    let (appliance, _) = town.appliance("edge").unwrap();
    let _edge = town.start_edge_to(&appliance, SocketAddr::new(here, 9)).unwrap();
    let began = Instant::now();
    while appliance.status().map_or(true, |status| status["unsafe"] != 0) {
        assert!(began.elapsed() < PATIENCE, "{:?}", appliance.status());
        // paced: the status is polled, as people do
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(appliance.status().unwrap()["uplink"]["transport"], "tcp");
}

/// Goal: when UDP dies in mid-session the work goes on over TCP and nothing is lost. Method: writes before,
/// while and after; the receipts of all of them must come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_that_dies_in_mid_session_is_left_for_tcp() {
    let scene = Scene::open(30, |_| {}).await;
    assert_eq!(scene.uplink("transport"), "quic");
    for turn in 0..30 {
        if turn == 10 {
            scene.line.set_udp_blocked(true);
        }
        scene.write(turn).await;
    }
    scene.safe().await;
    assert_eq!(scene.uplink("transport"), "tcp");
    assert_eq!(scene.client.status().await.unwrap()["loss_counter"], 0);
}

/// Goal: a school whose address changes goes on at once on the same connection. Method: the relay moves to
/// another port; the time to a receipt is compared with that before, the connections are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_moves_does_not_stall() {
    let scene = Scene::open(30, |_| {}).await;
    let connections = scene.uplink("connections");
    let mut before = Duration::ZERO;
    let mut after = Duration::ZERO;
    for turn in 0..5 {
        scene.write(2 * turn).await;
        before = before.max(scene.safe().await);
        scene.line.move_source();
        scene.write(2 * turn + 1).await;
        after = after.max(scene.safe().await);
    }
    assert_eq!(scene.uplink("connections"), connections, "it was dialled anew");
    // The slowest receipt waits for the window of 2 s in either case; a lost connection is noticed after more.
    assert!(after < before * 3, "{after:?} after a move, {before:?} without");
}

/// Goal: a slow line is not taken for a dead one, over QUIC and over TCP. Method: a backlog at 256 kbit/s and
/// 300 ms each way; the connections are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_line_is_not_left() {
    tokio::join!(send_a_backlog_slowly(false), send_a_backlog_slowly(true));
}

async fn send_a_backlog_slowly(udp_blocked: bool) {
    let scene = Scene::open(300, |line| {
        line.set_udp_blocked(udp_blocked);
        line.set_slow(Slowness {
            delay: Duration::from_millis(300),
            bytes_per_second: 32_000,
            lost_per_thousand: 0,
        });
    })
    .await;
    let transport = if udp_blocked { "tcp" } else { "quic" };
    let connections = scene.uplink("connections");
    let data = scene.appliance.data.display().to_string();
    run("sonae-edge", &["import", "--data", &data, &scene.attendance], "").unwrap();
    let wait = scene.safe().await;
    assert_eq!(scene.uplink("connections"), connections, "{transport} was left in the {wait:?}");
    assert_eq!(scene.uplink("transport"), transport);
    let passed = scene.line.traffic().up_bytes;
    assert!(passed > 200_000, "only {passed} bytes of backlog: the line was not slow for long");
}

/// Goal: after a cut the first receipt comes soon, whatever the pauses of timers have grown to, over QUIC and over
/// TCP. Method: a cut of 20 s with a write at its beginning; the wait after it is compared with the cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_receipts_come_soon() {
    tokio::join!(cut_and_mend(false), cut_and_mend(true));
}

async fn cut_and_mend(udp_blocked: bool) {
    let scene = Scene::open(30, |line| line.set_udp_blocked(udp_blocked)).await;
    let cut = Duration::from_secs(20);
    scene.line.set_cut(true);
    scene.write(0).await;
    // paced: the cut has a length
    tokio::time::sleep(cut).await;
    assert_eq!(scene.client.status().await.unwrap()["unsafe"], 1);
    scene.line.set_cut(false);
    let wait = scene.safe().await;
    assert!(wait < cut / 4, "the receipt came {wait:?} after a cut of {cut:?}");
}
