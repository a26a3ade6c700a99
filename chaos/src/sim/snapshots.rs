//! Snapshots at the boxes: made of the view, offered, fetched in place of the beginnings of logs, laid under a tier.
//!
//! Models the keeper and the driver of `edge`; formats and engines are the real ones.
//! **Invariants** that it checks: a snapshot is made of a view that adds up to the digest that was kept of it; what a
//! tier begins with shows exactly what its author knew; a box that knows of a revocation begins with nothing behind it;
//! a box calls only that safe which was receipted.

use std::collections::BTreeMap;

use sonae_proto::digest::MERGE_VERSION;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::snapshot::{PartName, Record, Snapshot, SnapshotRoot, Sum};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{FetchSnapshot, Frame, SnapshotName, SnapshotPart};

use super::board::{Board, EPOCH, Life};
use super::item::Item;
use super::line::Waiting;
use super::model::TierModel;
use super::options::Trouble;
use super::planted::Planted;
use super::replica::Replica;
use super::seal;
use super::shelf::Made;
use super::store::length;
use super::world::World;

/// Records of a part: few, so that small states have several parts.
const PART_RECORDS: usize = 2;

/// What the author of a snapshot knew when it made it.
pub(crate) struct Witnessed {
    pub snapshot: Snapshot,
    pub parts: Vec<Vec<u8>>,
    pub model: TierModel,
    /// A node has signed a receipt for it.
    pub is_receipted: bool,
}

impl Replica {
    /// Lays a snapshot that is on the shelf under a tier of which nothing is held.
    pub fn lay(
        &mut self,
        board: &Board,
        hash: Hash32,
        witnessed: &BTreeMap<Hash32, Witnessed>,
    ) -> Result<(), String> {
        let (root, records, sum) = self.store.held.shelf.read(hash, board.digest_key())?;
        for Record { collection, record, state } in records {
            let stamps = state.fields.values().flat_map(|field| &field.heads).map(|head| head.stamp);
            self.fold.highest_stamp = stamps.fold(self.fold.highest_stamp, Ord::max);
            self.records.records.insert((root.tier, collection, record), state);
        }
        self.fold.sequences.extend(root.heads.iter().map(|(log, head)| (*log, head.sequence)));
        self.fold.digests.insert(root.tier, sum.digest());
        let known = witnessed.get(&hash).ok_or("was made by nobody")?;
        self.model.begin(root.tier, &known.model, &self.records)
    }

    /// Offers what was made before and has no receipt under the present loss counter.
    pub fn resume_snapshots(&mut self, board: &Board, life: &Life) {
        let held = &self.store.held;
        for made in held.shelf.made.values().filter(|made| made.safe_under != Some(held.loss_counter)) {
            let key = |author| (author == life.name).then(|| life.key.verifying_key());
            let text = held.shelf.text(made.root).unwrap_or_default();
            if let Ok(snapshot) = Snapshot::verify(text, board.school, key) {
                self.engine.handle_snapshot_made(snapshot);
            }
        }
    }

    /// The ends of all logs of a tier, if everything of it is in batches.
    fn ends(&self, life: &Life, tier: Tier) -> Option<Heads> {
        let held = &self.store.held;
        let end = |log: LogName| match log.incarnation == life.name {
            true => held.sealed_head(log),
            false => held.peer_head(log),
        };
        let applied = self.fold.sequences.iter().filter(|(log, sequence)| log.tier == tier && **sequence > 0);
        let heads: Heads = applied.clone().map(|(log, _)| (*log, end(*log))).collect();
        let is_whole =
            applied.clone().all(|(log, sequence)| heads.get(log).is_some_and(|h| h.sequence == *sequence));
        (is_whole && !heads.is_empty()).then_some(heads)
    }
}

impl World {
    /// A box looks whether a snapshot is due: everything is safe, and enough was sealed since the last one.
    pub fn consider_snapshot(&mut self, slot: usize) {
        let (every, life) = (self.options.snapshot_every, self.slots[slot].life.clone());
        let Some(replica) = &self.slots[slot].replica else { return };
        if every == 0 || self.is_rebuilding(slot) || !replica.engine.is_up() || replica.engine.is_waiting() {
            return;
        }
        let made = &replica.store.held.shelf.made;
        let is_due = |tier: &Tier| {
            let sealed = replica.store.held.sealed_head(life.log(*tier)).sequence;
            sealed >= made.get(tier).map_or(0, |made| made.sealed).saturating_add(every)
        };
        let due = Tier::ALL.into_iter().filter(is_due);
        let next = due.filter_map(|tier| Some((tier, replica.ends(&life, tier)?))).next();
        if let Some((tier, heads)) = next {
            self.make_snapshot(slot, &life, tier, heads);
        }
    }

    fn make_snapshot(&mut self, slot: usize, life: &Life, tier: Tier, heads: Heads) {
        let salt = self.random.bits();
        let Some(replica) = &self.slots[slot].replica else { return };
        let sealed = heads.get(&life.log(tier)).map_or(0, |head| head.sequence);
        let (parts, sum) = match cut(&self.board, replica, tier, salt) {
            Ok(cut) => cut,
            Err(text) => return self.violate(format!("box {slot} cannot make a snapshot: {text}")),
        };
        if Some(&sum.digest()) != replica.fold.digests.get(&tier) {
            return self.violate(format!("the view of box {slot} does not add up to its digest"));
        }
        let root = SnapshotRoot {
            school: self.board.school,
            tier,
            author: life.name,
            epoch: EPOCH,
            manifest: self.board.manifest(),
            merge_version: MERGE_VERSION,
            heads,
            digest: sum.digest(),
            records: u64::try_from(replica.records.records.keys().filter(|key| key.0 == tier).count())
                .unwrap_or(u64::MAX),
            parts: parts.iter().map(|part| PartName::of(part)).collect(),
        };
        let model = replica.model.of_tier(tier);
        let snapshot = match Snapshot::sign(root, &life.key) {
            Ok(snapshot) => snapshot,
            Err(error) => return self.violate(format!("box {slot} cannot sign a snapshot: {error}")),
        };
        self.note(format_args!("box {slot} makes snapshot {} of tier {tier}", snapshot.hash()));
        let made = Made { root: snapshot.hash(), sealed, safe_under: None };
        let known =
            Witnessed { snapshot: snapshot.clone(), parts: parts.clone(), model, is_receipted: false };
        self.witnessed.insert(snapshot.hash(), known);
        let mut items: Vec<Item> = parts.into_iter().map(Item::Part).collect();
        items.extend([Item::Root(snapshot.text().to_owned()), Item::Made(tier, made)]);
        if self.maintain(slot, "snapshot", |store| store.keep(items))
            && let Some(replica) = &mut self.slots[slot].replica
        {
            self.tally.counts.snapshots += 1;
            replica.engine.handle_snapshot_made(snapshot);
            self.drain_box(slot);
        }
    }

    /// Offers the root of a snapshot.
    pub fn send_root(&mut self, slot: usize, snapshot: &Snapshot) {
        self.offer(slot, snapshot.hash(), &Frame::Snapshot(snapshot.text().to_owned()));
    }

    /// Keeps a part of what is being fetched.
    pub fn keep_part(&mut self, slot: usize, sealed: Vec<u8>) {
        let part = Item::Part(sealed);
        if self.planted == Some(Planted::PartsKeptLazily) {
            if let Some(replica) = &mut self.slots[slot].replica {
                replica.store.pretend_to_keep(part);
            }
        } else {
            self.keep(slot, part);
        }
    }

    /// Asks for a snapshot.
    pub fn fetch_snapshot(&mut self, slot: usize, name: SnapshotName) {
        let Some(replica) = &self.slots[slot].replica else { return };
        let has = match name {
            SnapshotName::Root(root) => replica.store.held.shelf.has(root),
            SnapshotName::Tier(_) => Vec::new(),
        };
        if let Some(stream) = self.open_stream(slot, Waiting::Snapshot(name)) {
            self.send_up(slot, stream, &Frame::FetchSnapshot(FetchSnapshot { name, has }));
        }
    }

    fn offer(&mut self, slot: usize, root: Hash32, frame: &Frame) {
        if let Some(stream) = self.open_stream(slot, Waiting::Offer(root)) {
            self.send_up(slot, stream, frame);
        }
    }

    /// Sends a part of a snapshot that is offered.
    pub fn send_part(&mut self, slot: usize, root: Hash32, number: u32) {
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let shelf = &replica.store.held.shelf;
        let name = shelf.root(root).and_then(|root| root.parts.get(usize::try_from(number).ok()?).copied());
        match name.and_then(|name| shelf.part(&name)).cloned() {
            Some(sealed) => {
                let part = SnapshotPart { root, number, sealed };
                self.offer(slot, root, &Frame::SnapshotPart(Box::new(part)));
            }
            None => replica.engine.handle_snapshot_lost(root),
        }
    }

    /// Begins a tier with a snapshot that was fetched.
    pub fn load_snapshot(&mut self, slot: usize, snapshot: &Snapshot) {
        for (log, head) in &snapshot.root().heads {
            self.check_begun(slot, *log, *head);
        }
        let outcome = self.try_load(slot, snapshot);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.engine.handle_snapshot_loaded(snapshot, outcome);
        }
    }

    fn try_load(&mut self, slot: usize, snapshot: &Snapshot) -> Result<(), String> {
        let (tier, hash) = (snapshot.root().tier, snapshot.hash());
        let Some(replica) = &self.slots[slot].replica else { return Err("nobody is there".into()) };
        replica.store.held.shelf.read(hash, self.board.digest_key())?;
        if replica.fold.sequences.iter().any(|(log, sequence)| log.tier == tier && *sequence > 0) {
            return Err("cannot be taken while its tier is held".into());
        }
        if !self.keep(slot, Item::Founded(tier, hash)) {
            return Err("does not fit on this disk now".into());
        }
        self.note(format_args!("box {slot} begins tier {tier} with {hash}"));
        self.tally.counts.beginnings += 1;
        let Some(replica) = &mut self.slots[slot].replica else { return Err("nobody is there".into()) };
        if let Err(text) = replica.lay(&self.board, hash, &self.witnessed) {
            self.violate(format!("box {slot} begins tier {tier} with a snapshot that {text}"));
        }
        self.look(slot);
        Ok(())
    }

    /// The cloud has a snapshot.
    pub fn snapshot_safe(&mut self, slot: usize, tier: Tier, root: Hash32) {
        if !self.witnessed.get(&root).is_some_and(|known| known.is_receipted) {
            self.violate(format!("box {slot} calls a snapshot of tier {tier} safe that has no receipt"));
        }
        let Some(replica) = &self.slots[slot].replica else { return };
        let (held, counter) = (&replica.store.held, replica.engine.loss_counter());
        if let Some(made) = held.shelf.made.get(&tier).copied().filter(|made| made.root == root) {
            self.keep_or_later(slot, Item::Made(tier, Made { safe_under: Some(counter), ..made }), true);
        }
    }

    /// A box finds a snapshot wrong.
    pub fn bad_snapshot(&mut self, slot: usize, tier: Tier, reason: &str) {
        let may_be = [
            Trouble::Lies,
            // Parts lie on sites that are down.
            Trouble::Sites,
            Trouble::Revocation,
            Trouble::DiskFull,
            Trouble::DiskError,
        ];
        if !may_be.iter().any(|trouble| self.options.has(*trouble)) {
            self.violate(format!("box {slot} finds a snapshot of tier {tier} wrong: {reason}"));
        }
    }
}

/// Cuts the records of a tier into sealed parts; those that are as in the last snapshot are the same bytes.
fn cut(board: &Board, replica: &Replica, tier: Tier, salt: u64) -> Result<(Vec<Vec<u8>>, Sum), String> {
    let shelf = &replica.store.held.shelf;
    let before = shelf.made.get(&tier).and_then(|made| shelf.root(made.root));
    let before: BTreeMap<Vec<Vec<u8>>, &Vec<u8>> = before
        .iter()
        .flat_map(|root| &root.parts)
        .filter_map(|part| shelf.part(part))
        .map(|sealed| (seal::open(sealed), sealed))
        .collect();
    let of_tier = replica.records.records.iter().filter(|((at, _, _), _)| *at == tier);
    let all: Vec<Record> = of_tier
        .map(|((_, collection, record), state)| Record {
            collection: collection.clone(),
            record: record.clone(),
            state: state.clone(),
        })
        .collect();
    let (mut sum, mut parts) = (Sum::new(board.digest_key()), Vec::new());
    for records in all.chunks(PART_RECORDS) {
        let mut lines = Vec::new();
        for record in records {
            sum.add(record);
            let line = record.to_line().map_err(|error| error.to_string())?;
            lines.push(line.strip_suffix(b"\n").unwrap_or(&line).to_vec());
        }
        let salt = salt.wrapping_add(length(&lines)).wrapping_add(u64::try_from(parts.len()).unwrap_or(0));
        parts.push(before.get(&lines).map_or_else(|| seal::seal(&lines, salt), |sealed| (*sealed).clone()));
    }
    Ok((parts, sum))
}

/// Whether a head is of a snapshot: no batch has this sequence.
pub(crate) const fn is_of_snapshot(head: LogHead) -> bool {
    head.sequence == 0
}
