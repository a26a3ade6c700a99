//! What the journal's frames mean. Owns their bytes; the journal itself does not know. Spec:
//! `docs/spec/journal.md#frames-of-a-replica`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sonae_journal::FrameKind;
use sonae_proto::bytes::Reader;
use sonae_proto::clock::Stamp;
use sonae_proto::digest::Digest;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Hash32, Incarnation, LogName, Tier};
use sonae_proto::uplink::Shown;
use sonae_proto::vector::{Heads, LogHead, Sequences};
use sonae_proto::wire::KeyDocuments;

use crate::store::StoreError;

/// An own change: incarnation 16 bytes, tier u8, sequence u64, kept at u64, the line.
pub(crate) const CHANGE: FrameKind = FrameKind(1);
/// A sealed own batch: its bytes.
pub(crate) const SEALED: FrameKind = FrameKind(2);
/// A peer's batch: its bytes.
pub(crate) const PEER: FrameKind = FrameKind(3);
/// A receipt: JSON of [`ReceiptFrame`].
pub(crate) const RECEIPT: FrameKind = FrameKind(4);
/// A raised loss counter: JSON of [`LossFrame`].
pub(crate) const LOSS: FrameKind = FrameKind(5);
/// A checkpoint of the view with all evidence: JSON of [`Checkpoint`].
pub(crate) const CHECKPOINT: FrameKind = FrameKind(6);
/// A peer's identity: JSON of [`StoredIdentity`].
pub(crate) const IDENTITY: FrameKind = FrameKind(7);
/// Newer key documents: JSON of [`KeyDocuments`].
pub(crate) const DOCUMENTS: FrameKind = FrameKind(8);

/// A tier begins with a snapshot that lies on the shelf: JSON of [`FoundationFrame`].
pub(crate) const FOUNDATION: FrameKind = FrameKind(9);

/// What the cloud has said of own logs: JSON of [`Shown`].
pub(crate) const SHOWN: FrameKind = FrameKind(10);

/// Kinds from here on say nothing that a version which does not know them needs: it passes them over. One below was
/// written by a later version that needs it.
pub(crate) const NOT_NEEDED_FROM: FrameKind = FrameKind(128);

/// A change frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangeFrame<'a> {
    pub log: LogName,
    pub sequence: u64,
    pub kept_ms: u64,
    pub line: &'a [u8],
}

impl<'a> ChangeFrame<'a> {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(33 + self.line.len());
        bytes.extend_from_slice(self.log.incarnation.bytes());
        bytes.push(self.log.tier.number());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.kept_ms.to_be_bytes());
        bytes.extend_from_slice(self.line);
        bytes
    }

    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        let unreadable = || StoreError::Frame { kind: "change" };
        let incarnation = Incarnation::from_bytes(reader.array("incarnation").map_err(|_| unreadable())?);
        let tier = reader.u8("tier").ok().and_then(Tier::from_number).ok_or_else(unreadable)?;
        let sequence = reader.u64("sequence").map_err(|_| unreadable())?;
        let kept_ms = reader.u64("kept at").map_err(|_| unreadable())?;
        Ok(Self { log: LogName { tier, incarnation }, sequence, kept_ms, line: reader.rest() })
    }
}

/// A receipted head and when its receipt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeHead {
    /// Up to where the log is safe.
    #[serde(flatten)]
    pub head: LogHead,
    /// When the receipt came, milliseconds since 1970 UTC.
    pub at_ms: u64,
}

/// A receipt frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReceiptFrame {
    pub log: LogName,
    pub safe: SafeHead,
    #[serde(with = "sonae_proto::manifest::base64_bytes")]
    pub receipt: Vec<u8>,
}

/// A loss frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LossFrame {
    pub loss_counter: u64,
    pub receipted: Heads,
}

/// A foundation frame.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct FoundationFrame {
    pub tier: Tier,
    pub root: Hash32,
}

/// A peer's identity.
pub type StoredIdentity = IdentityText;

/// What recovery starts from: the view as sled holds it, and all evidence up to here, so that no frame before
/// it is needed for either.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Random; the same stands in sled when the view was written whole.
    pub id: String,
    pub sequences: Sequences,
    pub digests: BTreeMap<Tier, Digest>,
    pub highest_stamp: Stamp,
    pub disputed: u64,
    pub safe: BTreeMap<LogName, SafeHead>,
    pub loss_counter: u64,
    pub identities: Vec<StoredIdentity>,
    pub own: Vec<Incarnation>,
    pub documents: KeyDocuments,
    /// For each own tier when its last change was kept.
    pub kept_ms: BTreeMap<Tier, u64>,
    #[serde(default)]
    pub shown: Option<Shown>,
    /// For each tier that began with a snapshot the hash of its root.
    #[serde(default)]
    pub foundations: BTreeMap<Tier, Hash32>,
}

pub(crate) fn to_json<T: Serialize>(kind: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|_| StoreError::Frame { kind })
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(
    kind: &'static str,
    bytes: &'a [u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Frame { kind })
}
