//! A node of the cloud: the engine, a writer that writes one object at a time, and sites in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sonae_proto::batch::Batch;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Hash32, LogName};
use sonae_proto::intake::{Intake, Location, StoredBatch, Ticket};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::receipt::SiteId;

use crate::board::{Board, school, site};

/// The disk of one site.
#[derive(Debug, Default, Clone)]
pub struct Site {
    pub objects: BTreeMap<String, Vec<u8>>,
    pub is_down: bool,
}

impl Site {
    /// Loses its newest objects.
    pub fn lose_tail(&mut self, count: usize) {
        let keep = self.objects.len().saturating_sub(count);
        self.objects = std::mem::take(&mut self.objects).into_iter().take(keep).collect();
    }

    /// Names of the batches that it holds.
    pub fn batches(&self) -> BTreeSet<Hash32> {
        let of_object = |bytes: &Vec<u8>| -> Vec<Hash32> {
            let batch = |record: object::Record<'_>| Batch::from_bytes(record.body.to_vec()).ok();
            object::records(bytes).0.into_iter().filter_map(batch).map(|b| b.header().hash()).collect()
        };
        self.objects.values().flat_map(of_object).collect()
    }
}

/// An object on its way to the sites.
#[derive(Debug)]
pub struct Writing {
    pub ticket: Ticket,
    pub name: String,
    pub bytes: Vec<u8>,
    pub location: Location,
    /// Sites that have not answered.
    pub left: BTreeSet<usize>,
    pub done: Vec<usize>,
}

/// One life of a node.
pub struct Node {
    pub boot: u64,
    pub intake: Intake,
    pub queue: VecDeque<(Ticket, RecordKind, Vec<u8>)>,
    pub writing: Option<Writing>,
    objects: u64,
}

impl Node {
    /// Starts from what the sites hold, as a node does. `heal` copies objects to the sites that lack them.
    pub fn boot(
        board: &Board,
        boot: u64,
        sites: &mut [Site],
        quorum: usize,
        heal: bool,
        sabotage: bool,
    ) -> Self {
        if heal {
            let all: BTreeMap<String, Vec<u8>> =
                sites.iter().filter(|s| !s.is_down).flat_map(|s| s.objects.clone()).collect();
            sites.iter_mut().filter(|s| !s.is_down).for_each(|s| s.objects = all.clone());
        }
        let mut intake = board.intake_of(sites.len(), quorum, sabotage);
        let readable = sites.iter().filter(|site| !site.is_down).count();
        intake.set_complete(readable > sites.len() - quorum);
        load(&mut intake, sites, quorum);
        Self { boot, intake, queue: VecDeque::new(), writing: None, objects: 0 }
    }

    /// Takes the next record from the queue, unless one is being written.
    pub fn begin_write(&mut self, sites: usize) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let Some((ticket, kind, body)) = self.queue.pop_front() else { return false };
        self.objects += 1;
        let name = format!("{:06}-{:06}", self.boot, self.objects);
        let mut bytes = Vec::new();
        let offset = object::append(&mut bytes, kind, &body) as u64;
        let location = Location { object: name.clone(), offset, bytes: body.len() as u64 };
        let left = (0..sites).collect();
        self.writing = Some(Writing { ticket, name, bytes, location, left, done: Vec::new() });
        true
    }
}

type Holders = (Option<StoredBatch>, Vec<SiteId>);

/// What the sites hold.
#[derive(Default)]
struct Found {
    /// By log, first sequence and hash: the order in which batches are loaded.
    batches: BTreeMap<(LogName, u64, Hash32), Holders>,
    documents: BTreeMap<(u8, Vec<u8>), usize>,
}

fn load(intake: &mut Intake, sites: &[Site], quorum: usize) {
    let mut found = Found::default();
    for (number, disk) in sites.iter().enumerate().filter(|(_, disk)| !disk.is_down) {
        for (name, bytes) in &disk.objects {
            let (records, damage) = object::records(bytes);
            assert_eq!(damage, None, "object {name}");
            for record in records {
                find(&mut found, number, name, &record);
            }
        }
    }
    for ((kind, body), copies) in found.documents {
        let kind = if kind == 2 { RecordKind::Identity } else { RecordKind::Keys };
        let known = match kind {
            RecordKind::Identity => {
                let text: IdentityText = serde_json::from_slice(&body).unwrap();
                intake.load_identity(&text, school())
            }
            _ => intake.load_keys(&serde_json::from_slice(&body).unwrap()),
        };
        assert!(known, "a stored document verifies");
        if copies < quorum {
            intake.load_undurable(school(), kind, body);
        }
    }
    for (stored, holders) in found.batches.into_values() {
        intake.load_batch(stored.unwrap(), holders);
    }
}

fn find(found: &mut Found, number: usize, name: &str, record: &object::Record<'_>) {
    match record.kind.unwrap() {
        RecordKind::Batch => {
            let header = *Batch::from_bytes(record.body.to_vec()).unwrap().header();
            let entry = found.batches.entry((header.log, header.first, header.hash())).or_default();
            let location = Location {
                object: name.to_owned(),
                offset: record.offset as u64,
                bytes: record.body.len() as u64,
            };
            entry.0 = Some(StoredBatch { header, location });
            if !entry.1.contains(&site(number)) {
                entry.1.push(site(number));
            }
        }
        RecordKind::Identity => *found.documents.entry((2, record.body.to_vec())).or_default() += 1,
        RecordKind::Keys => *found.documents.entry((3, record.body.to_vec())).or_default() += 1,
        kind => panic!("{kind:?}: nobody makes snapshots here"),
    }
}

/// Reads a stored batch from whichever site has it.
pub fn read(sites: &[Site], stored: &StoredBatch) -> Option<Vec<u8>> {
    let start = usize::try_from(stored.location.offset).unwrap();
    let end = start + usize::try_from(stored.location.bytes).unwrap();
    let object = sites.iter().filter(|s| !s.is_down).find_map(|s| s.objects.get(&stored.location.object))?;
    Some(object[start..end].to_vec())
}
