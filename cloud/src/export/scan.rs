//! Reads every copy of every object, whole or damaged, without a lock: sites may be in use.
//!
//! **Invariant**: a record that any copy still holds is found, also behind damage when it is a batch: its label
//! is looked for and its hash says whether it is whole.
//! **Invariant**: one object at a time is held in memory, with one copy for each site.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use sonae_proto::batch::{Batch, LABEL, PREFIX_BYTES};
use sonae_proto::export::Problem;
use sonae_proto::object::{ObjectDamage, RecordKind, records};

use crate::object_name::ObjectName;
use crate::site::{Site, TransferError};

/// Objects and the sites (by number) that list them.
pub type Listing = BTreeMap<ObjectName, Vec<usize>>;

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

fn unreadable(site: &Site, object: Option<ObjectName>, error: &TransferError) -> Problem {
    Problem::Unreadable {
        site: site.label().to_owned(),
        object: object.map(|name| name.to_string()),
        text: error.to_string(),
    }
}

/// A record of an object.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where its body begins in the copy that it was read from.
    pub offset: usize,
    /// What it is: 1 batch, 2 identity, 3 keys, 6 evidence of a proof, 0 of a later version.
    kind: u8,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Found {
    fn new(kind: Option<RecordKind>, offset: usize, body: &[u8]) -> Self {
        let kind = match kind {
            Some(RecordKind::Batch) => 1,
            Some(RecordKind::Identity) => 2,
            Some(RecordKind::Keys) => 3,
            Some(RecordKind::Snapshot) => 4,
            Some(RecordKind::SnapshotPart) => 5,
            Some(RecordKind::Proof) => 6,
            None => 0,
        };
        Self { offset, kind, body: body.to_vec() }
    }

    /// What it is; `None` for a kind of a later version.
    #[must_use]
    pub const fn kind(&self) -> Option<RecordKind> {
        match self.kind {
            1 => Some(RecordKind::Batch),
            2 => Some(RecordKind::Identity),
            3 => Some(RecordKind::Keys),
            4 => Some(RecordKind::Snapshot),
            5 => Some(RecordKind::SnapshotPart),
            6 => Some(RecordKind::Proof),
            _ => None,
        }
    }
}

/// Reads an object at all sites that list it. Returns each record once, in order.
pub async fn read(
    sites: &[Site],
    name: ObjectName,
    holders: &[usize],
    problems: &mut Vec<Problem>,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let (mut damaged, mut whole) = (Vec::new(), false);
    for site in holders.iter().filter_map(|number| sites.get(*number)) {
        let bytes = match site.get(&name).await {
            Ok(bytes) => bytes,
            Err(error) => {
                problems.push(unreadable(site, Some(name), &error));
                continue;
            }
        };
        let (good, damage) = records(&bytes);
        found.extend(good.iter().map(|record| Found::new(record.kind, record.offset, record.body)));
        match damage {
            None => whole = true,
            Some(ObjectDamage { offset }) => {
                found.extend(salvage(&bytes, offset));
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
    if !whole {
        problems.push(Problem::DamagedObject { object: name.to_string() });
    }
    found
}

/// Finds whole batches behind the damage.
fn salvage(object: &[u8], from: usize) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = from;
    while let Some(step) =
        object.get(at..).and_then(|rest| rest.windows(LABEL.len()).position(|w| w == LABEL))
    {
        let start = at + step;
        at = start + 1;
        let length = object
            .get(start + 130..start + 134)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .and_then(|bytes| usize::try_from(u32::from_be_bytes(bytes)).ok());
        let Some(end) = length.and_then(|length| start.checked_add(PREFIX_BYTES)?.checked_add(length)) else {
            continue;
        };
        let Some(body) = object.get(start..end) else { continue };
        if Batch::from_bytes(body.to_vec()).is_ok() {
            found.push(Found::new(Some(RecordKind::Batch), start, body));
            at = end;
        }
    }
    found
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
        assert_eq!(salvage(&object, 0), Vec::new());
    }
}
