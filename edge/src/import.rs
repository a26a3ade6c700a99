//! Imports: files of the school's system become actions of the store. Owns which field goes where; reading and
//! checking the files is `edge/roster`'s, the three-way comparison is the store's.
//!
//! **Invariant**: every file is read and checked whole before the first change is written.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sonae_proto::collection;
use sonae_proto::ids::{SchoolCode, Tier};
use sonae_roster::{
    ATTENDANCE_CODES, Known, Limits, Package, Report, SourcedId, read_attendance, read_contacts, read_zip,
};
use sonae_store::room::Shortage;
use sonae_store::{Action, Edit, Kept};

use crate::control::{Ask, ControlError, Replica};

/// Bytes of one file. The largest that a school of 2,000 writes is about 40 MB of attendance.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Edits of one action of attendance. A roster is one action, kept all or none; a year of attendance is larger
/// than a commit, so it goes in several, and importing the file again completes one that was cut off.
const EDITS_PER_ACTION: usize = 1_000;

/// Bytes of a change beside its fields: stamp, bases, source.
const CHANGE_BYTES: u64 = 150;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file has errors. Nothing was imported.
    #[error("{} has {} error(s); nothing was imported", path.display(), report.errors())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong, with file, line and column.
        report: Box<Report>,
    },
    /// The package is of another school. Nothing was imported.
    #[error("the package is of school {found}, this box is of {expected}; nothing was imported")]
    WrongSchool {
        /// Whose box it is.
        expected: SchoolCode,
        /// Schools of the package.
        found: String,
    },
    /// The kind of a file cannot be told.
    #[error("{} is neither a OneRoster zip nor a contacts.csv nor an attendance.csv; its first line names no known columns", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// The disk has no room for all of it. Nothing was imported.
    #[error(
        "this import needs {} MB of room, with what must stay free for daily work, and {} MB are left; nothing was \
         imported. Free some room or raise the quota, then import again\nこの取り込みには空き容量が足りません\
         （必要{}MB、空き{}MB）。何も取り込んでいません。空き容量を増やしてから、もう一度取り込んでください",
        megabytes(.0.needed_bytes), megabytes(.0.found_bytes), megabytes(.0.needed_bytes), megabytes(.0.found_bytes)
    )]
    NoRoom(Shortage),
    /// The store refused.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A file that was read and checked.
enum Checked {
    Roster(Box<Package>),
    Edits { source: &'static str, edits: Vec<Edit> },
}

/// What an import did, or would do.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    /// Changes written; in a dry run 0.
    pub changes: u64,
    /// Records that the files speak of.
    pub records: u64,
    /// Of these, records of pupils who were erased: they were passed over.
    pub erased: u64,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Warnings, one line each.
    pub warnings: Vec<String>,
    /// The last answer of the store.
    pub kept: Option<Kept>,
}

/// Reads, checks and imports files. `progress` is told how many of how many edits are done.
///
/// # Errors
/// [`ImportError`]; unless it is a [`ImportError::Control`], nothing was written.
pub fn import(
    replica: &mut Replica,
    school: SchoolCode,
    files: &[PathBuf],
    dry_run: bool,
    mut progress: impl FnMut(usize, usize),
) -> Result<Imported, ImportError> {
    let mut outcome = Imported { dry_run, ..Imported::default() };
    let mut pupils: BTreeSet<SourcedId> =
        replica.records(Tier::Safety, "student")?.into_iter().map(|(id, _)| SourcedId::new(id)).collect();
    let mut actions = Vec::new();
    // Packages first, so that the other files may speak of the pupils that they bring.
    let mut ordered: Vec<&PathBuf> = files.iter().collect();
    ordered.sort_by_key(|path| !is_zip(path));
    for path in ordered {
        let bytes = read_file(path)?;
        // Pupils who were erased are no error of the file: the store passes their rows over and counts them.
        let records = unknown_pupils(&bytes, path, &pupils);
        if !records.is_empty() {
            let erased: BTreeSet<String> =
                replica.ask(Ask::Erased { collection: "student".into(), records })?;
            pupils.extend(erased.into_iter().map(SourcedId::new));
        }
        match check(path, bytes, &pupils, &mut outcome.warnings)? {
            Checked::Roster(package) => {
                check_school(&package, school)?;
                pupils.extend(package.roster.pupils());
                actions.push(Action {
                    source: Some("oneroster".into()),
                    edits: plan::roster(&package.roster),
                    who: None,
                });
            }
            Checked::Edits { source, edits } => {
                actions.extend(edits.chunks(EDITS_PER_ACTION).map(|chunk| Action {
                    source: Some(source.into()),
                    edits: chunk.to_vec(),
                    who: None,
                }));
            }
        }
    }
    let total: usize = actions.iter().map(|action| action.edits.len()).sum();
    outcome.records = u64::try_from(total).unwrap_or(u64::MAX);
    if !dry_run && let Some(shortage) = replica.ask(Ask::Fits { changes: bytes(&actions) })? {
        return Err(ImportError::NoRoom(shortage));
    }
    let mut done = 0;
    for action in actions.into_iter().filter(|_| !dry_run) {
        let edits = action.edits.len();
        let kept: Kept = replica.ask(Ask::Write { action })?;
        outcome.changes += kept.changes;
        outcome.erased += kept.erased;
        outcome.kept = Some(kept);
        done += edits;
        progress(done, total);
    }
    Ok(outcome)
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Returns how many bytes of changes actions are at most, by tier.
fn bytes(actions: &[Action]) -> BTreeMap<Tier, u64> {
    let mut bytes = BTreeMap::new();
    for edit in actions.iter().flat_map(|action| &action.edits) {
        let tier = collection::find(&edit.collection).map_or(Tier::Daily, |known| known.tier);
        let line = serde_json::to_vec(edit).map_or(0, |line| line.len());
        *bytes.entry(tier).or_default() +=
            u64::try_from(line).unwrap_or(u64::MAX).saturating_add(CHANGE_BYTES);
    }
    bytes
}

fn is_zip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"))
}

fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(std::io::Error::other("it is larger than 256 MiB")));
    }
    fs::read(path).map_err(failed)
}

/// What a file of rows is, by the columns that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Contacts,
    Attendance,
}

impl Rows {
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let names = |column: &[u8]| header.windows(column.len()).any(|window| window == column);
        if names(b"priority") {
            return Some(Self::Contacts);
        }
        (names(b"period") || names(b"code")).then_some(Self::Attendance)
    }
}

/// Returns the pupils of a file of rows who are none of these.
fn unknown_pupils(bytes: &[u8], path: &Path, pupils: &BTreeSet<SourcedId>) -> BTreeSet<String> {
    let (known, limits) = (Known { pupils: None, attendance_codes: None }, Limits::default());
    let named: Vec<SourcedId> = match Rows::of(bytes).filter(|_| !is_zip(path)) {
        // A file with errors is refused afterwards, in words.
        Some(Rows::Contacts) => read_contacts(bytes, &known, &limits)
            .map_or(Vec::new(), |accepted| accepted.value.into_iter().map(|row| row.student).collect()),
        Some(Rows::Attendance) => read_attendance(bytes, &known, &limits)
            .map_or(Vec::new(), |accepted| accepted.value.into_iter().map(|row| row.student).collect()),
        None => Vec::new(),
    };
    named.into_iter().filter(|id| !pupils.contains(id)).map(|id| id.to_string()).collect()
}

fn check(
    path: &Path,
    bytes: Vec<u8>,
    pupils: &BTreeSet<SourcedId>,
    warnings: &mut Vec<String>,
) -> Result<Checked, ImportError> {
    let refused = |report: Report| ImportError::Report { path: path.to_owned(), report: Box::new(report) };
    let mut warn = |report: &Report| {
        let shown = report.findings().iter().map(|finding| finding.text(sonae_roster::Lang::En));
        warnings.extend(shown);
    };
    if is_zip(path) {
        let accepted = read_zip(Cursor::new(bytes), &Limits::default()).map_err(refused)?;
        warn(&accepted.warnings);
        return Ok(Checked::Roster(Box::new(accepted.value)));
    }
    let codes: Vec<&str> = ATTENDANCE_CODES.iter().map(|code| code.code).collect();
    let known = Known { pupils: Some(pupils), attendance_codes: Some(&codes) };
    match Rows::of(&bytes) {
        Some(Rows::Contacts) => {
            let accepted = read_contacts(&bytes, &known, &Limits::default()).map_err(refused)?;
            warn(&accepted.warnings);
            Ok(Checked::Edits { source: "contacts_csv", edits: plan::contacts(&accepted.value) })
        }
        Some(Rows::Attendance) => {
            let accepted = read_attendance(&bytes, &known, &Limits::default()).map_err(refused)?;
            warn(&accepted.warnings);
            Ok(Checked::Edits { source: "attendance_csv", edits: plan::attendance(&accepted.value) })
        }
        None => Err(ImportError::Kind { path: path.to_owned() }),
    }
}

fn check_school(package: &Package, expected: SchoolCode) -> Result<(), ImportError> {
    let found: Vec<&str> = package.roster.schools().map(|school| school.identifier.as_str()).collect();
    if found.contains(&expected.to_string().as_str()) {
        Ok(())
    } else {
        Err(ImportError::WrongSchool { expected, found: found.join(", ") })
    }
}
