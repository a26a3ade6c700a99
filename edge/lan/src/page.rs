//! The one plain page: sign-in, or the classes with how many pupils they have. Works without scripts.
//!
//! **Invariants**
//! - Every page carries the status line, which holds no personal data.
//! - Forms are taken only from our own origin, so that no other site signs a browser in or out.

use std::collections::BTreeMap;

use askama::Template;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{RequestExt, http};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::api::check_readable;
use crate::api::session::{cookie, end_presented, no_cookie};
use crate::app::App;
use crate::body::unread;
use crate::error::ApiError;
use crate::guard::{self, Peer, Person};
use crate::router::CSP_PAGE;
use crate::shape::{CLASS, STUDENT_LINE};
use crate::sign_in::{Attempt, sign_in};
use crate::status_line::{StatusLine, status_line};
use crate::student_list::{classes, enrolled};

/// The page for those who are not signed in.
#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    school: String,
    line: StatusLine,
    error: Option<(String, String)>,
}

/// The page for those who are.
#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    school: String,
    line: StatusLine,
    name: String,
    role_ja: &'static str,
    role_en: &'static str,
    is_strong: bool,
    classes: Vec<ClassLine>,
    pupils: usize,
}

/// One class.
struct ClassLine {
    title: String,
    pupils: usize,
}

/// Shows the classes, or the form to sign in.
pub async fn home(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    let token = guard::presented(&headers).map(|presented| presented.token);
    match token.map(|token| guard::person(&app, &token)).transpose() {
        Ok(Some(person)) => home_of(&app, &person).await,
        Ok(None) => Ok(sign_in_page(&app, StatusCode::OK, None)),
        Err(error) if error.status == StatusCode::UNAUTHORIZED => {
            Ok(sign_in_page(&app, StatusCode::OK, None))
        }
        Err(error) => Err(error),
    }
}

async fn home_of(app: &App, person: &Person) -> Result<Response, ApiError> {
    check_readable(person, &CLASS)?;
    check_readable(person, &STUDENT_LINE)?;
    let (classes, students) = app.read(|store| Ok((classes(store)?, enrolled(store)?))).await?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, student) in &students {
        *counts.entry(student.text("class_id").unwrap_or_default()).or_default() += 1;
    }
    let line = |(id, class): &(String, sonae_proto::record::RecordState)| ClassLine {
        title: class.text("title").unwrap_or_default().to_owned(),
        pupils: counts.get(id.as_str()).copied().unwrap_or(0),
    };
    let is_homeroom =
        |class: &sonae_proto::record::RecordState| class.text("class_type") != Some("scheduled");
    let role = person.viewer.role;
    Ok(render(
        StatusCode::OK,
        &HomePage {
            school: app.status.school_name.clone(),
            line: status_line(&app.status.status()),
            name: person.name.clone(),
            role_ja: role.label_ja(),
            role_en: role.as_str(),
            is_strong: person.viewer.strength == sonae_trust::session::Strength::SecondFactor,
            classes: classes.iter().filter(|(_, class)| is_homeroom(class)).map(line).collect(),
            pupils: students.len(),
        },
    ))
}

fn sign_in_page(app: &App, status: StatusCode, error: Option<ApiError>) -> Response {
    let error = error.map(|error| (error.detail.text_ja, error.detail.text));
    let line = status_line(&app.status.status());
    render(status, &SignInPage { school: app.status.school_name.clone(), line, error })
}

fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, [(header::CONTENT_SECURITY_POLICY, CSP_PAGE)], Html(html)).into_response(),
        Err(error) => {
            log::error!(error:err; "a page cannot be made");
            ApiError::internal().into_response()
        }
    }
}

/// The fields of the form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInForm {
    login: Zeroizing<String>,
    password: Zeroizing<String>,
    #[serde(default)]
    totp: Zeroizing<String>,
}

/// Signs in and goes to the first page.
pub async fn sign_in_form(State(app): State<App>, Peer(address): Peer, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !guard::is_same_origin(&parts) {
        return sign_in_page(&app, StatusCode::FORBIDDEN, Some(ApiError::cross_site()));
    }
    let headers = parts.headers.clone();
    let form = match read_form(Request::from_parts(parts, body)).await {
        Ok(form) => form,
        Err(error) => return sign_in_page(&app, error.status, Some(error)),
    };
    let attempt = Attempt { login: form.login, password: form.password, totp: form.totp, address };
    match sign_in(&app, attempt).await {
        Ok(token) => {
            end_presented(&app, &headers);
            ([(header::SET_COOKIE, cookie(&token))], Redirect::to("/")).into_response()
        }
        Err(error) => {
            let retry_after_s = error.retry_after_s;
            let mut page = sign_in_page(&app, error.status, Some(error));
            if let Some(seconds) = retry_after_s {
                page.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from(seconds));
            }
            page
        }
    }
}

async fn read_form(request: Request) -> Result<SignInForm, ApiError> {
    let bytes: Result<Bytes, BytesRejection> = request.with_limited_body().extract().await;
    let bytes = bytes.map_err(|rejection| unread(&rejection))?;
    serde_urlencoded::from_bytes(&bytes).map_err(|_| {
        ApiError::bad_body(
            "The form is incomplete: open the page again.",
            "入力が正しく届きませんでした。画面を開き直してください。",
            None,
        )
    })
}

/// Signs out and goes to the first page.
pub async fn sign_out_form(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if !guard::is_same_origin(&parts) {
        return sign_in_page(&app, StatusCode::FORBIDDEN, Some(ApiError::cross_site()));
    }
    end_presented(&app, &parts.headers);
    ([(header::SET_COOKIE, no_cookie())], Redirect::to("/")).into_response()
}

/// The style sheet.
pub async fn style() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("../templates/style.css")).into_response()
}
