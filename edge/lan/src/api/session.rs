//! Signing in and out.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sonae_trust::session::{SessionToken, Strength};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::app::App;
use crate::body::Body;
use crate::error::{ApiError, ErrorBody};
use crate::guard::{self, COOKIE, Peer, Person};
use crate::sign_in::{Attempt, sign_in};

/// What a person signs in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Login.
    #[schema(value_type = String)]
    login: Zeroizing<String>,
    /// Password.
    #[schema(value_type = String)]
    password: Zeroizing<String>,
    /// The present code of the authenticator app. Without it classes I and II are absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    totp: Option<Zeroizing<String>>,
}

/// A new session.
#[derive(Serialize, ToSchema)]
pub struct Opened {
    /// For `Authorization: Bearer`; the cookie carries the same.
    token: String,
    #[serde(flatten)]
    who: Who,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub struct Who {
    /// `password` or `second_factor`.
    #[schema(value_type = String)]
    strength: Strength,
    /// Their role.
    role: &'static str,
    /// Their name.
    name: String,
    /// When the session ends at the latest, milliseconds since 1970 UTC. Half an hour without a request ends
    /// it sooner.
    expires_ms: u64,
}

impl From<Person> for Who {
    fn from(person: Person) -> Self {
        let Person { name, viewer, expires_ms, .. } = person;
        Self { strength: viewer.strength, role: viewer.role.as_str(), name, expires_ms }
    }
}

/// Signs in.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = Credentials, security(()),
    responses(
        (status = 200, description = "Signed in; sets the cookie __Host-sonae", body = Opened),
        (status = 401, description = "bad_credentials", body = ErrorBody),
        (status = 429, description = "locked; see Retry-After", body = ErrorBody),
        (status = 503, description = "busy, not_here_yet: see Retry-After", body = ErrorBody)))]
pub async fn post(
    State(app): State<App>,
    Peer(address): Peer,
    headers: HeaderMap,
    Body(given): Body<Credentials>,
) -> Result<Response, ApiError> {
    let totp = given.totp.unwrap_or_default();
    let attempt = Attempt { login: given.login, password: given.password, totp, address };
    let token = sign_in(&app, attempt).await?;
    end_presented(&app, &headers);
    let who = guard::person(&app, token.expose())?.into();
    let cookie = [(header::SET_COOKIE, cookie(&token))];
    Ok((cookie, Json(Opened { token: token.expose().to_owned(), who })).into_response())
}

/// Tells who is signed in.
#[utoipa::path(get, path = "/api/v1/session", tag = "session", responses(
    (status = 200, description = "Who is signed in", body = Who),
    (status = 401, description = "sign_in_required", body = ErrorBody)))]
pub async fn get(person: Person) -> Json<Who> {
    Json(person.into())
}

/// Signs out.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses(
    (status = 204, description = "Signed out; clears the cookie"),
    (status = 401, description = "sign_in_required", body = ErrorBody)))]
pub async fn delete(State(app): State<App>, headers: HeaderMap, _person: Person) -> Response {
    end_presented(&app, &headers);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, no_cookie())]).into_response()
}

/// Ends the session that a request came with, if it came with one.
pub fn end_presented(app: &App, headers: &HeaderMap) {
    if let Some(presented) = guard::presented(headers) {
        app.sessions().revoke(&presented.token);
    }
}

/// The cookie of a session; gone when the browser is closed.
pub fn cookie(token: &SessionToken) -> HeaderValue {
    let text = format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Strict", token.expose());
    // A token is base64url.
    let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| no_cookie());
    value.set_sensitive(true);
    value
}

/// Takes the cookie away.
pub fn no_cookie() -> HeaderValue {
    HeaderValue::from_static("__Host-sonae=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}
