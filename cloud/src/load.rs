//! Reads every object of every site at the start, and heals: an object that a site lacks is copied to it from a
//! site that holds it whole.
//!
//! **Invariant**: a damaged object is reported and never deleted or overwritten. Its site counts for the records
//! whose bytes equal those of a good copy, and for no others; what is then below the quorum is written again
//! under a new name ([`crate::repair`]).
//! **Invariant**: a site that cannot be read is not written to by healing either.
//! **Invariant**: what a merged object stands for is never healed back, once that object was seen to hold its records.
//! An object that goes away under the reader was merged by another node: the sites are listed again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use sonae_proto::intake::Location;
use sonae_proto::object::ObjectDamage;
use sonae_proto::receipt::SiteId;
use ulid::Ulid;

use crate::contents;
use crate::index::Index;
use crate::limits::LISTINGS_MAX;
use crate::object_name::StoredName;
use crate::site::{Site, TransferError};
use crate::superseded::Superseded;

/// Objects that are read ahead.
const READ_AHEAD: usize = 4;

/// Why a site counts as not read.
const WHOLE_NOWHERE: &str = "an object cannot be read whole anywhere";

/// What the sites hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All records.
    pub index: Index,
    /// The newest start of a node that wrote here.
    pub newest_boot: Option<Ulid>,
    /// For each site in order, what reading it showed.
    pub sites: Vec<SiteReading>,
    superseded: Superseded,
    /// Merged objects that are whole nowhere, with the sites that hold them, until all others have been read: one of those
    /// may stand for them.
    doubtful: Vec<(StoredName, usize)>,
    /// Merged objects and the sites that lack them.
    lacking: Vec<(StoredName, Vec<usize>)>,
    /// Objects that went away after they were listed, with the sites that had listed them.
    vanished: BTreeMap<StoredName, Vec<usize>>,
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
    /// It was listed, and is not there.
    Vanished,
    Unreadable,
    Whole(Bytes),
    /// Good up to the damage.
    Damaged(Bytes, ObjectDamage),
}

/// Reads and heals all sites.
pub async fn load(sites: &[Site]) -> Loaded {
    let mut loaded = Loaded { sites: vec![SiteReading::default(); sites.len()], ..Loaded::default() };
    let mut seen = BTreeSet::new();
    for _ in 0..LISTINGS_MAX {
        let held = list(sites, &mut loaded).await;
        loaded.superseded.note_listed(held.keys().copied());
        let new = held.into_iter().filter(|(name, _)| seen.insert(*name));
        // Merged ones first: what they hold decides what is healed of the others, and where records are read from.
        let (written, merged): (Vec<_>, Vec<_>) = new.partition(|(name, _)| name.written().is_some());
        let before = loaded.vanished.len();
        read_all(sites, &mut loaded, merged).await;
        for (name, number) in std::mem::take(&mut loaded.doubtful) {
            if !loaded.superseded.is_claimed(&name) {
                set_fault(&mut loaded, number, WHOLE_NOWHERE);
            }
        }
        heal_merged(sites, &mut loaded).await;
        read_all(sites, &mut loaded, written).await;
        if loaded.vanished.len() == before {
            break;
        }
    }
    let lost = loaded.vanished.iter().filter(|(name, _)| !loaded.superseded.is_claimed(name));
    for number in lost.flat_map(|(_, holders)| holders.clone()).collect::<BTreeSet<_>>() {
        set_fault(&mut loaded, number, "an object went away while it was read");
    }
    loaded
}

async fn list(sites: &[Site], loaded: &mut Loaded) -> BTreeMap<StoredName, Vec<usize>> {
    let mut held: BTreeMap<StoredName, Vec<usize>> = BTreeMap::new();
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
                set_fault(loaded, number, &error.to_string());
            }
        }
    }
    held
}

async fn read_all(sites: &[Site], loaded: &mut Loaded, objects: Vec<(StoredName, Vec<usize>)>) {
    let mut objects = stream::iter(objects)
        .map(|(name, holders)| async move {
            let copies =
                sites.iter().enumerate().map(|(number, site)| read(site, name, holders.contains(&number)));
            (name, join_all(copies).await)
        })
        .buffered(READ_AHEAD);
    while let Some((name, copies)) = objects.next().await {
        take(sites, loaded, name, &copies).await;
    }
}

async fn read(site: &Site, name: StoredName, listed: bool) -> Copy {
    if !listed {
        return Copy::Missing;
    }
    match site.get(name).await {
        Ok(bytes) => match contents::read(name, &bytes).damage {
            None => Copy::Whole(bytes),
            Some(damage) => Copy::Damaged(bytes, damage),
        },
        Err(error) if error.is_missing() => Copy::Vanished,
        Err(TransferError::TooLarge) => Copy::Damaged(Bytes::new(), ObjectDamage { offset: 0 }),
        Err(error) => {
            log::error!(site = site.label(), object:% = name, error:% = error; "an object cannot be read");
            Copy::Unreadable
        }
    }
}

/// Counts what the sites have of one object. `whole` is the copy that the others are compared with.
fn count(sites: &[Site], loaded: &mut Loaded, name: StoredName, copies: &[Copy], whole: Option<&Bytes>) {
    let is_made_good = whole.is_some() || loaded.superseded.is_claimed(&name);
    for (number, copy) in copies.iter().enumerate() {
        let damaged = match copy {
            Copy::Missing => continue,
            Copy::Vanished => {
                loaded.vanished.entry(name).or_default().push(number);
                continue;
            }
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
        if matches!(copy, Copy::Unreadable) {
            set_fault(loaded, number, WHOLE_NOWHERE);
        } else if !is_made_good && name.written().is_none() {
            loaded.doubtful.push((name, number));
        } else if !is_made_good {
            set_fault(loaded, number, WHOLE_NOWHERE);
        }
    }
}

async fn take(sites: &[Site], loaded: &mut Loaded, name: StoredName, copies: &[Copy]) {
    let whole = copies.iter().find_map(|copy| if let Copy::Whole(bytes) = copy { Some(bytes) } else { None });
    let best = whole.cloned().or_else(|| longest_good_part(copies));
    let read = best.as_ref().map(|best| contents::read(name, best));
    if let Some(read) = &read {
        let boots = read.inputs.iter().chain([&name]).filter_map(StoredName::written).map(|name| name.boot);
        loaded.newest_boot = loaded.newest_boot.max(boots.max());
        loaded.superseded.learn(read);
    }
    count(sites, loaded, name, copies, whole);
    let (Some(best), Some(read)) = (&best, read) else { return };
    let is_superseded = loaded.superseded.holds(&name, &read);
    let is_written = name.written().is_some();
    let healed = whole.filter(|_| is_written && !is_superseded);
    if whole.is_some() && !is_written {
        let lack = |(number, copy)| matches!(copy, &Copy::Missing).then_some(number);
        loaded.lacking.push((name, copies.iter().enumerate().filter_map(lack).collect()));
    }
    let mut holders: Vec<(SiteId, Bytes)> = Vec::new();
    // Whole copies that differ are all read: which of them is what was written, signatures say.
    let mut distinct = vec![best.clone()];
    for (number, (copy, site)) in copies.iter().zip(sites).enumerate() {
        match (copy, healed) {
            (Copy::Whole(bytes) | Copy::Damaged(bytes, _), _) => {
                holders.push((site.id(), bytes.clone()));
                if matches!(copy, Copy::Whole(_)) && !distinct.contains(bytes) {
                    distinct.push(bytes.clone());
                }
            }
            (Copy::Missing, Some(whole)) if heal(site, loaded, number, name, whole).await => {
                holders.push((site.id(), whole.clone()));
            }
            (Copy::Missing | Copy::Vanished | Copy::Unreadable, _) => {}
        }
    }
    for copy in &distinct {
        index_object(loaded, name, copy, &holders);
    }
}

/// Copies merged objects to sites that lack them. All of them were read before: one may stand for another.
async fn heal_merged(sites: &[Site], loaded: &mut Loaded) {
    for (name, lacking) in std::mem::take(&mut loaded.lacking) {
        if lacking.is_empty() {
            continue;
        }
        for source in sites.iter().enumerate().filter(|(number, _)| !lacking.contains(number)) {
            let Copy::Whole(whole) = read(source.1, name, true).await else { continue };
            if loaded.superseded.holds(&name, &contents::read(name, &whole)) {
                break;
            }
            let mut holders = Vec::new();
            for number in &lacking {
                let Some(site) = sites.get(*number) else { continue };
                if heal(site, loaded, *number, name, &whole).await {
                    holders.push((site.id(), whole.clone()));
                }
            }
            index_object(loaded, name, &whole, &holders);
            break;
        }
    }
}

fn longest_good_part(copies: &[Copy]) -> Option<Bytes> {
    copies
        .iter()
        .filter_map(|copy| match copy {
            Copy::Damaged(bytes, damage) => Some(bytes.slice(..damage.offset.min(bytes.len()))),
            Copy::Missing | Copy::Vanished | Copy::Unreadable | Copy::Whole(_) => None,
        })
        .max_by_key(Bytes::len)
}

fn set_fault(loaded: &mut Loaded, number: usize, fault: &str) {
    if let Some(reading) = loaded.sites.get_mut(number) {
        reading.fault.get_or_insert_with(|| fault.to_owned());
    }
}

/// Copies an object to a site that lacks it. Returns whether the site holds it now.
async fn heal(site: &Site, loaded: &mut Loaded, number: usize, name: StoredName, whole: &Bytes) -> bool {
    let Some(reading) = loaded.sites.get_mut(number) else { return false };
    if reading.fault.is_some() || reading.heal_fault {
        return false;
    }
    match site.put(name, whole.clone()).await {
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

fn index_object(loaded: &mut Loaded, name: StoredName, best: &[u8], holders: &[(SiteId, Bytes)]) {
    let object = name.to_string();
    for (position, record) in contents::read(name, best).records {
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
        if !loaded.index.add(kind, position, location, record.body, &sites) {
            log::error!(object = object.as_str(), offset = record.offset; "a stored batch has no meaning");
        }
    }
}
