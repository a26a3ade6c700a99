//! Owns the import of a package: manifest first, then every file, then the checks across files.
//!
//! Invariant: nothing by halves. A caller gets a roster only if no file has an error; a package with ten
//! mistakes is reported with all ten. Leaves out: how one table is read (`table.rs`).

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use crate::archive::{Archive, PACKAGE};
use crate::context::Context;
use crate::encoding::Bom;
use crate::limits::Limits;
use crate::model::{Manifest, Roster};
use crate::profile::{PROFILES, Profile};
use crate::relations;
use crate::report::{Code, Finding, Phrase, Report, Severity};
use crate::rows::Record;
use crate::schema::{self, FILES, FileSpec, Need};
use crate::table::read_table;

/// Something that was read without an error, and what somebody should look at nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<T> {
    /// What was read.
    pub value: T,
    /// Warnings only.
    pub warnings: Report,
}

/// A package that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its contents.
    pub roster: Roster,
    /// `oneroster.version` of its manifest.
    pub oneroster_version: String,
    /// The edition that fits its version and every header, if there is one.
    pub profile: Option<&'static Profile>,
}

/// Reads and checks a whole OneRoster package.
///
/// # Errors
/// A [`Report`] with at least one error, if anything in the package is wrong enough not to import it. Files
/// are read to the end even then, so that the report is as complete as its limit allows.
pub fn read_zip(reader: impl Read + Seek, limits: &Limits) -> Result<Accepted<Package>, Report> {
    let mut context = Context::new(limits);
    let Some(mut archive) = Archive::open(reader, limits, &mut context.report) else {
        return Err(context.report);
    };
    let properties = read_manifest(&mut archive, &mut context);
    check_files(&archive, &properties, &mut context.report);
    let roster = Roster {
        manifest: Manifest {
            source_name: value(&properties, "source.systemName"),
            source_code: value(&properties, "source.systemCode"),
        },
        orgs: read_file(&mut archive, &mut context),
        academic_sessions: read_file(&mut archive, &mut context),
        courses: read_file(&mut archive, &mut context),
        classes: read_file(&mut archive, &mut context),
        users: read_file(&mut archive, &mut context),
        roles: read_file(&mut archive, &mut context),
        enrollments: read_file(&mut archive, &mut context),
        demographics: read_file(&mut archive, &mut context),
    };
    // Across files only when each is sound: one broken file would make all others look broken.
    context.check_references();
    if !context.report.has_errors() {
        relations::check(&roster, &mut context.report);
    }
    if context.report.has_errors() {
        return Err(context.report);
    }
    let oneroster_version = value(&properties, "oneroster.version");
    let package = Package { roster, oneroster_version, profile: context.detector.profile() };
    Ok(Accepted { value: package, warnings: context.report })
}

fn read_file<R: Read + Seek, T: Record>(archive: &mut Archive<R>, context: &mut Context) -> Vec<T> {
    let Some(bytes) = archive.read(T::FILE.name, &context.limits.clone(), &mut context.report) else {
        return Vec::new();
    };
    read_table(T::FILE, &bytes, Bom::Warn, context, T::read)
}

/// Properties of a manifest: value and line.
type Properties = BTreeMap<String, (String, u64)>;

fn value(properties: &Properties, name: &str) -> String {
    properties.get(name).map(|(value, _)| value.clone()).unwrap_or_default()
}

fn read_manifest<R: Read + Seek>(archive: &mut Archive<R>, context: &mut Context) -> Properties {
    let file = &schema::MANIFEST;
    let Some(bytes) = archive.read(file.name, &context.limits.clone(), &mut context.report) else {
        return Properties::new();
    };
    let rows = read_table(file, &bytes, Bom::Warn, context, |row, _| {
        (row.text("propertyName"), row.text("value"), row.line)
    });
    let mut properties = Properties::new();
    for (name, value, line) in rows {
        if properties.contains_key(&name) {
            let expected = Phrase::fixed("each property once", "項目は1回だけ");
            let finding = Finding::new(Severity::Error, Code::RowRepeated, file.name, expected);
            context.report.push(finding.at_line(line).at_column("propertyName").with_value(&name));
        }
        properties.insert(name, (value, line));
    }
    check_properties(&properties, &mut context.report);
    context.detector.see_version(&value(&properties, "oneroster.version"));
    properties
}

/// Checks the versions and every `file.*` line.
fn check_properties(properties: &Properties, report: &mut Report) {
    let about = |severity, code, (value, line): &(String, u64), expected| {
        let finding = Finding::new(severity, code, schema::MANIFEST.name, expected).at_line(*line);
        finding.at_column("value").with_value(value)
    };
    for name in ["manifest.version", "oneroster.version"] {
        let Some(property) = properties.get(name) else {
            let expected = Phrase::made(format!("a line {name}"), format!("{name} の行"));
            report.push(Finding::new(Severity::Error, Code::ValueMissing, schema::MANIFEST.name, expected));
            continue;
        };
        let (known, expected) = if name == "manifest.version" {
            (property.0 == "1.0", Phrase::fixed("1.0", "1.0"))
        } else {
            let known = PROFILES.iter().any(|profile| profile.oneroster_version == property.0);
            (known, Phrase::fixed("1.2, 1.2.1 or 1.2_JP", "1.2、1.2.1、1.2_JP のどれか"))
        };
        if !known {
            // A later 1.2.x is probably readable, and its headers will tell; OneRoster 1.1 is another format.
            let near = property.0.starts_with("1.2") && name == "oneroster.version";
            let severity = if near { Severity::Warning } else { Severity::Error };
            report.push(about(severity, Code::VersionUnknown, property, expected));
        }
    }
    for (_, property) in properties.iter().filter(|(name, _)| name.starts_with("file.")) {
        let expected = Phrase::fixed("bulk or absent", "bulk または absent");
        match property.0.as_str() {
            "bulk" | "absent" => {}
            "delta" => report.push(about(Severity::Error, Code::DeltaUnsupported, property, expected)),
            _ => report.push(about(Severity::Error, Code::BadWord, property, expected)),
        }
    }
}

/// Compares what the manifest lists, what the profile needs and what is in the package.
fn check_files<R: Read + Seek>(archive: &Archive<R>, properties: &Properties, report: &mut Report) {
    if !archive.has(schema::MANIFEST.name) {
        let expected = Phrase::fixed("manifest.csv in the package", "manifest.csv");
        report.push(Finding::new(Severity::Error, Code::FileMissing, schema::MANIFEST.name, expected));
        return;
    }
    for file in FILES {
        check_file(archive.has(file.name), file, properties, report);
    }
    for (name, (value, line)) in properties {
        let Some(file) = name.strip_prefix("file.").filter(|_| value == "bulk") else { continue };
        let csv = format!("{file}.csv");
        if FILES.iter().any(|known| known.name == csv) || archive.has(&csv) {
            continue;
        }
        let expected = Phrase::fixed("the file that the manifest lists", "manifestにあるファイル");
        report.push(Finding::new(Severity::Error, Code::FileMissing, csv, expected).at_line(*line));
    }
    for name in archive.names() {
        if name == schema::MANIFEST.name || FILES.iter().any(|file| file.name == name) {
            continue;
        }
        let expected = Phrase::fixed("the eight files of a roster", "名簿の8ファイル");
        report.push(Finding::new(Severity::Warning, Code::FileIgnored, PACKAGE, expected).with_value(name));
    }
}

fn check_file(is_there: bool, file: &FileSpec, properties: &Properties, report: &mut Report) {
    let listed = properties.get(file.property);
    let (severity, code, expected) = match (listed.map(|(value, _)| value.as_str()), is_there) {
        (Some("bulk"), true) | (Some("delta"), _) => return,
        (Some("bulk"), false) => (
            Severity::Error,
            Code::FileMissing,
            Phrase::fixed("the file that the manifest lists", "manifestにあるファイル"),
        ),
        (_, false) if file.need == Need::Optional => return,
        (_, false) => (
            Severity::Error,
            Code::FileMissing,
            Phrase::fixed("this file, for every roster needs it", "名簿に必須のファイル"),
        ),
        // Which of the two is right, only the sender knows.
        (Some(_), true) => (
            Severity::Error,
            Code::FileUnlisted,
            Phrase::fixed("bulk in the manifest, or no such file", "manifestでbulk、またはファイルなし"),
        ),
        (None, true) => (
            Severity::Warning,
            Code::FileUnlisted,
            Phrase::fixed("a line for this file in the manifest", "manifestにこのファイルの行"),
        ),
    };
    report.push(Finding::new(severity, code, file.name, expected));
}
