//! An export: one school's records as files that stock tools read, and the lines of its index. Spec:
//! `docs/spec/export.md`.
//!
//! **Invariant**: a batch's `prefix` and its payload file, one after the other, are the batch.
//! The names of its files: `names`.

use serde::{Deserialize, Serialize};

use crate::batch::PREFIX_BYTES;
use crate::ids::{Hash32, Incarnation, LogName, ReplicaId, SchoolCode, Tier};
use crate::manifest::{KeyUse, base64_bytes};
use crate::proof::ProofResult;

mod names;

pub use names::{
    batch_file, earlier_key_file, foreign_file, identity_files, key_file, key_name, manifest_file,
    proof_file, quarantined_file, rival_file, short, snapshot_part_file, snapshot_root_file,
};

/// Names the format, in the first line of the index.
pub const FORMAT: &str = "sonae/export/v1";

/// The index, written last: an export without it was interrupted.
pub const INDEX_FILE: &str = "index.jsonl";

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Export {
        /// [`FORMAT`].
        format: String,
        /// Whose data.
        school: SchoolCode,
        /// The board's root key in hexadecimal under which everything was verified; absent when nothing was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<String>,
        /// The sites as they were named.
        sites: Vec<String>,
        /// Names of objects at all of them.
        objects: u64,
    },
    /// A manifest.
    Manifest {
        /// Its version.
        version: u64,
        /// BLAKE3 of its text, as batches name it.
        hash: Hash32,
        /// Where its text is.
        file: String,
        /// Whether the board's signature was checked and holds.
        verified: bool,
    },
    /// An epoch key, wrapped to the readers of a manifest.
    WrappedKey {
        /// What the key is for.
        #[serde(rename = "use")]
        key_use: KeyUse,
        /// School year, 0 for the digest.
        epoch: u32,
        /// Version of the manifest that it came with.
        manifest: u64,
        /// Where the age file is.
        file: String,
    },
    /// An identity.
    Identity {
        /// Whose batches it speaks for.
        incarnation: Incarnation,
        /// The device.
        replica: ReplicaId,
        /// Where the text of the device certificate is.
        device_file: String,
        /// Where the text of the incarnation certificate is.
        incarnation_file: String,
        /// Whether both signatures were checked and hold.
        verified: bool,
    },
    /// Evidence of a restore proof.
    Proof {
        /// Who proved.
        incarnation: Incarnation,
        /// Its number.
        number: u64,
        /// How it ended.
        result: ProofResult,
        /// Where its text is.
        file: String,
        /// Whether the signature was checked and holds.
        verified: bool,
    },
    /// A batch.
    Batch(Box<BatchLine>),
    /// A snapshot.
    Snapshot(Box<SnapshotLine>),
    /// Something that was found wrong.
    Problem(Problem),
    /// The last line.
    End {
        /// Batches that were written.
        batches: u64,
        /// Changes in the chains, forks not counted.
        changes: u64,
        /// Snapshots that were written.
        #[serde(default)]
        snapshots: u64,
        /// Problems that count.
        problems: u64,
        /// Whether nothing is known to be missing and everything was verified.
        complete: bool,
    },
}

/// A batch in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLine {
    /// Which log.
    pub log: LogName,
    /// Sequence of its first change.
    pub first: u64,
    /// Sequence of its last change.
    pub last: u64,
    /// School year of its key.
    pub epoch: u32,
    /// Hash of the batch.
    pub hash: Hash32,
    /// Where its payload is: one age file.
    pub file: String,
    /// Where it stands.
    pub place: Place,
    /// Whether signature, recipients and manifest were checked and hold.
    pub verified: bool,
    /// Header and signature, the bytes before the payload, in base64.
    #[serde(with = "base64_bytes")]
    pub prefix: Vec<u8>,
}

/// A snapshot in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLine {
    /// Which tier.
    pub tier: Tier,
    /// School year of its key.
    pub epoch: u32,
    /// Who made it.
    pub author: Incarnation,
    /// Hash of the root's text.
    pub hash: Hash32,
    /// Changes that it adds up.
    pub changes: u64,
    /// Records in all its parts, by the root.
    pub records: u64,
    /// How many parts the root names.
    pub parts: u64,
    /// Where the text of the root is.
    pub root_file: String,
    /// Where the parts are that were found, in order: each one age file.
    pub files: Vec<String>,
    /// Whether all parts are there.
    pub whole: bool,
    /// Whether the author's signature was checked and holds.
    pub verified: bool,
}

/// Where a batch stands in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the unbroken chain from the first batch on.
    Chain,
    /// Another batch of the same place is in the chain.
    Fork,
    /// Something before it is missing.
    BehindAGap,
    /// The board has revoked its device, and does not accept it.
    Quarantined,
}

/// What can be wrong with the data that an export reads, or must be said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Problem {
    /// A site, or an object at it, cannot be read.
    Unreadable {
        /// Which site.
        site: String,
        /// Which object; absent for the whole site.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object: Option<String>,
        /// What the system said.
        text: String,
    },
    /// One site's copy of an object is damaged; another site has it whole.
    DamagedCopy {
        /// Which site.
        site: String,
        /// Which object.
        object: String,
        /// Where the damage begins.
        offset: u64,
    },
    /// No site has the object whole. What could still be read of it was written.
    DamagedObject {
        /// Which object.
        object: String,
    },
    /// Changes of a log are missing, and batches behind them are there.
    Gap {
        /// Which log.
        log: LogName,
        /// First missing sequence.
        first: u64,
        /// Last missing sequence.
        last: u64,
    },
    /// A log is not held up to the head that an outside witness named.
    MissingHead {
        /// Which log.
        log: LogName,
        /// The sequence that was expected.
        expected: u64,
        /// The last sequence of the chain here.
        held: u64,
    },
    /// Two batches claim one place in a log; both were written.
    Fork {
        /// Which log.
        log: LogName,
        /// First sequence of the one that is not in the chain.
        first: u64,
        /// Its last sequence.
        last: u64,
    },
    /// A batch does not verify.
    UnverifiedBatch {
        /// Which log.
        log: LogName,
        /// Its first sequence.
        first: u64,
        /// Its last sequence.
        last: u64,
        /// Why.
        text: String,
    },
    /// A document does not verify under the board's root.
    UnverifiedDocument {
        /// Where its text is.
        file: String,
        /// Why.
        text: String,
    },
    /// A batch is sealed to a key that no wrapped key here opens.
    KeyMissing {
        /// The name of the key.
        key: String,
    },
    /// Batches are sealed to a key that the board has destroyed: they can be read by nobody, as it was meant. Its wrapped
    /// copies at the sites are left out.
    KeyDestroyed {
        /// The name of the key.
        key: String,
    },
    /// Batches of a revoked device, behind what the board accepts. They are written, into a folder of their own, and are
    /// part of no log.
    Quarantined {
        /// Which log.
        log: LogName,
        /// The first sequence among them.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Batches are sealed to a destroyed key, and no whole snapshot under a key that stands holds what still stands of
    /// them: nobody can tell by hand, and no box can be rebuilt to it.
    Uncovered {
        /// The name of the key.
        key: String,
        /// Which log.
        log: LogName,
        /// The first sequence of which that is true.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// A snapshot lacks parts, and none that is whole is as new. What was found of it was written.
    SnapshotNotWhole {
        /// Which tier.
        tier: Tier,
        /// Who made it.
        author: Incarnation,
        /// Changes that it adds up.
        changes: u64,
        /// Numbers of the parts that no site has whole, from 0.
        missing: Vec<u64>,
    },
    /// A record of a kind of a later version, or a batch without meaning: its school cannot be told.
    UnknownRecord {
        /// Which object.
        object: String,
        /// Where its body begins.
        offset: u64,
    },
    /// No root key was given, so nothing was verified.
    NoRoot,
}

impl Problem {
    /// Whether it makes an export incomplete.
    #[must_use]
    pub const fn counts(&self) -> bool {
        !matches!(self, Self::DamagedCopy { .. } | Self::KeyDestroyed { .. } | Self::Quarantined { .. })
    }
}

const _: () = assert!(PREFIX_BYTES == 230, "the page and the specification say so");

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the index keeps its text. Method: one line of each shape that has options.
    #[test]
    fn lines_have_one_text() {
        let problem = Problem::Unreadable { site: "a".into(), object: None, text: "no".into() };
        let line = Line::Problem(problem);
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"what":"problem","kind":"unreadable","site":"a","text":"no"}"#);
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        let end = Line::End { batches: 1, changes: 2, snapshots: 3, problems: 0, complete: true };
        let text = r#"{"what":"end","batches":1,"changes":2,"snapshots":3,"problems":0,"complete":true}"#;
        assert_eq!(serde_json::to_string(&end).unwrap(), text);
        // As it was written before there were snapshots in exports.
        let text = r#"{"what":"end","batches":1,"changes":2,"problems":0,"complete":true}"#;
        let end = Line::End { batches: 1, changes: 2, snapshots: 0, problems: 0, complete: true };
        assert_eq!(serde_json::from_str::<Line>(text).unwrap(), end);
    }
}
