//! What `sonae-edge digest` prints: the state digest of each tier with the vector that it belongs to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sonae_proto::digest::{Digest, MERGE_VERSION};
use sonae_proto::ids::Tier;
use sonae_proto::vector::{Heads, Sequences};
use sonae_store::status::StatusSource;

/// Digests at a vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestReport {
    /// Version of the merge rules.
    pub merge_version: u32,
    /// Digest of each tier.
    pub digests: BTreeMap<Tier, Digest>,
    /// What they add up: the last sequence of every log.
    pub version_vector: Sequences,
    /// Heads of own logs that have a receipt, and of peers' logs: give them to `rebuild --expect`.
    pub heads: Heads,
    /// Tiers that a rebuild is still filling: their digests are of what is here so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Tier>,
}

/// Composes the report of this moment.
#[must_use]
pub fn report(source: &StatusSource) -> DigestReport {
    let state = source.store.state();
    DigestReport {
        merge_version: MERGE_VERSION,
        digests: state.digests,
        version_vector: state.vector,
        heads: state.safe_heads,
        waiting: source.store.filling().waiting(),
    }
}
