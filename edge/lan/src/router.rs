//! All addresses of the service, and what holds for every one: limits, headers, errors of one shape.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sonae_store::status::StatusSource;
use sonae_trust::password::{Cost, PasswordError};

use crate::api::{attendance, classes, contacts, disputes, session, status, students};
use crate::app::App;
use crate::body::BODY_BYTES_MAX;
use crate::clock::Monotonic;
use crate::error::ApiError;
use crate::{guard, openapi, page};

/// Longest time of one request. A write waits for one device flush; ten seconds of a stalled disk are a failure
/// that a person should see.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);

/// What API answers may do in a browser: nothing.
const CSP_API: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What our pages may do: use our own style sheet and send forms to us.
pub const CSP_PAGE: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Makes the service of one replica; hashes once, for the sign-ins of unknown logins.
///
/// # Errors
/// [`PasswordError`] when `cost` is out of range or the system gives no random bytes.
pub fn router(status: StatusSource, cost: Cost, clock: Monotonic) -> Result<Router, PasswordError> {
    Ok(routes(App::new(status, cost, clock)?))
}

fn routes(app: App) -> Router {
    let api = Router::new()
        .route("/session", post(session::post).get(session::get).delete(session::delete))
        .route("/classes", get(classes::index))
        .route("/students", get(students::index))
        .route("/students/{id}", get(students::get))
        .route("/students/{id}/contacts", get(contacts::index))
        .route("/students/{id}/contacts/{priority}", get(contacts::get).put(contacts::put))
        .route("/attendance/{date}", get(attendance::index))
        .route("/attendance/{date}/{student_id}", get(attendance::get).put(attendance::put))
        .route("/disputes", get(disputes::index).post(disputes::post))
        .route("/status", get(status::get))
        .route("/openapi.json", get(openapi::get));
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(status::health))
        .route("/", get(page::home))
        .route("/sign-in", post(page::sign_in_form))
        .route("/sign-out", post(page::sign_out_form))
        .route("/style.css", get(page::style))
        .fallback(|| async { ApiError::not_found(None) })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), common))
        .with_state(app)
}

/// Refuses foreign pages, ends what takes too long, sets the headers of every answer.
async fn common(State(_): State<App>, request: Request, next: Next) -> Response {
    let mut response = match guard::check_origin(request.method(), request.headers(), request.uri()) {
        Ok(()) => match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                log::warn!("a request took too long");
                ApiError::timeout().into_response()
            }
        },
        Err(error) => error.into_response(),
    };
    set_headers(response.headers_mut());
    response
}

/// `Referrer-Policy` is `same-origin` because browsers name no origin in forms under `no-referrer`.
fn set_headers(headers: &mut HeaderMap) {
    const ALWAYS: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    const UNLESS_SET: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, CSP_API), (header::CACHE_CONTROL, "no-store")];
    for (name, value) in UNLESS_SET {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
