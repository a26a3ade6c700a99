//! Disputes: fields in which several values stand, because their writers did not see each other. A person chooses one of
//! them, and names all that they saw.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sonae_proto::ids::{ChangeId, Tier};
use sonae_proto::limits::FIELD_HEADS_MAX;
use sonae_proto::record::FieldState;
use sonae_store::{Store, ViewError};
use utoipa::ToSchema;

use crate::app::App;
use crate::body::Body;
use crate::error::{ApiError, ErrorBody};
use crate::etag::Seen;
use crate::guard::Person;
use crate::shape::{ATTENDANCE, CLASS, CONTACT, DisputedValue, STUDENT, Shape, Viewer};
use crate::write::{Write, WriteAnswer, check_fields, tier};

/// Records that people may choose values of.
static SHAPES: [Shape; 4] = [CLASS, STUDENT, CONTACT, ATTENDANCE];

/// Most records in an answer: what is decided makes room for the next.
const DISPUTES_MAX: usize = 500;

/// Longest id of a record, bytes.
const RECORD_BYTES_MAX: usize = 200;

/// A record that people disagree about.
#[derive(Serialize, ToSchema)]
pub struct Dispute {
    /// Its collection.
    pub collection: String,
    /// Its id in the collection.
    pub record: String,
    /// All values that stand, by field.
    pub fields: BTreeMap<String, Vec<DisputedValue>>,
}

/// What waits for a person.
#[derive(Serialize, ToSchema)]
pub struct Disputes {
    /// Records of which this person may read a disputed field, by collection and id; at most 500.
    pub disputes: Vec<Dispute>,
    /// Disputed records beyond those: more of the same, what this person may not read, and what has no page.
    pub not_listed: u64,
}

/// One field's end of a dispute.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The `change` of the value that is right.
    keep: String,
    /// The `change` of each value that the person saw. What is not named stays beside it.
    seen: Vec<String>,
}

/// Decisions about one record.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Its collection.
    collection: String,
    /// Its id in the collection.
    record: String,
    /// The choices, by field.
    fields: BTreeMap<String, Choice>,
}

/// Lists what waits for a person.
#[utoipa::path(get, path = "/api/v1/disputes", tag = "disputes", responses(
    (status = 200, description = "Disputed records", body = Disputes),
    (status = 401, description = "sign_in_required", body = ErrorBody)))]
pub async fn index(State(app): State<App>, person: Person) -> Result<Json<Disputes>, ApiError> {
    let count = app.store().state().disputed;
    let viewer = person.viewer;
    let disputes = match count {
        0 => Vec::new(),
        _ => app.read(move |store| find(store, viewer)).await?,
    };
    let listed = u64::try_from(disputes.len()).unwrap_or(u64::MAX);
    Ok(Json(Disputes { disputes, not_listed: count.saturating_sub(listed) }))
}

fn find(store: &Store, viewer: Viewer) -> Result<Vec<Dispute>, ViewError> {
    let mut found = Vec::new();
    // What a rebuild has not brought yet is listed when it is here.
    for of in [Tier::Safety, Tier::Daily].into_iter().filter(|tier| store.filling().is_usable(*tier)) {
        store.each_record(of, |record| {
            let shape = SHAPES.iter().find(|shape| shape.collection == record.collection);
            if let Some(shape) = shape.filter(|_| found.len() < DISPUTES_MAX) {
                let fields = viewer.disputes(shape, &record.state);
                if !fields.is_empty() {
                    found.push(Dispute { collection: record.collection, record: record.record, fields });
                }
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Keeps one of the values that stand, and ends the others that the person saw.
#[utoipa::path(post, path = "/api/v1/disputes", tag = "disputes", request_body = Decision, responses(
    (status = 200, description = "Kept on stable storage", body = WriteAnswer,
        headers(("ETag" = String, description = "Names what stands now"))),
    (status = 400, description = "bad_body", body = ErrorBody),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 403, description = "second_factor_required, forbidden or cross_site", body = ErrorBody),
    (status = 404, description = "not_found", body = ErrorBody),
    (status = 422, description = "bad_value: the value does not stand any more; or refused", body = ErrorBody),
    (status = 503, description = "not_saved", body = ErrorBody),
    (status = 507, description = "disk_full", body = ErrorBody)))]
pub async fn post(
    State(app): State<App>,
    person: Person,
    Body(given): Body<Decision>,
) -> Result<Response, ApiError> {
    let shape = SHAPES.iter().find(|shape| shape.collection == given.collection);
    let shape = shape.ok_or_else(|| ApiError::not_found(Some("collection")))?;
    let mut named = BTreeMap::new();
    for (name, choice) in &given.fields {
        let field = shape.fields.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| ApiError::not_found(Some("fields")))?;
        named.insert(field.name, choice);
    }
    check_fields(&person, shape, named.keys().copied())?;
    if given.record.len() > RECORD_BYTES_MAX {
        return Err(ApiError::not_found(Some("record")));
    }
    let record = app.store().record(tier(shape), shape.collection, &given.record)?;
    let record = record.ok_or_else(|| ApiError::not_found(Some("record")))?;
    let (mut fields, mut seen) = (BTreeMap::new(), Seen::new());
    for (name, choice) in named {
        let state = record.fields.get(name).ok_or_else(|| stands_no_more(name))?;
        let (value, ids) = choice.of(name, state)?;
        fields.insert(name, value);
        seen.insert(name.to_owned(), ids);
    }
    let write = Write { shape, record: &given.record, fields, notes: BTreeMap::new() };
    write.keep_seen(&app, &person, Some(seen)).await
}

impl Choice {
    /// Returns the chosen value and all that the person saw.
    fn of(&self, name: &str, state: &FieldState) -> Result<(Value, Vec<ChangeId>), ApiError> {
        let parse = |text: &String| text.parse::<ChangeId>().map_err(|_| stands_no_more(name));
        let keep = parse(&self.keep)?;
        let chosen = state.heads.iter().find(|head| head.id == keep).ok_or_else(|| stands_no_more(name))?;
        if self.seen.len() > FIELD_HEADS_MAX {
            return Err(stands_no_more(name));
        }
        let mut seen = self.seen.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        seen.push(keep);
        Ok((chosen.value.clone(), seen))
    }
}

fn stands_no_more(field: &str) -> ApiError {
    ApiError::bad_value(
        field,
        "This value does not stand any more, or somebody has decided already: load the list again and choose.",
        "この値はすでに変わったか、ほかの人が決めました。一覧を読み直してから選んでください。",
    )
}
