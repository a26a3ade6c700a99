//! The page: readable, honest, without scripts, closed to foreign forms.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use support::{Answer, PASSWORD, School};

/// Percent-encodes a form.
fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect()
    };
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

async fn post(school: &School, path: &str, origin: &str, cookie: &str, body: String) -> Answer {
    let request = Request::post(path)
        .header(header::HOST, "box.example")
        .header(header::ORIGIN, origin)
        .header(header::COOKIE, cookie)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body))
        .unwrap();
    school.send(request).await
}

async fn home(school: &School, cookie: &str) -> Answer {
    let request = Request::get("/").header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    school.send(request).await
}

const OWN: &str = "https://box.example";

/// Goal: a person signs in by form, sees the classes and the status line, and signs out. Method: as a browser
/// without scripts does.
#[tokio::test]
async fn sign_in_and_out() {
    let school = School::start().await;
    let page = home(&school, "").await;
    assert!(page.header("content-type").starts_with("text/html"));
    for text in ["サインイン", "Sign in", "保存しました（見本小）｜校外の控え：未送信", "続けて入力できます"]
    {
        assert!(page.text.contains(text), "{text}");
    }
    assert!(!page.text.contains("1年1組") && !page.text.contains("<script"));
    let code = school.code("teacher", 0);
    let body = form(&[("login", "teacher"), ("password", PASSWORD), ("totp", &code)]);
    let answer = post(&school, "/sign-in", OWN, "", body).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/".into()));
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = home(&school, &cookie).await;
    for text in
        ["教諭太郎", "1年1組", "Classes", "校外の控え：未送信", "not there yet", "<td>2</td>", "<td>3</td>"]
    {
        assert!(page.text.contains(text), "{text}");
    }
    assert!(page.text.len() < 20 * 1024 && !page.text.contains("佐藤"));
    let answer = post(&school, "/sign-out", OWN, &cookie, String::new()).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(home(&school, &cookie).await.text.contains("サインイン"));
}

/// Goal: errors are on the page, in both languages, and what was typed is not. Method: wrong password, an
/// incomplete form, markup as login.
#[tokio::test]
async fn errors_are_shown() {
    let school = School::start().await;
    let wrong = form(&[("login", "<script>x</script>"), ("password", "wrong wrong"), ("totp", "")]);
    let answer = post(&school, "/sign-in", OWN, "", wrong).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("どれかが違います") && answer.text.contains("is wrong"));
    assert!(!answer.text.contains("script") && answer.header("set-cookie").is_empty());
    let answer = post(&school, "/sign-in", OWN, "", "login=a".into()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = post(&school, "/sign-in", OWN, "", "x".repeat(70_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Goal: no other site signs a browser in or out. Method: foreign, null and absent origins.
#[tokio::test]
async fn foreign_forms() {
    let school = School::start().await;
    let body = form(&[("login", "teacher"), ("password", PASSWORD), ("totp", "")]);
    for origin in ["https://evil.example", "null", "http://box.example"] {
        for path in ["/sign-in", "/sign-out"] {
            let answer = post(&school, path, origin, "", body.clone()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin} {path}");
            assert!(answer.header("set-cookie").is_empty());
        }
    }
    let request =
        Request::post("/sign-in").header(header::HOST, "box.example").body(Body::from(body)).unwrap();
    assert_eq!(school.send(request).await.status, StatusCode::FORBIDDEN);
}

/// Goal: the style sheet is ours and small. Method: fetch it.
#[tokio::test]
async fn style_sheet() {
    let school = School::start().await;
    let style = school.get("/style.css", "").await;
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
    assert!(style.text.len() < 4 * 1024 && !style.text.contains("url("));
}
