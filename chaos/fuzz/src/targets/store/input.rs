//! What an input of the store's target holds, written again from `docs/spec/journal.md#frames-of-a-replica` and
//! `docs/spec/batch.md` without the product's code: frames of the journal, files of the archive, and which values they
//! speak of.

use std::collections::BTreeMap;

use serde_json::Value;
use sonae_proto::ids::Tier;
use sonae_proto::seal::{OpenKey, open_lines};

use crate::json;

/// Tags from here on are no frame: the archive's file of the writer's log of tier 0, 1 or 2.
pub const ARCHIVE: u8 = 250;

/// Bytes of a batch before its payload, and where fields lie in them.
pub const PREFIX_BYTES: usize = 230;
const FIRST_AT: usize = 46;
const LAST_AT: usize = 54;
const LENGTH_AT: usize = 130;
const HASH_AT: usize = 134;

/// Bytes of a change frame before its line.
pub const CHANGE_PREFIX_BYTES: usize = 33;

/// A frame or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub tag: u8,
    pub bytes: Vec<u8>,
}

impl Item {
    /// The tier of a file of the archive.
    pub fn archived(&self) -> Option<Tier> {
        Tier::from_number(self.tag.checked_sub(ARCHIVE)?)
    }
}

/// Reads `tag | length u32 | bytes`, again and again; the last may be cut.
pub fn items(mut body: &[u8]) -> Vec<Item> {
    let mut found = Vec::new();
    while let Some((tag, rest)) = body.split_first() {
        let length = rest.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
        let rest = rest.get(4..).unwrap_or_default();
        let end = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        let (bytes, after) = rest.split_at(end);
        found.push(Item { tag: *tag, bytes: bytes.to_vec() });
        body = after;
    }
    found
}

/// Writes them.
pub fn body_of(items: &[Item]) -> Vec<u8> {
    let mut body = Vec::new();
    for item in items {
        body.push(item.tag);
        body.extend(u32::try_from(item.bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(&item.bytes);
    }
    body
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    let field = bytes.get(at..at + width).unwrap_or_default();
    field.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Cuts batches that lie end to end by their lengths alone.
pub fn batches(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while bytes.len() >= PREFIX_BYTES {
        let payload = usize::try_from(number(bytes, LENGTH_AT, 4)).unwrap_or(usize::MAX);
        let Some((batch, rest)) = bytes.split_at_checked(PREFIX_BYTES.saturating_add(payload)) else { break };
        found.push(batch);
        bytes = rest;
    }
    found
}

/// Whether some payload in the archive of a tier is not the one that its header names.
pub fn is_rotten(items: &[Item], tier: Tier) -> bool {
    let files = items.iter().filter(|item| item.archived() == Some(tier));
    files.flat_map(|item| batches(&item.bytes)).any(|batch| !is_whole(batch))
}

/// Whether the payload is the one that its header names.
fn is_whole(batch: &[u8]) -> bool {
    let payload = batch.get(PREFIX_BYTES..).unwrap_or_default();
    batch.get(HASH_AT..HASH_AT + 32) == Some(blake3::hash(payload).as_bytes())
}

/// Makes every archived batch name the payload that it has, as no rot does.
pub fn rename_payloads(items: &mut [Item]) {
    for item in items.iter_mut().filter(|item| item.archived().is_some()) {
        let lengths: Vec<usize> = batches(&item.bytes).into_iter().map(<[u8]>::len).collect();
        let mut at = 0;
        for length in lengths {
            let payload = item.bytes.get(at + PREFIX_BYTES..at + length).unwrap_or_default();
            let hash = *blake3::hash(payload).as_bytes();
            if let Some(place) = item.bytes.get_mut(at + HASH_AT..at + HASH_AT + 32) {
                place.copy_from_slice(&hash);
            }
            at += length;
        }
    }
}

/// Whether a frame may be in a journal that opens. One way only: a journal may still not open.
pub fn is_readable(item: &Item) -> bool {
    match item.tag {
        1 => item.bytes.len() >= CHANGE_PREFIX_BYTES && item.bytes.get(16).is_some_and(|tier| *tier <= 2),
        2 | 3 => batches(&item.bytes) == [item.bytes.as_slice()] && is_whole(&item.bytes),
        4..=10 => json::is_one_value(&item.bytes),
        11..128 => false,
        _ => true,
    }
}

/// The lines of a batch that say something; `None` if it is not whole or does not open.
fn lines_of(batch: &[u8], key: &OpenKey) -> Option<Vec<Vec<u8>>> {
    let text = open_lines(batch.get(PREFIX_BYTES..).unwrap_or_default(), key);
    let text = text.ok().filter(|_| is_whole(batch))?;
    let lines = text.split(|byte| *byte == b'\n');
    Some(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Whether a batch holds lines of change frames, and nothing else.
pub fn is_sealed_of(items: &[Item], batch: &[u8], key: &OpenKey) -> bool {
    let Some(lines) = lines_of(batch, key) else { return false };
    let is_kept = |line: &Vec<u8>| {
        let mut changes = items.iter().filter(|item| item.tag == 1);
        let kept =
            |item: &Item| item.bytes.get(CHANGE_PREFIX_BYTES..).map(<[u8]>::to_vec).unwrap_or_default();
        // A line that has a line end in it, which no writer makes, comes as two.
        changes.any(|item| kept(item).split(|byte| *byte == b'\n').any(|part| part == line.as_slice()))
    };
    lines.iter().all(is_kept)
}

/// Values that lines speak of, by collection, record and field.
#[derive(Debug, Default)]
pub struct Values(BTreeMap<(String, String, String), Vec<Value>>);

impl Values {
    /// Those of all changes and batches that are whole.
    pub fn of(items: &[Item], key: &OpenKey) -> Self {
        let mut values = Self::default();
        for item in items {
            match item.tag {
                1 => values.line(item.bytes.get(CHANGE_PREFIX_BYTES..).unwrap_or_default()),
                2 | 3 => values.batch(&item.bytes, key),
                _ if item.archived().is_some() => {
                    batches(&item.bytes).into_iter().for_each(|batch| values.batch(batch, key));
                }
                _ => {}
            }
        }
        values
    }

    /// One whose header names more or fewer changes than it has is none.
    fn batch(&mut self, batch: &[u8], key: &OpenKey) {
        let lines = lines_of(batch, key).unwrap_or_default();
        let named = number(batch, LAST_AT, 8).wrapping_sub(number(batch, FIRST_AT, 8)).wrapping_add(1);
        if u64::try_from(lines.len()) == Ok(named) {
            lines.iter().for_each(|line| self.line(line));
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Ok(change) = serde_json::from_slice::<Value>(line) else { return };
        let text = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        for (field, value) in change.get("f").and_then(Value::as_object).into_iter().flatten() {
            self.0.entry((text("c"), text("r"), field.clone())).or_default().push(value.clone());
        }
    }

    /// Whether some line gives this value to this field.
    pub fn has(&self, collection: &str, record: &str, field: &str, value: &Value) -> bool {
        let field = (collection.to_owned(), record.to_owned(), field.to_owned());
        self.0.get(&field).is_some_and(|values| values.contains(value))
    }
}

/// What the last checkpoint counts: log to sequence, as text.
pub fn counted(items: &[Item]) -> Vec<(String, u64)> {
    let last = items.iter().rfind(|item| item.tag == 6);
    let checkpoint: Value =
        last.and_then(|item| serde_json::from_slice(&item.bytes).ok()).unwrap_or_default();
    let sequences = checkpoint.get("sequences").and_then(Value::as_object);
    sequences
        .into_iter()
        .flatten()
        .filter_map(|(log, sequence)| Some((log.clone(), sequence.as_u64()?)))
        .collect()
}
