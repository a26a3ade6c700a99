//! An independent model of the merge: of all writes of a field that were applied, those stand that no other names
//! as its base. No order, no clocks, no digests.
//!
//! **Invariant** that it checks: the view shows exactly these, whatever came first; a change counts once. Of a record that
//! a tombstone names it shows nothing.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::change::Change;
use sonae_proto::erasure::tombstones;
use sonae_proto::ids::{ChangeId, LogName, Tier};
use sonae_proto::view::{MemoryRecords, Records as _};

/// The field in which a tombstone of the simulation names collection and record in clear.
pub(crate) const ERASED_FIELD: &str = "of";

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
    /// Collections and records that tombstones name.
    erased: BTreeSet<[String; 2]>,
    /// Changes of them that came later.
    without_effect: BTreeSet<ChangeId>,
}

impl TierModel {
    fn is_erased(&self, [collection, record, _]: &[String; 3]) -> bool {
        !self.erased.is_empty() && self.erased.contains(&[collection.clone(), record.clone()])
    }

    /// What should stand of a field.
    fn standing(&self, place: &[String; 3]) -> Vec<ChangeId> {
        let writes = self.fields.get(place).filter(|_| !self.is_erased(place));
        writes.map(Writes::standing).unwrap_or_default()
    }

    fn check_erased(&self, tier: Tier, records: &MemoryRecords) -> Result<(), String> {
        let stands = |[collection, record]: &&[String; 2]| {
            records.records.contains_key(&(tier, collection.clone(), record.clone()))
        };
        match self.erased.iter().find(stands) {
            Some([_, record]) => Err(format!("{record} was erased and stands in the view")),
            None => Ok(()),
        }
    }
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
        let is_without_effect = self.tiers.get(&tier).is_some_and(|of| of.without_effect.contains(&id));
        is_without_effect
            || fields.into_iter().flat_map(BTreeMap::values).any(|writes| writes.written.contains(&id))
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
        for place in with.fields.keys() {
            compare(records, tier, place, &with.standing(place))?;
        }
        with.check_erased(tier, records)?;
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
            let writes = of_tier.fields.entry(place.clone()).or_default();
            if !writes.written.insert(id) {
                return Err(format!("change {id} was applied twice"));
            }
            writes.replaced.extend(&write.bases);
            compare(records, log.tier, &place, &of_tier.standing(&place))?;
        }
        let named = change.fields.get(ERASED_FIELD).filter(|_| change.collection == tombstones(log.tier));
        if let Some(named) = named.and_then(|write| serde_json::from_value(write.value.clone()).ok()) {
            of_tier.erased.insert(named);
            of_tier.check_erased(log.tier, records)?;
        }
        Ok(())
    }

    /// Takes a change of which a view says that it has no effect, because its record was erased.
    pub fn pass_erased(&mut self, log: LogName, id: ChangeId, change: &Change) -> Result<(), String> {
        let of_tier = self.tiers.entry(log.tier).or_default();
        of_tier.without_effect.insert(id);
        if of_tier.is_erased(&[change.collection.clone(), change.record.clone(), String::new()]) {
            return Ok(());
        }
        Err(format!("change {id} has no effect, and nobody has erased {}", change.record))
    }

    /// Whether a tombstone for a record was applied.
    pub fn is_erased(&self, tier: Tier, collection: &str, record: &str) -> bool {
        let of_tier = self.tiers.get(&tier).filter(|of_tier| !of_tier.erased.is_empty());
        of_tier.is_some_and(|of_tier| of_tier.is_erased(&[collection.into(), record.into(), String::new()]))
    }

    /// Looks whether anything of what was erased stands.
    pub fn check_erased(&self, records: &MemoryRecords) -> Result<(), String> {
        self.tiers.iter().try_for_each(|(tier, of_tier)| of_tier.check_erased(*tier, records))
    }
}

fn compare(
    records: &MemoryRecords,
    tier: Tier,
    [collection, record, field]: &[String; 3],
    expected: &[ChangeId],
) -> Result<(), String> {
    let Ok(state) = records.get(tier, collection, record);
    let mut shown = state.fields.get(field).map(|field| field.bases()).unwrap_or_default();
    shown.sort_unstable();
    if shown == expected {
        return Ok(());
    }
    Err(format!("field {field} of {record} shows {shown:?} instead of {expected:?}"))
}
