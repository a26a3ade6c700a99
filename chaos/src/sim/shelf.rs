//! The snapshots that a box keeps: roots, parts, what its tiers begin with and what it has made itself.
//!
//! Models the shelf of `edge/store`, with its files as frames of the journal: what is named later is durable earlier.
//! **Invariant**: a snapshot is read whole and added up, or not at all.

use std::collections::BTreeMap;

use sonae_proto::digest::DigestKey;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::snapshot::{PartName, Record, Snapshot, SnapshotRoot, Sum, read_part};
use sonae_proto::vector::{Heads, LogHead};

use super::item::Item;
use super::seal;

/// What is remembered of the newest snapshot of a tier that was made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Made {
    pub root: Hash32,
    /// How many own changes were sealed then.
    pub sealed: u64,
    /// The loss counter under which the cloud has it.
    pub safe_under: Option<u64>,
}

/// What lies on the shelf of a box.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    roots: BTreeMap<Hash32, String>,
    parts: BTreeMap<Hash32, Vec<u8>>,
    /// What tiers begin with.
    pub foundations: BTreeMap<Tier, Hash32>,
    pub made: BTreeMap<Tier, Made>,
}

impl Shelf {
    pub fn put_root(&mut self, text: String) {
        self.roots.insert(Hash32(*blake3::hash(text.as_bytes()).as_bytes()), text);
    }

    pub fn put_part(&mut self, sealed: Vec<u8>) {
        self.parts.insert(PartName::of(&sealed).hash, sealed);
    }

    /// Remembers a newer one of a tier, and forgets the one before unless the tier begins with it.
    pub fn set_made(&mut self, tier: Tier, made: Made) {
        let before = self.made.insert(tier, made).map(|made| made.root);
        if let Some(root) = before.filter(|root| *root != made.root)
            && self.foundations.get(&tier) != Some(&root)
        {
            self.roots.remove(&root);
            let roots: Vec<_> = self.roots.values().filter_map(|text| Snapshot::peek(text)).collect();
            let is_named =
                |hash: &Hash32| roots.iter().flat_map(|root| &root.parts).any(|part| part.hash == *hash);
            self.parts.retain(|hash, _| is_named(hash));
        }
    }

    pub fn text(&self, root: Hash32) -> Option<&str> {
        self.roots.get(&root).map(String::as_str)
    }

    pub fn root(&self, root: Hash32) -> Option<SnapshotRoot> {
        Snapshot::peek(self.text(root)?)
    }

    pub fn part(&self, name: &PartName) -> Option<&Vec<u8>> {
        self.parts.get(&name.hash)
    }

    /// The places of the parts that are here of a snapshot.
    pub fn has(&self, root: Hash32) -> Vec<u32> {
        let parts = self.root(root).map(|root| root.parts).unwrap_or_default();
        parts
            .iter()
            .zip(0..)
            .filter(|(part, _)| self.part(part).is_some())
            .map(|(_, number)| number)
            .collect()
    }

    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Where the batches of a peer's log begin.
    pub fn base(&self, log: LogName) -> LogHead {
        let root = self.foundations.get(&log.tier).and_then(|root| self.root(*root));
        root.and_then(|root| root.heads.get(&log).copied()).unwrap_or(LogHead::EMPTY)
    }

    /// Where the batches of all logs begin that do not begin with their first change.
    pub fn bases(&self) -> Heads {
        self.foundations.values().filter_map(|root| self.root(*root)).flat_map(|root| root.heads).collect()
    }

    /// Reads all parts of a snapshot, sealed by the double, and adds them up.
    pub fn read(
        &self,
        root: Hash32,
        key: DigestKey,
    ) -> Result<(SnapshotRoot, Vec<Record>, Sum), &'static str> {
        self.read_with(root, key, |_, sealed| Some(seal::open(sealed)))
    }

    /// The same with another way of opening a part to its lines.
    pub fn read_with(
        &self,
        root: Hash32,
        key: DigestKey,
        open: impl Fn(&SnapshotRoot, &[u8]) -> Option<Vec<Vec<u8>>>,
    ) -> Result<(SnapshotRoot, Vec<Record>, Sum), &'static str> {
        let root = self.root(root).ok_or("is not there whole")?;
        let (mut sum, mut all) = (Sum::new(key), Vec::new());
        for part in &root.parts {
            let sealed = self.part(part).ok_or("is not there whole")?;
            let mut lines = open(&root, sealed).ok_or("has a part that cannot be opened")?.join(&b'\n');
            lines.push(b'\n');
            let records = read_part(&lines).map_err(|_| "has a part that cannot be read")?;
            records.iter().for_each(|record| sum.add(record));
            all.extend(records);
        }
        if sum.is_of(&root) {
            Ok((root, all, sum))
        } else {
            Err("does not add up to the state that it names")
        }
    }

    /// Everything again, for a journal that is to forget its past.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let parts = self.parts.values().cloned().map(Item::Part);
        let roots = self.roots.values().cloned().map(Item::Root);
        let foundations = self.foundations.iter().map(|(tier, root)| Item::Founded(*tier, *root));
        let made = self.made.iter().map(|(tier, made)| Item::Made(*tier, *made));
        parts.chain(roots).chain(foundations).chain(made)
    }
}
