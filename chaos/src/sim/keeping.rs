//! What the keeper of a box does: it starts, stops, keeps, applies and seals, on a disk that may fail.
//!
//! **Invariant**: nothing is acknowledged, told to the engine or shown before the journal has it.

use anyhow::Error;
use sonae_journal::JournalError;
use sonae_journal::sim::Cut;
use sonae_proto::ids::Tier;
use sonae_proto::limits::CLOCK_AHEAD_MS_MAX;

use super::event::Event;
use super::faces::Shown;
use super::item::Item;
use super::later;
use super::planted::Planted;
use super::replica::{Draft, Replica};
use super::store::Store;
use super::world::World;

/// Milliseconds after which a box that stopped is started again, at most.
const RESTART_MS_MAX: u64 = 3_000;

/// Milliseconds between looks for room on a full disk.
const ROOM_MS: u64 = 60_000;

/// The same over days of a school, or most of such a run would be looks.
const ROOM_OVER_DAYS_MS: u64 = 1_800_000;

impl World {
    /// Starts a box on what its disk holds.
    pub fn start_box(&mut self, slot: usize) {
        if self.slots[slot].replica.is_some() {
            return;
        }
        self.slots[slot].lives += 1;
        self.slots[slot].shown = Shown::default();
        let wanted_room = std::mem::take(&mut self.slots[slot].wants_room);
        let store = match Store::open(&self.slots[slot].disk, self.keeping()) {
            Ok(store) => store,
            Err(error) => return self.start_failed(slot, &error),
        };
        self.note(format_args!("box {slot} starts"));
        let recovered = self.slots[slot].book.recovered(&store.held);
        self.hold(recovered);
        let told = self.told(slot);
        let (life, words, relays) = (&self.slots[slot].life, self.slots[slot].words, self.options.relays);
        match Replica::start(&self.board, life, store, told, words, &self.witnessed, relays) {
            Ok(replica) => {
                self.slots[slot].replica = Some(replica);
                self.tally.restarts += u64::from(!wanted_room);
                self.drain_box(slot);
            }
            Err(error) => self.violate(format!("box {slot} does not start: {error:#}")),
        }
    }

    fn start_failed(&mut self, slot: usize, error: &Error) {
        let off = self.slots[slot].disk.is_off();
        let is_full = error.downcast_ref::<JournalError>().is_some_and(JournalError::is_full);
        let is_io = matches!(error.downcast_ref(), Some(JournalError::Io { .. } | JournalError::Poisoned));
        self.note(format_args!("box {slot} cannot open its journal: {error:#}"));
        let is_corrupt = error.downcast_ref().is_some_and(JournalError::is_corrupt);
        if is_corrupt && self.slots[slot].has_rotted {
            return self.repair(slot);
        }
        if off {
            self.crashed_at("power cut in recovery".into());
            self.slots[slot].disk.power_cycle(self.slots[slot].cut);
        } else if !is_full && !is_io {
            return self.violate(format!("box {slot} cannot open its journal: {error:#}"));
        } else if is_full {
            return self.start_when_there_is_room(slot);
        }
        self.start_later(slot);
    }

    pub fn start_later(&mut self, slot: usize) {
        let wait = 1 + self.random.below(RESTART_MS_MAX);
        self.start_after(slot, wait);
    }

    /// Nothing goes on before there is room; the process comes back now and then to look.
    pub fn start_when_there_is_room(&mut self, slot: usize) {
        self.slots[slot].wants_room = true;
        let has_days = self.options.school_days > 0;
        self.start_after(slot, if has_days { ROOM_OVER_DAYS_MS } else { ROOM_MS });
    }

    fn start_after(&mut self, slot: usize, ms: u64) {
        let life = self.slots[slot].lives;
        self.at(self.now + ms, Event::StartBox { slot, life });
    }

    /// The box stops; `cut` says what becomes of what the disk has not flushed, `None` that the disk goes on.
    pub fn stop_box(&mut self, slot: usize, cut: Option<Cut>) {
        self.note(format_args!("box {slot} stops, {cut:?}"));
        // First of all, or it would go on with what its engine has asked for.
        self.slots[slot].replica = None;
        self.slots[slot].carried = None;
        self.lose_line(slot);
        self.lose_links(slot);
        self.slots[slot].wake_at = None;
        self.slots[slot].stop_at = None;
        self.slots[slot].lives += 1;
        if let Some(cut) = cut {
            self.slots[slot].disk.power_cycle(cut);
        }
    }

    fn keep_failed(&mut self, slot: usize, what: &str, error: &JournalError) {
        if error.is_full() {
            self.note(format_args!("box {slot} has no room for a {what}"));
            self.tally.counts.refused_for_room += 1;
        } else if self.slots[slot].disk.is_off() {
            self.crashed_at(format!("power cut, keeping a {what}"));
            let cut = self.slots[slot].cut;
            self.stop_box(slot, Some(cut));
            self.start_later(slot);
        } else if matches!(error, JournalError::Io { .. } | JournalError::Poisoned) {
            // The process ends and starts again: a poisoned journal has to be opened anew.
            self.crashed_at(format!("disk error, keeping a {what}"));
            self.stop_box(slot, None);
            self.start_later(slot);
        } else {
            self.violate(format!("box {slot} cannot keep a {what}: {error}"));
        }
    }

    /// Keeps an item. Returns whether it is kept; if not, the box may have stopped.
    pub fn keep(&mut self, slot: usize, item: Item) -> bool {
        let what = item.name();
        self.maintain(slot, what, |store| store.keep(vec![item]))
    }

    /// Does something with the store of a box that runs.
    pub fn maintain(
        &mut self,
        slot: usize,
        what: &str,
        work: impl FnOnce(&mut Store) -> Result<(), JournalError>,
    ) -> bool {
        let Some(replica) = &mut self.slots[slot].replica else { return false };
        match work(&mut replica.store) {
            Ok(()) => true,
            Err(error) => {
                self.keep_failed(slot, what, &error);
                false
            }
        }
    }

    /// A person writes.
    pub fn write(&mut self, slot: usize, tier: Tier, record: usize) {
        let (value, told) = (self.random.bits(), self.told(slot));
        if self.is_rebuilding(slot) {
            return;
        }
        let parts = &mut self.slots[slot];
        parts.book.told_ms_max = parts.book.told_ms_max.max(told);
        let Some(replica) = &mut parts.replica else { return };
        let is_later = self.options.later && later::is_later(&parts.life);
        let draft = match replica.draft(&parts.life, tier, record, value, told, is_later) {
            Ok(draft) => draft,
            Err(error) => return self.violate(format!("box {slot} cannot write: {error:#}")),
        };
        if draft.stamp.ms > parts.book.told_ms_max + CLOCK_AHEAD_MS_MAX {
            self.violate(format!("the clock of box {slot} was dragged to {}", draft.stamp.ms));
        }
        self.keep_change(slot, draft);
    }

    /// Keeps a change and applies it. Returns whether it was acknowledged.
    pub fn keep_change(&mut self, slot: usize, draft: Draft) -> bool {
        let Draft { log, line, .. } = draft;
        self.check_not_erased(slot, log, &line);
        let parts = &mut self.slots[slot];
        let Some(replica) = &parts.replica else { return false };
        let sequence = replica.next_sequence(log);
        let reserve = log.tier == Tier::Safety && replica.store.has_reserve();
        parts.book.attempt(log, line.clone());
        let refused = self.tally.counts.refused_for_room;
        let kept = self.keep(slot, Item::Change { log, sequence, line: line.clone() });
        if reserve && self.tally.counts.refused_for_room > refused {
            self.violate(format!("box {slot} refused tier 0 although its reserve was there"));
        }
        if !kept {
            return false;
        }
        self.note(format_args!("box {slot} keeps {log} {sequence}"));
        self.slots[slot].book.acknowledge(log);
        let Some(replica) = &mut self.slots[slot].replica else { return false };
        if let Err(error) = replica.apply(log, sequence, &line) {
            self.violate(format!("box {slot}: {error:#}"));
        }
        self.look(slot);
        true
    }

    /// Seals what is kept, tier 0 first, at most `changes_max` changes a batch.
    pub fn seal(&mut self, slot: usize, changes_max: usize) {
        for tier in Tier::ALL {
            while self.seal_one(slot, tier, changes_max) {}
        }
    }

    fn seal_one(&mut self, slot: usize, tier: Tier, changes_max: usize) -> bool {
        let life = self.slots[slot].life.clone();
        let Some(replica) = &self.slots[slot].replica else { return false };
        let (after, lines) = replica.unsealed(life.log(tier), changes_max);
        if lines.is_empty() {
            return false;
        }
        let salt = self.random.bits();
        let batch = match self.board.seal(&life, tier, after, &lines, salt) {
            Ok(batch) => batch,
            Err(error) => {
                self.violate(format!("box {slot} cannot seal: {error}"));
                return false;
            }
        };
        let header = *batch.header();
        self.note(format_args!("box {slot} seals {} {}..{}", header.log, header.first, header.last));
        let lazily = self.planted == Some(Planted::SealedLazily);
        let kept = self.keep_or_later(slot, Item::Sealed(batch), lazily);
        let told = self.told(slot);
        if let Some(replica) = self.slots[slot].replica.as_mut().filter(|_| kept) {
            replica.engine.handle_sealed(&header, told);
            self.drain_box(slot);
        }
        kept
    }

    /// The same, or with the next commit if that is soon enough.
    pub fn keep_or_later(&mut self, slot: usize, item: Item, later: bool) -> bool {
        if !later {
            return self.keep(slot, item);
        }
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.store.keep_later(item);
        }
        true
    }
}
