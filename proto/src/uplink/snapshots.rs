//! Snapshots at a replica: one that the cloud has is fetched where nothing of its tier is held, one that was made
//! here is offered until it has a receipt.
//!
//! **Invariant**: a fetched root is by an incarnation of the school, and a part is one that its root names.
//! **Invariant**: nothing is offered that names more of a log than the cloud has of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{Hash32, LogName, Tier};
use crate::planted::{Defect, is_planted};
use crate::receipt::Receipt;
use crate::snapshot::{Snapshot, SnapshotRoot};
use crate::vector::LogHead;
use crate::wire::{RefusalCode, SnapshotName, SnapshotOffer, SnapshotPart, SnapshotWants};

use super::{Alarm, Effect, Line, SnapshotReply, Uplink};

/// Snapshots that the cloud may have forgotten between its welcome and the question, before it is told as a wrong: one
/// that really makes newer ones so fast is a cloud to be looked at.
const GONE_MAX: u32 = 3;

/// One that was made here and has no receipt yet.
#[derive(Debug)]
struct Made {
    snapshot: Snapshot,
    /// Parts that the cloud has said it lacks.
    wants: VecDeque<u32>,
    /// Roots and parts that were sent on this connection: a cloud that never has enough is not served for ever.
    sent: usize,
    /// Not offered before the next connection.
    rests: bool,
}

#[derive(Debug)]
struct Fetching {
    offer: SnapshotOffer,
    snapshot: Option<Snapshot>,
}

impl Fetching {
    /// Whether an answer to this question is one for it.
    fn is_asked_by(&self, name: SnapshotName, asked: bool) -> bool {
        match name {
            SnapshotName::Root(root) => self.offer.root == root,
            // It may come when another tier is being fetched already.
            SnapshotName::Tier(tier) => asked && self.offer.tier == tier,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Whether this replica fetches any at all.
    fetches: bool,
    wanted: BTreeMap<Tier, SnapshotOffer>,
    fetching: Option<Fetching>,
    /// The newest one of tier 0 is asked for with the next hello: that saves a round trip.
    at_once: bool,
    /// It was asked for with the hello of this connection.
    asked: bool,
    /// Those that did not verify or add up: their tiers come change by change.
    failed: BTreeSet<Hash32>,
    /// How many the cloud had forgotten when they were asked for.
    gone: u32,
    made: BTreeMap<Tier, Made>,
    /// Whether the cloud keeps snapshots.
    taken: bool,
    /// The one that an answer is due for.
    under_way: Option<Hash32>,
}

impl Snapshots {
    pub(super) fn new(fetches: bool) -> Self {
        Self { fetches, ..Self::default() }
    }

    pub(super) const fn is_fetching(&self) -> bool {
        self.fetching.is_some()
    }

    /// Whether the answer to what was asked for with the hello has not ended.
    pub(super) const fn is_asked(&self) -> bool {
        self.asked
    }

    /// Returns the root of the one that is being fetched, once it has come.
    pub(super) fn coming(&self) -> Option<&SnapshotRoot> {
        self.fetching.as_ref()?.snapshot.as_ref().map(Snapshot::root)
    }

    /// Returns the first tier that is to come as a snapshot.
    pub(super) fn next_tier(&self) -> Option<Tier> {
        self.wanted.keys().next().copied()
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self) {
        self.wanted.clear();
        self.fetching = None;
        self.asked = false;
        self.under_way = None;
        for made in self.made.values_mut() {
            (made.sent, made.rests) = (0, false);
            made.wants.clear();
        }
    }
}

impl Uplink {
    /// Notes what a welcome offers, for tiers of which nothing is held here.
    pub(super) fn welcome_snapshots(&mut self, offers: Option<&[SnapshotOffer]>) {
        self.snapshots.taken = offers.is_some();
        if !self.snapshots.fetches {
            return;
        }
        for offer in offers.unwrap_or_default() {
            let is_empty = self.is_tier_empty(offer.tier) && !self.snapshots.failed.contains(&offer.root);
            if is_empty && self.snapshots.asked && offer.tier == Tier::Safety {
                self.snapshots.fetching = Some(Fetching { offer: *offer, snapshot: None });
            } else if is_empty {
                self.snapshots.wanted.insert(offer.tier, *offer);
            }
        }
    }

    /// Nothing of an earlier attempt is held, so that the first hello may ask for tier 0 without knowing what there
    /// is of it.
    pub fn ask_at_once(&mut self) {
        self.snapshots.at_once = self.snapshots.fetches;
    }

    /// The hello is on its way.
    pub(super) fn fetch_at_once(&mut self) {
        self.snapshots.asked = self.snapshots.at_once && self.is_tier_empty(Tier::Safety);
        if self.snapshots.asked {
            self.effects.push_back(Effect::FetchSnapshot(SnapshotName::Tier(Tier::Safety)));
        }
    }

    fn is_tier_empty(&self, tier: Tier) -> bool {
        let peers = self.peers.heads().keys().any(|log| log.tier == tier);
        let own = self.own.iter().any(|(log, own)| log.tier == tier && own.held() != LogHead::EMPTY);
        !peers && !own
    }

    pub(super) fn fetch_snapshot(&mut self, tier: Tier) {
        let Some(offer) = self.snapshots.wanted.remove(&tier) else { return };
        self.snapshots.fetching = Some(Fetching { offer, snapshot: None });
        self.effects.push_back(Effect::FetchSnapshot(SnapshotName::Root(offer.root)));
    }

    /// The root of a snapshot that was asked for by this name has come.
    pub fn handle_snapshot_root(&mut self, name: SnapshotName, text: &str) {
        let asked = self.snapshots.asked;
        // The answer to the question with the hello may come when its tier has come by itself.
        let Some(fetching) = self.snapshots.fetching.as_mut().filter(|it| it.is_asked_by(name, asked)) else {
            return;
        };
        let verified = Snapshot::verify(text, self.school, |author| self.peers.key(author));
        let counts = verified.as_ref().is_ok_and(|snapshot| self.peers.are_within(&snapshot.root().heads));
        // From here on parts are held, and it is asked for by its name.
        self.snapshots.at_once = false;
        if let (Ok(snapshot), SnapshotName::Tier(tier)) = (&verified, name)
            && snapshot.root().tier == tier
        {
            // It may have become whole since the welcome was written.
            fetching.offer.root = snapshot.hash();
        }
        let (offer, wrong) = (fetching.offer, "it is not the one that was asked for".to_owned());
        match verified {
            Ok(_) if !counts => {
                self.snapshot_failed(offer, "it holds more of a revoked device than counts".to_owned());
            }
            Ok(snapshot) if snapshot.hash() == offer.root && snapshot.root().tier == offer.tier => {
                fetching.snapshot = Some(snapshot.clone());
                self.effects.push_back(Effect::KeepSnapshot(Box::new(snapshot)));
                self.fetch_next();
            }
            Ok(_) => self.snapshot_failed(offer, wrong),
            Err(error) => self.snapshot_failed(offer, error.to_string()),
        }
    }

    /// A part of the snapshot that is being fetched has come.
    pub fn handle_snapshot_part(&mut self, part: SnapshotPart) {
        let Some(fetching) = &self.snapshots.fetching else { return };
        let (offer, number) = (fetching.offer, usize::try_from(part.number).unwrap_or(usize::MAX));
        let named = fetching.snapshot.as_ref().and_then(|snapshot| snapshot.root().parts.get(number));
        let is_named =
            named.is_some_and(|name| name.is_of(&part.sealed) || is_planted(Defect::SnapshotPartUnchecked));
        if part.root != offer.root {
            // It belongs to a fetch that was given up, whose stream has not ended.
            return;
        }
        if is_named {
            self.has_arrived = true;
            self.effects.push_back(Effect::KeepSnapshotPart(Box::new(part)));
        } else {
            self.snapshot_failed(offer, format!("its part {number} is not the one that the root names"));
        }
    }

    /// The answer to the fetch has ended.
    pub fn handle_snapshot_end(&mut self, name: SnapshotName) {
        let asked = std::mem::take(&mut self.snapshots.asked);
        self.send_due_keys();
        let fetching = self.snapshots.fetching.as_ref().filter(|it| it.is_asked_by(name, asked));
        let Some(fetching) = fetching else { return self.fetch_next() };
        let (offer, snapshot) = (fetching.offer, fetching.snapshot.clone());
        // Its parts may have taken minutes, in which the board's word can have come.
        let counts = |snapshot: &Snapshot| {
            let root = snapshot.root();
            self.peers.key(root.author).is_some() && self.peers.are_within(&root.heads)
        };
        match snapshot {
            Some(snapshot) if is_planted(Defect::SnapshotHeadsAlone) => {
                self.handle_snapshot_loaded(&snapshot, Ok(()));
            }
            Some(snapshot) if counts(&snapshot) => {
                self.effects.push_back(Effect::LoadSnapshot(Box::new(snapshot)));
            }
            Some(_) => {
                self.snapshot_failed(offer, "it holds more of a revoked device than counts".to_owned())
            }
            None => self.snapshot_gone(offer),
        }
    }

    /// The cloud has forgotten it since the welcome, because newer ones have come: that is no wrong, and the next welcome
    /// says which they are.
    fn snapshot_gone(&mut self, offer: SnapshotOffer) {
        self.snapshots.gone += 1;
        if self.snapshots.gone > GONE_MAX {
            return self.snapshot_failed(offer, "the cloud never has what it offers".to_owned());
        }
        self.snapshots.failed.insert(offer.root);
        (self.snapshots.fetching, self.snapshots.at_once) = (None, false);
        self.effects.push_back(Effect::Disconnect);
    }

    /// What was fetched is the state of its tier now, durably, or could not be made so: then the tier comes change
    /// by change.
    pub fn handle_snapshot_loaded(&mut self, snapshot: &Snapshot, outcome: Result<(), String>) {
        let offer = self.snapshots.fetching.as_ref().map(|fetching| fetching.offer);
        match (outcome, offer) {
            (Ok(()), _) => {
                self.snapshots.fetching = None;
                let heads = &snapshot.root().heads;
                for (log, head) in heads {
                    if self.cloud_heads.get(log).is_none_or(|there| there.sequence < head.sequence) {
                        let reason = "the cloud has less of it than its own snapshot names".to_owned();
                        self.effects.push_back(Effect::Alarm(Alarm::BadPeerBatch { log: *log, reason }));
                    }
                }
                self.peers.take_over(heads);
                self.release_held_back();
            }
            (Err(reason), Some(offer)) => self.snapshot_failed(offer, reason),
            (Err(_), None) => {}
        }
    }

    fn snapshot_failed(&mut self, offer: SnapshotOffer, reason: String) {
        self.snapshots.failed.insert(offer.root);
        (self.snapshots.fetching, self.snapshots.at_once) = (None, false);
        self.effects.push_back(Effect::Alarm(Alarm::BadSnapshot { tier: offer.tier, reason }));
        self.drop_held_back();
    }

    /// A snapshot was made here and is durable. It takes the place of an earlier one of its tier.
    pub fn handle_snapshot_made(&mut self, snapshot: Snapshot) {
        let made = Made { snapshot, wants: VecDeque::new(), sent: 0, rests: false };
        self.snapshots.made.insert(made.snapshot.root().tier, made);
        self.offer_next();
    }

    /// Offers the next snapshot, or sends the next part of one, unless an answer is due.
    pub(super) fn offer_next(&mut self) {
        let may = self.line == Line::Up && self.snapshots.taken && !self.loss_being_kept && !self.renewing;
        if !may || self.snapshots.under_way.is_some() {
            return;
        }
        let (own, cloud) = (&self.own, &self.cloud_heads);
        let has = |(log, head): (&LogName, &LogHead)| {
            let there = own.get(log).map_or_else(|| cloud.get(log).copied(), super::OwnLog::receipted);
            there.is_some_and(|there| there.sequence >= head.sequence)
        };
        let ready = |made: &&mut Made| !made.rests && made.snapshot.root().heads.iter().all(has);
        let Some(made) = self.snapshots.made.values_mut().find(ready) else { return };
        let root = made.snapshot.hash();
        made.sent += 1;
        let effect = match made.wants.pop_front() {
            Some(number) => Effect::SendSnapshotPart { root, number },
            None => Effect::SendSnapshot(Box::new(made.snapshot.clone())),
        };
        self.snapshots.under_way = Some(root);
        self.effects.push_back(effect);
    }

    /// The cloud has answered an offer or a part.
    pub fn handle_snapshot_reply(&mut self, root: Hash32, reply: SnapshotReply, now_ms: u64) {
        self.last_contact_ms = Some(now_ms);
        if self.snapshots.under_way.take_if(|under_way| *under_way == root).is_none() {
            return;
        }
        let tier = self.snapshots.made.iter().find(|(_, made)| made.snapshot.hash() == root);
        let Some(tier) = tier.map(|(tier, _)| *tier) else { return self.offer_next() };
        match reply {
            SnapshotReply::Receipt(bytes) => self.snapshot_receipt(tier, root, &bytes),
            SnapshotReply::Wants(wants) => self.snapshot_wanted(tier, wants),
            SnapshotReply::Refusal(refusal) => {
                // The cloud may have lost what it had, not have it yet, or have forgotten an offer among many: the next
                // greeting tells.
                let passes = matches!(
                    refusal.code,
                    RefusalCode::Chain
                        | RefusalCode::Storage
                        | RefusalCode::Manifest
                        | RefusalCode::Unexpected
                );
                match self.snapshots.made.get_mut(&tier) {
                    Some(made) if passes => made.rests = true,
                    _ => drop(self.snapshots.made.remove(&tier)),
                }
                self.effects.push_back(Effect::Alarm(Alarm::Refused(refusal)));
            }
        }
        self.offer_next();
    }

    /// A snapshot that was made here cannot be read any more.
    pub fn handle_snapshot_lost(&mut self, root: Hash32) {
        self.snapshots.made.retain(|_, made| made.snapshot.hash() != root);
        self.snapshots.under_way.take_if(|under_way| *under_way == root);
        self.offer_next();
    }

    fn snapshot_wanted(&mut self, tier: Tier, wants: SnapshotWants) {
        let Some(made) = self.snapshots.made.get_mut(&tier) else { return };
        let parts = made.snapshot.root().parts.len();
        made.wants = wants
            .parts
            .into_iter()
            .filter(|number| usize::try_from(*number).is_ok_and(|n| n < parts))
            .collect();
        if made.sent > 2 * parts + 4 {
            made.wants.clear();
            made.rests = true;
        }
    }

    /// Offers nothing of a tier before the next connection.
    fn rest(&mut self, tier: Tier) {
        if let Some(made) = self.snapshots.made.get_mut(&tier) {
            made.rests = true;
        }
    }

    fn snapshot_receipt(&mut self, tier: Tier, root: Hash32, bytes: &[u8]) {
        let Ok(receipt) = Receipt::verify(bytes, &self.cloud) else { return self.rest(tier) };
        let Some(made) = self.snapshots.made.get(&tier) else { return };
        let named = receipt.school == self.school
            && receipt.log == (LogName { tier, incarnation: made.snapshot.root().author })
            && receipt.head == LogHead { sequence: 0, hash: root }
            && receipt.loss_counter == self.loss_counter;
        if named {
            self.snapshots.made.remove(&tier);
            self.effects.push_back(Effect::SnapshotSafe { tier, root });
        } else {
            self.rest(tier);
        }
    }
}
