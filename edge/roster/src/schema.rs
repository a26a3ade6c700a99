//! Owns the description of every CSV file: its columns, in order, and what a cell may hold.
//!
//! Invariants: a column's `name` is its key in this crate, whatever an edition calls it; the order is that of
//! the widest edition, so that leaving columns out gives every edition's order.
//! Leaves out: which edition leaves out or renames what (`profile.rs`), and how cells are checked (`cell.rs`).
//!
//! # Source
//! OneRoster 1.2 CSV binding; Japan Profile 1.1 and 1.2.1 and K-12/Schools Profile as read from public
//! implementations. The profile documents themselves were not seen, hence data and not code.

use crate::vocabulary::{ClassType, EnrollmentRole, GRADES, OrgType, Role, RoleType, SessionType, Sex};

/// Whether something has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its absence is an error.
    Required,
    /// Its absence is accepted.
    Optional,
}

/// What a cell may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The record's own identifier.
    Id,
    /// The record's own identifier, which is also one in the named file.
    IdIn(&'static str),
    /// A UUID version 4 that refers to nothing in the package.
    Uuid,
    /// An identifier in the named file.
    Reference(&'static str),
    /// Identifiers in the named file, separated by commas.
    References(&'static str),
    /// Any text of one line.
    Text,
    /// Any text, line breaks included.
    Note,
    /// Kana, full-width.
    Kana,
    /// `YYYY-MM-DD`.
    Date,
    /// One of these words, or `ext:…`.
    Word(&'static [&'static str]),
    /// One of these words and nothing else.
    StrictWord(&'static [&'static str]),
    /// Some of these words, separated by commas, or `ext:…`.
    Words(&'static [&'static str]),
    /// A whole number from 1 to 9999.
    Number,
    /// Four digits.
    Year,
    /// `YYYY年度`, and nothing after it.
    YearTitle,
    /// A text that begins with `YYYY年度`.
    YearPrefix,
    /// Texts separated by commas.
    List,
    /// Telephone number: digits, `+`, `-`, parentheses, at least 6 digits.
    Phone,
    /// Mail address.
    Email,
    /// A code of lower-case ASCII letters, digits and `_`, up to 32 characters.
    Token,
    /// Must be empty in a bulk file.
    Blank,
    /// Is never read, for it is nobody's business (passwords) or points to a file that is not imported.
    Unkept,
}

impl Kind {
    /// Whether it is the record's own identifier.
    pub(crate) fn is_own_id(self) -> bool {
        matches!(self, Self::Id | Self::IdIn(_))
    }

    /// Whether it holds one identifier, its own or another's.
    pub(crate) fn is_identifier(self) -> bool {
        self.is_own_id() || matches!(self, Self::Uuid | Self::Reference(_))
    }
}

/// `true` or `false`, as OneRoster writes them.
pub(crate) const BOOLEAN: Kind = Kind::StrictWord(&["true", "false"]);

/// One column of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name in the newest edition, and key in this crate.
    pub name: &'static str,
    /// Other spellings, by edition.
    pub aliases: &'static [&'static str],
    /// What a cell may hold.
    pub kind: Kind,
    /// Whether the column has to be in the header.
    pub header: Need,
    /// Whether a cell has to be filled.
    pub value: Need,
}

/// One CSV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSpec {
    /// Name in the package, for example `orgs.csv`.
    pub name: &'static str,
    /// Name in the manifest, for example `file.orgs`; empty for files outside of OneRoster.
    pub property: &'static str,
    /// Whether a package has to have it.
    pub need: Need,
    /// The columns of all editions, in order.
    pub columns: &'static [Column],
}

/// A column that has to be there and whose cells have to be filled.
const fn must(name: &'static str, kind: Kind) -> Column {
    Column { name, aliases: &[], kind, header: Need::Required, value: Need::Required }
}

/// A column that has to be there; its cells may be empty.
const fn may(name: &'static str, kind: Kind) -> Column {
    Column { name, aliases: &[], kind, header: Need::Required, value: Need::Optional }
}

/// A column that may be missing altogether.
const fn loose(name: &'static str, kind: Kind) -> Column {
    Column { name, aliases: &[], kind, header: Need::Optional, value: Need::Optional }
}

const fn alias(name: &'static str, aliases: &'static [&'static str], kind: Kind) -> Column {
    Column { name, aliases, kind, header: Need::Optional, value: Need::Optional }
}

const STATUS: Column = loose("status", Kind::Blank);
const MODIFIED: Column = loose("dateLastModified", Kind::Blank);

/// `manifest.csv`.
pub const MANIFEST: FileSpec = FileSpec {
    name: "manifest.csv",
    property: "",
    need: Need::Required,
    columns: &[must("propertyName", Kind::Text), may("value", Kind::Text)],
};

/// `orgs.csv`.
pub const ORGS: FileSpec = FileSpec {
    name: "orgs.csv",
    property: "file.orgs",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        must("name", Kind::Text),
        must("type", Kind::Word(OrgType::WORDS)),
        may("identifier", Kind::Text),
        may("parentSourcedId", Kind::Reference("orgs.csv")),
    ],
};

/// `academicSessions.csv`.
pub const ACADEMIC_SESSIONS: FileSpec = FileSpec {
    name: "academicSessions.csv",
    property: "file.academicSessions",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        must("title", Kind::YearTitle),
        must("type", Kind::Word(SessionType::WORDS)),
        must("startDate", Kind::Date),
        must("endDate", Kind::Date),
        loose("parentSourcedId", Kind::Reference("academicSessions.csv")),
        must("schoolYear", Kind::Year),
    ],
};

/// `courses.csv`.
pub const COURSES: FileSpec = FileSpec {
    name: "courses.csv",
    property: "file.courses",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        may("schoolYearSourcedId", Kind::Reference("academicSessions.csv")),
        must("title", Kind::YearPrefix),
        loose("courseCode", Kind::Text),
        loose("grades", Kind::Words(GRADES)),
        must("orgSourcedId", Kind::Reference("orgs.csv")),
        loose("subjects", Kind::List),
        loose("subjectCodes", Kind::List),
    ],
};

/// `classes.csv`.
pub const CLASSES: FileSpec = FileSpec {
    name: "classes.csv",
    property: "file.classes",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        must("title", Kind::Text),
        may("grades", Kind::Words(GRADES)),
        must("courseSourcedId", Kind::Reference("courses.csv")),
        loose("classCode", Kind::Text),
        must("classType", Kind::Word(ClassType::WORDS)),
        loose("location", Kind::Text),
        must("schoolSourcedId", Kind::Reference("orgs.csv")),
        must("termSourcedIds", Kind::References("academicSessions.csv")),
        loose("subjects", Kind::List),
        loose("subjectCodes", Kind::List),
        loose("periods", Kind::List),
        loose("metadata.jp.specialNeeds", BOOLEAN),
    ],
};

/// `users.csv`.
pub const USERS: FileSpec = FileSpec {
    name: "users.csv",
    property: "file.users",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        may("enabledUser", BOOLEAN),
        may("username", Kind::Text),
        loose("userIds", Kind::List),
        must("givenName", Kind::Text),
        must("familyName", Kind::Text),
        loose("middleName", Kind::Text),
        loose("identifier", Kind::Text),
        loose("email", Kind::Text),
        loose("sms", Kind::Text),
        loose("phone", Kind::Text),
        loose("agentSourcedIds", Kind::References("users.csv")),
        may("grades", Kind::Words(GRADES)),
        loose("password", Kind::Unkept),
        may("userMasterIdentifier", Kind::Uuid),
        loose("resourceSourcedIds", Kind::List),
        loose("preferredGivenName", Kind::Text),
        loose("preferredMiddleName", Kind::Text),
        loose("preferredFamilyName", Kind::Text),
        may("primaryOrgSourcedId", Kind::Reference("orgs.csv")),
        loose("pronouns", Kind::Text),
        may("metadata.jp.kanaGivenName", Kind::Kana),
        may("metadata.jp.kanaFamilyName", Kind::Kana),
        loose("metadata.jp.kanaMiddleName", Kind::Kana),
        may("metadata.jp.homeClass", Kind::Reference("classes.csv")),
        loose("metadata.jp.kanaPreferredFamilyName", Kind::Kana),
        loose("metadata.jp.kanaPreferredGivenName", Kind::Kana),
        loose("metadata.jp.kanaPreferredMiddleName", Kind::Kana),
    ],
};

/// `roles.csv`.
pub const ROLES: FileSpec = FileSpec {
    name: "roles.csv",
    property: "file.roles",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        must("userSourcedId", Kind::Reference("users.csv")),
        must("roleType", Kind::Word(RoleType::WORDS)),
        must("role", Kind::Word(Role::WORDS)),
        loose("beginDate", Kind::Date),
        loose("endDate", Kind::Date),
        must("orgSourcedId", Kind::Reference("orgs.csv")),
        loose("userProfileSourcedId", Kind::Unkept),
    ],
};

/// `enrollments.csv`.
pub const ENROLLMENTS: FileSpec = FileSpec {
    name: "enrollments.csv",
    property: "file.enrollments",
    need: Need::Required,
    columns: &[
        must("sourcedId", Kind::Id),
        STATUS,
        MODIFIED,
        must("classSourcedId", Kind::Reference("classes.csv")),
        must("schoolSourcedId", Kind::Reference("orgs.csv")),
        must("userSourcedId", Kind::Reference("users.csv")),
        must("role", Kind::Word(EnrollmentRole::WORDS)),
        loose("primary", BOOLEAN),
        loose("beginDate", Kind::Date),
        loose("endDate", Kind::Date),
        alias("metadata.jp.shussekiNo", &["metadata.jp.ShussekiNo"], Kind::Number),
        alias("metadata.jp.publicFlg", &["metadata.jp.PublicFlg"], BOOLEAN),
    ],
};

/// `demographics.csv`.
pub const DEMOGRAPHICS: FileSpec = FileSpec {
    name: "demographics.csv",
    property: "file.demographics",
    need: Need::Optional,
    columns: &[
        must("sourcedId", Kind::IdIn("users.csv")),
        STATUS,
        MODIFIED,
        may("birthDate", Kind::Date),
        may("sex", Kind::Word(Sex::WORDS)),
        loose("americanIndianOrAlaskaNative", Kind::Text),
        loose("asian", Kind::Text),
        loose("blackOrAfricanAmerican", Kind::Text),
        loose("nativeHawaiianOrOtherPacificIslander", Kind::Text),
        loose("white", Kind::Text),
        loose("demographicRaceTwoOrMoreRaces", Kind::Text),
        loose("hispanicOrLatinoEthnicity", Kind::Text),
        loose("countryOfBirthCode", Kind::Text),
        loose("stateOfBirthAbbreviation", Kind::Text),
        loose("cityOfBirth", Kind::Text),
        loose("publicSchoolResidenceStatus", Kind::Text),
    ],
};

/// The files that are imported, in the order in which they are read: referred to before referring.
pub const FILES: &[&FileSpec] =
    &[&ORGS, &ACADEMIC_SESSIONS, &COURSES, &CLASSES, &USERS, &ROLES, &ENROLLMENTS, &DEMOGRAPHICS];

/// Guardians' contacts, see [`crate::contacts`].
pub const CONTACTS: FileSpec = FileSpec {
    name: "contacts.csv",
    property: "",
    need: Need::Optional,
    columns: &[
        must("student_id", Kind::Reference("users.csv")),
        must("priority", Kind::Number),
        must("name", Kind::Text),
        may("kana", Kind::Kana),
        may("relationship", Kind::Text),
        may("phone1", Kind::Phone),
        may("phone2", Kind::Phone),
        may("email", Kind::Email),
        may("lives_with", BOOLEAN),
    ],
};

/// Attendance, see [`crate::attendance`].
pub const ATTENDANCE: FileSpec = FileSpec {
    name: "attendance.csv",
    property: "",
    need: Need::Optional,
    columns: &[
        must("date", Kind::Date),
        must("student_id", Kind::Reference("users.csv")),
        must("period", Kind::StrictWord(crate::attendance::PERIODS)),
        must("code", Kind::Token),
        may("reason_text", Kind::Note),
    ],
};
