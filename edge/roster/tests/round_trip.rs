//! Owns the tests of writing: what is written reads back equal, byte for byte the same each time, and without
//! what must not leave. Also the plain CSV files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{Cursor, Read};

use proptest::prelude::*;
use sonae_roster::{
    ATTENDANCE_CODES, AttendanceEntry, GuardianContact, Known, Limits, PROFILES, Period, Profile, Role,
    RoleType, Roster, SourcedId, WriteError, package_name, read_attendance, read_contacts, read_zip,
    write_attendance, write_contacts, write_zip,
};
use support::{NOBODY, PUPIL, at, errors, sound, warnings};
use time::{Date, Month};

fn roster() -> Roster {
    sound().read().unwrap().value.roster
}

fn written(roster: &Roster, profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_zip(roster, profile, &mut bytes).unwrap();
    bytes
}

/// Takes away what an edition has no column for.
fn fitted(mut roster: Roster, profile: &Profile) -> Roster {
    for user in &mut roster.users {
        if profile.omits.contains(&"resourceSourcedIds") {
            user.resources.clear();
        }
        if profile.omits.contains(&"metadata.jp.kanaPreferredGivenName") {
            user.kana_preferred_family_name.clear();
            user.kana_preferred_given_name.clear();
            user.kana_preferred_middle_name.clear();
        }
    }
    roster
}

/// Goal: every edition carries a roster without loss, and is recognised. Method: write, read, compare; again.
#[test]
fn every_edition_round_trips() {
    for profile in PROFILES {
        let mut roster = roster();
        roster.users[1].resources = vec!["r1".to_owned(), "r2".to_owned()];
        roster.users[1].extra.insert("metadata.x.bus".to_owned(), "3,号\"車".to_owned());
        roster.demographics[0].extra.insert("cityOfBirth".to_owned(), "架空市".to_owned());
        let roster = fitted(roster, profile);
        let bytes = written(&roster, profile);
        assert_eq!(bytes, written(&roster, profile), "{}", profile.name);
        let accepted = read_zip(Cursor::new(bytes), &Limits::default()).unwrap();
        assert_eq!(accepted.warnings.findings(), [], "{}", profile.name);
        assert_eq!(accepted.value.profile, Some(profile));
        assert_eq!(accepted.value.roster, roster);
    }
}

/// Goal: what an edition cannot carry is told. Method: write kana of names in use in edition 1.1.
#[test]
fn losses_are_counted() {
    let mut bytes = Vec::new();
    let dropped = write_zip(&roster(), Profile::by_name("jp-1.1").unwrap(), &mut bytes).unwrap();
    let key = ("users.csv", "metadata.jp.kanaPreferredGivenName".to_owned());
    assert_eq!((dropped.len(), dropped.get(&key)), (2, Some(&1)));
}

/// Goal: guardians and links to them stay. Method: add a mother as user and link, look into the package.
#[test]
fn guardians_are_not_written() {
    let mut roster = roster();
    let mut mother = roster.users[0].clone();
    mother.id = SourcedId::new(NOBODY);
    mother.given_name = "保護者名".to_owned();
    roster.users.push(mother);
    let mut role = roster.roles[0].clone();
    (role.id, role.user) = (SourcedId::new("0b0a4d2e-1111-4a11-8a11-0000000000fe"), SourcedId::new(NOBODY));
    (role.role, role.role_type) = (Role::Parent, RoleType::Primary);
    roster.roles.push(role);
    roster.users[1].agents.push(SourcedId::new(NOBODY));
    let mut bytes = Vec::new();
    let dropped = write_zip(&roster, &PROFILES[0], &mut bytes).unwrap();
    assert_eq!(dropped.get(&("users.csv", String::new())), Some(&1));
    assert_eq!(dropped.get(&("users.csv", "agentSourcedIds".to_owned())), Some(&1));
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    for at in 0..zip.len() {
        let mut text = String::new();
        zip.by_index(at).unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.contains("保護者名") && !text.contains(NOBODY));
    }
}

/// Goal: we never give out what we would refuse. Method: a roster with a dangling reference.
#[test]
fn unsound_rosters_are_refused() {
    let mut roster = roster();
    roster.enrollments[0].class = SourcedId::new(NOBODY);
    let mut bytes = Vec::new();
    let refused = write_zip(&roster, &PROFILES[0], &mut bytes);
    let Err(WriteError::Refused { report }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors(&report), [at("reference-dangling", "enrollments.csv", 2, "classSourcedId")]);
    assert!(bytes.is_empty());
}

/// Goal: names as readers expect them. Method: one date and code.
#[test]
fn names_of_packages() {
    let date = Date::from_calendar_date(2026, Month::April, 7).unwrap();
    assert_eq!(package_name(date, "B113200000011"), "RO_20260407_B113200000011.zip");
}

fn contact() -> GuardianContact {
    GuardianContact {
        student: SourcedId::new(PUPIL),
        priority: 1,
        name: "架空 \"光\"".to_owned(),
        kana: "カクウ ヒカリ".to_owned(),
        relationship: "母".to_owned(),
        phone1: "090-0000-0001".to_owned(),
        phone2: String::new(),
        email: "a@example.jp".to_owned(),
        lives_with: Some(true),
    }
}

/// Goal: contacts survive, with and without byte order mark. Method: write, read, compare.
#[test]
fn contacts_round_trip() {
    let contacts = vec![contact(), GuardianContact { priority: 2, lives_with: None, ..contact() }];
    let bytes = write_contacts(&contacts).unwrap();
    let pupils = roster().pupils();
    let known = Known { pupils: Some(&pupils), ..Known::default() };
    for text in [bytes.clone(), [b"\xEF\xBB\xBF", &bytes[..]].concat()] {
        let accepted = read_contacts(&text, &known, &Limits::default()).unwrap();
        assert_eq!(accepted.value, contacts);
        assert_eq!(accepted.warnings.findings(), []);
    }
}

/// Goal: faults of contacts are told. Method: one bad cell for each column that is checked.
#[test]
fn contacts_are_checked() {
    let text = format!(
        "student_id,priority,name,kana,relationship,phone1,phone2,email,lives_with\n\
         {PUPIL},1,架空 光,ｶｸｳ,母,090-0000-0001,,,true\n\
         {PUPIL},1,架空 光,カクウ,母,電話,,x,yes\n\
         {NOBODY},0,,カクウ,母,,,,\n"
    );
    let pupils = roster().pupils();
    let known = Known { pupils: Some(&pupils), ..Known::default() };
    let report = read_contacts(text.as_bytes(), &known, &Limits::default()).unwrap_err();
    let file = "contacts.csv";
    let expected = [
        at("half-width-kana", file, 2, "kana"),
        at("bad-phone", file, 3, "phone1"),
        at("bad-email", file, 3, "email"),
        at("bad-word", file, 3, "lives_with"),
        at("row-repeated", file, 3, "priority"),
        at("bad-number", file, 4, "priority"),
        at("value-missing", file, 4, "name"),
        at("reference-dangling", file, 4, "student_id"),
    ];
    assert_eq!(errors(&report), expected);
    assert_eq!(warnings(&report), [at("value-missing", file, 4, "phone1")]);
}

/// Goal: attendance survives, line breaks in reasons included. Method: write, read, compare.
#[test]
fn attendance_round_trips() {
    let entry = |day, period, code: &str, reason: &str| AttendanceEntry {
        date: Date::from_calendar_date(2026, Month::April, day).unwrap(),
        student: SourcedId::new(PUPIL),
        period,
        code: code.to_owned(),
        reason_text: reason.to_owned(),
    };
    let entries =
        vec![entry(7, Period::All, "present", ""), entry(8, Period::Lesson(3), "late", "通院\n3時間目から")];
    let codes: Vec<&str> = ATTENDANCE_CODES.iter().map(|code| code.code).collect();
    let known = Known { attendance_codes: Some(&codes), ..Known::default() };
    let bytes = write_attendance(&entries).unwrap();
    assert_eq!(read_attendance(&bytes, &known, &Limits::default()).unwrap().value, entries);
}

/// Goal: faults of attendance are told. Method: one bad cell for each column that is checked.
#[test]
fn attendance_is_checked() {
    let text = format!(
        "date,student_id,period,code,reason_text\n\
         2026-04-07,{PUPIL},all,present,\n\
         2026-04-07,{PUPIL},all,late,\n\
         2026-04-31,{PUPIL},all,present,\n\
         2026-04-08,{PUPIL},9,present,\n\
         2026-04-09,{PUPIL},all,holiday,\n\
         2026-04-10,{PUPIL},all,Present,\n"
    );
    let known = Known { attendance_codes: Some(&["present", "late", "Present"]), ..Known::default() };
    let report = read_attendance(text.as_bytes(), &known, &Limits::default()).unwrap_err();
    let file = "attendance.csv";
    let expected = [
        at("row-repeated", file, 3, "student_id"),
        at("bad-date", file, 4, "date"),
        at("bad-word", file, 5, "period"),
        at("bad-word", file, 6, "code"),
        at("bad-word", file, 7, "code"),
    ];
    assert_eq!(errors(&report), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: no zip file makes the reader panic. Method: overwrite, cut and extend bytes of the sound package.
    #[test]
    fn mutated_zips_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = sound().zip();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(tail);
        let _ = read_zip(Cursor::new(bytes), &Limits::default());
    }

    /// Goal: no CSV file makes the reader panic, and none is half accepted. Method: splice noise into users.csv.
    #[test]
    fn mutated_tables_never_panic(place in any::<prop::sample::Index>(), noise in "[\\PC\n\r\",\u{0}]{0,20}", cut in 0usize..9) {
        let text = String::from_utf8(sound().bytes("users.csv").to_vec()).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let place = place.index(chars.len());
        let (head, tail) = (&chars[..place], &chars[(place + cut).min(chars.len())..]);
        let spliced: String = head.iter().copied().chain(noise.chars()).chain(tail.iter().copied()).collect();
        match sound().set("users.csv", spliced).read() {
            Ok(accepted) => prop_assert!(!accepted.warnings.has_errors()),
            Err(report) => prop_assert!(report.has_errors()),
        }
    }
}
