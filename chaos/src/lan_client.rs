//! A client of the LAN service, as a browser or a script is: HTTPS with the board's trust root.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};

/// A signed-in client.
#[derive(Debug, Clone)]
pub struct LanClient {
    http: Client,
    base: String,
    token: String,
}

impl LanClient {
    /// Signs in with password and, if a one-time code URI is given, with a code.
    ///
    /// # Errors
    /// When the service does not let the person in.
    pub async fn sign_in(
        address: &str,
        ca: &Path,
        login: &str,
        password: &str,
        otpauth: Option<&str>,
    ) -> Result<Self> {
        let address: SocketAddr = address.parse().context("no address with a port")?;
        let certificate = Certificate::from_pem(&std::fs::read(ca)?)?;
        let http = Client::builder()
            .tls_built_in_root_certs(false)
            .add_root_certificate(certificate)
            // The one name that its certificate has, wherever it runs.
            .resolve("localhost", address)
            .build()?;
        let base = format!("https://localhost:{}", address.port());
        let mut client = Self { http, base, token: String::new() };
        let mut body = json!({ "login": login, "password": password });
        if let (Some(uri), Some(fields)) = (otpauth, body.as_object_mut()) {
            fields.insert("totp".into(), one_time_code(uri)?.into());
        }
        let (status, answer) = client.ask(Method::POST, "/api/v1/session", Some(body)).await?;
        client.token = answer.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
        if status == StatusCode::OK && !client.token.is_empty() {
            Ok(client)
        } else {
            bail!("sign-in was refused with {status}: {answer}")
        }
    }

    /// Asks, and returns the answer whatever its status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Reads.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (status, answer) = self.ask(Method::GET, path, None).await?;
        if status == StatusCode::OK { Ok(answer) } else { bail!("GET {path} answered {status}: {answer}") }
    }

    /// Writes. Returns where it was kept: log and sequence.
    ///
    /// # Errors
    /// When it was not kept.
    pub async fn put(&self, path: &str, body: Value) -> Result<(String, u64)> {
        let (status, answer) = self.ask(Method::PUT, path, Some(body)).await?;
        let log = answer.pointer("/kept/log").and_then(Value::as_str);
        let sequence = answer.pointer("/kept/sequence").and_then(Value::as_u64);
        match (status, log, sequence) {
            (StatusCode::OK, Some(log), Some(sequence)) => Ok((log.to_owned(), sequence)),
            _ => bail!("PUT {path} answered {status}: {answer}"),
        }
    }

    /// Reads the status.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn status(&self) -> Result<Value> {
        self.get("/api/v1/status").await
    }

    /// Returns the ids of all pupils.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn pupils(&self, query: &str) -> Result<Vec<String>> {
        let answer = self.get(&format!("/api/v1/students{query}")).await?;
        let students = answer.get("students").and_then(Value::as_array).context("no students")?;
        Ok(students.iter().filter_map(|s| s.get("id").and_then(Value::as_str)).map(str::to_owned).collect())
    }
}

/// Computes the code of this moment from an `otpauth://` URI.
///
/// # Errors
/// When the URI has no usable secret.
pub fn one_time_code(uri: &str) -> Result<String> {
    let secret =
        uri.split_once("secret=").and_then(|(_, rest)| rest.split('&').next()).context("no secret")?;
    let bytes = totp_rs::Secret::Encoded(secret.to_owned()).to_bytes().ok().context("a damaged secret")?;
    let totp = totp_rs::TOTP::new_unchecked(totp_rs::Algorithm::SHA1, 6, 1, 30, bytes, None, String::new());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(totp.generate(now))
}
