//! Checks of single values, each with an error that names its field.

use serde_json::Value;
use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_store::Store;
use time::{Date, Month};
use unicode_normalization::UnicodeNormalization as _;

use crate::error::ApiError;
use crate::status_line::local;

/// How far behind today a day may lie: this and last school year are in the box.
const DAYS_BEHIND_MAX: i64 = 2 * 366;

/// How far ahead. Wide, because a clock may be years behind; a year with two digits exchanged is still refused.
const DAYS_AHEAD_MAX: i64 = 20 * 366;

/// A clock before this moment has not been set yet (boxes without a battery start in 1970): it decides
/// nothing. 2025-01-01, milliseconds since 1970 UTC.
const CLOCK_SET_MS: u64 = 1_735_689_600_000;

/// Reads `YYYY-MM-DD`: a real day around today, by Japanese time. A clock that is years ahead or behind must not keep
/// anybody from writing down who is here, so no day since 2025 is too old.
pub fn date(text: &str, now_ms: u64) -> Result<Date, ApiError> {
    let bad = || {
        ApiError::bad_parameter(
            "date",
            "The date is not a day that can be meant: send YYYY-MM-DD.",
            "日付は実在の日を YYYY-MM-DD で指定してください。",
        )
    };
    let date = parse_date(text).ok_or_else(bad)?;
    let days_ahead = (date - local(now_ms).date()).whole_days();
    let is_past = days_ahead < -DAYS_BEHIND_MAX && date < local(CLOCK_SET_MS).date();
    let is_near = now_ms < CLOCK_SET_MS || (days_ahead <= DAYS_AHEAD_MAX && !is_past);
    if is_near { Ok(date) } else { Err(bad()) }
}

fn parse_date(text: &str) -> Option<Date> {
    let is_shaped = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    is_shaped.then_some(date)
}

/// Checks a text of one line. Empty clears the field.
pub fn text(field: &str, given: &str, chars_max: usize) -> Result<Value, ApiError> {
    if given.chars().count() > chars_max || given.chars().any(char::is_control) {
        return Err(ApiError::bad_value(
            field,
            &format!(
                "The text is too long or has line breaks: use at most {chars_max} characters on one line."
            ),
            &format!("{chars_max}文字以内の1行で入力してください。"),
        ));
    }
    Ok(cleared_if_empty(given))
}

/// Checks a phone number; full-width digits, as input methods type them, become plain ones.
pub fn phone(field: &str, given: &str) -> Result<Value, ApiError> {
    let plain: String = given.nfkc().collect();
    let is_phone = plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '(' | ')' | ' '));
    let has_digit = plain.chars().any(|c| c.is_ascii_digit());
    if plain.chars().count() > 40 || !is_phone || !(has_digit || plain.is_empty()) {
        return Err(ApiError::bad_value(
            field,
            "This is not a phone number: use at most 40 of digits, '+', '-', '(', ')' and spaces.",
            "電話番号は数字と「+」「-」「( )」、空白だけで、40文字以内で入力してください。",
        ));
    }
    Ok(cleared_if_empty(&plain))
}

/// Checks a mail address, no further than that it can be one.
pub fn email(field: &str, given: &str) -> Result<Value, ApiError> {
    let is_mail = given.is_empty()
        || (given.len() <= 254
            && given.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
            && !given.chars().any(|c| c.is_control() || c.is_whitespace()));
    if !is_mail {
        return Err(ApiError::bad_value(
            field,
            "This is not a mail address: use NAME@HOST, at most 254 characters.",
            "メールアドレスは「名前@ホスト名」の形で、254文字以内で入力してください。",
        ));
    }
    Ok(cleared_if_empty(given))
}

/// Checks a yes or no, written as in the roster.
pub fn yes_or_no(field: &str, given: &str) -> Result<Value, ApiError> {
    if !matches!(given, "" | "true" | "false") {
        return Err(ApiError::bad_value(
            field,
            "This is a yes or no: send \"true\" or \"false\", or an empty text to clear it.",
            "「true」か「false」を送ってください（空にすると消えます）。",
        ));
    }
    Ok(cleared_if_empty(given))
}

fn cleared_if_empty(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::from(text) }
}

/// Finds the pupil of a path.
pub fn student(store: &Store, id: &str) -> Result<RecordState, ApiError> {
    let found = if id.is_empty() { None } else { store.record(Tier::Safety, "student", id)? };
    found.ok_or_else(|| ApiError::not_found(Some("student_id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-04-08 in Japan.
    const NOW_MS: u64 = 1_775_624_600_000;

    /// Goal: only real days near today pass; a clock that is not set, or years off, keeps nobody from today.
    /// Method: rows.
    #[test]
    fn dates() {
        for good in ["2026-04-08", "2024-04-08", "2028-02-29"] {
            assert_eq!(date(good, NOW_MS).unwrap().to_string(), good);
        }
        for bad in ["2026-02-30", "2026-4-8", "2023-04-01", "2062-04-08", "", "2026-04-08 ", "+026-04-08"] {
            assert_eq!(date(bad, NOW_MS).unwrap_err().detail.field.as_deref(), Some("date"), "{bad}");
        }
        assert!(date("2026-04-08", 1_000).is_ok(), "a box that starts in 1970 takes attendance");
        let ahead_ms = 10 * NOW_MS;
        assert!(date("2026-04-08", ahead_ms).is_ok() && date("2024-04-08", ahead_ms).is_err());
        assert!(date("2040-04-08", NOW_MS).is_ok());
    }

    /// Goal: phones are digits, however typed; other texts are bounded. Method: rows.
    #[test]
    fn values() {
        assert_eq!(phone("phone1", "０９０－１２３４").unwrap(), "090-1234");
        assert_eq!(phone("phone1", "+81 (90) 1").unwrap(), "+81 (90) 1");
        assert_eq!(phone("phone1", "").unwrap(), Value::Null);
        for bad in ["090x", "--", "1\n2", &"1".repeat(41)] {
            assert!(phone("phone1", bad).is_err(), "{bad}");
        }
        assert!(email("email", "a@b").is_ok() && email("email", "").is_ok());
        for bad in ["a", "@b", "a@", "a b@c"] {
            assert!(email("email", bad).is_err(), "{bad}");
        }
        assert!(text("name", &"あ".repeat(5), 5).is_ok());
        assert!(text("name", &"あ".repeat(6), 5).is_err() && text("name", "a\tb", 5).is_err());
    }
}
