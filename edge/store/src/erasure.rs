//! Erasing a pupil: which records are of him or her, the tombstones for them, and how far the erasure of what lies here
//! and elsewhere has come.
//!
//! **Invariant**: who was erased stands nowhere, in no log and no answer: tombstones are keyed hashes.
//! Left out: what is kept by law and until when, which the command decides; destroying keys, which is the board's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sonae_proto::collection::{self, NOT_OF_PUPILS, PUPILS};
use sonae_proto::destruction::Destroyed;
use sonae_proto::erasure::{Place, tombstone, tombstones};
use sonae_proto::ids::Tier;
use sonae_proto::manifest::{Epoch, KeyUse, Manifest, school_year};
use sonae_proto::signed::unverified;
use sonae_proto::snapshot::Record;
use utoipa::ToSchema;

use crate::edit::{Action, Edit, Kept};
use crate::snapshot::Made;
use crate::state::KeyUses;
use crate::store::{Store, WriteError};
use crate::view_db::ViewError;

/// Collections that say what staff did. They are kept, and name pupils by id alone.
const KEPT_COLLECTIONS: [&str; 2] = ["audit", "event_audit"];

/// A record that is of a pupil.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OfPupil {
    /// Its tier.
    pub tier: Tier,
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub record: String,
    /// Whether it stays: it says what staff did.
    pub stays: bool,
}

/// What an erasure waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// Plain text still lies in free parts of journal and view on this box; they are overwritten when it is idle.
    Scrub,
    /// What was written is still sealed to keys from before the erasure: the board has to rotate them.
    Rotation,
    /// Batches or snapshots that are sealed to those keys lie here: until a newer snapshot stands for them.
    Pruning,
    /// The board has to order those keys to be destroyed.
    Order,
}

/// The erasures in one tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErasureStatus {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: Tier,
    /// Tombstones that stand.
    pub tombstones: usize,
    /// When the newest was written, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// The newest key to which something of what was erased may be sealed: this epoch and all before it.
    pub epoch: u32,
    /// What is waited for before nothing of it can be read anywhere; absent when the erasure is complete.
    pub waits_for: Option<WaitsFor>,
}

/// A key of a tier, and what here needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyStatus {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: Tier,
    /// Its epoch.
    pub epoch: u32,
    /// What is held here that is sealed to it.
    pub uses: KeyUses,
    /// Whether the tier is sealed to it now.
    pub seals: bool,
    /// Whether the board has ordered it to be destroyed.
    pub destroyed: bool,
    /// Whether it is destroyed and still held, because something here needs it.
    pub destroyed_pending: bool,
}

impl KeyStatus {
    /// Whether nothing here needs the key.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.seals && !self.destroyed_pending && self.uses == KeyUses::default()
    }
}

impl Store {
    /// Returns each key of a tier that there is or was, and what here is sealed to it.
    #[must_use]
    pub fn key_uses(&self) -> Vec<KeyStatus> {
        let (state, now_ms) = (self.state(), self.clock().now_ms());
        let Some(manifest) = self.manifest() else { return Vec::new() };
        let named = manifest.keys.iter().map(|key| (key.key_use, key.epoch));
        let gone = manifest.destroyed.iter().map(|key| (key.key_use, key.epoch));
        let names: BTreeSet<(KeyUse, u32)> = named.chain(gone).collect();
        let status = |(key_use, epoch): (KeyUse, u32)| {
            let KeyUse::Tier(tier) = key_use else { return None };
            let sealing = manifest.sealing_key(tier, school_year(now_ms));
            Some(KeyStatus {
                tier,
                epoch,
                uses: state.key_uses.get(&(tier, epoch)).copied().unwrap_or_default(),
                seals: sealing.is_some_and(|key| key.epoch == epoch),
                destroyed: manifest.is_destroyed(key_use, epoch),
                destroyed_pending: state.held_keys.contains(&(key_use, epoch)),
            })
        };
        names.into_iter().filter_map(status).collect()
    }

    /// Whether a tier has something that is sealed to a key of before the present one, and no snapshot that is sealed to
    /// the present one: then a snapshot is due however little was written, so that older keys come to be needed by
    /// nobody.
    #[must_use]
    pub fn is_sealed_to_older_keys(&self, tier: Tier) -> bool {
        let epoch = self.sealing_epoch(tier, self.clock().now_ms());
        let is_older =
            |((of, other), _): (&(Tier, u32), &KeyUses)| *of == tier && order(*other) < order(epoch);
        let made = Made::read(self.shelf(), tier).and_then(|made| self.shelf().root(made.root));
        made.is_none_or(|root| order(root.epoch) < order(epoch)) && self.state().key_uses.iter().any(is_older)
    }

    /// Finds the records of a pupil: those whose ids name him or her, and those that name the pupil in a field.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn of_pupil(&self, pupil: &str) -> Result<BTreeSet<OfPupil>, ViewError> {
        let mut found = BTreeSet::new();
        for tier in Tier::ALL {
            self.each_record(tier, |record| {
                if place_of(&record, pupil).is_some() {
                    let stays = KEPT_COLLECTIONS.contains(&record.collection.as_str());
                    let Record { collection, record, .. } = record;
                    found.insert(OfPupil { tier, collection, record, stays });
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Which of these ids of a collection were erased. For a thread that may wait.
    ///
    /// # Errors
    /// [`WriteError::Failed`] when the store is gone; [`WriteError::Refused`] when the view cannot be read.
    pub fn erased_blocking(
        &self,
        collection: &str,
        records: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, WriteError> {
        let key = self.digest_key()?;
        let Some(tier) = collection::find(collection).map(|known| known.tier) else {
            return Ok(BTreeSet::new());
        };
        let stones: BTreeSet<String> = self.tombstones(tier)?.into_iter().map(|(id, _, _)| id).collect();
        let is_erased = |record: &&String| {
            (0..)
                .map_while(|number| Some((Place::Part(number), Place::Part(number).of(record)?)))
                .chain([(Place::Whole, record.as_str())])
                .any(|(place, text)| stones.contains(&tombstone(&key, collection, place, text)))
        };
        Ok(records.iter().filter(is_erased).cloned().collect())
    }

    /// Writes the tombstones of a pupil, for all collections about pupils and all records that were found, and an entry
    /// of the audit that does not say who it was. For a thread that may wait. Twice does nothing more.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written then.
    ///
    /// # Durability
    /// The pupil is gone from this box's view, and that it stays so is on stable storage, when this returns.
    pub fn erase_blocking(&self, pupil: &str, who: Option<String>) -> Result<Kept, WriteError> {
        let refused = |error: ViewError| WriteError::Refused { reason: error.to_string() };
        let key = self.digest_key()?;
        let mut meant: BTreeSet<(Tier, String, Place, String)> = BTreeSet::new();
        for (name, part) in PUPILS {
            let Some(known) = collection::find(name) else { continue };
            meant.insert((known.tier, (*name).to_owned(), Place::Part(*part), pupil.to_owned()));
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for tier in Tier::ALL {
            self.each_record(tier, |record| {
                let Some(place) = place_of(&record, pupil) else { return Ok(()) };
                if !KEPT_COLLECTIONS.contains(&record.collection.as_str()) {
                    let text = place.of(&record.record).unwrap_or_default().to_owned();
                    *counts.entry(record.collection.clone()).or_default() += 1;
                    meant.insert((tier, record.collection, place, text));
                }
                Ok(())
            })
            .map_err(refused)?;
        }
        let now_ms = self.clock().now_ms();
        let mut edits = Vec::new();
        for (tier, collection, place, text) in meant {
            let record = tombstone(&key, &collection, place, &text);
            if self.record(tier, tombstones(tier), &record).map_err(refused)?.is_none() {
                let epoch = self.sealing_epoch(tier, now_ms);
                let fields = [("at", Value::from(now_ms)), ("epoch", Value::from(epoch))];
                edits.push(edit(tombstones(tier), record, fields));
            }
        }
        if !edits.is_empty() {
            let what = serde_json::to_value(counts).unwrap_or_default();
            let fields = [("action", "erase".into()), ("records", what)];
            edits.push(edit("audit", uuid::Uuid::new_v4().to_string(), fields));
        }
        self.write_blocking(Action { who, source: None, edits })
    }

    /// Returns how far the erasures of each tier have come.
    #[must_use]
    pub fn erasures(&self) -> Vec<ErasureStatus> {
        let (state, now_ms) = (self.state(), self.clock().now_ms());
        let manifest = self.manifest();
        let of = |tier| {
            let stones = self.tombstones(tier).unwrap_or_default();
            let since_ms = stones.iter().map(|(_, at_ms, _)| *at_ms).max()?;
            // Who had not heard of it may have gone on sealing the pupil to newer keys.
            let epochs =
                stones.iter().map(|(_, _, epoch)| *epoch).chain(state.erased_under.get(&tier).copied());
            let epoch = epochs.max_by_key(|epoch| order(*epoch))?;
            let is_old = |other: u32| order(other) <= order(epoch);
            let is_held = |uses: &KeyUses| uses.batches + uses.snapshots > 0;
            let mut held = state.key_uses.iter().filter(|((of, other), _)| *of == tier && is_old(*other));
            let named = manifest.as_ref().is_none_or(|manifest| {
                manifest.keys.iter().any(|key| key.key_use == KeyUse::Tier(tier) && is_old(key.epoch))
            });
            let waits_for = if state.scrub_due {
                Some(WaitsFor::Scrub)
            } else if is_old(self.sealing_epoch(tier, now_ms)) {
                Some(WaitsFor::Rotation)
            } else if held.any(|(_, uses)| is_held(uses)) {
                Some(WaitsFor::Pruning)
            } else {
                named.then_some(WaitsFor::Order)
            };
            Some(ErasureStatus { tier, tombstones: stones.len(), since_ms, epoch, waits_for })
        };
        Tier::ALL.into_iter().filter_map(of).collect()
    }

    /// Returns id, time and epoch of the tombstones of a tier.
    fn tombstones(&self, tier: Tier) -> Result<Vec<(String, u64, u32)>, WriteError> {
        let refused = |error: ViewError| WriteError::Refused { reason: error.to_string() };
        let stones = self.records(tier, tombstones(tier), "").map_err(refused)?;
        let read = |(id, state): (String, sonae_proto::record::RecordState)| {
            let number = |field| state.value(field).and_then(Value::as_u64).unwrap_or(0);
            (id, number("at"), u32::try_from(number("epoch")).unwrap_or(0))
        };
        Ok(stones.into_iter().map(read).collect())
    }

    /// Returns the keys that the board has ordered to be destroyed.
    #[must_use]
    pub fn destroyed(&self) -> Destroyed {
        self.manifest().map_or_else(Destroyed::default, |manifest| Destroyed::of(&manifest))
    }

    fn manifest(&self) -> Option<Manifest> {
        unverified(&self.documents().manifest)
    }

    fn sealing_epoch(&self, tier: Tier, now_ms: u64) -> u32 {
        let manifest = self.manifest();
        manifest
            .and_then(|manifest| Some(manifest.sealing_key(tier, school_year(now_ms))?.epoch))
            .unwrap_or(0)
    }
}

/// Orders epochs by when keys of them seal: a rotation is later than all years before it.
pub(crate) fn order(epoch: u32) -> (u32, u32) {
    let Epoch { year, rotation } = Epoch::of(epoch);
    (rotation, year)
}

fn edit<const N: usize>(collection: &str, record: String, fields: [(&str, Value); N]) -> Edit {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Edit { collection: collection.to_owned(), record, fields, seen: None }
}

/// Says where a record names a pupil: in its id, or, when only a field says so, as a whole.
fn place_of(record: &Record, pupil: &str) -> Option<Place> {
    if Tier::ALL.iter().any(|tier| record.collection == tombstones(*tier)) {
        return None;
    }
    if NOT_OF_PUPILS.contains(&record.collection.as_str()) {
        return None;
    }
    if let Some((_, part)) = PUPILS.iter().find(|(name, _)| *name == record.collection) {
        return (Place::Part(*part).of(&record.record) == Some(pupil)).then_some(Place::Part(*part));
    }
    let mut values = record.state.fields.values().flat_map(|field| &field.heads).map(|head| &head.value);
    let is_named = record.record.split('/').any(|part| part == pupil)
        || values.any(|value| value.as_str() == Some(pupil));
    is_named.then_some(Place::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::record::RecordState;

    /// Goal: an id that a class and a pupil share erases the pupil alone. Method: records of both with the same id.
    #[test]
    fn what_is_not_of_a_pupil_stays() {
        let of = |collection: &str, record: &str| {
            let (collection, record) = (collection.to_owned(), record.to_owned());
            place_of(&Record { collection, record, state: RecordState::default() }, "1001")
        };
        assert_eq!(of("student", "1001"), Some(Place::Part(0)));
        assert_eq!(of("enrollment", "1-1/1001"), Some(Place::Part(1)));
        assert_eq!(of("class_group", "1001"), None);
        assert_eq!(of("code_list", "1001"), None);
        assert_eq!(of("observation", "1001"), Some(Place::Whole));
    }
}
