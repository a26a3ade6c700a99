//! What a box says that is being rebuilt: what can be used already, what is still coming, how much is left.
//!
//! **Invariant**: what is not here yet is never shown as nothing.

use axum::http::StatusCode;
use sonae_proto::ids::Tier;
use sonae_store::filling::RebuildStatus;
use sonae_store::status::Status;

use crate::error::ApiError;
use crate::status_details::{Both, both};

/// What somebody tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// To look at something.
    Read,
    /// To save something.
    Write,
}

/// A rebuild has not brought this yet. The status line of every page says how much is left.
pub fn not_yet(tier: Tier, attempt: Attempt) -> ApiError {
    let (text, text_ja, retry_after_s) = match tier {
        Tier::Safety => (
            "This box is being rebuilt, and names, contacts and staff are still on their way from the copy outside. \
             Until then write on paper; look here again in a moment.",
            "この装置は復元の途中で、名簿・連絡先・職員の情報を校外の控えから取り込んでいます。それまでは紙に書き、\
             少し待ってからもう一度開いてください。",
            5,
        ),
        Tier::Daily => (
            "This box is being rebuilt, and attendance, diary and health details are still on their way from the copy \
             outside. The roster, contacts and safety checks can be used. Write the rest on paper; the status line says \
             how much is left.",
            "この装置は復元の途中で、出欠・日誌・健康の情報を校外の控えから取り込んでいます。名簿・連絡先・安全確認は\
             使えます。ほかは紙に書いてください。残りは画面の上に出ています。",
            30,
        ),
        Tier::Archive => (
            "This box is being rebuilt, and marks and school records are still on their way from the copy outside. What \
             the status line calls usable can be used; it says how much is left.",
            "この装置は復元の途中で、成績・指導要録を校外の控えから取り込んでいます。画面の上に「使えるもの」とある情報は\
             使えます。残りもそこに出ています。",
            60,
        ),
    };
    let (saved, saved_ja) = match attempt {
        Attempt::Read => ("", ""),
        Attempt::Write => ("Nothing was saved. ", "保存できていません。"),
    };
    let (text, text_ja) = (format!("{saved}{text}"), format!("{saved_ja}{text_ja}"));
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_here_yet", &text, &text_ja).retry_after(retry_after_s)
}

/// What people call a tier.
fn name(tier: Tier) -> (&'static str, &'static str) {
    match tier {
        Tier::Safety => ("名簿・連絡先・安否", "roster, contacts, safety checks"),
        Tier::Daily => ("出欠・日誌・健康の情報", "attendance, diary, health details"),
        Tier::Archive => ("成績・指導要録", "marks, school records"),
    }
}

/// Says how far the rebuild is; `None` when none is under way.
pub fn rebuild_line(status: &Status) -> Option<Both> {
    let rebuild = status.rebuild.as_ref()?;
    let names = |usable: bool| {
        let tiers = rebuild.tiers.iter().filter(|(_, tier)| tier.usable == usable);
        let (ja, en): (Vec<_>, Vec<_>) = tiers.map(|(tier, _)| name(*tier)).unzip();
        if ja.is_empty() {
            ("まだありません".to_owned(), "nothing yet".to_owned())
        } else {
            (ja.join("、"), en.join(", "))
        }
    };
    let (usable, coming, left) = (names(true), names(false), left(rebuild, status.uplink.up));
    // A fresh box remembers nothing: what the cloud has left out does not show here (P4).
    let ja = format!(
        "この装置は復元の途中です。使えるもの：{}。取り込み中：{}（{}）。欠けがないことは未確認です",
        usable.0, coming.0, left.ja
    );
    let en = format!(
        "This box is being rebuilt. Usable: {}. Still coming: {} ({}). Completeness unverified.",
        usable.1, coming.1, left.en
    );
    Some(both(ja, en))
}

fn left(rebuild: &RebuildStatus, is_up: bool) -> Both {
    let bytes = rebuild.left_bytes.map(|bytes| bytes.div_ceil(1024));
    match (bytes, rebuild.left_ms) {
        (Some(kib), Some(ms)) if is_up => {
            let (ja, en) = time(ms);
            both(format!("残り約{kib}KiB、{ja}"), format!("about {kib} KiB left, {en}"))
        }
        (Some(kib), _) if is_up => both(format!("残り約{kib}KiB"), format!("about {kib} KiB left")),
        (Some(kib), _) => both(
            format!("残り約{kib}KiB。回線がつながりしだい、続きから取り込みます"),
            format!("about {kib} KiB left; it goes on where it stopped as soon as the line is up"),
        ),
        (None, _) => both("回線がつながりしだい、取り込みを続けます", "it goes on as soon as the line is up"),
    }
}

/// A time that is left, rounded up: nobody is to wait longer than was said.
fn time(ms: u64) -> (String, String) {
    match ms.div_ceil(1_000) {
        seconds @ 0..=90 => (format!("約{seconds}秒"), format!("about {seconds} s")),
        seconds if seconds <= 90 * 60 => {
            let minutes = seconds.div_ceil(60);
            (format!("約{minutes}分"), format!("about {minutes} min"))
        }
        seconds => {
            let hours = seconds.div_ceil(3_600);
            (format!("約{hours}時間"), format!("about {hours} h"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status_line::tests::status;
    use sonae_store::filling::TierFilling;
    use sonae_store::{NotYet, ViewError, WriteError};
    use std::collections::BTreeMap;

    /// Goal: a tier that is still coming is never an empty answer, says what goes on meanwhile, and when to ask again.
    /// Method: reads and writes of each tier.
    #[test]
    fn what_is_not_here_yet() {
        for tier in Tier::ALL {
            let read = ApiError::from(ViewError::from(NotYet { tier }));
            let write = ApiError::from(WriteError::from(NotYet { tier }));
            for error in [&read, &write] {
                assert_eq!((error.status.as_u16(), error.detail.code.as_str()), (503, "not_here_yet"));
                assert!(error.retry_after_s.is_some_and(|seconds| seconds > 0), "{tier}");
                let goes_on =
                    error.detail.text_ja.contains("使えます") && error.detail.text.contains("can be used");
                assert_eq!(goes_on, tier != Tier::Safety, "{tier}: {}", error.detail.text);
            }
            assert!(!read.detail.text_ja.contains("保存"), "nobody tried to save");
            assert!(write.detail.text_ja.starts_with("保存できていません。"), "{tier}");
        }
    }

    fn rebuilding(usable: &[Tier], left_bytes: Option<u64>, left_ms: Option<u64>, up: bool) -> Both {
        let tier = |tier| {
            let usable = usable.contains(&tier);
            (tier, TierFilling { usable, here: 0, there: None, left_bytes: None })
        };
        let tiers: BTreeMap<Tier, TierFilling> = Tier::ALL.into_iter().map(tier).collect();
        let mut status = status();
        status.uplink.up = up;
        status.rebuild = Some(RebuildStatus { tiers, left_bytes, left_ms });
        rebuild_line(&status).unwrap()
    }

    /// Goal: the line says what can be used, what is coming and how long it takes, and makes up nothing. Method: each
    /// state of a rebuild, whole sentences.
    #[test]
    fn how_far_a_rebuild_is() {
        assert_eq!(rebuild_line(&status()), None);
        let line = rebuilding(&[], None, None, false);
        assert_eq!(
            line.ja,
            "この装置は復元の途中です。使えるもの：まだありません。取り込み中：名簿・連絡先・安否、\
             出欠・日誌・健康の情報、成績・指導要録（回線がつながりしだい、取り込みを続けます）。欠けがないことは未確認です"
        );
        let line = rebuilding(&[Tier::Safety, Tier::Archive], Some(300 * 1024), Some(100_500), true);
        assert_eq!(
            line.ja,
            "この装置は復元の途中です。使えるもの：名簿・連絡先・安否、成績・指導要録。取り込み中：出欠・日誌・健康の情報\
             （残り約300KiB、約2分）。欠けがないことは未確認です"
        );
        assert_eq!(
            line.en,
            "This box is being rebuilt. Usable: roster, contacts, safety checks, marks, school records. Still coming: \
             attendance, diary, health details (about 300 KiB left, about 2 min). Completeness unverified."
        );
        let line = rebuilding(&[Tier::Safety], Some(1), Some(5), false);
        assert!(
            line.ja.contains("（残り約1KiB。回線がつながりしだい、続きから取り込みます）"),
            "{}",
            line.ja
        );
        assert!(rebuilding(&[], Some(1), None, true).en.contains("(about 1 KiB left)."));
        assert_eq!((time(90_000).1, time(5_400_001).1), ("about 90 s".into(), "about 2 h".into()));
    }
}
