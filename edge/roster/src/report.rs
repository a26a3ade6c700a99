//! Owns findings and the report that collects them: what is wrong, where, and what was expected.
//!
//! Invariants: a report keeps at most its limit of findings and counts the rest; an error is never lost to
//! make room for a warning; an excerpt has at most 32 characters, none of them a control character.
//! Leaves out: the texts of the codes (`report/code.rs`) and the checks that make findings.

mod code;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

pub use code::Code;

/// Characters of a cell that a finding repeats, so that a person recognises it.
pub const EXCERPT_CHARS_MAX: usize = 32;

/// Language of a text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    /// English.
    En,
    /// Japanese.
    Ja,
}

/// Whether a finding stops the import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Accepted; somebody should look.
    Warning,
    /// Nothing is imported until this is repaired.
    Error,
}

/// One sentence part in both languages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Phrase {
    /// English.
    pub en: Cow<'static, str>,
    /// Japanese.
    pub ja: Cow<'static, str>,
}

impl Phrase {
    /// Makes a phrase of two fixed texts.
    pub const fn fixed(en: &'static str, ja: &'static str) -> Self {
        Self { en: Cow::Borrowed(en), ja: Cow::Borrowed(ja) }
    }

    /// Makes a phrase of two texts that were put together.
    pub fn made(en: String, ja: String) -> Self {
        Self { en: Cow::Owned(en), ja: Cow::Owned(ja) }
    }

    /// Gives the text in one language.
    pub fn text(&self, lang: Lang) -> &str {
        match lang {
            Lang::En => &self.en,
            Lang::Ja => &self.ja,
        }
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it stops the import.
    pub severity: Severity,
    /// What is wrong, as a stable identifier.
    pub code: Code,
    /// Name of the file, as in the package; `(zip)` for the package itself.
    pub file: String,
    /// Line in that file, the header being line 1.
    pub line: Option<u64>,
    /// Name of the column, as in the file.
    pub column: Option<String>,
    /// The cell, cut to [`EXCERPT_CHARS_MAX`] characters; never a password.
    pub value: Option<String>,
    /// What should have been there.
    pub expected: Phrase,
}

impl Finding {
    /// Makes a finding about a whole file; place and value are added with the `at_*` and `with_*` methods.
    pub fn new(severity: Severity, code: Code, file: impl Into<String>, expected: Phrase) -> Self {
        let file = excerpt(&file.into());
        Self { severity, code, file, line: None, column: None, value: None, expected }
    }

    /// Adds the line (the header is line 1).
    pub fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Adds the column's name.
    pub fn at_column(mut self, column: &str) -> Self {
        self.column = Some(excerpt(column));
        self
    }

    /// Adds an excerpt of the cell.
    pub fn with_value(mut self, value: &str) -> Self {
        self.value = Some(excerpt(value));
        self
    }

    /// Gives the finding as one line for people.
    pub fn text(&self, lang: Lang) -> String {
        let mut place = self.file.clone();
        let (line, column, value, expected) = match lang {
            Lang::En => (", line ", ", column ", ": ", "expected: "),
            Lang::Ja => (" ", " 列 ", "：", "正しい形："),
        };
        if let Some(number) = self.line {
            place.push_str(line);
            place.push_str(&number.to_string());
            if lang == Lang::Ja {
                place.push_str("行目");
            }
        }
        if let Some(name) = &self.column {
            place.push_str(column);
            place.push_str(name);
        }
        if let Some(cell) = &self.value {
            place.push_str(&match lang {
                Lang::En => format!(" “{cell}”"),
                Lang::Ja => format!("「{cell}」"),
            });
        }
        let what = self.code.text(lang);
        let stop = if lang == Lang::En { "; " } else { "。" };
        format!("{place}{value}{what}{stop}{expected}{}", self.expected.text(lang))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}

/// Everything that was found in a file, in the order in which it was found.
///
/// A report that is an `Err` has at least one error; one beside accepted data has warnings only.
/// Values are excerpts of people's data: log [`Report::without_values`], never the report itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
    findings_max: usize,
    errors: u64,
    warnings: u64,
}

impl Report {
    /// Makes an empty report that keeps at most `findings_max` findings.
    pub fn new(findings_max: usize) -> Self {
        Self { findings: Vec::new(), findings_max, errors: 0, warnings: 0 }
    }

    /// Adds a finding. When the report is full, an error takes the place of the newest warning.
    pub fn push(&mut self, finding: Finding) {
        let is_error = finding.severity == Severity::Error;
        if is_error {
            self.errors = self.errors.saturating_add(1);
        } else {
            self.warnings = self.warnings.saturating_add(1);
        }
        if self.findings.len() >= self.findings_max {
            let newest_warning = self.findings.iter().rposition(|kept| kept.severity == Severity::Warning);
            match newest_warning {
                Some(at) if is_error => drop(self.findings.remove(at)),
                Some(_) | None => return,
            }
        }
        self.findings.push(finding);
    }

    /// The findings that were kept.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Number of errors, those not kept included.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Number of warnings, those not kept included.
    pub fn warnings(&self) -> u64 {
        self.warnings
    }

    /// Number of findings that were counted but not kept.
    pub fn omitted(&self) -> u64 {
        let kept = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
        self.errors.saturating_add(self.warnings).saturating_sub(kept)
    }

    /// Whether something was found that stops the import.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The same report without any cell contents, fit for a log.
    pub fn without_values(&self) -> Self {
        let mut bare = self.clone();
        for finding in &mut bare.findings {
            finding.value = None;
        }
        bare
    }

    /// Gives the report for people: a summary line, then one line for each finding.
    pub fn text(&self, lang: Lang) -> String {
        let (errors, warnings, omitted) = (self.errors, self.warnings, self.omitted());
        let mut lines = vec![match lang {
            Lang::En => format!("{errors} error(s), {warnings} warning(s)"),
            Lang::Ja => format!("エラー{errors}件、注意{warnings}件"),
        }];
        for finding in &self.findings {
            let mark = match (lang, finding.severity) {
                (Lang::En, Severity::Error) => "error",
                (Lang::En, Severity::Warning) => "warning",
                (Lang::Ja, Severity::Error) => "エラー",
                (Lang::Ja, Severity::Warning) => "注意",
            };
            lines.push(format!("{mark} [{}] {}", finding.code.id(), finding.text(lang)));
        }
        if omitted > 0 {
            lines.push(match lang {
                Lang::En => {
                    format!("{omitted} more not listed; repair these first, then read the file again")
                }
                Lang::Ja => format!("ほか{omitted}件。まず上の項目を直してから、もう一度読み込んでください"),
            });
        }
        lines.join("\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}

impl std::error::Error for Report {}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("Report", 4)?;
        state.serialize_field("errors", &self.errors)?;
        state.serialize_field("warnings", &self.warnings)?;
        state.serialize_field("omitted", &self.omitted())?;
        state.serialize_field("findings", &self.findings)?;
        state.end()
    }
}

/// Cuts a text to [`EXCERPT_CHARS_MAX`] characters and replaces control characters.
fn excerpt(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(EXCERPT_CHARS_MAX).is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, code: Code) -> Finding {
        Finding::new(severity, code, "users.csv", Phrase::fixed("a date", "日付"))
            .at_line(7)
            .at_column("birthDate")
            .with_value("a\u{0}b")
    }

    /// Goal: an error is never lost to warnings. Method: fill a report with warnings, then add an error.
    #[test]
    fn errors_displace_warnings() {
        let mut report = Report::new(2);
        for _ in 0..5 {
            report.push(finding(Severity::Warning, Code::NotUuid));
        }
        report.push(finding(Severity::Error, Code::BadDate));
        assert_eq!((report.errors(), report.warnings(), report.omitted()), (1, 5, 4));
        assert!(report.findings().iter().any(|f| f.code == Code::BadDate));
    }

    /// Goal: people read place, value and expectation in both languages. Method: compare whole lines.
    #[test]
    fn texts() {
        let one = finding(Severity::Error, Code::BadDate);
        assert_eq!(
            one.text(Lang::En),
            "users.csv, line 7, column birthDate “a\u{fffd}b”: not a date; expected: a date"
        );
        assert_eq!(
            one.text(Lang::Ja),
            "users.csv 7行目 列 birthDate「a\u{fffd}b」：日付になっていません。正しい形：日付"
        );
    }

    /// Goal: machines get stable names and a log gets no cell. Method: serialise with and without values.
    #[test]
    fn serialised() {
        let mut report = Report::new(10);
        report.push(finding(Severity::Error, Code::BadDate).with_value(&"x".repeat(100)));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][0]["code"], "bad-date");
        assert_eq!(json["findings"][0]["severity"], "error");
        assert_eq!(json["findings"][0]["value"].as_str().unwrap().chars().count(), EXCERPT_CHARS_MAX);
        assert!(serde_json::to_value(report.without_values()).unwrap()["findings"][0]["value"].is_null());
    }
}
