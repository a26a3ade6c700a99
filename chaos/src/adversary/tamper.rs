//! What the adversary on the line does at each opportunity: with the control stream, with the batches of a fetch,
//! with the answer to a batch.

use anyhow::Result;
use sonae_proto::batch::{Batch, Place};
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::receipt::Receipt;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Fetch, Frame, Refusal, RefusalCode};

use super::board::{EPOCHS, key, site};
use super::cloud::{Cloud, Object, name};
use super::history::History;
use super::options::Mutation;
use super::proxy::{Proxy, header_last, welcome};
use crate::sim::seal;

/// Refusals that anybody can write: they are not signed.
const REFUSALS: [RefusalCode; 6] = [
    RefusalCode::Fork,
    RefusalCode::Chain,
    RefusalCode::Signature,
    RefusalCode::Storage,
    RefusalCode::Manifest,
    RefusalCode::Malformed,
];

/// Makes the batch that `batch` should have been, with another content and another key.
pub(crate) fn forge(batch: &Batch) -> Result<Batch> {
    let header = batch.header();
    let place = Place {
        school: header.school,
        log: header.log,
        after: LogHead { sequence: header.first - 1, hash: header.previous },
        last: header.last,
        epoch: header.epoch,
        manifest: header.manifest,
    };
    let line = br#"{"t":[1,0],"c":"student","r":"r0","f":{"f":"forged"}}"#.to_vec();
    let lines: Vec<_> = (header.first..=header.last).map(|_| line.clone()).collect();
    Ok(Batch::sign(&place, &seal::seal(&lines, 7), &key("forger"))?)
}

/// The objects of a cloud that shows the other branch of a fork; `None` if it has not forked yet.
pub(crate) fn forked(history: &History, objects: &[Object]) -> Option<Vec<Object>> {
    let branch = history.branch.as_ref()?;
    let parts_at = branch.batches.first().map_or(0, |batch| batch.header().first);
    let is_passed = |body: &[u8]| {
        Batch::from_bytes(body.to_vec())
            .is_ok_and(|batch| batch.header().log == branch.log && batch.header().first >= parts_at)
    };
    let (mut kept, mut passed) = (Vec::new(), 0);
    for (name, bytes) in objects {
        let mut object = Vec::new();
        for record in object::records(bytes).0 {
            let is_passed = is_passed(record.body);
            passed += usize::from(is_passed);
            if let Some(kind) = record.kind.filter(|_| !is_passed) {
                object::append(&mut object, kind, record.body);
            }
        }
        if !object.is_empty() {
            kept.push((*name, object));
        }
    }
    let mut object = Vec::new();
    for batch in &branch.batches {
        object::append(&mut object, RecordKind::Batch, batch.bytes());
    }
    kept.push((name(900, 0), object));
    (passed > 0).then_some(kept)
}

impl Proxy<'_> {
    fn boot(&self, objects: Vec<Object>) -> Cloud {
        let options = &self.history.options;
        Cloud::boot(&self.history.board, objects, options.sites, options.quorum)
    }

    /// Puts another cloud in the place of the honest one, or hides a part of it.
    pub(super) fn stand_in(&mut self) {
        if !self.in_shadow
            && self.is_surely_due(Mutation::Fork)
            && let Some(other) = forked(self.history, &self.objects_at(self.moment))
        {
            self.shadow = Some(self.boot(other));
            self.in_shadow = true;
            self.did(Mutation::Fork, "the other branch");
        }
        if !self.in_shadow
            && self.limits.is_empty()
            && self.moment > 0
            && self.is_surely_due(Mutation::RollBack)
        {
            let earlier = self.random.index(self.moment);
            let heads = self.history.heads_at(earlier);
            let logs: Vec<LogName> = self.history.heads_at(self.moment).keys().copied().collect();
            match self.random.below(3) {
                0 => {
                    let log = logs[self.random.index(logs.len())];
                    self.limits.insert(log, heads.get(&log).copied().unwrap_or(LogHead::EMPTY));
                    self.did(Mutation::RollBack, &format!("log {log} to moment {earlier}"));
                }
                1 => {
                    // The box sees its own log as it is, and all others as they were.
                    let others = logs.into_iter().filter(|log| !self.own.contains(log));
                    let limit = |log| (log, heads.get(&log).copied().unwrap_or(LogHead::EMPTY));
                    self.limits = others.map(limit).collect();
                    self.did(Mutation::RollBack, &format!("all others to moment {earlier}"));
                }
                _ => {
                    self.shadow = Some(self.boot(self.objects_at(earlier)));
                    self.in_shadow = true;
                    self.did(Mutation::RollBack, &format!("everything to moment {earlier}"));
                }
            }
        }
    }

    pub(super) fn alter_control(&mut self, mutation: Mutation, frames: &mut Vec<Frame>) {
        let number = self.random.below(4);
        let earlier = self.random.index(self.moment + 1);
        let Some(welcome) = welcome(frames) else { return };
        let what = match (mutation, number) {
            (Mutation::Drop, 0) => {
                frames.clear();
                "the welcome"
            }
            (Mutation::Drop, _) => {
                let count = welcome.identities.len();
                welcome.identities.truncate(count / 2);
                "identities"
            }
            (Mutation::Replay, _) => {
                welcome.heads = self.history.heads_at(earlier);
                "heads of an earlier welcome"
            }
            (Mutation::CrossSchool, _) => self.show_other_school(number, frames),
            (Mutation::OldEpoch, 0 | 1) => {
                welcome.manifest_version = number;
                "an older manifest's number"
            }
            (Mutation::OldEpoch, _) => {
                frames.push(Frame::Keys(Box::new(self.history.board.school.documents(0))));
                "older key documents"
            }
            (Mutation::Forge, _) => self.forge_welcome(number, frames),
            (Mutation::Withhold, 0 | 1) => {
                welcome.complete = false;
                "completeness"
            }
            (Mutation::Withhold, 2) => {
                frames.clear();
                "the welcome"
            }
            (
                Mutation::Reorder
                | Mutation::RollBack
                | Mutation::Fork
                | Mutation::Flip
                | Mutation::OldReceipt
                | Mutation::Revoked
                | Mutation::Withhold,
                _,
            ) => return,
        };
        self.did(mutation, what);
    }

    fn show_other_school(&self, number: u64, frames: &mut Vec<Frame>) -> &'static str {
        let foreign = &self.history.foreign;
        let last = foreign.batches.last().map_or(LogHead::EMPTY, |batch| batch.header().head());
        let heads = Heads::from([(foreign.life.log(Tier::Safety), last)]);
        let Some(welcome) = welcome(frames) else { return "nothing" };
        match number {
            0 => {
                welcome.heads = heads;
                welcome.identities = vec![foreign.life.identity.clone()];
                "the welcome of another school"
            }
            1 | 2 => {
                welcome.heads.extend(heads);
                welcome.identities.push(foreign.life.identity.clone());
                "a log of another school"
            }
            _ => {
                frames.push(Frame::Keys(Box::new(self.history.board.other.documents(1))));
                "key documents of another school"
            }
        }
    }

    fn forge_welcome(&mut self, number: u64, frames: &mut [Frame]) -> &'static str {
        let invented = LogHead { sequence: 1 + self.random.below(40), hash: Hash32([0xAB; 32]) };
        let own = self.own[self.random.index(self.own.len())];
        let stranger = self.stranger.clone();
        let Some(welcome) = welcome(frames) else { return "nothing" };
        match number {
            0 => {
                welcome.heads.insert(own, invented);
                "a head of the own log"
            }
            1 => {
                let peer = welcome.heads.keys().copied().find(|log| !self.own.contains(log));
                welcome.heads.insert(peer.unwrap_or(own), invented);
                "a head of a peer's log"
            }
            _ => {
                welcome.identities.push(stranger.identity.clone());
                welcome.heads.insert(stranger.log(Tier::Safety), LogHead { sequence: 1, ..invented });
                "an incarnation that the board has not certified"
            }
        }
    }

    /// Serves what a stranger wrote, who has signed it well.
    pub(super) fn serve_stranger(&self, frames: &mut Vec<Frame>) {
        let Some(model) = self.history.batches.values().flatten().next() else { return };
        let place = Place {
            school: self.history.board.school.code,
            log: self.stranger.log(Tier::Safety),
            after: LogHead::EMPTY,
            last: 1,
            epoch: EPOCHS[0],
            manifest: model.header().manifest,
        };
        let line = br#"{"t":[1,0],"c":"student","r":"r0","f":{"f":"stranger"}}"#.to_vec();
        if let Ok(batch) = Batch::sign(&place, &seal::seal(&[line], 1), &self.stranger.key) {
            frames.insert(0, Frame::Batch(batch.bytes().to_vec()));
        }
    }

    pub(super) fn alter_fetch(&mut self, mutation: Mutation, fetch: &Fetch, frames: &mut Vec<Frame>) {
        let batches = frames.iter().filter(|frame| header_last(frame).is_some()).count();
        if batches == 0 {
            return;
        }
        let (at, number) = (self.random.index(batches), self.random.below(3));
        let earlier = self.history.batches.values().flatten().find(|batch| {
            let header = batch.header();
            header.log != fetch.log || header.last <= fetch.after
        });
        let what = match (mutation, number) {
            (Mutation::Drop, 0) => {
                frames.truncate(batches);
                "the end of a fetch"
            }
            (Mutation::Drop, _) => {
                frames.remove(at);
                "a batch"
            }
            (Mutation::Reorder, _) if batches > 1 => {
                frames.swap(at, (at + 1) % batches);
                "two batches"
            }
            (Mutation::Replay, 0) => {
                frames.insert(at, frames[at].clone());
                return self.did(mutation, "a batch twice");
            }
            (Mutation::Replay, _) => {
                let Some(earlier) = earlier else { return };
                frames[at] = Frame::Batch(earlier.bytes().to_vec());
                "another batch in the place of one"
            }
            (Mutation::CrossSchool, _) => {
                let foreign = &self.history.foreign.batches;
                frames[at] = Frame::Batch(foreign[at % foreign.len()].bytes().to_vec());
                "a batch of another school"
            }
            (Mutation::Forge, _) => {
                let Frame::Batch(bytes) = &frames[at] else { return };
                let Ok(forged) = Batch::from_bytes(bytes.clone()).map_err(Into::into).and_then(|b| forge(&b))
                else {
                    return;
                };
                frames[at] = Frame::Batch(forged.bytes().to_vec());
                "a forged batch"
            }
            (Mutation::Withhold, 0) => {
                frames.clear();
                "a whole fetch"
            }
            (Mutation::Withhold, _) => {
                frames.retain(|frame| header_last(frame).is_none());
                "all batches of a fetch"
            }
            (
                Mutation::Reorder
                | Mutation::RollBack
                | Mutation::Fork
                | Mutation::Flip
                | Mutation::OldReceipt
                | Mutation::Revoked
                | Mutation::OldEpoch,
                _,
            ) => return,
        };
        self.did(mutation, what);
    }

    /// Answers a batch and throws it away.
    pub(super) fn answer_instead(
        &mut self,
        mutation: Mutation,
        batch: &Batch,
        loss_counter: u64,
    ) -> Option<Vec<Frame>> {
        let header = batch.header();
        // Whoever lies says that it is new.
        let issued_ms = u64::MAX;
        let receipt = Receipt {
            school: header.school,
            log: header.log,
            head: header.head(),
            loss_counter,
            issued_ms,
            sites: (0..self.history.options.quorum).map(site).collect(),
        };
        match mutation {
            Mutation::OldReceipt => {
                let old = self.history.receipts.get(&(header.log, header.last))?.clone();
                self.did(mutation, "a receipt of before a loss");
                Some(vec![Frame::Receipt(old)])
            }
            Mutation::Forge if self.signs_receipts() && self.random.one_in(3) => {
                self.did(mutation, "a receipt for another batch of that place");
                let other = LogHead { hash: Hash32([0xAB; 32]), ..receipt.head };
                let receipt = Receipt { head: other, ..receipt };
                Some(vec![Frame::Receipt(receipt.sign(&self.history.board.receipt_key))])
            }
            Mutation::Forge if self.signs_receipts() => {
                self.lied = true;
                self.did(mutation, "a receipt for what was thrown away");
                Some(vec![Frame::Receipt(receipt.sign(&self.history.board.receipt_key))])
            }
            Mutation::Forge => {
                self.did(mutation, "a receipt that the cloud has not signed");
                let mut bytes = receipt.sign(&self.history.board.receipt_key);
                // The name of the right key, and another's signature.
                let forged = receipt.sign(&key("forger"));
                let end = bytes.len() - 64;
                bytes.truncate(end);
                bytes.extend_from_slice(&forged[end..]);
                Some(vec![Frame::Receipt(bytes)])
            }
            Mutation::Withhold => {
                let code = self.random.pick(&REFUSALS);
                self.did(mutation, &format!("{code:?}"));
                Some(vec![Frame::Refusal(Refusal { code, text: "no".into(), heads: Heads::new() })])
            }
            Mutation::Drop
            | Mutation::Reorder
            | Mutation::Replay
            | Mutation::RollBack
            | Mutation::Fork
            | Mutation::Flip
            | Mutation::CrossSchool
            | Mutation::Revoked
            | Mutation::OldEpoch => None,
        }
    }

    /// Alters the answer to a batch that was stored.
    pub(super) fn alter_reply(&mut self, mutation: Mutation, batch: &Batch, frames: &mut Vec<Frame>) {
        let what = match mutation {
            Mutation::Drop => {
                frames.clear();
                "an answer"
            }
            Mutation::Replay => {
                let earlier = self
                    .history
                    .receipts
                    .iter()
                    .find(|((log, last), _)| *log == batch.header().log && *last < batch.header().last);
                let Some((_, receipt)) = earlier else { return };
                *frames = vec![Frame::Receipt(receipt.clone())];
                "an earlier receipt"
            }
            Mutation::CrossSchool => {
                *frames = vec![Frame::Receipt(self.history.foreign.receipts[0].clone())];
                "a receipt of another school"
            }
            Mutation::Reorder
            | Mutation::RollBack
            | Mutation::Fork
            | Mutation::Flip
            | Mutation::OldReceipt
            | Mutation::OldEpoch
            | Mutation::Revoked
            | Mutation::Forge
            | Mutation::Withhold => return,
        };
        self.did(mutation, what);
    }
}
