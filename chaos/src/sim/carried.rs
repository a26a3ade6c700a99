//! What neighbours bring: taken by the engine of the uplink as if a courier had brought it, as `edge/src/courier.rs` does.
//!
//! **Invariant** that it checks: what an honest neighbour brings is refused only where a log has two histories.

use std::path::Path;

use sonae_journal::Disk as _;
use sonae_proto::batch::Batch;
use sonae_proto::ids::LogName;
use sonae_proto::uplink::CarriedBatch;

use super::item::Item;
use super::world::World;

impl World {
    /// Has batches taken as a courier's would be, together. What is taken is durable when it returns.
    pub fn take_carried(&mut self, slot: usize, from: usize, batches: Vec<Batch>) -> Result<(), ()> {
        let Some(replica) = self.slots[slot].replica.as_mut().filter(|_| !batches.is_empty()) else {
            return Ok(());
        };
        let logs: Vec<LogName> = batches.iter().map(|batch| batch.header().log).collect();
        let outcomes: Vec<_> =
            batches.into_iter().map(|batch| replica.engine.handle_carried_batch(batch)).collect();
        let life = self.slots[slot].lives;
        self.slots[slot].carried = Some(Vec::new());
        self.drain_box(slot);
        let taken = self.slots[slot].carried.take().unwrap_or_default();
        if self.slots[slot].lives != life || !self.store_carried(slot, taken) {
            return Err(());
        }
        let told = self.told(slot);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.engine.handle_relay(told);
        }
        self.set_wake(slot);
        for (log, outcome) in logs.into_iter().zip(outcomes) {
            match outcome {
                CarriedBatch::Refused(text) => {
                    let lies = self.lan.liars.contains(&from);
                    if !lies && !self.contested.contains(&log.incarnation) {
                        self.violate(format!("box {slot} refuses a batch of {log} from a neighbour: {text}"));
                    }
                    return Err(());
                }
                // What lies before is under a snapshot there.
                CarriedBatch::Early { .. } => return Err(()),
                CarriedBatch::Taken
                | CarriedBatch::Known
                | CarriedBatch::Quarantined
                | CarriedBatch::Dropped => {}
            }
        }
        Ok(())
    }

    /// Stores batches in as few commits as they need, and applies them. Returns whether all are kept.
    fn store_carried(&mut self, slot: usize, batches: Vec<Batch>) -> bool {
        for batch in &batches {
            self.check_stored(slot, batch.header());
        }
        let Some(replica) = &self.slots[slot].replica else { return false };
        // Some may be held all the same, where a commit before failed in the middle.
        let is_held =
            |batch: &&Batch| batch.header().last <= replica.store.held.peer_head(batch.header().log).sequence;
        let items: Vec<Item> =
            batches.iter().filter(|batch| !is_held(batch)).cloned().map(Item::Peer).collect();
        self.tally.counts.from_neighbours += u64::try_from(items.len()).unwrap_or(0);
        let kept = items.is_empty() || self.maintain(slot, "neighbour's batches", |store| store.keep(items));
        let told = self.told(slot);
        let Some(replica) = &mut self.slots[slot].replica else { return false };
        let mut wrong = None;
        for batch in &batches {
            let header = batch.header();
            let is_kept = replica.store.held.peer_head(header.log).sequence >= header.last;
            if is_kept && replica.fold.applied(header.log) < header.last {
                wrong = wrong.or(replica.apply_batch(batch, told).err());
            }
        }
        if !kept {
            batches.iter().rev().for_each(|batch| replica.engine.handle_store_failed(batch.header()));
            replica.neighbours.handle_store_failed(told);
            let tier = batches.first().map(|batch| batch.header().log.tier);
            // An error that passes is no pressure: nobody would notice when it has gone.
            let is_full = self.slots[slot].disk.room(Path::new("")).is_ok();
            self.slots[slot].full_from = tier.filter(|_| is_full);
        }
        if let Some(error) = wrong {
            self.violate(format!("box {slot}: {error:#}"));
        }
        self.look(slot);
        self.tell_neighbours(slot);
        kept
    }
}
