//! The view: sled as of the last checkpoint, and an overlay of what has changed since.
//!
//! **Invariant**: readers see only what is on stable storage. The keeper stages changes in [`Staged`] and
//! publishes them after their commit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_proto::snapshot::Record;
use sonae_proto::view::Records;

use crate::view_db::{ViewDb, ViewError};

/// Records that are read at a time.
const PAGE_RECORDS: usize = 500;

/// Key of a record: tier, collection, 0x00, id. Orders a collection's records by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey(Vec<u8>);

impl RecordKey {
    /// Makes the key, or with an empty or partial id the prefix of several.
    #[must_use]
    pub fn new(tier: Tier, collection: &str, record: &str) -> Self {
        let mut bytes = Vec::with_capacity(2 + collection.len() + record.len());
        bytes.push(tier.number());
        bytes.extend_from_slice(collection.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(record.as_bytes());
        Self(bytes)
    }

    fn named(key: Vec<u8>, bytes: &[u8]) -> Result<(Self, Record), ViewError> {
        let (collection, record) = Self::split(&key).ok_or(ViewError::Record)?;
        Ok((Self(key), Record { collection, record, state: decode(bytes)? }))
    }

    /// Returns collection and id.
    fn split(bytes: &[u8]) -> Option<(String, String)> {
        let separator = bytes.iter().skip(1).position(|byte| *byte == 0)? + 1;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Some((text(bytes.get(1..separator)?)?, text(bytes.get(separator + 1..)?)?))
    }

    fn record(bytes: &[u8]) -> Option<String> {
        Self::split(bytes).map(|(_, record)| record)
    }
}

/// The view of one replica.
#[derive(Debug)]
pub struct View {
    /// Not there where the disk has no room for it: then the overlay holds everything, until a checkpoint can be made.
    db: OnceLock<ViewDb>,
    path: PathBuf,
    overlay: BTreeMap<RecordKey, RecordState>,
}

impl View {
    /// Starts with an empty overlay over what sled holds in a directory. Without it everything stays in memory.
    #[must_use]
    pub fn new(db: Option<ViewDb>, path: &Path) -> Self {
        let db = db.map_or_else(OnceLock::new, OnceLock::from);
        Self { db, path: path.to_owned(), overlay: BTreeMap::new() }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn get(&self, tier: Tier, collection: &str, record: &str) -> Result<Option<RecordState>, ViewError> {
        let key = RecordKey::new(tier, collection, record);
        if let Some(state) = self.overlay.get(&key) {
            return Ok(Some(state.clone()));
        }
        let Some(db) = self.db.get() else { return Ok(None) };
        db.get(&key.0)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Reads all records of a collection whose id begins with `prefix`, in order of their ids.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn scan(
        &self,
        tier: Tier,
        collection: &str,
        prefix: &str,
    ) -> Result<Vec<(String, RecordState)>, ViewError> {
        let prefix = RecordKey::new(tier, collection, prefix);
        let mut found = BTreeMap::new();
        for (key, bytes) in self.db.get().map_or(Ok(Vec::new()), |db| db.scan(&prefix.0))? {
            let id = RecordKey::record(&key).ok_or(ViewError::Record)?;
            found.insert(id, decode(&bytes)?);
        }
        let fresh = self.overlay.range(prefix.clone()..).take_while(|(key, _)| key.0.starts_with(&prefix.0));
        for (key, state) in fresh {
            let id = RecordKey::record(&key.0).ok_or(ViewError::Record)?;
            found.insert(id, state.clone());
        }
        Ok(found.into_iter().collect())
    }

    /// Hands on all records of a tier, in no particular order.
    pub(crate) fn each(
        &self,
        tier: Tier,
        mut take: impl FnMut(Record) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let (prefix, mut after) = ([tier.number()], vec![tier.number()]);
        while let Some(db) = self.db.get() {
            let page = db.scan_after(&prefix, &after, PAGE_RECORDS)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            for (key, bytes) in page {
                let (key, record) = RecordKey::named(key, &bytes)?;
                if !self.overlay.contains_key(&key) {
                    take(record)?;
                }
            }
        }
        for (key, state) in self.overlay.iter().filter(|(key, _)| key.0.starts_with(&prefix)) {
            let (collection, record) = RecordKey::split(&key.0).ok_or(ViewError::Record)?;
            take(Record { collection, record, state: state.clone() })?;
        }
        Ok(())
    }

    /// Returns how many records the overlay holds.
    #[must_use]
    pub fn overlay_records(&self) -> usize {
        self.overlay.len()
    }

    /// Shows staged records to readers.
    pub(crate) fn publish(&mut self, staged: BTreeMap<RecordKey, RecordState>) {
        self.overlay.extend(staged);
    }

    /// Writes the overlay to sled. Readers go on meanwhile.
    pub(crate) fn write_overlay(&self, checkpoint: &str) -> Result<(), ViewError> {
        let mut encoded = Vec::with_capacity(self.overlay.len());
        for (key, state) in &self.overlay {
            encoded.push((key.0.as_slice(), serde_json::to_vec(state).map_err(|_| ViewError::Record)?));
        }
        if let Some(db) = self.db.get() {
            return db.write(checkpoint, encoded.into_iter());
        }
        // What an attempt without room has left is not to be trusted, and nobody reads a new one before it is whole.
        ViewDb::delete(&self.path)?;
        let db = ViewDb::open(&self.path)?;
        db.write(checkpoint, encoded.into_iter())?;
        self.db.get_or_init(|| db);
        Ok(())
    }

    /// Writes records to sled past the overlay, which must be empty. `id` is that of no journalled checkpoint.
    pub(crate) fn write_records(
        &self,
        id: &str,
        records: Vec<(RecordKey, RecordState)>,
    ) -> Result<(), ViewError> {
        let mut encoded = Vec::with_capacity(records.len());
        for (key, state) in records {
            encoded.push((key.0, serde_json::to_vec(&state).map_err(|_| ViewError::Record)?));
        }
        self.on_disk("written")?.write(id, encoded.iter().map(|(key, bytes)| (key.as_slice(), bytes.clone())))
    }

    /// Reads records of a tier as sled holds them, at most `limit` behind a key, in key order.
    pub(crate) fn page(
        &self,
        tier: Tier,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, ViewError> {
        let first = [tier.number()];
        let after = after.map_or(first.as_slice(), |key| key.0.as_slice());
        let entries = self.on_disk("read")?.scan_after(&first, after, limit)?;
        entries.into_iter().map(|(key, bytes)| RecordKey::named(key, &bytes)).collect()
    }

    /// Returns what lies on disk, which is there after every checkpoint.
    fn on_disk(&self, doing: &'static str) -> Result<&ViewDb, ViewError> {
        self.db.get().ok_or_else(|| ViewError::Broken { path: self.path.clone(), doing })
    }

    /// Forgets the overlay, after a checkpoint.
    pub(crate) fn clear_overlay(&mut self) {
        self.overlay.clear();
    }
}

fn decode(bytes: &[u8]) -> Result<RecordState, ViewError> {
    serde_json::from_slice(bytes).map_err(|_| ViewError::Record)
}

/// Records as the writer sees them: its own uncommitted ones before the published ones.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    view: &'a View,
    pub records: BTreeMap<RecordKey, RecordState>,
    /// How the number of disputed records has moved.
    pub disputed: i64,
}

impl<'a> Staged<'a> {
    pub fn over(view: &'a View) -> Self {
        Self { view, records: BTreeMap::new(), disputed: 0 }
    }
}

impl Records for Staged<'_> {
    type Error = ViewError;

    fn get(&self, tier: Tier, collection: &str, record: &str) -> Result<RecordState, ViewError> {
        match self.records.get(&RecordKey::new(tier, collection, record)) {
            Some(state) => Ok(state.clone()),
            None => Ok(self.view.get(tier, collection, record)?.unwrap_or_default()),
        }
    }

    fn put(
        &mut self,
        tier: Tier,
        collection: &str,
        record: &str,
        state: RecordState,
    ) -> Result<(), ViewError> {
        let before = self.get(tier, collection, record)?.disputed().next().is_some();
        let after = state.disputed().next().is_some();
        self.disputed += i64::from(after) - i64::from(before);
        self.records.insert(RecordKey::new(tier, collection, record), state);
        Ok(())
    }
}
