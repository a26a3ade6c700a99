//! Evidence: what lies outside the tiers, that is receipts, the loss counter, identities. The sync engine
//! starts from it.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::BatchHeader;
use sonae_proto::destruction::Destroyed;
use sonae_proto::identity::Identity;
use sonae_proto::ids::{Incarnation, LogName};
use sonae_proto::revocation::Revocations;
use sonae_proto::uplink::Shown;
use sonae_proto::vector::Heads;

use crate::frame::SafeHead;

/// What a sync engine starts from.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Receipted heads of own logs.
    pub safe: BTreeMap<LogName, SafeHead>,
    /// The loss counter.
    pub loss_counter: u64,
    /// What the cloud has said last of own logs.
    pub shown: Option<Shown>,
    /// Incarnations whose logs this replica writes or wrote.
    pub own: BTreeSet<Incarnation>,
    /// Up to where own batches were pruned.
    pub pruned: Heads,
    /// Headers of all held own batches, in order.
    pub own_batches: Vec<BatchHeader>,
    /// Heads of peers' logs that are held.
    pub peers: Heads,
    /// Peers' identities.
    pub identities: Vec<Identity>,
    /// Version of the manifest that is held.
    pub manifest_version: u64,
    /// What it says of revoked devices.
    pub revocations: Revocations,
    /// What it says of destroyed keys.
    pub destroyed: Destroyed,
}

impl Evidence {
    /// Returns the receipted heads without their times.
    #[must_use]
    pub fn receipted(&self) -> Heads {
        self.safe.iter().map(|(log, safe)| (*log, safe.head)).collect()
    }
}
