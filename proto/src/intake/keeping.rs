//! What of the stored records a node still needs, and where records lie after objects were merged. Who merges asks for
//! the first and tells the second.
//!
//! **Invariant**: what is not known for certain to be superseded is kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::destruction::Destroyed;
use crate::ids::{Hash32, SchoolCode};
use crate::object::RecordKind;

use super::{Intake, Location, Pending, School, StoredBatch};

/// What of snapshots may go, and which keys must.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Hashes of roots that were whole here and that newer ones have replaced.
    roots: BTreeSet<Hash32>,
    /// Hashes of parts that only such roots name.
    parts: BTreeSet<Hash32>,
    /// Keys that the boards have ordered to be destroyed.
    pub destroyed: BTreeMap<SchoolCode, Destroyed>,
    /// Whether key documents are being written to the sites at this moment.
    pub keys_under_way: bool,
}

impl Keeping {
    /// Whether newer snapshots stand in for this root. One that is not known is kept.
    #[must_use]
    pub fn is_superseded_root(&self, text: &[u8]) -> bool {
        self.roots.contains(&hash(text))
    }

    /// Whether this part was of superseded snapshots only. One that is not known is kept: another node may have taken its
    /// root, or a later version written it.
    #[must_use]
    pub fn is_superseded_part(&self, sealed: &[u8]) -> bool {
        self.parts.contains(&hash(sealed))
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
        let is_keys = |pending: &Pending| matches!(pending, Pending::Document { kind: RecordKind::Keys, .. });
        let keys_under_way = self.pending.values().any(is_keys);
        let mut keeping = Keeping { keys_under_way, ..Keeping::default() };
        for (code, school) in &self.schools {
            let (roots, parts) = school.snapshots.superseded(&school.proven_roots());
            keeping.roots.extend(roots);
            keeping.parts.extend(parts);
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
