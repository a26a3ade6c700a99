//! The API's description, generated from the handlers and checked in as `docs/openapi.json`.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::api::{attendance, classes, contacts, disputes, session, status, students};
use crate::guard::COOKIE;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sonae LAN API",
        version = "1",
        description = "The admin data of one school, served by a replica on its LAN.\n\n\
            A write is answered after it is on the replica's stable storage; `kept` says where. It says nothing \
            about copies outside the school: see `GET /api/v1/status`.\n\n\
            Fields of class I and II are absent without a second factor, and routes that consist of them answer \
            403 `second_factor_required`.\n\n\
            `If-Match` with the `ETag` of the last GET names what was seen. If somebody has written something else \
            meanwhile both values stand, and `disputed` names the fields; there is no 412. `GET /api/v1/disputes` lists \
            them, and a POST there decides.\n\n\
            Requests other than GET that are signed in by cookie need an `Origin` of this host or the header \
            `X-Sonae: 1`; a foreign `Origin` is refused in any case.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        session::post, session::get, session::delete, students::index, students::get, classes::index,
        attendance::index, attendance::get, attendance::put, contacts::index, contacts::get, contacts::put,
        disputes::index, disputes::post, status::get, status::health, get
    ),
    modifiers(&Schemes),
    security(("bearer" = []), ("cookie" = []))
)]
struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE)));
        components.add_security_scheme("cookie", cookie);
    }
}

/// Composes the description of the API.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Describes the API.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "status", security(()), responses(
    (status = 200, description = "This document", body = serde_json::Value)))]
pub async fn get() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
