//! Makes one object of many, in memory, and says whether one holds what another does.
//!
//! **Invariant**: records are copied byte for byte, those of later versions too, out of objects that are whole.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sonae_proto::batch::Batch;
use sonae_proto::ids::Hash32;
use sonae_proto::intake::{Intake, Location, StoredBatch};
use sonae_proto::object::{self, RecordKind};

use super::fate::{Fate, Judge};
use crate::contents::{Contents, Position, key, read};
use crate::object_name::StoredName;

/// Makes a merged object. `None` if an input is not whole. Returns its name, its bytes, and how many records were left
/// out.
#[must_use]
pub fn merge(inputs: &[(StoredName, Bytes)], judge: &Judge) -> Option<(StoredName, Bytes, usize)> {
    let mut names = BTreeSet::new();
    // Of equal records the last stands: it says how long a batch was the newest of its place.
    let mut records: BTreeMap<Hash32, (Position, u8, &[u8])> = BTreeMap::new();
    let mut replaced = Vec::new();
    let mut left_out = 0;
    for (name, bytes) in inputs {
        let contents = read(*name, bytes);
        if contents.damage.is_some() {
            return None;
        }
        names.extend(contents.inputs.iter().chain([name]).map(ToString::to_string));
        for (position, record) in contents.records {
            match judge.fate(&record) {
                Fate::Keep => {
                    let known = records.entry(key(&record)).or_insert((position, record.number, record.body));
                    known.0 = known.0.max(position);
                }
                Fate::Drop => left_out += 1,
                Fate::Replace(body) => replaced.push((position, record.number, body)),
            }
        }
    }
    let own = replaced.iter().map(|(position, number, body)| (*position, *number, body.as_slice()));
    let mut records: Vec<_> = records.into_values().chain(own).collect();
    records.sort_unstable();
    records.dedup_by_key(|(_, number, body)| (*number, *body));
    let names: Vec<String> = names.into_iter().collect();
    let sections = sections(&names, &records)?;
    let bodies = records.into_iter().map(|(_, number, body)| (number, body));
    let (hash, object) = object::merge(names, sections, bodies);
    let (name, object) = (StoredName::Merged(hash), Bytes::from(object));
    // What no reader would take, because it is over a limit, must not come to lie at a site.
    read(name, &object).damage.is_none().then_some((name, object, left_out))
}

fn sections(names: &[String], records: &[(Position, u8, &[u8])]) -> Option<Vec<(u32, u32)>> {
    let mut sections: Vec<(u32, u32)> = Vec::new();
    for of_object in records.chunk_by(|one, next| one.0.object == next.0.object) {
        let name = of_object.first().map(|(position, ..)| position.object.to_string())?;
        let place = names.binary_search(&name).ok()?;
        sections.push((u32::try_from(place).ok()?, u32::try_from(of_object.len()).ok()?));
    }
    Some(sections)
}

/// The records of a merged object, to compare others with.
#[derive(Debug)]
pub struct Held(BTreeSet<Hash32>);

impl Held {
    /// Takes the records of an object.
    #[must_use]
    pub fn of(contents: &Contents<'_>) -> Self {
        Self(contents.records.iter().map(|(_, record)| key(record)).collect())
    }

    /// Whether everything of another object that is to be kept is here.
    #[must_use]
    pub fn holds(&self, other: &Contents<'_>, judge: &Judge) -> bool {
        other.records.iter().all(|(_, record)| {
            self.0.contains(&key(record))
                || match judge.fate(record) {
                    Fate::Keep => false,
                    Fate::Drop => true,
                    Fate::Replace(body) => self.0.contains(&key(&object::Record { body: &body, ..*record })),
                }
        })
    }
}

/// Where the records of an object lie that an engine reads back.
#[derive(Debug, Default)]
pub struct Places {
    /// Batches.
    pub batches: Vec<StoredBatch>,
    /// Parts of snapshots.
    pub parts: Vec<(Hash32, Location)>,
}

impl Places {
    /// Tells an engine.
    pub fn tell(self, intake: &mut Intake) {
        intake.relocate_batches(self.batches);
        intake.relocate_parts(&self.parts);
    }
}

/// Says where the records of an object lie.
#[must_use]
pub fn places(name: StoredName, contents: &Contents<'_>) -> Places {
    let mut places = Places::default();
    for (_, record) in &contents.records {
        let location = Location {
            object: name.to_string(),
            offset: u64::try_from(record.offset).unwrap_or(u64::MAX),
            bytes: u64::try_from(record.body.len()).unwrap_or(u64::MAX),
        };
        match record.kind {
            Some(RecordKind::Batch) => {
                if let Ok(batch) = Batch::from_bytes(record.body.to_vec()) {
                    places.batches.push(StoredBatch { header: *batch.header(), location });
                }
            }
            Some(RecordKind::SnapshotPart) => {
                places.parts.push((Hash32(*blake3::hash(record.body).as_bytes()), location));
            }
            _ => {}
        }
    }
    places
}
