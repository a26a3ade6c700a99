//! The line about the restore proofs: whether what lies outside the school has been proved to restore.
//!
//! **Invariant**: a date of success stands there only when the last proof succeeded and is not overdue (P10).

use sonae_proto::proof::ProofResult;
use sonae_store::proof::ProofStatus;

use crate::status_line::local;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The line in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofLine {
    /// Japanese.
    pub ja: String,
    /// English.
    pub en: String,
    /// Whether it is an alarm.
    pub is_failed: bool,
}

fn line(ja: String, en: String, is_failed: bool) -> ProofLine {
    ProofLine { ja: format!("復元の確認：{ja}"), en: format!("Restore check: {en}"), is_failed }
}

/// Composes the line.
pub fn proof_line(proof: &ProofStatus) -> ProofLine {
    let last = proof.last.as_ref();
    let (date_ja, date_en) = last.map(|last| date(last.at_ms)).unwrap_or_default();
    let age = age(proof.unproved_ms);
    match last.map(|last| last.result) {
        Some(ProofResult::Differs) => line(
            format!("校外の控えがこの機械と一致しません（{date_ja}）。教育委員会に連絡してください"),
            format!("the copy outside differs from this box ({date_en}). Call the board."),
            true,
        ),
        Some(ProofResult::Incomplete) => line(
            format!("校外の控えに足りないものがあります（{date_ja}）。教育委員会に連絡してください"),
            format!("the copy outside lacks something ({date_en}). Call the board."),
            true,
        ),
        Some(ProofResult::Proved) if proof.is_proved => {
            line(format!("{date_ja} 成功"), format!("succeeded at {date_en}"), false)
        }
        None if !proof.is_overdue => line("まだ行われていません".into(), "not made yet".into(), false),
        Some(ProofResult::Proved | ProofResult::CouldNotVerify) | None => ProofLine {
            ja: format!("復元の確認ができていません（{}）", age.0),
            en: format!("Restore check: not verified ({})", age.1),
            is_failed: true,
        },
    }
}

fn date(at_ms: u64) -> (String, String) {
    let at = local(at_ms);
    let (month, day) = (u8::from(at.month()), at.day());
    let clock = format!("{:02}:{:02}", at.hour(), at.minute());
    (format!("{month}月{day}日 {clock}"), format!("{clock} on {}-{month:02}-{day:02}", at.year()))
}

fn age(ms: u64) -> (String, String) {
    match ms / DAY_MS {
        0 => {
            let hours = ms / 3_600_000;
            (format!("{hours}時間"), format!("{hours} h"))
        }
        1 => ("1日".into(), "1 day".into()),
        days => (format!("{days}日"), format!("{days} days")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_store::proof::LastProof;

    /// 2026-11-27 03:10 in Japan.
    const NIGHT_MS: u64 = 1_795_716_600_000;

    fn proof(result: ProofResult, is_proved: bool, is_overdue: bool, unproved_ms: u64) -> ProofStatus {
        let last = LastProof {
            number: 3,
            result,
            cause: String::new(),
            text: String::new(),
            snapshots: Vec::new(),
            tiers: Vec::new(),
            at_ms: NIGHT_MS,
            duration_ms: 1,
            bytes: 1,
            published: true,
        };
        ProofStatus { last: Some(last), is_proved, is_overdue, unproved_ms, ..ProofStatus::default() }
    }

    /// Goal: success is said only of a proof that succeeded and is young; every failure is an alarm with its age or
    /// date. Method: each result, young and old, whole lines.
    #[test]
    fn sentences() {
        let line = proof_line(&proof(ProofResult::Proved, true, false, 0));
        assert_eq!((line.ja.as_str(), line.is_failed), ("復元の確認：11月27日 03:10 成功", false));
        assert_eq!(line.en, "Restore check: succeeded at 03:10 on 2026-11-27");
        let line = proof_line(&proof(ProofResult::Proved, false, true, 3 * DAY_MS));
        assert_eq!((line.ja.as_str(), line.is_failed), ("復元の確認ができていません（3日）", true));
        assert_eq!(line.en, "Restore check: not verified (3 days)");
        let line = proof_line(&proof(ProofResult::CouldNotVerify, false, false, DAY_MS / 2));
        assert_eq!((line.ja.as_str(), line.is_failed), ("復元の確認ができていません（12時間）", true));
        let line = proof_line(&proof(ProofResult::Differs, false, false, 0));
        assert!(line.is_failed && line.ja.contains("一致しません（11月27日 03:10）"), "{}", line.ja);
        let line = proof_line(&proof(ProofResult::Incomplete, false, false, 0));
        assert!(line.is_failed && line.ja.contains("足りないものがあります"), "{}", line.ja);
        let line = proof_line(&ProofStatus::default());
        assert_eq!((line.ja.as_str(), line.is_failed), ("復元の確認：まだ行われていません", false));
        let line =
            proof_line(&ProofStatus { is_overdue: true, unproved_ms: DAY_MS, ..ProofStatus::default() });
        assert_eq!((line.ja.as_str(), line.is_failed), ("復元の確認ができていません（1日）", true));
    }
}
