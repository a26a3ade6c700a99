//! Owns what all files of one import share: the report, the memory budget, identifiers and references.
//!
//! Invariant: every reference of every file is kept until all files are read, so that the order of files does
//! not matter. Leaves out: rows and cells (`table.rs`, `cell.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cell;
use crate::limits::Limits;
use crate::model::SourcedId;
use crate::profile::Detector;
use crate::report::{Code, Finding, Phrase, Report, Severity};
use crate::schema::{Column, Kind};

/// A cell that has to name a record of some file.
struct Reference {
    file: &'static str,
    line: u64,
    column: &'static str,
    target: &'static str,
    value: String,
}

/// What is shared by all files of one import.
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) report: Report,
    pub(crate) detector: Detector,
    memory_left: u64,
    ids: BTreeMap<&'static str, HashMap<String, u64>>,
    references: Vec<Reference>,
}

impl Context {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            report: Report::new(limits.findings_max),
            detector: Detector::default(),
            memory_left: limits.memory_bytes_max,
            ids: BTreeMap::new(),
            references: Vec::new(),
        }
    }

    /// Tells which identifiers a file has, when it is not read here.
    pub(crate) fn know_ids(&mut self, file: &'static str, ids: &BTreeSet<SourcedId>) {
        let known = ids.iter().map(|id| (id.as_str().to_owned(), 0)).collect();
        self.ids.insert(file, known);
    }

    /// Reports every reference that names nothing. References to files that could not be read are left out:
    /// their own finding says why.
    pub(crate) fn check_references(&mut self) {
        for reference in &self.references {
            let Some(known) = self.ids.get(reference.target) else { continue };
            if known.contains_key(&reference.value) {
                continue;
            }
            let target = reference.target;
            let expected =
                Phrase::made(format!("a sourcedId that is in {target}"), format!("{target} にあるsourcedId"));
            self.report.push(
                Finding::new(Severity::Error, Code::ReferenceDangling, reference.file, expected)
                    .at_line(reference.line)
                    .at_column(reference.column)
                    .with_value(&reference.value),
            );
        }
    }

    /// Tells that a file is here and has identifiers, so that references to it can be checked.
    pub(crate) fn open_file(&mut self, file: &'static str) {
        self.ids.entry(file).or_default();
    }

    /// Notes the identifier and the references of a cell, and reports an identifier that was used before.
    pub(crate) fn note(
        &mut self,
        file: &'static str,
        line: u64,
        column: &'static Column,
        spelling: &str,
        value: &str,
    ) {
        if value.is_empty() || value.len() > self.limits.field_bytes_max {
            return;
        }
        let mut refer = |target: &'static str, value: &str| {
            let (column, value) = (column.name, value.to_owned());
            self.references.push(Reference { file, line, column, target, value });
        };
        if let Kind::Reference(target) | Kind::IdIn(target) = column.kind {
            refer(target, value);
        } else if let Kind::References(target) = column.kind {
            cell::split_list(value).for_each(|item| refer(target, item));
        }
        if !column.kind.is_own_id() {
            return;
        }
        let ids = self.ids.entry(file).or_default();
        if let Some(first) = ids.get(value) {
            let expected = Phrase::made(
                format!("an identifier of its own (first used in line {first})"),
                format!("重複しない識別子（{first}行目で使用済み）"),
            );
            let finding = Finding::new(Severity::Error, Code::IdRepeated, file, expected);
            self.report.push(finding.at_line(line).at_column(spelling).with_value(value));
        } else {
            ids.insert(value.to_owned(), line);
        }
    }

    /// Takes from the memory budget. Returns false when it is spent.
    pub(crate) fn charge(&mut self, bytes: u64) -> bool {
        match self.memory_left.checked_sub(bytes) {
            Some(left) => {
                self.memory_left = left;
                true
            }
            None => false,
        }
    }
}
