//! What is said of other replicas on the same LAN: who is there, and what each has.
//!
//! **Invariant**: nothing of it enters *kept* or *safe*: a copy next door goes with the building (P2).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use sonae_proto::ids::{ReplicaId, Tier};
use utoipa::ToSchema;

/// What neighbours are known. Shared: their task writes, everybody reads.
#[derive(Debug, Clone, Default)]
pub struct Neighbours(Arc<RwLock<Vec<NeighbourStatus>>>);

/// One replica on the same LAN.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct NeighbourStatus {
    /// Its device, once it has been met.
    #[schema(value_type = Option<String>)]
    pub replica: Option<ReplicaId>,
    /// Where it is dialled, or where it came from.
    pub address: String,
    /// Whether it is there now.
    pub connected: bool,
    /// When something last came from it, milliseconds since 1970 UTC, by the clock as it was then.
    pub last_contact_ms: Option<u64>,
    /// How long ago that was, in milliseconds, whatever the clock has done since.
    pub last_contact_age_ms: Option<u64>,
    /// The steady time of it.
    #[serde(skip)]
    pub last_contact_steady_ms: Option<u64>,
    /// Changes that it holds and this replica lacks.
    pub lacking_here: u64,
    /// Changes of sealed batches that this replica holds and it lacks.
    pub lacking_there: u64,
    /// For each tier the last own change that it holds too. That makes nothing safe.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub holds_own: BTreeMap<Tier, u64>,
    /// What went wrong with it last.
    pub last_error: Option<String>,
}

impl Neighbours {
    /// Returns a copy with the ages of this moment.
    #[must_use]
    pub fn get(&self, steady_ms: u64) -> Vec<NeighbourStatus> {
        let mut neighbours = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        for neighbour in &mut neighbours {
            let age = |at: u64| steady_ms.saturating_sub(at);
            neighbour.last_contact_age_ms = neighbour.last_contact_steady_ms.map(age);
        }
        neighbours
    }

    /// Changes what is known.
    pub fn update(&self, change: impl FnOnce(&mut Vec<NeighbourStatus>)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
