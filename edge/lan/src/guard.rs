//! Who asks: the person behind a request, and whether the request comes from our own pages.
//!
//! **Invariants**
//! - The role is read from the account at each request, so that a change or a closed account takes effect at
//!   once.
//! - Nothing that a browser sends by itself from another site's page has an effect: a request other than GET
//!   with a foreign `Origin` is refused; one that is signed in by cookie needs a matching `Origin` or the
//!   header `X-Sonae: 1`, which foreign pages cannot send without leave. `SameSite=Strict` comes on top.

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use zeroize::Zeroizing;

use crate::app::App;
use crate::error::ApiError;
use crate::people;
use crate::shape::Viewer;

/// The cookie: `__Host-` binds it to this very host, to HTTPS and to the path `/`.
///
/// # Source
/// RFC 6265bis 4.1.3.2.
pub const COOKIE: &str = "__Host-sonae";

/// The header that tells our own scripts and programs from foreign pages.
pub const OWN_HEADER: &str = "x-sonae";

/// Somebody who is signed in.
#[derive(Debug)]
pub struct Person {
    /// Their login.
    pub login: String,
    /// Their name, for themselves.
    pub name: String,
    /// What they may see.
    pub viewer: Viewer,
    /// When the session ends at the latest, milliseconds since 1970 UTC.
    pub expires_ms: u64,
}

/// A token as a request brings it.
pub struct Presented {
    /// The token.
    pub token: Zeroizing<String>,
    /// Whether the browser sent it by itself.
    by_cookie: bool,
}

/// Finds the token of a request: the `Authorization` header first, which no page sends by itself.
pub fn presented(headers: &HeaderMap) -> Option<Presented> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let token = Zeroizing::new(token.trim().to_owned());
        return scheme.eq_ignore_ascii_case("bearer").then_some(Presented { token, by_cookie: false });
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == COOKIE)?;
    Some(Presented { token: Zeroizing::new(token.to_owned()), by_cookie: true })
}

/// The person of a live session.
pub fn person(app: &App, token: &str) -> Result<Person, ApiError> {
    let now_ms = app.clock.now_ms();
    let session = app.sessions().touch(token, now_ms).cloned().ok_or_else(ApiError::sign_in_first)?;
    let Some(account) = people::account(app.store(), &session.login)? else {
        app.sessions().revoke_login(&session.login);
        return Err(ApiError::sign_in_first());
    };
    let left_ms = session.ends_ms.saturating_sub(now_ms);
    Ok(Person {
        login: session.login,
        name: account.name,
        viewer: Viewer { role: account.role, strength: session.strength },
        expires_ms: app.store().clock().now_ms().saturating_add(left_ms),
    })
}

impl FromRequestParts<App> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let presented = presented(&parts.headers).ok_or_else(ApiError::sign_in_first)?;
        if presented.by_cookie {
            check_cookie_request(parts)?;
        }
        person(app, &presented.token)
    }
}

fn check_cookie_request(parts: &Parts) -> Result<(), ApiError> {
    let is_safe = matches!(parts.method, Method::GET | Method::HEAD);
    if is_safe || parts.headers.get(OWN_HEADER).is_some_and(|value| value == "1") || is_same_origin(parts) {
        Ok(())
    } else {
        Err(ApiError::cross_site())
    }
}

/// Refuses what a page of another site makes a browser send, signed in or not.
pub fn check_origin(method: &Method, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let is_safe = matches!(*method, Method::GET | Method::HEAD);
    let is_foreign = headers.contains_key(header::ORIGIN) && !same_origin(headers, uri);
    if !is_safe && is_foreign { Err(ApiError::cross_site()) } else { Ok(()) }
}

/// Whether a form was sent by our own page. Browsers name the origin of every form that is posted.
pub fn is_same_origin(parts: &Parts) -> bool {
    same_origin(&parts.headers, &parts.uri)
}

fn same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // HTTP/2 names the host in the request's address, HTTP/1.1 in a header.
    let host = uri.authority().map(axum::http::uri::Authority::as_str).or_else(|| text(header::HOST));
    let origin = text(header::ORIGIN).and_then(|origin| origin.strip_prefix("https://"));
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Where a request comes from, for the brake on guessing.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let known = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        // Requests without an address share one tally: the careful side.
        Ok(Self(known.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(parse).collect()
    }

    /// Goal: the token is found where it may stand, and nowhere else. Method: rows of headers.
    #[test]
    fn tokens_of_requests() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, bool)>);
        let rows: [Row<'_>; 7] = [
            (&[], None),
            (&[("authorization", "Bearer abc")], Some(("abc", false))),
            (&[("authorization", "bearer abc"), ("cookie", "__Host-sonae=x")], Some(("abc", false))),
            (&[("authorization", "Basic abc"), ("cookie", "__Host-sonae=x")], None),
            (&[("cookie", "a=b; __Host-sonae=x")], Some(("x", true))),
            (&[("cookie", "a=b"), ("cookie", "__Host-sonae=x")], Some(("x", true))),
            (&[("cookie", "sonae=x; __host-sonae=y")], None),
        ];
        for (given, expected) in rows {
            let found = presented(&headers(given));
            let found = found.as_ref().map(|found| (found.token.as_str(), found.by_cookie));
            assert_eq!(found, expected, "{given:?}");
        }
    }

    /// Goal: only our own origin passes. Method: rows of origin, host and address.
    #[test]
    fn origins() {
        let rows = [
            ("https://a.example", "a.example", "/", true),
            ("https://a.example:8443", "a.example:8443", "/", true),
            ("https://A.example", "a.example", "/", true),
            ("https://a.example", "b.example", "https://a.example/", true),
            ("https://a.example:8443", "a.example", "/", false),
            ("http://a.example", "a.example", "/", false),
            ("https://a.example.evil", "a.example", "/", false),
            ("null", "a.example", "/", false),
        ];
        for (origin, host, uri, expected) in rows {
            let given = headers(&[("origin", origin), ("host", host)]);
            assert_eq!(same_origin(&given, &uri.parse().unwrap()), expected, "{origin} {host}");
        }
        assert!(!same_origin(&headers(&[("host", "a")]), &"/".parse().unwrap()));
    }
}
