//! What stands under the status line of every page: each tier by itself, and what somebody must know now.
//!
//! **Invariant**: no personal data; whoever opens the sign-in page reads it.

use sonae_proto::ids::Tier;
use sonae_store::status::Status;

use crate::rebuilding::rebuild_line;
use crate::status_line::moment;

/// Before 2024-01-01 no clock of this program can be right.
const CLOCK_SET_MS_MIN: u64 = 1_704_067_200_000;

/// A text in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Both {
    /// Japanese.
    pub ja: String,
    /// English.
    pub en: String,
}

/// How one tier stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierLine {
    /// What it holds.
    pub name: Both,
    /// When the last change of it was kept here.
    pub kept: Both,
    /// When the last receipt for it came.
    pub safe: Both,
    /// How many changes have none.
    pub waiting: u64,
    /// For how long the oldest of them has waited.
    pub oldest: Option<Both>,
    /// Whether it is not taken now, for lack of room or because a rebuild is still fetching it.
    pub is_refused: bool,
}

pub fn both(ja: impl Into<String>, en: impl Into<String>) -> Both {
    Both { ja: ja.into(), en: en.into() }
}

/// Says how long something takes or took.
pub fn age(ms: u64) -> Both {
    let minutes = ms / 60_000;
    match minutes {
        0 => both("1分未満", "less than a minute"),
        1..60 => both(format!("{minutes}分"), format!("{minutes} min")),
        60..2_880 => both(format!("{}時間", minutes / 60), format!("{} h", minutes / 60)),
        _ => both(format!("{}日", minutes / 1_440), format!("{} days", minutes / 1_440)),
    }
}

/// Says how each tier stands.
pub fn tier_lines(status: &Status) -> Vec<TierLine> {
    let at = |at_ms: Option<u64>| match at_ms {
        Some(at_ms) if at_ms > status.now_ms => both("？", "?"),
        Some(at_ms) => moment(at_ms, status.now_ms),
        None => both("―", "-"),
    };
    let is_here = |tier| {
        let rebuild = status.rebuild.as_ref().and_then(|rebuild| rebuild.tiers.get(&tier));
        rebuild.is_none_or(|tier| tier.usable)
    };
    let line = |tier| TierLine {
        name: match tier {
            Tier::Safety => both("安全：名簿・連絡先・安否", "Safety: roster, contacts, checks"),
            Tier::Daily => both("日常：出欠・日誌", "Daily: attendance, diary"),
            Tier::Archive => both("記録：成績・指導要録", "Records: marks, school records"),
        },
        kept: at(status.kept.get(&tier).map(|point| point.at_ms)),
        safe: at(status.safe.get(&tier).map(|point| point.at_ms)),
        waiting: status.unsafe_by_tier.get(&tier).copied().unwrap_or(0),
        oldest: status.lag_ms_by_tier.get(&tier).copied().map(age),
        is_refused: status.storage.refused_tiers.contains(&tier) || !is_here(tier),
    };
    Tier::ALL.into_iter().map(line).collect()
}

/// Says what somebody must know now: a stall, tiers that are refused, a clock that cannot be right.
pub fn alarms(status: &Status) -> Vec<Both> {
    let mut alarms = Vec::new();
    if status.held_ms.is_some() {
        alarms.push(both(
            "この装置は教育委員会の確認が済むまで、見るだけです。別の装置か紙に記録し、教育委員会に確認を頼んでください。\
             ここに残っていた記録は失われず、校外の控えに送られます",
            "The board has not released this box yet: you can read here and not write. Write at another box or on paper, \
             and ask the board to release it. What this box still held is not lost; it is sent to the copy outside.",
        ));
    }
    alarms.extend(rebuild_line(status));
    let refuses = |tier| status.storage.refused_tiers.contains(&tier);
    if status.storage.is_full {
        alarms.push(both(
            "空き容量がありません。教育委員会に連絡してください",
            "The disk is full. Call the board.",
        ));
    } else if refuses(Tier::Daily) {
        alarms.push(both(
            "空き容量がほとんどないため、出欠・日誌・成績の入力を止めています。安全確認・引き渡し・連絡先は続けて\
             入力できます。教育委員会に連絡してください",
            "Almost no room is left: attendance, diary and marks are not taken now. Safety checks, hand-over and \
             contacts go on. Call the board.",
        ));
    } else if refuses(Tier::Archive) {
        alarms.push(both(
            "空き容量が少ないため、成績・指導要録の入力を止めています。出欠・日誌・安全確認は続けて入力できます。\
             教育委員会に連絡してください",
            "Little room is left: marks and school records are not taken now. Attendance, diary and safety checks \
             go on. Call the board.",
        ));
    }
    if let Some(stalled) = status.uplink.stalled {
        let age = age(stalled.for_ms);
        alarms.push(both(
            format!(
                "回線はつながっていますが、校外の控えが{}前から進んでいません。ここには保存されています。\
                 続けて入力できます。教育委員会に連絡してください",
                age.ja
            ),
            format!(
                "The line is up, but the copy outside has not moved for {}. Everything is saved here. You can go on \
                 working. Call the board.",
                age.en
            ),
        ));
    }
    if status.now_ms < CLOCK_SET_MS_MIN {
        alarms.push(both(
            "この装置の時計が合っていません。表示の時刻は正しくありません",
            "The clock of this box is not set. The times that it shows are not right.",
        ));
    }
    alarms
}

/// Says how the line stands, and what failed last.
pub fn notes(status: &Status) -> Vec<Both> {
    let line = match (status.uplink.up, status.uplink.last_contact_ms) {
        (true, _) => both("回線：つながっています", "Line: up"),
        (false, Some(at_ms)) if at_ms <= status.now_ms => {
            let at = moment(at_ms, status.now_ms);
            let ja = format!("回線：つながっていません（最後の応答 {}）", at.ja);
            both(ja, format!("Line: down (last answer {})", at.en))
        }
        (false, _) => both("回線：つながっていません", "Line: down"),
    };
    let error = status.last_error.as_ref().map(|error| {
        let (what, age) = (error_name(&error.code), age(error.age_ms));
        let ja = format!("最後の不具合：{}（{}前）", what.ja, age.ja);
        both(ja, format!("Last error: {} ({} ago)", what.en, age.en))
    });
    [Some(line), neighbours(status), error].into_iter().flatten().collect()
}

/// Says how far other boxes in the building are, and that a copy there is none outside.
fn neighbours(status: &Status) -> Option<Both> {
    let all = &status.neighbours;
    let there: Vec<_> = all.iter().filter(|one| one.connected).collect();
    if there.is_empty() {
        let last = all.iter().filter_map(|one| one.last_contact_age_ms).min().map(age);
        let (ja, en) = last.map_or_else(Default::default, |age| {
            (format!("（最後の応答 {}前）", age.ja), format!(" (last answer {} ago)", age.en))
        });
        let ja = format!("近くの装置：つながっていません{ja}");
        return (!all.is_empty()).then(|| both(ja, format!("Boxes nearby: not connected{en}")));
    }
    let (count, here): (usize, u64) = (there.len(), there.iter().map(|one| one.lacking_here).sum());
    let waiting: u64 = there.iter().map(|one| one.lacking_there).sum();
    Some(both(
        format!(
            "近くの装置：{count}台とつながっています（受け取り待ち{here}件、渡し待ち{waiting}件）。近くの写しは校外の控えではありません"
        ),
        format!(
            "Boxes nearby: {count} connected ({here} changes still to come, {waiting} still to go). A copy nearby is no \
             copy outside the school."
        ),
    ))
}

/// Names an error for people by its code; its text is for whoever runs `sonae-edge status`.
fn error_name(code: &str) -> Both {
    let (ja, en) = match code {
        "store_failed" => ("保存できません", "nothing is saved"),
        "line_down" => ("回線が切れました", "the line went down"),
        "refused" => ("校外の保管先に断られました", "the cloud refused this box"),
        "stalled" => ("校外の控えが進みませんでした", "the copy outside stood still"),
        "not_served" => ("他の装置の変更が届いていません", "changes of other boxes do not arrive"),
        "cloud_lost" => ("校外の控えが失われ、送り直しました", "the cloud lost changes; they are sent again"),
        "cloud_incomplete" => ("校外の保管先の一部が読めません", "the cloud cannot read all of its sites"),
        "own_log_elsewhere" | "renewed" => ("この装置の写しが見つかりました", "a copy of this box was found"),
        "not_renewed" => ("引き継ぎが済んでいません", "the change-over has not ended"),
        "repaired" => ("ディスクの損傷を直しました", "damage of the disk was repaired"),
        "batch_refused" => ("校外の控えの一部が断られました", "the cloud refused a batch"),
        "bad_peer_batch" | "peer_batch_not_stored" => {
            ("他の装置の変更を受け取れません", "changes of another box could not be taken")
        }
        "keys_refused" => {
            ("届いた鍵は使えないため、今の鍵を使い続けます", "keys that came are of no use here")
        }
        "loss_not_kept" => ("空き容量がなく、送信を待っています", "sending waits for room on the disk"),
        _ => ("不具合がありました", "something failed"),
    };
    both(ja, en)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status_line::status_line;
    use crate::status_line::tests::{NOW_MS, status};
    use sonae_store::neighbours::NeighbourStatus;
    use sonae_store::status::{ErrorStatus, StallStatus, Storage, UplinkStatus};
    use std::collections::BTreeMap;

    fn refusing(tiers: &[Tier]) -> Status {
        let storage = Storage { refused_tiers: tiers.to_vec(), ..Storage::default() };
        Status { storage, ..status() }
    }

    /// Goal: what is refused says what goes on, and nobody is sent to paper as long as something is kept. Method: each
    /// pressure, whole sentences.
    #[test]
    fn refused_tiers_are_said() {
        assert!(alarms(&status()).is_empty());
        let line = status_line(&refusing(&[Tier::Archive]));
        assert!(line.ja.starts_with("保存しました") && !line.is_failed);
        let [alarm] = line.alarms.as_slice() else { panic!("{line:?}") };
        assert_eq!(
            alarm.ja,
            "空き容量が少ないため、成績・指導要録の入力を止めています。出欠・日誌・安全確認は続けて入力できます。\
             教育委員会に連絡してください"
        );
        let refused: Vec<bool> = line.tiers.iter().map(|tier| tier.is_refused).collect();
        assert_eq!(refused, [false, false, true]);
        let [alarm] = &alarms(&refusing(&[Tier::Daily, Tier::Archive]))[..] else { panic!() };
        assert!(
            alarm.ja.contains("安全確認・引き渡し・連絡先は続けて入力できます") && !alarm.ja.contains("紙")
        );
        assert!(alarm.en.contains("Safety checks, hand-over and contacts go on"));
    }

    /// Goal: a stall stands on the page for as long as it lasts; an error with its age. Method: both in a status.
    #[test]
    fn stalls_and_errors_have_ages() {
        let stalled = Some(StallStatus { for_ms: 7 * 60_000 });
        let uplink = UplinkStatus { up: true, stalled, ..UplinkStatus::default() };
        let last_error = Some(ErrorStatus {
            at_ms: 0,
            age_ms: 3 * 3_600_000,
            steady_ms: 0,
            code: "line_down".into(),
            text: "x".into(),
        });
        let line = status_line(&Status { uplink, last_error, ..status() });
        assert!(line.alarms[0].ja.contains("校外の控えが7分前から進んでいません"));
        assert!(line.alarms[0].en.contains("has not moved for 7 min"));
        assert_eq!(line.notes[1].ja, "最後の不具合：回線が切れました（3時間前）");
        assert_eq!(line.notes[0].en, "Line: up");
    }

    /// Goal: boxes nearby are said to be there or not, and never to make anything safe. Method: none, one away, two there.
    #[test]
    fn boxes_nearby_are_no_copy_outside() {
        assert_eq!(neighbours(&status()), None);
        let one = |connected, lacking_here| NeighbourStatus {
            connected,
            lacking_here,
            lacking_there: 2,
            last_contact_age_ms: Some(7 * 60_000),
            ..NeighbourStatus::default()
        };
        let line = |told: Vec<NeighbourStatus>| neighbours(&Status { neighbours: told, ..status() }).unwrap();
        assert_eq!(line(vec![one(false, 0)]).ja, "近くの装置：つながっていません（最後の応答 7分前）");
        let told = line(vec![one(true, 3), one(false, 9), one(true, 1)]);
        assert_eq!(
            told.ja,
            "近くの装置：2台とつながっています（受け取り待ち4件、渡し待ち4件）。近くの写しは校外の控えではありません"
        );
        assert!(told.en.ends_with("A copy nearby is no copy outside the school."));
        let told = Status { neighbours: vec![one(true, 0)], ..status() };
        assert_eq!(status_line(&told).ja, status_line(&status()).ja, "what is safe is what it was");
    }

    /// Goal: each tier says what waits and for how long; times that cannot be are not shown. Method: a tier that waits,
    /// a receipt of tomorrow, a clock in 1970.
    #[test]
    fn tiers_stand_by_themselves() {
        let point = |at_ms| sonae_store::Point { sequence: 3, at_ms };
        let told = Status {
            safe: BTreeMap::from([(Tier::Safety, point(NOW_MS + 1)), (Tier::Daily, point(NOW_MS - 120_000))]),
            unsafe_by_tier: BTreeMap::from([(Tier::Daily, 12)]),
            lag_ms_by_tier: BTreeMap::from([(Tier::Daily, 26 * 3_600_000)]),
            ..status()
        };
        let lines = tier_lines(&told);
        assert_eq!((lines[0].safe.ja.as_str(), lines[1].safe.ja.as_str()), ("？", "14:01"));
        assert_eq!((lines[1].kept.ja.as_str(), lines[2].kept.ja.as_str()), ("14:03", "―"));
        assert_eq!((lines[1].waiting, lines[1].oldest.clone().unwrap().ja), (12, "26時間".into()));
        assert_eq!(age(50 * 3_600_000), both("2日", "2 days"));
        let in_1970 = alarms(&Status { now_ms: 60_000, ..status() });
        assert_eq!(in_1970[0].en, "The clock of this box is not set. The times that it shows are not right.");
    }
}
