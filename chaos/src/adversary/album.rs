//! Snapshots that replicas of a history made honestly at some of its moments, one of another school, one by a clone of
//! its branch, and the board's word on a device that it revokes in the end. They lie beside the history: a case
//! without them is as if there were none.

use anyhow::Result;
use ed25519_dalek::SigningKey;
use sonae_proto::batch::Batch;
use sonae_proto::digest::MERGE_VERSION;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::manifest::Manifest;
use sonae_proto::object::{self, RecordKind};
use sonae_proto::revocation::{Revocation, Revocations};
use sonae_proto::signed::Signed;
use sonae_proto::snapshot::{PartName, Record, Snapshot, SnapshotRoot, Sum};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::view::{Fold, MemoryRecords};
use sonae_proto::wire::{KeyDocuments, SnapshotOffer};

use super::board::{EPOCHS, Life, School};
use super::cloud::{Object, name};
use super::history::{History, digest_key};
use crate::random::Random;

/// Moments at which snapshots were made, besides the last one.
const MOMENTS: usize = 3;

/// A snapshot as it lies at the sites.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// The moment whose state it is.
    pub moment: usize,
    pub snapshot: Snapshot,
    pub parts: Vec<Vec<u8>>,
}

/// The board's word on the device that it revokes.
pub(crate) struct Word {
    pub manifest: Signed<Manifest>,
    pub documents: KeyDocuments,
    /// Up to where the logs of the device count.
    accepted: Heads,
}

/// All of them.
pub(crate) struct Album {
    /// Those of the school, in the order in which they were made.
    pub made: Vec<Made>,
    pub foreign: Made,
    /// Of a tier as the clone saw it that forked a log.
    pub branch: Option<Made>,
    pub word: Word,
}

/// What is made of the state of a tier.
struct Content<'a> {
    school: &'a School,
    author: &'a Life,
    tier: Tier,
    epoch: usize,
    moment: usize,
    heads: Heads,
}

impl Made {
    /// What a welcome says of it.
    pub fn offer(&self) -> SnapshotOffer {
        let root = self.snapshot.root();
        let (bytes, changes) = (root.bytes(), root.changes());
        SnapshotOffer { tier: root.tier, root: self.snapshot.hash(), bytes, changes }
    }
}

impl Album {
    pub fn new(history: &History) -> Result<Self> {
        let mut random = Random::new(history.options.number, "adversary snapshots of a history");
        let last = history.moments.len() - 1;
        let mut moments: Vec<usize> = (0..MOMENTS).map(|_| random.index(last)).collect();
        moments.push(last);
        moments.sort_unstable();
        moments.dedup();
        let mut made = Vec::new();
        for moment in moments {
            for tier in Tier::ALL {
                made.extend(of_moment(history, moment, tier, &mut random)?);
            }
        }
        let foreign = foreign(history, &mut random)?;
        Ok(Self { made, foreign, branch: branch(history, &mut random)?, word: word(history, &mut random)? })
    }

    /// Whether a root says what one says that a replica of the school made: parts of the same state may be cut in
    /// another way.
    pub fn is_genuine(&self, root: &SnapshotRoot) -> bool {
        let says =
            |root: &SnapshotRoot| (root.tier, root.author, root.heads.clone(), root.digest, root.records);
        self.made.iter().chain(&self.branch).any(|made| says(made.snapshot.root()) == says(root))
    }

    /// The objects of those that there were at a moment, and of the board's word if it has been said.
    pub fn objects(&self, moment: usize, is_revoked: bool) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        if is_revoked {
            let mut bytes = Vec::new();
            object::append(&mut bytes, RecordKind::Keys, &serde_json::to_vec(&self.word.documents)?);
            objects.push((name(800, 0), bytes));
        }
        for (made, number) in self.made.iter().zip(1..).filter(|(made, _)| made.moment <= moment) {
            let mut bytes = Vec::new();
            for part in &made.parts {
                object::append(&mut bytes, RecordKind::SnapshotPart, part);
            }
            object::append(&mut bytes, RecordKind::Snapshot, made.snapshot.text().as_bytes());
            objects.push((name(800, number), bytes));
        }
        Ok(objects)
    }
}

impl Word {
    /// What a box knows that has heard it.
    pub fn revocations(&self) -> Revocations {
        let mut known = Revocations::default();
        known.learn(self.manifest.body());
        known
    }

    /// Whether a root says nothing that the board does not accept.
    pub fn lets(&self, history: &History, root: &SnapshotRoot) -> bool {
        let is_revoked = |log: &LogName| revoked(history).iter().any(|life| life.name == log.incarnation);
        let author = LogName { tier: root.tier, incarnation: root.author };
        !is_revoked(&author)
            && root.heads.iter().all(|(log, head)| !is_revoked(log) || head.sequence <= self.counted(log))
    }

    /// Heads, those of the revoked device up to what counts.
    pub fn within(&self, history: &History, heads: &Heads) -> Heads {
        let is_revoked = |log: &LogName| revoked(history).iter().any(|life| life.name == log.incarnation);
        let clamp = |(log, head): (&LogName, &LogHead)| match is_revoked(log) {
            true if head.sequence > self.counted(log) => self.accepted.get(log).map(|head| (*log, *head)),
            _ => Some((*log, *head)),
        };
        heads.iter().filter_map(clamp).collect()
    }

    fn counted(&self, log: &LogName) -> u64 {
        self.accepted.get(log).map_or(0, |head| head.sequence)
    }
}

/// All lives of the device that is revoked: the second replica, and what became of it.
fn revoked(history: &History) -> Vec<&Life> {
    history.lives.iter().filter(|life| life.tls_key == history.lives[1].tls_key).collect()
}

fn word(history: &History, random: &mut Random) -> Result<Word> {
    let heads = history.heads_at(random.index(history.moments.len()));
    let lives = revoked(history);
    let is_of = |log: &LogName| lives.iter().any(|life| life.name == log.incarnation);
    let accepted: Heads = heads.into_iter().filter(|(log, _)| is_of(log)).collect();
    let board = &history.board;
    let replica = history.lives[1].identity.verify(&board.root.verifying_key(), board.school.code)?.replica();
    let revocation = Revocation { replica, revoked_ms: 1, accepted: accepted.clone(), dropped: Heads::new() };
    let manifest = board.school.revoke(revocation, &board.root)?;
    let documents = board.school.documents_of(&manifest);
    Ok(Word { manifest, documents, accepted })
}

/// One of a tier as it stood at a moment, by somebody who had written by then: under each key that there was.
fn of_moment(history: &History, moment: usize, tier: Tier, random: &mut Random) -> Result<Vec<Made>> {
    let all = history.heads_at(moment);
    let heads: Heads =
        all.iter().filter(|(log, _)| log.tier == tier).map(|(log, head)| (*log, *head)).collect();
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let has_written = |life: &&Life| all.keys().any(|log| log.incarnation == life.name);
    let authors: Vec<&Life> = history.lives.iter().filter(has_written).collect();
    let batches = history.batches_up_to(&heads);
    let newest = batches.iter().map(|batch| batch.header().epoch).max();
    let epochs = EPOCHS.iter().position(|epoch| Some(*epoch) == newest).map_or(1, |newest| newest + 1);
    let school = &history.board.school;
    (0..epochs)
        .map(|epoch| {
            let author = authors[random.index(authors.len())];
            let content = Content { school, author, tier, epoch, moment, heads: heads.clone() };
            make(&content, &batches, random)
        })
        .collect()
}

fn foreign(history: &History, random: &mut Random) -> Result<Made> {
    let foreign = &history.foreign;
    let last = foreign.batches.last().map_or(LogHead::EMPTY, |batch| batch.header().head());
    let heads = Heads::from([(foreign.life.log(Tier::Safety), last)]);
    let (school, author) = (&history.board.other, &foreign.life);
    make(
        &Content { school, author, tier: Tier::Safety, epoch: 1, moment: 0, heads },
        &foreign.batches,
        random,
    )
}

/// What the clone made of the tier of the log that it forked, from the last moment before.
fn branch(history: &History, random: &mut Random) -> Result<Option<Made>> {
    let Some(branch) = &history.branch else { return Ok(None) };
    let (Some(first), Some(last)) = (branch.batches.first(), branch.batches.last()) else { return Ok(None) };
    let parts_at = first.header().first;
    let is_before = |moment: &usize| {
        history.heads_at(*moment).get(&branch.log).is_none_or(|head| head.sequence < parts_at)
    };
    let Some(moment) = (0..history.moments.len()).take_while(is_before).last() else { return Ok(None) };
    let Some(author) = history.lives.iter().find(|life| life.name == branch.log.incarnation) else {
        return Ok(None);
    };
    let tier = branch.log.tier;
    let mut heads = history.heads_at(moment);
    heads.retain(|log, _| log.tier == tier);
    let mut batches = history.batches_up_to(&heads);
    batches.extend(branch.batches.iter().cloned());
    heads.insert(branch.log, last.header().head());
    let epoch = EPOCHS.iter().position(|epoch| *epoch == last.header().epoch).unwrap_or(0);
    let school = &history.board.school;
    make(&Content { school, author, tier, epoch, moment, heads }, &batches, random).map(Some)
}

fn make(content: &Content<'_>, batches: &[Batch], random: &mut Random) -> Result<Made> {
    let (mut fold, mut records) = (Fold::new(digest_key()), MemoryRecords::default());
    for batch in batches {
        let header = batch.header();
        for (line, sequence) in content.school.open(batch)?.iter().zip(header.first..) {
            fold.apply(&mut records, header.log, sequence, line)?;
        }
    }
    let all: Vec<Record> = records
        .records
        .into_iter()
        .filter(|((tier, _, _), _)| *tier == content.tier)
        .map(|((_, collection, record), state)| Record { collection, record, state })
        .collect();
    let (mut sum, mut parts) = (Sum::new(digest_key()), Vec::new());
    for records in all.chunks(1 + random.index(2)) {
        let mut lines = Vec::new();
        for record in records {
            sum.add(record);
            let line = record.to_line()?;
            lines.push(line.strip_suffix(b"\n").unwrap_or(&line).to_vec());
        }
        parts.push(content.school.seal_payload((content.tier, content.epoch), &lines, random.bits())?);
    }
    let root = SnapshotRoot {
        school: content.school.code,
        tier: content.tier,
        author: content.author.name,
        epoch: EPOCHS[content.epoch],
        manifest: content.school.manifest(content.epoch),
        merge_version: MERGE_VERSION,
        heads: content.heads.clone(),
        digest: sum.digest(),
        records: u64::try_from(all.len())?,
        parts: parts.iter().map(|part| PartName::of(part)).collect(),
    };
    Ok(Made { moment: content.moment, snapshot: Snapshot::sign(root, &content.author.key)?, parts })
}

/// The key of a life, which a thief may have.
pub(crate) fn key_of(history: &History, root: &SnapshotRoot) -> Option<SigningKey> {
    history.lives.iter().find(|life| life.name == root.author).map(|life| life.key.clone())
}
