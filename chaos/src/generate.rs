//! Owns the generator of a school: pupils, families, staff, classes and years of attendance, all from a seed.
//!
//! Invariants: the same options give the same bytes, on every machine and with every later version that keeps
//! [`GENERATOR`]; names are invented combinations, and numbers and codes lie where no real ones are (see
//! `names.rs`), so nothing here can be mistaken for a person; what is generated passes our own readers.
//! Leaves out: the command line, and damage to what was generated (drills do that).
//!
//! The files of a generated school:
//! - `RO_YYYYMMDD_[学校コード].zip`: a OneRoster package, see `sonae_roster::write_zip`.
//! - `contacts.csv`: guardians' contacts. Columns: `student_id`, `priority`, `name`, `kana`, `relationship`,
//!   `phone1`, `phone2`, `email`, `lives_with`; see `sonae_roster::contacts`.
//! - `attendance.csv`: one row for each pupil and school day of the years in which the pupil was at school (a
//!   first-grader has no rows in earlier years). Columns: `date`, `student_id`, `period` (always `all`),
//!   `code`, `reason_text`; see `sonae_roster::attendance`.
//! - `summary.json`: counts, codes and canaries, see [`Summary`].

mod attendance;
mod calendar;
mod families;
mod names;
mod output;
pub(crate) mod random;
mod roster;
#[cfg(test)]
mod tests;

use sonae_roster::{AttendanceEntry, GuardianContact, PROFILES, Profile, Roster};
use time::Date;

pub use calendar::school_days;
pub use output::{Summary, Written, write};

/// Version of the arithmetic, part of the seed: it changes when the same options would give other bytes.
pub const GENERATOR: &str = "sonae school generator 1";

/// Largest number of pupils: more than any primary school in Japan has.
pub const PUPILS_MAX: u32 = 3_000;

/// Largest number of school years: those of a primary school.
pub const YEARS_MAX: u32 = 6;

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Number of pupils, 1 to [`PUPILS_MAX`].
    pub pupils: u32,
    /// Number of school years of attendance, 1 to [`YEARS_MAX`], the newest being `school_year`.
    pub years: u32,
    /// The seed.
    pub seed: u64,
    /// Edition of the Japan Profile, by name; see `sonae_roster::PROFILES`.
    pub profile: String,
    /// The newest school year: 1 April of this year to 31 March of the next. 2000 to 2098.
    pub school_year: i32,
}

impl Default for Options {
    fn default() -> Self {
        let profile = PROFILES.first().map_or("", |profile| profile.name).to_owned();
        Self { pupils: 600, years: 1, seed: 1, profile, school_year: 2026 }
    }
}

/// Why nothing was generated or written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// An option is out of its range. Choose another.
    #[error("{option} must be {expected}, not {given}")]
    Option {
        /// Which.
        option: &'static str,
        /// What it must be.
        expected: String,
        /// What it was.
        given: String,
    },
    /// What was generated could not be encoded: a defect of the generator.
    #[error("encoding the generated school failed")]
    Encode(#[from] sonae_roster::WriteError),
    /// The summary could not be encoded: a defect of the generator.
    #[error("encoding the summary failed")]
    Summary(#[from] serde_json::Error),
    /// A file could not be written.
    #[error("writing {path} failed")]
    Write {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Texts that stand in the generated data and nowhere else, so that a search for them in ciphertext means
/// something.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Canaries {
    /// Family names of pupils.
    pub family_names: Vec<String>,
    /// Telephone numbers of guardians.
    pub phones: Vec<String>,
    /// A reason in the attendance.
    pub reasons: Vec<String>,
}

/// A school in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedSchool {
    /// What was asked for.
    pub options: Options,
    /// The edition in which the package is written.
    pub profile: &'static Profile,
    /// 学校コード.
    pub school_code: String,
    /// Name of the school.
    pub school_name: String,
    /// Date in the package's name: the first school day of the newest year.
    pub package_date: Date,
    /// What goes into the package.
    pub roster: Roster,
    /// What goes into `contacts.csv`.
    pub contacts: Vec<GuardianContact>,
    /// What goes into `attendance.csv`, by date, then in the order of the pupils.
    pub attendance: Vec<AttendanceEntry>,
    /// What to search for in ciphertext.
    pub canaries: Canaries,
}

/// Generates a school.
///
/// # Errors
/// [`GenerateError::Option`] only.
pub fn school(options: Options) -> Result<GeneratedSchool, GenerateError> {
    let profile = check(&options)?;
    let source = random::Source::new(options.seed);
    let families = families::generate(&source, &options);
    let built = roster::build(&source, &families, &options);
    let contacts = families::contacts(&families, &built.pupil_ids);
    let attendance = attendance::generate(&source, &families, &built.pupil_ids, &options);
    let canaries = Canaries {
        family_names: families::canary_names(&families),
        phones: families::canary_phones(&families),
        reasons: attendance
            .iter()
            .any(|entry| entry.reason_text == names::CANARY_REASON)
            .then(|| names::CANARY_REASON.to_owned())
            .into_iter()
            .collect(),
    };
    Ok(GeneratedSchool {
        profile,
        school_code: built.school_code,
        school_name: built.school_name,
        package_date: school_days(options.school_year).first().copied().unwrap_or(Date::MIN),
        roster: built.roster,
        contacts,
        attendance,
        canaries,
        options,
    })
}

fn check(options: &Options) -> Result<&'static Profile, GenerateError> {
    let out_of_range =
        |option, expected: String, given: String| GenerateError::Option { option, expected, given };
    if !(1..=PUPILS_MAX).contains(&options.pupils) {
        return Err(out_of_range("pupils", format!("1 to {PUPILS_MAX}"), options.pupils.to_string()));
    }
    if !(1..=YEARS_MAX).contains(&options.years) {
        return Err(out_of_range("years", format!("1 to {YEARS_MAX}"), options.years.to_string()));
    }
    if !(2000..=2098).contains(&options.school_year) {
        return Err(out_of_range("school year", "2000 to 2098".to_owned(), options.school_year.to_string()));
    }
    Profile::by_name(&options.profile).ok_or_else(|| {
        let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
        out_of_range("profile", format!("one of {}", names.join(", ")), options.profile.clone())
    })
}
