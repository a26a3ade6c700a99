//! The real listener: TLS that the board's authority vouches for, and an orderly end.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use sonae_lan::{LanConfig, serve};
use sonae_trust::authority::Authority;
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::leaf::ServerNames;
use sonae_trust::password::Cost;
use support::School;

fn client(root_pem: &str) -> reqwest::Client {
    // One provider for the process; a second test in this binary finds it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(root_pem.as_bytes()).unwrap();
    reqwest::Client::builder().add_root_certificate(root).cookie_store(true).build().unwrap()
}

/// Goal: who trusts the board gets through, who does not is stopped by TLS, and the end lets clients go.
/// Method: two authorities, one listener, one told end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_decides() {
    let school = School::start().await;
    let now = time::OffsetDateTime::now_utc();
    let ours = Authority::create("架空市教育委員会", now, &mut SystemEntropy).unwrap();
    let theirs = Authority::create("別の教育委員会", now, &mut SystemEntropy).unwrap();
    let names = ServerNames::new(&["localhost"], &["127.0.0.1".parse().unwrap()]).unwrap();
    let leaf = ours.issue_lan_server(&names, 30, now, &mut SystemEntropy).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let config = LanConfig {
        certificate_pem: leaf.certificate_pem,
        key_pem: leaf.private_key_pem,
        status: school.status.clone(),
        argon2: Cost::TEST,
    };
    let shutdown = async {
        let _ = ended.await;
    };
    let serving = tokio::spawn(serve(listener, config, shutdown));

    let trusting = client(ours.certificate_pem());
    let health = trusting.get(format!("{base}/healthz")).send().await.unwrap();
    assert_eq!(health.text().await.unwrap(), r#"{"ok":true}"#);
    let body = serde_json::json!({ "login": "teacher", "password": support::PASSWORD });
    let signed_in = trusting.post(format!("{base}/api/v1/session")).json(&body).send().await.unwrap();
    assert_eq!(signed_in.status(), 200);
    let who = trusting.get(format!("{base}/api/v1/session")).send().await.unwrap();
    assert_eq!(who.status(), 200, "the cookie came back over HTTPS");
    let put = format!("{base}/api/v1/attendance/{}/{}", support::today(), support::PUPIL);
    let body = serde_json::json!({ "code": "late" });
    let foreign = trusting.put(&put).json(&body).send().await.unwrap();
    assert_eq!(foreign.status(), 403, "a cookie alone writes nothing");
    let own = trusting.put(&put).json(&body).header("origin", &base).send().await.unwrap();
    assert_eq!(own.status(), 200);

    let refused = client(theirs.certificate_pem()).get(format!("{base}/healthz")).send().await;
    assert!(refused.unwrap_err().is_connect());

    drop(trusting);
    end.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
