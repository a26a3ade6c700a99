//! The view: sled as of the last checkpoint, and an overlay of what has changed since.
//!
//! **Invariant**: readers see only what is on stable storage. The keeper stages changes in [`Staged`] and
//! publishes them after their commit.
//! **Invariant**: a record without a field is none. The overlay holds one where sled still has a record that was erased.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_proto::snapshot::Record;
use sonae_proto::view::Records;

use crate::data_dir::sync_dir;
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
            return Ok(Some(state.clone()).filter(stands));
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
        Ok(found.into_iter().filter(|(_, state)| stands(state)).collect())
    }

    /// Hands on all records of a tier, in no particular order.
    pub(crate) fn each(
        &self,
        tier: Tier,
        mut take: impl FnMut(Record) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        self.each_stored(tier, |key, bytes| {
            let (key, record) = RecordKey::named(key, &bytes)?;
            if self.overlay.contains_key(&key) { Ok(()) } else { take(record) }
        })?;
        let prefix = [tier.number()];
        let fresh = self.overlay.iter().filter(|(key, state)| key.0.starts_with(&prefix) && stands(state));
        for (key, state) in fresh {
            let (collection, record) = RecordKey::split(&key.0).ok_or(ViewError::Record)?;
            take(Record { collection, record, state: state.clone() })?;
        }
        Ok(())
    }

    /// Hands on the keys of all records of a tier, those too that were erased since the last checkpoint.
    fn each_key(
        &self,
        tier: Tier,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        self.each_stored(tier, |key, _| take(&key))?;
        let prefix = [tier.number()];
        let mut fresh = self.overlay.keys().filter(|key| key.0.starts_with(&prefix));
        fresh.try_for_each(|key| take(&key.0))
    }

    /// Hands on what the disk has of a tier, page by page.
    fn each_stored(
        &self,
        tier: Tier,
        mut take: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let (prefix, mut after) = ([tier.number()], vec![tier.number()]);
        while let Some(db) = self.db.get() {
            let page = db.scan_after(&prefix, &after, PAGE_RECORDS)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            page.into_iter().try_for_each(|(key, bytes)| take(key, bytes))?;
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
            let bytes = stands(state).then(|| serde_json::to_vec(state)).transpose();
            encoded.push((key.0.as_slice(), bytes.map_err(|_| ViewError::Record)?));
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
        let encoded = encoded.iter().map(|(key, bytes)| (key.as_slice(), Some(bytes.clone())));
        self.on_disk("written")?.write(id, encoded)
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

    /// Makes a copy of what lies on disk beside it, after a checkpoint. Readers go on meanwhile. Returns whether there
    /// is one.
    pub(crate) fn copy(&self) -> Result<bool, ViewError> {
        let Some(db) = self.db.get() else { return Ok(false) };
        db.copy_to(&beside(&self.path)).map(|()| true)
    }

    /// Puts the copy in the place of what lies on disk, whose files go. When this fails, there is nothing to read any
    /// more until the store is opened again.
    pub(crate) fn exchange(&mut self) -> Result<(), ViewError> {
        let broken = |doing| ViewError::Broken { path: self.path.clone(), doing };
        // Closed before its files go.
        drop(self.db.take());
        ViewDb::delete(&self.path)?;
        let exchanged = std::fs::rename(beside(&self.path), &self.path);
        let named = exchanged.and_then(|()| sync_dir(self.path.parent().unwrap_or(Path::new("."))));
        named.map_err(|source| ViewError::Io { path: self.path.clone(), doing: "exchanged", source })?;
        let db = ViewDb::open(&self.path).map_err(|_| broken("opened"))?;
        self.db = OnceLock::from(db);
        Ok(())
    }

    /// Forgets the overlay, after a checkpoint.
    pub(crate) fn clear_overlay(&mut self) {
        self.overlay.clear();
    }
}

/// Where a copy of a view is made.
pub(crate) fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Whether a record is there.
fn stands(state: &RecordState) -> bool {
    !state.fields.is_empty()
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

    fn take(
        &mut self,
        tier: Tier,
        is_meant: &mut dyn FnMut(&str, &str) -> bool,
    ) -> Result<Vec<Record>, ViewError> {
        let mut meant = BTreeSet::new();
        let mut look = |key: &[u8]| {
            let (collection, record) = RecordKey::split(key).ok_or(ViewError::Record)?;
            if is_meant(&collection, &record) {
                meant.insert((collection, record));
            }
            Ok(())
        };
        let of_tier = |key: &&RecordKey| key.0.first() == Some(&tier.number());
        self.records.keys().filter(of_tier).try_for_each(|key| look(&key.0))?;
        self.view.each_key(tier, &mut look)?;
        let mut taken = Vec::new();
        for (collection, record) in meant {
            let state = self.get(tier, &collection, &record)?;
            self.put(tier, &collection, &record, RecordState::default())?;
            if stands(&state) {
                taken.push(Record { collection, record, state });
            }
        }
        Ok(taken)
    }
}
