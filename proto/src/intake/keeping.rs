//! What of the stored records a node still needs, and where records lie after objects were merged. Who merges asks for
//! the first and tells the second.
//!
//! **Invariant**: what is not known for certain to be superseded is kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::destruction::Destroyed;
use crate::ids::{Hash32, SchoolCode, Tier};
use crate::snapshot::Snapshot;

use super::{Intake, Location, School, StoredBatch};

/// What is kept of snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Hashes of roots that are served, on their way, or named by evidence that stands.
    roots: BTreeSet<Hash32>,
    /// Hashes of their parts.
    parts: BTreeSet<Hash32>,
    /// Of each tier of which enough newer ones are whole, the changes of the oldest of those.
    newer: BTreeMap<(SchoolCode, Tier), u64>,
    /// Keys that the boards have ordered to be destroyed.
    pub destroyed: BTreeMap<SchoolCode, Destroyed>,
}

impl Keeping {
    /// Whether enough newer snapshots stand in for this root. One that cannot be read is kept.
    #[must_use]
    pub fn is_superseded_root(&self, text: &[u8]) -> bool {
        let root = std::str::from_utf8(text).ok().and_then(Snapshot::peek);
        let newer = root.as_ref().and_then(|root| self.newer.get(&(root.school, root.tier)));
        let is_older = root.as_ref().zip(newer).is_some_and(|(root, newer)| root.changes() < *newer);
        is_older && !self.roots.contains(&hash(text))
    }

    /// Whether no snapshot that is kept names this part. It says nothing unless all sites were read whole.
    #[must_use]
    pub fn is_unnamed_part(&self, sealed: &[u8]) -> bool {
        !self.parts.contains(&hash(sealed))
    }
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}

impl School {
    /// Roots that evidence names which is the last word of its incarnation, or its last success.
    pub(super) fn proven_roots(&self) -> BTreeSet<Hash32> {
        let standing = self.proofs.values().flat_map(|proofs| [Some(&proofs.last), proofs.proved.as_ref()]);
        standing.flatten().flat_map(|proof| proof.body().snapshots.values().copied()).collect()
    }
}

impl Intake {
    /// Returns what is kept of the snapshots of all schools.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        let mut keeping = Keeping::default();
        for (code, school) in &self.schools {
            let (roots, parts) = school.snapshots.needed();
            keeping.roots.extend(roots);
            keeping.parts.extend(parts);
            let newer = Tier::ALL.into_iter().filter_map(|tier| {
                Some(((*code, tier), school.snapshots.oldest_served(tier, self.config.quorum)?))
            });
            keeping.newer.extend(newer);
            if school.destroyed != Destroyed::default() {
                keeping.destroyed.insert(*code, school.destroyed.clone());
            }
        }
        keeping
    }

    /// Learns where batches lie now that objects were merged. Those that it does not know are passed over.
    pub fn relocate_batches(&mut self, moved: Vec<StoredBatch>) {
        for batch in moved {
            let Some(school) = self.schools.get_mut(&batch.header.school) else { continue };
            let in_log = school.logs.get_mut(&batch.header.log).is_some_and(|log| log.relocate(&batch));
            if !in_log {
                school.quarantine.relocate(batch);
            }
        }
    }

    /// Learns where parts of snapshots lie now.
    pub fn relocate_parts(&mut self, moved: &[(Hash32, Location)]) {
        for school in self.schools.values_mut() {
            for (hash, location) in moved {
                school.snapshots.relocate(*hash, location);
            }
        }
    }
}
