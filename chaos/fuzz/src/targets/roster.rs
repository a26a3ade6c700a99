//! OneRoster packages.
//!
//! Layers: 0 the zip file as it is; 1 the harness packs the files, each `name \0 length(4, big-endian) bytes`.

use std::io::{Cursor, Read, Write};

use sonae_roster::{Dropped, Lang, Limits, PROFILES, Package, Report, Roster, read_zip, write_zip};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::tables::{column, mutate_csv, rows};
use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, behind_layer, hold, layer, layered, measure, mutate};

/// The target.
pub struct RosterTarget;

/// Small limits, so that an input of a few KiB can go past each of them.
fn limits() -> Limits {
    Limits {
        package_bytes_max: 64 * 1024,
        total_bytes_max: 24 * 1024,
        entry_bytes_max: 12 * 1024,
        entries_max: 12,
        ratio_max: 50,
        field_bytes_max: 1024,
        columns_max: 40,
        memory_bytes_max: 64 * 1024,
        findings_max: 20,
    }
}

/// What reading may hold: the charged memory several times (the charge is an estimate), one entry decoded, the
/// tables of the zip library, and the findings.
const MEMORY_BYTES_MAX: usize = 4 * 64 * 1024 + 8 * 24 * 1024 + 512 * 1024;

type Parts = Vec<(String, Vec<u8>)>;

fn parts(body: &[u8]) -> Parts {
    let mut parts = Parts::new();
    let mut rest = body;
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
        let Some(length) = rest.get(end + 1..).and_then(|tail| tail.first_chunk::<4>()) else { break };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let content = rest.get(end + 5..).unwrap_or_default();
        let (content, tail) = content.split_at(length.min(content.len()));
        parts.push((name, content.to_vec()));
        rest = tail;
    }
    parts
}

fn join(parts: &Parts) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(content);
    }
    body
}

fn pack(parts: &Parts) -> Option<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).ok()?;
        zip.write_all(content).ok()?;
    }
    zip.finish().ok().map(Cursor::into_inner)
}

fn unpack(bytes: &[u8]) -> Option<Parts> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut parts = Parts::new();
    for at in 0..zip.len() {
        let entry = zip.by_index(at).ok()?;
        let (name, mut content) = (entry.name().to_owned(), Vec::new());
        entry.take(64 * 1024).read_to_end(&mut content).ok()?;
        parts.push((name, content));
    }
    Some(parts)
}

fn class(report: &Report) -> Verdict {
    report.findings().iter().find(|finding| finding.severity == sonae_roster::Severity::Error).map_or_else(
        || "refused without a finding".into(),
        |finding| format!("refused: {}", finding.code.id()),
    )
}

fn decode(bytes: &[u8], planted: Planted) -> Result<(Package, Report), Report> {
    let limits = if planted.is("limits") { Limits::default() } else { limits() };
    let accepted = read_zip(Cursor::new(bytes), &limits)?;
    let mut package = accepted.value;
    if planted.is("by-halves") && package.roster.users.len() > 1 {
        package.roster.users.pop();
    }
    if planted.is("swaps") {
        for user in &mut package.roster.users {
            std::mem::swap(&mut user.family_name, &mut user.given_name);
        }
    }
    Ok((package, accepted.warnings))
}

fn check_report(report: &Report) -> Result<(), Broken> {
    let limits = limits();
    hold(report.findings().len() <= limits.findings_max, || "a report keeps at most its limit".into())?;
    for lang in [Lang::En, Lang::Ja] {
        let text = report.text(lang);
        let is_silent = text.is_empty() && !report.findings().is_empty();
        hold(!is_silent, || "every report is said in both languages".into())?;
    }
    Ok(())
}

fn count(parts: &Parts, file: &str) -> usize {
    let is_file = |name: &str| name == file || name.ends_with(&format!("/{file}"));
    parts.iter().find(|(name, _)| is_file(name)).and_then(|(_, content)| rows(content)).unwrap_or(0)
}

fn check(bytes: &[u8], package: &Package) -> Result<Verdict, Broken> {
    let roster = &package.roster;
    let limits = limits();
    let Some(parts) = unpack(bytes) else {
        return Err(Broken("an accepted package is a zip file".into()));
    };
    hold(parts.len() <= limits.entries_max, || "an accepted package has at most its entries".into())?;
    let bytes_max = usize::try_from(limits.entry_bytes_max).unwrap_or(usize::MAX);
    let read = ["users.csv", "orgs.csv", "classes.csv", "enrollments.csv", "roles.csv"];
    let is_read = |name: &str| read.iter().any(|file| name.ends_with(file));
    hold(parts.iter().all(|(name, content)| !is_read(name) || content.len() <= bytes_max), || {
        "an accepted entry is within its limit".into()
    })?;
    hold(roster.users.len() == count(&parts, "users.csv"), || "every row of users.csv is a user".into())?;
    hold(roster.enrollments.len() == count(&parts, "enrollments.csv"), || {
        "every row of enrollments.csv is an enrolment".into()
    })?;
    let users = parts.iter().find(|(name, _)| name.ends_with("users.csv")).map(|(_, content)| content);
    let given = users.and_then(|users| column(users, "givenName"));
    hold(
        given.is_none_or(|given| given.iter().eq(roster.users.iter().map(|user| &user.given_name))),
        || "names are taken from their own column".into(),
    )?;
    check_round_trip(roster)
}

fn check_round_trip(roster: &Roster) -> Result<Verdict, Broken> {
    let mut bytes = Vec::new();
    let Some(profile) = PROFILES.first() else { return Ok("accepted".into()) };
    let dropped: Dropped = match write_zip(roster, profile, &mut bytes) {
        Ok(dropped) => dropped,
        Err(_) => return Ok("accepted, not writable in the first edition".into()),
    };
    let again = read_zip(Cursor::new(&bytes), &Limits::default());
    let Ok(again) = again else {
        return Err(Broken("a package that was written can be read".into()));
    };
    if dropped.is_empty() {
        hold(again.value.roster == *roster, || "a roster that is written and read again is the same".into())?;
        return Ok("accepted".into());
    }
    Ok("accepted, with something that the first edition has no place for".into())
}

/// A board, a school, a class, a teacher and a pupil; nobody has these names.
fn by_hand() -> Parts {
    let id = |n: u32| format!("0b0a4d2e-1111-4a11-8a11-{n:012}");
    let [board, school, year, course, class, teacher, pupil] = [1, 2, 3, 4, 5, 6, 7].map(id);
    let bulk =
        ["academicSessions", "classes", "courses", "demographics", "enrollments", "orgs", "roles", "users"];
    let bulk: String = bulk.iter().map(|file| format!("file.{file},bulk\n")).collect();
    let files = [
        ("manifest.csv", format!("propertyName,value\nmanifest.version,1.0\noneroster.version,1.2\n{bulk}")),
        (
            "academicSessions.csv",
            format!(
                "sourcedId,status,dateLastModified,title,type,startDate,endDate,parentSourcedId,schoolYear\n{year},,,2026年度,schoolYear,2026-04-01,2027-03-31,,2026\n"
            ),
        ),
        (
            "orgs.csv",
            format!(
                "sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId\n{board},,,架空市教育委員会,district,992010,\n{school},,,架空市立見本小学校,school,B113200000011,{board}\n"
            ),
        ),
        (
            "courses.csv",
            format!(
                "sourcedId,status,dateLastModified,schoolYearSourcedId,title,courseCode,grades,orgSourcedId,subjects,subjectCodes\n{course},,,{year},2026年度国語,,\"P1,P2\",{school},国語,P010\n"
            ),
        ),
        (
            "classes.csv",
            format!(
                "sourcedId,status,dateLastModified,title,grades,courseSourcedId,classCode,classType,location,schoolSourcedId,termSourcedIds,subjects,subjectCodes,periods,metadata.jp.specialNeeds\n{class},,,1年1組,P1,{course},,homeroom,,{school},{year},,,,false\n"
            ),
        ),
        (
            "users.csv",
            format!(
                "sourcedId,status,dateLastModified,enabledUser,username,userIds,givenName,familyName,middleName,identifier,email,sms,phone,agentSourcedIds,grades,password,userMasterIdentifier,preferredGivenName,preferredMiddleName,preferredFamilyName,primaryOrgSourcedId,pronouns,metadata.jp.kanaGivenName,metadata.jp.kanaFamilyName,metadata.jp.kanaMiddleName,metadata.jp.homeClass,metadata.jp.kanaPreferredFamilyName,metadata.jp.kanaPreferredGivenName,metadata.jp.kanaPreferredMiddleName\n{teacher},,,true,t1,,花子,見本,,,,,,,,,{},花子,,見本,{school},,ハナコ,ミホン,,,,,\n{pupil},,,true,s1,,一郎,架空,,101,,,,,P1,,{},一郎,,架空,{school},,イチロウ,カクウ,,{class},カクウ,イチロウ,\n",
                id(16),
                id(17)
            ),
        ),
        (
            "roles.csv",
            format!(
                "sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId,userProfileSourcedId\n{},,,{teacher},primary,teacher,,,{school},\n{},,,{pupil},primary,student,,,{school},\n",
                id(20),
                id(21)
            ),
        ),
        (
            "enrollments.csv",
            format!(
                "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,beginDate,endDate,metadata.jp.ShussekiNo,metadata.jp.PublicFlg\n{},,,{class},{school},{teacher},teacher,true,,,,\n{},,,{class},{school},{pupil},student,false,,,1,true\n",
                id(30),
                id(31)
            ),
        ),
        (
            "demographics.csv",
            format!(
                "sourcedId,status,dateLastModified,birthDate,sex,americanIndianOrAlaskaNative,asian,blackOrAfricanAmerican,nativeHawaiianOrOtherPacificIslander,white,demographicRaceTwoOrMoreRaces,hispanicOrLatinoEthnicity,countryOfBirthCode,stateOfBirthAbbreviation,cityOfBirth,publicSchoolResidenceStatus\n{pupil},,,2019-05-05,male,,,,,,,,,,,\n"
            ),
        ),
    ];
    files.map(|(name, text)| (name.to_owned(), text.into_bytes())).to_vec()
}

/// What is written by hand is read, and written again by the product in one of its editions.
fn written(edition: usize) -> Option<Parts> {
    let read = read_zip(Cursor::new(pack(&by_hand())?), &Limits::default()).ok()?;
    let mut bytes = Vec::new();
    write_zip(&read.value.roster, PROFILES.get(edition)?, &mut bytes).ok()?;
    unpack(&bytes)
}

impl Target for RosterTarget {
    fn name(&self) -> &'static str {
        "roster"
    }

    fn executions(&self) -> u64 {
        500
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["limits", "by-halves", "swaps"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["accepted"]
    }

    fn seeds(&self) -> Vec<Seed> {
        let editions =
            [("first-edition", written(0)), ("last-edition", written(PROFILES.len().saturating_sub(1)))];
        let mut seeds: Vec<Seed> =
            editions.into_iter().filter_map(|(name, parts)| Some((name, layer(1, &join(&parts?))))).collect();
        seeds.extend(written(0).and_then(|parts| Some(("zip", layer(0, &pack(&parts)?)))));
        seeds
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 2, random, |number, body, random| {
            if number == 0 {
                return mutate::bytes(body, random);
            }
            let mut parts = parts(body);
            let at = random.below(parts.len());
            match random.below(12) {
                0 if !parts.is_empty() => drop(parts.remove(at)),
                1 => {
                    if let Some(copy) = parts.get(at).cloned() {
                        parts.push(copy);
                    }
                }
                2 => {
                    let name =
                        random.pick(&["../users.csv", "a/users.csv", "users.CSV", "results.csv", "", "C:x"]);
                    if let (Some(part), Some(name)) = (parts.get_mut(at), name) {
                        part.0 = (*name).to_owned();
                    }
                }
                3 => {
                    // Far more of it than it was, as a bomb or a large school has.
                    if let Some((_, content)) = parts.get_mut(at) {
                        let line = content.split(|byte| *byte == b'\n').nth(1).unwrap_or_default().to_vec();
                        let more = [40, 200].get(random.below(2)).copied().unwrap_or(1);
                        content.extend([line, b"\n".to_vec()].concat().repeat(more));
                        content.truncate(mutate::INPUT_BYTES_MAX / 4);
                    }
                }
                _ => {
                    if let Some((_, content)) = parts.get_mut(at) {
                        mutate_csv(content, random);
                    }
                }
            }
            *body = join(&parts);
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let packed = if number % 2 == 0 { Some(body.to_vec()) } else { pack(&parts(body)) };
        let Some(bytes) = packed else { return Ok("not packed".into()) };
        let memory = MEMORY_BYTES_MAX + 4 * bytes.len().min(64 * 1024);
        match measure::call(memory, || decode(&bytes, planted))? {
            Ok((package, warnings)) => {
                check_report(&warnings)?;
                hold(!warnings.has_errors(), || "what is accepted has warnings only".into())?;
                check(&bytes, &package)
            }
            Err(report) => {
                check_report(&report)?;
                hold(report.has_errors(), || "what is refused has an error".into())?;
                Ok(class(&report))
            }
        }
    }
}
