//! What the API shows of each record, field by field, and to whom.
//!
//! **Invariant**: a field that is not in a table here is never shown; one that is here is shown only if the
//! policy lets this person read it.

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use serde::Serialize;
use serde_json::{Map, Value};
use sonae_proto::record::{FieldState, RecordState};
use sonae_trust::policy::{Action, Decision, decide_field};
use sonae_trust::role::Role;
use sonae_trust::session::Strength;
use utoipa::ToSchema;

use crate::etag;

/// One field of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldShape {
    /// Its name in the record and in the answer.
    pub name: &'static str,
    /// The collection and field of the catalogue by which it is judged.
    judged_as: (&'static str, &'static str),
    /// Whether people decide it, so that a dispute about it is theirs to end. What the box itself notes down
    /// beside a decision is not.
    decided: bool,
}

/// One kind of record.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its collection.
    pub collection: &'static str,
    /// Its fields.
    pub fields: &'static [FieldShape],
}

const fn field(collection: &'static str, name: &'static str) -> FieldShape {
    FieldShape { name, judged_as: (collection, name), decided: true }
}

/// A field that the roster names differently from the catalogue: judged as the one of the same meaning.
const fn judged(name: &'static str, collection: &'static str, catalogued: &'static str) -> FieldShape {
    FieldShape { name, judged_as: (collection, catalogued), decided: true }
}

const fn noted(collection: &'static str, name: &'static str) -> FieldShape {
    FieldShape { name, judged_as: (collection, name), decided: false }
}

/// A class.
pub const CLASS: Shape = Shape {
    collection: "class_group",
    fields: &[
        judged("title", "class_group", "name"),
        judged("grades", "class_group", "grade"),
        judged("class_type", "class_group", "kind"),
        judged("school_year", "class_group", "grade"),
    ],
};

/// A pupil in a list.
pub const STUDENT_LINE: Shape = Shape {
    collection: "student",
    fields: &[
        field("student", "family_name"),
        field("student", "given_name"),
        field("student", "family_name_kana"),
        field("student", "given_name_kana"),
        field("student", "preferred_family_name"),
        field("student", "preferred_given_name"),
        field("student", "student_no"),
        judged("grade", "class_group", "grade"),
        judged("class_id", "student", "class_group_id"),
        field("student", "attendance_no"),
    ],
};

/// A pupil.
pub const STUDENT: Shape = Shape {
    collection: "student",
    fields: &[
        field("student", "family_name"),
        field("student", "given_name"),
        field("student", "family_name_kana"),
        field("student", "given_name_kana"),
        field("student", "preferred_family_name"),
        field("student", "preferred_given_name"),
        field("student", "student_no"),
        judged("grade", "class_group", "grade"),
        judged("class_id", "student", "class_group_id"),
        field("student", "attendance_no"),
        judged("enrolled", "enrollment", "status"),
        field("student", "user_master_identifier"),
        field("student", "birth_date"),
        field("student", "sex"),
    ],
};

/// A guardian to call.
pub const CONTACT: Shape = Shape {
    collection: "guardian_contact",
    fields: &[
        field("guardian_contact", "name"),
        field("guardian_contact", "kana"),
        field("guardian_contact", "relationship"),
        field("guardian_contact", "phone1"),
        field("guardian_contact", "phone2"),
        field("guardian_contact", "email"),
        field("guardian_contact", "lives_with"),
        field("guardian_contact", "custody_note"),
    ],
};

/// An entry of the register.
pub const ATTENDANCE: Shape = Shape {
    collection: "attendance",
    fields: &[
        field("attendance", "code"),
        field("attendance", "reason_text"),
        noted("attendance", "recorded_by"),
        noted("attendance", "recorded_at"),
    ],
};

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    /// What they are.
    pub role: Role,
    /// How they proved it.
    pub strength: Strength,
}

/// One of several values that stand, because their writers did not see each other.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DisputedValue {
    /// The change that wrote it: names it in a decision.
    pub change: String,
    /// The value; null where a writer cleared the field.
    #[schema(value_type = Option<String>)]
    pub value: Value,
    /// The login of who wrote it, if a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// When, by its writer's clock, milliseconds since 1970 UTC.
    pub at_ms: u64,
}

impl Viewer {
    /// Decides about one field.
    pub fn decide(self, field: &FieldShape, action: Action) -> Decision {
        let (collection, name) = field.judged_as;
        decide_field(self.role, self.strength, collection, name, action)
    }

    /// The fields of a shape that this person may read.
    pub fn readable(self, shape: &Shape) -> impl Iterator<Item = &'static FieldShape> {
        shape.fields.iter().filter(move |field| self.decide(field, Action::Read).is_allow())
    }

    /// Writes the readable fields into `out`; disputed ones also with all their values.
    pub fn show(self, shape: &Shape, record: &RecordState, out: &mut Map<String, Value>) {
        for field in self.readable(shape) {
            if let Some(value) = record.value(field.name) {
                out.insert(field.name.to_owned(), value.clone());
            }
        }
        let disputes = self.disputes(shape, record);
        if !disputes.is_empty() {
            out.insert("disputed".to_owned(), serde_json::to_value(disputes).unwrap_or_default());
        }
    }

    /// The readable fields that people disagree about, with all their values.
    pub fn disputes(self, shape: &Shape, record: &RecordState) -> BTreeMap<String, Vec<DisputedValue>> {
        let values = |field: &FieldShape| {
            let heads = disputed_state(record, field)?.heads.iter();
            Some((field.name.to_owned(), heads.map(disputed_value).collect()))
        };
        self.readable(shape).filter_map(values).collect()
    }

    /// The names of the readable fields that people disagree about.
    pub fn disputed(self, shape: &Shape, record: &RecordState) -> Vec<String> {
        self.disputes(shape, record).into_keys().collect()
    }

    /// The entity tag of what this person may read.
    pub fn etag(self, shape: &Shape, record: Option<&RecordState>) -> HeaderValue {
        etag::of(record, self.readable(shape).map(|field| field.name))
    }
}

fn disputed_state<'a>(record: &'a RecordState, field: &FieldShape) -> Option<&'a FieldState> {
    record.fields.get(field.name).filter(|state| field.decided && state.heads.len() > 1)
}

fn disputed_value(head: &sonae_proto::record::Head) -> DisputedValue {
    let (change, value) = (head.id.to_string(), head.value.clone());
    DisputedValue { change, value, who: head.who.clone(), at_ms: head.stamp.ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_trust::catalogue::{DataClass, class_of, fields};

    const ALL: [Shape; 5] = [CLASS, STUDENT_LINE, STUDENT, CONTACT, ATTENDANCE];

    /// Goal: every field is judged by a line of the catalogue, and under its own name where that has one.
    /// Method: look all of them up.
    #[test]
    fn every_field_is_catalogued() {
        for shape in ALL {
            for field in shape.fields {
                let (collection, name) = field.judged_as;
                assert!(fields(collection).iter().any(|(known, _)| *known == name), "{}", field.name);
                let own = fields(shape.collection).iter().any(|(known, _)| *known == field.name);
                assert!(!own || field.judged_as == (shape.collection, field.name), "{}", field.name);
                assert_ne!(class_of(collection, name), DataClass::Secret, "{}", field.name);
            }
        }
    }

    /// Goal: a list of pupils holds nothing above class III. Method: classes of its fields.
    #[test]
    fn lists_are_class_three() {
        for field in STUDENT_LINE.fields {
            assert!(class_of(field.judged_as.0, field.judged_as.1) >= DataClass::III, "{}", field.name);
        }
    }

    /// Goal: fields that no table names stay hidden, also from the principal. Method: a record with extra
    /// fields.
    #[test]
    fn unknown_fields_are_hidden() {
        let mut record = RecordState::default();
        for name in ["code", "future", "password_hash"] {
            let head = sonae_proto::record::Head {
                id: format!("{:032}:1", 0).parse().unwrap(),
                stamp: Default::default(),
                value: "x".into(),
                who: None,
                source: None,
            };
            record.fields.insert(name.into(), FieldState { heads: vec![head], ..FieldState::default() });
        }
        let mut out = Map::new();
        let viewer = Viewer { role: Role::Principal, strength: Strength::SecondFactor };
        viewer.show(&ATTENDANCE, &record, &mut out);
        assert_eq!(out.keys().collect::<Vec<_>>(), ["code"]);
    }
}
