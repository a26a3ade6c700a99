//! What the adversary does with snapshots: with what a welcome offers, and with what is served of one.
//!
//! **Invariant**: without snapshots in the options it draws nothing, so that other cases stay as they are.

use std::collections::BTreeMap;

use anyhow::Result;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::snapshot::{PartName, Snapshot, SnapshotRoot};
use sonae_proto::wire::{FetchSnapshot, Frame, SnapshotName, SnapshotOffer, SnapshotPart};

use super::album::{Album, Made, key_of};
use super::board::EPOCHS;
use super::cloud::Object;
use super::history::History;
use super::options::{Mutation, SnapshotOptions};
use super::proxy::{Proxy, welcome};
use crate::sim::seal;

/// A root and its parts, in place of those that are true.
#[derive(Debug, Clone)]
struct Instead {
    offer: SnapshotOffer,
    text: String,
    parts: Vec<Vec<u8>>,
    what: &'static str,
}

/// What is done where snapshots are served.
#[derive(Debug)]
pub(super) struct Served {
    options: SnapshotOptions,
    /// What was offered in the place of something, by its root.
    standing: BTreeMap<Hash32, Instead>,
    cut_after: Option<usize>,
}

impl Served {
    pub fn new(options: &SnapshotOptions) -> Self {
        Self { options: options.clone(), standing: BTreeMap::new(), cut_after: options.cut_after }
    }
}

/// What lies at the sites at a moment, with snapshots where there are any.
pub(super) fn objects(history: &History, served: Option<&Served>, moment: usize) -> Result<Vec<Object>> {
    let mut objects = history.objects_at(moment);
    if let Some(served) = served {
        objects.extend(history.album()?.objects(moment, served.options.revoked)?);
    }
    Ok(objects)
}

impl Instead {
    fn of(made: &Made, what: &'static str) -> Self {
        let text = made.snapshot.text().to_owned();
        Self { offer: made.offer(), text, parts: made.parts.clone(), what }
    }

    /// A root that says something else than the one that it is made of, under any text.
    fn forged(root: &SnapshotRoot, text: String, parts: Vec<Vec<u8>>, what: &'static str) -> Self {
        let hash = Hash32(*blake3::hash(text.as_bytes()).as_bytes());
        let (bytes, changes) = (root.bytes(), root.changes());
        Self { offer: SnapshotOffer { tier: root.tier, root: hash, bytes, changes }, text, parts, what }
    }

    fn frames(&self, has: &[u32], root: Hash32) -> Vec<Frame> {
        let parts = self.parts.iter().cloned().zip(0..).filter(|(_, number)| !has.contains(number));
        let part = |(sealed, number)| Frame::SnapshotPart(Box::new(SnapshotPart { root, number, sealed }));
        std::iter::once(Frame::Snapshot(self.text.clone())).chain(parts.map(part)).collect()
    }
}

impl Proxy<'_> {
    /// Whether it alters what is no snapshot.
    pub(super) fn alters_logs(&self) -> bool {
        self.snapshots.as_ref().is_none_or(|served| served.options.everywhere)
    }

    /// What lies at the honest sites at a moment.
    pub(super) fn objects_at(&self, moment: usize) -> Vec<Object> {
        objects(self.history, self.snapshots.as_ref(), moment).unwrap_or_default()
    }

    /// Puts another snapshot into the place of an offered one.
    pub(super) fn alter_offers(&mut self, frames: &mut [Frame]) {
        if self.snapshots.is_none() {
            return;
        }
        for mutation in self.planned() {
            let Some(welcome) = welcome(frames) else { return };
            let Some(offers) = welcome.snapshots.as_mut().filter(|offers| !offers.is_empty()) else { return };
            if !self.is_due(mutation) {
                continue;
            }
            let at = self.random.index(offers.len());
            let Some(instead) = self.instead(mutation, offers[at].root, offers[at].tier) else { continue };
            self.did(mutation, &format!("{} is offered", instead.what));
            let tier = if self.random.one_in(4) { offers[at].tier } else { instead.offer.tier };
            offers[at] = SnapshotOffer { tier, ..instead.offer };
            if let Some(served) = &mut self.snapshots {
                served.standing.insert(instead.offer.root, instead);
            }
        }
    }

    /// A fetch of a snapshot. Returns bytes of the frames of its stream, and whether the line was cut for no reason.
    pub fn fetch_snapshot(&mut self, fetch: &FetchSnapshot) -> (Vec<Vec<u8>>, bool) {
        let connection = self.connection;
        let mut frames = match self.standing(fetch) {
            Some(mut frames) => {
                frames.push(Frame::FetchEnd(sonae_proto::wire::FetchEnd { sequence: 0 }));
                frames
            }
            None => self.front().fetch_snapshot(connection, fetch),
        };
        for mutation in self.planned() {
            if frames.len() > 1 && self.is_due(mutation) {
                self.alter_snapshot(mutation, fetch, &mut frames);
            }
        }
        let cut = self.snapshots.as_mut().and_then(|served| served.cut_after.take());
        let is_cut = cut.is_some_and(|cut| cut < frames.len());
        frames.truncate(cut.unwrap_or(usize::MAX));
        (self.encode(frames), is_cut)
    }

    fn standing(&self, fetch: &FetchSnapshot) -> Option<Vec<Frame>> {
        let standing = &self.snapshots.as_ref()?.standing;
        let instead = match fetch.name {
            SnapshotName::Root(root) => standing.get(&root),
            SnapshotName::Tier(tier) => standing.values().find(|instead| instead.offer.tier == tier),
        };
        instead.map(|instead| instead.frames(&fetch.has, instead.offer.root))
    }

    /// Chooses what stands in the place of a snapshot.
    fn instead(&mut self, mutation: Mutation, root: Hash32, tier: Tier) -> Option<Instead> {
        let history = self.history;
        let album = history.album().ok()?;
        let number = self.random.below(4);
        let (now, is_other) = (self.moment, |made: &&Made| made.snapshot.hash() != root);
        let of_tier =
            |made: &&Made| is_other(made) && made.snapshot.root().tier == tier && made.moment <= now;
        let others: Vec<&Made> = match (mutation, number) {
            (Mutation::Replay, 0) => {
                let is_of_other = |made: &&Made| made.snapshot.root().tier != tier && made.moment <= now;
                album.made.iter().filter(is_of_other).collect()
            }
            // The cloud has lost what it added up, and still has the sum.
            (Mutation::RollBack, 0) => {
                let is_ahead = |made: &&Made| made.snapshot.root().tier == tier && made.moment > now;
                album.made.iter().filter(is_ahead).collect()
            }
            (Mutation::Replay | Mutation::RollBack, _) => album.made.iter().filter(of_tier).collect(),
            (Mutation::OldEpoch, _) => {
                let is_old = |made: &&Made| made.snapshot.root().epoch == EPOCHS[0];
                album.made.iter().filter(of_tier).filter(is_old).collect()
            }
            (Mutation::CrossSchool, _) => vec![&album.foreign],
            (Mutation::Fork, _) => {
                album.branch.iter().filter(|made| made.snapshot.root().tier == tier).collect()
            }
            (Mutation::Revoked, _) => {
                let is_out = |made: &&Made| !album.word.lets(history, made.snapshot.root());
                album.made.iter().filter(of_tier).filter(is_out).collect()
            }
            (Mutation::Forge, _) => {
                let made = album.made.iter().find(|made| made.snapshot.hash() == root)?;
                return self.forged(album, made, number);
            }
            (
                Mutation::Drop
                | Mutation::Reorder
                | Mutation::Flip
                | Mutation::OldReceipt
                | Mutation::Withhold,
                _,
            ) => return None,
        };
        let what = match mutation {
            Mutation::Replay if number == 0 => "another tier's",
            Mutation::Fork => "the other branch's",
            Mutation::CrossSchool => "another school's",
            Mutation::OldEpoch => "one under an older key",
            Mutation::Revoked => "what the board has revoked",
            Mutation::RollBack if number == 0 => "one that is ahead of its logs",
            Mutation::Drop
            | Mutation::Reorder
            | Mutation::Replay
            | Mutation::RollBack
            | Mutation::Flip
            | Mutation::OldReceipt
            | Mutation::Forge
            | Mutation::Withhold => "an older one",
        };
        (!others.is_empty()).then(|| Instead::of(others[self.random.index(others.len())], what))
    }

    /// A root that nobody made, of the parts of one that somebody did.
    fn forged(&mut self, album: &Album, made: &Made, number: u64) -> Option<Instead> {
        let mut root = made.snapshot.root().clone();
        let mut parts = made.parts.clone();
        // Another list of parts: one is missing, or is of another snapshot.
        let at = self.random.index(parts.len());
        let other = &album.made[self.random.index(album.made.len())];
        match other.parts.first().filter(|part| **part != parts[at]) {
            Some(part) if self.random.one_in(2) => parts[at].clone_from(part),
            _ => drop(parts.remove(at)),
        }
        root.parts = parts.iter().map(|part| PartName::of(part)).collect();
        if parts.is_empty() {
            root.records = 0;
        }
        let is_thief = self.snapshots.as_ref().is_some_and(|served| served.options.is_thief);
        let (key, what) = match number {
            0 | 1 if is_thief => {
                (key_of(self.history, &root)?, "a list of parts by a thief of its author's key")
            }
            0 => {
                root.author = self.stranger.name;
                (self.stranger.key.clone(), "a stranger's list of parts")
            }
            1 => (self.stranger.key.clone(), "a list of parts under a stranger's signature"),
            _ => {
                let line = serde_json::to_string(&root).ok()?;
                let (_, signature) = made.snapshot.text().split_once('\n')?;
                let text = format!("{line}\n{signature}");
                return Some(Instead::forged(&root, text, parts, "a list of parts under an old signature"));
            }
        };
        let text = Snapshot::sign(root.clone(), &key).ok()?.text().to_owned();
        Some(Instead::forged(&root, text, parts, what))
    }

    fn alter_snapshot(&mut self, mutation: Mutation, fetch: &FetchSnapshot, frames: &mut Vec<Frame>) {
        let number = self.random.below(4);
        let at: Vec<usize> = (0..frames.len()).filter(|at| part(&mut frames[*at]).is_some()).collect();
        let chosen = (!at.is_empty()).then(|| at[self.random.index(at.len())]);
        let what = match (mutation, number, chosen) {
            (Mutation::Drop, _, _) => self.leave_out(number, chosen, frames),
            (Mutation::Reorder, _, Some(one)) => {
                let other = at[self.random.index(at.len())];
                move_parts(number, (one, other), frames)
            }
            (Mutation::Replay, 2, Some(at)) => {
                frames.insert(at, frames[at].clone());
                Some("a part twice")
            }
            (Mutation::Replay | Mutation::CrossSchool | Mutation::Forge, 0 | 1, Some(at)) => {
                let Some(sealed) = self.other_part(mutation) else { return };
                let Some(part) = part(&mut frames[at]) else { return };
                part.sealed = sealed;
                Some("a part of something else")
            }
            (Mutation::Flip, _, Some(at)) => {
                let Some(part) = part(&mut frames[at]) else { return };
                let byte = self.random.index(part.sealed.len());
                part.sealed[byte] ^= 1 << self.random.below(8);
                Some("a bit of a part")
            }
            (Mutation::Withhold, _, _) => Some(withhold(number, frames)),
            (_, _, _) => return self.serve_instead(mutation, fetch, frames),
        };
        if let Some(what) = what {
            self.did(mutation, what);
        }
    }

    fn leave_out(
        &mut self,
        number: u64,
        chosen: Option<usize>,
        frames: &mut Vec<Frame>,
    ) -> Option<&'static str> {
        match (number, chosen) {
            (0, _) => {
                frames.remove(0);
                Some("the root")
            }
            (1, _) => {
                frames.pop();
                Some("the end of a snapshot")
            }
            (2, Some(at)) => {
                let part = part(&mut frames[at])?;
                part.sealed.truncate(self.random.index(part.sealed.len()));
                Some("the end of a part")
            }
            (_, at) => {
                frames.remove(at?);
                Some("a part")
            }
        }
    }

    fn other_part(&mut self, mutation: Mutation) -> Option<Vec<u8>> {
        let album = self.history.album().ok()?;
        if mutation == Mutation::Forge {
            return Some(seal::seal(&[br#"{"c":"student","r":"r0","b":[],"f":{}}"#.to_vec()], 3));
        }
        let is_foreign = mutation == Mutation::CrossSchool;
        let own = &album.made[self.random.index(album.made.len())];
        let other = if is_foreign { &album.foreign } else { own };
        other.parts.get(self.random.index(other.parts.len())).cloned()
    }

    /// Serves another snapshot than the one that was offered, under its own name or under the right one.
    fn serve_instead(&mut self, mutation: Mutation, fetch: &FetchSnapshot, frames: &mut Vec<Frame>) {
        let Some(Frame::Snapshot(text)) = frames.first() else { return };
        let Some(tier) = Snapshot::peek(text).map(|root| root.tier) else { return };
        let root = Hash32(*blake3::hash(text.as_bytes()).as_bytes());
        let Some(instead) = self.instead(mutation, root, tier) else { return };
        let named = if self.random.one_in(2) { root } else { instead.offer.root };
        let end = frames.pop();
        *frames = instead.frames(&fetch.has, named);
        frames.extend(end);
        self.did(mutation, instead.what);
    }
}

fn part(frame: &mut Frame) -> Option<&mut SnapshotPart> {
    let Frame::SnapshotPart(part) = frame else { return None };
    Some(part)
}

/// Parts change places, their order, or stand before their root.
fn move_parts(number: u64, (one, other): (usize, usize), frames: &mut Vec<Frame>) -> Option<&'static str> {
    match number {
        0 => {
            let root = frames.remove(0);
            frames.insert(frames.len() - 1, root);
            Some("the root behind its parts")
        }
        1 => {
            let end = frames.len() - 1;
            frames[1..end].reverse();
            Some("parts in another order")
        }
        _ => {
            let sealed = part(&mut frames[other])?.sealed.clone();
            let before = std::mem::replace(&mut part(&mut frames[one])?.sealed, sealed);
            part(&mut frames[other])?.sealed = before;
            Some("two parts in each other's place")
        }
    }
}

/// The answer, but for its end, for all, or for the root.
fn withhold(number: u64, frames: &mut Vec<Frame>) -> &'static str {
    match number {
        0 | 1 => {
            frames.drain(..frames.len() - 1);
            "a snapshot that was offered"
        }
        2 => {
            frames.clear();
            "an answer to a fetch of a snapshot"
        }
        _ => {
            frames.retain(|frame| !matches!(frame, Frame::SnapshotPart(_)));
            "all parts"
        }
    }
}
