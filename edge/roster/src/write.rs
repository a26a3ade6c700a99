//! Owns the export of a roster as a package of one edition of the profile.
//!
//! Invariants: the same roster and edition give the same bytes; `status` and `dateLastModified` are empty; no
//! password, guardian or link to one is ever written; a package that our own reader would refuse is not given
//! out. Leaves out: the file's name, which the caller makes with [`package_name`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Write};

use csv::Terminator;
use time::Date;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::limits::Limits;
use crate::model::{Roster, SourcedId};
use crate::profile::Profile;
use crate::read::read_zip;
use crate::report::Report;
use crate::rows::Record;
use crate::schema::{Column, Kind};
use crate::vocabulary::{EnrollmentRole, Role};

/// Why a package could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The roster breaks the profile; the report says where. Repair the roster.
    #[error("the roster does not fit the profile")]
    Refused {
        /// What our own reader found.
        report: Report,
    },
    /// Making a CSV file in memory failed.
    #[error("making {file} failed")]
    Table {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: csv::Error,
    },
    /// Making the zip file in memory failed.
    #[error("making the zip file failed")]
    Zip(#[source] zip::result::ZipError),
    /// The writer failed; it may hold a part of the package.
    #[error("writing the package failed")]
    Io(#[from] std::io::Error),
}

/// What a roster has and the package does not, counted by file and column, such as `users.csv` and
/// `agentSourcedIds`. The column is empty where whole rows were left out.
pub type Dropped = BTreeMap<(&'static str, String), u64>;

/// The files that a manifest lists, in the order of the standard.
const MANIFEST_FILES: &[&str] = &[
    "academicSessions",
    "categories",
    "classes",
    "classResources",
    "courses",
    "courseResources",
    "demographics",
    "enrollments",
    "lineItemLearningObjectiveIds",
    "lineItems",
    "lineItemScoreScales",
    "orgs",
    "resources",
    "resultLearningObjectiveIds",
    "results",
    "resultScoreScales",
    "roles",
    "scoreScales",
    "userProfiles",
    "userResources",
    "users",
];

/// Makes a package's name: `RO_YYYYMMDD_[学校コード].zip`.
pub fn package_name(date: Date, school_code: &str) -> String {
    format!("RO_{:04}{:02}{:02}_{school_code}.zip", date.year(), u8::from(date.month()), date.day())
}

/// Writes a roster as a bulk package of one edition.
///
/// Returns what the edition has no column for, and what never leaves: guardians and links to them.
///
/// # Errors
/// [`WriteError::Refused`] if the package would not be readable again; nothing was written then.
///
/// # Durability
/// None: flushing and syncing are the caller's.
pub fn write_zip(roster: &Roster, profile: &Profile, mut writer: impl Write) -> Result<Dropped, WriteError> {
    let (bytes, dropped) = make_zip(roster, profile)?;
    if let Err(report) = read_zip(Cursor::new(&bytes), &Limits::default()) {
        return Err(WriteError::Refused { report });
    }
    writer.write_all(&bytes)?;
    Ok(dropped)
}

fn make_zip(roster: &Roster, profile: &Profile) -> Result<(Vec<u8>, Dropped), WriteError> {
    let mut dropped = Dropped::new();
    let guardians = guardians(roster);
    let is_kept = |id: &SourcedId| !guardians.contains(id);
    let enrolls = |role: &EnrollmentRole| *role != EnrollmentRole::Guardian;
    let files = [
        ("manifest.csv", manifest(roster, profile)?),
        table(&roster.academic_sessions, |_| true, profile, &mut dropped)?,
        table(&roster.orgs, |_| true, profile, &mut dropped)?,
        table(&roster.courses, |_| true, profile, &mut dropped)?,
        table(&roster.classes, |_| true, profile, &mut dropped)?,
        table(&roster.users, |user| is_kept(&user.id), profile, &mut dropped)?,
        table(&roster.roles, |held| is_kept(&held.user), profile, &mut dropped)?,
        table(&roster.enrollments, |one| is_kept(&one.user) && enrolls(&one.role), profile, &mut dropped)?,
        table(&roster.demographics, |facts| is_kept(&facts.user), profile, &mut dropped)?,
    ];
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // The earliest time that zip can express: a package says nothing about when it was made but its name.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    for (name, bytes) in files {
        zip.start_file(name, options).map_err(WriteError::Zip)?;
        zip.write_all(&bytes)?;
    }
    let bytes = zip.finish().map_err(WriteError::Zip)?.into_inner();
    Ok((bytes, dropped))
}

/// Users who are guardians, parents or relatives and nothing else.
fn guardians(roster: &Roster) -> BTreeSet<&SourcedId> {
    let is_guardian = |role: &Role| matches!(role, Role::Guardian | Role::Parent | Role::Relative);
    let of_kind = |wanted: bool| {
        let held = roster.roles.iter().filter(move |held| is_guardian(&held.role) == wanted);
        held.map(|held| &held.user).collect::<BTreeSet<_>>()
    };
    of_kind(true).difference(&of_kind(false)).copied().collect()
}

fn manifest(roster: &Roster, profile: &Profile) -> Result<Vec<u8>, WriteError> {
    let mut rows = vec![
        ["propertyName".to_owned(), "value".to_owned()],
        ["manifest.version".to_owned(), "1.0".to_owned()],
        ["oneroster.version".to_owned(), profile.oneroster_version.to_owned()],
    ];
    for file in MANIFEST_FILES {
        let property = format!("file.{file}");
        let is_written = crate::schema::FILES.iter().any(|known| known.property == property);
        rows.push([property, if is_written { "bulk" } else { "absent" }.to_owned()]);
    }
    rows.push(["source.systemName".to_owned(), roster.manifest.source_name.clone()]);
    rows.push(["source.systemCode".to_owned(), roster.manifest.source_code.clone()]);
    encode("manifest.csv", &rows)
}

/// Encodes rows as RFC 4180 says: CRLF, quotation marks where needed.
pub(crate) fn encode<F: AsRef<[u8]>, I: IntoIterator<Item = F>>(
    file: &'static str,
    rows: impl IntoIterator<Item = I>,
) -> Result<Vec<u8>, WriteError> {
    let mut csv = csv::WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    for row in rows {
        csv.write_record(row).map_err(|source| WriteError::Table { file, source })?;
    }
    csv.into_inner().map_err(|failure| WriteError::Io(failure.into_error()))
}

/// Makes one file, in the edition's columns and then its unknown `metadata.*` columns by name.
fn table<T: Record>(
    records: &[T],
    is_kept: impl Fn(&T) -> bool,
    profile: &Profile,
    dropped: &mut Dropped,
) -> Result<(&'static str, Vec<u8>), WriteError> {
    let file = T::FILE;
    let columns: Vec<(&Column, &str)> = profile.columns(file).collect();
    let has_column = |key: &str| columns.iter().any(|(column, _)| column.name == key);
    let kept: Vec<&T> = records.iter().filter(|record| is_kept(record)).collect();
    let mut count = |column: &str, rows: usize| {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        if rows > 0 {
            *dropped.entry((file.name, column.to_owned())).or_default() += rows;
        }
    };
    count("", records.len() - kept.len());
    let mut further = BTreeSet::new();
    for record in &kept {
        let cells = record.cells();
        for key in cells.known.keys().filter(|key| !has_column(key) || is_withheld(key)) {
            count(key, 1);
        }
        for key in cells.extra.keys().filter(|key| !has_column(key)) {
            if key.starts_with("metadata.") && !is_known_column::<T>(key) {
                further.insert(key.clone());
            } else {
                count(key, 1);
            }
        }
    }
    let header = columns.iter().map(|(_, spelling)| (*spelling).to_owned()).chain(further.iter().cloned());
    let mut rows: Vec<Vec<String>> = vec![header.collect()];
    for record in kept {
        let cells = record.cells();
        let known = columns.iter().map(|(column, _)| {
            let is_empty = is_withheld(column.name) || matches!(column.kind, Kind::Blank | Kind::Unkept);
            let value = cells.known.get(column.name).or_else(|| cells.extra.get(column.name));
            value.filter(|_| !is_empty).cloned().unwrap_or_default()
        });
        let unknown = further.iter().map(|key| cells.extra.get(key).cloned().unwrap_or_default());
        rows.push(known.chain(unknown).collect());
    }
    Ok((file.name, encode(file.name, &rows)?))
}

/// Links to guardians stay at the school.
fn is_withheld(key: &str) -> bool {
    key == "agentSourcedIds"
}

fn is_known_column<T: Record>(key: &str) -> bool {
    T::FILE.columns.iter().any(|column| column.name == key || column.aliases.contains(&key))
}
