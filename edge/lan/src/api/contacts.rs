//! Guardians' contacts: who is called, in which order. Class II throughout; the custody note is class I.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use sonae_proto::ids::Tier;
use utoipa::ToSchema;

use super::{Object, check_readable, input, list, tagged};
use crate::app::App;
use crate::body::{Body, Segments};
use crate::error::{ApiError, ErrorBody};
use crate::guard::Person;
use crate::shape::{CONTACT, DisputedValue};
use crate::write::{Write, WriteAnswer, check_fields};

/// Most contacts of one pupil.
const PRIORITY_MAX: u8 = 20;

/// New values of a contact. What is not named, or null, stays as it is: who may not see a field must not clear
/// it. An empty text clears.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContactWrite {
    /// 氏名; needed for a new contact, at most 100 characters.
    name: Option<String>,
    /// カナ, at most 100 characters.
    kana: Option<String>,
    /// 続柄, at most 40 characters.
    relationship: Option<String>,
    /// Digits, `+`, `-`, `(`, `)` and spaces, at most 40.
    phone1: Option<String>,
    /// As `phone1`.
    phone2: Option<String>,
    /// Mail address, at most 254 characters.
    email: Option<String>,
    /// 同居: `"true"` or `"false"`.
    lives_with: Option<String>,
    /// 親権・接近禁止 等, at most 500 characters. Class I.
    custody_note: Option<String>,
}

/// A contact.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what shape::CONTACT builds")]
pub struct Contact {
    /// 連絡順位, from 1.
    pub priority: u8,
    /// 氏名.
    pub name: Option<String>,
    /// カナ.
    pub kana: Option<String>,
    /// 続柄.
    pub relationship: Option<String>,
    /// First phone.
    pub phone1: Option<String>,
    /// Second phone.
    pub phone2: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// 同居.
    pub lives_with: Option<String>,
    /// 親権・接近禁止 等. Class I.
    pub custody_note: Option<String>,
    /// Fields in which several values stand.
    pub disputed: Option<BTreeMap<String, Vec<DisputedValue>>>,
}

/// Contacts.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the handler builds")]
pub struct Contacts {
    /// In the order in which they are called.
    pub contacts: Vec<Contact>,
}

/// Lists a pupil's contacts.
#[utoipa::path(get, path = "/api/v1/students/{id}/contacts", tag = "contacts",
    params(("id" = String, Path, description = "Identifier of the pupil")), responses(
    (status = 200, description = "Contacts by priority", body = Contacts),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 403, description = "second_factor_required or forbidden", body = ErrorBody),
    (status = 404, description = "not_found", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn index(
    State(app): State<App>,
    person: Person,
    Segments(id): Segments<String>,
) -> Result<Json<Value>, ApiError> {
    check_readable(&person, &CONTACT)?;
    input::student(app.store(), &id)?;
    let prefix = format!("{id}/");
    let records = app.store().records(Tier::Safety, CONTACT.collection, &prefix)?;
    let mut contacts: Vec<(u8, Object)> = Vec::new();
    for (record_id, record) in records {
        let Some(priority) = record_id.strip_prefix(&prefix).and_then(|text| text.parse().ok()) else {
            continue;
        };
        let mut contact = Object::new();
        person.viewer.show(&CONTACT, &record, &mut contact);
        if !contact.is_empty() {
            contact.insert("priority".to_owned(), Value::from(priority));
            contacts.push((priority, contact));
        }
    }
    contacts.sort_by_key(|(priority, _)| *priority);
    Ok(list("contacts", contacts.into_iter().map(|(_, contact)| contact).collect()))
}

/// Shows one contact.
#[utoipa::path(get, path = "/api/v1/students/{id}/contacts/{priority}", tag = "contacts",
    params(("id" = String, Path, description = "Identifier of the pupil"),
        ("priority" = u8, Path, description = "1 to 20")), responses(
    (status = 200, description = "The contact", body = Contact,
        headers(("ETag" = String, description = "Names what was seen"))),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 403, description = "second_factor_required or forbidden", body = ErrorBody),
    (status = 404, description = "not_found", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn get(
    State(app): State<App>,
    person: Person,
    Segments((id, priority)): Segments<(String, String)>,
) -> Result<Response, ApiError> {
    check_readable(&person, &CONTACT)?;
    let priority = check_priority(&priority)?;
    input::student(app.store(), &id)?;
    let record = app.store().record(Tier::Safety, CONTACT.collection, &format!("{id}/{priority}"))?;
    let record = record.ok_or_else(|| ApiError::not_found(Some("priority")))?;
    let mut body = Object::from_iter([("priority".to_owned(), Value::from(priority))]);
    person.viewer.show(&CONTACT, &record, &mut body);
    Ok(tagged(person.viewer.etag(&CONTACT, Some(&record)), body))
}

/// Keeps new values of a contact, or a new one.
#[utoipa::path(put, path = "/api/v1/students/{id}/contacts/{priority}", tag = "contacts",
    params(("id" = String, Path, description = "Identifier of the pupil"),
        ("priority" = u8, Path, description = "1 to 20"),
        ("If-Match" = Option<String>, Header, description = "ETag of what was seen; absent: replaces whatever stands")),
    request_body = ContactWrite, responses(
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
    Segments((id, priority)): Segments<(String, String)>,
    headers: HeaderMap,
    Body(given): Body<ContactWrite>,
) -> Result<Response, ApiError> {
    let given = given.named();
    // `name` stands for the whole: who may not write it may write no contact, not even an empty one.
    check_fields(&person, &CONTACT, given.keys().copied().chain(["name"]))?;
    let priority = check_priority(&priority)?;
    input::student(app.store(), &id)?;
    let record_id = format!("{id}/{priority}");
    let before = app.store().record(Tier::Safety, CONTACT.collection, &record_id)?;
    let has_name = before.is_some_and(|record| record.text("name").is_some());
    let fields = check_values(&given, has_name)?;
    let notes = BTreeMap::from([("priority", Value::from(priority))]);
    Write { shape: &CONTACT, record: &record_id, fields, notes }.keep(&app, &person, &headers).await
}

impl ContactWrite {
    fn named(self) -> BTreeMap<&'static str, String> {
        let all = [
            ("name", self.name),
            ("kana", self.kana),
            ("relationship", self.relationship),
            ("phone1", self.phone1),
            ("phone2", self.phone2),
            ("email", self.email),
            ("lives_with", self.lives_with),
            ("custody_note", self.custody_note),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

fn check_priority(text: &str) -> Result<u8, ApiError> {
    let priority = text.parse().ok().filter(|number| (1..=PRIORITY_MAX).contains(number));
    // One spelling each: `01` would be another record.
    priority.filter(|number| number.to_string() == text).ok_or_else(|| {
        ApiError::bad_parameter(
            "priority",
            "The priority is a number from 1 to 20.",
            "連絡順位は1から20までの数字で指定してください。",
        )
    })
}

fn check_values(
    given: &BTreeMap<&'static str, String>,
    has_name: bool,
) -> Result<BTreeMap<&'static str, Value>, ApiError> {
    if given.get("name").map_or(!has_name, |name| name.trim().is_empty()) {
        return Err(ApiError::bad_value(
            "name",
            "A contact needs a name: send it.",
            "連絡先の氏名を入力してください。",
        ));
    }
    let mut fields = BTreeMap::new();
    for (name, value) in given {
        let checked = match *name {
            "phone1" | "phone2" => input::phone(name, value),
            "email" => input::email(name, value),
            "relationship" => input::text(name, value, 40),
            "lives_with" => input::yes_or_no(name, value),
            "custody_note" => input::text(name, value, 500),
            _ => input::text(name, value, 100),
        };
        fields.insert(*name, checked?);
    }
    Ok(fields)
}
