//! Who sees and writes what: every role on every route, with and without a second factor.
#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sonae_trust::role::Role;
use support::{PUPIL, School, recorded_day, today};

/// Method, path and body of every route that shows or takes data.
fn routes() -> Vec<(Method, String, Option<Value>)> {
    let get = |path: String| (Method::GET, path, None);
    let day = today();
    vec![
        get("/api/v1/session".into()),
        get("/api/v1/status".into()),
        get("/api/v1/classes".into()),
        get("/api/v1/students".into()),
        get(format!("/api/v1/students/{PUPIL}")),
        get(format!("/api/v1/attendance/{day}")),
        get(format!("/api/v1/attendance/{}/{PUPIL}", recorded_day())),
        (Method::PUT, format!("/api/v1/attendance/{day}/{PUPIL}"), Some(json!({ "code": "late" }))),
        (
            Method::PUT,
            format!("/api/v1/attendance/{day}/{PUPIL}"),
            Some(json!({ "code": "late", "reason_text": "電車の遅れ" })),
        ),
        get(format!("/api/v1/students/{PUPIL}/contacts")),
        get(format!("/api/v1/students/{PUPIL}/contacts/1")),
        (
            Method::PUT,
            format!("/api/v1/students/{PUPIL}/contacts/2"),
            Some(json!({ "name": "佐藤 父", "phone1": "090-0000-0002" })),
        ),
        (
            Method::PUT,
            format!("/api/v1/students/{PUPIL}/contacts/1"),
            Some(json!({ "custody_note": "面会制限あり" })),
        ),
    ]
}

/// A: allowed. 2: second factor required. -: forbidden. 0: not signed in.
async fn row(school: &School, token: &str) -> String {
    let mut row = String::new();
    for (method, path, body) in routes() {
        let answer = school.call(method, &path, token, body.as_ref()).await;
        row.push(match (answer.status, answer.status.is_success()) {
            (_, true) => 'A',
            (StatusCode::UNAUTHORIZED, _) => '0',
            (StatusCode::FORBIDDEN, _) if answer.code() == "second_factor_required" => '2',
            (StatusCode::FORBIDDEN, _) if answer.code() == "forbidden" => '-',
            _ => panic!("{path}: {}", answer.text),
        });
    }
    row
}

/// Goal: every cell is what was decided. Method: all roles, both strengths and nobody on all routes, against
/// a table that is written out by hand.
#[tokio::test]
async fn every_role_on_every_route() {
    let school = School::start().await;
    assert_eq!(row(&school, "").await, "0".repeat(routes().len()));
    assert_eq!(row(&school, &"A".repeat(43)).await, "0".repeat(routes().len()));
    let table = [
        (Role::Principal, "AAAAAAAA22222", "AAAAAAAAAAAAA"),
        (Role::VicePrincipal, "AAAAAAAA22222", "AAAAAAAAAAAAA"),
        (Role::Teacher, "AAAAAAAA2222-", "AAAAAAAAAAAA-"),
        (Role::Nurse, "AAAAAAAA222--", "AAAAAAAAAAA--"),
        (Role::Office, "AAAAAAAA2222-", "AAAAAAAAAAAA-"),
        (Role::Board, "AAAAAAA------", "AAAAAAA------"),
    ];
    assert_eq!(table.len(), Role::ALL.len());
    for (role, weak, strong) in table {
        let token = school.weak(role.as_str()).await;
        assert_eq!(row(&school, &token).await, weak, "{role} by password");
        let token = school.strong(role.as_str()).await;
        assert_eq!(row(&school, &token).await, strong, "{role} with a second factor");
    }
}

/// Goal: class I and II are absent without a second factor, class I also from those who may not read it, and
/// unknown fields and secrets from everybody. Method: canaries in every answer to every role.
#[tokio::test]
async fn classes_are_absent() {
    let school = School::start().await;
    let class_two = ["birth_date", "2019-05-05", "master-identifier", "REASON-CANARY", "090-0000-0001"];
    for role in Role::ALL {
        let weak = school.weak(role.as_str()).await;
        let strong = school.strong(role.as_str()).await;
        for (method, path, _) in routes().iter().filter(|(method, ..)| method == Method::GET) {
            let answer = school.call(method.clone(), path, &weak, None).await;
            for canary in class_two.iter().chain(&["CUSTODY-CANARY", "unknown to this version"]) {
                assert!(!answer.text.contains(canary), "{role} {path} {canary}");
            }
            let answer = school.call(method.clone(), path, &strong, None).await;
            assert!(!answer.text.contains("unknown to this version"), "{role} {path}");
            let sees_class_one = matches!(role, Role::Principal | Role::VicePrincipal | Role::Nurse);
            let has_custody = answer.text.contains("CUSTODY-CANARY");
            assert_eq!(has_custody, sees_class_one && path.contains("contacts"), "{role} {path}");
            let has_birth = answer.text.contains("2019-05-05");
            assert_eq!(has_birth, role != Role::Board && path.ends_with(PUPIL) && path.contains("students"));
        }
    }
}

/// Goal: nobody learns by an error what they may not know. Method: a forbidden role asks for what is not there.
#[tokio::test]
async fn denied_before_looked_up() {
    let school = School::start().await;
    let token = school.strong("board").await;
    for path in ["/api/v1/students/nobody/contacts", "/api/v1/students/nobody/contacts/99"] {
        assert_eq!(school.get(path, &token).await.code(), "forbidden");
    }
    let put = school.put("/api/v1/attendance/x/nobody", &token, &json!({ "code": "?" })).await;
    assert_eq!(put.error(), (403, "forbidden".into(), "code".into()));
}

/// Goal: what needs no sign-in tells nothing. Method: read it.
#[tokio::test]
async fn open_addresses() {
    let school = School::start().await;
    assert_eq!(school.get("/healthz", "").await.text, r#"{"ok":true}"#);
    let api = school.get("/api/v1/openapi.json", "").await;
    assert_eq!(api.json()["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    assert_eq!(school.get("/api/v1/nothing", "").await.error().1, "not_found");
    assert_eq!(school.call(Method::DELETE, "/api/v1/students", "", None).await.code(), "method_not_allowed");
}

/// Goal: every answer carries its headers. Method: an answer, an error, a page.
#[tokio::test]
async fn security_headers() {
    let school = School::start().await;
    for path in ["/healthz", "/api/v1/status", "/nothing", "/"] {
        let answer = school.get(path, "").await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        let csp = answer.header("content-security-policy");
        assert!(csp.starts_with("default-src 'none'") && csp.contains("frame-ancestors 'none'"), "{path}");
    }
}
