//! Owns `contacts.csv`: guardians' contacts, which have no place in OneRoster.
//!
//! | column | value |
//! | --- | --- |
//! | `student_id` | `sourcedId` of the pupil in the roster |
//! | `priority` | 連絡順位, 1 to 9999, once for each pupil |
//! | `name` | name of the guardian |
//! | `kana` | full-width kana, or empty |
//! | `relationship` | 続柄, free text, or empty |
//! | `phone1`, `phone2` | 6 to 15 digits, `+`, `-`, parentheses and blanks allowed, or empty |
//! | `email` | mail address, or empty |
//! | `lives_with` | 同居: `true`, `false` or empty |
//!
//! UTF-8 with or without a byte order mark, RFC 4180, columns found by name. Invariant: a contact from
//! [`read_contacts`] has its own (pupil, priority). Leaves out: custody notes and hand-over cards.

use std::collections::HashSet;

use crate::encoding::Bom;
use crate::limits::Limits;
use crate::model::SourcedId;
use crate::plain::{Known, finish, start};
use crate::read::Accepted;
use crate::report::{Code, Phrase, Report, Severity};
use crate::schema::CONTACTS;
use crate::table::{Row, read_table};
use crate::write::{WriteError, encode};

/// One way to reach a pupil's family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardianContact {
    /// The pupil.
    pub student: SourcedId,
    /// Order in which to try, 1 first.
    pub priority: u32,
    /// Name.
    pub name: String,
    /// Full-width kana; may be empty.
    pub kana: String,
    /// 続柄; may be empty.
    pub relationship: String,
    /// First telephone number; may be empty.
    pub phone1: String,
    /// Second telephone number; may be empty.
    pub phone2: String,
    /// Mail address; may be empty.
    pub email: String,
    /// Whether they live with the pupil, where stated.
    pub lives_with: Option<bool>,
}

/// Reads a contacts file.
///
/// # Errors
/// A [`Report`] with at least one error; nothing is imported then.
pub fn read_contacts(
    bytes: &[u8],
    known: &Known<'_>,
    limits: &Limits,
) -> Result<Accepted<Vec<GuardianContact>>, Report> {
    let mut context = start(&CONTACTS, bytes, known, limits)?;
    let mut seen = HashSet::new();
    let contacts = read_table(&CONTACTS, bytes, Bom::Allow, &mut context, |row, report| {
        check_reachable(row, report);
        let contact = read_row(row);
        if !seen.insert((contact.student.clone(), contact.priority)) {
            let expected =
                Phrase::fixed("each priority once for a pupil", "児童生徒ごとに同じ連絡順位は1回だけ");
            report.push(row.finding(Severity::Error, Code::RowRepeated, "priority", expected));
        }
        contact
    });
    finish(contacts, context)
}

fn read_row(row: &Row<'_>) -> GuardianContact {
    GuardianContact {
        student: row.id("student_id"),
        priority: row.number("priority").unwrap_or_default(),
        name: row.text("name"),
        kana: row.text("kana"),
        relationship: row.text("relationship"),
        phone1: row.text("phone1"),
        phone2: row.text("phone2"),
        email: row.text("email"),
        lives_with: row.boolean("lives_with"),
    }
}

/// A contact without any number or address helps nobody.
fn check_reachable(row: &Row<'_>, report: &mut Report) {
    if ["phone1", "phone2", "email"].iter().all(|key| row.str(key).is_empty()) {
        let expected = Phrase::fixed("a telephone number or a mail address", "電話番号かメールアドレス");
        report.push(row.finding(Severity::Warning, Code::ValueMissing, "phone1", expected));
    }
}

/// Writes a contacts file: UTF-8 without byte order mark, CRLF.
///
/// # Errors
/// [`WriteError::Table`] or [`WriteError::Io`], which writing to memory does not cause in practice.
pub fn write_contacts(contacts: &[GuardianContact]) -> Result<Vec<u8>, WriteError> {
    let header = CONTACTS.columns.iter().map(|column| column.name.to_owned()).collect();
    let rows = contacts.iter().map(|contact| {
        vec![
            contact.student.to_string(),
            contact.priority.to_string(),
            contact.name.clone(),
            contact.kana.clone(),
            contact.relationship.clone(),
            contact.phone1.clone(),
            contact.phone2.clone(),
            contact.email.clone(),
            contact.lives_with.map(|lives| lives.to_string()).unwrap_or_default(),
        ]
    });
    encode(CONTACTS.name, std::iter::once(header).chain(rows))
}
