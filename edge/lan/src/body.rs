//! Bodies and parameters as clients send them: bounded, strict, with errors that name the field.
//!
//! **Invariant**: unknown fields are refused, so that a misspelt one is not silently dropped.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Longest body, bytes: as the API promises.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A JSON body.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(&request) {
            return Err(ApiError::media_type());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| malformed(&error))
    }
}

/// Only this type, which a foreign page cannot send without asking first.
fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// What to say of a body that could not be read.
pub fn unread(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ApiError::too_large()
    } else {
        ApiError::bad_body(
            "The body broke off: send it again.",
            "送信が途中で切れました。もう一度送ってください。",
            None,
        )
    }
}

/// serde names the field of an unknown, missing or doubled one between backticks; it must not repeat values.
fn malformed(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|lead| text.strip_prefix(lead)?.split('`').next())
        .filter(|name| name.len() <= 64);
    ApiError::bad_body(
        "The body is not JSON of this route's form: compare it with /api/v1/openapi.json.",
        "本文の形式が違います。/api/v1/openapi.json と比べてください。",
        named,
    )
}

/// Parameters after the question mark.
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(value)| Self(value)).map_err(|_: QueryRejection| {
            ApiError::bad_parameter(
                "query",
                "A parameter after '?' is unknown or malformed: see /api/v1/openapi.json.",
                "「?」の後のパラメーターが正しくありません。/api/v1/openapi.json を確認してください。",
            )
        })
    }
}

/// Parts of the path.
pub struct Segments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(value)| Self(value)).map_err(|_: PathRejection| ApiError::not_found(None))
    }
}
