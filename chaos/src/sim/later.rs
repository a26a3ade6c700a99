//! What a later version writes and says within the version of a format: keys, collections, fields and kinds of records
//! that this one does not know (`docs/spec/README.md#versions`).
//!
//! **Invariant**: it is what may be added; everything must go on as if it were not there, and lines stay as they are.

use serde_json::{Value, json};
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::record::RecordState;
use sonae_proto::wire::FRAME_HEADER_BYTES;

use super::board::Life;

/// The collection that this version does not know.
pub(crate) const COLLECTION: &str = "later_notice";

const KEY: &str = "later";

/// A kind of object records that this version does not know.
const RECORD_KIND: u8 = 200;

/// Whether the device of a life has the later version.
pub(crate) const fn is_later(life: &Life) -> bool {
    life.device.is_multiple_of(2)
}

fn anything() -> Value {
    json!({"a": [1, null, 2.5], "名": "後の版"})
}

/// Adds to a change what this version does not know. `seen` is the record as its writer sees it.
pub(crate) fn write(change: &mut Change, seen: &RecordState) {
    let bases = seen.fields.get(KEY).map(|field| field.bases()).unwrap_or_default();
    change.fields.insert(KEY.into(), FieldWrite { value: anything(), bases });
    change.rest.insert("z".into(), anything());
}

/// A frame with a key more, if its body is JSON.
pub(crate) fn frame(bytes: Vec<u8>) -> Vec<u8> {
    let Some((header, body)) = bytes.split_at_checked(FRAME_HEADER_BYTES) else { return bytes };
    let is_object = body.starts_with(b"{\"") && body.ends_with(b"}");
    let Some(keys) = body.strip_prefix(b"{").filter(|_| is_object) else { return bytes };
    let body = [format!("{{\"{KEY}\":{},", anything()).as_bytes(), keys].concat();
    let Ok(length) = u32::try_from(body.len()) else { return bytes };
    let kind = header.get(4).copied().unwrap_or_default();
    [&length.to_be_bytes()[..], &[kind], &body].concat()
}

/// A record of an object that this version passes over.
pub(crate) fn record() -> Vec<u8> {
    let body = anything().to_string().into_bytes();
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let mut record = [&[RECORD_KIND][..], &length, &body].concat();
    let check = blake3::hash(&record);
    record.extend(check.as_bytes().first_chunk::<8>().copied().unwrap_or_default());
    record
}
