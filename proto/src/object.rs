//! Objects of the cloud: many schools' sealed records in one immutable file with a never-reused name. Spec:
//! `docs/spec/object.md`.
//!
//! ```text
//! "SNO1" | record*          record = kind u8 | length u32 | body | first 8 bytes of BLAKE3(kind, length, body)
//! ```

mod merged;

pub use merged::{Inputs, MERGED_INPUTS_MAX, merge};

use crate::bytes::Reader;
use crate::limits::FRAME_BYTES_MAX;

/// First bytes of an object.
pub const MAGIC: [u8; 4] = *b"SNO1";

/// Bytes of a record besides its body.
pub const RECORD_OVERHEAD_BYTES: usize = 1 + 4 + 8;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A sealed batch.
    Batch,
    /// The JSON of an [`crate::identity::IdentityText`].
    Identity,
    /// The JSON of a [`crate::wire::KeyDocuments`].
    Keys,
    /// The text of a [`crate::snapshot::Snapshot`]'s root.
    Snapshot,
    /// A sealed part of a snapshot; only roots say of which.
    SnapshotPart,
    /// The text of a signed [`crate::proof::Proof`].
    Proof,
    /// The JSON of [`Inputs`]: the first record of a merged object.
    Inputs,
}

impl RecordKind {
    /// Returns its number in an object.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Identity => 2,
            Self::Keys => 3,
            Self::Snapshot => 4,
            Self::SnapshotPart => 5,
            Self::Proof => 6,
            Self::Inputs => 7,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Batch),
            2 => Some(Self::Identity),
            3 => Some(Self::Keys),
            4 => Some(Self::Snapshot),
            5 => Some(Self::SnapshotPart),
            6 => Some(Self::Proof),
            7 => Some(Self::Inputs),
            _ => None,
        }
    }
}

/// An object is damaged from `offset` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object is damaged at byte {offset}; read it from another site")]
pub struct ObjectDamage {
    /// Where the first unreadable record begins.
    pub offset: usize,
}

/// Appends a record to an object under construction; an empty one gets its magic first. Returns the offset of
/// the body.
pub fn append(object: &mut Vec<u8>, kind: RecordKind, body: &[u8]) -> usize {
    append_as(object, kind.number(), body)
}

/// Appends a record by the number of its kind, which need not be one that this version knows, as [`append`] does.
pub fn append_as(object: &mut Vec<u8>, number: u8, body: &[u8]) -> usize {
    if object.is_empty() {
        object.extend_from_slice(&MAGIC);
    }
    let start = object.len();
    object.push(number);
    object.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    object.extend_from_slice(body);
    let check = check(object.get(start..).unwrap_or_default());
    object.extend_from_slice(&check);
    start + 5
}

fn check(record: &[u8]) -> [u8; 8] {
    blake3::hash(record).as_bytes().first_chunk::<8>().copied().unwrap_or_default()
}

/// One record of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it holds; `None` for a kind of a later version, which is passed over.
    pub kind: Option<RecordKind>,
    /// The number of its kind.
    pub number: u8,
    /// Offset of the body in the object.
    pub offset: usize,
    /// The body.
    pub body: &'a [u8],
}

/// Reads all records of an object. Stops at the first damage and reports it after the good ones.
#[must_use]
pub fn records(object: &[u8]) -> (Vec<Record<'_>>, Option<ObjectDamage>) {
    let mut reader = Reader::new(object);
    let mut found = Vec::new();
    if reader.array::<4>("magic") != Ok(MAGIC) {
        return (found, Some(ObjectDamage { offset: 0 }));
    }
    while !reader.rest().is_empty() {
        let offset = object.len() - reader.rest().len();
        match record(&mut reader) {
            Some((number, body)) => {
                found.push(Record {
                    kind: RecordKind::from_number(number),
                    number,
                    offset: offset + 5,
                    body,
                });
            }
            None => return (found, Some(ObjectDamage { offset })),
        }
    }
    (found, None)
}

/// Reads the record that begins with these bytes, whatever follows; `None` when there is none that is whole. For readers who
/// look for records behind damage.
#[must_use]
pub fn record_at(bytes: &[u8]) -> Option<Record<'_>> {
    let (number, body) = record(&mut Reader::new(bytes))?;
    Some(Record { kind: RecordKind::from_number(number), number, offset: 5, body })
}

fn record<'a>(reader: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let whole = reader.rest();
    let kind = reader.u8("kind").ok()?;
    let length = usize::try_from(reader.u32("length").ok()?).ok()?;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let body = reader.take(length, "body").ok()?;
    let checked = whole.get(..5 + length)?;
    (reader.array::<8>("check").ok()? == check(checked)).then_some((kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goal: records come back; damage is found where it is. Method: three records, flip each byte.
    #[test]
    fn damage_is_located() {
        let mut object = Vec::new();
        let bodies: [&[u8]; 3] = [b"one", b"", b"three"];
        let offsets = bodies.map(|body| append(&mut object, RecordKind::Batch, body));
        let (found, damage) = records(&object);
        assert_eq!(damage, None);
        assert_eq!(found.iter().map(|record| record.body).collect::<Vec<_>>(), bodies);
        assert_eq!(found.iter().map(|record| record.offset).collect::<Vec<_>>(), offsets);
        for position in 0..object.len() {
            let mut damaged = object.clone();
            damaged[position] ^= 0x10;
            let (found, damage) = records(&damaged);
            let damage = damage.unwrap_or_else(|| panic!("byte {position} unseen"));
            assert!(damage.offset <= position);
            assert!(found.iter().all(|record| record.offset + record.body.len() <= damage.offset));
        }
        let of = |at: usize| record_at(&object[at..]).map(|record| (at + record.offset, record.body));
        let there: Vec<_> = (0..object.len()).filter_map(of).collect();
        assert_eq!(there, offsets.into_iter().zip(bodies).collect::<Vec<_>>(), "looked for at every byte");
    }

    proptest! {
        /// Goal: the decoder cannot panic. Method: arbitrary bytes behind the magic.
        #[test]
        fn any_bytes_decode_or_fail(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut object = MAGIC.to_vec();
            object.extend(tail);
            let _ = records(&object);
        }
    }
}
