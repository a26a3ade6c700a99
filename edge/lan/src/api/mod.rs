//! The routes of the JSON API under `/api/v1`.
//!
//! Each handler asks in this order: who is it, may they, is the input right, does it exist. So an answer never
//! tells more than the person may know.

pub mod attendance;
pub mod classes;
pub mod contacts;
pub mod disputes;
pub mod input;
pub mod session;
pub mod status;
pub mod students;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use sonae_trust::policy::{Action, Decision};

use crate::error::ApiError;
use crate::guard::Person;
use crate::shape::Shape;

/// A JSON object whose fields are decided one by one.
pub type Object = Map<String, Value>;

/// Refuses those who may read nothing at all of a kind of record.
pub fn check_readable(person: &Person, shape: &Shape) -> Result<(), ApiError> {
    let mut denied = None;
    for field in shape.fields {
        match person.viewer.decide(field, Action::Read) {
            Decision::Allow => return Ok(()),
            Decision::Deny { code } => denied = denied.or(Some(code)),
        }
    }
    denied.map_or(Ok(()), |code| Err(ApiError::denied(code, None)))
}

/// Answers with one resource and the tag that names what was seen.
pub fn tagged(etag: HeaderValue, body: Object) -> Response {
    ([(header::ETAG, etag)], Json(Value::Object(body))).into_response()
}

/// Answers with a list under its name.
pub fn list(name: &str, items: Vec<Object>) -> Json<Value> {
    let items = items.into_iter().map(Value::Object).collect();
    Json(Value::Object(Map::from_iter([(name.to_owned(), Value::Array(items))])))
}
