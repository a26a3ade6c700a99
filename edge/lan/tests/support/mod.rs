//! A school on a real store in a temporary directory, and a client that calls the real router.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use sonae_lan::people::{NewStaff, add_staff};
use sonae_lan::{Monotonic, router};
use sonae_store::status::StatusSource;
use sonae_store::{Action, Clock, Edit, Filling, Opened, Options, RealDisk, Store, enrolment, testing};
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::password::{Cost, PasswordHasher};
use sonae_trust::role::Role;
use tower::ServiceExt as _;

pub const PASSWORD: &str = "さくら並木の下で会う";
pub const PUPIL: &str = "11111111-1111-4111-8111-111111111111";
pub const OTHER: &str = "22222222-2222-4222-8222-222222222222";
pub const CLASS: &str = "class-1-1";

/// What the box must never say to anybody.
pub const SECRET_WORDS: [&str; 4] = ["password_hash", "totp_secret", "totp_last_step", "$argon2"];

/// A school with two classes, three pupils, one account per role and one that is shut.
pub struct School {
    pub store: Store,
    pub status: StatusSource,
    pub router: Router,
    /// Monotonic time, for sessions and waits.
    pub now_ms: Arc<AtomicU64>,
    /// Base32 secrets by login.
    pub secrets: BTreeMap<String, String>,
    opened: Option<Opened>,
    dir: tempfile::TempDir,
}

impl Drop for School {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.close();
        }
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Status, code and field of an error.
    pub fn error(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        assert!(
            !error["text"].as_str().unwrap().is_empty() && !error["text_ja"].as_str().unwrap().is_empty()
        );
        (self.status.as_u16(), self.code(), error["field"].as_str().unwrap_or_default().to_owned())
    }
}

pub fn edit(collection: &str, record: &str, fields: &[(&str, Value)]) -> Edit {
    Edit {
        collection: collection.into(),
        record: record.into(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        seen: None,
    }
}

fn pupil(id: &str, names: [&str; 4], class: &str, number: u64) -> Edit {
    edit(
        "student",
        id,
        &[
            ("family_name", json!(names[0])),
            ("given_name", json!(names[1])),
            ("family_name_kana", json!(names[2])),
            ("given_name_kana", json!(names[3])),
            ("preferred_family_name", json!(names[0])),
            ("student_no", json!(format!("26-{number:03}"))),
            ("grade", json!("P1")),
            ("class_id", json!(class)),
            ("attendance_no", json!(number)),
            ("user_master_identifier", json!("master-identifier")),
            ("birth_date", json!("2019-05-05")),
            ("sex", json!("female")),
            ("enrolled", json!("true")),
            ("future_field", json!("unknown to this version")),
        ],
    )
}

fn roster() -> Vec<Edit> {
    let class = |id: &str, title: &str| {
        let fields = [("title", json!(title)), ("grades", json!("P1")), ("class_type", json!("homeroom"))];
        edit("class_group", id, &fields)
    };
    let mut gone =
        pupil("99999999-9999-4999-8999-999999999999", ["転出", "済", "テンシュツ", "ズミ"], CLASS, 9);
    gone.fields.insert("enrolled".into(), json!("false"));
    vec![
        class(CLASS, "1年1組"),
        class("class-1-10", "1年10組"),
        class("class-1-2", "1年2組"),
        pupil(PUPIL, ["佐藤", "花", "サトウ", "ハナ"], CLASS, 2),
        pupil(OTHER, ["鈴木", "一郎", "スズキ", "イチロウ"], CLASS, 1),
        pupil("33333333-3333-4333-8333-333333333333", ["髙橋", "葵", "タカハシ", "アオイ"], "class-1-10", 1),
        gone,
        edit(
            "enrollment",
            &format!("class-1-2/{PUPIL}"),
            &[("class_id", json!("class-1-2")), ("student_id", json!(PUPIL)), ("role", json!("student"))],
        ),
        edit(
            "guardian_contact",
            &format!("{PUPIL}/1"),
            &[
                ("priority", json!(1)),
                ("name", json!("佐藤 母")),
                ("phone1", json!("090-0000-0001")),
                ("custody_note", json!("CUSTODY-CANARY")),
            ],
        ),
        edit(
            "attendance",
            &format!("{}/{PUPIL}/all", recorded_day()),
            &[("code", json!("absent_sick")), ("reason_text", json!("REASON-CANARY"))],
        ),
    ]
}

impl School {
    /// Opens the school; blocks, so not on a runtime's thread. One that is being rebuilt holds all the same data and has
    /// no tier that is usable.
    fn open(is_rebuilding: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("box");
        let (mut opened, mut status) = testing::open_replica(&data);
        let store = opened.store.clone();
        store.write_blocking(Action { who: None, source: None, edits: roster() }).unwrap();
        let hasher = PasswordHasher::new(Cost::TEST, &mut SystemEntropy).unwrap();
        let mut secrets = BTreeMap::new();
        for role in Role::ALL {
            let login = role.as_str().to_owned();
            let new = NewStaff {
                login: login.clone(),
                name: format!("{}太郎", role.label_ja()),
                role,
                password: PASSWORD.to_owned().into(),
                totp: true,
            };
            let added = add_staff(&store, &hasher, "B113200000011", new, None).unwrap();
            let uri = added.otpauth_uri.unwrap();
            let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
            secrets.insert(login, secret.to_owned());
        }
        if is_rebuilding {
            opened.close();
            opened = reopen_rebuilding(&data);
            status.store = opened.store.clone();
        }
        let store = opened.store.clone();
        let now_ms = Arc::new(AtomicU64::new(1_000));
        let told = Arc::clone(&now_ms);
        let clock = Monotonic::told(move || told.load(Ordering::Relaxed));
        let router = router(status.clone(), Cost::TEST, clock).unwrap();
        Self { store, status, router, now_ms, secrets, opened: Some(opened), dir }
    }

    /// Opens the school from a test.
    pub async fn start() -> Self {
        tokio::task::spawn_blocking(|| Self::open(false)).await.unwrap()
    }

    /// Opens a school whose box is being rebuilt.
    pub async fn start_rebuilding() -> Self {
        tokio::task::spawn_blocking(|| Self::open(true)).await.unwrap()
    }

    pub fn advance_ms(&self, by_ms: u64) {
        self.now_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// The code of a login's app at `steps` from now.
    pub fn code(&self, login: &str, steps: i64) -> String {
        let secret = totp_rs::Secret::Encoded(self.secrets[login].clone()).to_bytes().unwrap();
        let totp =
            totp_rs::TOTP::new(totp_rs::Algorithm::SHA1, 6, 0, 30, secret, None, String::new()).unwrap();
        let now_s = i64::try_from(self.store.clock().now_ms() / 1_000).unwrap();
        totp.generate(u64::try_from(now_s + steps * 30).unwrap())
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        let peer: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1024 * 1024).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        for word in SECRET_WORDS {
            assert!(!text.contains(word), "{word} leaks");
        }
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn call(&self, method: Method, path: &str, token: &str, body: Option<&Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "box.example");
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(value.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, None).await
    }

    pub async fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, token, Some(body)).await
    }

    /// A write that names what was seen.
    pub async fn put_seen(&self, path: &str, token: &str, etag: &str, body: &Value) -> Answer {
        let request = Request::put(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, etag)
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    pub async fn try_sign_in(&self, login: &str, password: &str, totp: Option<&str>) -> Answer {
        let mut body = json!({ "login": login, "password": password });
        if let Some(totp) = totp {
            body["totp"] = json!(totp);
        }
        self.call(Method::POST, "/api/v1/session", "", Some(&body)).await
    }

    /// Signs in by password alone.
    pub async fn weak(&self, login: &str) -> String {
        token(&self.try_sign_in(login, PASSWORD, None).await)
    }

    /// Signs in with the present code; once per login and test, since a code works once.
    pub async fn strong(&self, login: &str) -> String {
        let code = self.code(login, 0);
        token(&self.try_sign_in(login, PASSWORD, Some(&code)).await)
    }
}

fn reopen_rebuilding(data: &Path) -> Opened {
    Filling::begin(data).unwrap();
    let (bundle, clock) = (enrolment::load(data).unwrap(), Clock::system());
    let mut open = testing::opening(data, &bundle, clock, Arc::new(RealDisk), Options::default());
    open.filling = Filling::of(data).unwrap();
    Store::open(open).unwrap()
}

pub fn token(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn now_in_japan() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc().to_offset(time::UtcOffset::from_hms(9, 0, 0).unwrap())
}

/// Today in Japan.
pub fn today() -> String {
    now_in_japan().date().to_string()
}

/// The day of which the register has an entry, a month ago.
pub fn recorded_day() -> String {
    (now_in_japan() - time::Duration::days(30)).date().to_string()
}
