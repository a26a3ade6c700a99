//! Snapshots: the state of one tier at a version vector. A root that its author signs, in clear, and sealed parts
//! that the root names by their hashes. Spec: `docs/spec/snapshot.md`.
//!
//! **Invariant**: a snapshot counts only if its author is an incarnation of the school, and only whole: its parts
//! add up to the digest that the root names.
//! Leaves to its callers which state it is, where parts lie and when one is made.

mod line;
mod part;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, DigestKey, MERGE_VERSION};
use crate::ids::{Hash32, Incarnation, SchoolCode, Tier};
use crate::limits::{BATCH_BYTES_MAX, SNAPSHOT_HEADS_MAX, SNAPSHOT_PARTS_MAX};
use crate::planted::{Defect, is_planted};
use crate::signed::{Document, DocumentError, Signed};
use crate::vector::Heads;

pub use part::{PartCutter, Record, RecordError, open_part, read_part, seal_part};

/// A part, as its root names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartName {
    /// Bytes of the sealed part.
    pub bytes: u32,
    /// BLAKE3 of them.
    pub hash: Hash32,
    /// SHA-256 of them, by which a person without our software finds the part. Absent in roots of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Hash32>,
}

impl PartName {
    /// Names a sealed part.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self {
            bytes: u32::try_from(sealed.len()).unwrap_or(u32::MAX),
            hash: Hash32(*blake3::hash(sealed).as_bytes()),
            sha256: Some(Hash32(Sha256::digest(sealed).into())),
        }
    }

    /// Whether these are the bytes, by everything that the name says.
    #[must_use]
    pub fn is_of(&self, sealed: &[u8]) -> bool {
        let of = Self::of(sealed);
        *self == Self { sha256: self.sha256.and(of.sha256), ..of }
    }
}

/// What a root says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRoot {
    /// Whose data.
    pub school: SchoolCode,
    /// Which tier.
    pub tier: Tier,
    /// Who made it.
    pub author: Incarnation,
    /// School year of the key that all parts are sealed to.
    pub epoch: u32,
    /// Hash of the manifest that names that key.
    pub manifest: Hash32,
    /// [`MERGE_VERSION`] of its author.
    pub merge_version: u32,
    /// The ends of all logs of the tier that it adds up.
    pub heads: Heads,
    /// The state digest.
    pub digest: Digest,
    /// Records in all parts.
    pub records: u64,
    /// The parts, in order.
    pub parts: Vec<PartName>,
}

impl Document for SnapshotRoot {
    const LABEL: &'static str = "sonae/snapshot/v1";
}

impl SnapshotRoot {
    /// Whether everything that can be seen without a key is within its bounds.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let part_fits =
            |part: &PartName| usize::try_from(part.bytes).is_ok_and(|bytes| bytes <= BATCH_BYTES_MAX);
        !self.heads.is_empty()
            && self.heads.len() <= SNAPSHOT_HEADS_MAX
            && self.heads.iter().all(|(log, head)| log.tier == self.tier && head.sequence > 0)
            && self.parts.len() <= SNAPSHOT_PARTS_MAX
            && self.parts.iter().all(part_fits)
            && self.parts.is_empty() == (self.records == 0)
    }

    /// Returns the bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.bytes)).sum()
    }

    /// Returns how many changes it adds up: of two snapshots of a tier the one with more is newer.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.heads.values().fold(0, |sum, head| sum.saturating_add(head.sequence))
    }
}

/// Why a root is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The document does not verify.
    #[error("a snapshot does not verify")]
    Document(#[from] DocumentError),
    /// Nobody knows its author.
    #[error("a snapshot is by incarnation {author}, which is not of this school")]
    Author {
        /// Whom it names.
        author: Incarnation,
    },
    /// A bound does not hold, or it is of another school.
    #[error("a snapshot is of another school or over its limits")]
    Limits,
}

/// A root whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(Signed<SnapshotRoot>);

impl Snapshot {
    /// Signs a root with its author's key.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn sign(root: SnapshotRoot, key: &SigningKey) -> Result<Self, SnapshotError> {
        if !root.is_within_limits() {
            return Err(SnapshotError::Limits);
        }
        Ok(Self(Signed::sign(root, key)?))
    }

    /// Reads a root of a school. `key_of` knows the keys of the school's incarnations.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn verify(
        text: &str,
        school: SchoolCode,
        key_of: impl Fn(Incarnation) -> Option<VerifyingKey>,
    ) -> Result<Self, SnapshotError> {
        let mut unknown = None;
        let signed = Signed::<SnapshotRoot>::verify_with(text, |root| {
            let key = key_of(root.author);
            unknown = key.is_none().then_some(root.author);
            key
        });
        if let Some(author) = unknown {
            return Err(SnapshotError::Author { author });
        }
        let signed = signed?;
        let root = signed.body();
        if root.school != school || !root.is_within_limits() {
            return Err(SnapshotError::Limits);
        }
        Ok(Self(signed))
    }

    /// Reads what a text says without believing it.
    #[must_use]
    pub fn peek(text: &str) -> Option<SnapshotRoot> {
        let (line, _) = text.split_once('\n')?;
        let root: SnapshotRoot = serde_json::from_str(line).ok()?;
        root.is_within_limits().then_some(root)
    }

    /// Returns what it says.
    #[must_use]
    pub fn root(&self) -> &SnapshotRoot {
        self.0.body()
    }

    /// Returns the exact text, as it is stored and sent.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// Returns the hash that names it.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        self.0.hash()
    }
}

/// Adds up what parts bring and says at the end whether that is the state of the root.
#[derive(Debug, Clone)]
pub struct Sum {
    key: DigestKey,
    digest: Digest,
    records: u64,
}

impl Sum {
    /// Starts with nothing.
    #[must_use]
    pub fn new(key: DigestKey) -> Self {
        Self { key, digest: Digest::default(), records: 0 }
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) {
        self.records = self.records.saturating_add(1);
        if record.collection == crate::view::REISSUED {
            return;
        }
        self.digest.add(&self.key.record(&record.collection, &record.record, &record.state));
    }

    /// Returns the digest so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether this is what the root says, by the same rules of merging.
    #[must_use]
    pub fn is_of(&self, root: &SnapshotRoot) -> bool {
        let is_state = self.digest == root.digest && self.records == root.records;
        root.merge_version == MERGE_VERSION && (is_state || is_planted(Defect::SnapshotSumUnchecked))
    }
}

#[cfg(test)]
mod tests;
