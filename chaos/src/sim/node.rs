//! One life of a node of the cloud: the engine, and a writer that puts one object at a time to all sites.
//!
//! **Invariant**: names of objects are never used twice: they begin with the number of the node's life.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail};
use sonae_proto::batch::Batch;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Hash32, LogName};
use sonae_proto::intake::{Intake, Location, StoredBatch, Ticket};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::receipt::SiteId;

use super::board::{Board, site};
use super::later;

/// The disk of one site.
#[derive(Debug, Default, Clone)]
pub(crate) struct Site {
    pub objects: BTreeMap<String, Vec<u8>>,
    pub is_down: bool,
    /// Puts that it will miss.
    pub misses: u64,
    /// What is put before this moment is not listed before it.
    pub lists_after: u64,
    /// Objects that are not listed before a moment.
    pub late: BTreeMap<String, u64>,
}

/// An object on its way to the sites.
#[derive(Debug)]
pub(crate) struct Writing {
    pub tickets: Vec<(Ticket, Location)>,
    pub name: String,
    pub bytes: Vec<u8>,
    /// Sites that have not answered.
    pub left: BTreeSet<usize>,
    pub done: Vec<usize>,
}

/// One life of a node.
pub(crate) struct Node {
    pub boot: u64,
    pub intake: Intake,
    pub queue: VecDeque<(Ticket, RecordKind, Vec<u8>)>,
    pub writing: Option<Writing>,
    objects: u64,
    /// After an object that missed the quorum: until when none is put, and how long that pause is.
    pause: (u64, Option<u64>),
}

/// Shortest and longest pause of a writer after the second such object in a row, in milliseconds.
const PAUSE_MS: (u64, u64) = (250, 15_000);

impl Node {
    /// Starts from what the sites hold, as a node does. `heal` copies objects to the sites that lack them.
    pub fn boot(board: &Board, boot: u64, sites: &mut [Site], mut intake: Intake, how: Boot) -> Result<Self> {
        if how.heal {
            let all: BTreeMap<String, Vec<u8>> =
                sites.iter().filter(|s| !s.is_down).flat_map(|s| s.objects.clone()).collect();
            sites.iter_mut().filter(|s| !s.is_down).for_each(|s| s.objects.clone_from(&all));
        }
        let readable = sites.iter().filter(|site| !site.is_down).count();
        intake.set_complete(readable > sites.len() - how.quorum);
        load(&mut intake, board, sites, how.quorum)?;
        Ok(Self { boot, intake, queue: VecDeque::new(), writing: None, objects: 0, pause: (0, None) })
    }

    /// Returns a record that is not put, because the writer pauses.
    pub fn give_back(&mut self, now: u64) -> Option<Ticket> {
        let pauses = self.writing.is_none() && now < self.pause.0;
        pauses.then(|| self.queue.pop_front())?.map(|(ticket, ..)| ticket)
    }

    /// Notes what came of an object.
    pub fn pause_after(&mut self, reached_quorum: bool, now: u64) {
        let wait = self.pause.1.map_or(0, |wait| (wait * 2).clamp(PAUSE_MS.0, PAUSE_MS.1));
        self.pause = if reached_quorum { (0, None) } else { (now + wait, Some(wait)) };
    }

    /// Makes the next object of at most `records` records, unless one is being put.
    pub fn begin_put(&mut self, sites: usize, records: usize, is_later: bool) -> bool {
        if self.writing.is_some() || self.queue.is_empty() {
            return false;
        }
        self.objects += 1;
        let name = format!("{:06}-{:06}", self.boot, self.objects);
        let (mut bytes, mut tickets) = (Vec::new(), Vec::new());
        while tickets.len() < records
            && let Some((ticket, kind, body)) = self.queue.pop_front()
        {
            let offset = u64::try_from(object::append(&mut bytes, kind, &body)).unwrap_or(u64::MAX);
            let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
            tickets.push((ticket, Location { object: name.clone(), offset, bytes: length }));
            if is_later {
                bytes.extend(later::record());
            }
        }
        self.writing = Some(Writing { tickets, name, bytes, left: (0..sites).collect(), done: Vec::new() });
        true
    }
}

/// How a node starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot {
    pub quorum: usize,
    pub heal: bool,
}

/// What the sites hold.
#[derive(Default)]
struct Found {
    /// By log, first sequence and hash: the order in which batches are loaded.
    batches: BTreeMap<(LogName, u64, Hash32), (StoredBatch, Vec<SiteId>)>,
    documents: BTreeMap<(bool, Vec<u8>), BTreeSet<usize>>,
    /// Roots of snapshots, and parts by their hash and object, with where each lies and the sites that have it there.
    roots: BTreeMap<String, Vec<SiteId>>,
    parts: BTreeMap<(Hash32, String), (Location, Vec<SiteId>)>,
}

fn load(intake: &mut Intake, board: &Board, sites: &[Site], quorum: usize) -> Result<()> {
    let mut found = Found::default();
    for (number, disk) in sites.iter().enumerate().filter(|(_, disk)| !disk.is_down) {
        for (name, bytes) in &disk.objects {
            let (records, damage) = object::records(bytes);
            if let Some(damage) = damage {
                return Err(damage).context("an object that was put whole is damaged");
            }
            for record in records {
                find(&mut found, number, name, &record)?;
            }
        }
    }
    for ((is_keys, body), holders) in found.documents {
        let (kind, known) = if is_keys {
            (RecordKind::Keys, intake.load_keys(&serde_json::from_slice(&body)?))
        } else {
            let text: IdentityText = serde_json::from_slice(&body)?;
            (RecordKind::Identity, intake.load_identity(&text, board.school))
        };
        if !known {
            bail!("a stored document does not verify");
        }
        if holders.len() < quorum {
            intake.load_undurable(board.school, kind, body);
        }
    }
    for (stored, holders) in found.batches.into_values() {
        intake.load_batch(stored, holders);
    }
    // Of several copies of a part the one that most sites have comes last.
    let mut parts: Vec<_> = found.parts.into_iter().collect();
    parts.sort_by_key(|(_, (_, holders))| holders.len());
    for ((hash, _), (location, holders)) in parts {
        intake.load_snapshot_part(board.school, hash, location, holders);
    }
    for (text, holders) in found.roots {
        intake.load_snapshot(board.school, &text, holders);
    }
    Ok(())
}

fn find(found: &mut Found, number: usize, name: &str, record: &object::Record<'_>) -> Result<()> {
    let location = Location {
        object: name.to_owned(),
        offset: u64::try_from(record.offset)?,
        bytes: u64::try_from(record.body.len())?,
    };
    match record.kind {
        Some(RecordKind::Batch) => {
            let header = *Batch::from_bytes(record.body.to_vec())?.header();
            let stored = StoredBatch { header, location };
            let key = (header.log, header.first, header.hash());
            let (place, holders) = found.batches.entry(key).or_insert_with(|| (stored.clone(), Vec::new()));
            *place = stored;
            add_site(holders, number);
        }
        Some(RecordKind::Snapshot) => {
            let text = String::from_utf8(record.body.to_vec())?;
            add_site(found.roots.entry(text).or_default(), number);
        }
        Some(RecordKind::SnapshotPart) => {
            let hash = Hash32(*blake3::hash(record.body).as_bytes());
            let part = found.parts.entry((hash, name.to_owned()));
            add_site(&mut part.or_insert_with(|| (location, Vec::new())).1, number);
        }
        Some(kind) => {
            let key = (kind == RecordKind::Keys, record.body.to_vec());
            found.documents.entry(key).or_default().insert(number);
        }
        // Of a later version.
        None => {}
    }
    Ok(())
}

fn add_site(holders: &mut Vec<SiteId>, number: usize) {
    if !holders.contains(&site(number)) {
        holders.push(site(number));
    }
}

/// Reads a stored record from whichever site has it.
pub(crate) fn read(sites: &[Site], location: &Location) -> Option<Vec<u8>> {
    let start = usize::try_from(location.offset).ok()?;
    let end = start + usize::try_from(location.bytes).ok()?;
    let object = sites.iter().filter(|s| !s.is_down).find_map(|s| s.objects.get(&location.object))?;
    object.get(start..end).map(<[u8]>::to_vec)
}
