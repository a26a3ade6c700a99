//! The status and what is refused, as people and programs see it (P10).
mod support;

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use sonae_proto::ids::Tier;
use sonae_store::room::Quota;
use support::{PUPIL, School, edit, today};

/// Leaves no room for these tiers, and asks nothing of the disk of whoever runs the test.
fn refuse(school: &School, tiers: &[Tier]) {
    let zero = |tiers: &[Tier]| tiers.iter().map(|tier| (*tier, 0)).collect::<BTreeMap<_, _>>();
    school.store.set_quota(Quota { bytes_max: zero(tiers), free_min: zero(&Tier::ALL) });
}

/// Walks through an answer and its schema, and names what the schema does not describe.
fn undescribed(value: &Value, schema: &Value, schemas: &Value, path: &str, found: &mut Vec<String>) {
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let schema = name.map_or(schema, |name| &schemas[name]);
    if let Some(schema) =
        schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"))
    {
        return undescribed(value, schema, schemas, path, found);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let described = [&schema["properties"][name], &schema["additionalProperties"]];
                let path = format!("{path}/{name}");
                match described.into_iter().find(|described| !described.is_null()) {
                    Some(schema) => undescribed(value, schema, schemas, &path, found),
                    None => found.push(path),
                }
            }
        }
        Value::Array(values) => {
            values.iter().for_each(|value| undescribed(value, &schema["items"], schemas, path, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Goal: the status is whole, keeps kept and safe apart, says for each tier what waits and for how long, and every fact
/// of it is in the document. Method: its facts, with an error and a stall in it; the schema.
#[tokio::test]
async fn the_status_is_whole_and_described() {
    let school = School::start().await;
    let token = school.weak("teacher").await;
    let attendance = json!({ "code": "late" });
    let path = format!("/api/v1/attendance/{}/{PUPIL}", today());
    school.call(Method::PUT, &path, &token, Some(&attendance)).await;
    school.status.uplink.note_error(school.store.clock(), "line_down", "gone".into());
    school.status.uplink.update(|uplink| uplink.stalled_since = Some(school.store.clock().steady_ms()));
    let status = school.get("/api/v1/status", &token).await.json();
    for fact in ["kept", "safe", "unsafe", "replica", "school", "replayed"] {
        assert!(status.get(fact).is_some(), "{fact}");
    }
    assert_eq!(status["safe"], json!({}), "nothing has a receipt");
    for tier in ["0", "1"] {
        assert!(status["unsafe_by_tier"][tier].as_u64().unwrap() > 0, "tier {tier}");
        assert!(status["lag_ms_by_tier"][tier].is_u64(), "tier {tier}");
    }
    assert!(status["lag_ms"].as_u64() >= status["lag_ms_by_tier"]["1"].as_u64());
    assert_eq!(status["last_error"]["code"], "line_down");
    assert!(status["last_error"]["age_ms"].is_u64() && status["uplink"]["stalled"]["for_ms"].is_u64());
    assert!(status["storage"]["reserved_bytes"].as_u64().unwrap() > 0);
    let document = serde_json::to_value(sonae_lan::document()).unwrap();
    let (schemas, mut found) = (&document["components"]["schemas"], Vec::new());
    undescribed(&status, &schemas["Status"], schemas, "", &mut found);
    assert_eq!(found, Vec::<String>::new(), "not in the document");
}

/// Goal: a tier without room is refused with 507 and says what goes on, in the answer, in the status and on the page;
/// tier 0 goes on. Method: no room for tier 2, then for tier 1 too; room again.
#[tokio::test]
async fn what_is_refused_is_said() {
    let school = School::start().await;
    let token = school.strong("principal").await;
    let attendance = format!("/api/v1/attendance/{}/{PUPIL}", today());
    let put = async |path: &str, body: Value| school.call(Method::PUT, path, &token, Some(&body)).await;
    let page = async || {
        let request = Request::get("/").body(Body::empty()).unwrap();
        school.send(request).await.text
    };
    refuse(&school, &[Tier::Archive]);
    assert_eq!(put(&attendance, json!({ "code": "late" })).await.status, 200);
    let marks = sonae_store::Action {
        edits: vec![edit("grade_result", "m", &[("title", json!("x"))])],
        ..Default::default()
    };
    let refused = school.store.write(marks).await.unwrap_err();
    assert!(matches!(refused, sonae_store::WriteError::NoRoom { tier: Tier::Archive }));
    assert_eq!(school.get("/api/v1/status", &token).await.json()["storage"]["refused_tiers"], json!(["2"]));
    assert!(
        page().await.contains("成績・指導要録の入力を止めています。出欠・日誌・安全確認は続けて入力できます")
    );

    refuse(&school, &[Tier::Daily]);
    let answer = put(&attendance, json!({ "code": "absent_sick" })).await;
    assert_eq!(answer.error(), (507, "no_room".into(), String::new()));
    assert!(
        answer.text.contains("安全確認・引き渡し・連絡先は続けて入力できます")
            && !answer.text.contains("紙に")
    );
    let contact = format!("/api/v1/students/{PUPIL}/contacts/1");
    assert_eq!(put(&contact, json!({ "name": "架空 花子", "phone1": "0900000000" })).await.status, 200);
    assert_eq!(
        school.get("/api/v1/status", &token).await.json()["storage"]["refused_tiers"],
        json!(["1", "2"])
    );
    let text = page().await;
    assert!(text.contains("保存しました（見本小）") && text.contains("入力停止中"));

    refuse(&school, &[]);
    assert_eq!(put(&attendance, json!({ "code": "absent_sick" })).await.status, 200);
    assert!(!page().await.contains("入力停止中"));
}

/// Goal: every page says how each tier stands, in both languages, whether somebody is signed in or not. Method: the page
/// of somebody who is not.
#[tokio::test]
async fn every_page_has_the_details() {
    let school = School::start().await;
    school.status.uplink.note_error(school.store.clock(), "line_down", "gone".into());
    let request = Request::get("/").body(Body::empty()).unwrap();
    let text = school.send(request).await.text;
    for said in [
        "安全：名簿・連絡先・安否",
        "Safety: roster, contacts, checks",
        "校外の控え",
        "Copy outside",
        "1分未満前から",
        "回線：つながっていません",
        "Line: down",
        "最後の不具合：回線が切れました（1分未満前）",
    ] {
        assert!(text.contains(said), "{said}");
    }
}
