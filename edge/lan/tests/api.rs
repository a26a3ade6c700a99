//! What the routes do: writes that are kept, conflicts that keep both, bad input, search.

mod support;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use sonae_proto::ids::Tier;
use sonae_store::Action;
use support::{CLASS, OTHER, PUPIL, School, edit, recorded_day, today};

fn entry() -> String {
    format!("/api/v1/attendance/{}/{PUPIL}", today())
}

/// Goal: a write is kept before it is answered and is there afterwards. Method: PUT twice, GET, the store.
#[tokio::test]
async fn a_write_is_kept() {
    let school = School::start().await;
    let token = school.strong("teacher").await;
    let before = school.get(&entry(), &token).await;
    assert_eq!((&before.json()["code"], before.header("etag")), (&json!("not_recorded"), "\"\"".into()));
    let body = json!({ "code": "absent_sick", "reason_text": "発熱" });
    let first = school.put(&entry(), &token, &body).await.json();
    let kept = &first["kept"];
    assert_eq!(kept["log"], json!(format!("{}/1", school.status.incarnation)));
    assert_eq!((&kept["changes"], &first["disputed"]), (&json!(1), &json!([])));
    assert_eq!(kept["sequence"].as_u64().unwrap(), school.store.state().kept[&Tier::Daily].sequence);
    assert!(!first.to_string().contains("safe"));
    let again = school.put(&entry(), &token, &body).await.json();
    assert_eq!((&again["kept"]["changes"], &again["kept"]["sequence"]), (&json!(0), &kept["sequence"]));
    let next = school.put(&entry(), &token, &json!({ "code": "present", "reason_text": "" })).await.json();
    assert_eq!(next["kept"]["sequence"].as_u64(), kept["sequence"].as_u64().map(|sequence| sequence + 1));
    let shown = school.get(&entry(), &token).await.json();
    assert_eq!((&shown["code"], &shown["recorded_by"]), (&json!("present"), &json!("teacher")));
    assert!(shown["recorded_at"].as_str().unwrap().ends_with("+09:00"));
    assert!(shown.get("reason_text").is_none(), "an empty text clears");
}

/// Goal: a write by password alone leaves the reason that it cannot see. Method: absent and null.
#[tokio::test]
async fn what_is_not_seen_is_not_cleared() {
    let school = School::start().await;
    let (weak, strong) = (school.weak("teacher").await, school.strong("teacher").await);
    school.put(&entry(), &strong, &json!({ "code": "late", "reason_text": "電車" })).await;
    for body in [json!({ "code": "present" }), json!({ "code": "absent_sick", "reason_text": null })] {
        assert_eq!(school.put(&entry(), &weak, &body).await.status, StatusCode::OK);
        assert_eq!(school.get(&entry(), &strong).await.json()["reason_text"], json!("電車"));
    }
}

/// Goal: two people who saw the same keep both values, and a third who sees both ends it. Method: one tag
/// twice, then the new one.
#[tokio::test]
async fn a_conflict_keeps_both() {
    let school = School::start().await;
    let (one, two) = (school.strong("teacher").await, school.strong("nurse").await);
    school.put(&entry(), &one, &json!({ "code": "present" })).await;
    let seen = school.get(&entry(), &one).await.header("etag");
    let first = school.put_seen(&entry(), &one, &seen, &json!({ "code": "late" })).await;
    assert_eq!(first.json()["disputed"], json!([]));
    let second = school.put_seen(&entry(), &two, &seen, &json!({ "code": "absent_sick" })).await;
    assert_eq!((second.status, &second.json()["disputed"]), (StatusCode::OK, &json!(["code"])));
    let shown = school.get(&entry(), &one).await;
    let values = shown.json()["disputed"]["code"].as_array().unwrap().clone();
    let said: Vec<_> = values.iter().map(|value| (value["value"].clone(), value["who"].clone())).collect();
    assert!(said.contains(&(json!("late"), json!("teacher"))), "{said:?}");
    assert!(said.contains(&(json!("absent_sick"), json!("nurse"))), "{said:?}");
    assert!(values.iter().all(|value| value["at_ms"].as_u64().is_some()));
    assert!(shown.json()["disputed"].get("recorded_by").is_none(), "notes are not disputed");
    assert_eq!(shown.header("etag"), second.header("etag"));
    let end = school.put_seen(&entry(), &one, &second.header("etag"), &json!({ "code": "late" })).await;
    assert_eq!(end.json()["disputed"], json!([]));
    assert_eq!(school.get(&entry(), &two).await.json()["code"], json!("late"));
}

/// Goal: who saw nothing writes beside what came meanwhile; who names nothing replaces. Method: the empty tag,
/// then none.
#[tokio::test]
async fn an_empty_tag_saw_nothing() {
    let school = School::start().await;
    let token = school.strong("teacher").await;
    school.put(&entry(), &token, &json!({ "code": "late" })).await;
    let beside = school.put_seen(&entry(), &token, "\"\"", &json!({ "code": "present" })).await;
    assert_eq!(beside.json()["disputed"], json!(["code"]));
    let replaced = school.put(&entry(), &token, &json!({ "code": "present" })).await;
    assert_eq!(replaced.json()["disputed"], json!([]));
}

/// Goal: a tag that names a change of the future throws nothing away. Method: name the next sequence, write
/// twice, see the second.
#[tokio::test]
async fn the_future_cannot_be_named() {
    let school = School::start().await;
    let token = school.strong("teacher").await;
    school.put(&entry(), &token, &json!({ "code": "late" })).await;
    let next = school.store.state().kept[&Tier::Daily].sequence + 2;
    let tag = format!("\"code={}:{next}\"", school.status.incarnation);
    school.put_seen(&entry(), &token, &tag, &json!({ "code": "present" })).await;
    school.put(&entry(), &token, &json!({ "code": "absent_sick" })).await;
    assert_eq!(school.get(&entry(), &token).await.json()["code"], json!("absent_sick"));
}

/// Goal: contacts are written, shown, listed and cleared. Method: a new one, half of it again, the list.
#[tokio::test]
async fn contacts() {
    let school = School::start().await;
    let token = school.strong("office").await;
    let path = format!("/api/v1/students/{PUPIL}/contacts/10");
    assert_eq!(school.get(&path, &token).await.error(), (404, "not_found".into(), "priority".into()));
    let body = json!({ "name": "祖母", "relationship": "祖母", "phone1": "０９０－１１１１", "lives_with": "false" });
    let written = school.put(&path, &token, &body).await;
    assert_eq!(written.json()["kept"]["log"], json!(format!("{}/0", school.status.incarnation)));
    school.put(&path, &token, &json!({ "relationship": "" })).await;
    let shown = school.get(&path, &token).await.json();
    let expected = json!({ "priority": 10, "name": "祖母", "phone1": "090-1111", "lives_with": "false" });
    assert_eq!(shown, expected);
    let list = school.get(&format!("/api/v1/students/{PUPIL}/contacts"), &token).await.json();
    let priorities: Vec<_> =
        list["contacts"].as_array().unwrap().iter().map(|c| c["priority"].clone()).collect();
    assert_eq!(priorities, [json!(1), json!(10)]);
}

/// Goal: each bad input has its code and field, and nothing is kept. Method: rows; sequences before and after.
#[tokio::test]
async fn bad_input() {
    let school = School::start().await;
    let token = school.strong("principal").await;
    let day = format!("/api/v1/attendance/{}", today());
    let contact = |priority: &str| format!("/api/v1/students/{PUPIL}/contacts/{priority}");
    let late = json!({ "code": "late" });
    let (long, many) = ("あ".repeat(501), "x".repeat(101));
    let rows: Vec<(String, Value, (u16, &str, &str))> = vec![
        (format!("/api/v1/attendance/2026-02-30/{PUPIL}"), late.clone(), (400, "bad_parameter", "date")),
        (format!("/api/v1/attendance/1999-01-01/{PUPIL}"), late.clone(), (400, "bad_parameter", "date")),
        (format!("{day}/nobody"), late.clone(), (404, "not_found", "student_id")),
        (format!("{day}/{PUPIL}"), json!({ "code": "x" }), (422, "bad_value", "code")),
        (format!("{day}/{PUPIL}"), json!({ "code": "" }), (422, "bad_value", "code")),
        (format!("{day}/{PUPIL}"), json!({}), (400, "bad_body", "code")),
        (format!("{day}/{PUPIL}"), json!({ "code": 1 }), (400, "bad_body", "")),
        (format!("{day}/{PUPIL}"), json!({ "code": "late", "cod": 1 }), (400, "bad_body", "cod")),
        (format!("{day}/{PUPIL}"), json!([]), (400, "bad_body", "")),
        (
            format!("{day}/{PUPIL}"),
            json!({ "code": "late", "reason_text": long }),
            (422, "bad_value", "reason_text"),
        ),
        (
            format!("{day}/{PUPIL}"),
            json!({ "code": "late", "reason_text": "a\nb" }),
            (422, "bad_value", "reason_text"),
        ),
        (contact("0"), json!({ "name": "a" }), (400, "bad_parameter", "priority")),
        (contact("21"), json!({ "name": "a" }), (400, "bad_parameter", "priority")),
        (contact("01"), json!({ "name": "a" }), (400, "bad_parameter", "priority")),
        (contact("3"), json!({ "phone1": "1" }), (422, "bad_value", "name")),
        (contact("3"), json!({ "name": " " }), (422, "bad_value", "name")),
        (contact("3"), json!({ "name": many }), (422, "bad_value", "name")),
        (contact("3"), json!({ "name": "a", "phone2": "call me" }), (422, "bad_value", "phone2")),
        (contact("3"), json!({ "name": "a", "email": "x" }), (422, "bad_value", "email")),
        (contact("3"), json!({ "name": "a", "lives_with": "maybe" }), (422, "bad_value", "lives_with")),
        (contact("3"), json!({ "name": "a", "priority": 4 }), (400, "bad_body", "priority")),
        (
            "/api/v1/students/nobody/contacts/1".into(),
            json!({ "name": "a" }),
            (404, "not_found", "student_id"),
        ),
    ];
    let before = school.store.state().vector;
    for (path, body, expected) in rows {
        let (status, code, field) = school.put(&path, &token, &body).await.error();
        assert_eq!((status, code.as_str(), field.as_str()), expected, "{path} {body}");
    }
    let odd = school.put_seen(&entry(), &token, "nonsense", &late).await.error();
    assert_eq!(odd, (400, "bad_parameter".into(), "If-Match".into()));
    for (query, field) in
        [("?class=none", "class"), ("?x=1", "query"), (&format!("?q={}", "a".repeat(101)), "q")]
    {
        assert_eq!(school.get(&format!("/api/v1/students{query}"), &token).await.error().2, field);
    }
    assert_eq!(school.store.state().vector, before, "nothing was kept");
}

/// Goal: bodies are bounded and must be JSON. Method: 64 KiB and one, another type, broken text.
#[tokio::test]
async fn bodies() {
    let school = School::start().await;
    let token = school.strong("teacher").await;
    let put = |kind: &str, body: String| {
        Request::put(entry())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap()
    };
    let json = "application/json; charset=utf-8";
    assert_eq!(school.send(put(json, "x".repeat(64 * 1024 + 1))).await.error().0, 413);
    assert_eq!(school.send(put(json, "x".repeat(64 * 1024))).await.error().1, "bad_body");
    assert_eq!(school.send(put("text/plain", "{}".into())).await.error().0, 415);
    assert_eq!(school.send(put(json, r#"{"code":"late"}"#.into())).await.status, StatusCode::OK);
}

/// Goal: a board's own code list replaces ours. Method: write one, use its code and an old one.
#[tokio::test]
async fn own_codes() {
    let school = School::start().await;
    let token = school.weak("teacher").await;
    let own = edit("code_list", "attendance", &[("codes", json!("present,online"))]);
    school.store.write(Action { who: None, source: None, edits: vec![own] }).await.unwrap();
    assert_eq!(school.put(&entry(), &token, &json!({ "code": "online" })).await.status, StatusCode::OK);
    assert_eq!(school.put(&entry(), &token, &json!({ "code": "late" })).await.error().2, "code");
}

/// Goal: pupils are found as people type and listed in the order of the register. Method: queries and filters
/// against names; who left is not listed.
#[tokio::test]
async fn search() {
    let school = School::start().await;
    let token = school.weak("teacher").await;
    let rows = [
        ("", "鈴木佐藤髙橋"),
        ("?class=&q=", "鈴木佐藤髙橋"),
        ("?q=佐藤", "佐藤"),
        ("?q=佐藤 花", "佐藤"),
        ("?q=さとう", "佐藤"),
        ("?q=サトウ　ハナ", "佐藤"),
        ("?q=ｻﾄｳ", "佐藤"),
        ("?q=26-001", "鈴木髙橋"),
        ("?q=２６-002", "佐藤"),
        ("?q=転出", ""),
        ("?q=%25", ""),
        (&format!("?class={CLASS}"), "鈴木佐藤"),
        ("?class=class-1-2", "佐藤"),
        (&format!("?class={CLASS}&q=い"), "鈴木"),
    ];
    for (query, expected) in rows {
        let encoded: String = query
            .bytes()
            .map(|byte| match byte {
                b'!'..=b'~' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let list = school.get(&format!("/api/v1/students{encoded}"), &token).await.json();
        let names: String = list["students"]
            .as_array()
            .unwrap()
            .iter()
            .map(|student| student["family_name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{query}");
    }
    let classes = school.get("/api/v1/classes", &token).await.json();
    let titles: Vec<_> = classes["classes"].as_array().unwrap().iter().map(|c| c["title"].clone()).collect();
    assert_eq!(titles, ["1年1組", "1年2組", "1年10組"]);
}

/// Goal: a day lists each enrolled pupil, recorded or not. Method: one record, one class.
#[tokio::test]
async fn a_day() {
    let school = School::start().await;
    let token = school.strong("teacher").await;
    let day =
        school.get(&format!("/api/v1/attendance/{}?class={CLASS}", recorded_day()), &token).await.json();
    let entries: Vec<_> = day["attendance"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["student_id"].clone(), entry["code"].clone()))
        .collect();
    assert_eq!(entries, [(json!(OTHER), json!("not_recorded")), (json!(PUPIL), json!("absent_sick"))]);
    assert_eq!(day["attendance"][1]["reason_text"], json!("REASON-CANARY"));
    let none = school.get(&format!("/api/v1/attendance/{}?class=x", recorded_day()), &token).await.error();
    assert_eq!(none, (404, "not_found".into(), "class".into()));
}

/// Goal: the checked-in document is the generated one. Method: compare; `BLESS=1` writes it.
#[tokio::test]
async fn openapi_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let generated = serde_json::to_string_pretty(&sonae_lan::document()).unwrap() + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == generated, "docs/openapi.json is old: run this test with BLESS=1");
}

/// Goal: every route of the document exists, and every field that can be shown is described. Method: call each
/// path signed out; look names up.
#[tokio::test]
async fn openapi_is_true() {
    let school = School::start().await;
    let document = serde_json::to_value(sonae_lan::document()).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path.replace("{id}", PUPIL).replace("{student_id}", PUPIL).replace("{priority}", "1");
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = school.call(method, &real.replace("{date}", &today()), "", None).await;
            assert!(![404, 405].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        }
    }
    let token = school.strong("principal").await;
    for (path, schema) in [
        (format!("/api/v1/students/{PUPIL}"), "Student"),
        (format!("/api/v1/students/{PUPIL}/contacts/1"), "Contact"),
        (format!("/api/v1/attendance/{}/{PUPIL}", recorded_day()), "Attendance"),
    ] {
        let schemas = &document["components"]["schemas"];
        // A pupil is a line of the list and more.
        let line = if schema == "Student" { &schemas["StudentLine"] } else { &Value::Null };
        let described = format!("{}{line}", schemas[schema]);
        for name in school.get(&path, &token).await.json().as_object().unwrap().keys() {
            assert!(described.contains(&format!("\"{name}\"")), "{schema}.{name}");
        }
    }
}
