//! Writes of people: from checked values to an answer that says what is kept, and what is disputed.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use sonae_proto::collection;
use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_store::{Action, Edit, Kept};
use sonae_trust::policy::{self, Decision};
use utoipa::ToSchema;

use crate::app::App;
use crate::error::ApiError;
use crate::etag::{self, Seen};
use crate::guard::Person;
use crate::shape::Shape;

/// Where a write is kept. It says nothing about copies outside the school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeptAnswer {
    /// The log: `INCARNATION/TIER`.
    pub log: String,
    /// The last sequence of that log when the write was kept.
    pub sequence: u64,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Changes that were written; 0 when everything was there already.
    pub changes: u64,
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WriteAnswer {
    /// Where it is kept, on stable storage.
    pub kept: KeptAnswer,
    /// Fields in which another person wrote something else meanwhile; both values stand until a person
    /// decides.
    pub disputed: Vec<String>,
}

/// A write to one record.
pub struct Write<'a> {
    /// What kind of record.
    pub shape: &'static Shape,
    /// Which one.
    pub record: &'a str,
    /// What the person wants: a text, or null to clear.
    pub fields: BTreeMap<&'static str, Value>,
    /// What the box notes down beside it, if anything changes.
    pub notes: BTreeMap<&'static str, Value>,
}

/// The tier of a shape's collection.
pub fn tier(shape: &Shape) -> Tier {
    collection::find(shape.collection).map_or(Tier::Safety, |known| known.tier)
}

/// Decides about all fields of a write before anything else is looked at.
pub fn check_fields<'a>(
    person: &Person,
    shape: &Shape,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), ApiError> {
    for name in names {
        let field = shape.fields.iter().find(|field| field.name == name);
        let field = field.ok_or_else(ApiError::internal)?;
        match person.viewer.decide(field, policy::Action::Write) {
            Decision::Allow => {}
            Decision::Deny { code } => return Err(ApiError::denied(code, Some(name))),
        }
    }
    Ok(())
}

impl Write<'_> {
    /// Keeps the write and answers with the new entity tag.
    ///
    /// # Durability
    /// Everything is on this replica's stable storage when the answer is made (P1).
    pub async fn keep(self, app: &App, person: &Person, headers: &HeaderMap) -> Result<Response, ApiError> {
        self.keep_seen(app, person, etag::seen(headers)?).await
    }

    /// The same, where what was seen is known. `None`: whatever stands is replaced.
    ///
    /// # Durability
    /// As [`Self::keep`].
    pub async fn keep_seen(
        self,
        app: &App,
        person: &Person,
        mut seen: Option<Seen>,
    ) -> Result<Response, ApiError> {
        check_fields(person, self.shape, self.fields.keys().copied())?;
        let (tier, shape, record) = (tier(self.shape), self.shape, self.record);
        let before = app.store().record(tier, shape.collection, record)?;
        if let Some(seen) = &mut seen {
            etag::only_applied(seen, tier, before.as_ref(), &app.store().state().vector);
        }
        let edit = self.edit(before.as_ref(), seen);
        let action = Action { who: Some(person.login.clone()), source: None, edits: vec![edit] };
        let kept = app.store().write(action).await?;
        let after = app.store().record(tier, shape.collection, record)?;
        let disputed = after.as_ref().map_or_else(Vec::new, |after| person.viewer.disputed(shape, after));
        let etag = person.viewer.etag(shape, after.as_ref());
        let answer = WriteAnswer { kept: kept_answer(&kept)?, disputed };
        Ok(([(header::ETAG, etag)], Json(answer)).into_response())
    }

    fn edit(self, before: Option<&RecordState>, mut seen: Option<Seen>) -> Edit {
        let is_new = |(name, value): (&&str, &Value)| match before.and_then(|record| record.fields.get(*name))
        {
            Some(field) => !matches!(field.heads.as_slice(), [only] if only.value == *value),
            None => !value.is_null(),
        };
        let mut fields = self.fields;
        if fields.iter().any(is_new) {
            if let Some(seen) = &mut seen {
                // Notes belong to the last writer and are never disputed.
                for name in self.notes.keys() {
                    let field = before.and_then(|record| record.fields.get(*name));
                    seen.insert((*name).to_owned(), field.map_or_else(Vec::new, |field| field.bases()));
                }
            }
            fields.extend(self.notes);
        }
        Edit {
            collection: self.shape.collection.to_owned(),
            record: self.record.to_owned(),
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            seen,
        }
    }
}

/// One record lies in one log.
fn kept_answer(kept: &Kept) -> Result<KeptAnswer, ApiError> {
    let (log, sequence) = kept.sequences.iter().next().ok_or_else(|| {
        log::error!("the store kept a write in no log");
        ApiError::internal()
    })?;
    let (sequence, at_ms, changes) = (*sequence, kept.at_ms, kept.changes);
    Ok(KeptAnswer { log: log.to_string(), sequence, at_ms, changes })
}
