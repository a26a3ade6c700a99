//! Disputes: listed for whoever may read them, and ended by a person who names what they saw.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{PUPIL, School, today};

const DISPUTES: &str = "/api/v1/disputes";

fn entry() -> String {
    format!("/api/v1/attendance/{}/{PUPIL}", today())
}

/// Two people write the same code, each beside what the other has written. Returns how they are signed in.
async fn disagree(school: &School) -> [String; 2] {
    let tokens = [school.strong("teacher").await, school.strong("nurse").await];
    for (token, value) in tokens.iter().zip(["late", "absent_sick"]) {
        let written = school.put_seen(&entry(), token, "\"\"", &json!({ "code": value })).await;
        assert_eq!(written.status, StatusCode::OK);
    }
    tokens
}

/// How a decision is spoilt, and the answer.
type Wrong = (fn(&mut Value), u16);

fn decision(dispute: &Value, field: &str, keep: &str) -> Value {
    let values = dispute["fields"][field].as_array().unwrap();
    let chosen = values.iter().find(|value| value["value"] == keep).unwrap();
    let seen: Vec<_> = values.iter().map(|value| value["change"].clone()).collect();
    json!({
        "collection": dispute["collection"], "record": dispute["record"],
        "fields": { field: { "keep": chosen["change"], "seen": seen } },
    })
}

/// Goal: what two people disagree about is in one list, with who wrote what, and is gone from it when a third has chosen.
/// Method: two values of an attendance code, the list, a choice, the record.
#[tokio::test]
async fn a_person_decides() {
    let school = School::start().await;
    let token = school.strong("principal").await;
    assert_eq!(school.get(DISPUTES, &token).await.json(), json!({ "disputes": [], "not_listed": 0 }));
    disagree(&school).await;
    let listed = school.get(DISPUTES, &token).await.json();
    let dispute = listed["disputes"][0].clone();
    assert_eq!((&listed["disputes"].as_array().unwrap().len(), &listed["not_listed"]), (&1, &json!(0)));
    assert_eq!(dispute["collection"], json!("attendance"));
    let said: Vec<_> = dispute["fields"]["code"].as_array().unwrap().iter().map(|v| &v["who"]).collect();
    assert!(said.contains(&&json!("teacher")) && said.contains(&&json!("nurse")), "{said:?}");
    let body = decision(&dispute, "code", "late");
    let decided = school.call(Method::POST, DISPUTES, &token, Some(&body)).await;
    assert_eq!((decided.status, &decided.json()["disputed"]), (StatusCode::OK, &json!([])));
    assert_eq!(school.get(DISPUTES, &token).await.json(), json!({ "disputes": [], "not_listed": 0 }));
    let shown = school.get(&entry(), &token).await.json();
    assert_eq!((&shown["code"], shown.get("disputed")), (&json!("late"), None));
    let again = school.call(Method::POST, DISPUTES, &token, Some(&body)).await;
    assert_eq!((again.status, again.code()), (StatusCode::UNPROCESSABLE_ENTITY, "bad_value".into()));
}

/// Goal: a value that came after the list was read is not thrown away by a choice. Method: a third value between the list
/// and the choice.
#[tokio::test]
async fn what_was_not_seen_stays() {
    let school = School::start().await;
    let token = school.strong("principal").await;
    let [teacher, _] = disagree(&school).await;
    let dispute = school.get(DISPUTES, &token).await.json()["disputes"][0].clone();
    school.put_seen(&entry(), &teacher, "\"\"", &json!({ "code": "suspended" })).await;
    let body = decision(&dispute, "code", "absent_sick");
    let decided = school.call(Method::POST, DISPUTES, &token, Some(&body)).await;
    assert_eq!((decided.status, &decided.json()["disputed"]), (StatusCode::OK, &json!(["code"])));
    let left = school.get(DISPUTES, &token).await.json()["disputes"][0]["fields"]["code"].clone();
    let values: Vec<_> = left.as_array().unwrap().iter().map(|value| value["value"].clone()).collect();
    assert!(values.contains(&json!("suspended")) && !values.contains(&json!("late")), "{values:?}");
}

/// Goal: nobody sees or decides what they may not. Method: a reason (class II) by password alone; without signing in; a
/// value, a field, a record and a collection that are none.
#[tokio::test]
async fn only_who_may_sees_and_decides() {
    let school = School::start().await;
    let (weak, strong) = (school.weak("teacher").await, school.strong("teacher").await);
    school.put(&entry(), &strong, &json!({ "code": "late" })).await;
    let tag = school.get(&entry(), &strong).await.header("etag");
    let nurse = school.strong("nurse").await;
    for (token, reason) in [(&strong, "電車"), (&nurse, "通院")] {
        school.put_seen(&entry(), token, &tag, &json!({ "code": "late", "reason_text": reason })).await;
    }
    let listed = school.get(DISPUTES, &weak).await.json();
    assert_eq!(listed, json!({ "disputes": [], "not_listed": 1 }));
    let dispute = school.get(DISPUTES, &strong).await.json()["disputes"][0].clone();
    let body = decision(&dispute, "reason_text", "通院");
    let post = async |token: &str, body: &Value| {
        let answer = school.call(Method::POST, DISPUTES, token, Some(body)).await;
        (answer.status.as_u16(), answer.code())
    };
    assert_eq!(post(&weak, &body).await, (403, "second_factor_required".into()));
    assert_eq!(school.get(DISPUTES, "").await.status, StatusCode::UNAUTHORIZED);
    let with = |change: fn(&mut Value)| {
        let mut body = body.clone();
        change(&mut body);
        body
    };
    let wrongs: [Wrong; 6] = [
        (|body| body["collection"] = json!("staff"), 404),
        (|body| body["record"] = json!("nobody"), 404),
        (|body| body["record"] = json!("x".repeat(10_000)), 404),
        (|body| body["fields"]["reason_text"]["keep"] = json!("5f0c:1"), 422),
        (|body| body["fields"]["reason_text"]["seen"] = json!(["?"]), 422),
        (|body| body["fields"] = json!({ "password_hash": body["fields"]["reason_text"].clone() }), 404),
    ];
    for (change, status) in wrongs {
        assert_eq!(post(&strong, &with(change)).await.0, status);
    }
    let decided = school.call(Method::POST, DISPUTES, &strong, Some(&body)).await;
    assert_eq!(decided.status, StatusCode::OK);
    assert_eq!(school.get(&entry(), &strong).await.json()["reason_text"], json!("通院"));
}
