//! The file of a courier, read again from `docs/spec/courier.md` without the product's code: where records lie, which
//! of them may stand where, and how a reading of it must end.

use serde_json::Value;
use sonae_proto::courier::{CourierError, Opening, Origin, Record};
use sonae_proto::limits::FRAME_BYTES_MAX;

use super::Reading;
use crate::{Broken, hold, json};

/// Bytes before the first record.
pub const MAGIC: &[u8; 4] = b"SNC1";

/// Kind and length before a body.
pub const HEAD_BYTES: usize = 5;

/// The check behind it.
pub const CHECK_BYTES: usize = 8;

/// Kinds with a meaning of their own.
pub const OPENING: u8 = 5;
/// The last record.
pub const END: u8 = 6;

/// A record as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub kind: u8,
    pub body: Vec<u8>,
}

/// What follows the last record that lies whole in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// Less than a record.
    Cut,
    /// A length over the limit, or a wrong check.
    Damaged,
}

/// A file cut into records by their lengths alone.
#[derive(Debug)]
pub struct Layout {
    pub pieces: Vec<Piece>,
    /// Where each begins, and where the last ends.
    pub offsets: Vec<usize>,
    pub rest: Rest,
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Where the body of the record at an offset ends, if its length lies in the file.
pub fn body_end(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at + 1..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()?.checked_add(at + HEAD_BYTES)
}

/// Cuts a file into records. Nothing behind a wrong check is looked at.
pub fn layout(bytes: &[u8]) -> Layout {
    let (mut pieces, mut offsets) = (Vec::new(), vec![MAGIC.len()]);
    let mut at = MAGIC.len();
    let rest = loop {
        if at >= bytes.len() {
            break Rest::None;
        }
        let Some(end) = body_end(bytes, at) else { break Rest::Cut };
        if end - at - HEAD_BYTES > FRAME_BYTES_MAX {
            break Rest::Damaged;
        }
        let Some(sum) = bytes.get(end..end + CHECK_BYTES) else { break Rest::Cut };
        let record = bytes.get(at..end).unwrap_or_default();
        if sum != check(record) {
            break Rest::Damaged;
        }
        let body = record.get(HEAD_BYTES..).unwrap_or_default().to_vec();
        pieces.push(Piece { kind: record.first().copied().unwrap_or(0), body });
        at = end + CHECK_BYTES;
        offsets.push(at);
    };
    Layout { pieces, offsets, rest }
}

/// Makes every check right, as far as lengths lead.
pub fn resum(bytes: &mut [u8]) {
    let mut at = MAGIC.len();
    while let Some(end) = body_end(bytes, at) {
        let Some(sum) = bytes.get(at..end).map(check) else { return };
        let Some(place) = bytes.get_mut(end..end + CHECK_BYTES) else { return };
        place.copy_from_slice(&sum);
        at = end + CHECK_BYTES;
    }
}

/// Writes records with right lengths and checks.
pub fn join(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for piece in pieces {
        bytes.push(piece.kind);
        bytes.extend(u32::try_from(piece.body.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&piece.body);
        bytes.extend([0; CHECK_BYTES]);
    }
    resum(&mut bytes);
    bytes
}

fn batches(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| piece.kind == 1).count()
}

/// The end that belongs behind records.
pub fn end_of(pieces: &[Piece]) -> Piece {
    let body = serde_json::json!({ "records": pieces.len(), "batches": batches(pieces) });
    Piece { kind: END, body: body.to_string().into_bytes() }
}

fn value(body: &[u8]) -> Value {
    // What is nested too deep is no value to serde, although unknown fields may be.
    serde_json::from_slice(body).unwrap_or_default()
}

fn counts(pieces: &[Piece], end: &[u8]) -> Option<bool> {
    let end = value(end);
    let said = |name: &str| end.get(name)?.as_u64();
    let is = |name: &str, found: usize| Some(said(name)? == u64::try_from(found).ok()?);
    Some(is("records", pieces.len())? && is("batches", batches(pieces))?)
}

/// Checks one record that was read against the bytes that it was read from.
fn check_record(piece: &Piece, record: &Record) -> Result<(), Broken> {
    let (kind, bulk): (u8, Option<&[u8]>) = match record {
        Record::Batch(bytes) => (1, Some(bytes)),
        Record::Identity(_) => (2, None),
        Record::Keys(_) => (3, None),
        Record::Receipt(bytes) => (4, Some(bytes)),
        Record::Opening(_) => (OPENING, None),
        Record::End(_) => (END, None),
        Record::Unknown(kind) => (*kind, Some(&piece.body)),
    };
    hold(kind == piece.kind, || "a record is of the kind that it says".into())?;
    hold(bulk.is_none_or(|bulk| bulk == piece.body), || "bulk bodies are kept byte for byte".into())?;
    hold(bulk.is_some() || json::is_one_value(&piece.body), || {
        "the body of any other record is one JSON value".into()
    })?;
    let value = value(&piece.body);
    if let (Record::Opening(opening), false) = (record, value.is_null()) {
        check_opening(&value, opening)?;
    }
    if let (Record::Keys(keys), false) = (record, value.is_null()) {
        let manifest = value.get("manifest").and_then(Value::as_str);
        hold(manifest == Some(&keys.manifest), || "the manifest is the one in the text".into())?;
    }
    Ok(())
}

fn check_opening(value: &Value, opening: &Opening) -> Result<(), Broken> {
    let said = |path: &str| value.pointer(path).and_then(Value::as_u64);
    hold(said("/made_ms") == Some(opening.made_ms), || "the time is the one in the text".into())?;
    let Origin::Replica(replica) = &opening.from else { return Ok(()) };
    hold(said("/from/replica/loss_counter") == Some(replica.loss_counter), || {
        "the loss counter is the one in the text".into()
    })
}

/// Whether the record behind those that were read stands in a wrong place.
fn is_out_of_place(layout: &Layout, read: usize) -> bool {
    let before = read.checked_sub(1).and_then(|at| layout.pieces.get(at));
    let next = layout.pieces.get(read);
    match (before, next) {
        (Some(before), _) if before.kind == END => next.is_some() || layout.rest != Rest::None,
        (None, Some(next)) => next.kind != OPENING,
        (Some(_), Some(next)) => next.kind == OPENING,
        (_, None) => false,
    }
}

/// Checks what was read of a file, and how the reading ended.
pub fn check_reading(bytes: &[u8], reading: &Reading) -> Result<&'static str, Broken> {
    if !bytes.starts_with(MAGIC) {
        let is_short = bytes.len() < MAGIC.len();
        let fits = match &reading.end {
            Err(CourierError::Magic) => !is_short,
            Err(CourierError::Cut { offset: 0 }) => is_short,
            _ => false,
        };
        hold(fits && reading.records.is_empty(), || "a file of another kind is refused as that".into())?;
        return Ok("another file");
    }
    let layout = layout(bytes);
    let read = reading.records.len();
    hold(read <= layout.pieces.len(), || "only whole records with a right check are read".into())?;
    for (at, (piece, record)) in layout.pieces.iter().zip(&reading.records).enumerate() {
        check_record(piece, record)?;
        hold((at == 0) == (piece.kind == OPENING), || "an opening is first, and once".into())?;
        hold(piece.kind != END || at + 1 == read, || "nothing is read behind the end".into())?;
    }
    let offset = layout.offsets.get(read).and_then(|at| u64::try_from(*at).ok()).unwrap_or(u64::MAX);
    check_end(&layout, reading, read, offset)
}

/// Checks how a reading ended: whole if and only if it is, and otherwise for what lies behind what was read.
fn check_end(layout: &Layout, reading: &Reading, read: usize, offset: u64) -> Result<&'static str, Broken> {
    let next = layout.pieces.get(read);
    let has_more = next.is_some();
    let before = layout.pieces.get(..read.saturating_sub(1)).unwrap_or_default();
    let is_ended = read.checked_sub(1).and_then(|at| layout.pieces.get(at)).filter(|last| last.kind == END);
    let is_whole = is_ended.is_some_and(|end| counts(before, &end.body) != Some(false));
    let is_json = |piece: &Piece| matches!(piece.kind, 2 | 3 | OPENING | END);
    let at_end = |at: u64| at == offset;
    let pieces = layout.pieces.get(..read).unwrap_or_default();
    let (fits, class) = match &reading.end {
        Ok(end) => {
            let said = (usize::try_from(end.records).ok(), usize::try_from(end.batches).ok());
            let is_true = said == (Some(before.len()), Some(batches(before)));
            (is_whole && is_true && !has_more && layout.rest == Rest::None, "whole")
        }
        Err(CourierError::Cut { offset: at }) => {
            let is_cut = is_ended.is_none() && !has_more && layout.rest != Rest::Damaged;
            (is_cut && at_end(*at), "cut")
        }
        Err(CourierError::Damaged { offset: at }) => {
            let is_damaged = next.map_or(layout.rest == Rest::Damaged, is_json);
            (is_damaged && is_ended.is_none() && at_end(*at), "damaged")
        }
        Err(CourierError::Order { offset: at }) => {
            (is_out_of_place(layout, read) && at_end(*at), "out of place")
        }
        Err(CourierError::Count { .. }) => {
            let end = next.filter(|next| next.kind == END);
            (end.is_some_and(|end| counts(pieces, &end.body) != Some(true)), "counts otherwise")
        }
        Err(CourierError::Format { .. }) => {
            let format = next.map(|opening| value(&opening.body));
            let format = format.as_ref().and_then(|opening| opening.get("format")?.as_str());
            (read == 0 && format != Some("sonae/courier/v1"), "a later format")
        }
        Err(CourierError::Magic) => (false, "another file"),
    };
    hold(fits, || format!("a reading ends as the file does: not as '{class}'"))?;
    Ok(class)
}
