//! The judgement of a restore proof: what came back beside what is held here.
//!
//! **Invariant**: digests are compared only at equal heads of all logs. Everything that is not found equal is a
//! failure.

use sonae_proto::digest::Digest;
use sonae_proto::ids::Tier;
use sonae_proto::proof::ProofResult;
use sonae_proto::vector::{Heads, Sequences};
use sonae_store::Mark;
use std::collections::{BTreeMap, BTreeSet};

/// What came back from the cloud, folded anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// Heads of the batches that came.
    pub heads: Heads,
    /// What the scratch view adds up.
    pub vector: Sequences,
    /// Its digests.
    pub digests: BTreeMap<Tier, Digest>,
    /// Whether the node had read enough sites to know all.
    pub is_complete: bool,
    /// Version of the newest manifest of recipients there.
    pub manifest_version: u64,
    /// What the engine said of batches that do not verify or cannot be opened.
    pub bad: Option<String>,
}

/// How a proof ended, for documents and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The result.
    pub result: ProofResult,
    /// A stable word for why; empty for a success.
    pub cause: &'static str,
    /// Tiers that differ or are incomplete.
    pub tiers: Vec<Tier>,
    /// What happened and what to do next.
    pub text: String,
}

impl Verdict {
    fn new(result: ProofResult, cause: &'static str, tiers: BTreeSet<Tier>, text: String) -> Self {
        Self { result, cause, tiers: tiers.into_iter().collect(), text }
    }

    /// It was not found out.
    #[must_use]
    pub fn not_verified(cause: &'static str, text: impl Into<String>) -> Self {
        let text = format!("whether the copy outside restores could not be verified: {}", text.into());
        Self::new(ProofResult::CouldNotVerify, cause, BTreeSet::new(), text)
    }
}

/// Judges.
#[must_use]
pub fn compare(mark: &Mark, restored: &Restored) -> Verdict {
    let (mut short, mut other) = (BTreeMap::new(), BTreeSet::new());
    for (log, head) in &mark.heads {
        let there = restored.heads.get(log).copied().unwrap_or(sonae_proto::vector::LogHead::EMPTY);
        let folded = restored.vector.get(log).copied().unwrap_or(0);
        if there.sequence.min(folded) < head.sequence {
            short.insert(*log, (there.sequence.min(folded), head.sequence));
        } else if there != *head || folded != head.sequence {
            other.insert(log.tier);
        }
    }
    other.extend(restored.vector.keys().filter(|log| !mark.heads.contains_key(log)).map(|log| log.tier));
    let tiers_short: BTreeSet<Tier> = short.keys().map(|log| log.tier).collect();
    if let Some(bad) = &restored.bad {
        let text =
            format!("the cloud gave back what does not verify or open: {bad}. Call whoever runs the cloud");
        return Verdict::new(ProofResult::Differs, "bad_batch", tiers_short, text);
    }
    if !other.is_empty() {
        let text = "the cloud gave back another history than this box has. Call the board".to_owned();
        return Verdict::new(ProofResult::Differs, "history", other, text);
    }
    if let Some((log, (there, here))) = short.first_key_value() {
        let logs = short.len();
        let what = format!(
            "of log {log} changes {} to {here} did not come back ({logs} log(s) lack some)",
            there + 1
        );
        let (cause, why) = if restored.is_complete {
            ("missing", "Call whoever runs the cloud: it lacks what it gave a receipt for")
        } else {
            ("unread_sites", "the cloud could not read enough of its sites. Call whoever runs it")
        };
        return Verdict::new(ProofResult::Incomplete, cause, tiers_short, format!("{what}. {why}"));
    }
    if restored.manifest_version < mark.manifest_version {
        let text = "the cloud lacks the school's newest key documents: a new box could not open what is sealed now. \
                    Call whoever runs the cloud"
            .to_owned();
        return Verdict::new(ProofResult::Incomplete, "keys_missing", BTreeSet::new(), text);
    }
    let differ = |tier: &Tier| mark.digests.get(tier) != restored.digests.get(tier);
    let tiers: BTreeSet<Tier> = Tier::ALL.into_iter().filter(differ).collect();
    if !tiers.is_empty() {
        let text = "the same changes add up to another state in a new box than here. Do not rely on either: call the \
                    board"
            .to_owned();
        return Verdict::new(ProofResult::Differs, "digest", tiers, text);
    }
    let changes: u64 = mark.heads.values().map(|head| head.sequence).sum();
    let text = format!("what the cloud holds restores: {changes} change(s), the same digests");
    Verdict::new(ProofResult::Proved, "", BTreeSet::new(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::digest::DigestKey;
    use sonae_proto::ids::{Hash32, Incarnation, LogName};
    use sonae_proto::record::FieldState;
    use sonae_proto::vector::LogHead;

    fn log(tier: Tier, byte: u8) -> LogName {
        LogName { tier, incarnation: Incarnation::from_bytes([byte; 16]) }
    }

    fn head(sequence: u64, byte: u8) -> LogHead {
        LogHead { sequence, hash: Hash32([byte; 32]) }
    }

    fn digest(name: &str) -> Digest {
        let head = r#"{"h":[{"i":"01010101010101010101010101010101:1","t":[1,0],"v":"x"}]}"#;
        let state: FieldState = serde_json::from_str(head).unwrap();
        DigestKey::from_secret("key").field("student", name, "name", Some(&state))
    }

    fn same() -> (Mark, Restored) {
        let own = log(Tier::Safety, 1);
        let heads = Heads::from([(own, head(9, 1)), (log(Tier::Daily, 2), head(4, 2))]);
        let digests: BTreeMap<Tier, Digest> = Tier::ALL.map(|tier| (tier, digest(&tier.to_string()))).into();
        let mark = Mark {
            heads: heads.clone(),
            digests: digests.clone(),
            own: BTreeSet::from([own.incarnation]),
            manifest_version: 3,
        };
        let vector = heads.iter().map(|(log, head)| (*log, head.sequence)).collect();
        let restored = Restored { heads, vector, digests, is_complete: true, manifest_version: 3, bad: None };
        (mark, restored)
    }

    fn judged(change: impl FnOnce(&mut Restored)) -> (ProofResult, &'static str, Vec<Tier>) {
        let (mark, mut restored) = same();
        change(&mut restored);
        let verdict = compare(&mark, &restored);
        (verdict.result, verdict.cause, verdict.tiers)
    }

    /// Goal: the same is proved. Method: equal heads, vectors, digests; a cloud that is ahead with its keys.
    #[test]
    fn the_same_is_proved() {
        assert_eq!(judged(|_| {}), (ProofResult::Proved, "", vec![]));
        assert_eq!(judged(|restored| restored.manifest_version = 4).0, ProofResult::Proved);
    }

    /// Goal: a lost change is told although no digest shows it: a change that applies nothing leaves none. Method: a
    /// shorter log, an absent one, one that came and was not folded, each with equal digests.
    #[test]
    fn equal_digests_at_other_vectors_prove_nothing() {
        let own = log(Tier::Safety, 1);
        let missing = (ProofResult::Incomplete, "missing", vec![Tier::Safety]);
        let shorter = |restored: &mut Restored| {
            restored.heads.insert(own, head(8, 7));
            restored.vector.insert(own, 8);
        };
        let absent = |restored: &mut Restored| {
            restored.heads.remove(&own);
            restored.vector.remove(&own);
        };
        assert_eq!(judged(shorter), missing);
        assert_eq!(judged(absent), missing);
        assert_eq!(
            judged(|restored| {
                let _ = restored.vector.insert(own, 8);
            }),
            missing
        );
        let unread = |restored: &mut Restored| {
            shorter(restored);
            restored.is_complete = false;
        };
        assert_eq!(judged(unread), (ProofResult::Incomplete, "unread_sites", vec![Tier::Safety]));
    }

    /// Goal: what differs is told with its tier. Method: another digest, another hash at the same sequence, a log that
    /// nobody has here, a batch that does not verify, old keys.
    #[test]
    fn differences_are_told() {
        let daily = log(Tier::Daily, 2);
        assert_eq!(
            judged(|restored| {
                let _ = restored.digests.insert(Tier::Archive, digest("another"));
            }),
            (ProofResult::Differs, "digest", vec![Tier::Archive])
        );
        assert_eq!(
            judged(|restored| {
                let _ = restored.heads.insert(daily, head(4, 9));
            }),
            (ProofResult::Differs, "history", vec![Tier::Daily])
        );
        assert_eq!(
            judged(|restored| {
                let _ = restored.vector.insert(log(Tier::Archive, 9), 1);
            }),
            (ProofResult::Differs, "history", vec![Tier::Archive])
        );
        let bad = |restored: &mut Restored| {
            restored.vector.insert(daily, 3);
            restored.bad = Some("its signature does not hold".into());
        };
        assert_eq!(judged(bad), (ProofResult::Differs, "bad_batch", vec![Tier::Daily]));
        assert_eq!(
            judged(|restored| restored.manifest_version = 2),
            (ProofResult::Incomplete, "keys_missing", vec![])
        );
    }
}
