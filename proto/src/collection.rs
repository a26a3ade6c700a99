//! The collections that this version knows, each with its tier for ever. Unknown ones are kept and relayed in
//! the tier of the log that they came in.

use crate::ids::Tier;

/// How concurrent writes to a record meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeClass {
    /// Each field keeps its heads until a write that saw them replaces them.
    Fields,
    /// A record is written once; corrections are records of their own that point at it.
    AppendOnly,
}

/// One collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// Its name in change lines.
    pub name: &'static str,
    /// Where its changes go.
    pub tier: Tier,
    /// How its records merge.
    pub merge: MergeClass,
}

const fn fields(name: &'static str, tier: Tier) -> Collection {
    Collection { name, tier, merge: MergeClass::Fields }
}

const fn append(name: &'static str, tier: Tier) -> Collection {
    Collection { name, tier, merge: MergeClass::AppendOnly }
}

/// Every collection of this version. A line is never changed or removed once it has been released.
pub static COLLECTIONS: &[Collection] = &[
    fields("board", Tier::Safety),
    fields("school", Tier::Safety),
    fields("school_year", Tier::Safety),
    fields("class_group", Tier::Safety),
    fields("enrollment", Tier::Safety),
    fields("student", Tier::Safety),
    fields("guardian_contact", Tier::Safety),
    fields("handover_card", Tier::Safety),
    fields("alert", Tier::Safety),
    fields("staff", Tier::Safety),
    fields("staff_account", Tier::Safety),
    append("event", Tier::Safety),
    append("observation", Tier::Safety),
    append("event_audit", Tier::Safety),
    fields("attendance", Tier::Daily),
    fields("school_diary", Tier::Daily),
    fields("health_profile", Tier::Daily),
    fields("code_list", Tier::Daily),
    append("audit", Tier::Daily),
    fields("grade_result", Tier::Archive),
    fields("student_record", Tier::Archive),
    fields("health_check", Tier::Archive),
];

/// Finds a known collection.
#[must_use]
pub fn find(name: &str) -> Option<&'static Collection> {
    COLLECTIONS.iter().find(|collection| collection.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name has one meaning. Method: look every name up and find the same line.
    #[test]
    fn names_are_unique() {
        for collection in COLLECTIONS {
            assert!(std::ptr::eq(find(collection.name).unwrap(), collection), "{}", collection.name);
        }
    }
}
