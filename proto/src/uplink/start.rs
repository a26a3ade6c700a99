//! What the engine of a replica is told when it starts: all that is kept durably between two lives of a process.

use std::collections::BTreeSet;

use ed25519_dalek::VerifyingKey;

use super::Shown;
use crate::batch::BatchHeader;
use crate::descriptor::CloudDescriptor;
use crate::destruction::Destroyed;
use crate::identity::Identity;
use crate::ids::{Incarnation, SchoolCode};
use crate::revocation::Revocations;
use crate::vector::Heads;

/// What an engine starts from.
#[derive(Debug)]
pub struct Start {
    /// Whose data.
    pub school: SchoolCode,
    /// The board's root key.
    pub board: VerifyingKey,
    /// The cloud.
    pub cloud: CloudDescriptor,
    /// Any number; spreads dials of many boxes.
    pub jitter: u64,
    /// The kept loss counter.
    pub loss_counter: u64,
    /// Version of the manifest held.
    pub manifest_version: u64,
    /// Receipted heads of own logs.
    pub receipted: Heads,
    /// What the cloud has said last of own logs.
    pub shown: Option<Shown>,
    /// Up to where batches of own logs were pruned.
    pub pruned: Heads,
    /// Headers of all held batches of own logs, in order.
    pub own_batches: Vec<BatchHeader>,
    /// Incarnations of this replica, whose logs it sends.
    pub own: BTreeSet<Incarnation>,
    /// Heads of peers' logs that are held.
    pub peers: Heads,
    /// Peers' identities.
    pub identities: Vec<Identity>,
    /// Whether tiers of which nothing is held may come as snapshots. Not where each log is to be proven whole.
    pub snapshots: bool,
    /// What the manifest held says of revoked devices.
    pub revocations: Revocations,
    /// What it says of destroyed keys.
    pub destroyed: Destroyed,
}
