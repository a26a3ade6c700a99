//! A box that is being rebuilt: what it serves, what it says instead of the rest, and that it is never an empty list.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::json;
use sonae_proto::ids::Tier;
use support::{Answer, PASSWORD, PUPIL, School, recorded_day, today};

async fn home(school: &School) -> Answer {
    school.send(Request::get("/").body(Body::empty()).unwrap()).await
}

fn is_not_here_yet(answer: &Answer, what: &str) {
    assert_eq!(answer.error(), (503, "not_here_yet".into(), String::new()), "{what}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{what}");
}

/// Goal: before the roster is here the box says so to everybody who comes, in both languages, and takes no sign-in for a
/// wrong one. Method: the page, the form and the API, on a box that holds everything and has nothing that is usable.
#[tokio::test]
async fn before_the_roster() {
    let school = School::start_rebuilding().await;
    let page = home(&school).await;
    assert_eq!(page.status, 200);
    for text in [
        "この装置は復元の途中です。使えるもの：まだありません。",
        "This box is being rebuilt. Usable: nothing yet.",
    ] {
        assert!(page.text.contains(text), "{text}");
    }
    // More often than anybody may guess.
    for _ in 0..30 {
        is_not_here_yet(&school.try_sign_in("teacher", PASSWORD, None).await, "sign-in");
    }
    let form = Request::post("/sign-in")
        .header(header::HOST, "box.example")
        .header(header::ORIGIN, "https://box.example")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from("login=teacher&password=x"))
        .unwrap();
    let page = school.send(form).await;
    assert_eq!((page.status.as_u16(), page.header("retry-after").as_str()), (503, "5"));
    assert!(page.text.contains("紙に書き") && page.text.contains("write on paper"), "{}", page.text);
    let health = school.get("/healthz", "").await;
    assert_eq!(health.status, 200, "it saves what it takes");
}

/// Goal: with tier 0 here people sign in, read the roster and save contacts; every door to tier 1 says that it is still
/// coming, and opens when it is here. Method: all routes of the register, reading and writing, before and after; the status.
#[tokio::test]
async fn tier_0_first() {
    let school = School::start_rebuilding().await;
    school.store.filling().fill(Tier::Safety).unwrap();
    let token = school.strong("principal").await;
    let pupils = school.get("/api/v1/students", &token).await.json();
    assert_eq!(pupils["students"].as_array().unwrap().len(), 3);
    let contact = json!({ "name": "佐藤 父", "phone1": "090-0000-0002" });
    let kept = school.put(&format!("/api/v1/students/{PUPIL}/contacts/2"), &token, &contact).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    let (day, recorded) = (today(), recorded_day());
    let register = [
        (Method::GET, format!("/api/v1/attendance/{recorded}"), None),
        (Method::GET, format!("/api/v1/attendance/{recorded}/{PUPIL}"), None),
        (Method::PUT, format!("/api/v1/attendance/{day}/{PUPIL}"), Some(json!({ "code": "late" }))),
    ];
    for (method, path, body) in &register {
        let answer = school.call(method.clone(), path, &token, body.as_ref()).await;
        is_not_here_yet(&answer, path);
    }
    let status = school.get("/api/v1/status", &token).await.json();
    let usable = |tier: &str| status["rebuild"]["tiers"][tier]["usable"].as_bool();
    assert_eq!(["0", "1", "2"].map(usable), [Some(true), Some(false), Some(false)]);
    let page = home(&school).await.text;
    assert!(
        page.contains("使えるもの：名簿・連絡先・安否。取り込み中：出欠・日誌・健康の情報、成績・指導要録"),
        "{page}"
    );
    assert!(page.contains("入力停止中"), "the table says it too");

    Tier::ALL.into_iter().for_each(|tier| school.store.filling().fill(tier).unwrap());
    school.store.filling().end().unwrap();
    for (method, path, body) in &register {
        let answer = school.call(method.clone(), path, &token, body.as_ref()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    assert!(school.get("/api/v1/status", &token).await.json()["rebuild"].is_null());
    assert!(!home(&school).await.text.contains("復元の途中"));
}
