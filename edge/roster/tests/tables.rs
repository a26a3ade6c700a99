//! Owns the tests of tables: headers, rows, cells, and what lies between files. Each kind of damage is made
//! in an otherwise sound package, and code, file, line and column of the finding are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use sonae_roster::{EnrollmentRole, Lang};
use support::{
    BOARD, CLASS, COURSE, Files, NOBODY, PUPIL, SCHOOL, TEACHER, YEAR, at, errors, sound, warnings,
};

/// Goal: the one edit is found exactly once. Method: compare all errors of the report.
fn expect_error(file: &str, from: &str, to: &str, code: &str, line: u64, column: &str) {
    let report = sound().edit(file, from, to).refusal();
    assert_eq!(errors(&report), [at(code, file, line, column)], "{}", report.text(Lang::En));
}

/// Goal: the one edit is accepted with exactly one warning. Method: compare all warnings.
fn expect_warning(file: &str, from: &str, to: &str, code: &str, line: u64, column: &str) {
    let accepted = sound().edit(file, from, to).read().unwrap();
    assert_eq!(warnings(&accepted.warnings), [at(code, file, line, column)]);
}

/// Goal: headers. Method: remove, swap, repeat, invent columns.
#[test]
fn headers() {
    expect_error(
        "orgs.csv",
        "dateLastModified,name,",
        "dateLastModified,label,",
        "column-missing",
        1,
        "name",
    );
    expect_warning("orgs.csv", "status,dateLastModified", "dateLastModified,status", "column-order", 1, "");
    expect_error("orgs.csv", "status,dateLastModified", "status,status", "column-repeated", 1, "status");
    let report = sound().set("orgs.csv", "").refusal();
    assert_eq!(errors(&report), [at("file-empty", "orgs.csv", None, "")]);
    let optional = String::from_utf8(sound().bytes("enrollments.csv").to_vec()).unwrap();
    let optional = optional
        .replace(",metadata.jp.PublicFlg", "")
        .replace(",1,true\n", ",1\n")
        .replace(",,,,\n", ",,,\n");
    let accepted = sound().set("enrollments.csv", optional).read().unwrap();
    assert_eq!(warnings(&accepted.warnings), [at("column-missing", "enrollments.csv", 1, "")]);
    assert_eq!(accepted.value.profile, None);
}

/// Goal: columns of somebody's own are kept. Method: add one with a prefix and one without.
#[test]
fn unknown_columns_are_kept() {
    let text = format!(
        "sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId,metadata.x.route,memo\n\
         {BOARD},,,架空市教育委員会,district,992010,,,\n\
         {SCHOOL},,,架空市立手本小学校,school,B113200000011,{BOARD},A-3,m\n"
    );
    let accepted = sound().set("orgs.csv", text).read().unwrap();
    assert_eq!(warnings(&accepted.warnings), [at("column-unknown", "orgs.csv", 1, "memo")]);
    assert_eq!(accepted.value.profile.unwrap().name, "jp-1.2.1");
    let orgs = &accepted.value.roster.orgs;
    assert!(orgs[0].extra.is_empty());
    assert_eq!((orgs[1].extra["metadata.x.route"].as_str(), orgs[1].extra["memo"].as_str()), ("A-3", "m"));
}

/// Goal: line numbers are those of an editor. Method: CRLF, empty lines and a quoted line break before a fault.
#[test]
fn line_numbers() {
    let text = format!(
        "sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId\r\n\
         {BOARD},,,架空市,district,992010,\r\n\r\n\r\n\
         {SCHOOL},,,\"架空\r\n小\",school,B113200000011,{BOARD}\r\n\
         {NOBODY},,,x,shop,B113200000011,{BOARD}\r\n"
    );
    let found = errors(&sound().set("orgs.csv", text).refusal());
    assert_eq!(
        found,
        [at("control-character", "orgs.csv", 5, "name"), at("bad-word", "orgs.csv", 7, "type")]
    );
}

/// Goal: rows. Method: too few and too many fields, an open quotation mark, a blank row.
#[test]
fn rows() {
    expect_error("roles.csv", "student,,,", "student,,", "row-ragged", 3, "");
    expect_error("roles.csv", "student,,,", "student,,,,", "row-ragged", 3, "");
    let report = sound().edit("users.csv", ",,,true,s1", ",,,true,\"s1").refusal();
    assert_eq!(errors(&report), [at("quote-open", "users.csv", 3, ""), at("row-ragged", "users.csv", 3, "")]);
    let blank = format!("{}{}\n", String::from_utf8_lossy(sound().bytes("orgs.csv")), ",".repeat(6));
    let accepted = sound().set("orgs.csv", blank).read().unwrap();
    assert_eq!(warnings(&accepted.warnings), [at("row-blank", "orgs.csv", 4, "")]);
}

/// Goal: fields. Method: an overlong one, control characters, an empty one that is needed.
#[test]
fn fields() {
    let long = "長".repeat(22_000);
    expect_error("classes.csv", "1年1組", &long, "field-too-long", 2, "title");
    expect_error("classes.csv", "1年1組", "1年\u{0}1組", "control-character", 2, "title");
    expect_error("classes.csv", "1年1組", "1年\t1組", "control-character", 2, "title");
    expect_error("classes.csv", "1年1組", "", "value-missing", 2, "title");
}

/// Goal: identifiers. Method: repeat one, empty one, and some that are not UUIDs.
#[test]
fn identifiers() {
    let report = sound().edit("users.csv", TEACHER, PUPIL).refusal();
    let found = errors(&report);
    assert!(found.contains(&at("id-repeated", "users.csv", 3, "sourcedId")));
    assert!(found.contains(&at("reference-dangling", "roles.csv", 2, "userSourcedId")));
    expect_error("demographics.csv", &format!("\n{PUPIL}"), "\n", "value-missing", 2, "sourcedId");
    let long = "x".repeat(129);
    expect_error("enrollments.csv", "0b0a4d2e-1111-4a11-8a11-000000000030", &long, "bad-id", 2, "sourcedId");
    expect_warning(
        "enrollments.csv",
        "0b0a4d2e-1111-4a11-8a11-000000000030",
        "e30",
        "not-uuid",
        2,
        "sourcedId",
    );
    let master = "0b0a4d2e-1111-4a11-8a11-000000000016";
    expect_warning("users.csv", master, "m16", "not-uuid", 2, "userMasterIdentifier");
}

/// Goal: every reference is followed. Method: point each one at nobody.
#[test]
fn references() {
    // In each case the first identifier of the place is the one to replace.
    let case = |file: &str, from: &str, line: u64, column: &str| {
        let start = from.find("0b0a4d2e").unwrap();
        let to = format!("{}{NOBODY}{}", &from[..start], &from[start + NOBODY.len()..]);
        expect_error(file, from, &to, "reference-dangling", line, column);
    };
    case("classes.csv", &format!("P1,{COURSE}"), 2, "courseSourcedId");
    case("classes.csv", &format!("homeroom,,{SCHOOL}"), 2, "schoolSourcedId");
    case("classes.csv", &format!("{YEAR},,,,false"), 2, "termSourcedIds");
    case("courses.csv", &format!(",,,{YEAR}"), 2, "schoolYearSourcedId");
    case("courses.csv", &format!("{SCHOOL},国語"), 2, "orgSourcedId");
    case("enrollments.csv", &format!("{CLASS},{SCHOOL},{PUPIL}"), 3, "classSourcedId");
    case("enrollments.csv", &format!("{PUPIL},student"), 3, "userSourcedId");
    case("enrollments.csv", &format!("{SCHOOL},{PUPIL}"), 3, "schoolSourcedId");
    case("roles.csv", &format!("{PUPIL},primary"), 3, "userSourcedId");
    case("roles.csv", &format!("student,,,{SCHOOL}"), 3, "orgSourcedId");
    case("users.csv", &format!("見本,{SCHOOL}"), 2, "primaryOrgSourcedId");
    case("users.csv", &format!("{CLASS},カクウ"), 3, "metadata.jp.homeClass");
    case("demographics.csv", &format!("{PUPIL},,,2019"), 2, "sourcedId");
    case("orgs.csv", &format!("B113200000011,{BOARD}"), 3, "parentSourcedId");
}

/// Goal: dates, words, numbers, titles and kana. Method: one bad cell each.
#[test]
fn cells() {
    expect_error("demographics.csv", "2019-05-01", "2019-02-29", "bad-date", 2, "birthDate");
    expect_error("enrollments.csv", "2026-04-01", "2026/4/1", "bad-date", 3, "beginDate");
    expect_error("enrollments.csv", "2026-04-01", "2028-04-01", "dates-reversed", 3, "endDate");
    expect_error("academicSessions.csv", "2026年度", "令和8年度", "bad-title", 2, "title");
    expect_error("academicSessions.csv", "2026年度", "2026年度前期", "bad-title", 2, "title");
    expect_error("academicSessions.csv", ",,2026\n", ",,R8\n", "bad-number", 2, "schoolYear");
    expect_error("courses.csv", "2026年度国語", "国語", "bad-title", 2, "title");
    expect_error("courses.csv", "国語,P010", "国語,", "list-lengths", 2, "subjectCodes");
    expect_error("roles.csv", "student", "pupil", "bad-word", 3, "role");
    expect_error("roles.csv", "primary,teacher", "main,teacher", "bad-word", 2, "roleType");
    expect_error("users.csv", ",P1,", ",1,", "bad-word", 3, "grades");
    expect_error("users.csv", "true,s1", "TRUE,s1", "bad-word", 3, "enabledUser");
    expect_error("users.csv", "イチロウ", "ｲﾁﾛｳ", "half-width-kana", 3, "metadata.jp.kanaGivenName");
    expect_error("enrollments.csv", ",1,true", ",0,true", "bad-number", 3, "metadata.jp.ShussekiNo");
}

/// Goal: extensions of word lists are accepted and kept. Method: an enrolment role of somebody's own.
#[test]
fn extensions() {
    let accepted = sound().edit("enrollments.csv", "student", "ext:visitor").read().unwrap();
    assert_eq!(accepted.value.roster.enrollments[1].role, EnrollmentRole::Ext("ext:visitor".to_owned()));
}

/// Goal: bulk files carry no status, and passwords are neither kept nor shown. Method: fill those cells.
#[test]
fn values_that_should_be_empty() {
    expect_warning(
        "orgs.csv",
        &format!("{BOARD},,"),
        &format!("{BOARD},active,"),
        "bulk-not-empty",
        2,
        "status",
    );
    expect_error(
        "orgs.csv",
        &format!("{BOARD},,"),
        &format!("{BOARD},tobedeleted,"),
        "bulk-not-empty",
        2,
        "status",
    );
    let accepted = sound().edit("users.csv", ",P1,,", ",P1,hunter2,").read().unwrap();
    assert_eq!(warnings(&accepted.warnings), [at("not-kept", "users.csv", 3, "password")]);
    assert!(!format!("{accepted:?}").contains("hunter2"));
}

/// Goal: schools belong to boards. Method: no parent, a parent that is a school, a board with a parent, codes.
#[test]
fn schools_and_boards() {
    let orphan = (format!("B113200000011,{BOARD}"), "B113200000011,");
    expect_error("orgs.csv", &orphan.0, orphan.1, "school-without-district", 3, "parentSourcedId");
    let own = format!("B113200000011,{SCHOOL}");
    let report = sound().edit("orgs.csv", &orphan.0, &own).refusal();
    assert_eq!(errors(&report), [at("school-without-district", "orgs.csv", None, "parentSourcedId")]);
    let parent = format!("992010,{SCHOOL}");
    expect_error("orgs.csv", "992010,", &parent, "district-with-parent", 2, "parentSourcedId");
    expect_warning("orgs.csv", "B113200000011", "1234", "school-code", 3, "identifier");
    expect_error("orgs.csv", "B113200000011", "", "school-code", 3, "identifier");
    expect_warning("orgs.csv", "992010", "99201", "board-code", 2, "identifier");
    let none = sound().edit("orgs.csv", &format!("school,B113200000011,{BOARD}"), "ext:shop,1,");
    assert_eq!(errors(&none.refusal()), [at("school-missing", "orgs.csv", None, "type")]);
}

/// Goal: users need a primary role. Method: a secondary one alone, and none.
#[test]
fn roles_of_users() {
    let report = sound().edit("roles.csv", "primary,student", "secondary,student").refusal();
    assert_eq!(errors(&report), [at("primary-role-missing", "roles.csv", None, "userSourcedId")]);
    let text = String::from_utf8(sound().bytes("roles.csv").to_vec()).unwrap();
    let (head, _) = text.rsplit_once("0b0a4d2e-1111-4a11-8a11-000000000021").unwrap();
    let accepted = sound().set("roles.csv", head).read().unwrap();
    assert_eq!(
        warnings(&accepted.warnings),
        [at("primary-role-missing", "roles.csv", None, "userSourcedId")]
    );
}

/// Goal: many mistakes are told at once and bounded. Method: damage three files; then 300 bad rows.
#[test]
fn many_findings() {
    let files: Files = sound()
        .edit("users.csv", "イチロウ", "ｲﾁﾛｳ")
        .edit("demographics.csv", "male", "man")
        .edit("enrollments.csv", ",1,true", ",x,true");
    assert_eq!(files.refusal().errors(), 3);
    let rows: String = (0..300).map(|n| format!("r{n},,,{NOBODY},x,y,,,{SCHOOL},\n")).collect();
    let text = String::from_utf8(sound().bytes("roles.csv").to_vec()).unwrap() + &rows;
    let report = sound().set("roles.csv", text).refusal();
    assert_eq!((report.errors(), report.findings().len()), (900, 200));
    assert!(report.omitted() > 700 && report.text(Lang::Ja).contains("ほか"));
}
