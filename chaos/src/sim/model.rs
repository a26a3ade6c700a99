//! An independent model of the merge: of all writes of a field that were applied, those stand that no other names
//! as its base. No order, no clocks, no digests.
//!
//! **Invariant** that it checks: the view shows exactly these, whatever came first; a change counts once.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::change::Change;
use sonae_proto::ids::{ChangeId, LogName, Tier};
use sonae_proto::view::{MemoryRecords, Records as _};

#[derive(Debug, Default)]
struct Writes {
    written: BTreeSet<ChangeId>,
    replaced: BTreeSet<ChangeId>,
}

/// What one view should show.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By tier, collection, record and field.
    fields: BTreeMap<(Tier, [String; 3]), Writes>,
    /// The sum of hashes of all applied lines with their places: equal for equal contents, in any order.
    contents: u128,
}

impl Model {
    /// Takes a line that a view says it has applied or passed over.
    pub fn pass(&mut self, log: LogName, sequence: u64, line: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(log.to_string().as_bytes());
        hasher.update(&sequence.to_be_bytes());
        hasher.update(line);
        let hash = hasher.finalize().as_bytes().first_chunk::<16>().copied().unwrap_or_default();
        self.contents = self.contents.wrapping_add(u128::from_be_bytes(hash));
    }

    /// Whether a change has been applied, under whatever name.
    pub fn has(&self, tier: Tier, id: ChangeId) -> bool {
        self.fields.iter().any(|((at, _), writes)| *at == tier && writes.written.contains(&id))
    }

    /// Names the contents of a view.
    pub const fn contents(&self) -> u128 {
        self.contents
    }

    /// Takes a change that a view says it has applied, and compares.
    pub fn apply(
        &mut self,
        log: LogName,
        id: ChangeId,
        change: &Change,
        records: &MemoryRecords,
    ) -> Result<(), String> {
        let Ok(state) = records.get(log.tier, &change.collection, &change.record);
        for (name, write) in &change.fields {
            let place = [change.collection.clone(), change.record.clone(), name.clone()];
            let writes = self.fields.entry((log.tier, place)).or_default();
            if !writes.written.insert(id) {
                return Err(format!("change {id} was applied twice"));
            }
            writes.replaced.extend(&write.bases);
            let expected: Vec<ChangeId> = writes.written.difference(&writes.replaced).copied().collect();
            let mut shown = state.fields.get(name).map(|field| field.bases()).unwrap_or_default();
            shown.sort_unstable();
            if shown != expected {
                return Err(format!(
                    "field {name} of {} shows {shown:?} instead of {expected:?}",
                    change.record
                ));
            }
        }
        Ok(())
    }
}
