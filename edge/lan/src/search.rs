//! Finding people as they are typed: kanji, kana of either kind, half-width, with spaces or without.

use std::cmp::Ordering;

use unicode_normalization::UnicodeNormalization as _;

/// Longest search text, characters.
pub const QUERY_CHARS_MAX: usize = 100;

/// Brings a text into the form that is compared: compatibility forms (half-width kana, full-width letters
/// and digits) unified, hiragana as katakana, letters small, no white space.
pub fn fold(text: &str) -> String {
    text.nfkc()
        .filter(|c| !c.is_whitespace())
        .map(|c| match c {
            'ぁ'..='ゖ' | 'ゝ' | 'ゞ' => char::from_u32(u32::from(c) + 0x60).unwrap_or(c),
            _ => c,
        })
        .flat_map(char::to_lowercase)
        .collect()
}

/// Compares names as people order them: numbers in them by value, so that 2組 comes before 10組.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (a, b) = (runs(a), runs(b));
    a.cmp(&b)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    Number(u64),
    Text(String),
}

fn runs(text: &str) -> Vec<Run> {
    let mut runs = Vec::new();
    for c in text.nfkc() {
        match (c.to_digit(10), runs.last_mut()) {
            (Some(digit), Some(Run::Number(number))) => {
                *number = number.saturating_mul(10).saturating_add(u64::from(digit));
            }
            (Some(digit), _) => runs.push(Run::Number(u64::from(digit))),
            (None, Some(Run::Text(text))) => text.push(c),
            (None, _) => runs.push(Run::Text(c.to_string())),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what sounds the same is the same. Method: one name in all its typed forms.
    #[test]
    fn folding() {
        for typed in ["さとう はな", "サトウ　ハナ", "ｻﾄｳﾊﾅ", "さとうハナ"] {
            assert_eq!(fold(typed), "サトウハナ", "{typed}");
        }
        for typed in ["ガ", "ｶﾞ", "が", "か\u{3099}"] {
            assert_eq!(fold(typed), "ガ", "{typed}");
        }
        assert_eq!(fold("２６-Ａ０１"), "26-a01");
        assert_eq!(fold("佐藤 花"), "佐藤花");
        assert_eq!(fold(" \u{3000}"), "");
    }

    /// Goal: classes come in the order of people. Method: sort a few titles.
    #[test]
    fn natural_order() {
        let mut titles = ["1年10組", "２年1組", "1年2組", "1年1組", "ひまわり"];
        titles.sort_by(|a, b| natural(a, b));
        assert_eq!(titles, ["1年1組", "1年2組", "1年10組", "２年1組", "ひまわり"]);
    }
}
