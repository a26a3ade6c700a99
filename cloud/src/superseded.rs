//! Which objects merged ones stand for, and whether they do.
//!
//! **Invariant**: a merged object's word alone supersedes nothing. Its records are compared with those of the other, and
//! every batch, identity and record of a later version, and key documents with the same manifest, must be among them.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::ids::Hash32;
use sonae_proto::object::{Record, RecordKind};
use sonae_proto::wire::KeyDocuments;

use crate::contents::{Contents, key};
use crate::object_name::StoredName;

/// The records of merged objects, for as long as something that they stand for lies at a site.
#[derive(Debug, Default)]
pub struct Superseded {
    listed: BTreeSet<StoredName>,
    /// Which merged objects, by their place in `records`, say that they stand for an object.
    claims: BTreeMap<StoredName, Vec<usize>>,
    records: Vec<BTreeSet<Hash32>>,
}

/// Names a record for the comparison. Key documents are known by their manifest: an order of the board may have taken
/// wrapped keys out of them, and those must not come back with an old object.
fn known_by(record: &Record<'_>) -> Hash32 {
    let documents = (record.kind == Some(RecordKind::Keys))
        .then(|| serde_json::from_slice::<KeyDocuments>(record.body).ok())
        .flatten();
    match documents {
        Some(documents) => Hash32(*blake3::hash(documents.manifest.as_bytes()).as_bytes()),
        None => key(record),
    }
}

/// Whether a merged object may leave a record out: snapshots that newer ones stand in for. Who deletes asks closer.
const fn may_be_left_out(record: &Record<'_>) -> bool {
    matches!(record.kind, Some(RecordKind::Snapshot | RecordKind::SnapshotPart | RecordKind::Inputs))
}

impl Superseded {
    /// Notes what lies at the sites.
    pub fn note_listed(&mut self, names: impl IntoIterator<Item = StoredName>) {
        self.listed.extend(names);
    }

    /// Learns what a merged object holds and stands for.
    pub fn learn(&mut self, object: &Contents<'_>) {
        let there: Vec<_> = object.inputs.iter().filter(|input| self.listed.contains(input)).collect();
        if there.is_empty() {
            return;
        }
        for input in there {
            self.claims.entry(*input).or_default().push(self.records.len());
        }
        self.records.push(object.records.iter().map(|(_, record)| known_by(record)).collect());
    }

    /// Whether some merged object says that it stands for this one.
    #[must_use]
    pub fn is_claimed(&self, name: &StoredName) -> bool {
        self.claims.contains_key(name)
    }

    /// Whether some merged object stands for this one, and has its records.
    #[must_use]
    pub fn holds(&self, name: &StoredName, object: &Contents<'_>) -> bool {
        let claims = self.claims.get(name).into_iter().flatten();
        claims.filter_map(|place| self.records.get(*place)).any(|held| {
            let mut needed = object.records.iter().filter(|(_, record)| !may_be_left_out(record));
            needed.all(|(_, record)| held.contains(&known_by(record)))
        })
    }
}
