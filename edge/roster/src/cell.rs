//! Owns the checks of single cells: whether a text fits its column, and what was expected if not.
//!
//! Invariants: a check looks at one cell only and never changes it; an empty cell is judged by the column's
//! need alone. Leaves out: references and repeated identifiers, which need other rows (`table.rs`).

use time::{Date, Month};

use crate::limits::ID_CHARS_MAX;
use crate::report::{Code, Phrase, Severity};
use crate::schema::{Column, Kind, Need};
use crate::vocabulary::is_extension;

/// What is wrong with a cell.
pub(crate) type Fault = (Severity, Code, Phrase);

const fn error(code: Code, en: &'static str, ja: &'static str) -> Fault {
    (Severity::Error, code, Phrase::fixed(en, ja))
}

const fn warning(code: Code, en: &'static str, ja: &'static str) -> Fault {
    (Severity::Warning, code, Phrase::fixed(en, ja))
}

const NOT_EMPTY: Fault = error(Code::ValueMissing, "a value", "値を入れる");
const NO_CONTROL: Fault =
    error(Code::ControlCharacter, "text of one line without control characters", "制御文字のない1行の文字");
const UUID: Fault = warning(Code::NotUuid, "a UUID version 4", "UUID v4");
const NOT_KEPT: Fault = warning(Code::NotKept, "an empty field", "空欄");

/// Checks one cell against its column. Returns every fault, mostly none.
pub(crate) fn check(column: &Column, value: &str) -> Option<Fault> {
    if value.is_empty() {
        return (column.value == Need::Required).then_some(NOT_EMPTY);
    }
    let allowed_break = |c: char| column.kind == Kind::Note && (c == '\n' || c == '\r' || c == '\t');
    if value.chars().any(|c| c.is_control() && !allowed_break(c)) {
        return Some(NO_CONTROL);
    }
    match column.kind {
        Kind::Id | Kind::IdIn(_) | Kind::Uuid => check_id(value),
        Kind::Reference(_) => (value.chars().count() > ID_CHARS_MAX).then_some(BAD_ID),
        Kind::References(_) | Kind::List | Kind::Text | Kind::Note => None,
        Kind::Kana => value.chars().any(is_half_width_kana).then_some(HALF_WIDTH),
        Kind::Date => parse_date(value).is_none().then_some(BAD_DATE),
        Kind::Word(words) => (!words.contains(&value) && !is_extension(value)).then(|| bad_word(words)),
        Kind::StrictWord(words) => (!words.contains(&value)).then(|| bad_word(words)),
        Kind::Words(words) => {
            let fits = |item: &str| words.contains(&item) || is_extension(item);
            (!split_list(value).all(fits)).then(|| bad_word(words))
        }
        Kind::Number => parse_number(value).is_none().then_some(BAD_NUMBER),
        Kind::Year => (value.len() != 4 || !all_digits(value)).then_some(BAD_YEAR),
        Kind::YearTitle => (year_prefix(value) != Some("")).then_some(BAD_TITLE),
        Kind::YearPrefix => year_prefix(value).is_none().then_some(BAD_PREFIX),
        Kind::Phone => (!is_phone(value)).then_some(BAD_PHONE),
        Kind::Email => (!is_email(value)).then_some(BAD_EMAIL),
        Kind::Token => (!is_token(value)).then_some(BAD_TOKEN),
        Kind::Blank => Some(check_blank(value)),
        Kind::Unkept => Some(NOT_KEPT),
    }
}

const BAD_ID: Fault = error(
    Code::BadId,
    "1 to 128 characters without / and without blanks at its ends",
    "1～128文字。「/」と前後の空白なし",
);
const HALF_WIDTH: Fault = error(Code::HalfWidthKana, "full-width kana", "全角カナ");
const BAD_DATE: Fault = error(Code::BadDate, "a date like 2026-04-01", "2026-04-01 の形の日付");
const BAD_NUMBER: Fault = error(Code::BadNumber, "a whole number from 1 to 9999", "1～9999の整数");
const BAD_YEAR: Fault = error(Code::BadNumber, "four digits, like 2026", "2026 の形の4桁の数字");
const BAD_TITLE: Fault = error(Code::BadTitle, "a title like 2026年度", "2026年度 の形の名称");
const BAD_PREFIX: Fault =
    error(Code::BadTitle, "a title that begins like 2026年度", "2026年度 の形で始まる名称");
const BAD_PHONE: Fault =
    error(Code::BadPhone, "6 to 15 digits, with hyphens or not", "6～15桁の数字（ハイフン可）");
const BAD_EMAIL: Fault = error(Code::BadEmail, "an address like name@example.jp", "name@example.jp の形");
const BAD_TOKEN: Fault = error(
    Code::BadWord,
    "lower-case letters, digits and _, at most 32",
    "半角英小文字・数字・_ で32文字まで",
);

fn check_id(value: &str) -> Option<Fault> {
    // Ids are joined by `/`: one that holds it would name another's records.
    if value.chars().count() > ID_CHARS_MAX || value.trim() != value || value.contains('/') {
        return Some(BAD_ID);
    }
    (!is_uuid_v4(value)).then_some(UUID)
}

/// `tobedeleted` is an error even though the field is: a bulk file cannot delete, and to import a record that
/// its sender wants gone would be worse than to stop.
fn check_blank(value: &str) -> Fault {
    let severity = if value == "tobedeleted" { Severity::Error } else { Severity::Warning };
    (severity, Code::BulkNotEmpty, Phrase::fixed("an empty field", "空欄"))
}

fn bad_word(words: &[&str]) -> Fault {
    let list = words.join(", ");
    (Severity::Error, Code::BadWord, Phrase::made(format!("one of: {list}"), format!("次のどれか：{list}")))
}

/// Splits a list cell at commas; blanks around items and empty items do not count.
pub(crate) fn split_list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Reads `YYYY-MM-DD`; `None` for anything else and for days that do not exist.
pub(crate) fn parse_date(value: &str) -> Option<Date> {
    let mut parts = value.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let shaped = parts.next().is_none() && (year.len(), month.len(), day.len()) == (4, 2, 2);
    if !shaped || ![year, month, day].into_iter().all(all_digits) {
        return None;
    }
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()
}

/// Writes `YYYY-MM-DD`.
pub(crate) fn format_date(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// Reads a whole number from 1 to 9999.
pub(crate) fn parse_number(value: &str) -> Option<u32> {
    let number = if all_digits(value) { value.parse().ok()? } else { return None };
    (1..=9999).contains(&number).then_some(number)
}

/// What follows `YYYY年度`, if the text begins so.
fn year_prefix(value: &str) -> Option<&str> {
    let (year, rest) = value.split_once("年度")?;
    (year.len() == 4 && all_digits(year)).then_some(rest)
}

fn all_digits(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// Half-width katakana and their punctuation (U+FF61 to U+FF9F).
fn is_half_width_kana(c: char) -> bool {
    ('\u{FF61}'..='\u{FF9F}').contains(&c)
}

/// Whether a text is a UUID version 4 with hyphens.
pub(crate) fn is_uuid_v4(value: &str) -> bool {
    value.len() == 36
        && uuid::Uuid::try_parse(value)
            .is_ok_and(|uuid| uuid.get_version_num() == 4 && uuid.get_variant() == uuid::Variant::RFC4122)
}

fn is_phone(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    (6..=15).contains(&digits) && value.bytes().all(|byte| byte.is_ascii_digit() || b"+-() ".contains(&byte))
}

fn is_email(value: &str) -> bool {
    let has_blank = value.chars().any(char::is_whitespace);
    value.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !has_blank)
        && value.matches('@').count() == 1
}

fn is_token(value: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    value.len() <= 32 && value.bytes().all(fits)
}

/// Whether a text has the shape of a 学校コード of 13 characters. The check digit is not verified.
pub(crate) fn is_school_code(value: &str) -> bool {
    let bytes = value.as_bytes();
    let &[kind, kind_number, ten, one, founder, ref rest @ ..] = bytes else { return false };
    (b'A'..=b'H').contains(&kind)
        && matches!(kind_number, b'1' | b'2')
        && (b'0'..=b'4').contains(&ten)
        && one.is_ascii_digit()
        && (b'1'..=b'3').contains(&founder)
        && rest.len() == 8
        && rest.iter().all(u8::is_ascii_digit)
}

/// Whether a text has the shape of a 教育委員会コード: 6 digits.
pub(crate) fn is_board_code(value: &str) -> bool {
    value.len() == 6 && all_digits(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only days that exist pass. Method: a good one, a leap day, and seven bad shapes.
    #[test]
    fn dates() {
        assert_eq!(format_date(parse_date("2026-04-01").unwrap()), "2026-04-01");
        assert!(parse_date("2028-02-29").is_some());
        for bad in ["2026-02-29", "2026/04/01", "26-04-01", "2026-4-1", "2026-04-01T00", "+026-04-01", ""] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    /// Goal: codes are judged by shape. Method: good ones, each with one character changed.
    #[test]
    fn codes() {
        assert!(is_school_code("B113200000011"));
        for bad in ["I113200000011", "B313200000011", "B153200000011", "B113400000011", "B11320000001", "B1"]
        {
            assert!(!is_school_code(bad), "{bad}");
        }
        assert!(is_board_code("992010") && !is_board_code("9920100"));
        assert!(is_uuid_v4("4c2321a1-bede-497a-8a2c-84d2303b15b2"));
        assert!(!is_uuid_v4("4c2321a1-bede-197a-8a2c-84d2303b15b2"));
        assert!(!is_uuid_v4("4c2321a1bede497a8a2c84d2303b15b2"));
    }

    /// Goal: titles, numbers, phones. Method: one good and some bad of each.
    #[test]
    fn shapes() {
        assert_eq!(year_prefix("2026年度国語"), Some("国語"));
        assert_eq!(year_prefix("令和8年度"), None);
        assert_eq!((parse_number("35"), parse_number("0"), parse_number("+5")), (Some(35), None, None));
        assert!(is_phone("090-0000-0001") && !is_phone("090-abc") && !is_phone("12345"));
        assert!(is_email("a@example.jp") && !is_email("a@b@c") && !is_email("a b@c"));
        assert!(['ｱ', 'ﾞ', '｡'].into_iter().all(is_half_width_kana) && !is_half_width_kana('ア'));
    }
}
