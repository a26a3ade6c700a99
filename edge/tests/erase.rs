//! `sonae-edge erase` through the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, where a panic is the report"
)]

#[path = "../roster/tests/support/mod.rs"]
mod package;
mod support;

use support::Place;

/// Goal: nothing goes by accident: a dry run says what would go and what the law keeps, and without the flag for that and
/// the id typed once more nothing is erased; then the pupil is gone, an import passes the pupil over and says how many
/// rows, and the audit does not name anybody. Method: a roster, contacts and attendance of one pupil; every refusal.
#[test]
fn a_pupil_is_erased_on_purpose_only() {
    let place = Place::enrolled();
    let roster = place.write("roster.zip", &package::sound().zip());
    let contacts = format!(
        "student_id,priority,name,kana,relationship,phone1,phone2,email,lives_with\n{},1,見本 母,,母,090-0000-0001,,,\n",
        package::PUPIL
    );
    let contacts = place.write("contacts.csv", contacts.as_bytes());
    let day = format!("date,student_id,period,code,reason_text\n2026-04-08,{},all,late,\n", package::PUPIL);
    let attendance = place.write("attendance.csv", day.as_bytes());
    for file in [&roster, &contacts, &attendance] {
        place.import(file, &[]).ok();
    }
    let before = place.digests();
    let pupil = ["--pupil", package::PUPIL];
    let erase = |rest: &[&str], input: &str| place.edge("erase", &[&pupil, rest].concat(), input);
    let plan = erase(&["--json"], "").json();
    assert_eq!(plan["dry_run"], true);
    for collection in ["student", "enrollment", "guardian_contact", "attendance"] {
        assert_eq!(plan["plan"]["goes"][collection], 1, "{collection}: {plan}");
    }
    assert_eq!(plan["plan"]["kept_by_law"]["attendance_register"], 1, "{plan}");
    assert!(erase(&[], "").ok().contains("出席簿"));
    assert!(erase(&["--erase", "--confirm-stdin"], package::PUPIL).fails(3).contains("--even-kept-records"));
    let sure = ["--erase", "--even-kept-records"];
    assert!(erase(&sure, package::PUPIL).fails(3).contains("--confirm-stdin"));
    let typed = [&sure[..], &["--confirm-stdin", "--who", "kyoto", "--json"]].concat();
    assert!(erase(&typed, "somebody-else").fails(3).contains("nothing was erased"));
    assert!(place.edge("erase", &["--pupil", "nobody"], "").fails(3).contains("list of pupils"));
    assert_eq!(place.digests(), before, "a refusal has changed something");

    let erased = erase(&typed, package::PUPIL).json();
    assert!(erased["changes"].as_u64().unwrap() > 10 && erased["dry_run"] == false, "{erased}");
    assert!(erase(&["--json"], "").fails(3).contains("erased before"));
    let after = place.digests();
    for (file, rows) in [(&roster, 2), (&contacts, 1), (&attendance, 1)] {
        let imported = place.import(file, &["--json"]).json();
        assert_eq!((&imported["erased"], &imported["changes"]), (&rows.into(), &0.into()), "{imported}");
    }
    assert_eq!(place.digests(), after, "an import has brought something back");
    assert!(place.import(&attendance, &[]).ok().contains("消去済み"));
    let status = place.status();
    let tiers: Vec<_> =
        status["erasures"].as_array().unwrap().iter().map(|of| of["tier"].to_string()).collect();
    assert_eq!(tiers.len(), 3, "{status}");
    assert!(!status["erasures"].to_string().contains(package::PUPIL));
}
