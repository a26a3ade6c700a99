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
    append("erased.safety", Tier::Safety),
    fields("attendance", Tier::Daily),
    fields("school_diary", Tier::Daily),
    fields("health_profile", Tier::Daily),
    fields("code_list", Tier::Daily),
    append("audit", Tier::Daily),
    append("erased.daily", Tier::Daily),
    fields("grade_result", Tier::Archive),
    fields("student_record", Tier::Archive),
    fields("health_check", Tier::Archive),
    append("erased.archive", Tier::Archive),
];

/// Where the ids of records name the pupil whom they are of: which of the parts that `/` separates, from 0. Whoever
/// adds a collection about pupils begins its ids with the pupil's.
pub static PUPILS: &[(&str, usize)] = &[
    ("student", 0),
    ("enrollment", 1),
    ("guardian_contact", 0),
    ("handover_card", 0),
    ("alert", 0),
    ("attendance", 1),
    ("health_profile", 0),
    ("grade_result", 0),
    ("student_record", 0),
    ("health_check", 0),
];

/// Collections that are about nobody's pupil: an id or a value of theirs that is equal to a pupil's id names something else.
pub static NOT_OF_PUPILS: &[&str] =
    &["board", "school", "school_year", "class_group", "staff", "staff_account", "code_list"];

/// Finds a known collection.
#[must_use]
pub fn find(name: &str) -> Option<&'static Collection> {
    COLLECTIONS.iter().find(|collection| collection.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erasure::tombstones;

    /// Goal: a name has one meaning. Method: look every name up and find the same line.
    #[test]
    fn names_are_unique() {
        for collection in COLLECTIONS {
            assert!(std::ptr::eq(find(collection.name).unwrap(), collection), "{}", collection.name);
        }
        assert!(PUPILS.iter().all(|(name, _)| find(name).is_some()));
        let is_apart = |name: &&str| find(name).is_some() && PUPILS.iter().all(|(of, _)| of != name);
        assert!(NOT_OF_PUPILS.iter().all(is_apart));
        assert!(
            Tier::ALL.iter().all(|tier| find(tombstones(*tier)).is_some_and(|known| known.tier == *tier))
        );
    }
}
