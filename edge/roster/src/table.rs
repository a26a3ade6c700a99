//! Owns the step from text to rows: header, fields, line numbers, and the checks that every row gets.
//!
//! Invariants: each row that reaches a builder has as many fields as the header, and all its cells were
//! checked; identifiers and references are collected for the check across files; what is kept is charged to
//! one memory budget, and reading stops when it is spent. Leaves out: what a row means (`rows.rs`).

use std::collections::BTreeMap;

use csv::StringRecord;
use time::Date;

use crate::cell;
use crate::context::Context;
use crate::encoding::{Bom, count_lines, decode};
use crate::limits::{ITEM_COST_BYTES, ROW_COST_BYTES};
use crate::model::{Extra, SourcedId};
use crate::report::{Code, Finding, Phrase, Report, Severity};
use crate::schema::{Column, FileSpec, Kind, Need};

/// The columns of a file as they stand in its header.
struct Header {
    /// For each field: the column, and its spelling in the file.
    fields: Vec<(Option<&'static Column>, String)>,
    /// Field number by the column's key.
    by_key: BTreeMap<&'static str, usize>,
}

/// One row, checked, with access by a column's key. Faulty or missing cells read as empty; their findings
/// prevent that the result is used.
pub(crate) struct Row<'a> {
    pub(crate) line: u64,
    pub(crate) file: &'static FileSpec,
    header: &'a Header,
    record: &'a StringRecord,
}

impl Row<'_> {
    pub(crate) fn str(&self, key: &str) -> &str {
        self.header.by_key.get(key).and_then(|at| self.record.get(*at)).unwrap_or_default()
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.str(key).to_owned()
    }

    pub(crate) fn id(&self, key: &str) -> SourcedId {
        SourcedId::new(self.str(key))
    }

    pub(crate) fn id_if_any(&self, key: &str) -> Option<SourcedId> {
        Some(self.str(key)).filter(|value| !value.is_empty()).map(SourcedId::new)
    }

    pub(crate) fn ids(&self, key: &str) -> Vec<SourcedId> {
        cell::split_list(self.str(key)).map(SourcedId::new).collect()
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        cell::split_list(self.str(key)).map(str::to_owned).collect()
    }

    pub(crate) fn date(&self, key: &str) -> Option<Date> {
        cell::parse_date(self.str(key))
    }

    pub(crate) fn number(&self, key: &str) -> Option<u32> {
        cell::parse_number(self.str(key))
    }

    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        match self.str(key) {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// The unknown columns that are filled.
    pub(crate) fn extra(&self) -> Extra {
        let fields = self.header.fields.iter().zip(self.record.iter());
        let unknown = fields.filter(|((column, _), value)| column.is_none() && !value.is_empty());
        unknown.map(|((_, name), value)| (name.clone(), value.to_owned())).collect()
    }

    /// Makes a finding about a cell of this row.
    pub(crate) fn finding(&self, severity: Severity, code: Code, key: &str, expected: Phrase) -> Finding {
        let at = self.header.by_key.get(key).and_then(|at| self.header.fields.get(*at));
        let spelling = at.map_or(key, |(_, spelling)| spelling);
        let finding = Finding::new(severity, code, self.file.name, expected);
        finding.at_line(self.line).at_column(spelling).with_value(self.str(key))
    }
}

/// Reads a whole table. Every row is checked; `build` turns it into a record and may add findings.
pub(crate) fn read_table<T>(
    file: &'static FileSpec,
    bytes: &[u8],
    bom: Bom,
    context: &mut Context,
    mut build: impl FnMut(&Row<'_>, &mut Report) -> T,
) -> Vec<T> {
    let Some(text) = decode(file.name, bytes, bom, &mut context.report) else { return Vec::new() };
    let mut lines = Lines { bytes: text.as_bytes(), at: 0, line: 1 };
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    let mut header: Option<Header> = None;
    let mut rows = Vec::new();
    // The text is UTF-8 and lies in memory, and the reader is flexible: it has no way left to fail.
    while let Ok(true) = reader.read_record(&mut record) {
        let start = record.position().map_or(0, csv::Position::byte);
        let line = lines.line_of(start);
        if usize::try_from(reader.position().byte()).is_ok_and(|end| end >= text.len()) {
            check_open_quote(file, text.as_bytes(), lines.at, line, &mut context.report);
        }
        let Some(header) = &header else {
            match read_header(file, &record, line, context) {
                Some(good) => header = Some(good),
                None => return Vec::new(),
            }
            continue;
        };
        let row = Row { line, file, header, record: &record };
        if !context.charge(row_cost(&row)) {
            let expected = Phrase::fixed("fewer or smaller rows", "もっと少ない行数");
            context
                .report
                .push(Finding::new(Severity::Error, Code::TooLarge, file.name, expected).at_line(line));
            break;
        }
        if check_row(&row, context) {
            rows.push(build(&row, &mut context.report));
        }
    }
    if header.is_none() {
        let expected = Phrase::fixed("a header line", "見出し行");
        context.report.push(Finding::new(Severity::Error, Code::FileEmpty, file.name, expected));
    }
    rows
}

/// Counts lines along growing byte offsets. The CSV reader's own count is that of the previous record's end,
/// which lags behind at CRLF and at empty lines.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// Line of the first character at or after an offset that is not a line end.
    fn line_of(&mut self, offset: u64) -> u64 {
        let offset = usize::try_from(offset).unwrap_or(self.bytes.len()).max(self.at);
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let skipped = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let to = offset.saturating_add(skipped);
        self.line = self.line.saturating_add(count_lines(self.bytes.get(self.at..to).unwrap_or_default()));
        self.at = to;
        self.line
    }
}

/// Reports when the file's last record ends within quotation marks: then it swallowed what follows.
fn check_open_quote(file: &FileSpec, bytes: &[u8], from: usize, line: u64, report: &mut Report) {
    let (mut quoted, mut at_field_start) = (false, true);
    for byte in bytes.get(from..).unwrap_or_default() {
        // A doubled mark within marks closes and opens again: the same in the end.
        quoted ^= *byte == b'"' && (quoted || at_field_start);
        at_field_start = *byte == b'"' || (!quoted && matches!(byte, b',' | b'\n' | b'\r'));
    }
    if quoted {
        let expected = Phrase::fixed("pairs of quotation marks", "引用符は2つで1組");
        report.push(Finding::new(Severity::Error, Code::QuoteOpen, file.name, expected).at_line(line));
    }
}

/// Reads the header line, or reports why the file cannot be read and returns `None`.
fn read_header(
    file: &'static FileSpec,
    record: &StringRecord,
    line: u64,
    context: &mut Context,
) -> Option<Header> {
    let mut header = Header { fields: Vec::new(), by_key: BTreeMap::new() };
    let report = &mut context.report;
    let about = |severity, code, name: &str, expected| {
        Finding::new(severity, code, file.name, expected).at_line(line).at_column(name)
    };
    if record.len() > context.limits.columns_max {
        let expected = Phrase::fixed("fewer columns", "もっと少ない列数");
        report.push(Finding::new(Severity::Error, Code::TooLarge, file.name, expected).at_line(line));
        return None;
    }
    for (at, name) in record.iter().enumerate() {
        let column = file.columns.iter().find(|column| column.name == name || column.aliases.contains(&name));
        let repeated = match column {
            Some(column) => header.by_key.insert(column.name, at).is_some(),
            None => header.fields.iter().any(|(_, earlier)| earlier == name),
        };
        if repeated {
            let expected = Phrase::fixed("each column once", "列は1回だけ");
            report.push(about(Severity::Error, Code::ColumnRepeated, name, expected));
        }
        if column.is_none() && !name.starts_with("metadata.") {
            let expected = Phrase::fixed("the profile's columns", "プロファイルにある列");
            report.push(about(Severity::Warning, Code::ColumnUnknown, name, expected));
        }
        header.fields.push((column, name.to_owned()));
    }
    for column in file.columns.iter().filter(|column| column.header == Need::Required) {
        if !header.by_key.contains_key(column.name) {
            let expected = Phrase::fixed("this column in the header", "見出し行にこの列");
            report.push(about(Severity::Error, Code::ColumnMissing, column.name, expected));
        }
    }
    let known = header.fields.iter().filter(|(column, _)| column.is_some());
    let known: Vec<&str> = known.map(|(_, spelling)| spelling.as_str()).collect();
    if !context.detector.see_header(file, &known) {
        let sorted = known_in_order(file, &header);
        let (code, expected) = if sorted {
            (Code::ColumnMissing, Phrase::fixed("all columns of the profile", "プロファイルの全ての列"))
        } else {
            (Code::ColumnOrder, Phrase::fixed("the profile's order", "プロファイルの順番"))
        };
        context.report.push(Finding::new(Severity::Warning, code, file.name, expected).at_line(line));
    }
    if header.by_key.contains_key("sourcedId") {
        context.open_file(file.name);
    }
    Some(header)
}

/// Whether the known columns stand in the schema's order, some perhaps missing.
fn known_in_order(file: &FileSpec, header: &Header) -> bool {
    let present = file.columns.iter().filter_map(|column| header.by_key.get(column.name));
    present.is_sorted()
}

/// Checks a row and collects its identifiers and references. Returns whether to build a record from it.
fn check_row(row: &Row<'_>, context: &mut Context) -> bool {
    let (file, line, record) = (row.file, row.line, row.record);
    if record.iter().all(str::is_empty) {
        let expected = Phrase::fixed("no blank rows", "空の行なし");
        context
            .report
            .push(Finding::new(Severity::Warning, Code::RowBlank, file.name, expected).at_line(line));
        return false;
    }
    let width = row.header.fields.len();
    let ragged = record.len() != width;
    if ragged {
        let expected = Phrase::made(
            format!("{width} fields, not {}", record.len()),
            format!("{width}項目（今は{}項目）", record.len()),
        );
        context
            .report
            .push(Finding::new(Severity::Error, Code::RowRagged, file.name, expected).at_line(line));
    }
    for ((column, spelling), value) in row.header.fields.iter().zip(record.iter()) {
        // A ragged row's identifier is still noted, so that one broken row is not reported many times.
        if ragged && !column.is_some_and(|column| column.kind.is_own_id()) {
            continue;
        }
        if let Some(finding) = check_cell(row, *column, spelling, value, context.limits.field_bytes_max) {
            context.report.push(finding);
        }
        if let Some(column) = column {
            context.note(file.name, line, column, spelling, value);
        }
    }
    !ragged
}

fn check_cell(
    row: &Row<'_>,
    column: Option<&'static Column>,
    spelling: &str,
    value: &str,
    field_bytes_max: usize,
) -> Option<Finding> {
    const UNKNOWN: Column =
        Column { name: "", aliases: &[], kind: Kind::Text, header: Need::Optional, value: Need::Optional };
    let column = column.unwrap_or(&UNKNOWN);
    let about = |severity, code, expected| {
        Finding::new(severity, code, row.file.name, expected).at_line(row.line).at_column(spelling)
    };
    if value.len() > field_bytes_max {
        let expected =
            Phrase::made(format!("at most {field_bytes_max} bytes"), format!("{field_bytes_max}バイトまで"));
        return Some(about(Severity::Error, Code::FieldTooLong, expected));
    }
    let (severity, code, expected) = cell::check(column, value)?;
    let finding = about(severity, code, expected);
    let show = !value.is_empty() && column.kind != Kind::Unkept;
    Some(if show { finding.with_value(value) } else { finding })
}

/// Estimated memory of a row in bytes: its texts, each item of its lists, each unknown column, and itself.
fn row_cost(row: &Row<'_>) -> u64 {
    let mut cost = ROW_COST_BYTES;
    for ((column, name), value) in row.header.fields.iter().zip(row.record.iter()) {
        let items = match column.map(|column| column.kind) {
            Some(Kind::List | Kind::Words(_) | Kind::References(_)) => 1 + value.matches(',').count(),
            Some(kind) => usize::from(kind.is_identifier()),
            None if value.is_empty() => 0,
            None => 1 + name.len() / 64,
        };
        let items = u64::try_from(items).unwrap_or(u64::MAX);
        let bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
        cost = cost.saturating_add(bytes).saturating_add(items.saturating_mul(ITEM_COST_BYTES));
    }
    cost
}
