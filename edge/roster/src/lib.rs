//! Reads and writes school rosters: OneRoster in the Japan Profile, and the plain CSV files beside it.
//!
//! - [`read_zip`] takes a OneRoster package of any known edition and gives a [`Roster`], or a [`Report`] of
//!   everything that is wrong with it. [`write_zip`] writes one edition of [`PROFILES`].
//! - [`read_contacts`] and [`read_attendance`] do the same for what OneRoster has no place for.
//!
//! Invariants: nothing is accepted by halves; no input makes a reader panic, write to disk or use more memory
//! than [`Limits`] allows; passwords are never kept, and guardians never leave in a OneRoster package.
//! Leaves out: what becomes of a roster in the store (three-way import, see the appliance), delta packages,
//! OneRoster 1.1, and REST.
//!
//! ```
//! use sonae_roster::{Lang, Limits, read_zip};
//!
//! let report = read_zip(std::io::Cursor::new(b"no zip"), &Limits::default()).unwrap_err();
//! assert_eq!(report.findings()[0].code.id(), "not-a-zip");
//! assert!(report.text(Lang::Ja).contains("zipファイルではありません"));
//! ```

mod archive;
pub mod attendance;
mod cell;
pub mod contacts;
mod context;
mod encoding;
mod limits;
mod model;
mod plain;
mod profile;
mod read;
mod relations;
mod report;
mod rows;
pub mod schema;
mod table;
mod vocabulary;
mod write;

pub use attendance::{
    ATTENDANCE_CODES, AttendanceCode, AttendanceEntry, Period, read_attendance, write_attendance,
};
pub use contacts::{GuardianContact, read_contacts, write_contacts};
pub use limits::Limits;
pub use model::{
    AcademicSession, Class, Course, Demographics, Enrollment, Extra, Manifest, Org, RoleAssignment, Roster,
    SourcedId, User,
};
pub use plain::Known;
pub use profile::{PROFILES, Profile};
pub use read::{Accepted, Package, read_zip};
pub use report::{Code, EXCERPT_CHARS_MAX, Finding, Lang, Phrase, Report, Severity};
pub use vocabulary::{ClassType, EnrollmentRole, GRADES, OrgType, Role, RoleType, SessionType, Sex};
pub use write::{Dropped, WriteError, package_name, write_zip};
