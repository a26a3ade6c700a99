//! Owns what the plain CSV readers share: what is known beforehand, the size check, the verdict.
//!
//! Invariant: a verdict with an error carries no data. Leaves out: the files (`contacts.rs`, `attendance.rs`).

use std::collections::BTreeSet;

use crate::context::Context;
use crate::limits::Limits;
use crate::model::SourcedId;
use crate::read::Accepted;
use crate::report::{Code, Finding, Phrase, Report, Severity};
use crate::schema::{FileSpec, USERS};

/// What a reader may hold a file against. With the default, only the file itself is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// The pupils of the roster; rows for others are errors.
    pub pupils: Option<&'a BTreeSet<SourcedId>>,
    /// The board's attendance codes; others are errors.
    pub attendance_codes: Option<&'a [&'a str]>,
}

/// Begins to read a plain CSV file.
pub(crate) fn start(
    file: &FileSpec,
    bytes: &[u8],
    known: &Known<'_>,
    limits: &Limits,
) -> Result<Context, Report> {
    let mut context = Context::new(limits);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > limits.entry_bytes_max {
        let most = limits.entry_bytes_max;
        let expected = Phrase::made(format!("at most {most} bytes"), format!("{most}バイトまで"));
        context.report.push(Finding::new(Severity::Error, Code::TooLarge, file.name, expected));
        return Err(context.report);
    }
    if let Some(pupils) = known.pupils {
        context.know_ids(USERS.name, pupils);
    }
    Ok(context)
}

/// Ends reading: the data with warnings, or the report.
pub(crate) fn finish<T>(value: T, mut context: Context) -> Result<Accepted<T>, Report> {
    context.check_references();
    if context.report.has_errors() {
        return Err(context.report);
    }
    Ok(Accepted { value, warnings: context.report })
}
