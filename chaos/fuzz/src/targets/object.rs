//! Objects of the cloud.
//!
//! Layers: 0 as it is; 1 the harness follows the lengths and makes every check right.

use sonae_proto::limits::FRAME_BYTES_MAX;
use sonae_proto::object::{self, MAGIC, RECORD_OVERHEAD_BYTES, RecordKind};

use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, behind_layer, hold, layer, layered, measure};

/// The target.
pub struct ObjectTarget;

/// What a decoder saw: records as kind, offset and body, and where the damage begins.
type Seen = (Vec<(Option<RecordKind>, usize, Vec<u8>)>, Option<usize>);

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at + 1..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*field)).ok()
}

/// Makes the check of each record right, as far as lengths lead.
fn envelope(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    let mut at = MAGIC.len();
    while let Some(length) = length_at(&bytes, at).filter(|_| number == 1) {
        let end = at.saturating_add(5).saturating_add(length);
        let Some(check) = bytes.get(at..end).map(|record| *blake3::hash(record).as_bytes()) else { break };
        let Some(place) = bytes.get_mut(end..end.saturating_add(8)) else { break };
        place.copy_from_slice(check.get(..8).unwrap_or_default());
        at = end + 8;
    }
    bytes
}

/// The format, read again from `docs/spec/object.md`.
fn reference(bytes: &[u8], planted: Planted) -> Seen {
    let mut found = Vec::new();
    if !bytes.starts_with(&MAGIC) {
        return (found, Some(0));
    }
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let record = length_at(bytes, at).filter(|length| *length <= FRAME_BYTES_MAX).and_then(|length| {
            let check = bytes.get(at + 5 + length..)?.first_chunk::<8>()?;
            let covered = bytes.get(at..at + 5 + length)?;
            let holds = planted.is("check") || blake3::hash(covered).as_bytes().starts_with(check);
            Some((bytes.get(at).copied()?, bytes.get(at + 5..at + 5 + length)?)).filter(|_| holds)
        });
        let Some((kind, body)) = record else {
            let is_tail = planted.is("trailing") && bytes.len() - at < RECORD_OVERHEAD_BYTES;
            return (found, Some(at).filter(|_| !is_tail));
        };
        let kind = match kind {
            1 => Some(RecordKind::Batch),
            2 => Some(RecordKind::Identity),
            3 => Some(RecordKind::Keys),
            4 => Some(RecordKind::Snapshot),
            5 => Some(RecordKind::SnapshotPart),
            6 => Some(RecordKind::Proof),
            7 => Some(RecordKind::Inputs),
            _ if planted.is("later-kind") => Some(RecordKind::Batch),
            _ => None,
        };
        found.push((kind, at + 5, body.to_vec()));
        at += RECORD_OVERHEAD_BYTES + body.len();
    }
    (found, None)
}

fn decode(bytes: &[u8], planted: Planted) -> Seen {
    if planted != Planted::NONE {
        return reference(bytes, planted);
    }
    let (records, damage) = object::records(bytes);
    let found = records.iter().map(|record| (record.kind, record.offset, record.body.to_vec())).collect();
    (found, damage.map(|damage| damage.offset))
}

impl Target for ObjectTarget {
    fn name(&self) -> &'static str {
        "object"
    }

    fn executions(&self) -> u64 {
        12_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["check", "trailing", "later-kind"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["whole", "whole, of a later version", "damaged at once", "damaged later"]
    }

    fn seeds(&self) -> Vec<Seed> {
        let mut one = Vec::new();
        object::append(&mut one, RecordKind::Batch, b"a batch");
        let mut many = one.clone();
        object::append(&mut many, RecordKind::Identity, b"{}");
        object::append(&mut many, RecordKind::Keys, b"");
        object::append(&mut many, RecordKind::Batch, &[7; 300]);
        let names = vec!["objects/a/1".to_owned(), "objects/a/2".to_owned()];
        let (_, merged) = object::merge(names, vec![(0, 1), (1, 1)], [(1, b"one".as_slice()), (1, b"two")]);
        let merged = [("merged", layer(0, &merged)), ("merged-checked", layer(1, &merged))];
        let mut seeds = vec![("one", layer(0, &one)), ("many", layer(1, &many)), ("empty", layer(0, &MAGIC))];
        seeds.extend(merged);
        seeds
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 2, random, |_, body, random| {
            // Kind or length of some record, found by following the lengths.
            let mut starts = vec![MAGIC.len()];
            while let Some(length) = starts.last().and_then(|at| length_at(body, *at)) {
                let next = starts.last().map_or(0, |at| at + length + RECORD_OVERHEAD_BYTES);
                if next >= body.len() {
                    break;
                }
                starts.push(next);
            }
            let at = random.pick(&starts).copied().unwrap_or(0);
            match random.below(4) {
                0 => mutate::field(body, &[at..at + 1, at + 1..at + 5], Order::Big, random),
                1 => {
                    let more = random.below(60);
                    let tail: Vec<u8> = (0..more).map(|_| random.byte()).collect();
                    object::append(body, RecordKind::Identity, &tail);
                }
                _ => mutate::bytes(body, random),
            }
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let bytes = envelope(number % 2, body);
        let memory = 16 * bytes.len() + 4096;
        let (found, damage) = measure::call(memory, || decode(&bytes, planted))?;
        hold(
            (&found, damage) == (&reference(&bytes, Planted::NONE).0, reference(&bytes, Planted::NONE).1),
            || "records and damage are those of the format".into(),
        )?;
        let said =
            measure::call(memory, || object::Inputs::of(&bytes).map(|(said, _)| said.is_true_of(&bytes)))?;
        hold(said != Some(true) || damage.is_none(), || "what is damaged is not what it says".into())?;
        let mut again = Vec::new();
        for (kind, offset, body) in &found {
            let Some(kind) = kind else { return Ok("whole, of a later version".into()) };
            hold(object::append(&mut again, *kind, body) == *offset, || {
                "a record that is written again lies where it lay".into()
            })?;
        }
        let end = damage.unwrap_or(bytes.len());
        hold(found.is_empty() || bytes.get(..end) == Some(&again), || {
            "what is read and written again is the same up to the damage".into()
        })?;
        Ok(match damage {
            None => "whole".into(),
            Some(0) => "damaged at once".into(),
            Some(_) => "damaged later".into(),
        })
    }
}
