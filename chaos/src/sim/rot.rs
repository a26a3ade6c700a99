//! Rot: a bit of what a box has on its disk is another one. The journal says so when it is opened; then the box goes on
//! under a new incarnation with what the cloud has, and writes again what only the rotten journal still shows. Models
//! `edge/src/repair.rs` and `edge/store/src/salvage.rs`.
//!
//! **Invariants** that it checks: what can still be read is what was written, to the byte; whatever a rotten journal
//! opens with passes for whole only if it is, as at any other start.
//!
//! Left out: rot of what an open journal has written since it was opened, which is read at the next start; what
//! snapshots stand for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use sonae_journal::sim::SimDisk;
use sonae_journal::{Disk, Journal, JournalError, Options};
use sonae_proto::ids::LogName;

use super::event::Event;
use super::item::Item;
use super::lives::TRY_MS;
use super::options::LanKind;
use super::seal;
use super::slot::Buried;
use super::store::{Keeping, Store};
use super::world::World;

/// Lines of own logs that can still be read, by sequence.
pub(crate) type Salvaged = BTreeMap<LogName, BTreeMap<u64, Vec<u8>>>;

/// Reads what it can of a rotten journal.
fn salvage(disk: &SimDisk, keeping: Keeping) -> Result<Salvaged> {
    let options = Options {
        segment_bytes: keeping.segment_bytes,
        planted: keeping.planted,
        salvage: true,
        ..Options::default()
    };
    let (journal, _) = Journal::open(Arc::new(disk.clone()), Path::new("/journal"), options)?;
    let mut salvaged = Salvaged::new();
    for frame in journal.replay(journal.first_lsn()) {
        let frame = match frame {
            Err(JournalError::Lost { .. }) => continue,
            other => other?,
        };
        match Item::decode(frame.kind, frame.payload).context("cannot read a frame")? {
            Item::Change { log, sequence, line } => {
                salvaged.entry(log).or_default().insert(sequence, line);
            }
            Item::Sealed(batch) => {
                let lines = (batch.header().first..).zip(seal::open(batch.payload()));
                salvaged.entry(batch.header().log).or_default().extend(lines);
            }
            Item::Peer(_)
            | Item::Receipt { .. }
            | Item::Loss { .. }
            | Item::Shown(_)
            | Item::Identity(_)
            | Item::Pruned(_)
            | Item::Root(_)
            | Item::Part(_)
            | Item::Founded(..)
            | Item::Made(..)
            | Item::Rebuilt => {}
        }
    }
    Ok(salvaged)
}

impl World {
    /// A bit of the journal of a box is another one from now on; the box finds out when it starts next, perhaps at once.
    /// Everything was marked before: of a commit without a mark nobody can tell rot from a torn write.
    pub fn rot(&mut self, slot: usize, place: u64, at_once: bool) {
        let is_fit =
            self.options.lan != LanKind::Alone && !self.is_revoked(slot) && !self.is_rebuilding(slot);
        if !is_fit || self.slots[slot].replica.is_none() {
            return;
        }
        self.maintain(slot, "mark", Store::idle);
        if self.slots[slot].replica.is_none() {
            return;
        }
        let disk = &self.slots[slot].disk;
        let names = disk.list(Path::new("/journal")).unwrap_or_default();
        let mut used = Vec::new();
        for name in names.iter().filter(|name| name.starts_with("segment-")) {
            let path = Path::new("/journal").join(name);
            let contents = disk.contents(&path).unwrap_or_default();
            let bytes = contents.iter().enumerate().filter(|(_, byte)| **byte != 0);
            used.extend(bytes.map(|(offset, _)| (path.clone(), offset)));
        }
        let count = u64::try_from(used.len()).unwrap_or(u64::MAX);
        let Some(at) = place.checked_rem(count).and_then(|at| used.get(usize::try_from(at).ok()?)) else {
            return;
        };
        let bit = (place >> 32) % 8;
        if disk.flip(&at.0, at.1, 1 << bit) {
            self.slots[slot].has_rotted = true;
            self.tally.counts.rots += 1;
            self.note(format_args!("box {slot} bit {bit} of byte {} of {} rots", at.1, at.0.display()));
        }
        if at_once {
            self.stop_box(slot, None);
            self.start_later(slot);
        }
    }

    /// What can be read of a disk that is no box's any more, if it has rotted.
    pub fn salvaged(&mut self, ended: &Buried) -> Option<Salvaged> {
        let salvaged = salvage(&ended.disk, self.keeping()).ok().filter(|_| ended.has_rotted)?;
        let was_written = ended.book.salvaged(&salvaged);
        self.hold(was_written);
        Some(salvaged)
    }

    /// A journal that has rotted is made again.
    pub fn repair(&mut self, slot: usize) {
        self.note(format_args!("box {slot} is repaired"));
        let salvaged = match salvage(&self.slots[slot].disk, self.keeping()) {
            Ok(salvaged) => salvaged,
            Err(error) => {
                // Power or room may be gone meanwhile.
                self.note(format_args!("box {slot} cannot be salvaged: {error:#}"));
                return self.start_later(slot);
            }
        };
        let was_written = self.slots[slot].book.salvaged(&salvaged);
        self.hold(was_written);
        self.tally.counts.repairs += 1;
        let device = self.slots[slot].life.device;
        if let Some(mut ended) = self.replace_life(slot, Some(device), false) {
            ended.salvaged = Some(salvaged);
            self.slots[slot].ended.push(ended);
        }
        self.start_box(slot);
        self.at(self.now + TRY_MS, Event::CarryOver { slot });
    }
}
