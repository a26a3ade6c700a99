//! Which value of a file goes into which field of which record. Empty values are written as null, so that a
//! value that the source has taken back is taken back here.

use std::collections::BTreeMap;

use serde_json::Value;
use sonae_roster::{
    AttendanceEntry, Class, ClassType, Demographics, Enrollment, EnrollmentRole, GuardianContact, OrgType,
    Role, Roster, SourcedId, User,
};
use sonae_store::Edit;

fn text(value: &str) -> Value {
    if value.is_empty() { Value::Null } else { Value::from(value) }
}

/// Flags are the texts `true` and `false`, as in OneRoster.
fn flag(value: Option<bool>) -> Value {
    value.map_or(Value::Null, |value| Value::from(value.to_string()))
}

fn edit(collection: &str, record: String, fields: Vec<(&str, Value)>) -> Edit {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Edit { collection: collection.to_owned(), record, fields, seen: None }
}

/// Everything that a package says, in an order in which a reader can follow references.
pub(super) fn roster(roster: &Roster) -> Vec<Edit> {
    let pupils = roster.pupils();
    let facts: BTreeMap<&SourcedId, &Demographics> =
        roster.demographics.iter().map(|facts| (&facts.user, facts)).collect();
    let seats: BTreeMap<&SourcedId, &Enrollment> = roster
        .enrollments
        .iter()
        .filter(|enrollment| enrollment.role == EnrollmentRole::Student)
        .map(|enrollment| (&enrollment.user, enrollment))
        .collect();
    let homerooms: BTreeMap<&SourcedId, &Class> = roster
        .classes
        .iter()
        .filter(|class| class.class_type == ClassType::Homeroom)
        .map(|class| (&class.id, class))
        .collect();
    let mut edits = Vec::new();
    edits.extend(orgs(roster));
    edits.extend(roster.classes.iter().map(|class| class_group(class, roster)));
    for user in &roster.users {
        if pupils.contains(&user.id) {
            let seat = seats.get(&user.id).copied().filter(|seat| homerooms.contains_key(&seat.class));
            edits.push(student(user, seat, facts.get(&user.id).copied()));
        } else {
            edits.push(staff(user, roster));
        }
    }
    edits.extend(roster.enrollments.iter().map(enrollment));
    edits
}

fn orgs(roster: &Roster) -> impl Iterator<Item = Edit> + '_ {
    roster.orgs.iter().filter_map(|org| match org.org_type {
        OrgType::School => Some(edit("school", org.identifier.clone(), vec![("name", text(&org.name))])),
        OrgType::District => Some(edit("board", org.identifier.clone(), vec![("name", text(&org.name))])),
        _ => None,
    })
}

fn class_group(class: &Class, roster: &Roster) -> Edit {
    let year = roster
        .academic_sessions
        .iter()
        .find(|session| class.terms.contains(&session.id))
        .map_or("", |session| session.school_year.as_str());
    let fields = vec![
        ("title", text(&class.title)),
        ("grades", text(&class.grades.join(","))),
        ("class_type", text(&class.class_type.to_string())),
        ("school_year", text(year)),
        ("special_needs", flag(class.special_needs)),
    ];
    edit("class_group", class.id.to_string(), fields)
}

fn student(user: &User, seat: Option<&Enrollment>, facts: Option<&Demographics>) -> Edit {
    let class = user.home_class.as_ref().or(seat.map(|seat| &seat.class));
    let master = user.master_identifier.as_ref().map_or("", SourcedId::as_str);
    let birth = facts.and_then(|facts| facts.birth_date).map(|date| date.to_string());
    let sex = facts.and_then(|facts| facts.sex.as_ref()).map(ToString::to_string);
    let mut fields = names(user);
    fields.extend([
        ("student_no", text(&user.identifier)),
        ("grade", text(&user.grades.join(","))),
        ("class_id", text(class.map_or("", SourcedId::as_str))),
        ("attendance_no", seat.and_then(|seat| seat.attendance_number).map_or(Value::Null, Value::from)),
        ("user_master_identifier", text(master)),
        ("birth_date", text(birth.as_deref().unwrap_or_default())),
        ("sex", text(sex.as_deref().unwrap_or_default())),
        ("enrolled", flag(Some(user.enabled))),
    ]);
    edit("student", user.id.to_string(), fields)
}

fn staff(user: &User, roster: &Roster) -> Edit {
    let role = roster.roles.iter().find(|role| role.user == user.id).map(|role| &role.role);
    let mut fields = names(user);
    fields.push(("position", text(&role.map(Role::to_string).unwrap_or_default())));
    fields.push(("email", text(&user.email)));
    fields.push(("phone", text(&user.phone)));
    edit("staff", user.id.to_string(), fields)
}

fn names(user: &User) -> Vec<(&'static str, Value)> {
    vec![
        ("family_name", text(&user.family_name)),
        ("given_name", text(&user.given_name)),
        ("family_name_kana", text(&user.kana_family_name)),
        ("given_name_kana", text(&user.kana_given_name)),
        ("preferred_family_name", text(&user.preferred_family_name)),
        ("preferred_given_name", text(&user.preferred_given_name)),
    ]
}

fn enrollment(enrollment: &Enrollment) -> Edit {
    let fields = vec![
        ("class_id", text(enrollment.class.as_str())),
        ("student_id", text(enrollment.user.as_str())),
        ("role", text(&enrollment.role.to_string())),
        ("attendance_no", enrollment.attendance_number.map_or(Value::Null, Value::from)),
        ("in_public_register", flag(enrollment.in_public_register)),
    ];
    edit("enrollment", format!("{}/{}", enrollment.class, enrollment.user), fields)
}

/// Guardians' contacts.
pub(super) fn contacts(contacts: &[GuardianContact]) -> Vec<Edit> {
    let plan = |contact: &GuardianContact| {
        let fields = vec![
            ("priority", Value::from(contact.priority)),
            ("name", text(&contact.name)),
            ("kana", text(&contact.kana)),
            ("relationship", text(&contact.relationship)),
            ("phone1", text(&contact.phone1)),
            ("phone2", text(&contact.phone2)),
            ("email", text(&contact.email)),
            ("lives_with", flag(contact.lives_with)),
        ];
        edit("guardian_contact", format!("{}/{}", contact.student, contact.priority), fields)
    };
    contacts.iter().map(plan).collect()
}

/// The attendance register.
pub(super) fn attendance(entries: &[AttendanceEntry]) -> Vec<Edit> {
    let plan = |entry: &AttendanceEntry| {
        let fields = vec![("code", text(&entry.code)), ("reason_text", text(&entry.reason_text))];
        edit("attendance", format!("{}/{}/{}", entry.date, entry.student, entry.period), fields)
    };
    entries.iter().map(plan).collect()
}
