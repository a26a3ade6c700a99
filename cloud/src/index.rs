//! What the sites hold, put together at the start of a node: which records, on which sites, in which order.
//!
//! **Invariant**: a site counts for a record only when its own bytes of that record were read and checked.
//! Two batches for one place in a log (equivocation) are both kept at the sites. The log continues with the one
//! that was written later: a batch that got a receipt is never followed by another for its place, but one
//! whose write failed on some site may be.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::identity::{DeviceCertificate, IdentityText};
use sonae_proto::ids::{Hash32, LogName, SchoolCode};
use sonae_proto::intake::{Intake, Location, StoredBatch};
use sonae_proto::object::RecordKind;
use sonae_proto::receipt::SiteId;
use sonae_proto::signed::Signed;
use sonae_proto::snapshot::Snapshot;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::KeyDocuments;

use crate::contents::Position;

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Index {
    batches: BTreeMap<(SchoolCode, LogName), OfLog>,
    documents: Vec<FoundDocument>,
    document_places: BTreeMap<[u8; 32], usize>,
    /// Sealed parts of snapshots by their hash, each where most sites have it.
    parts: BTreeMap<Hash32, FoundPart>,
    meaningless: usize,
}

/// By hash and signature: of two batches that differ in their signature only, one is forged.
type OfLog = BTreeMap<(Hash32, [u8; 64]), FoundBatch>;

#[derive(Debug)]
struct FoundBatch {
    stored: StoredBatch,
    signature: Signature,
    sites: Vec<SiteId>,
    /// Sites of the object that `stored` points into.
    sites_there: usize,
    newest: Position,
}

#[derive(Debug)]
struct FoundPart {
    location: Location,
    sites: Vec<SiteId>,
}

#[derive(Debug)]
struct FoundDocument {
    first: Position,
    kind: RecordKind,
    body: Vec<u8>,
    sites: Vec<SiteId>,
}

/// What came of telling the engine.
#[derive(Debug, Default)]
pub struct Fed {
    /// Batches that are part of a log.
    pub batches: usize,
    /// Batches for whose place there is another.
    pub equivocations: usize,
    /// Batches that do not follow from the first of their log: something before them is lost.
    pub cut_off: usize,
    /// Batches that their incarnation did not sign. They stay at the sites and are part of no log.
    pub forged: usize,
    /// Batches whose incarnation no document names, so that nobody can tell who wrote them.
    pub nameless: usize,
    /// Batches whose bytes are not those that their header names, under a checksum that is right all the same.
    pub meaningless: usize,
    /// Documents that the board did not sign.
    pub foreign_documents: usize,
    /// Snapshots that count.
    pub snapshots: usize,
    /// Batches of a log that are on fewer sites than the quorum.
    pub undurable: Vec<StoredBatch>,
}

impl Index {
    /// Notes a record that was read and checked at `sites`, in any order. Returns whether its body has a meaning.
    pub fn add(
        &mut self,
        kind: RecordKind,
        position: Position,
        location: Location,
        body: &[u8],
        sites: &[SiteId],
    ) -> bool {
        match kind {
            RecordKind::Batch => {
                let has_meaning = self.add_batch(position, location, body, sites);
                self.meaningless += usize::from(!has_meaning);
                has_meaning
            }
            RecordKind::Identity | RecordKind::Keys | RecordKind::Snapshot | RecordKind::Proof => {
                self.add_document(kind, position, body, sites);
                true
            }
            RecordKind::SnapshotPart => {
                let hash = Hash32(*blake3::hash(body).as_bytes());
                let known = self.parts.get(&hash).map_or(0, |known| known.sites.len());
                if sites.len() > known {
                    self.parts.insert(hash, FoundPart { location, sites: sites.to_vec() });
                }
                true
            }
            // It says what an object is made of, and the reader of objects has used it.
            RecordKind::Inputs => true,
        }
    }

    fn add_batch(&mut self, position: Position, location: Location, body: &[u8], sites: &[SiteId]) -> bool {
        let Ok(batch) = Batch::from_bytes(body.to_vec()) else { return false };
        let (header, signature) = (*batch.header(), *batch.signature());
        let of_log = self.batches.entry((header.school, header.log)).or_default();
        let found = of_log.entry((header.hash(), signature.to_bytes())).or_insert_with(|| FoundBatch {
            stored: StoredBatch { header, location: location.clone() },
            signature,
            sites: Vec::new(),
            sites_there: 0,
            newest: position,
        });
        found.newest = found.newest.max(position);
        if sites.len() > found.sites_there {
            found.stored.location = location;
            found.sites_there = sites.len();
        }
        add_sites(&mut found.sites, sites);
        true
    }

    fn add_document(&mut self, kind: RecordKind, first: Position, body: &[u8], sites: &[SiteId]) {
        let place = *self.document_places.entry(*blake3::hash(body).as_bytes()).or_insert_with(|| {
            self.documents.push(FoundDocument { first, kind, body: body.to_vec(), sites: Vec::new() });
            self.documents.len() - 1
        });
        if let Some(document) = self.documents.get_mut(place) {
            document.first = document.first.min(first);
            add_sites(&mut document.sites, sites);
        }
    }

    /// Tells the engine everything, documents first, and of these evidence last: it names identities.
    pub fn feed(mut self, intake: &mut Intake, board: &VerifyingKey, quorum: usize) -> Fed {
        self.documents.sort_by_key(|document| document.first);
        let mut fed = Fed { meaningless: self.meaningless, ..Fed::default() };
        let is_root = |document: &FoundDocument| document.kind == RecordKind::Snapshot;
        let (roots, documents): (Vec<_>, Vec<_>) = self.documents.into_iter().partition(is_root);
        let is_evidence = |document: &FoundDocument| document.kind == RecordKind::Proof;
        let (evidence, documents): (Vec<_>, Vec<_>) = documents.into_iter().partition(is_evidence);
        for document in documents.into_iter().chain(evidence) {
            let Some(school) = feed_document(intake, board, &document) else {
                fed.foreign_documents += 1;
                continue;
            };
            // Evidence that a site has lost holds up nothing; tomorrow there is more.
            if document.sites.len() < quorum && document.kind != RecordKind::Proof {
                intake.load_undurable(school, document.kind, document.body);
            }
        }
        for found in self.batches.into_values() {
            feed_log(intake, found.into_values().collect(), quorum, &mut fed);
        }
        for root in roots {
            feed_snapshot(intake, root, &self.parts, &mut fed);
        }
        fed
    }
}

fn add_sites(known: &mut Vec<SiteId>, sites: &[SiteId]) {
    for site in sites {
        if !known.contains(site) {
            known.push(*site);
        }
    }
}

fn feed_document(intake: &mut Intake, board: &VerifyingKey, document: &FoundDocument) -> Option<SchoolCode> {
    match document.kind {
        RecordKind::Identity => {
            let text: IdentityText = serde_json::from_slice(&document.body).ok()?;
            let school = Signed::<DeviceCertificate>::verify(&text.device, board).ok()?.body().school;
            intake.load_identity(&text, school).then_some(school)
        }
        RecordKind::Keys => {
            let keys: KeyDocuments = serde_json::from_slice(&document.body).ok()?;
            intake.load_keys(&keys).then_some(keys.school)
        }
        RecordKind::Proof => intake.load_proof(std::str::from_utf8(&document.body).ok()?),
        RecordKind::Batch | RecordKind::Snapshot | RecordKind::SnapshotPart | RecordKind::Inputs => None,
    }
}

/// One that names more than the logs hold any more counts for nothing: they were lost behind it.
fn feed_snapshot(
    intake: &mut Intake,
    found: FoundDocument,
    parts: &BTreeMap<Hash32, FoundPart>,
    fed: &mut Fed,
) {
    let text = String::from_utf8(found.body).unwrap_or_default();
    // Only looked at: the engine verifies it, and until then parts are bytes that nobody asks for.
    let Some(root) = Snapshot::peek(&text) else { return };
    for name in &root.parts {
        if let Some(part) = parts.get(&name.hash) {
            intake.load_snapshot_part(root.school, name.hash, part.location.clone(), part.sites.clone());
        }
    }
    fed.snapshots += usize::from(intake.load_snapshot(root.school, &text, found.sites));
}

impl FoundBatch {
    fn is_signed(&self, key: &VerifyingKey) -> bool {
        self.stored.header.is_signed(&self.signature, key)
    }
}

/// Puts the batches of one log into their order and tells the engine those that are part of it.
///
/// A signature covers, through `previous`, the headers of the whole log before it. So only rivals and the last
/// batch are verified here: each of the others is vouched for by the one behind it. A signature in the middle that
/// was damaged is found by whoever reads that batch.
fn feed_log(intake: &mut Intake, found: Vec<FoundBatch>, quorum: usize, fed: &mut Fed) {
    let Some(header) = found.first().map(|batch| batch.stored.header) else { return };
    let Some(key) = intake.key_of(header.school, header.log.incarnation) else {
        fed.nameless += found.len();
        return;
    };
    let accepted = accepted_chain(intake, &found);
    let mut by_place: BTreeMap<(u64, Hash32), Vec<FoundBatch>> = BTreeMap::new();
    for batch in found {
        let header = &batch.stored.header;
        by_place.entry((header.first, header.previous)).or_default().push(batch);
    }
    let mut chain: Vec<FoundBatch> = Vec::new();
    let mut head = LogHead::EMPTY;
    while let Some(mut rivals) = by_place.remove(&(head.sequence.saturating_add(1), head.hash)) {
        if rivals.len() > 1 {
            let all = rivals.len();
            rivals.retain(|rival| rival.is_signed(&key));
            fed.forged += all - rivals.len();
        }
        // What a revoked device made up for a place that is taken stands behind what counts, however new it is.
        rivals.sort_by_key(|rival| {
            let header = &rival.stored.header;
            (accepted.contains(&header.hash()), !intake.is_quarantined(header), rival.newest)
        });
        let Some(chosen) = rivals.pop() else { break };
        fed.equivocations += set_aside(intake, rivals);
        head = chosen.stored.header.head();
        chain.push(chosen);
    }
    while chain.last().is_some_and(|last| !last.is_signed(&key)) {
        chain.pop();
        fed.forged += 1;
    }
    for chosen in chain {
        if chosen.sites.len() < quorum {
            fed.undurable.push(chosen.stored.clone());
        }
        fed.batches += usize::from(intake.load_batch(chosen.stored, chosen.sites));
    }
    fed.cut_off += set_aside(intake, by_place.into_values().flatten());
}

/// Returns the batches of a revoked device that lead to the head that the board accepts. A rival of one of them may be
/// newer, and lie before that head as well.
fn accepted_chain(intake: &Intake, found: &[FoundBatch]) -> BTreeSet<Hash32> {
    let header = found.first().map(|batch| batch.stored.header);
    let accepted = header.and_then(|header| intake.accepted(header.school, header.log));
    leading_to(accepted, found.iter().map(|batch| &batch.stored.header))
}

/// Returns the hashes of the batches of a log that lead to a head, as far back as they are here, and the head's own.
pub(crate) fn leading_to<'a>(
    head: Option<LogHead>,
    batches: impl IntoIterator<Item = &'a BatchHeader>,
) -> BTreeSet<Hash32> {
    let previous: BTreeMap<Hash32, Hash32> =
        batches.into_iter().map(|header| (header.hash(), header.previous)).collect();
    let mut chain = BTreeSet::new();
    let mut next = head.map(|head| head.hash);
    while let Some(hash) = next.filter(|hash| chain.insert(*hash)) {
        next = previous.get(&hash).copied();
    }
    chain
}

/// Hands what is no part of its log to the quarantine, if it belongs there. Returns how many do not.
fn set_aside(intake: &mut Intake, batches: impl IntoIterator<Item = FoundBatch>) -> usize {
    let mut others = 0;
    for found in batches {
        if intake.is_quarantined(&found.stored.header) {
            intake.load_batch(found.stored, found.sites);
        } else {
            others += 1;
        }
    }
    others
}
