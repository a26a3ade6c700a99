//! The catalogue of fields: which class of importance (重要性分類) each field of each collection has.
//!
//! **Invariant:** an unknown collection or field is class I. Data from a newer version are kept and
//! relayed, but shown only to those who may see the most sensitive class.
//!
//! **Left out:** who may see a class, which is [`crate::policy`]. Health collections are not listed:
//! they are class I, which is what an unknown collection gets.
//!
//! # Source
//! 教育情報セキュリティポリシーに関するガイドライン (R7.3), 重要性分類 I to IV, as read for this product.

use serde::{Deserialize, Serialize};

/// How grave a leak would be; declared, and ordered, from the gravest to the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DataClass {
    /// Never shown to anybody: hashes and secrets of sign-in.
    Secret,
    /// Grave harm to life, property or privacy: custody notes, health.
    I,
    /// Harm: contacts, birth dates, addresses.
    II,
    /// Little harm: names, attendance.
    III,
    /// No harm: what is public.
    IV,
}

impl DataClass {
    /// All classes, gravest first.
    pub const ALL: [Self; 5] = [Self::Secret, Self::I, Self::II, Self::III, Self::IV];
}

use DataClass::{I, II, III, IV, Secret};

type Fields = &'static [(&'static str, DataClass)];

const SCHOOL: Fields = &[
    ("school_code", IV),
    ("name", IV),
    ("school_type", IV),
    ("postal_code", IV),
    ("address", IV),
    ("phone", IV),
    ("principal_staff_id", IV),
    ("is_designated_shelter", IV),
    ("capacity", IV),
    ("lat", IV),
    ("lon", IV),
];

const CLASS_GROUP: Fields = &[
    ("grade", III),
    ("name", III),
    ("kind", III),
    ("homeroom_staff_id", III),
    ("deputy_staff_id", III),
    ("assembly_point", III),
];

const STUDENT: Fields = &[
    ("student_id", III),
    ("student_no", III),
    ("attendance_no", III),
    ("class", III),
    ("class_group_id", III),
    ("family_name", III),
    ("given_name", III),
    ("official_family_name", III),
    ("official_given_name", III),
    ("family_name_kana", III),
    ("given_name_kana", III),
    ("preferred_family_name", III),
    ("preferred_given_name", III),
    ("user_master_identifier", II),
    ("birth_date", II),
    ("sex", II),
    ("nationality", II),
    ("home_language", II),
    ("postal_code", II),
    ("address", II),
    ("address_area", II),
    ("commute_mode", II),
    ("photo_ref", II),
];

const ENROLLMENT: Fields = &[
    ("student_id", III),
    ("class_group_id", III),
    ("attendance_no", III),
    ("begins_on", III),
    ("ends_on", III),
    ("in_public_register", III),
    ("status", III),
];

const GUARDIAN_CONTACT: Fields = &[
    ("student_id", II),
    ("priority", II),
    ("name", II),
    ("kana", II),
    ("relationship", II),
    ("phone1", II),
    ("phone2", II),
    ("email", II),
    ("workplace", II),
    ("workplace_phone", II),
    ("lives_with", II),
    ("custody_note", I),
];

const ATTENDANCE: Fields = &[
    ("student_id", III),
    ("date", III),
    ("period", III),
    ("code", III),
    // A short code (病気, 事故) belongs to the register, which is III; words about it do not.
    ("reason_code", III),
    ("reason_text", II),
    ("recorded_by", III),
    ("recorded_at", III),
];

const STAFF: Fields = &[
    ("staff_id", III),
    ("family_name", III),
    ("given_name", III),
    ("name", III),
    ("family_name_kana", III),
    ("given_name_kana", III),
    ("kana", III),
    ("position", III),
    ("role", III),
    ("disaster_role", III),
    ("phone", II),
    ("email", II),
    ("lives_within_km", II),
    ("muster_class", II),
];

const STAFF_ACCOUNT: Fields = &[
    ("login", III),
    ("staff_id", III),
    ("role", III),
    ("status", III),
    ("password_hash", Secret),
    ("totp_secret", Secret),
    ("totp_last_step", Secret),
    ("one_time_codes", Secret),
];

const COLLECTIONS: &[(&str, Fields)] = &[
    ("school", SCHOOL),
    ("class_group", CLASS_GROUP),
    ("student", STUDENT),
    ("enrollment", ENROLLMENT),
    ("guardian_contact", GUARDIAN_CONTACT),
    ("attendance", ATTENDANCE),
    ("staff", STAFF),
    ("staff_account", STAFF_ACCOUNT),
];

/// The names of all catalogued collections.
pub fn collections() -> impl Iterator<Item = &'static str> {
    COLLECTIONS.iter().map(|(name, _)| *name)
}

/// The catalogued fields of a collection with their classes; empty for an unknown collection.
pub fn fields(collection: &str) -> &'static [(&'static str, DataClass)] {
    COLLECTIONS.iter().find(|(name, _)| *name == collection).map_or(&[], |(_, fields)| fields)
}

/// The class of a field; [`DataClass::I`] when the collection or the field is unknown.
pub fn class_of(collection: &str, field: &str) -> DataClass {
    fields(collection).iter().find(|(name, _)| *name == field).map_or(I, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Goal: fields that people would be hurt by have the class that was decided. Method: sample each
    /// collection.
    #[test]
    fn decided_classes() {
        let rows = [
            ("school", "phone", IV),
            ("class_group", "name", III),
            ("student", "family_name_kana", III),
            ("student", "student_no", III),
            ("student", "birth_date", II),
            ("student", "home_language", II),
            ("enrollment", "attendance_no", III),
            ("guardian_contact", "phone1", II),
            ("guardian_contact", "custody_note", I),
            ("attendance", "code", III),
            ("attendance", "reason_text", II),
            ("staff", "family_name", III),
            ("staff", "phone", II),
            ("staff_account", "login", III),
            ("staff_account", "password_hash", Secret),
            ("staff_account", "totp_secret", Secret),
        ];
        for (collection, field, class) in rows {
            assert_eq!(class_of(collection, field), class, "{collection}.{field}");
        }
    }

    /// Goal: what is unknown is class I, near misses included. Method: unknown names and other case.
    #[test]
    fn unknown_is_class_one() {
        let rows = [
            ("health_profile", "allergies"),
            ("student", "future_field"),
            ("student", "Family_name"),
            ("", ""),
            ("school", ""),
        ];
        for (collection, field) in rows {
            assert_eq!(class_of(collection, field), I, "{collection}.{field}");
        }
        assert!(fields("health_profile").is_empty());
    }

    /// Goal: no name is listed twice, which would hide the second. Method: collect into sets.
    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = collections().collect();
        assert_eq!(names.len(), COLLECTIONS.len());
        for (collection, fields) in COLLECTIONS {
            let names: BTreeSet<_> = fields.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), fields.len(), "{collection}");
        }
    }
}
