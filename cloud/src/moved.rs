//! Finds a record whose object has gone because it was merged, by this node or another.
//!
//! **Invariant**: what a merged object says of its inputs only says where to look; whoever reads there checks the record.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sonae_proto::ids::Hash32;
use sonae_proto::intake::Location;
use sonae_proto::object::{Inputs, MAGIC, RECORD_OVERHEAD_BYTES};
use tokio::sync::Mutex;

use crate::compaction::{Places, places};
use crate::contents;
use crate::object_name::StoredName;
use crate::site::Site;

/// What was learnt by looking.
#[derive(Debug, Default)]
pub struct Moved(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Merged objects by the names of their inputs. One may say more than it holds.
    outputs: BTreeMap<String, BTreeSet<StoredName>>,
    listed: BTreeSet<StoredName>,
    /// The records of the object in which something was found last.
    last: BTreeMap<Hash32, Location>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Where the record lies.
    pub location: Location,
    /// All records of its object, if that was read just now.
    pub places: Option<Places>,
}

impl Moved {
    /// Looks for a record of an object that is not there any more. A batch is named by the hash of its header, a part of
    /// a snapshot by that of its bytes.
    pub async fn find(&self, sites: &[Site], object: &str, record: Hash32) -> Option<Found> {
        let mut known = self.0.lock().await;
        if let Some(location) = known.last.get(&record).filter(|location| location.object != object) {
            return Some(Found { location: location.clone(), places: None });
        }
        for is_fresh in [false, true] {
            if is_fresh {
                known.list(sites).await;
            }
            for output in known.outputs.get(object).cloned().unwrap_or_default() {
                if let Some(found) = known.open(sites, output, record).await {
                    return Some(found);
                }
            }
        }
        None
    }
}

impl Known {
    /// Learns of merged objects that are new.
    async fn list(&mut self, sites: &[Site]) {
        for site in sites {
            let Ok(listed) = site.list().await else { continue };
            for (name, _) in listed.into_iter().filter(|(name, _)| name.written().is_none()) {
                if self.listed.contains(&name) {
                    continue;
                }
                let Some(said) = inputs(site, name).await else { continue };
                self.listed.insert(name);
                for input in said.inputs {
                    self.outputs.entry(input).or_default().insert(name);
                }
            }
        }
    }

    async fn open(&mut self, sites: &[Site], output: StoredName, record: Hash32) -> Option<Found> {
        for site in sites {
            let Ok(object) = site.get(output).await else { continue };
            let places = places(output, &contents::read(output, &object));
            let batches = places.batches.iter().map(|batch| (batch.header.hash(), batch.location.clone()));
            self.last = batches.chain(places.parts.iter().cloned()).collect();
            if let Some(location) = self.last.get(&record).cloned() {
                return Some(Found { location, places: Some(places) });
            }
        }
        None
    }
}

/// Reads what a merged object says first.
async fn inputs(site: &Site, name: StoredName) -> Option<Inputs> {
    let path = name.to_string();
    let head: Bytes = site.get_part(&path, 0, u64::try_from(MAGIC.len() + 5).ok()?).await.ok()?;
    let length = u32::from_be_bytes(*head.last_chunk::<4>()?);
    let end = u64::from(length) + u64::try_from(MAGIC.len() + RECORD_OVERHEAD_BYTES).ok()?;
    let start = site.get_part(&path, 0, end.min(crate::limits::MERGED_BYTES_MAX)).await.ok()?;
    Some(Inputs::of(&start)?.0)
}
