//! The lives of boxes: destroyed and replaced, returned, ended because the cloud has another history; and what is
//! carried over from one to the next (P6).
//!
//! **Invariant** that it checks: of a life that ended, every line that was acknowledged is in the history that
//! everybody has, or was issued again.

use std::collections::BTreeSet;

use sonae_journal::sim::Cut;
use sonae_proto::change::Change;
use sonae_proto::erasure::tombstones;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::reissue::{parting, reissue};
use sonae_proto::vector::LogHead;

use super::act::BOXES_MAX;
use super::event::Event;
use super::item::Item;
use super::ledger::BoxLedger;
use super::options::LanKind;
use super::planted::Planted;
use super::replica::Draft;
use super::seal;
use super::slot::{Buried, Slot};
use super::store::Store;
use super::world::World;

/// Milliseconds between tries to carry over.
pub(crate) const TRY_MS: u64 = 1_000;

/// Lines with their sequences.
type Lines = Vec<(u64, Vec<u8>)>;

impl World {
    /// Another incarnation with an empty disk takes the place of the one in a slot.
    pub fn replace_life(&mut self, slot: usize, device: Option<u8>, rebuilds: bool) -> Option<Buried> {
        let life = match self.enrol(device, rebuilds) {
            Ok(life) => life,
            Err(error) => {
                self.violate(format!("an incarnation does not begin: {error:#}"));
                return None;
            }
        };
        let disk = self.new_disk();
        let place = &mut self.slots[slot];
        place.image = None;
        place.receipts.clear();
        Some(Buried {
            life: std::mem::replace(&mut place.life, life),
            disk: std::mem::replace(&mut place.disk, disk),
            book: std::mem::take(&mut place.book),
            read_by: BTreeSet::new(),
            has_rotted: std::mem::take(&mut place.has_rotted),
            salvaged: None,
        })
    }

    /// The box is gone; a new device with an empty disk takes its place.
    pub fn destroy(&mut self, slot: usize) {
        self.stop_box(slot, Some(Cut::Drop));
        self.slots[slot].ended.clear();
        let rebuilds = self.options.snapshot_every > 0 && self.options.lan != LanKind::Alone;
        self.slots[slot].full_from = None;
        self.slots[slot].buried = self.replace_life(slot, None, rebuilds);
        self.start_box(slot);
    }

    /// A box begins with what the cloud has, beside all others.
    pub fn begin_beside(&mut self) -> Option<usize> {
        match self.enrol(None, true) {
            Ok(life) => {
                let disk = self.new_disk();
                self.add_slot(Slot::new(life, disk, BoxLedger::default(), self.now));
                Some(self.slots.len() - 1)
            }
            Err(error) => {
                self.violate(format!("an incarnation does not begin: {error:#}"));
                None
            }
        }
    }

    /// Whether a box is beginning with what the cloud has: nobody writes to it before that is here.
    pub fn is_rebuilding(&self, slot: usize) -> bool {
        let place = &self.slots[slot];
        place.life.rebuilds && place.replica.as_ref().is_none_or(|replica| !replica.store.held.is_rebuilt)
    }

    /// A rebuild ends when everything is here. One that can never end, because a peer's log is held along another branch
    /// than the cloud has, is begun anew in an empty directory, as its error says.
    pub fn look_at_rebuild(&mut self, slot: usize) {
        let Some(replica) = self.slots[slot].replica.as_ref().filter(|_| self.is_rebuilding(slot)) else {
            return;
        };
        if replica.engine.parted().is_some() {
            self.stop_box(slot, None);
            let device = self.slots[slot].life.device;
            // Nobody has written to it.
            drop(self.replace_life(slot, Some(device), true));
            self.start_box(slot);
        } else if replica.engine.has_all_of_peers() && self.keep(slot, Item::Rebuilt) {
            self.note(format_args!("box {slot} is rebuilt"));
            self.stop_box(slot, None);
            self.start_box(slot);
        }
    }

    /// The box that was gone is found and switched on.
    pub fn return_box(&mut self, slot: usize) {
        if self.slots.len() >= BOXES_MAX {
            return;
        }
        if let Some(buried) = self.slots[slot].buried.take() {
            let mut found = Slot::new(buried.life, buried.disk, buried.book, self.now);
            found.has_rotted = buried.has_rotted;
            self.add_slot(found);
        }
    }

    /// The cloud has another history of an own log. The box goes on under a new incarnation, with an empty store
    /// beside the old one; when everything is fetched, what only the old one has is carried over.
    ///
    /// `edge` exchanges the stores at the end and serves the old one until then; here they are exchanged at once.
    pub fn renew(&mut self, slot: usize) {
        self.stop_box(slot, None);
        self.tally.counts.renewals += 1;
        let device = self.slots[slot].life.device;
        if let Some(ended) = self.replace_life(slot, Some(device), false) {
            self.slots[slot].ended.push(ended);
        }
        self.start_box(slot);
        self.at(self.now + TRY_MS, Event::CarryOver { slot });
    }

    /// Carries over what ended incarnations wrote, as soon as everything that the cloud has is here. Where that can never
    /// be, because a peer's log is held along another branch than the cloud has, it is begun anew: `edge` throws a store
    /// away that nobody has written to, here the one that people write to already ends like the one before.
    pub fn try_carry_over(&mut self, slot: usize) {
        let place = &self.slots[slot];
        let engine = place.replica.as_ref().map(|replica| &replica.engine);
        if !place.ended.is_empty() && engine.is_some_and(|engine| engine.parted().is_some()) {
            return self.renew(slot);
        }
        let is_complete =
            place.welcomed_by.is_some() && engine.is_some_and(sonae_proto::uplink::Uplink::has_all_of_peers);
        for ended in place.ended.clone() {
            if is_complete && self.carry_over(slot, &ended) {
                self.slots[slot].ended.retain(|other| other.life.name != ended.life.name);
            }
        }
        if !self.slots[slot].ended.is_empty() {
            self.at(self.now + TRY_MS, Event::CarryOver { slot });
        }
    }

    /// A disk that lay in the ruins is read, and what is missing here is issued again.
    pub fn dig_out(&mut self, slot: usize) {
        let found = |place: &usize| self.slots[*place].buried.is_some();
        let Some(place) = std::iter::once(slot).chain(0..self.slots.len()).find(found) else { return };
        let Some(buried) = self.slots[place].buried.clone() else { return };
        if self.is_rebuilding(slot) {
            return;
        }
        if !buried.read_by.contains(&slot)
            && self.carry_over(slot, &buried)
            && let Some(buried) = &mut self.slots[place].buried
        {
            buried.read_by.insert(slot);
        }
    }

    /// Issues again what only an ended incarnation has. Returns whether all of it is here now.
    fn carry_over(&mut self, slot: usize, ended: &Buried) -> bool {
        if let Some(salvaged) = &ended.salvaged {
            return Tier::ALL.into_iter().all(|tier| {
                let lines = salvaged.get(&ended.life.log(tier)).cloned().unwrap_or_default();
                self.carry_log(slot, ended.life.log(tier), LogHead::EMPTY, lines.into_iter().collect())
            });
        }
        let Ok(store) = Store::open(&ended.disk, self.keeping()) else {
            if let Some(salvaged) = self.salvaged(ended) {
                return self.carry_over(slot, &Buried { salvaged: Some(salvaged), ..ended.clone() });
            }
            if ended.disk.is_off() {
                self.crashed_at("power cut, reading an ended store".into());
                ended.disk.power_cycle(self.slots[slot].cut);
            }
            return false;
        };
        let recovered = ended.book.clone().recovered(&store.held);
        self.hold(recovered);
        for tier in Tier::ALL {
            let log = ended.life.log(tier);
            let Some(replica) = &self.slots[slot].replica else { return false };
            let base = replica.store.held.shelf.base(log);
            // What a snapshot stands for can only be compared where it ends.
            if !store.held.has_point(log, base) {
                return false;
            }
            let lines = (1..).zip(store.held.lines.get(&log).into_iter().flatten().cloned());
            let here: Lines = lines.filter(|(sequence, _)| *sequence > base.sequence).collect();
            if !self.carry_log(slot, log, base, here) {
                return false;
            }
        }
        true
    }

    /// Issues again what an ended log has behind a point and the one here has not. Returns whether all is here now.
    fn carry_log(&mut self, slot: usize, log: LogName, base: LogHead, here: Lines) -> bool {
        let Some(replica) = &self.slots[slot].replica else { return false };
        let batches = replica.store.held.peers.get(&log).into_iter().flatten();
        let opened = batches.flat_map(|batch| seal::open(batch.payload()));
        let there: Lines = (base.sequence + 1..).zip(opened).collect();
        let Some(from) = parting(&here, &there) else { return true };
        let missing: Lines = here.into_iter().filter(|(sequence, _)| *sequence >= from).collect();
        let changes = match reissue(log, &missing) {
            Ok(changes) => changes,
            Err(error) => {
                self.violate(format!("what was dug out is no change: {error}"));
                return false;
            }
        };
        // Tombstones first, as in the product: nothing that is erased is sealed again on the way.
        let is_stone = |change: &&Change| change.collection == tombstones(log.tier);
        let (first, then): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(is_stone);
        first.into_iter().chain(then).all(|change| self.issue_again(slot, log.tier, change))
    }

    /// Keeps a change under the name of this box, unless it is here already. Returns whether it is here now.
    fn issue_again(&mut self, slot: usize, tier: Tier, change: &Change) -> bool {
        let life = &self.slots[slot].life;
        let Some(replica) = &self.slots[slot].replica else { return false };
        if change.origin.is_some_and(|name| replica.model.has(tier, name)) {
            return true;
        }
        let is_erased = replica.is_erased(tier, &change.collection, &change.record);
        if is_erased && self.planted != Some(Planted::ErasedIssuedAgain) {
            return true;
        }
        match change.to_line(life.name) {
            Ok(line) => {
                let draft = Draft { log: life.log(tier), stamp: change.stamp, line };
                self.keep_change(slot, draft)
            }
            Err(error) => {
                self.violate(format!("box {slot} cannot issue again: {error}"));
                false
            }
        }
    }
}
