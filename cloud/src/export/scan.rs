//! Reads every copy of every object, whole or damaged, without a lock: sites may be in use.
//!
//! **Invariant**: a record that any copy still holds is found, also behind damage: a batch is looked for by its label, and
//! its hash says whether it is whole; anything else by its check.
//! **Invariant**: one object at a time is held in memory, with one copy for each site.
//! **Invariant**: an object that goes away under the reader is no problem exactly if a merged one that was read says that
//! it stands for it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use sonae_proto::batch::{Batch, LABEL, PREFIX_BYTES};
use sonae_proto::export::Problem;
use sonae_proto::object::{ObjectDamage, RecordKind, record_at};

use crate::contents::{self, Position};
use crate::object_name::{ObjectName, StoredName};
use crate::site::{Site, TransferError};

/// Objects and the sites (by number) that list them.
pub type Listing = BTreeMap<StoredName, Vec<usize>>;

/// Lists all sites. What cannot be listed is a problem.
pub async fn list(sites: &[Site], problems: &mut Vec<Problem>) -> Listing {
    let mut listing = Listing::new();
    for (number, (site, listed)) in sites.iter().zip(join_all(sites.iter().map(Site::list)).await).enumerate()
    {
        match listed {
            Ok(objects) => {
                for (name, _) in objects {
                    listing.entry(name).or_default().push(number);
                }
            }
            Err(error) => problems.push(unreadable(site, None, &error)),
        }
    }
    listing
}

fn unreadable(site: &Site, object: Option<StoredName>, error: &TransferError) -> Problem {
    Problem::Unreadable {
        site: site.label().to_owned(),
        object: object.map(|name| name.to_string()),
        text: error.to_string(),
    }
}

/// A record of an object.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where it was first written.
    pub position: Position,
    /// Where its body begins in the copy that it was read from.
    pub offset: usize,
    kind: Kind,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Found {
    fn new(kind: Option<RecordKind>, position: Position, offset: usize, body: &[u8]) -> Self {
        Self { position, offset, kind: Kind(kind), body: body.to_vec() }
    }

    /// What it is; `None` for a kind of a later version.
    #[must_use]
    pub const fn kind(&self) -> Option<RecordKind> {
        self.kind.0
    }
}

/// Ordered by its number; what a later version knows comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind(Option<RecordKind>);

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.map(RecordKind::number).cmp(&other.0.map(RecordKind::number))
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What reading has shown of merged objects, and of what went away meanwhile.
#[derive(Debug, Default)]
pub struct Gone {
    superseded: BTreeSet<StoredName>,
    vanished: Vec<(StoredName, String)>,
    damaged: BTreeSet<StoredName>,
}

impl Gone {
    /// How many copies went away under the reader.
    #[must_use]
    pub fn vanished(&self) -> usize {
        self.vanished.len()
    }

    /// Says what is missing: of what no merged object stands for.
    pub fn problems(self, problems: &mut Vec<Problem>) {
        let Self { superseded, vanished, damaged } = self;
        let lost = vanished.into_iter().filter(|(name, _)| !superseded.contains(name));
        problems.extend(lost.map(|(name, site)| Problem::Unreadable {
            site,
            object: Some(name.to_string()),
            text: "it went away while it was read".to_owned(),
        }));
        let damaged = damaged.into_iter().filter(|name| !superseded.contains(name));
        problems.extend(damaged.map(|name| Problem::DamagedObject { object: name.to_string() }));
    }
}

/// Reads an object at all sites that list it. Returns each record once, in order.
pub async fn read(
    sites: &[Site],
    name: StoredName,
    holders: &[usize],
    gone: &mut Gone,
    problems: &mut Vec<Problem>,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let (mut damaged, mut whole) = (Vec::new(), false);
    for site in holders.iter().filter_map(|number| sites.get(*number)) {
        let bytes = match site.get(name).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => {
                gone.vanished.push((name, site.label().to_owned()));
                continue;
            }
            Err(error) => {
                problems.push(unreadable(site, Some(name), &error));
                continue;
            }
        };
        let read = contents::read(name, &bytes);
        found.extend(
            read.records.iter().map(|(at, record)| Found::new(record.kind, *at, record.offset, record.body)),
        );
        match read.damage {
            None => {
                whole = true;
                gone.superseded.extend(read.inputs);
            }
            Some(ObjectDamage { offset }) => {
                found.extend(salvage(&bytes, offset, name.written().unwrap_or(ObjectName::FIRST)));
                let offset = u64::try_from(offset).unwrap_or(u64::MAX);
                damaged.push(Problem::DamagedCopy {
                    site: site.label().to_owned(),
                    object: name.to_string(),
                    offset,
                });
            }
        }
        found.sort();
        found.dedup();
    }
    problems.append(&mut damaged);
    let is_there = holders.len() > gone.vanished.iter().filter(|(vanished, _)| *vanished == name).count();
    if !whole && is_there {
        gone.damaged.insert(name);
    }
    found
}

/// Finds whole records behind the damage.
fn salvage(object: &[u8], from: usize, name: ObjectName) -> Vec<Found> {
    let (mut found, mut at) = (Vec::new(), from);
    while let Some(rest) = object.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((kind, offset, body)) = batch_at(rest).or_else(|| document_at(rest)) else {
            at += 1;
            continue;
        };
        let start = at + offset;
        found.push(Found::new(Some(kind), Position { object: name, ordinal: start }, start, body));
        at = start + body.len();
    }
    found
}

/// A batch, even if what the object has around it is damaged.
fn batch_at(bytes: &[u8]) -> Option<(RecordKind, usize, &[u8])> {
    if !bytes.starts_with(&LABEL) {
        return None;
    }
    let length = <[u8; 4]>::try_from(bytes.get(130..134)?).ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let body = bytes.get(..PREFIX_BYTES.checked_add(length)?)?;
    Batch::from_bytes(body.to_vec()).is_ok().then_some((RecordKind::Batch, 0, body))
}

/// Anything else that this version knows. What a merged object says of itself is believed of a whole one only.
fn document_at(bytes: &[u8]) -> Option<(RecordKind, usize, &[u8])> {
    let record = record_at(bytes)?;
    let kind = record.kind.filter(|kind| !matches!(kind, RecordKind::Batch | RecordKind::Inputs))?;
    Some((kind, record.offset, record.body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::object::append;

    /// Goal: rubbish behind damage is passed over without panic. Method: labels at the very end and without a batch.
    #[test]
    fn rubbish_is_passed_over() {
        let mut object = Vec::new();
        append(&mut object, RecordKind::Batch, &LABEL);
        object.extend_from_slice(&[0xFF; 300]);
        object.extend_from_slice(&LABEL);
        assert_eq!(salvage(&object, 0, ObjectName::FIRST), Vec::new());
    }

    /// Goal: behind a damaged record the others are found, but for what a merged object says of itself. Method: one bit of
    /// the first of four.
    #[test]
    fn records_behind_damage_are_found() {
        let mut object = Vec::new();
        let first = append(&mut object, RecordKind::SnapshotPart, b"a part");
        append(&mut object, RecordKind::Inputs, b"{}");
        let part = append(&mut object, RecordKind::SnapshotPart, b"another part");
        let root = append(&mut object, RecordKind::Snapshot, b"a root");
        object[first] ^= 1;
        let found = salvage(&object, 4, ObjectName::FIRST);
        let found: Vec<_> = found.iter().map(|found| (found.kind(), found.offset, &found.body[..])).collect();
        let part = (Some(RecordKind::SnapshotPart), part, &b"another part"[..]);
        assert_eq!(found, [part, (Some(RecordKind::Snapshot), root, &b"a root"[..])]);
    }
}
