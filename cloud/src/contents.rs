//! The records of an object with where each was first written, whether the object was written or merged.
//!
//! **Invariant**: a merged object that is not, byte for byte, what its name stands for counts as damaged, and nothing
//! that it says of other objects is believed.

use sonae_proto::ids::Hash32;
use sonae_proto::object::{Inputs, ObjectDamage, Record, RecordKind, records};

use crate::object_name::{ObjectName, StoredName};

/// Where a record was first written. The order is that in which records became durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The object.
    pub object: ObjectName,
    /// Which record of it, without those that were left out since.
    pub ordinal: usize,
}

/// Older than anything that was written: for records of a damaged merged object.
const UNKNOWN: ObjectName = ObjectName::FIRST;

/// What an object holds.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Its records, without what a merged object says of itself.
    pub records: Vec<(Position, Record<'a>)>,
    /// What a merged object stands for; none for any other.
    pub inputs: Vec<StoredName>,
    /// Where it is damaged.
    pub damage: Option<ObjectDamage>,
}

/// Reads an object of a name.
#[must_use]
pub fn read(name: StoredName, object: &[u8]) -> Contents<'_> {
    let (found, damage) = records(object);
    let own = found.into_iter().filter(|record| record.kind != Some(RecordKind::Inputs));
    let hash = match name {
        StoredName::Written(object) => {
            let place = |(ordinal, record)| (Position { object, ordinal }, record);
            return Contents { records: own.enumerate().map(place).collect(), inputs: Vec::new(), damage };
        }
        StoredName::Merged(hash) => hash,
    };
    let said = Inputs::of(object).filter(|(said, named)| *named == hash && said.is_true_of(object));
    let parsed =
        |said: &Inputs| said.inputs.iter().map(|name| StoredName::parse(name)).collect::<Option<Vec<_>>>();
    let Some((said, inputs)) = said.and_then(|(said, _)| parsed(&said).map(|inputs| (said, inputs))) else {
        let place = |(ordinal, record)| (Position { object: UNKNOWN, ordinal }, record);
        let damage = damage.or(Some(ObjectDamage { offset: object.len() }));
        return Contents { records: own.enumerate().map(place).collect(), inputs: Vec::new(), damage };
    };
    Contents { records: positions(&said, &inputs).zip(own).collect(), inputs, damage }
}

fn positions<'a>(said: &'a Inputs, inputs: &'a [StoredName]) -> impl Iterator<Item = Position> + 'a {
    said.sections.iter().flat_map(|(place, count)| {
        let input = usize::try_from(*place).ok().and_then(|place| inputs.get(place));
        let object = input.and_then(StoredName::written).unwrap_or(UNKNOWN);
        (0..usize::try_from(*count).unwrap_or(usize::MAX)).map(move |ordinal| Position { object, ordinal })
    })
}

/// Names a record by its kind and its bytes.
#[must_use]
pub fn key(record: &Record<'_>) -> Hash32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[record.number]).update(record.body);
    Hash32(*hasher.finalize().as_bytes())
}
