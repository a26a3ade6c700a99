//! Owns the tests of the generator as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::time::Instant;

use sonae_roster::{
    ATTENDANCE_CODES, EnrollmentRole, Known, Limits, PROFILES, read_attendance, read_contacts, read_zip,
};

use super::{GenerateError, GeneratedSchool, Options, PUPILS_MAX, Summary, school, school_days, write};

fn small(seed: u64) -> GeneratedSchool {
    school(Options { pupils: 40, years: 2, seed, ..Options::default() }).unwrap()
}

fn files(school: &GeneratedSchool) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    write(school, folder.path()).unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Goal: the same seed gives the same bytes, another seed others. Method: write three schools, compare files.
#[test]
fn bytes_follow_the_seed() {
    let (first, again, other) = (files(&small(1)), files(&small(1)), files(&small(2)));
    assert_eq!(first.len(), 4);
    assert_eq!(first, again);
    assert!(other.iter().all(|(name, bytes)| first.get(name) != Some(bytes)));
}

/// Goal: bytes do not drift between versions of the generator or its libraries. Method: hash the CSV files of
/// one small school; the package is left out, for its compression is the zip library's affair.
#[test]
fn bytes_are_pinned() {
    let files = files(&small(1));
    let hash = |name: &str| blake3::hash(&files[name]).to_hex()[..16].to_owned();
    assert_eq!((hash("contacts.csv"), hash("attendance.csv")), (CONTACTS.to_owned(), ATTENDANCE.to_owned()));
}

const CONTACTS: &str = "0d5224f954ca1319";
const ATTENDANCE: &str = "16f2217833af9d55";

/// Goal: our own readers take everything without a word, in every edition. Method: write, read, compare.
#[test]
fn readers_accept_what_is_generated() {
    for profile in PROFILES {
        let options = Options { pupils: 130, profile: profile.name.to_owned(), ..Options::default() };
        let school = school(options).unwrap();
        let files = files(&school);
        let package = &files[&Summary::of(&school).package];
        let accepted = read_zip(Cursor::new(package), &Limits::default()).unwrap();
        assert_eq!(accepted.warnings.findings(), []);
        assert_eq!(accepted.value.profile, Some(profile));
        assert_eq!(accepted.value.roster, school.roster);
        let pupils = school.roster.pupils();
        let codes: Vec<&str> = ATTENDANCE_CODES.iter().map(|code| code.code).collect();
        let known = Known { pupils: Some(&pupils), attendance_codes: Some(&codes) };
        let contacts = read_contacts(&files["contacts.csv"], &known, &Limits::default()).unwrap();
        assert_eq!((contacts.value, contacts.warnings.warnings()), (school.contacts, 0));
        let attendance = read_attendance(&files["attendance.csv"], &known, &Limits::default()).unwrap();
        assert_eq!((attendance.value, attendance.warnings.warnings()), (school.attendance, 0));
    }
}

/// Goal: a school of 600 looks like one, and is made in seconds. Method: count classes, numbers and rates.
#[test]
fn a_school_of_600() {
    let begin = Instant::now();
    let school = school(Options::default()).unwrap();
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
    let roster = &school.roster;
    assert_eq!((roster.pupils().len(), roster.demographics.len()), (600, 600));
    assert_eq!(roster.classes.len(), 19);
    assert_eq!(roster.users.len(), 600 + 19 + 4);
    for class in &roster.classes {
        let members = roster.enrollments.iter().filter(|one| one.class == class.id);
        let (pupils, teachers): (Vec<_>, Vec<_>) =
            members.partition(|one| one.role == EnrollmentRole::Student);
        let most = if class.special_needs == Some(true) { 8 } else { 35 };
        assert!((1..=most).contains(&pupils.len()), "{}: {}", class.title, pupils.len());
        assert_eq!((teachers.len(), teachers[0].primary), (1, Some(true)));
        let numbers: BTreeSet<_> = pupils.iter().map(|one| one.attendance_number.unwrap()).collect();
        assert_eq!(numbers.len(), pupils.len());
        assert_eq!(numbers.last().copied(), u32::try_from(pupils.len()).ok());
    }
    let days = school_days(2026).len();
    assert_eq!(school.attendance.len(), 600 * days);
    let by_code = Summary::of(&school).attendance_by_code;
    let percent = by_code["present"] * 100 / school.attendance.len();
    assert!((93..=96).contains(&percent), "{by_code:?}");
    assert!(by_code.len() >= 7, "{by_code:?}");
}

/// Goal: earlier years have only those who were at school. Method: two years of a small school, by grade.
#[test]
fn first_graders_have_no_past() {
    let school = small(3);
    let first_graders: BTreeSet<_> = {
        let users = school.roster.users.iter().filter(|user| user.grades == ["P1"]);
        users.map(|user| &user.id).collect()
    };
    assert!(!first_graders.is_empty());
    let past = school.attendance.iter().filter(|entry| entry.date < school.package_date);
    assert!(past.clone().count() > 1_000);
    assert!(past.clone().all(|entry| !first_graders.contains(&entry.student)));
}

/// Goal: codes and numbers are nobody's, and canaries are in the files. Method: shapes, and a search.
#[test]
fn nothing_is_anybodys() {
    let school = small(4);
    let code: Vec<char> = school.school_code.chars().collect();
    assert_eq!((code.len(), school.school_code.starts_with("B1492")), (13, true));
    assert!(code[5..].iter().all(char::is_ascii_digit));
    assert!(school.school_name.starts_with("架空市立"));
    for contact in &school.contacts {
        let mobile =
            ["090-0000-", "080-0000-", "070-0000-"].iter().any(|range| contact.phone1.starts_with(range));
        assert!(mobile && (contact.phone2.is_empty() || contact.phone2.starts_with("099-000-")));
        assert!(contact.email.is_empty() || contact.email.ends_with("@example.jp"));
    }
    let files = files(&school);
    let contacts = String::from_utf8_lossy(&files["contacts.csv"]);
    let attendance = String::from_utf8_lossy(&files["attendance.csv"]);
    let canaries = &school.canaries;
    assert_eq!((canaries.family_names.len(), canaries.reasons.len()), (4, 1));
    assert!(canaries.family_names.iter().chain(&canaries.phones).all(|text| contacts.contains(text)));
    assert!(canaries.reasons.iter().all(|text| attendance.contains(text)));
    let unique: BTreeSet<_> = canaries.phones.iter().map(|phone| &phone[4..]).collect();
    assert_eq!(unique.len(), canaries.phones.len());
}

/// Goal: options out of range are refused with what is possible. Method: each option once; extremes pass.
#[test]
fn options_are_checked() {
    let refused = |options: Options| matches!(school(options), Err(GenerateError::Option { .. }));
    assert!(refused(Options { pupils: 0, ..Options::default() }));
    assert!(refused(Options { pupils: PUPILS_MAX + 1, ..Options::default() }));
    assert!(refused(Options { years: 7, ..Options::default() }));
    assert!(refused(Options { school_year: 1999, ..Options::default() }));
    let error = school(Options { profile: "x".to_owned(), ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("jp-1.2.1, k12-schools"), "{error}");
    assert_eq!(school(Options { pupils: 1, ..Options::default() }).unwrap().roster.pupils().len(), 1);
}
