//! What the script does to the world.

use sonae_journal::sim::{Cut, SimDisk};
use sonae_proto::ids::Tier;
use sonae_proto::uplink::BatchReply;

use super::event::Event;
use super::ledger::BoxLedger;
use super::script::{Action, BoxAction, CloudAction, DiskAction};
use super::slot::Slot;
use super::store::Store;
use super::world::World;

/// Boxes that a run may have at most, copies and returned ones included.
pub(crate) const BOXES_MAX: usize = 5;

/// Milliseconds after which a line on which nothing gets through is noticed.
const NOTICE_MS: u64 = 10_000;

impl World {
    pub fn act(&mut self, action: Action) {
        self.note(format_args!("ACTION {action:?}"));
        let boxes = self.slots.len();
        match action {
            Action::Box(number, what) => self.act_on_box(number % boxes, what),
            Action::Disk(number, what) => self.act_on_disk(number % boxes, what),
            Action::Cloud(what) => self.act_on_cloud(what),
            Action::Lan(what) => self.act_on_lan(what),
            Action::WriteEverywhere(tier, record) => {
                (0..boxes).for_each(|slot| self.write(slot, tier, record));
            }
        }
    }

    fn act_on_box(&mut self, slot: usize, what: BoxAction) {
        let place = &mut self.slots[slot];
        match what {
            BoxAction::Write(tier, record) => {
                self.write(slot, tier, record);
                self.prune(slot);
                self.consider_snapshot(slot);
            }
            BoxAction::Work(changes) => self.work(slot, changes),
            BoxAction::Erase(tier, record) => self.erase(slot, tier, record),
            BoxAction::Backlog(changes) => self.backlog(slot, changes),
            BoxAction::Seal(changes_max) => {
                self.seal(slot, changes_max);
                self.prune(slot);
                self.consider_snapshot(slot);
            }
            BoxAction::Idle => {
                self.maintain(slot, "mark", Store::idle);
            }
            BoxAction::Compact => {
                self.maintain(slot, "compacted journal", Store::compact);
            }
            BoxAction::CutLine(up, down) => self.cut_line(slot, up, down),
            BoxAction::HealLine => (place.blocked_up, place.blocked_down) = (false, false),
            BoxAction::SetClock(ms) => place.clock = (ms, self.now),
            BoxAction::TurnClockBack(ms) => {
                let told = self.told(slot);
                self.slots[slot].clock = (told.saturating_sub(ms), self.now);
            }
            BoxAction::Destroy => self.destroy(slot),
            BoxAction::Return => self.return_box(slot),
            BoxAction::DigOut => self.dig_out(slot),
            BoxAction::TakeImage => place.image = Some((place.disk.fork(), place.book.clone())),
            BoxAction::Restore => self.restore_box(slot),
            BoxAction::Clone => self.clone_box(slot),
            BoxAction::ReplayReceipts => self.replay_receipts(slot),
            BoxAction::Revoke => self.revoke(slot),
            BoxAction::CarryStolen => self.carry_stolen(slot),
            BoxAction::Accept => self.accept(),
            BoxAction::CarryOut(trip) => self.carry_out(slot, trip),
        }
    }

    fn act_on_disk(&mut self, slot: usize, what: DiskAction) {
        let place = &mut self.slots[slot];
        match what {
            DiskAction::PowerCut(cut) => {
                if place.replica.is_some() {
                    self.crashed_at("power cut between operations".into());
                    self.stop_box(slot, Some(cut));
                    self.start_later(slot);
                }
            }
            DiskAction::PowerCutAhead(operations, cut) => {
                place.cut = cut;
                place.disk.cut_at(place.disk.counters().operations + operations);
            }
            DiskAction::StopAtEffect(effects, after, cut) => {
                place.cut = cut;
                place.stop_at = Some((effects, after));
            }
            DiskAction::Error(operations, fault) => {
                place.disk.fail_at(place.disk.counters().operations + operations, fault);
            }
            DiskAction::Full(bytes) => {
                if let Some(replica) = &place.replica {
                    place.disk.set_room(Some(replica.store.bytes() + bytes));
                }
            }
            DiskAction::Rot(place, at_once) => self.rot(slot, place, at_once),
            DiskAction::Room => {
                place.disk.set_room(None);
                place.full_from = None;
            }
        }
    }

    fn act_on_cloud(&mut self, what: CloudAction) {
        match what {
            CloudAction::Stop => self.stop_node(),
            CloudAction::StopAtEffect(effects) => self.node_stops_in = Some(effects),
            CloudAction::Start(heal) => self.start_node(heal),
            CloudAction::LoseTail(site, objects) => {
                self.stop_nodes();
                for number in self.some_sites(site) {
                    let disk = &mut self.sites[number].objects;
                    (0..objects).for_each(|_| drop(disk.pop_last()));
                    self.site_lost(number);
                }
            }
            CloudAction::TakeImage => self.sites_image = Some(self.sites.clone()),
            CloudAction::Restore(site) => {
                let Some(image) = self.sites_image.clone() else { return };
                self.stop_nodes();
                for number in self.some_sites(site) {
                    self.sites[number].objects.clone_from(&image[number].objects);
                    self.site_lost(number);
                }
            }
            CloudAction::TurnSite(site) => self.sites[site].is_down = !self.sites[site].is_down,
            CloudAction::Split(bits) => self.split(bits),
            CloudAction::Turn(slot) => self.turn(slot % self.slots.len()),
            CloudAction::Audit => self.audit(),
            CloudAction::Unite => self.unite(),
            CloudAction::ListLate(site, ms) => self.list_late(site, ms),
            CloudAction::TurnLies => self.node_lies = !self.node_lies,
            CloudAction::MissPuts(site, puts) => self.sites[site].misses = puts,
        }
    }

    /// No node runs: one that does would go on with what it knows of sites that lose something.
    fn stop_nodes(&mut self) {
        self.unite();
        self.stop_node();
    }

    fn some_sites(&self, site: Option<usize>) -> Vec<usize> {
        site.map_or_else(|| (0..self.sites.len()).collect(), |site| vec![site])
    }

    fn backlog(&mut self, slot: usize, changes: usize) {
        for _ in 0..changes {
            self.write(slot, Tier::Archive, 0);
            self.seal(slot, 1);
        }
        self.write(slot, Tier::Safety, 0);
        self.seal(slot, 1);
    }

    fn cut_line(&mut self, slot: usize, up: bool, down: bool) {
        (self.slots[slot].blocked_up, self.slots[slot].blocked_down) = (up, down);
        if let Some(connection) = self.slots[slot].line {
            self.at(self.now + NOTICE_MS, Event::LookAtLine { connection });
        }
    }

    /// Old receipts come again. They must change nothing: what they vouch for may be lost by now.
    fn replay_receipts(&mut self, slot: usize) {
        let told = self.told(slot);
        for (log, bytes) in self.slots[slot].receipts.clone() {
            if let Some(replica) = &mut self.slots[slot].replica {
                replica.engine.handle_batch_reply(log, BatchReply::Receipt(bytes), told);
            }
        }
        self.drain_box(slot);
    }

    pub fn add_slot(&mut self, slot: Slot) {
        self.slots.push(slot);
        self.start_box(self.slots.len() - 1);
    }

    /// The box is set back to its image: an old copy of its data directory.
    fn restore_box(&mut self, slot: usize) {
        let Some((disk, book)) = self.slots[slot].image.clone() else { return };
        self.stop_box(slot, None);
        self.slots[slot].disk = start_copy(&disk);
        self.slots[slot].book = book;
        self.contested.insert(self.slots[slot].life.name);
        self.start_box(slot);
    }

    /// A copy of the disk starts beside the box.
    fn clone_box(&mut self, slot: usize) {
        if self.slots.len() >= BOXES_MAX {
            return;
        }
        let original = &self.slots[slot];
        let (life, disk) = (original.life.clone(), start_copy(&original.disk));
        let book: BoxLedger = original.book.clone();
        self.contested.insert(life.name);
        let mut copy = Slot::new(life, disk, book, self.now);
        copy.has_rotted = self.slots[slot].has_rotted;
        self.add_slot(copy);
    }
}

/// A copy of a disk, without the faults that the first one was to have.
fn start_copy(disk: &SimDisk) -> SimDisk {
    let copy = disk.fork();
    copy.power_cycle(Cut::Keep);
    copy.set_room(None);
    copy
}
