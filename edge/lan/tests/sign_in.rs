//! Signing in: factors, replay, lock-out, expiry, cookies, foreign pages.

mod support;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::json;
use sonae_store::Action;
use sonae_trust::session::SessionLimits;
use support::{PASSWORD, School, edit, token};

/// Goal: the right password opens a weak session, with a code a strong one. Method: sign in, ask who.
#[tokio::test]
async fn both_strengths() {
    let school = School::start().await;
    let answer = school.try_sign_in(" Teacher ", PASSWORD, None).await;
    let body = answer.json();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((&body["strength"], &body["role"]), (&json!("password"), &json!("teacher")));
    assert_eq!(body["name"], json!("教諭太郎"));
    assert!(body["expires_ms"].as_u64().unwrap() > school.store.clock().now_ms());
    let strong = school.strong("teacher").await;
    let who = school.get("/api/v1/session", &strong).await.json();
    assert_eq!(who["strength"], json!("second_factor"));
    assert!(who.get("token").is_none());
}

/// Goal: what is wrong is not told apart. Method: wrong password, unknown login, wrong code, odd login, a
/// closed account: one body.
#[tokio::test]
async fn one_answer_for_all_that_is_wrong() {
    let school = School::start().await;
    let close = edit("staff_account", "office", &[("disabled", json!(true))]);
    let action = Action { who: None, source: None, edits: vec![close] };
    school.store.write(action).await.unwrap();
    let wrong_code = if school.code("teacher", 0) == "000000" { "111111" } else { "000000" };
    let answers = [
        school.try_sign_in("teacher", "wrong wrong", None).await,
        school.try_sign_in("nobody", PASSWORD, None).await,
        school.try_sign_in("teacher", PASSWORD, Some(wrong_code)).await,
        school.try_sign_in("校長", PASSWORD, None).await,
        school.try_sign_in("office", PASSWORD, None).await,
        school.try_sign_in("teacher", &"x".repeat(5_000), None).await,
    ];
    for answer in &answers {
        assert_eq!(answer.error(), (401, "bad_credentials".into(), String::new()));
        assert_eq!(answer.text, answers[0].text);
        assert!(answer.header("set-cookie").is_empty());
    }
}

/// Goal: a code works once, also for two at the same time, and its step is kept before the answer. Method:
/// twice in a row, then eight at once; look into the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_works_once() {
    let school = School::start().await;
    let code = school.code("teacher", 0);
    let before = school.store.state().kept[&sonae_proto::ids::Tier::Safety].sequence;
    token(&school.try_sign_in("teacher", PASSWORD, Some(&code)).await);
    assert!(school.store.state().kept[&sonae_proto::ids::Tier::Safety].sequence > before);
    assert_eq!(school.try_sign_in("teacher", PASSWORD, Some(&code)).await.code(), "bad_credentials");
    let code = school.code("nurse", 0);
    let (a, b, c, d) = tokio::join!(
        school.try_sign_in("nurse", PASSWORD, Some(&code)),
        school.try_sign_in("nurse", PASSWORD, Some(&code)),
        school.try_sign_in("nurse", PASSWORD, Some(&code)),
        school.try_sign_in("nurse", PASSWORD, Some(&code)),
    );
    let granted = [a, b, c, d].iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(granted, 1);
}

/// Goal: guessing is braked, and the wait ends. Method: five wrong ones, wait as told, sign in.
#[tokio::test]
async fn lock_out() {
    let school = School::start().await;
    for _ in 0..5 {
        assert_eq!(school.try_sign_in("teacher", "wrong wrong", None).await.status, StatusCode::UNAUTHORIZED);
    }
    let locked = school.try_sign_in("teacher", PASSWORD, None).await;
    assert_eq!(locked.error(), (429, "locked".into(), String::new()));
    let wait_s: u64 = locked.header("retry-after").parse().unwrap();
    assert!(school.try_sign_in("nurse", PASSWORD, None).await.status == StatusCode::OK, "others go on");
    school.advance_ms(wait_s * 1_000);
    token(&school.try_sign_in("teacher", PASSWORD, None).await);
}

/// Goal: knowing the password does not free the guessing of codes, and a wait does not tell that the password is
/// right. Method: wrong codes with password-only sign-ins between them; then a wrong password with a code.
#[tokio::test]
async fn codes_have_their_own_brake() {
    let school = School::start().await;
    for _ in 0..5 {
        let wrong = if school.code("teacher", 0) == "000000" { "111111" } else { "000000" };
        let answer = school.try_sign_in("teacher", PASSWORD, Some(wrong)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        token(&school.try_sign_in("teacher", PASSWORD, None).await);
    }
    let code = school.code("teacher", 0);
    let right = school.try_sign_in("teacher", PASSWORD, Some(&code)).await;
    assert_eq!(right.code(), "locked");
    let wrong = school.try_sign_in("teacher", "wrong wrong", Some(&code)).await;
    assert_eq!(wrong.text, right.text);
    school.advance_ms(right.header("retry-after").parse::<u64>().unwrap() * 1_000);
    let code = school.code("teacher", 0);
    token(&school.try_sign_in("teacher", PASSWORD, Some(&code)).await);
}

/// Goal: sessions end: idle, signed out, account closed. Method: told time, DELETE, a write to the account.
#[tokio::test]
async fn sessions_end() {
    let school = School::start().await;
    let (idle, closed) = (school.weak("teacher").await, school.weak("office").await);
    assert_eq!(school.get("/api/v1/session", &idle).await.status, StatusCode::OK);
    let close = edit("staff_account", "office", &[("disabled", json!(true))]);
    school.store.write(Action { who: None, source: None, edits: vec![close] }).await.unwrap();
    assert_eq!(school.get("/api/v1/session", &closed).await.code(), "sign_in_required");
    school.advance_ms(SessionLimits::STANDARD.idle_ms_max);
    assert_eq!(school.get("/api/v1/session", &idle).await.code(), "sign_in_required");
    let out = school.weak("teacher").await;
    let answer = school.call(Method::DELETE, "/api/v1/session", &out, None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(school.get("/api/v1/students", &out).await.status, StatusCode::UNAUTHORIZED);
}

/// Goal: the cookie has all its flags and signs in. Method: read it, send it back.
#[tokio::test]
async fn cookie() {
    let school = School::start().await;
    let answer = school.try_sign_in("teacher", PASSWORD, None).await;
    let cookie = answer.header("set-cookie");
    let mut parts = cookie.split("; ");
    let pair = parts.next().unwrap();
    assert_eq!(pair, format!("__Host-sonae={}", token(&answer)));
    let flags: Vec<_> = parts.collect();
    assert_eq!(flags, ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"]);
    let request = Request::get("/api/v1/session").header(header::COOKIE, pair).body(Body::empty()).unwrap();
    assert_eq!(school.send(request).await.status, StatusCode::OK);
}

/// Goal: other sites' pages change nothing. Method: writes with a cookie and each kind of origin.
#[tokio::test]
async fn foreign_pages() {
    let school = School::start().await;
    let token = school.weak("teacher").await;
    let path = format!("/api/v1/attendance/{}/{}", support::today(), support::PUPIL);
    let put = |extra: &[(&str, &str)]| {
        let mut request = Request::put(&path)
            .header(header::HOST, "box.example")
            .header(header::COOKIE, format!("__Host-sonae={token}"))
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        request.body(Body::from(r#"{"code":"late"}"#)).unwrap()
    };
    for foreign in [
        &[][..],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "https://evil.example"), ("x-sonae", "1")],
        &[("x-sonae", "0")],
    ] {
        assert_eq!(school.send(put(foreign)).await.code(), "cross_site", "{foreign:?}");
    }
    for own in [&[("origin", "https://box.example")][..], &[("x-sonae", "1")]] {
        assert_eq!(school.send(put(own)).await.status, StatusCode::OK, "{own:?}");
    }
    let bearer = Request::put(&path)
        .header(header::HOST, "box.example")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ORIGIN, "https://evil.example")
        .body(Body::from(r#"{"code":"late"}"#));
    assert_eq!(school.send(bearer.unwrap()).await.code(), "cross_site");
    let form = Request::post("/api/v1/session")
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from(json!({ "login": "teacher", "password": PASSWORD }).to_string()));
    assert_eq!(school.send(form.unwrap()).await.code(), "media_type");
}
