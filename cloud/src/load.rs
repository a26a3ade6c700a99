//! Reads every object of every site at the start, and heals: an object that a site lacks is copied to it from a
//! site that holds it whole.
//!
//! **Invariant**: a damaged object is reported and never deleted or overwritten. Its site counts for the records
//! whose bytes equal those of a good copy, and for no others; what is then below the quorum is written again
//! under a new name ([`crate::repair`]).
//! **Invariant**: a site that cannot be read is not written to by healing either.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use sonae_proto::intake::Location;
use sonae_proto::object::{ObjectDamage, records};
use sonae_proto::receipt::SiteId;
use ulid::Ulid;

use crate::index::Index;
use crate::object_name::ObjectName;
use crate::site::{Site, TransferError};

/// Objects that are read ahead.
const READ_AHEAD: usize = 4;

/// What the sites hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All records.
    pub index: Index,
    /// The newest start of a node that wrote here.
    pub newest_boot: Option<Ulid>,
    /// For each site in order, what reading it showed.
    pub sites: Vec<SiteReading>,
}

/// What reading one site showed.
#[derive(Debug, Default, Clone)]
pub struct SiteReading {
    /// Objects that it holds, copies that were just made included.
    pub objects: u64,
    /// Objects that were copied to it.
    pub healed: u64,
    /// Objects that are damaged here.
    pub damaged: u64,
    /// Why it counts as not read.
    pub fault: Option<String>,
    /// Why it could not be healed.
    heal_fault: bool,
}

/// One object at one site.
enum Copy {
    Missing,
    Unreadable,
    Whole(Bytes),
    /// Good up to the damage.
    Damaged(Bytes, ObjectDamage),
}

/// Reads and heals all sites.
pub async fn load(sites: &[Site]) -> Loaded {
    let mut loaded = Loaded { sites: vec![SiteReading::default(); sites.len()], ..Loaded::default() };
    let mut held: BTreeMap<ObjectName, Vec<usize>> = BTreeMap::new();
    for (number, listing) in join_all(sites.iter().map(Site::list)).await.into_iter().enumerate() {
        match listing {
            Ok(objects) => {
                for (name, _) in objects {
                    held.entry(name).or_default().push(number);
                }
            }
            Err(error) => {
                let label = sites.get(number).map_or("", Site::label);
                log::error!(site = label, error:% = error; "a site cannot be listed");
                set_fault(&mut loaded, number, &error.to_string());
            }
        }
    }
    loaded.newest_boot = held.keys().next_back().map(|name| name.boot);
    let mut objects = stream::iter(held)
        .map(|(name, holders)| async move {
            let copies =
                sites.iter().enumerate().map(|(number, site)| read(site, name, holders.contains(&number)));
            (name, join_all(copies).await)
        })
        .buffered(READ_AHEAD);
    while let Some((name, copies)) = objects.next().await {
        take(sites, &mut loaded, name, &copies).await;
    }
    drop(objects);
    loaded
}

async fn read(site: &Site, name: ObjectName, listed: bool) -> Copy {
    if !listed {
        return Copy::Missing;
    }
    match site.get(&name).await {
        Ok(bytes) => match records(&bytes).1 {
            None => Copy::Whole(bytes),
            Some(damage) => Copy::Damaged(bytes, damage),
        },
        Err(TransferError::TooLarge) => Copy::Damaged(Bytes::new(), ObjectDamage { offset: 0 }),
        Err(error) => {
            log::error!(site = site.label(), object:% = name, error:% = error; "an object cannot be read");
            Copy::Unreadable
        }
    }
}

async fn take(sites: &[Site], loaded: &mut Loaded, name: ObjectName, copies: &[Copy]) {
    let whole = copies.iter().find_map(|copy| if let Copy::Whole(bytes) = copy { Some(bytes) } else { None });
    let best = whole.cloned().or_else(|| longest_good_part(copies));
    for (number, copy) in copies.iter().enumerate() {
        let damaged = match copy {
            Copy::Missing => continue,
            Copy::Unreadable => false,
            Copy::Damaged(..) => true,
            // Two whole objects of one name that differ: one of them is not what was written.
            Copy::Whole(bytes) => Some(bytes) != whole,
        };
        let Some(reading) = loaded.sites.get_mut(number) else { continue };
        reading.objects += 1;
        if damaged {
            reading.damaged += 1;
            let label = sites.get(number).map_or("", Site::label);
            log::error!(site = label, object:% = name; "an object is damaged");
        }
        if whole.is_none() || matches!(copy, Copy::Unreadable) {
            set_fault(loaded, number, "an object cannot be read whole anywhere");
        }
    }
    let Some(best) = best else { return };
    let mut holders: Vec<(SiteId, Bytes)> = Vec::new();
    // Whole copies that differ are all read: which of them is what was written, signatures say.
    let mut distinct = vec![best];
    for (number, (copy, site)) in copies.iter().zip(sites).enumerate() {
        match (copy, whole) {
            (Copy::Whole(bytes) | Copy::Damaged(bytes, _), _) => {
                holders.push((site.id(), bytes.clone()));
                if matches!(copy, Copy::Whole(_)) && !distinct.contains(bytes) {
                    distinct.push(bytes.clone());
                }
            }
            (Copy::Missing, Some(whole)) if heal(site, loaded, number, name, whole).await => {
                holders.push((site.id(), whole.clone()));
            }
            (Copy::Missing | Copy::Unreadable, _) => {}
        }
    }
    for copy in &distinct {
        index_object(loaded, name, copy, &holders);
    }
}

fn longest_good_part(copies: &[Copy]) -> Option<Bytes> {
    copies
        .iter()
        .filter_map(|copy| match copy {
            Copy::Damaged(bytes, damage) => Some(bytes.slice(..damage.offset.min(bytes.len()))),
            Copy::Missing | Copy::Unreadable | Copy::Whole(_) => None,
        })
        .max_by_key(Bytes::len)
}

fn set_fault(loaded: &mut Loaded, number: usize, fault: &str) {
    if let Some(reading) = loaded.sites.get_mut(number) {
        reading.fault.get_or_insert_with(|| fault.to_owned());
    }
}

/// Copies an object to a site that lacks it. Returns whether the site holds it now.
async fn heal(site: &Site, loaded: &mut Loaded, number: usize, name: ObjectName, whole: &Bytes) -> bool {
    let Some(reading) = loaded.sites.get_mut(number) else { return false };
    if reading.fault.is_some() || reading.heal_fault {
        return false;
    }
    match site.put(&name, whole.clone()).await {
        Ok(()) => {
            reading.healed += 1;
            reading.objects += 1;
            true
        }
        Err(error) => {
            // Once for a site: a full disk would say it for every object.
            log::warn!(site = site.label(), object:% = name, error:% = error; "a site cannot be healed");
            reading.heal_fault = true;
            false
        }
    }
}

fn index_object(loaded: &mut Loaded, name: ObjectName, best: &[u8], holders: &[(SiteId, Bytes)]) {
    let object = name.to_string();
    for record in records(best).0 {
        let Some(kind) = record.kind else { continue };
        // The kind and the length before the body, the checksum behind it.
        let range = record.offset - 5..record.offset + record.body.len() + 8;
        let sites: Vec<SiteId> = holders
            .iter()
            .filter(|(_, bytes)| bytes.get(range.clone()) == best.get(range.clone()))
            .map(|(site, _)| *site)
            .collect();
        let location = Location {
            object: object.clone(),
            offset: u64::try_from(record.offset).unwrap_or(u64::MAX),
            bytes: u64::try_from(record.body.len()).unwrap_or(u64::MAX),
        };
        if !loaded.index.add(kind, location, record.body, &sites) {
            log::error!(object = object.as_str(), offset = record.offset; "a stored batch has no meaning");
        }
    }
}
