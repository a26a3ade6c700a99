//! When sealed batches may leave a box: a pure policy. It is told what is known and says what is lacking.
//!
//! **Invariant**: nothing is pruned before all of it holds: a receipt of the snapshot that stands for the batches, under
//! the present loss counter; that snapshot came back whole from the cloud; a proof has read back the batches themselves;
//! the last proof succeeded; and the box has run for as long as batches are kept.
//! **Invariant**: no clock can hasten it: what counts is how long the box has run, by a time that never jumps.
//! Decision: `docs/decisions/0025-a-box-prunes-behind-a-proven-snapshot.md`.

use serde::{Deserialize, Serialize};

use crate::ids::{Hash32, Tier};
use crate::planted::{Defect, is_planted};
use crate::proof::{Proof, ProofResult};
use crate::vector::Heads;

/// Days for which batches are kept after their receipt, at least. Nothing that anybody asks for lowers it.
pub const RETAIN_DAYS_MIN: u64 = 30;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;

/// A snapshot that is to stand for the batches below its heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Hash of its root.
    pub root: Hash32,
    /// The loss counter under which it got its receipt.
    pub loss_counter: u64,
    /// Number of the last proof that had begun then: what it found may be of before a loss.
    pub proofs_before: u64,
    /// Whether it came back whole from the cloud in a proof that succeeded.
    pub read_back: bool,
    /// Whether a proof that succeeded has read back the batches below it, change by change.
    pub proved: bool,
    /// Milliseconds for which the box has run since its receipt.
    pub aged_ms: u64,
}

/// What is lacking before batches may go, the first of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// The snapshot has no receipt under the present loss counter.
    Receipt,
    /// It has not come back whole.
    ReadBack,
    /// No proof has read back the batches.
    Proof,
    /// The last proof did not succeed, or is too old.
    Restore,
    /// The box has not run for long enough since.
    Age,
}

impl Candidate {
    /// Takes a snapshot that has just got its receipt.
    #[must_use]
    pub const fn new(root: Hash32, loss_counter: u64, proofs_before: u64) -> Self {
        Self { root, loss_counter, proofs_before, read_back: false, proved: false, aged_ms: 0 }
    }

    /// Learns from a proof whose evidence the cloud has. `heads` are those of the snapshot.
    pub fn learn(&mut self, tier: Tier, heads: &Heads, proof: &Proof) {
        if proof.result != ProofResult::Proved || proof.number <= self.proofs_before {
            return;
        }
        match proof.snapshots.get(&tier) {
            Some(root) => self.read_back |= *root == self.root,
            None => {
                self.proved |= heads.iter().all(|(log, head)| {
                    proof.heads.get(log).is_some_and(|there| there.sequence >= head.sequence)
                });
            }
        }
    }

    /// Says what is lacking before the batches below it may go; `None` if nothing is. `restores` tells whether the last
    /// proof succeeded and is young.
    #[must_use]
    pub fn lacks(&self, loss_counter: u64, restores: bool, retain_ms: u64) -> Option<Lack> {
        let missing = [
            (self.loss_counter != loss_counter, Lack::Receipt),
            (!self.read_back, Lack::ReadBack),
            (!self.proved, Lack::Proof),
            (!restores, Lack::Restore),
            (self.aged_ms < retain_ms, Lack::Age),
        ];
        missing
            .into_iter()
            .find(|(lacks, _)| *lacks && !is_planted(Defect::PrunedEarly))
            .map(|(_, lack)| lack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::ids::{Incarnation, LogName};
    use crate::vector::LogHead;

    const LOG: LogName = LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([1; 16]) };
    const ROOT: Hash32 = Hash32([7; 32]);

    fn heads(sequence: u64) -> Heads {
        Heads::from([(LOG, LogHead { sequence, hash: Hash32([2; 32]) })])
    }

    fn proof(result: ProofResult, sequence: u64, snapshot: Option<Hash32>) -> Proof {
        Proof {
            school: "B113200000011".parse().unwrap(),
            incarnation: LOG.incarnation,
            number: 1,
            result,
            cause: String::new(),
            tiers: Vec::new(),
            heads: heads(sequence),
            digests: Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect(),
            merge_version: 1,
            began_ms: 1,
            duration_ms: 1,
            bytes: 1,
            software: "test".into(),
            snapshots: snapshot.into_iter().map(|root| (Tier::Daily, root)).collect(),
        }
    }

    /// Goal: batches go when all holds and never otherwise. Method: every combination of what may be lacking.
    #[test]
    fn everything_is_needed() {
        for case in 0..32_u32 {
            let has = |bit: u32| case & (1 << bit) != 0;
            let candidate = Candidate {
                root: ROOT,
                loss_counter: if has(0) { 4 } else { 3 },
                proofs_before: 0,
                read_back: has(1),
                proved: has(2),
                aged_ms: if has(4) { 30 * DAY_MS } else { 30 * DAY_MS - 1 },
            };
            let lack = candidate.lacks(4, has(3), 30 * DAY_MS);
            let order = [Lack::Receipt, Lack::ReadBack, Lack::Proof, Lack::Restore, Lack::Age];
            let first = order.into_iter().zip(0..).find(|(_, bit)| !has(*bit)).map(|(lack, _)| lack);
            assert_eq!(lack, first, "{case:b}");
        }
    }

    /// Goal: a proof counts for what it has shown. Method: failures; one that ends before the snapshot; one through
    /// this snapshot, through another, and change by change.
    #[test]
    fn a_proof_counts_for_what_it_has_shown() {
        let learnt = |proof: &Proof| {
            let mut candidate = Candidate::new(ROOT, 0, 0);
            candidate.learn(Tier::Daily, &heads(10), proof);
            (candidate.read_back, candidate.proved)
        };
        let good = |sequence, snapshot| learnt(&proof(ProofResult::Proved, sequence, snapshot));
        assert_eq!(good(10, None), (false, true));
        assert_eq!(good(9, None), (false, false), "it ends before");
        assert_eq!(good(10, Some(ROOT)), (true, false));
        assert_eq!(good(99, Some(Hash32([8; 32]))), (false, false), "another snapshot");
        for result in [ProofResult::Differs, ProofResult::Incomplete, ProofResult::CouldNotVerify] {
            assert_eq!(learnt(&proof(result, 10, None)), (false, false));
            assert_eq!(learnt(&proof(result, 10, Some(ROOT))), (false, false));
        }
        let mut elsewhere = proof(ProofResult::Proved, 10, None);
        elsewhere.heads.clear();
        assert_eq!(learnt(&elsewhere), (false, false), "it knows nothing of the log");
        let mut late = Candidate::new(ROOT, 0, 1);
        late.learn(Tier::Daily, &heads(10), &proof(ProofResult::Proved, 10, None));
        assert!(!late.proved, "it had begun before");
    }
}
