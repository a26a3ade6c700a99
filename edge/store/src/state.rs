//! What the store says of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sonae_proto::digest::Digest;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::manifest::KeyUse;
use sonae_proto::vector::{Heads, Sequences};

use crate::room::RoomState;

/// What the store says of itself. Kept and safe are never mixed (P2).
#[derive(Debug, Clone, Default, Serialize)]
pub struct StoreState {
    /// For each tier the last own change that is on stable storage here.
    pub kept: BTreeMap<Tier, Point>,
    /// For each tier the last own change with a receipt.
    pub safe: BTreeMap<Tier, Point>,
    /// Heads of own logs with a receipt, and of peers' logs that are held, whoever brought them: what a rebuild must find.
    #[serde(skip)]
    pub safe_heads: Heads,
    /// Own changes without a receipt, by tier.
    pub unsafe_by_tier: BTreeMap<Tier, u64>,
    /// Bytes of own sealed batches, by tier: what a snapshot of it saves grows with them.
    #[serde(skip)]
    pub own_bytes: BTreeMap<Tier, u64>,
    /// Roots of the snapshots that tiers begin with.
    #[serde(skip)]
    pub foundations: BTreeMap<Tier, Hash32>,
    /// What is held of each tier, by the epoch of the key that it is sealed to.
    #[serde(skip)]
    pub key_uses: BTreeMap<(Tier, u32), KeyUses>,
    /// Destroyed keys that are still held, because something here is sealed to them.
    #[serde(skip)]
    pub held_keys: BTreeSet<(KeyUse, u32)>,
    /// Whether what was erased still lies in plain text in parts of journal or view that nobody reads.
    #[serde(skip)]
    pub scrub_due: bool,
    /// For each tier the latest epoch under which something of erased records may be sealed, besides what tombstones say.
    #[serde(skip)]
    pub erased_under: BTreeMap<Tier, u32>,
    /// Up to where logs are not held as batches, because those snapshots stand for them.
    #[serde(skip)]
    pub pruned: Heads,
    /// The steady time at which the oldest of them was kept, by tier.
    #[serde(skip)]
    pub oldest_unsafe: BTreeMap<Tier, u64>,
    /// How the room on the disk stood after the last round.
    #[serde(skip)]
    pub room: RoomState,
    /// Sequences of all logs that the view adds up.
    pub vector: Sequences,
    /// State digests.
    pub digests: BTreeMap<Tier, Digest>,
    /// Records in which writers did not see each other.
    pub disputed: u64,
    /// Journal commits and device flushes since the start.
    pub commits: u64,
    /// Device flushes that those commits and marks took.
    pub flushes: u64,
    /// Bytes of journal and sealed batches.
    pub storage_bytes: u64,
    /// The loss counter: how often the cloud was found to have lost something.
    pub loss_counter: u64,
    /// Changes replayed at the last start.
    pub replayed: u64,
    /// Whether the view had to be rebuilt at the last start.
    pub view_rebuilt: bool,
    /// Since when the board lets nobody write here, milliseconds since 1970 UTC by the board's clock.
    pub held_ms: Option<u64>,
    /// Why nothing more is kept, when the store has failed.
    pub failed: Option<String>,
}

/// What is held that is sealed to one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct KeyUses {
    /// Batches, own and peers'.
    pub batches: u64,
    /// Own batches without a receipt.
    pub without_receipt: u64,
    /// Snapshots, the one that a tier begins with among them.
    pub snapshots: u64,
}

/// A point of an own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Point {
    /// Sequence of the change.
    pub sequence: u64,
    /// When it was kept, or for safe when the receipt came, milliseconds since 1970 UTC.
    pub at_ms: u64,
}
