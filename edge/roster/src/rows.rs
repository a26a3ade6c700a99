//! Owns the mapping between rows and records, in both directions, one pair of functions for each file.
//!
//! Invariants: what `read` takes from a column, `cells` gives back under the same key; checks that concern
//! one record stand in its `read`. Leaves out: people (`rows/people.rs`) and checks across files
//! (`relations.rs`).

mod people;

use std::collections::BTreeMap;

use time::Date;

use crate::cell::{format_date, is_board_code, is_school_code};
use crate::model::{AcademicSession, Class, Course, Extra, Org, SourcedId};
use crate::report::{Code, Phrase, Report, Severity};
use crate::schema::{self, FileSpec};
use crate::table::Row;
use crate::vocabulary::{ClassType, OrgType, SessionType};

/// The filled cells of a record by column key, and its unknown columns.
pub(crate) struct Cells<'a> {
    pub(crate) known: BTreeMap<&'static str, String>,
    pub(crate) extra: &'a Extra,
}

/// A record that is one row of a file.
pub(crate) trait Record: Sized {
    /// The file.
    const FILE: &'static FileSpec;
    /// Builds a record from a checked row.
    fn read(row: &Row<'_>, report: &mut Report) -> Self;
    /// Gives the cells to write.
    fn cells(&self) -> Cells<'_>;
}

fn cells<'a, const N: usize>(extra: &'a Extra, known: [(&'static str, String); N]) -> Cells<'a> {
    Cells { known: known.into_iter().filter(|(_, value)| !value.is_empty()).collect(), extra }
}

fn id(id: &SourcedId) -> String {
    id.as_str().to_owned()
}

fn maybe_id(id: Option<&SourcedId>) -> String {
    id.map(|id| id.as_str().to_owned()).unwrap_or_default()
}

fn ids(ids: &[SourcedId]) -> String {
    ids.iter().map(SourcedId::as_str).collect::<Vec<_>>().join(",")
}

fn date(date: Option<Date>) -> String {
    date.map(format_date).unwrap_or_default()
}

fn boolean(value: Option<bool>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Reports a period that ends before it begins.
fn check_period(row: &Row<'_>, begin: &str, end: &str, report: &mut Report) {
    if let (Some(from), Some(to)) = (row.date(begin), row.date(end))
        && to < from
    {
        let expected = Phrase::made(format!("a day not before {begin}"), format!("{begin} 以後の日"));
        report.push(row.finding(Severity::Error, Code::DatesReversed, end, expected));
    }
}

/// Reports lists of subjects and of their codes that do not pair up. Codes alone or names alone are accepted
/// when the other list is empty.
fn check_subjects(row: &Row<'_>, report: &mut Report) {
    let (names, codes) = (row.list("subjects").len(), row.list("subjectCodes").len());
    if names != codes {
        let expected =
            Phrase::made(format!("{names} codes, as many as subjects"), format!("subjectsと同じ{names}個"));
        report.push(row.finding(Severity::Error, Code::ListLengths, "subjectCodes", expected));
    }
}

impl Record for Org {
    const FILE: &'static FileSpec = &schema::ORGS;

    fn read(row: &Row<'_>, report: &mut Report) -> Self {
        let org_type = OrgType::parse(row.str("type")).unwrap_or(OrgType::School);
        let parent = row.id_if_any("parentSourcedId");
        let identifier = row.text("identifier");
        match org_type {
            OrgType::School => {
                if parent.is_none() {
                    let expected = Phrase::fixed("the sourcedId of a district", "type=districtのsourcedId");
                    let code = Code::SchoolWithoutDistrict;
                    report.push(row.finding(Severity::Error, code, "parentSourcedId", expected));
                }
                if !is_school_code(&identifier) {
                    let severity = if identifier.is_empty() { Severity::Error } else { Severity::Warning };
                    let expected = Phrase::fixed("a school code of 13 characters", "13文字の学校コード");
                    report.push(row.finding(severity, Code::SchoolCode, "identifier", expected));
                }
            }
            OrgType::District => {
                if parent.is_some() {
                    let expected = Phrase::fixed("an empty field", "空欄");
                    let code = Code::DistrictWithParent;
                    report.push(row.finding(Severity::Error, code, "parentSourcedId", expected));
                }
                if !is_board_code(&identifier) {
                    let expected = Phrase::fixed("a board's code of 6 digits", "6桁の教育委員会コード");
                    report.push(row.finding(Severity::Warning, Code::BoardCode, "identifier", expected));
                }
            }
            OrgType::Ext(_) => {}
        }
        Self {
            id: row.id("sourcedId"),
            name: row.text("name"),
            org_type,
            identifier,
            parent,
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("name", self.name.clone()),
                ("type", self.org_type.to_string()),
                ("identifier", self.identifier.clone()),
                ("parentSourcedId", maybe_id(self.parent.as_ref())),
            ],
        )
    }
}

impl Record for AcademicSession {
    const FILE: &'static FileSpec = &schema::ACADEMIC_SESSIONS;

    fn read(row: &Row<'_>, report: &mut Report) -> Self {
        check_period(row, "startDate", "endDate", report);
        Self {
            id: row.id("sourcedId"),
            title: row.text("title"),
            session_type: SessionType::parse(row.str("type")).unwrap_or(SessionType::SchoolYear),
            start: row.date("startDate").unwrap_or(Date::MIN),
            end: row.date("endDate").unwrap_or(Date::MIN),
            parent: row.id_if_any("parentSourcedId"),
            school_year: row.text("schoolYear"),
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("title", self.title.clone()),
                ("type", self.session_type.to_string()),
                ("startDate", format_date(self.start)),
                ("endDate", format_date(self.end)),
                ("parentSourcedId", maybe_id(self.parent.as_ref())),
                ("schoolYear", self.school_year.clone()),
            ],
        )
    }
}

impl Record for Course {
    const FILE: &'static FileSpec = &schema::COURSES;

    fn read(row: &Row<'_>, report: &mut Report) -> Self {
        check_subjects(row, report);
        Self {
            id: row.id("sourcedId"),
            school_year: row.id_if_any("schoolYearSourcedId"),
            title: row.text("title"),
            course_code: row.text("courseCode"),
            grades: row.list("grades"),
            org: row.id("orgSourcedId"),
            subjects: row.list("subjects"),
            subject_codes: row.list("subjectCodes"),
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("schoolYearSourcedId", maybe_id(self.school_year.as_ref())),
                ("title", self.title.clone()),
                ("courseCode", self.course_code.clone()),
                ("grades", self.grades.join(",")),
                ("orgSourcedId", id(&self.org)),
                ("subjects", self.subjects.join(",")),
                ("subjectCodes", self.subject_codes.join(",")),
            ],
        )
    }
}

impl Record for Class {
    const FILE: &'static FileSpec = &schema::CLASSES;

    fn read(row: &Row<'_>, report: &mut Report) -> Self {
        check_subjects(row, report);
        Self {
            id: row.id("sourcedId"),
            title: row.text("title"),
            grades: row.list("grades"),
            course: row.id("courseSourcedId"),
            class_code: row.text("classCode"),
            class_type: ClassType::parse(row.str("classType")).unwrap_or(ClassType::Homeroom),
            location: row.text("location"),
            school: row.id("schoolSourcedId"),
            terms: row.ids("termSourcedIds"),
            subjects: row.list("subjects"),
            subject_codes: row.list("subjectCodes"),
            periods: row.list("periods"),
            special_needs: row.boolean("metadata.jp.specialNeeds"),
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("title", self.title.clone()),
                ("grades", self.grades.join(",")),
                ("courseSourcedId", id(&self.course)),
                ("classCode", self.class_code.clone()),
                ("classType", self.class_type.to_string()),
                ("location", self.location.clone()),
                ("schoolSourcedId", id(&self.school)),
                ("termSourcedIds", ids(&self.terms)),
                ("subjects", self.subjects.join(",")),
                ("subjectCodes", self.subject_codes.join(",")),
                ("periods", self.periods.join(",")),
                ("metadata.jp.specialNeeds", boolean(self.special_needs)),
            ],
        )
    }
}
