//! Merged objects: the records of many objects in one, which says first of which. Spec:
//! `docs/spec/object.md#merged-objects`.
//!
//! **Invariant**: the name of a merged object is the hash of its first record, which commits to the inputs and to every
//! byte behind it. So whoever merges the same makes the same, and a copy proves by its name that it is whole.

use serde::{Deserialize, Serialize};

use super::{MAGIC, RECORD_OVERHEAD_BYTES, RecordKind, append, append_as, records};
use crate::ids::Hash32;

/// Objects that one may stand for: their names are under half of what a record holds.
pub const MERGED_INPUTS_MAX: usize = 16_384;

/// Characters of an object's name.
const NAME_CHARS_MAX: usize = 100;

const _: () = assert!(MERGED_INPUTS_MAX * 60 < crate::limits::FRAME_BYTES_MAX / 2);

/// What a merged object says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Names of all objects that it stands for, and of all that those stood for; sorted, none twice.
    pub inputs: Vec<String>,
    /// Where the records behind this one were first written: place in `inputs`, and how many records. Which of two
    /// batches for one place in a log was written later is known from this for ever.
    pub sections: Vec<(u32, u32)>,
    /// BLAKE3 of all bytes behind this record.
    pub content: Hash32,
}

impl Inputs {
    /// Reads what an object says first, and the name that this gives it. `None` when it is not a merged object, or says
    /// what cannot be.
    #[must_use]
    pub fn of(object: &[u8]) -> Option<(Self, Hash32)> {
        let head = object.get(..MAGIC.len() + 5)?;
        let length = u32::from_be_bytes(*head.last_chunk::<4>()?);
        let end = usize::try_from(length).ok()?.checked_add(MAGIC.len() + RECORD_OVERHEAD_BYTES)?;
        let (first, _) = records(object.get(..end)?);
        let body = first.first().filter(|record| record.kind == Some(RecordKind::Inputs))?.body;
        let said: Self = serde_json::from_slice(body).ok()?;
        said.is_within_limits().then(|| (said, Hash32(*blake3::hash(body).as_bytes())))
    }

    /// Whether the object is, byte for byte, the one that it says, with as many records as its sections have.
    #[must_use]
    pub fn is_true_of(&self, object: &[u8]) -> bool {
        let (found, damage) = records(object);
        let behind = found.first().and_then(|first| object.get(first.offset + first.body.len() + 8..));
        let listed = self.sections.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
        damage.is_none()
            && behind.is_some_and(|behind| *blake3::hash(behind).as_bytes() == self.content.0)
            && u64::try_from(found.len()).is_ok_and(|count| count == listed + 1)
    }

    fn is_within_limits(&self) -> bool {
        let exists = |place: &u32| usize::try_from(*place).is_ok_and(|place| place < self.inputs.len());
        self.inputs.len() <= MERGED_INPUTS_MAX
            && self.sections.len() <= MERGED_INPUTS_MAX
            && self.inputs.iter().all(|name| name.len() <= NAME_CHARS_MAX)
            && self.inputs.is_sorted_by(|one, next| one < next)
            && self.sections.iter().all(|(place, _)| exists(place))
    }
}

/// Makes a merged object. `sections` is as in [`Inputs`]; `records` are the numbers of their kinds and their bodies, as
/// many as the sections count. Returns the hash that names it, and its bytes.
#[must_use]
pub fn merge<'a>(
    inputs: Vec<String>,
    sections: Vec<(u32, u32)>,
    records: impl IntoIterator<Item = (u8, &'a [u8])>,
) -> (Hash32, Vec<u8>) {
    let mut content = MAGIC.to_vec();
    for (number, body) in records {
        append_as(&mut content, number, body);
    }
    let behind = content.get(MAGIC.len()..).unwrap_or_default();
    let said = Inputs { inputs, sections, content: Hash32(*blake3::hash(behind).as_bytes()) };
    let body = serde_json::to_vec(&said).unwrap_or_default();
    let mut object = Vec::with_capacity(content.len() + body.len() + RECORD_OVERHEAD_BYTES);
    append(&mut object, RecordKind::Inputs, &body);
    object.extend_from_slice(behind);
    (Hash32(*blake3::hash(&body).as_bytes()), object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Hash32, Vec<u8>) {
        let names = vec!["objects/a/1".to_owned(), "objects/a/2".to_owned()];
        merge(names, vec![(0, 1), (1, 2)], [(1, b"one".as_slice()), (99, b"later"), (2, b"")])
    }

    /// Goal: what is merged comes back, unknown kinds too, under a name that commits to it. Method: read it; flip each
    /// byte: no copy that differs is true under the same name.
    #[test]
    fn a_name_stands_for_every_byte() {
        let (name, object) = example();
        assert_eq!(example(), (name, object.clone()));
        let (said, named) = Inputs::of(&object).unwrap();
        assert_eq!((named, said.sections.as_slice()), (name, [(0, 1), (1, 2)].as_slice()));
        assert!(said.is_true_of(&object));
        let kinds: Vec<u8> = records(&object).0.iter().map(|record| record.number).collect();
        assert_eq!(kinds, [7, 1, 99, 2]);
        for position in 0..object.len() {
            let mut other = object.clone();
            other[position] ^= 1;
            let passes =
                Inputs::of(&other).is_some_and(|(said, named)| named == name && said.is_true_of(&other));
            assert!(!passes, "byte {position}");
        }
    }

    /// Goal: what cannot be is not believed. Method: sections that count too much, that name no input; names out of
    /// order, twice, too many.
    #[test]
    fn what_cannot_be_is_not_believed() {
        let name = |number: usize| format!("objects/a/{number:08}");
        let made = |inputs: Vec<String>, sections| merge(inputs, sections, [(1, b"one".as_slice())]).1;
        let good = made(vec![name(1)], vec![(0, 1)]);
        assert!(Inputs::of(&good).is_some_and(|(said, _)| said.is_true_of(&good)));
        let more = made(vec![name(1)], vec![(0, 2)]);
        assert!(!Inputs::of(&more).unwrap().0.is_true_of(&more));
        assert_eq!(Inputs::of(&made(vec![name(1)], vec![(1, 1)])), None);
        assert_eq!(Inputs::of(&made(vec![name(2), name(1)], vec![(0, 1)])), None);
        assert_eq!(Inputs::of(&made(vec![name(1), name(1)], vec![(0, 1)])), None);
        let many: Vec<String> = (0..=MERGED_INPUTS_MAX).map(name).collect();
        assert_eq!(Inputs::of(&made(many, vec![(0, 1)])), None);
        let mut written = Vec::new();
        append(&mut written, RecordKind::Batch, b"one");
        assert_eq!(Inputs::of(&written), None);
    }
}
