//! What the box says of itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use sonae_store::status::Status;

use crate::app::App;
use crate::error::ErrorBody;
use crate::guard::Person;

/// Tells the whole status: kept, safe, lag, replicas, storage, the last error.
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses(
    (status = 200, description = "The same facts as `sonae-edge status --json`; kept and safe are never mixed. `proof` tells of \
        the restore proofs: `is_proved` is true only if the last one succeeded less than two days ago",
        body = Status),
    (status = 401, description = "sign_in_required", body = ErrorBody)))]
pub async fn get(State(app): State<App>, _person: Person) -> Json<Status> {
    Json(app.status.status())
}

/// Tells whether the box serves and saves; nothing else.
#[utoipa::path(get, path = "/healthz", tag = "status", security(()), responses(
    (status = 200, description = "{\"ok\":true}", body = Value),
    (status = 503, description = "{\"ok\":false}: nothing is saved any more", body = Value)))]
pub async fn health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let (reading, room) = app.store().room();
    let is_ok = app.store().state().failed.is_none() && !room.is_full(&reading);
    let status = if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ok": is_ok })))
}
