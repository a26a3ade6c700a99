//! Owns the files of a generated school.
//!
//! Invariant: the same school gives the same bytes. Leaves out: what stands in the files (`sonae_roster`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sonae_roster::{package_name, write_attendance, write_contacts, write_zip};

use super::{Canaries, GENERATOR, GenerateError, GeneratedSchool};

/// What stands in `summary.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The generator's version.
    pub generator: String,
    /// The seed.
    pub seed: u64,
    /// The newest school year.
    pub school_year: i32,
    /// Number of school years of attendance.
    pub years: u32,
    /// Edition of the Japan Profile.
    pub profile: String,
    /// 学校コード.
    pub school_code: String,
    /// Name of the school.
    pub school_name: String,
    /// Name of the package.
    pub package: String,
    /// Number of pupils.
    pub pupils: usize,
    /// Number of people on the staff.
    pub staff: usize,
    /// Number of classes.
    pub classes: usize,
    /// Number of enrolments, teachers included.
    pub enrollments: usize,
    /// Number of contacts.
    pub contacts: usize,
    /// Number of attendance entries.
    pub attendance: usize,
    /// The same by code.
    pub attendance_by_code: BTreeMap<String, usize>,
    /// What to search for in ciphertext.
    pub canaries: Canaries,
}

impl Summary {
    /// Counts a school.
    pub fn of(school: &GeneratedSchool) -> Self {
        let mut attendance_by_code = BTreeMap::new();
        for entry in &school.attendance {
            *attendance_by_code.entry(entry.code.clone()).or_default() += 1;
        }
        let pupils = school.roster.pupils().len();
        Self {
            generator: GENERATOR.to_owned(),
            seed: school.options.seed,
            school_year: school.options.school_year,
            years: school.options.years,
            profile: school.profile.name.to_owned(),
            school_code: school.school_code.clone(),
            school_name: school.school_name.clone(),
            package: package_name(school.package_date, &school.school_code),
            pupils,
            staff: school.roster.users.len() - pupils,
            classes: school.roster.classes.len(),
            enrollments: school.roster.enrollments.len(),
            contacts: school.contacts.len(),
            attendance: school.attendance.len(),
            attendance_by_code,
            canaries: school.canaries.clone(),
        }
    }
}

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The OneRoster package.
    pub package: PathBuf,
    /// `contacts.csv`.
    pub contacts: PathBuf,
    /// `attendance.csv`.
    pub attendance: PathBuf,
    /// `summary.json`.
    pub summary: PathBuf,
    /// What stands in the summary.
    pub counts: Summary,
}

/// Writes the files of a school into a folder, which is made if need be; files of the same names are replaced.
///
/// # Errors
/// [`GenerateError::Write`] if the disk refuses; some files may be there then.
///
/// # Durability
/// None: test data is not synced.
pub fn write(school: &GeneratedSchool, out: &Path) -> Result<Written, GenerateError> {
    let counts = Summary::of(school);
    let mut package = Vec::new();
    write_zip(&school.roster, school.profile, &mut package)?;
    let contacts = write_contacts(&school.contacts)?;
    let attendance = write_attendance(&school.attendance)?;
    let mut summary = serde_json::to_vec_pretty(&counts)?;
    summary.push(b'\n');
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| GenerateError::Write { path, source }
    };
    fs::create_dir_all(out).map_err(failed(out))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        fs::write(&path, bytes).map_err(failed(&path))?;
        Ok::<_, GenerateError>(path)
    };
    Ok(Written {
        package: put(&counts.package, &package)?,
        contacts: put("contacts.csv", &contacts)?,
        attendance: put("attendance.csv", &attendance)?,
        summary: put("summary.json", &summary)?,
        counts,
    })
}
