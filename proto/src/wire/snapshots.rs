//! Bodies of the frames of snapshots. Spec: `docs/spec/snapshot.md#on-the-wire`.

use serde::{Deserialize, Serialize};

use crate::bytes::{Reader, Short};
use crate::ids::{Hash32, Tier};

/// A whole snapshot that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOffer {
    /// Of which tier.
    pub tier: Tier,
    /// Hash of its root.
    pub root: Hash32,
    /// Bytes of its parts.
    pub bytes: u64,
    /// Changes that it adds up.
    pub changes: u64,
}

/// One sealed part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Hash of the root that names it.
    pub root: Hash32,
    /// Its place among the parts, from 0.
    pub number: u32,
    /// The part.
    pub sealed: Vec<u8>,
}

impl SnapshotPart {
    const PREFIX_BYTES: usize = 32 + 4;

    pub(super) fn to_body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::PREFIX_BYTES + self.sealed.len());
        body.extend_from_slice(&self.root.0);
        body.extend_from_slice(&self.number.to_be_bytes());
        body.extend_from_slice(&self.sealed);
        body
    }

    pub(super) fn from_body(body: &[u8]) -> Result<Self, Short> {
        let mut reader = Reader::new(body);
        let (root, number) = (Hash32(reader.array("root")?), reader.u32("number")?);
        Ok(Self { root, number, sealed: reader.rest().to_vec() })
    }
}

/// Parts that a node lacks of a snapshot that was offered to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotWants {
    /// Hash of the root.
    pub root: Hash32,
    /// Their places, ascending.
    pub parts: Vec<u32>,
}

/// Names a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotName {
    /// By the hash of its root.
    Root(Hash32),
    /// The newest whole one of a tier.
    Tier(Tier),
}

/// Asks for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSnapshot {
    /// Which.
    #[serde(flatten)]
    pub name: SnapshotName,
    /// Places of parts that are not to be sent, because the asker holds them.
    pub has: Vec<u32>,
}
