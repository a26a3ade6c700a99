//! Pupils and classes as lists: who is enrolled, in which class, in the order of the register.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_store::{Store, ViewError};

use crate::search::{fold, natural};

/// A record with its id.
pub type Entry = (String, RecordState);

/// All classes, in the order of people.
pub fn classes(store: &Store) -> Result<Vec<Entry>, ViewError> {
    let mut classes = store.records(Tier::Safety, "class_group", "")?;
    classes.sort_by(|a, b| class_order(Some(&a.1), Some(&b.1)).then_with(|| a.0.cmp(&b.0)));
    Ok(classes)
}

/// All pupils who are enrolled, by class and attendance number.
pub fn enrolled(store: &Store) -> Result<Vec<Entry>, ViewError> {
    let classes: BTreeMap<String, RecordState> =
        store.records(Tier::Safety, "class_group", "")?.into_iter().collect();
    let mut students = store.records(Tier::Safety, "student", "")?;
    students.retain(|(_, student)| is_enrolled(student));
    let class_of = |student: &RecordState| student.text("class_id").and_then(|id| classes.get(id));
    students.sort_by(|(a_id, a), (b_id, b)| {
        class_order(class_of(a), class_of(b))
            .then_with(|| a.text("class_id").cmp(&b.text("class_id")))
            .then_with(|| attendance_no(a).cmp(&attendance_no(b)))
            .then_with(|| a_id.cmp(b_id))
    });
    Ok(students)
}

/// Whether a pupil is at this school; only a record that says no says no.
pub fn is_enrolled(student: &RecordState) -> bool {
    student.text("enrolled") != Some("false")
}

/// The pupils of a class: those whose homeroom it is and those who are enrolled in it. `None` when there is
/// no such class.
pub fn members(store: &Store, class_id: &str) -> Result<Option<BTreeSet<String>>, ViewError> {
    if class_id.is_empty() || store.record(Tier::Safety, "class_group", class_id)?.is_none() {
        return Ok(None);
    }
    let enrolments = store.records(Tier::Safety, "enrollment", &format!("{class_id}/"))?;
    let pupils = enrolments.iter().filter(|(_, enrolment)| enrolment.text("role") == Some("student"));
    Ok(Some(pupils.filter_map(|(_, enrolment)| enrolment.text("student_id").map(str::to_owned)).collect()))
}

/// Whether a pupil is found by a folded search text.
pub fn is_found(student: &RecordState, folded_query: &str) -> bool {
    let joined = |fields: &[&str]| -> String {
        fields.iter().filter_map(|field| student.text(field)).map(fold).collect()
    };
    let names = [
        joined(&["family_name", "given_name"]),
        joined(&["family_name_kana", "given_name_kana"]),
        joined(&["preferred_family_name", "preferred_given_name"]),
        joined(&["student_no"]),
    ];
    names.iter().any(|name| name.contains(folded_query))
}

/// Grade first, then title; pupils without a class come last.
fn class_order(a: Option<&RecordState>, b: Option<&RecordState>) -> Ordering {
    let text = |class: &RecordState, field| class.text(field).unwrap_or_default().to_owned();
    match (a, b) {
        (Some(a), Some(b)) => grade_order(&text(a, "grades"))
            .cmp(&grade_order(&text(b, "grades")))
            .then_with(|| natural(&text(a, "title"), &text(b, "title"))),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Primary before junior high before high school, whatever the letters say; others after them.
fn grade_order(grades: &str) -> (usize, String) {
    let first = grades.split(',').next().unwrap_or_default().trim();
    let school = ["P", "J", "H", "E"].iter().position(|letter| first.starts_with(letter));
    (school.unwrap_or(usize::MAX), first.to_owned())
}

fn attendance_no(student: &RecordState) -> u64 {
    student.value("attendance_no").and_then(serde_json::Value::as_u64).unwrap_or(u64::MAX)
}
