//! Replicas of one school on one LAN, without the cloud, with the real programs (P7, P9): `make build` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "neighbours/scene.rs"]
mod scene;

use serde_json::{Value, json};
use sonae_chaos::line::Line;
use sonae_chaos::program::run;
use sonae_chaos::town::{Appliance, Town, copy_dir};

use scene::{
    NOWHERE, Scene, applied, client, enrol, import_attendance, log_of, mark, near, rebuilt, state, status,
    text, until, until_equal,
};

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

/// Goal: a box that is being filled asks its neighbour for nothing of a tier that the cloud is to begin, and takes what
/// follows in one that is usable. Method: tier 0 is usable and tier 1 is not; what is written to tier 0 after tier 1 arrives
/// while tier 1 does not; then all is usable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_is_filled_takes_what_is_usable() {
    let scene = Scene::new();
    let (first, second) = (scene.filled("first"), scene.empty("second"));
    let marker = second.data.join("rebuilding");
    std::fs::write(&marker, r#"{"usable":["0"]}"#).unwrap();
    let one = scene.start(&first, &[], NOWHERE);
    let here = client(&one, &first).await;
    let (register, _) = mark(&here, &here.pupils("").await.unwrap()[0], 1).await;
    let mut two = scene.start(&second, &[&near(&one)], NOWHERE);
    let roster = log_of(&one, 0);
    let until_same = |log: String| {
        let (first, second) = (first.clone(), second.clone());
        async move { until("a log is the same", || applied(&second, &log) == applied(&first, &log)).await }
    };
    until_same(roster.clone()).await;
    let add = ["staff", "add", "--data", &text(&first.data), "--login", "suzuki", "--name", "架空 鈴木"];
    let add = [&add[..], &["--role", "teacher", "--password-stdin"]].concat();
    run("sonae-edge", &add, "kunren-no-tame-8").unwrap();
    until_same(roster).await;
    assert_eq!((applied(&first, &register), applied(&second, &register)), (1, 0), "it was there before");
    two.kill_hard().unwrap();
    std::fs::write(&marker, r#"{"usable":["0","1","2"]}"#).unwrap();
    let _two = scene.start(&second, &[&near(&one)], NOWHERE);
    until_same(register).await;
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

/// Goal: boxes that dial each other, and themselves, end with one connection that stays, and find each other again after
/// either was away. Method: addresses of all at both; what the log counts while changes pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_that_dial_each_other_keep_one_line() {
    let scene = Scene::new();
    let (first, second) = (scene.filled("first"), scene.empty("second"));
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (a, b) = (free(), free());
    let start = |appliance: &Appliance, own: &str| {
        let rest = ["--neighbour-listen", own, "--neighbour", &a, "--neighbour", &b];
        scene.town.start_edge_with(appliance, NOWHERE, &rest).unwrap()
    };
    let (one, mut two) = (start(&first, &a), start(&second, &b));
    until_equal(&[&first, &second]).await;
    let log = scene.town.dir.join("edge.log");
    let said = |what: &str| std::fs::read_to_string(&log).unwrap().matches(what).count();
    let comings = || said("a neighbour is there");
    // Each has dialled the other, and both ends have chosen. An end that has seen the first connection go already does not
    // know that it was the second; one that is closed before it has read the other's hello dials once more.
    let have_chosen = || {
        let is_changed = said("keeps=true") > 0;
        said("a neighbour came by a second connection") > 0 && comings() == if is_changed { 4 } else { 2 }
    };
    until("both have dialled and chosen", have_chosen).await;
    let is_met = |appliance: &Appliance| {
        let told = status(appliance)["neighbours"].as_array().cloned().unwrap_or_default();
        let met: Vec<_> = told.iter().filter(|entry| !entry["replica"].is_null()).collect();
        met.len() == 1 && met[0]["connected"] == true
    };
    until("each has met the other", || is_met(&first) && is_met(&second)).await;
    let staff = client(&one, &first).await;
    let pupils = staff.pupils("").await.unwrap();
    let before = comings();
    for day in 1..5 {
        let (log, sequence) = mark(&staff, &pupils[0], day).await;
        until("it passes", || applied(&second, &log) == sequence).await;
    }
    assert_eq!(comings(), before, "the line was changed for another");
    two.kill_hard().unwrap();
    until("it is missed", || !is_met(&first)).await;
    let _two = start(&second, &b);
    let (log, sequence) = mark(&staff, &pupils[1], 1).await;
    until("it is found again", || applied(&second, &log) == sequence && is_met(&first)).await;
}
