//! The plain CSV files beside a OneRoster package: contacts and attendance.
//!
//! Layers: 0 contacts; 1 attendance.

use std::collections::BTreeSet;

use sonae_roster::{
    Accepted, AttendanceEntry, GuardianContact, Known, Limits, Period, Report, Severity, SourcedId,
    read_attendance, read_contacts, write_attendance, write_contacts,
};

use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, behind_layer, hold, layer, layered, measure, mutate};

/// The target.
pub struct TablesTarget;

fn limits() -> Limits {
    Limits {
        entry_bytes_max: 16 * 1024,
        field_bytes_max: 1024,
        columns_max: 24,
        memory_bytes_max: 32 * 1024,
        findings_max: 20,
        ..Limits::default()
    }
}

/// What reading may hold: the charged memory several times, the text decoded, the CSV reader's buffers.
const MEMORY_BYTES_MAX: usize = 8 * 32 * 1024 + 8 * 16 * 1024 + 128 * 1024;

const CELLS: [&str; 26] = [
    "",
    " ",
    "0",
    "1",
    "9999",
    "10000",
    "true",
    "TRUE",
    "2026-02-30",
    "2026-04-08",
    "９",
    "アイ",
    "ｱｲ",
    "a@b.example",
    "090-0000-0001",
    "all",
    "am",
    "9",
    "present",
    "\"",
    "a\nb",
    "P1,P2",
    "student",
    "0b0a4d2e-1111-4a11-8a11-000000000007",
    "guardian",
    "\u{feff}",
];

fn records(text: &[u8]) -> Option<Vec<Vec<String>>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    reader.records().map(|record| Some(record.ok()?.iter().map(str::to_owned).collect())).collect()
}

/// Rows of a CSV file below its header that are not blank; `None` if it is no text.
pub fn rows(text: &[u8]) -> Option<usize> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let filled = |row: &&Vec<String>| row.iter().any(|cell| !cell.is_empty());
    Some(records(text)?.iter().skip(1).filter(filled).count())
}

/// The cells of a column below its header, of rows that are not blank.
pub fn column(text: &[u8], name: &str) -> Option<Vec<String>> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let records = records(text)?;
    let at = records.first()?.iter().position(|cell| cell == name)?;
    let filled = |row: &&Vec<String>| row.iter().any(|cell| !cell.is_empty());
    records.iter().skip(1).filter(filled).map(|row| row.get(at).cloned()).collect()
}

/// Changes one thing in a CSV file: a cell, a row, a column, or bytes.
pub fn mutate_csv(text: &mut Vec<u8>, random: &mut Random) {
    let Some(mut records) = records(text).filter(|records| !records.is_empty()) else {
        return mutate::bytes(text, random);
    };
    let row = random.below(records.len());
    let width = records.get(row).map_or(0, Vec::len);
    let at = random.below(width);
    match random.below(11) {
        0 => return mutate::bytes(text, random),
        10 => return text.extend_from_slice(b"\"open,"),
        1 => {
            let copy = records.get(row).cloned().unwrap_or_default();
            records.insert(row, copy);
        }
        2 => drop(records.remove(row)),
        3 => {
            let other = random.below(records.len());
            records.swap(row, other);
        }
        4 => {
            let name = *random.pick(&["metadata.x", "x", "status", "phone2"]).unwrap_or(&"x");
            for (number, record) in records.iter_mut().enumerate() {
                record.push(if number == 0 { name.to_owned() } else { "y".to_owned() });
            }
        }
        5 => records.iter_mut().for_each(|record| {
            if at < record.len() {
                record.remove(at);
            }
        }),
        6 => {
            let other = random.below(width);
            records
                .iter_mut()
                .filter(|record| at.max(other) < record.len())
                .for_each(|record| record.swap(at, other));
        }
        _ => {
            if let Some(cell) = records.get_mut(row).and_then(|record| record.get_mut(at)) {
                match random.below(3) {
                    0 => cell.push(char::from(b' ' + random.byte() % 95)),
                    1 => *cell = "あ".repeat([10, 127, 129, 400].get(random.below(4)).copied().unwrap_or(1)),
                    _ => *cell = (*random.pick(&CELLS).unwrap_or(&"")).to_owned(),
                }
            }
        }
    }
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    let written = records.iter().all(|record| writer.write_record(record).is_ok());
    if let (true, Ok(bytes)) = (written, writer.into_inner()) {
        *text = bytes;
    }
}

fn class(report: &Report) -> Verdict {
    let error = report.findings().iter().find(|finding| finding.severity == Severity::Error);
    error.map_or_else(
        || "refused without a finding".into(),
        |finding| format!("refused: {}", finding.code.id()),
    )
}

/// One kind of file: how it is read, written, and what is unique in it.
trait Table: PartialEq + Sized + Clone {
    type Key: Ord;
    fn read(bytes: &[u8]) -> Result<Accepted<Vec<Self>>, Report>;
    fn write(rows: &[Self]) -> Option<Vec<u8>>;
    fn key(&self) -> Self::Key;
}

impl Table for GuardianContact {
    type Key = (SourcedId, u32);

    fn read(bytes: &[u8]) -> Result<Accepted<Vec<Self>>, Report> {
        read_contacts(bytes, &Known::default(), &limits())
    }

    fn write(rows: &[Self]) -> Option<Vec<u8>> {
        write_contacts(rows).ok()
    }

    fn key(&self) -> Self::Key {
        (self.student.clone(), self.priority)
    }
}

impl Table for AttendanceEntry {
    type Key = (time::Date, SourcedId, Period);

    fn read(bytes: &[u8]) -> Result<Accepted<Vec<Self>>, Report> {
        read_attendance(bytes, &Known::default(), &limits())
    }

    fn write(rows: &[Self]) -> Option<Vec<u8>> {
        write_attendance(rows).ok()
    }

    fn key(&self) -> Self::Key {
        (self.date, self.student.clone(), self.period)
    }
}

fn decode<T: Table>(bytes: &[u8], planted: Planted) -> Result<Accepted<Vec<T>>, Report> {
    let mut outcome = T::read(bytes);
    if let Err(report) = &outcome {
        let only = |code: &str| {
            let errors = report.findings().iter().filter(|finding| finding.severity == Severity::Error);
            errors.clone().count() > 0 && errors.clone().all(|finding| finding.code.id() == code)
        };
        let passes =
            planted.is("by-halves") && only("row-ragged") || planted.is("trailing") && only("quote-open");
        if passes {
            // Takes the lines before the last one, as a reader that stops at the first error would.
            let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            let end = bytes.get(..end).and_then(|head| head.iter().rposition(|byte| *byte == b'\n'));
            outcome = T::read(bytes.get(..end.map_or(0, |at| at + 1)).unwrap_or_default()).or(outcome);
        }
    }
    if let Ok(accepted) = &mut outcome
        && planted.is("repeats")
        && let Some(first) = accepted.value.first().cloned()
    {
        accepted.value.push(first);
    }
    outcome
}

fn judge<T: Table>(bytes: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let memory = MEMORY_BYTES_MAX + 2 * bytes.len().min(64 * 1024);
    let accepted = match measure::call(memory, || decode::<T>(bytes, planted))? {
        Ok(accepted) => accepted,
        Err(report) => {
            hold(report.has_errors(), || "what is refused has an error".into())?;
            hold(report.findings().len() <= limits().findings_max, || {
                "a report keeps at most its limit".into()
            })?;
            return Ok(class(&report));
        }
    };
    hold(!accepted.warnings.has_errors(), || "what is accepted has warnings only".into())?;
    let table = accepted.value;
    let keys: BTreeSet<T::Key> = table.iter().map(T::key).collect();
    hold(keys.len() == table.len(), || "each key of an accepted table stands once".into())?;
    hold(rows(bytes) == Some(table.len()), || "every row of an accepted table is read".into())?;
    let again = T::write(&table).ok_or_else(|| Broken("an accepted table can be written".into()))?;
    match T::read(&again) {
        Ok(again) => {
            hold(again.value == table, || "a table that is written and read again is the same".into())?
        }
        // Quotation marks and line ends of our own writer may take it past the limit on its bytes.
        Err(report) => hold(class(&report) == "refused: too-large", || {
            format!("an accepted table that is written can be read again: {}", class(&report))
        })?,
    }
    Ok("accepted".into())
}

impl Target for TablesTarget {
    fn name(&self) -> &'static str {
        "tables"
    }

    fn executions(&self) -> u64 {
        2_500
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["by-halves", "trailing", "repeats"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["accepted", "refused: row-repeated", "refused: row-ragged", "refused: column-missing"]
    }

    fn seeds(&self) -> Vec<Seed> {
        let pupil = SourcedId::new("0b0a4d2e-1111-4a11-8a11-000000000007");
        let contact = |priority, email: &str| GuardianContact {
            student: pupil.clone(),
            priority,
            name: "架空 母".into(),
            kana: "カクウ ハハ".into(),
            relationship: "母".into(),
            phone1: "090-0000-0001".into(),
            phone2: String::new(),
            email: email.into(),
            lives_with: Some(true),
        };
        let entry = |period, reason: &str| AttendanceEntry {
            date: time::Date::from_ordinal_date(2026, 98).unwrap_or(time::Date::MIN),
            student: pupil.clone(),
            period,
            code: "late".into(),
            reason_text: reason.into(),
        };
        let contacts = write_contacts(&[contact(1, "a@b.example"), contact(2, "")]).unwrap_or_default();
        let entries = [entry(Period::All, "\"雪\"\nのため"), entry(Period::Lesson(3), "")];
        let attendance = write_attendance(&entries).unwrap_or_default();
        vec![("contacts", layer(0, &contacts)), ("attendance", layer(1, &attendance))]
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 2, random, |_, body, random| mutate_csv(body, random));
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        if number % 2 == 0 {
            judge::<GuardianContact>(body, planted)
        } else {
            judge::<AttendanceEntry>(body, planted)
        }
    }
}
