//! Owns the roster in memory: what a OneRoster package of the Japan Profile says, as typed records.
//!
//! Invariants: plain texts are empty when the file had no value; dates are calendar days without a zone;
//! a roster from [`crate::read_zip`] has no dangling reference and no repeated identifier within a file.
//! Leaves out: official (MJ) names, addresses, guardians' contacts, attendance and marks, which have no place
//! in OneRoster; and passwords, which are never kept. `Debug` shows people's data: never log it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use time::Date;

use crate::vocabulary::{ClassType, EnrollmentRole, OrgType, Role, RoleType, SessionType, Sex};

/// Identifier of a record: 1 to 128 characters, in practice a UUID version 4 in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SourcedId(String);

impl SourcedId {
    /// Makes an identifier of a text that was checked before or made by us.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourcedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Columns that the profile does not know, by name as in the file; empty values are left out.
pub type Extra = BTreeMap<String, String>;

/// A whole package. Records stand in the order of their files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// Who made the package.
    pub manifest: Manifest,
    /// Education boards and schools.
    pub orgs: Vec<Org>,
    /// School years.
    pub academic_sessions: Vec<AcademicSession>,
    /// Courses: in Japan one for the homeroom and one for each subject.
    pub courses: Vec<Course>,
    /// Classes.
    pub classes: Vec<Class>,
    /// Pupils, staff and others.
    pub users: Vec<User>,
    /// What users are at organisations.
    pub roles: Vec<RoleAssignment>,
    /// Who is in which class.
    pub enrollments: Vec<Enrollment>,
    /// Birth dates and sexes; may be empty although there are users.
    pub demographics: Vec<Demographics>,
}

impl Roster {
    /// The schools.
    pub fn schools(&self) -> impl Iterator<Item = &Org> {
        self.orgs.iter().filter(|org| org.org_type == OrgType::School)
    }

    /// Identifiers of all users that have the role of a pupil somewhere.
    pub fn pupils(&self) -> BTreeSet<SourcedId> {
        let pupil_roles = self.roles.iter().filter(|held| held.role == Role::Student);
        pupil_roles.map(|held| held.user.clone()).collect()
    }
}

/// What the manifest says about the system that made the package.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// `source.systemName`; may be empty.
    pub source_name: String,
    /// `source.systemCode`; may be empty.
    pub source_code: String,
}

/// An education board (教育委員会) or a school.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Identifier.
    pub id: SourcedId,
    /// Name.
    pub name: String,
    /// Board or school.
    pub org_type: OrgType,
    /// 学校コード (13 characters) of a school, 教育委員会コード (6 digits) of a board.
    pub identifier: String,
    /// The board of a school; none for a board.
    pub parent: Option<SourcedId>,
    /// Unknown columns.
    pub extra: Extra,
}

/// A school year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcademicSession {
    /// Identifier.
    pub id: SourcedId,
    /// `YYYY年度`.
    pub title: String,
    /// Always a school year, or an extension.
    pub session_type: SessionType,
    /// First day.
    pub start: Date,
    /// Last day.
    pub end: Date,
    /// Another session that contains this one; unused in Japan.
    pub parent: Option<SourcedId>,
    /// The year, four digits.
    pub school_year: String,
    /// Unknown columns.
    pub extra: Extra,
}

/// A course.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Identifier.
    pub id: SourcedId,
    /// The school year.
    pub school_year: Option<SourcedId>,
    /// Begins with `YYYY年度`.
    pub title: String,
    /// Empty in the Japan Profile.
    pub course_code: String,
    /// Grade codes, see [`crate::GRADES`].
    pub grades: Vec<String>,
    /// The school.
    pub org: SourcedId,
    /// Names of subjects.
    pub subjects: Vec<String>,
    /// Codes of subjects, as many as `subjects`.
    pub subject_codes: Vec<String>,
    /// Unknown columns.
    pub extra: Extra,
}

/// A class (学級, or a class of a subject).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Identifier.
    pub id: SourcedId,
    /// Name, for example `1年1組`.
    pub title: String,
    /// Grade codes.
    pub grades: Vec<String>,
    /// The course.
    pub course: SourcedId,
    /// Code of the class; may be empty.
    pub class_code: String,
    /// Homeroom or of a subject.
    pub class_type: ClassType,
    /// Room; may be empty.
    pub location: String,
    /// The school.
    pub school: SourcedId,
    /// The sessions in which it is held.
    pub terms: Vec<SourcedId>,
    /// Names of subjects.
    pub subjects: Vec<String>,
    /// Codes of subjects, as many as `subjects`.
    pub subject_codes: Vec<String>,
    /// Periods of the day.
    pub periods: Vec<String>,
    /// Whether it is a class for special needs (特別支援学級), where stated.
    pub special_needs: Option<bool>,
    /// Unknown columns.
    pub extra: Extra,
}

/// A person. Names are in JIS characters, kana are full-width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Identifier.
    pub id: SourcedId,
    /// Whether the person may use systems; absent counts as true.
    pub enabled: bool,
    /// Login name; may be empty.
    pub username: String,
    /// Further ids, each `{type:id}`.
    pub user_ids: Vec<String>,
    /// Given name.
    pub given_name: String,
    /// Family name.
    pub family_name: String,
    /// Middle name; may be empty.
    pub middle_name: String,
    /// Number at the school (学籍番号); may be empty.
    pub identifier: String,
    /// Mail address; may be empty.
    pub email: String,
    /// Number for text messages; may be empty.
    pub sms: String,
    /// Telephone number; may be empty.
    pub phone: String,
    /// Users who care for this one. Read, never written.
    pub agents: Vec<SourcedId>,
    /// Grade codes.
    pub grades: Vec<String>,
    /// UUID that stays when the person changes school.
    pub master_identifier: Option<SourcedId>,
    /// Resources (users.csv of OneRoster 1.2.0 only).
    pub resources: Vec<String>,
    /// Given name in use (通称名).
    pub preferred_given_name: String,
    /// Middle name in use.
    pub preferred_middle_name: String,
    /// Family name in use.
    pub preferred_family_name: String,
    /// The main organisation.
    pub primary_org: Option<SourcedId>,
    /// Pronouns; may be empty.
    pub pronouns: String,
    /// Kana of the given name.
    pub kana_given_name: String,
    /// Kana of the family name.
    pub kana_family_name: String,
    /// Kana of the middle name.
    pub kana_middle_name: String,
    /// The homeroom class of a pupil.
    pub home_class: Option<SourcedId>,
    /// Kana of the family name in use (JP 1.2.1 and K-12/Schools only).
    pub kana_preferred_family_name: String,
    /// Kana of the given name in use.
    pub kana_preferred_given_name: String,
    /// Kana of the middle name in use.
    pub kana_preferred_middle_name: String,
    /// Unknown columns.
    pub extra: Extra,
}

/// What a user is at an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleAssignment {
    /// Identifier.
    pub id: SourcedId,
    /// The user.
    pub user: SourcedId,
    /// Main or further role.
    pub role_type: RoleType,
    /// The role.
    pub role: Role,
    /// First day, where stated.
    pub begin: Option<Date>,
    /// Last day, where stated.
    pub end: Option<Date>,
    /// The organisation.
    pub org: SourcedId,
    /// Unknown columns.
    pub extra: Extra,
}

/// That a user is in a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Identifier.
    pub id: SourcedId,
    /// The class.
    pub class: SourcedId,
    /// The school.
    pub school: SourcedId,
    /// The user.
    pub user: SourcedId,
    /// Pupil, teacher, …
    pub role: EnrollmentRole,
    /// Whether a teacher is the responsible one (担任); false or absent for pupils.
    pub primary: Option<bool>,
    /// First day, where stated.
    pub begin: Option<Date>,
    /// Last day, where stated.
    pub end: Option<Date>,
    /// 出席番号.
    pub attendance_number: Option<u32>,
    /// Whether the pupil is in the public register (公簿) of this class.
    pub in_public_register: Option<bool>,
    /// Unknown columns.
    pub extra: Extra,
}

/// Facts about a person that OneRoster keeps apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demographics {
    /// The user's identifier.
    pub user: SourcedId,
    /// Birth date.
    pub birth_date: Option<Date>,
    /// Sex.
    pub sex: Option<Sex>,
    /// The standard columns that Japan leaves empty (race, place of birth) and unknown ones, where filled.
    pub extra: Extra,
}
