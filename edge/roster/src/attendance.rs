//! Owns `attendance.csv`: one pupil, one day, one period, one code.
//!
//! | column | value |
//! | --- | --- |
//! | `date` | `YYYY-MM-DD` |
//! | `student_id` | `sourcedId` of the pupil in the roster |
//! | `period` | `all` (the whole day), `am`, `pm`, or the lesson `1` to `8` |
//! | `code` | see [`ATTENDANCE_CODES`]; each board may have its own |
//! | `reason_text` | free text, line breaks allowed, or empty |
//!
//! UTF-8 with or without a byte order mark, RFC 4180, columns found by name. Invariant: an entry from
//! [`read_attendance`] has its own (date, pupil, period). Leaves out: what a code counts as in a 指導要録.

use std::collections::HashSet;
use std::fmt;

use time::Date;

use crate::cell::format_date;
use crate::encoding::Bom;
use crate::limits::Limits;
use crate::model::SourcedId;
use crate::plain::{Known, finish, start};
use crate::read::Accepted;
use crate::report::{Code, Phrase, Report, Severity};
use crate::schema::ATTENDANCE;
use crate::table::read_table;
use crate::write::{WriteError, encode};

/// The words of the column `period`.
pub const PERIODS: &[&str] = &["all", "am", "pm", "1", "2", "3", "4", "5", "6", "7", "8"];

/// A code with its Japanese name and the mark that one town's register uses for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttendanceCode {
    /// The code.
    pub code: &'static str,
    /// Name for people.
    pub name_ja: &'static str,
    /// Mark in a printed register; empty where none was seen.
    pub mark: &'static str,
}

/// The codes to start with. Boards differ: pass their own list in [`Known::attendance_codes`].
pub const ATTENDANCE_CODES: &[AttendanceCode] = &[
    AttendanceCode { code: "present", name_ja: "出席", mark: "" },
    AttendanceCode { code: "absent_sick", name_ja: "病気欠席", mark: "病" },
    AttendanceCode { code: "absent_other", name_ja: "事故欠席", mark: "事" },
    AttendanceCode { code: "suspended", name_ja: "出席停止", mark: "停" },
    AttendanceCode { code: "mourning", name_ja: "忌引", mark: "忌" },
    AttendanceCode { code: "late", name_ja: "遅刻", mark: "チ" },
    AttendanceCode { code: "left_early", name_ja: "早退", mark: "早" },
    AttendanceCode { code: "official_leave", name_ja: "公欠・校外行事", mark: "" },
    AttendanceCode { code: "class_closed", name_ja: "学級閉鎖・臨時休業", mark: "" },
    AttendanceCode { code: "enrolled_elsewhere", name_ja: "転出入・休学等", mark: "" },
    AttendanceCode { code: "not_recorded", name_ja: "未入力", mark: "" },
];

/// Part of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// The whole day.
    All,
    /// Before noon.
    Am,
    /// After noon.
    Pm,
    /// A lesson, 1 to 8.
    Lesson(u8),
}

impl Period {
    /// Reads one of [`PERIODS`].
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "all" => Some(Self::All),
            "am" => Some(Self::Am),
            "pm" => Some(Self::Pm),
            lesson => lesson.parse().ok().filter(|number| (1..=8).contains(number)).map(Self::Lesson),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Am => f.write_str("am"),
            Self::Pm => f.write_str("pm"),
            Self::Lesson(number) => write!(f, "{number}"),
        }
    }
}

/// One entry of the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttendanceEntry {
    /// The day.
    pub date: Date,
    /// The pupil.
    pub student: SourcedId,
    /// The part of the day.
    pub period: Period,
    /// The code.
    pub code: String,
    /// Reason; may be empty.
    pub reason_text: String,
}

/// Reads an attendance file.
///
/// # Errors
/// A [`Report`] with at least one error; nothing is imported then.
pub fn read_attendance(
    bytes: &[u8],
    known: &Known<'_>,
    limits: &Limits,
) -> Result<Accepted<Vec<AttendanceEntry>>, Report> {
    let mut context = start(&ATTENDANCE, bytes, known, limits)?;
    let mut seen = HashSet::new();
    let entries = read_table(&ATTENDANCE, bytes, Bom::Allow, &mut context, |row, report| {
        let entry = AttendanceEntry {
            date: row.date("date").unwrap_or(Date::MIN),
            student: row.id("student_id"),
            period: Period::parse(row.str("period")).unwrap_or(Period::All),
            code: row.text("code"),
            reason_text: row.text("reason_text"),
        };
        let code = entry.code.as_str();
        if !code.is_empty() && known.attendance_codes.is_some_and(|codes| !codes.contains(&code)) {
            let expected = Phrase::fixed("one of the board's codes", "教育委員会が決めた出欠コード");
            report.push(row.finding(Severity::Error, Code::BadWord, "code", expected));
        }
        if !seen.insert((entry.date, entry.student.clone(), entry.period)) {
            let expected =
                Phrase::fixed("one entry for a pupil, day and period", "児童生徒・日・時限ごとに1行");
            report.push(row.finding(Severity::Error, Code::RowRepeated, "student_id", expected));
        }
        entry
    });
    finish(entries, context)
}

/// Writes an attendance file: UTF-8 without byte order mark, CRLF.
///
/// # Errors
/// [`WriteError::Table`] or [`WriteError::Io`], which writing to memory does not cause in practice.
pub fn write_attendance(entries: &[AttendanceEntry]) -> Result<Vec<u8>, WriteError> {
    let header = ATTENDANCE.columns.iter().map(|column| column.name.to_owned()).collect();
    let rows = entries.iter().map(|entry| {
        vec![
            format_date(entry.date),
            entry.student.to_string(),
            entry.period.to_string(),
            entry.code.clone(),
            entry.reason_text.clone(),
        ]
    });
    encode(ATTENDANCE.name, std::iter::once(header).chain(rows))
}
