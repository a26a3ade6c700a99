//! Evidence of a restore proof: what a replica found when it compared what the cloud alone gives back with what it
//! holds itself, signed by its incarnation. Spec: `docs/spec/keys.md#restore-proof`.
//!
//! **Invariant**: there is one outcome that is a success, and the document cannot say it without all digests.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{Hash32, Incarnation, SchoolCode, Tier};
use crate::limits::{PROOF_BYTES_MAX, PROOF_TEXT_CHARS_MAX, VECTOR_LOGS_MAX};
use crate::signed::{Document, DocumentError, Signed};
use crate::vector::Heads;

/// How a proof ended. Everything but [`Self::Proved`] is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofResult {
    /// What the cloud gives back has the same vector, heads and digests.
    Proved,
    /// The cloud gives back another history, or the same history adds up to another state.
    Differs,
    /// The cloud does not give back all that it had receipted.
    Incomplete,
    /// It was not found out.
    CouldNotVerify,
}

impl ProofResult {
    /// Returns the name that stands in documents and in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Differs => "differs",
            Self::Incomplete => "incomplete",
            Self::CouldNotVerify => "could_not_verify",
        }
    }
}

/// What a replica says of one restore proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whose data.
    pub school: SchoolCode,
    /// Who compared.
    pub incarnation: Incarnation,
    /// Counts the proofs of this data directory, so that a missing one shows.
    pub number: u64,
    /// How it ended.
    pub result: ProofResult,
    /// A stable word for why it was no success; empty for one.
    pub cause: String,
    /// Tiers that differ or are incomplete.
    pub tiers: Vec<Tier>,
    /// Where it was compared: the heads of all logs that the replica held, its own all receipted. Empty when it did
    /// not come to that.
    pub heads: Heads,
    /// The replica's own state digest of each tier there.
    pub digests: BTreeMap<Tier, Digest>,
    /// Version of the merge rules.
    pub merge_version: u32,
    /// When it began, milliseconds since 1970 UTC.
    pub began_ms: u64,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// Bytes that came over the line for it.
    pub bytes: u64,
    /// Name and version of the software.
    pub software: String,
    /// Tiers that came from the cloud as a snapshot, with its root, and not change by change. What lies below the
    /// snapshot was not folded again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<Tier, Hash32>,
}

impl Document for Proof {
    const LABEL: &'static str = "sonae/proof/v1";
}

/// Why evidence is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The document does not verify.
    #[error("the evidence of a restore proof does not verify")]
    Document(#[from] DocumentError),
    /// Its writer is not known, or it is of another school.
    #[error("the evidence of a restore proof is not of an incarnation of this school")]
    Foreign,
    /// It is over a limit, or says more than it shows.
    #[error("the evidence of a restore proof is over its limits or contradicts itself")]
    Unfit,
}

impl Proof {
    /// Signs a proof.
    ///
    /// # Errors
    /// [`ProofError::Unfit`], [`ProofError::Document`].
    pub fn sign(self, key: &ed25519_dalek::SigningKey) -> Result<Signed<Self>, ProofError> {
        if !self.is_fit() {
            return Err(ProofError::Unfit);
        }
        let signed = Signed::sign(self, key)?;
        if signed.text().len() > PROOF_BYTES_MAX {
            return Err(ProofError::Unfit);
        }
        Ok(signed)
    }

    /// Reads evidence and checks who signed it. `key_of` returns the key of an incarnation of the school.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(
        text: &str,
        school: SchoolCode,
        key_of: impl FnOnce(Incarnation) -> Option<VerifyingKey>,
    ) -> Result<Signed<Self>, ProofError> {
        if text.len() > PROOF_BYTES_MAX {
            return Err(ProofError::Unfit);
        }
        let mut is_foreign = false;
        let signed = Signed::<Self>::verify_with(text, |proof| {
            let key = key_of(proof.incarnation).filter(|_| proof.school == school);
            is_foreign = key.is_none();
            key
        });
        match signed {
            Err(_) if is_foreign => Err(ProofError::Foreign),
            Err(error) => Err(error.into()),
            Ok(signed) if signed.body().is_fit() => Ok(signed),
            Ok(_) => Err(ProofError::Unfit),
        }
    }

    /// Whether it keeps the limits and shows what it claims.
    fn is_fit(&self) -> bool {
        let short = |text: &str| text.chars().count() <= PROOF_TEXT_CHARS_MAX;
        let shows = match self.result {
            ProofResult::Proved => {
                self.cause.is_empty() && self.tiers.is_empty() && self.digests.len() == Tier::ALL.len()
            }
            ProofResult::Differs | ProofResult::Incomplete | ProofResult::CouldNotVerify => {
                !self.cause.is_empty()
            }
        };
        shows
            && short(&self.cause)
            && short(&self.software)
            && self.heads.len() <= VECTOR_LOGS_MAX
            && self.tiers.len() <= Tier::ALL.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LogName;
    use crate::vector::LogHead;
    use ed25519_dalek::SigningKey;

    fn school() -> SchoolCode {
        "B113200000011".parse().unwrap()
    }

    fn proof(key: &SigningKey) -> Proof {
        let incarnation = Incarnation::of_key(key.verifying_key().as_bytes());
        let log = LogName { tier: Tier::Safety, incarnation };
        Proof {
            school: school(),
            incarnation,
            number: 7,
            result: ProofResult::Proved,
            cause: String::new(),
            tiers: Vec::new(),
            heads: Heads::from([(log, LogHead { sequence: 9, hash: Hash32([2; 32]) })]),
            digests: Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect(),
            merge_version: 1,
            began_ms: 1_775_000_000_000,
            duration_ms: 4_000,
            bytes: 50_000,
            software: "sonae-edge 0.1.0".into(),
            snapshots: BTreeMap::new(),
        }
    }

    /// Goal: only an incarnation of the school speaks, and unchanged. Method: verify with its key, with another, for
    /// another school, with a word changed.
    #[test]
    fn evidence_is_its_incarnations() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let signed = proof(&key).sign(&key).unwrap();
        let known = |_| Some(key.verifying_key());
        assert_eq!(Proof::verify(signed.text(), school(), known).unwrap(), signed);
        assert!(matches!(Proof::verify(signed.text(), school(), |_| None), Err(ProofError::Foreign)));
        let elsewhere = "B113200000022".parse().unwrap();
        assert!(matches!(Proof::verify(signed.text(), elsewhere, known), Err(ProofError::Foreign)));
        let changed = signed.text().replacen("\"number\":7", "\"number\":8", 1);
        assert!(matches!(Proof::verify(&changed, school(), known), Err(ProofError::Document(_))));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        let outcome = Proof::verify(signed.text(), school(), |_| Some(other));
        assert!(matches!(outcome, Err(ProofError::Document(_))));
    }

    /// Goal: a success without its digests, a failure without a cause and too much of anything are refused, by writer
    /// and reader. Method: one of each, signed around the writer's check.
    #[test]
    fn evidence_shows_what_it_claims() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let good = proof(&key);
        let rows = [
            Proof { digests: BTreeMap::new(), ..good.clone() },
            Proof { tiers: vec![Tier::Daily], ..good.clone() },
            Proof { result: ProofResult::CouldNotVerify, ..good.clone() },
            Proof { software: "x".repeat(PROOF_TEXT_CHARS_MAX + 1), ..good.clone() },
        ];
        for row in rows {
            let around = Signed::sign(row.clone(), &key).unwrap();
            let outcome = Proof::verify(around.text(), school(), |_| Some(key.verifying_key()));
            assert!(matches!(outcome, Err(ProofError::Unfit)), "{row:?}");
            assert!(matches!(row.sign(&key), Err(ProofError::Unfit)));
        }
    }

    /// Goal: the largest evidence keeps its limit. Method: as many logs as a vector may name.
    #[test]
    fn the_largest_evidence_fits() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let head = LogHead { sequence: u64::MAX, hash: Hash32([0xFF; 32]) };
        let log = |number: usize| LogName {
            tier: Tier::ALL[number % 3],
            incarnation: Incarnation::of_key(blake3::hash(&(number / 3).to_be_bytes()).as_bytes()),
        };
        let heads: Heads = (0..VECTOR_LOGS_MAX).map(|number| (log(number), head)).collect();
        assert_eq!(heads.len(), VECTOR_LOGS_MAX);
        let signed = Proof { heads, ..proof(&key) }.sign(&key).unwrap();
        Proof::verify(signed.text(), school(), |_| Some(key.verifying_key())).unwrap();
    }
}
