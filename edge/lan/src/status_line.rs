//! The status line of every page: what is saved in this school, and how far the copy outside reaches.
//!
//! **Invariant**: kept and safe are never mixed (P2). "Outside" is said only of what has a receipt, and a time
//! stands there only when nothing waits.

use sonae_store::status::Status;
use time::{OffsetDateTime, UtcOffset};

use crate::proof_line::{ProofLine, proof_line};
use crate::status_details::{Both, TierLine, age, alarms, notes, tier_lines};

/// From this age on, waiting changes say how old the oldest is: shorter waits are the usual rhythm of batches.
const OLD_MS: u64 = 5 * 60_000;

/// The line in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusLine {
    /// Japanese.
    pub ja: String,
    /// English.
    pub en: String,
    /// Whether nothing is saved here any more.
    pub is_failed: bool,
    /// Whether what lies outside has been proved to restore.
    pub proof: ProofLine,
    /// What somebody must know now, besides.
    pub alarms: Vec<Both>,
    /// Each tier by itself.
    pub tiers: Vec<TierLine>,
    /// The line, the last error.
    pub notes: Vec<Both>,
}

/// Composes the line.
pub fn status_line(status: &Status) -> StatusLine {
    let (Both { ja, en }, is_failed) = sentence(status);
    StatusLine {
        ja,
        en,
        is_failed,
        proof: proof_line(&status.proof),
        alarms: alarms(status),
        tiers: tier_lines(status),
        notes: notes(status),
    }
}

/// Says what is saved and how far the copy outside reaches, and whether nothing is saved here any more.
fn sentence(status: &Status) -> (Both, bool) {
    let has_failed = status.last_error.as_ref().is_some_and(|error| error.code == "store_failed");
    if has_failed || status.storage.is_full {
        let ja = "保存できていません。紙に書いてください".to_owned();
        return (Both { ja, en: "Nothing is being saved. Write on paper.".to_owned() }, true);
    }
    let school = short_name(&status.school_name);
    if status.held_ms.is_some() {
        let ja = format!("見るだけです（{school}）。ここでは保存できません");
        return (Both { ja, en: format!("Read only ({school}). Nothing can be saved here.") }, true);
    }
    let (outside_ja, outside_en) = outside(status);
    let is_kept = status.kept.values().any(|point| point.sequence > 0);
    let (here_ja, here_en) = if is_kept {
        ("保存しました", "Saved")
    } else {
        ("まだ何も保存していません", "Nothing saved yet")
    };
    let ja = format!("{here_ja}（{school}）｜校外の控え：{outside_ja}");
    (Both { ja, en: format!("{here_en} ({school}) | Copy outside the school: {outside_en}") }, false)
}

fn outside(status: &Status) -> (String, String) {
    let waiting = status.unsafe_changes;
    if waiting > 0 {
        let changes = if waiting == 1 { "change" } else { "changes" };
        let old = status.lag_ms.filter(|age_ms| *age_ms >= OLD_MS).map(age);
        let (old_ja, old_en) = old.map_or_else(Default::default, |age| {
            (format!("（最も古いものは{}前）", age.ja), format!(" (the oldest for {})", age.en))
        });
        return (
            format!("未送信{waiting}件{old_ja}。続けて入力できます"),
            format!("{waiting} {changes} not there yet{old_en}. You can go on working."),
        );
    }
    match status.safe.values().map(|point| point.at_ms).max() {
        // The clock has gone back since: no time that it could show is true.
        Some(at_ms) if at_ms > status.now_ms => {
            ("すべてあります".to_owned(), "everything is there".to_owned())
        }
        Some(at_ms) => {
            let at = moment(at_ms, status.now_ms);
            (format!("{}分まで", at.ja), format!("up to {}", at.en))
        }
        None => ("まだありません".to_owned(), "none yet".to_owned()),
    }
}

/// A clock time, with its date unless that is today's.
pub fn moment(at_ms: u64, now_ms: u64) -> Both {
    let at = local(at_ms);
    let clock = format!("{:02}:{:02}", at.hour(), at.minute());
    if at.date() == local(now_ms).date() {
        return Both { ja: clock.clone(), en: clock };
    }
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let ja = format!("{month}月{day}日 {clock}");
    Both { ja, en: format!("{clock} on {year}-{month:02}-{day:02}") }
}

/// Japan has one time zone and no summer time.
pub fn local(at_ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(at_ms / 1_000).unwrap_or(0);
    let utc = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    UtcOffset::from_hms(9, 0, 0).map_or(utc, |offset| utc.to_offset(offset))
}

/// 架空市立見本小学校 → 見本小: what staff call their school.
fn short_name(name: &str) -> String {
    let own = ["都立", "道立", "府立", "県立", "市立", "区立", "町立", "村立", "組合立"]
        .iter()
        .find_map(|founder| name.split_once(founder))
        .map_or(name, |(_, rest)| rest);
    let short = own.strip_suffix("学校").filter(|stem| stem.ends_with(['小', '中']));
    let short = short.unwrap_or(own);
    if short.chars().count() > 1 { short.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use sonae_proto::ids::{Incarnation, ReplicaId, Tier};
    use sonae_store::Point;
    use sonae_store::proof::ProofStatus;
    use sonae_store::status::{ErrorStatus, Storage, UplinkStatus};
    use std::collections::BTreeMap;

    /// 2026-04-08 14:03:20 in Japan.
    pub const NOW_MS: u64 = 1_775_624_600_000;

    pub fn status() -> Status {
        let point = |sequence, at_ms| BTreeMap::from([(Tier::Daily, Point { sequence, at_ms })]);
        Status {
            school: "B113200000011".parse().unwrap(),
            school_name: "架空市立見本小学校".into(),
            replica: ReplicaId::from_bytes([1; 16]),
            incarnation: Incarnation::from_bytes([2; 16]),
            now_ms: NOW_MS,
            kept: point(9, NOW_MS),
            safe: point(9, NOW_MS),
            unsafe_changes: 0,
            unsafe_by_tier: BTreeMap::new(),
            lag_ms: None,
            lag_ms_by_tier: BTreeMap::new(),
            disputed: 0,
            loss_counter: 0,
            forks: 0,
            rebuild: None,
            held_ms: None,
            replayed: 0,
            view_rebuilt: false,
            commits: 0,
            flushes: 0,
            keys: sonae_store::keyring::KeyYears::default(),
            key_uses: Vec::new(),
            erasures: Vec::new(),
            quarantine: Vec::new(),
            storage: Storage::default(),
            snapshots: Vec::new(),
            proof: ProofStatus::default(),
            uplink: UplinkStatus::default(),
            neighbours: Vec::new(),
            last_error: None,
        }
    }

    /// Goal: the sentences are those that people know. Method: each state of the box, whole lines.
    #[test]
    fn sentences() {
        let line = status_line(&status());
        assert_eq!(line.ja, "保存しました（見本小）｜校外の控え：14:03分まで");
        assert_eq!(line.en, "Saved (見本小) | Copy outside the school: up to 14:03");
        let yesterday = BTreeMap::from([(Tier::Daily, Point { sequence: 9, at_ms: NOW_MS - 86_400_000 })]);
        let line = status_line(&Status { safe: yesterday, ..status() });
        assert_eq!(line.ja, "保存しました（見本小）｜校外の控え：4月7日 14:03分まで");
        let line = status_line(&Status { unsafe_changes: 12, ..status() });
        assert_eq!(line.ja, "保存しました（見本小）｜校外の控え：未送信12件。続けて入力できます");
        let line = status_line(&Status { unsafe_changes: 12, lag_ms: Some(35 * 60_000), ..status() });
        assert_eq!(
            line.ja,
            "保存しました（見本小）｜校外の控え：未送信12件（最も古いものは35分前）。続けて入力できます"
        );
        assert!(
            line.en.ends_with("12 changes not there yet (the oldest for 35 min). You can go on working.")
        );
        let line = status_line(&Status { now_ms: NOW_MS - 86_400_000, ..status() });
        assert_eq!(line.ja, "保存しました（見本小）｜校外の控え：すべてあります", "the clock went back");
        let line = status_line(&Status { safe: BTreeMap::new(), ..status() });
        assert_eq!(line.ja, "保存しました（見本小）｜校外の控え：まだありません");
        let line = status_line(&Status { kept: BTreeMap::new(), safe: BTreeMap::new(), ..status() });
        assert_eq!(line.ja, "まだ何も保存していません（見本小）｜校外の控え：まだありません");
    }

    /// Goal: that nothing is saved outweighs everything. Method: a failed store and a disk without even the reserve,
    /// beside good figures.
    #[test]
    fn failure_is_said_first() {
        let error =
            ErrorStatus { at_ms: 0, age_ms: 0, steady_ms: 0, code: "store_failed".into(), text: "x".into() };
        let full = Storage { is_full: true, ..Storage::default() };
        for failed in [
            Status { last_error: Some(error), ..status() },
            Status { storage: full, unsafe_changes: 3, ..status() },
        ] {
            let line = status_line(&failed);
            assert_eq!(line.ja, "保存できていません。紙に書いてください");
            assert!(line.is_failed);
        }
    }

    /// Goal: where nobody may write, no line says that somebody can go on. Method: a hold with and without changes that
    /// wait, whole sentences.
    #[test]
    fn a_hold_sends_people_elsewhere() {
        for unsafe_changes in [0, 12] {
            let line = status_line(&Status { held_ms: Some(NOW_MS), unsafe_changes, ..status() });
            assert_eq!(line.ja, "見るだけです（見本小）。ここでは保存できません");
            assert!(line.is_failed && !line.en.contains("go on"));
            assert_eq!(
                line.alarms[0].ja,
                "この装置は教育委員会の確認が済むまで、見るだけです。別の装置か紙に記録し、教育委員会に確認を頼んでください。\
                 ここに残っていた記録は失われず、校外の控えに送られます"
            );
        }
    }

    /// Goal: the school is called what staff call it. Method: rows.
    #[test]
    fn short_names() {
        let rows = [
            ("架空市立見本小学校", "見本小"),
            ("架空町立東中学校", "東中"),
            ("見本義務教育学校", "見本義務教育学校"),
            ("市立小学校", "市立小学校"),
            ("Sample School", "Sample School"),
        ];
        for (name, short) in rows {
            assert_eq!(short_name(name), short);
        }
    }
}
