//! Owns a small sound package, written out by hand so that readers are not tested with our own writer only,
//! and the means to damage it. All names, codes and numbers are invented.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{Cursor, Write};

use sonae_roster::{Accepted, Finding, Limits, Package, Report, Severity, read_zip};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

pub const BOARD: &str = "0b0a4d2e-1111-4a11-8a11-000000000001";
pub const SCHOOL: &str = "0b0a4d2e-1111-4a11-8a11-000000000002";
pub const YEAR: &str = "0b0a4d2e-1111-4a11-8a11-000000000003";
pub const COURSE: &str = "0b0a4d2e-1111-4a11-8a11-000000000004";
pub const CLASS: &str = "0b0a4d2e-1111-4a11-8a11-000000000005";
pub const TEACHER: &str = "0b0a4d2e-1111-4a11-8a11-000000000006";
pub const PUPIL: &str = "0b0a4d2e-1111-4a11-8a11-000000000007";
pub const NOBODY: &str = "0b0a4d2e-1111-4a11-8a11-0000000000ff";

/// Files of a package by name, to be edited and zipped.
#[derive(Clone)]
pub struct Files(pub Vec<(String, Vec<u8>)>);

/// The sound package: one board, one school, one class, a teacher and a pupil.
pub fn sound() -> Files {
    let files = frame().into_iter().chain(people());
    Files(files.map(|(name, text)| (name.to_owned(), text.into_bytes())).collect())
}

/// Manifest, year, organisations, courses, classes.
fn frame() -> [(&'static str, String); 5] {
    [
        (
            "manifest.csv",
            "propertyName,value\nmanifest.version,1.0\noneroster.version,1.2\nfile.academicSessions,bulk\n\
             file.categories,absent\nfile.classes,bulk\nfile.courses,bulk\nfile.demographics,bulk\n\
             file.enrollments,bulk\nfile.orgs,bulk\nfile.roles,bulk\nfile.users,bulk\n\
             source.systemName,hand\nsource.systemCode,H1\n"
                .to_owned(),
        ),
        (
            "academicSessions.csv",
            format!(
                "sourcedId,status,dateLastModified,title,type,startDate,endDate,parentSourcedId,schoolYear\n\
                 {YEAR},,,2026年度,schoolYear,2026-04-01,2027-03-31,,2026\n"
            ),
        ),
        (
            "orgs.csv",
            format!(
                "sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId\n\
                 {BOARD},,,架空市教育委員会,district,992010,\n\
                 {SCHOOL},,,架空市立手本小学校,school,B113200000011,{BOARD}\n"
            ),
        ),
        (
            "courses.csv",
            format!(
                "sourcedId,status,dateLastModified,schoolYearSourcedId,title,courseCode,grades,orgSourcedId,\
                 subjects,subjectCodes\n\
                 {COURSE},,,{YEAR},2026年度国語,,\"P1,P2\",{SCHOOL},国語,P010\n"
            ),
        ),
        (
            "classes.csv",
            format!(
                "sourcedId,status,dateLastModified,title,grades,courseSourcedId,classCode,classType,location,\
                 schoolSourcedId,termSourcedIds,subjects,subjectCodes,periods,metadata.jp.specialNeeds\n\
                 {CLASS},,,1年1組,P1,{COURSE},,homeroom,,{SCHOOL},{YEAR},,,,false\n"
            ),
        ),
    ]
}

/// Users, roles, enrolments, demographics.
fn people() -> [(&'static str, String); 4] {
    let id = |n: u32| format!("0b0a4d2e-1111-4a11-8a11-{n:012}");
    [
        (
            "users.csv",
            format!(
                "sourcedId,status,dateLastModified,enabledUser,username,userIds,givenName,familyName,middleName,\
                 identifier,email,sms,phone,agentSourcedIds,grades,password,userMasterIdentifier,\
                 preferredGivenName,preferredMiddleName,preferredFamilyName,primaryOrgSourcedId,pronouns,\
                 metadata.jp.kanaGivenName,metadata.jp.kanaFamilyName,metadata.jp.kanaMiddleName,\
                 metadata.jp.homeClass,metadata.jp.kanaPreferredFamilyName,metadata.jp.kanaPreferredGivenName,\
                 metadata.jp.kanaPreferredMiddleName\n\
                 {TEACHER},,,true,t1,,花子,見本,,,,,,,,,{},花子,,見本,{SCHOOL},,ハナコ,ミホン,,,,,\n\
                 {PUPIL},,,true,s1,{{ext:id}},一郎,架空,,101,,,,,P1,,{},一郎,,架空,{SCHOOL},,イチロウ,カクウ,,\
                 {CLASS},カクウ,イチロウ,\n",
                id(16),
                id(17)
            ),
        ),
        (
            "roles.csv",
            format!(
                "sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId,\
                 userProfileSourcedId\n\
                 {},,,{TEACHER},primary,teacher,,,{SCHOOL},\n\
                 {},,,{PUPIL},primary,student,,,{SCHOOL},\n",
                id(20),
                id(21)
            ),
        ),
        (
            "enrollments.csv",
            format!(
                "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,\
                 beginDate,endDate,metadata.jp.ShussekiNo,metadata.jp.PublicFlg\n\
                 {},,,{CLASS},{SCHOOL},{TEACHER},teacher,true,,,,\n\
                 {},,,{CLASS},{SCHOOL},{PUPIL},student,false,2026-04-01,2027-03-31,1,true\n",
                id(30),
                id(31)
            ),
        ),
        (
            "demographics.csv",
            format!(
                "sourcedId,status,dateLastModified,birthDate,sex,americanIndianOrAlaskaNative,asian,\
                 blackOrAfricanAmerican,nativeHawaiianOrOtherPacificIslander,white,\
                 demographicRaceTwoOrMoreRaces,hispanicOrLatinoEthnicity,countryOfBirthCode,\
                 stateOfBirthAbbreviation,cityOfBirth,publicSchoolResidenceStatus\n\
                 {PUPIL},,,2019-05-01,male,,,,,,,,,,,\n"
            ),
        ),
    ]
}

impl Files {
    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> &[u8] {
        &self.0.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// Sets or adds a file.
    pub fn set(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), bytes.into()));
        self
    }

    /// Removes a file.
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    /// Replaces the first occurrence of a text, which has to be there.
    pub fn edit(self, name: &str, from: &str, to: &str) -> Self {
        let text = String::from_utf8(self.bytes(name).to_vec()).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        self.set(name, text.replacen(from, to, 1))
    }

    /// Zips the files.
    pub fn zip(&self) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &self.0 {
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// Zips and reads the files.
    pub fn read(&self) -> Result<Accepted<Package>, Report> {
        read_zip(Cursor::new(self.zip()), &Limits::default())
    }

    /// The report of a package that has to be refused.
    pub fn refusal(&self) -> Report {
        self.read().expect_err("the package should be refused")
    }
}

/// A finding in short: code, file, line, column.
pub type Short = (String, String, Option<u64>, Option<String>);

fn short(finding: &Finding) -> Short {
    (finding.code.id().to_owned(), finding.file.clone(), finding.line, finding.column.clone())
}

/// The errors of a report, in short.
pub fn errors(report: &Report) -> Vec<Short> {
    report.findings().iter().filter(|f| f.severity == Severity::Error).map(short).collect()
}

/// The warnings of a report, in short.
pub fn warnings(report: &Report) -> Vec<Short> {
    report.findings().iter().filter(|f| f.severity == Severity::Warning).map(short).collect()
}

/// Writes down a finding in short.
pub fn at(code: &str, file: &str, line: impl Into<Option<u64>>, column: &str) -> Short {
    let column = Some(column.to_owned()).filter(|name| !name.is_empty());
    (code.to_owned(), file.to_owned(), line.into(), column)
}
