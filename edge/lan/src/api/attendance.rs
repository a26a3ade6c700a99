//! The register: one pupil, one day, one code. The API speaks of whole days.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use sonae_proto::record::RecordState;
use sonae_store::Store;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::{Object, check_readable, input, list, tagged};
use crate::app::App;
use crate::body::{Body, Parameters, Segments};
use crate::error::{ApiError, ErrorBody};
use crate::guard::Person;
use crate::shape::{ATTENDANCE, DisputedValue, Viewer};
use crate::status_line::local;
use crate::student_list::{enrolled, members};
use crate::write::{Write, WriteAnswer, check_fields, tier};

/// The period of a record that is about the whole day; the importer's word for it.
const WHOLE_DAY: &str = "all";

/// What stands for a pupil of whom nobody has said anything yet.
const NOT_RECORDED: &str = "not_recorded";

/// The codes to start with. A board's own list, separated by commas, stands in the field `codes` of the record
/// `attendance` of `code_list`.
const CODES: &[&str] = &[
    "present",
    "absent_sick",
    "absent_other",
    "suspended",
    "mourning",
    "late",
    "left_early",
    "official_leave",
    "class_closed",
    "enrolled_elsewhere",
    NOT_RECORDED,
];

/// Longest reason, characters.
const REASON_CHARS_MAX: usize = 500;

/// A new entry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttendanceWrite {
    /// One of the board's codes: `present`, `absent_sick`, …
    code: String,
    /// Reason, at most 500 characters. Class II. Absent or null: stays as it is; empty: cleared.
    #[serde(default)]
    reason_text: Option<String>,
}

/// An entry.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what shape::ATTENDANCE builds")]
pub struct Attendance {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// The pupil.
    pub student_id: String,
    /// `not_recorded` when nobody has said anything yet.
    pub code: String,
    /// Reason. Class II.
    pub reason_text: Option<String>,
    /// Login of who recorded it.
    pub recorded_by: Option<String>,
    /// When, RFC 3339.
    pub recorded_at: Option<String>,
    /// Fields in which several values stand.
    pub disputed: Option<BTreeMap<String, Vec<DisputedValue>>>,
}

/// A day.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the handler builds")]
pub struct Day {
    /// One entry for each enrolled pupil, by class and attendance number.
    pub attendance: Vec<Attendance>,
}

/// Which pupils.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Id of a class.
    #[serde(default)]
    class: String,
}

/// Shows a day: an entry for each enrolled pupil.
#[utoipa::path(get, path = "/api/v1/attendance/{date}", tag = "attendance",
    params(("date" = String, Path, description = "YYYY-MM-DD"), Filter), responses(
    (status = 200, description = "The day", body = Day),
    (status = 400, description = "bad_parameter", body = ErrorBody),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 404, description = "not_found: no such class", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn index(
    State(app): State<App>,
    person: Person,
    Segments(date): Segments<String>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Json<Value>, ApiError> {
    check_readable(&person, &ATTENDANCE)?;
    input::date(&date, app.store().clock().now_ms())?;
    let viewer = person.viewer;
    let read = move |store: &Store| {
        let members = if filter.class.is_empty() { None } else { Some(members(store, &filter.class)?) };
        if matches!(members, Some(None)) {
            return Ok(None);
        }
        let members = members.flatten();
        let recorded: BTreeMap<String, RecordState> = store
            .records(tier(&ATTENDANCE), ATTENDANCE.collection, &format!("{date}/"))?
            .into_iter()
            .collect();
        let students = enrolled(store)?.into_iter().filter(|(id, student)| {
            let is_homeroom = student.text("class_id") == Some(filter.class.as_str());
            members.as_ref().is_none_or(|members| is_homeroom || members.contains(id))
        });
        let show = |(id, _): (String, _)| show(viewer, &date, &id, recorded.get(&record_id(&date, &id)));
        Ok(Some(students.map(show).collect()))
    };
    let entries = app.read(read).await?.ok_or_else(|| ApiError::not_found(Some("class")))?;
    Ok(list("attendance", entries))
}

/// Shows one entry.
#[utoipa::path(get, path = "/api/v1/attendance/{date}/{student_id}", tag = "attendance",
    params(("date" = String, Path, description = "YYYY-MM-DD"),
        ("student_id" = String, Path, description = "Identifier of the pupil")), responses(
    (status = 200, description = "The entry; its code is `not_recorded` when there is none", body = Attendance,
        headers(("ETag" = String, description = "Names what was seen"))),
    (status = 400, description = "bad_parameter", body = ErrorBody),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 404, description = "not_found", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn get(
    State(app): State<App>,
    person: Person,
    Segments((date, id)): Segments<(String, String)>,
) -> Result<Response, ApiError> {
    check_readable(&person, &ATTENDANCE)?;
    input::date(&date, app.store().clock().now_ms())?;
    input::student(app.store(), &id)?;
    let record = app.store().record(tier(&ATTENDANCE), ATTENDANCE.collection, &record_id(&date, &id))?;
    let etag = person.viewer.etag(&ATTENDANCE, record.as_ref());
    Ok(tagged(etag, show(person.viewer, &date, &id, record.as_ref())))
}

/// Keeps an entry.
#[utoipa::path(put, path = "/api/v1/attendance/{date}/{student_id}", tag = "attendance",
    params(("date" = String, Path, description = "YYYY-MM-DD"),
        ("student_id" = String, Path, description = "Identifier of the pupil"),
        ("If-Match" = Option<String>, Header, description = "ETag of what was seen; absent: replaces whatever stands")),
    request_body = AttendanceWrite, responses(
    (status = 200, description = "Kept on stable storage", body = WriteAnswer,
        headers(("ETag" = String, description = "Names what stands now"))),
    (status = 400, description = "bad_body or bad_parameter", body = ErrorBody),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 403, description = "second_factor_required, forbidden or cross_site", body = ErrorBody),
    (status = 404, description = "not_found", body = ErrorBody),
    (status = 422, description = "bad_value or refused", body = ErrorBody),
    (status = 503, description = "not_saved, not_here_yet: see Retry-After", body = ErrorBody),
    (status = 507, description = "disk_full", body = ErrorBody)))]
pub async fn put(
    State(app): State<App>,
    person: Person,
    Segments((date, id)): Segments<(String, String)>,
    headers: HeaderMap,
    Body(given): Body<AttendanceWrite>,
) -> Result<Response, ApiError> {
    let reason = given.reason_text.as_ref().map(|_| "reason_text");
    check_fields(&person, &ATTENDANCE, ["code"].into_iter().chain(reason))?;
    let now_ms = app.store().clock().now_ms();
    input::date(&date, now_ms)?;
    check_code(app.store(), &given.code)?;
    let mut fields = BTreeMap::from([("code", Value::from(given.code))]);
    if let Some(reason) = &given.reason_text {
        fields.insert("reason_text", input::text("reason_text", reason, REASON_CHARS_MAX)?);
    }
    input::student(app.store(), &id)?;
    let at = local(now_ms).format(&Rfc3339).unwrap_or_default();
    let notes = BTreeMap::from([
        ("recorded_by", Value::from(person.login.as_str())),
        ("recorded_at", Value::from(at)),
    ]);
    let record = record_id(&date, &id);
    Write { shape: &ATTENDANCE, record: &record, fields, notes }.keep(&app, &person, &headers).await
}

fn record_id(date: &str, student_id: &str) -> String {
    format!("{date}/{student_id}/{WHOLE_DAY}")
}

fn show(viewer: Viewer, date: &str, student_id: &str, record: Option<&RecordState>) -> Object {
    let mut entry = Object::from_iter([
        ("date".to_owned(), Value::from(date)),
        ("student_id".to_owned(), Value::from(student_id)),
        ("code".to_owned(), Value::from(NOT_RECORDED)),
    ]);
    if let Some(record) = record {
        viewer.show(&ATTENDANCE, record, &mut entry);
    }
    entry
}

fn check_code(store: &Store, code: &str) -> Result<(), ApiError> {
    let list = store.record(sonae_proto::ids::Tier::Daily, "code_list", "attendance")?;
    let is_known = match list.as_ref().and_then(|list| list.text("codes")) {
        Some(own) => own.split(',').any(|known| !code.is_empty() && known.trim() == code),
        None => CODES.contains(&code),
    };
    if is_known {
        return Ok(());
    }
    Err(ApiError::bad_value(
        "code",
        "This is not one of the board's attendance codes: use one of them, for example present or absent_sick.",
        "出欠の区分が正しくありません。一覧の区分から選んでください。",
    ))
}
