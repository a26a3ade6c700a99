//! A cloud that shows two faces: a second node that stands beside the first, on the same sites, and takes no notice of
//! what the other has put since. Some boxes are led to the one and some to the other, and now and then a box is led
//! from one to the other. And sites that list late: what they hold is not in their listings for a while.
//!
//! Both nodes are honest each by itself, so whatever they sign is at the quorum; what they show contradicts each other.
//! A log that a clone has forked may go on along one branch at each, with receipts.
//! **Invariants** that it checks: a box that is shown less of another's log than before, or another history of it,
//! says so. At no moment more sites hide something or are down than a read quorum stands.

use std::collections::BTreeSet;

use sonae_proto::ids::LogName;
use sonae_proto::uplink::Alarm;
use sonae_proto::vector::{Heads, LogHead};

use super::node::{Boot, Node, Site};
use super::planted::Planted;
use super::world::World;

/// The second face of a cloud.
#[derive(Default)]
pub(crate) struct Faces {
    /// The node that stands beside the first.
    pub beside: Option<Node>,
    /// Lives of nodes whose objects the first one takes no notice of.
    hidden: BTreeSet<u64>,
    /// Boxes that are led to the second.
    misled: BTreeSet<usize>,
    /// Whether there has been a second in this run.
    pub were_two: bool,
}

/// What a box was shown of others' logs in one of its lives, kept without asking its engine.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    heads: Heads,
    /// Logs of which it has told another history.
    disputed: BTreeSet<LogName>,
    /// Logs of which it has told a loss since the last welcome.
    lost: BTreeSet<LogName>,
    /// It has found something of its own logs since then, and did not look further.
    is_cut_short: bool,
}

impl World {
    /// Lets something happen at the node of a life, which may be the one beside the first.
    pub fn at_node(&mut self, boot: u64, what: impl FnOnce(&mut Self)) {
        let is_beside = self.faces.beside.as_ref().is_some_and(|node| node.boot == boot);
        if is_beside {
            std::mem::swap(&mut self.node, &mut self.faces.beside);
        }
        what(self);
        if is_beside {
            std::mem::swap(&mut self.node, &mut self.faces.beside);
        }
    }

    /// The life of the node that a box finds when it dials.
    pub fn found_by(&self, slot: usize) -> Option<u64> {
        let beside = self.faces.beside.as_ref().filter(|_| self.faces.misled.contains(&slot));
        beside.or(self.node.as_ref()).map(|node| node.boot)
    }

    /// A second node begins to stand beside the first. The boxes whose bits are set are led to it.
    pub fn split(&mut self, bits: u8) {
        if self.node.is_none() || self.faces.beside.is_some() {
            return;
        }
        self.boots += 1;
        self.tally.boots += 1;
        let boot = self.boots;
        self.note(format_args!("node {boot} stands beside the other"));
        let quorum = self.options.quorum;
        let intake = self.board.intake(self.sites.len(), quorum, false);
        let mut shown = self.shown_sites();
        match Node::boot(&self.board, self.boots, &mut shown, intake, Boot { quorum, heal: false }) {
            Ok(node) => self.faces.beside = Some(node),
            Err(error) => return self.violate(format!("a second node does not start: {error:#}")),
        }
        self.tally.counts.splits += 1;
        self.faces.were_two = true;
        self.faces.hidden.insert(self.boots);
        self.faces.misled = (0..self.slots.len()).filter(|slot| bits >> (slot % 8) & 1 == 1).collect();
        for slot in self.faces.misled.clone() {
            self.lose_line(slot);
        }
    }

    /// A box is led to the other face from now on.
    pub fn turn(&mut self, slot: usize) {
        if self.faces.beside.is_some() {
            if !self.faces.misled.remove(&slot) {
                self.faces.misled.insert(slot);
            }
            self.lose_line(slot);
        }
    }

    /// There is one face only. What the other has put, the next node finds.
    pub fn unite(&mut self) {
        self.faces.hidden.clear();
        self.faces.misled.clear();
        let Some(gone) = self.faces.beside.take() else { return };
        self.note(format_args!("node {} stands no more beside the other", gone.boot));
        for slot in 0..self.slots.len() {
            let line = self.slots[slot].line.and_then(|line| self.connections.get(&line));
            if line.is_some_and(|line| line.boot == gone.boot) {
                self.lose_line(slot);
            }
        }
    }

    /// Whether a cloud that has lost nothing may have shown less than before.
    pub const fn may_contradict(&self) -> bool {
        self.faces.were_two
    }

    // What sites list.

    /// From now on a site does not list what is put to it, for so many milliseconds.
    pub fn list_late(&mut self, site: usize, ms: u64) {
        let until = self.now + ms;
        let others = self.sites.iter().enumerate().filter(|(number, _)| *number != site);
        if !others.into_iter().any(|(_, site)| site.lists_after > self.now) {
            self.sites[site].lists_after = until;
        }
    }

    /// The sites as a node finds them that starts now.
    pub fn shown_sites(&mut self) -> Vec<Site> {
        let mut shown = self.sites.clone();
        let may_hide = self.options.sites - self.options.quorum;
        let down = shown.iter().filter(|site| site.is_down).count();
        let mut unlisted = 0;
        for site in shown.iter_mut().filter(|site| !site.is_down && down < may_hide) {
            let (before, now) = (site.objects.len(), self.now);
            let late = &site.late;
            site.objects.retain(|name, _| late.get(name).is_none_or(|until| *until <= now));
            unlisted += before - site.objects.len();
        }
        self.tally.counts.unlisted += u64::try_from(unlisted).unwrap_or(u64::MAX);
        let hidden = &self.faces.hidden;
        let is_hidden = |name: &str| hidden.iter().any(|boot| name.starts_with(&format!("{boot:06}-")));
        for site in &mut shown {
            site.objects.retain(|name, _| !is_hidden(name));
        }
        shown
    }

    /// Copies to each site what the others list and it does not hold. Returns whether that was asked of anybody.
    pub fn heal_sites(&mut self, shown: &[Site]) {
        for (site, shown) in self.sites.iter_mut().zip(shown) {
            for (name, object) in &shown.objects {
                site.objects.entry(name.clone()).or_insert_with(|| object.clone());
            }
        }
    }

    /// Deletes what too few sites list for it to have a receipt: a planted defect.
    pub fn delete_unfinished(&mut self, shown: &mut [Site]) {
        if self.planted != Some(Planted::UnfinishedDeleted) {
            return;
        }
        let down = shown.iter().filter(|site| site.is_down).count();
        let names: BTreeSet<String> =
            shown.iter().filter(|site| !site.is_down).flat_map(|site| site.objects.keys().cloned()).collect();
        for name in names {
            let lists = |site: &&Site| !site.is_down && site.objects.contains_key(&name);
            if shown.iter().filter(lists).count() + down < self.options.quorum {
                for (number, site) in shown.iter_mut().enumerate() {
                    if site.objects.remove(&name).is_some() {
                        self.sites[number].objects.remove(&name);
                        self.ledger.deleted(number, self.sites[number].objects.values());
                    }
                }
            }
        }
    }

    // What boxes are shown of others.

    /// A box tells people something of a log.
    pub fn note_told(&mut self, slot: usize, alarm: &Alarm) {
        let shown = &mut self.slots[slot].shown;
        match alarm {
            Alarm::CloudLostPeer { log, .. } => drop(shown.lost.insert(*log)),
            Alarm::BadPeerBatch { log, .. } => drop(shown.disputed.insert(*log)),
            Alarm::CloudLost { .. } | Alarm::Unfillable { .. } | Alarm::OwnLogElsewhere { .. } => {
                shown.is_cut_short = true;
            }
            Alarm::Refused(_)
            | Alarm::BadSnapshot { .. }
            | Alarm::Stalled { .. }
            | Alarm::NotServed { .. }
            | Alarm::RevocationTakenBack { .. }
            | Alarm::AppliedBeforeRevocation { .. }
            | Alarm::Incomplete => {}
        }
    }

    /// What a welcome or news name of others' logs that the board has not revoked.
    fn of_others(&self, slot: usize, heads: &Heads) -> Heads {
        let own = self.slots[slot].life.name;
        let counts = |log: &LogName| {
            let device = self.devices.get(&log.incarnation);
            log.incarnation != own && device.is_none_or(|device| !self.revoked.contains_key(device))
        };
        heads.iter().filter(|(log, _)| counts(log)).map(|(log, head)| (*log, *head)).collect()
    }

    /// Other logs have moved.
    pub fn note_news(&mut self, slot: usize, heads: &Heads) {
        for (log, head) in self.of_others(slot, heads) {
            raise(&mut self.slots[slot].shown.heads, log, head);
        }
    }

    /// A box has read a welcome and said what it had to say.
    pub fn check_shown(&mut self, slot: usize, heads: &Heads, complete: bool) {
        let there = self.of_others(slot, heads);
        let known = self.of_others(slot, &self.slots[slot].shown.heads);
        let shown = &mut self.slots[slot].shown;
        let (told, cut_short) = (std::mem::take(&mut shown.lost), std::mem::take(&mut shown.is_cut_short));
        let mut silent = None;
        for (log, before) in known {
            let now = there.get(&log).copied().unwrap_or(LogHead::EMPTY);
            let is_less = complete && now.sequence < before.sequence;
            let is_other = !cut_short && now.sequence == before.sequence && now.hash != before.hash;
            if is_less {
                shown.heads.insert(log, now);
            }
            if (is_less && !told.contains(&log)) || (is_other && !shown.disputed.contains(&log)) {
                silent = Some(log);
            }
        }
        if !cut_short {
            there.into_iter().for_each(|(log, head)| raise(&mut shown.heads, log, head));
        }
        // A box that does not know yet who is revoked compares more, and one that knows compares less.
        if let Some(log) = silent.filter(|_| self.slots[slot].replica.is_some()) {
            self.violate(format!(
                "the cloud contradicts what it showed box {slot} of {log}; the box is silent"
            ));
        }
    }
}

fn raise(heads: &mut Heads, log: LogName, head: LogHead) {
    let known = heads.entry(log).or_insert(head);
    if head.sequence >= known.sequence {
        *known = head;
    }
}
