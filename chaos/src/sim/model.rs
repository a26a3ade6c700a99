//! An independent model of the merge: of all writes of a field that were applied, those stand that no other names
//! as its base. No order, no clocks, no digests.
//!
//! **Invariant** that it checks: the view shows exactly these, whatever came first; a change counts once.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::change::Change;
use sonae_proto::ids::{ChangeId, LogName, Tier};
use sonae_proto::view::{MemoryRecords, Records as _};

#[derive(Debug, Clone, Default)]
struct Writes {
    written: BTreeSet<ChangeId>,
    replaced: BTreeSet<ChangeId>,
}

impl Writes {
    /// The changes whose values stand.
    fn standing(&self) -> Vec<ChangeId> {
        self.written.difference(&self.replaced).copied().collect()
    }
}

/// What one tier of a view should show.
#[derive(Debug, Clone, Default)]
pub(crate) struct TierModel {
    /// By collection, record and field.
    fields: BTreeMap<[String; 3], Writes>,
    /// The sum of hashes of all applied lines with their places: equal for equal contents, in any order.
    contents: u128,
}

/// What one view should show.
#[derive(Debug, Default)]
pub(crate) struct Model {
    tiers: BTreeMap<Tier, TierModel>,
}

impl Model {
    /// Takes a line that a view says it has applied or passed over.
    pub fn pass(&mut self, log: LogName, sequence: u64, line: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(log.to_string().as_bytes());
        hasher.update(&sequence.to_be_bytes());
        hasher.update(line);
        let hash = hasher.finalize().as_bytes().first_chunk::<16>().copied().unwrap_or_default();
        let contents = &mut self.tiers.entry(log.tier).or_default().contents;
        *contents = contents.wrapping_add(u128::from_be_bytes(hash));
    }

    /// Whether a change has been applied, under whatever name.
    pub fn has(&self, tier: Tier, id: ChangeId) -> bool {
        let fields = self.tiers.get(&tier).map(|of_tier| &of_tier.fields);
        fields.into_iter().flat_map(BTreeMap::values).any(|writes| writes.written.contains(&id))
    }

    /// Names the contents of a tier.
    pub fn contents(&self, tier: Tier) -> u128 {
        self.tiers.get(&tier).map_or(0, |of_tier| of_tier.contents)
    }

    /// What a tier should show.
    pub fn of_tier(&self, tier: Tier) -> TierModel {
        self.tiers.get(&tier).cloned().unwrap_or_default()
    }

    /// A tier of a view begins with a state that somebody else knew, and must show that.
    pub fn begin(&mut self, tier: Tier, with: &TierModel, records: &MemoryRecords) -> Result<(), String> {
        for ([collection, record, field], writes) in &with.fields {
            compare(records, tier, [collection, record, field], writes)?;
        }
        self.tiers.insert(tier, with.clone());
        Ok(())
    }

    /// Takes a change that a view says it has applied, and compares.
    pub fn apply(
        &mut self,
        log: LogName,
        id: ChangeId,
        change: &Change,
        records: &MemoryRecords,
    ) -> Result<(), String> {
        let of_tier = self.tiers.entry(log.tier).or_default();
        for (name, write) in &change.fields {
            let place = [change.collection.clone(), change.record.clone(), name.clone()];
            let writes = of_tier.fields.entry(place).or_default();
            if !writes.written.insert(id) {
                return Err(format!("change {id} was applied twice"));
            }
            writes.replaced.extend(&write.bases);
            compare(records, log.tier, [&change.collection, &change.record, name], writes)?;
        }
        Ok(())
    }
}

fn compare(
    records: &MemoryRecords,
    tier: Tier,
    [collection, record, field]: [&String; 3],
    writes: &Writes,
) -> Result<(), String> {
    let Ok(state) = records.get(tier, collection, record);
    let mut shown = state.fields.get(field).map(|field| field.bases()).unwrap_or_default();
    shown.sort_unstable();
    let expected = writes.standing();
    if shown == expected {
        return Ok(());
    }
    Err(format!("field {field} of {record} shows {shown:?} instead of {expected:?}"))
}
