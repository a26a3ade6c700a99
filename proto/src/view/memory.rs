//! Records in memory.

use std::collections::BTreeMap;

use super::Records;
use crate::ids::Tier;
use crate::record::RecordState;
use crate::snapshot::Record;

/// Records in memory, for tests, auditors and tools.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryRecords {
    /// All records by tier, collection and id.
    pub records: BTreeMap<(Tier, String, String), RecordState>,
}

impl Records for MemoryRecords {
    type Error = std::convert::Infallible;

    fn get(&self, tier: Tier, collection: &str, record: &str) -> Result<RecordState, Self::Error> {
        let key = (tier, collection.to_owned(), record.to_owned());
        Ok(self.records.get(&key).cloned().unwrap_or_default())
    }

    fn put(
        &mut self,
        tier: Tier,
        collection: &str,
        record: &str,
        state: RecordState,
    ) -> Result<(), Self::Error> {
        self.records.insert((tier, collection.to_owned(), record.to_owned()), state);
        Ok(())
    }

    fn take(
        &mut self,
        tier: Tier,
        is_meant: &mut dyn FnMut(&str, &str) -> bool,
    ) -> Result<Vec<Record>, Self::Error> {
        let mut meant =
            |(of, collection, record): &&(Tier, String, String)| *of == tier && is_meant(collection, record);
        let keys: Vec<_> = self.records.keys().filter(&mut meant).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| {
            let state = self.records.remove(&key)?;
            Some(Record { collection: key.1, record: key.2, state })
        });
        Ok(taken.collect())
    }
}
