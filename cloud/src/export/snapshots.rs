//! Snapshots of one school as the sites hold them: which are written, and what of the logs only they can tell.
//!
//! Of each tier the newest whole one is written, and each further one that holds changes which nobody can read in the
//! batches, since their key is destroyed or they are missing, and which none of those before it holds. What the others add
//! up to, these and the batches add up to as well.
//!
//! **Invariant**: one counts only if its author's signature holds, its author is not revoked, its key stands, and no head
//! that it names parts from the chains.
//! **Invariant**: texts of roots and names of parts are held in memory, never parts: those are written as they are read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::destruction::Destroyed;
use sonae_proto::export::{
    BatchLine, Line, Place, Problem, SnapshotLine, key_name, snapshot_part_file, snapshot_root_file,
};
use sonae_proto::ids::{Hash32, LogName, SchoolCode, Tier};
use sonae_proto::manifest::{Epoch, KeyUse};
use sonae_proto::snapshot::{Snapshot, SnapshotRoot};
use sonae_proto::vector::Heads;

use super::ExportError;
use super::documents::{Documents, NO_MEANING};
use super::out::Out;
use crate::contents::Position;
use crate::object_name::StoredName;

/// A snapshot that was found.
#[derive(Debug)]
struct Candidate {
    root: SnapshotRoot,
    text: String,
    position: Position,
    verified: bool,
    /// Whether nobody can open it.
    is_destroyed: bool,
}

impl Candidate {
    /// Newer is what adds up more changes; of equals what is sealed to newer keys, as a node has it.
    fn age(&self) -> (u64, u32, u32) {
        let Epoch { year, rotation } = Epoch::of(self.root.epoch);
        (self.root.changes(), rotation, year)
    }

    fn covers(&self, (log, sequence): (LogName, u64)) -> bool {
        self.root.heads.get(&log).is_some_and(|head| head.sequence >= sequence)
    }
}

/// One that is written.
#[derive(Debug)]
struct Chosen {
    candidate: Candidate,
    root_file: String,
    /// Files of parts by their numbers, as far as they were written.
    files: BTreeMap<usize, String>,
}

impl Chosen {
    fn is_whole(&self) -> bool {
        self.files.len() == self.candidate.root.parts.len()
    }
}

/// The snapshots of one school.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Texts as they were found, until all identities are known.
    texts: BTreeMap<Hash32, (Vec<u8>, Position)>,
    candidates: Vec<Candidate>,
    /// Parts that candidates name, with the objects that hold them.
    parts: BTreeMap<Hash32, BTreeSet<StoredName>>,
    chosen: Vec<Chosen>,
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}

impl Snapshots {
    /// Takes the text of a root; one of another school is passed over.
    pub fn add_root(&mut self, school: SchoolCode, body: &[u8], position: Position) {
        let root = std::str::from_utf8(body).ok().and_then(Snapshot::peek);
        if root.is_none_or(|root| root.school == school) {
            self.texts.entry(hash(body)).or_insert_with(|| (body.to_owned(), position));
        }
    }

    /// Decides which count, once all documents are known.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn judge(&mut self, documents: &mut Documents, out: &mut Out) -> Result<(), ExportError> {
        let destroyed = documents.destroyed();
        for (body, position) in std::mem::take(&mut self.texts).into_values() {
            let text = std::str::from_utf8(&body).ok();
            let Some((text, root)) = text.and_then(|text| Some((text, Snapshot::peek(text)?))) else {
                documents.foreign("snapshot", &body, NO_MEANING.into(), out)?;
                continue;
            };
            if let Some(objection) = documents.objection_to_root(text, &root) {
                documents.foreign("snapshot", text.as_bytes(), objection, out)?;
            } else if documents.counts_root(&root) {
                let is_destroyed = destroyed.contains(KeyUse::Tier(root.tier), root.epoch);
                let (text, verified) = (text.to_owned(), documents.verifies());
                self.candidates.push(Candidate { root, text, position, verified, is_destroyed });
            }
        }
        let named = self.candidates.iter().filter(|candidate| !candidate.is_destroyed);
        let named = named.flat_map(|candidate| &candidate.root.parts);
        self.parts = named.map(|part| (part.hash, BTreeSet::new())).collect();
        Ok(())
    }

    /// Takes note of where a part lies.
    pub fn note_part(&mut self, sealed: &[u8], object: StoredName) {
        if let Some(objects) = self.parts.get_mut(&hash(sealed)) {
            objects.insert(object);
        }
    }

    /// Returns the furthest heads that snapshots name: what they add up was durable, so it must be here.
    pub fn heads(&self) -> Heads {
        let mut heads = Heads::new();
        for (log, head) in self.candidates.iter().flat_map(|candidate| &candidate.root.heads) {
            let known = heads.entry(*log).or_insert(*head);
            if known.sequence < head.sequence {
                *known = *head;
            }
        }
        heads
    }

    /// Chooses what is written, and writes the roots. Returns the objects that hold the parts.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn choose(
        &mut self,
        batches: &[BatchLine],
        destroyed: &Destroyed,
        out: &mut Out,
    ) -> Result<BTreeSet<StoredName>, ExportError> {
        let ends = Ends::of(batches);
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain(|candidate| !candidate.is_destroyed && ends.lead_to(&candidate.root.heads));
        candidates.sort_by_key(|candidate| Reverse((candidate.age(), candidate.position)));
        let mut chosen = Vec::new();
        for tier in Tier::ALL {
            let (of_tier, others): (Vec<_>, _) =
                candidates.into_iter().partition(|one| one.root.tier == tier);
            candidates = others;
            let closed = closed(batches, tier, destroyed).into_iter().map(|batch| (batch.log, batch.last));
            let heads = of_tier.iter().flat_map(|candidate| &candidate.root.heads);
            let missing = heads.map(|(log, head)| (*log, head.sequence)).filter(|place| !ends.has(*place));
            let unread = closed.chain(missing).collect();
            chosen.append(&mut self.choose_of_tier(of_tier, unread));
        }
        let mut objects = BTreeSet::new();
        for candidate in chosen {
            let root_file = out.write(&snapshot_root_file(&candidate.root), candidate.text.as_bytes())?;
            let places = candidate.root.parts.iter().filter_map(|part| self.parts.get(&part.hash));
            objects.extend(places.flatten().copied());
            self.chosen.push(Chosen { candidate, root_file, files: BTreeMap::new() });
        }
        Ok(objects)
    }

    /// Chooses of the candidates of one tier, the newest first. `unread` are changes that nobody can read in the batches.
    fn choose_of_tier(&self, candidates: Vec<Candidate>, mut unread: Vec<(LogName, u64)>) -> Vec<Candidate> {
        let has = |hash| self.parts.get(&hash).is_some_and(|objects| !objects.is_empty());
        let is_whole = |candidate: &Candidate| candidate.root.parts.iter().all(|part| has(part.hash));
        let (whole, damaged): (Vec<_>, Vec<_>) = candidates.into_iter().partition(is_whole);
        let newest = whole.first().map(Candidate::age);
        let mut chosen: Vec<Candidate> = Vec::new();
        for candidate in whole {
            if chosen.is_empty() || unread.iter().any(|change| candidate.covers(*change)) {
                unread.retain(|change| !candidate.covers(*change));
                chosen.push(candidate);
            }
        }
        // What is not whole tells what no other tells, if not all of it.
        let mut is_newest = true;
        for candidate in damaged {
            let is_newer = std::mem::take(&mut is_newest) && newest < Some(candidate.age());
            if is_newer || unread.iter().any(|change| candidate.covers(*change)) {
                unread.retain(|change| !candidate.covers(*change));
                chosen.push(candidate);
            }
        }
        chosen
    }

    /// Writes a part, if one is of what was chosen.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn write_part(&mut self, sealed: &[u8], out: &mut Out) -> Result<(), ExportError> {
        let hash = hash(sealed);
        for chosen in &mut self.chosen {
            let root = &chosen.candidate.root;
            for (number, _) in root.parts.iter().enumerate().filter(|(_, part)| part.hash == hash) {
                chosen.files.insert(number, out.write(&snapshot_part_file(root, number), sealed)?);
            }
        }
        Ok(())
    }

    /// Returns the keys to which they are sealed.
    pub fn keys(&self) -> impl Iterator<Item = (KeyUse, u32)> + '_ {
        self.chosen
            .iter()
            .map(|chosen| (KeyUse::Tier(chosen.candidate.root.tier), chosen.candidate.root.epoch))
    }

    /// Says which are not whole, and what of the logs nobody can tell.
    pub fn problems(&self, batches: &[BatchLine], destroyed: &Destroyed) -> Vec<Problem> {
        let damaged = self.chosen.iter().filter(|chosen| !chosen.is_whole()).map(|chosen| {
            let root = &chosen.candidate.root;
            let missing = (0..root.parts.len()).filter(|number| !chosen.files.contains_key(number));
            let missing = missing.filter_map(|number| u64::try_from(number).ok()).collect();
            let (tier, author, changes) = (root.tier, root.author, root.changes());
            Problem::SnapshotNotWhole { tier, author, changes, missing }
        });
        let mut problems: Vec<Problem> = damaged.collect();
        let mut uncovered: BTreeMap<(LogName, u32), (u64, u64)> = BTreeMap::new();
        for tier in Tier::ALL {
            for batch in closed(batches, tier, destroyed) {
                let mut whole = self.chosen.iter().filter(|chosen| chosen.is_whole());
                if !whole.any(|chosen| chosen.candidate.covers((batch.log, batch.last))) {
                    let range =
                        uncovered.entry((batch.log, batch.epoch)).or_insert((batch.first, batch.last));
                    *range = (range.0.min(batch.first), range.1.max(batch.last));
                }
            }
        }
        problems.extend(uncovered.into_iter().map(|((log, epoch), (first, last))| {
            let key = key_name(KeyUse::Tier(log.tier), epoch);
            Problem::Uncovered { key, log, first, last }
        }));
        problems
    }

    /// Returns the lines of the index.
    pub fn lines(self) -> Vec<Line> {
        let lines = self.chosen.into_iter().map(|chosen| {
            let whole = chosen.is_whole();
            let Chosen { candidate: Candidate { root, text, verified, .. }, root_file, files } = chosen;
            Line::Snapshot(Box::new(SnapshotLine {
                tier: root.tier,
                epoch: root.epoch,
                author: root.author,
                hash: hash(text.as_bytes()),
                changes: root.changes(),
                records: root.records,
                parts: u64::try_from(root.parts.len()).unwrap_or(u64::MAX),
                root_file,
                files: files.into_values().collect(),
                whole,
                verified,
            }))
        });
        lines.collect()
    }
}

/// Returns the batches of a tier that are part of its logs and whose key the board has destroyed.
fn closed<'a>(batches: &'a [BatchLine], tier: Tier, destroyed: &Destroyed) -> Vec<&'a BatchLine> {
    let is_of_log = |batch: &&BatchLine| {
        batch.log.tier == tier && matches!(batch.place, Place::Chain | Place::BehindAGap)
    };
    let is_closed = |batch: &&BatchLine| destroyed.contains(KeyUse::Tier(tier), batch.epoch);
    batches.iter().filter(is_of_log).filter(is_closed).collect()
}

/// Ends of batches in the chains.
struct Ends<'a> {
    ends: BTreeMap<(LogName, u64), &'a BatchLine>,
}

impl<'a> Ends<'a> {
    fn of(batches: &'a [BatchLine]) -> Self {
        let in_chain = batches.iter().filter(|batch| batch.place == Place::Chain);
        Self { ends: in_chain.map(|batch| ((batch.log, batch.last), batch)).collect() }
    }

    fn has(&self, end: (LogName, u64)) -> bool {
        self.ends.contains_key(&end)
    }

    /// Whether no head parts from the chains. One beyond a chain's end does not: something is missing there, and a snapshot
    /// tells what of it still stands.
    fn lead_to(&self, heads: &Heads) -> bool {
        heads.iter().all(|(log, head)| {
            let at_or_behind = self.ends.range((*log, head.sequence)..=(*log, u64::MAX)).next();
            at_or_behind.is_none_or(|(_, batch)| batch.last == head.sequence && batch.hash == head.hash)
        })
    }
}
