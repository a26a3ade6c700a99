//! What boxes that reach each other must agree on in the end, and what must be at the cloud although its writer is gone.
//!
//! **Invariants** that it checks: nobody lacks what a neighbour of his could give next; the cloud lacks nothing that a box
//! with a line could bring next.

use sonae_proto::ids::LogName;
use sonae_proto::vector::LogHead;

use super::options::LanKind;
use super::replica::Replica;
use super::world::World;

impl World {
    /// Whether the cloud can pass a log on: somebody has told it who writes it, and the board does not keep it from boxes.
    pub fn comes_by_cloud(&self, log: &LogName) -> bool {
        let is_revoked =
            self.devices.get(&log.incarnation).is_some_and(|device| self.revoked.contains_key(device));
        self.options.lan == LanKind::None || (!is_revoked && self.ledger.named().contains(&log.incarnation))
    }

    /// Whether a box holds the batch that continues a log right behind a point.
    fn holds_next(replica: &Replica, log: LogName, point: LogHead) -> Option<u64> {
        let next = replica.store.held.batches_after(log, point.sequence).next();
        next.filter(|batch| batch.header().continues(&point)).map(|batch| batch.header().last)
    }

    fn on_lan(&self) -> Vec<(usize, &Replica)> {
        let stays = |slot: &usize| self.is_on_lan(*slot) && !self.is_revoked(*slot);
        let slots = (0..self.slots.len()).filter(stays);
        slots.filter_map(|slot| Some((slot, self.slots[slot].replica.as_ref()?))).collect()
    }

    /// Boxes that reach each other have all of each other.
    pub fn agreed(&self) -> Result<(), String> {
        let stopped = (0..self.slots.len()).find(|slot| self.slots[*slot].replica.is_none());
        if let Some(slot) = stopped {
            return Err(format!("box {slot} does not run"));
        }
        let boxes = if self.is_lan_healed { self.on_lan() } else { Vec::new() };
        for (number, replica) in &boxes {
            let (life, words) = (&self.slots[*number].life, self.slots[*number].words);
            for (other, there) in boxes.iter().filter(|(other, _)| self.are_joined(*number, *other)) {
                let logs = there.store.held.heads();
                for log in logs.keys().filter(|log| log.incarnation != life.name) {
                    let here = replica.store.held.peer_head(*log);
                    let next = Self::holds_next(there, *log, here);
                    if let Some(last) = next.filter(|last| self.counted_at(words, *log, *last) == *last) {
                        return Err(format!("box {number} has not {log} {last}, its neighbour {other} has"));
                    }
                }
            }
            if self.options.lan == LanKind::Alone {
                self.has_what_others_wrote(*number, replica, &boxes)?;
            }
        }
        Ok(())
    }

    /// Where nobody has begun with a snapshot, everybody has all that others have written.
    fn has_what_others_wrote(
        &self,
        number: usize,
        replica: &Replica,
        boxes: &[(usize, &Replica)],
    ) -> Result<(), String> {
        let written = boxes.iter().flat_map(|(_, other)| &other.fold.sequences);
        for (log, sequence) in written.filter(|(log, _)| !self.contested.contains(&log.incarnation)) {
            if replica.fold.applied(*log) < self.counted(*log, *sequence) {
                let has = replica.fold.applied(*log);
                return Err(format!("box {number} has {log} up to {has}, another {sequence}"));
            }
        }
        Ok(())
    }

    /// What the cloud lacks of others has been brought to it.
    pub fn relayed(&self) -> Result<(), String> {
        let heads = self.node.as_ref().map(|node| node.intake.overview()).unwrap_or_default();
        let heads =
            heads.into_iter().flat_map(|school| school.heads).collect::<std::collections::BTreeMap<_, _>>();
        let named = self.ledger.named();
        for (number, slot) in self.slots.iter().enumerate().filter(|(number, _)| !self.is_revoked(*number)) {
            let Some(replica) = &slot.replica else { continue };
            for log in replica.store.held.heads().keys() {
                let is_revoked =
                    self.devices.get(&log.incarnation).is_some_and(|d| self.revoked.contains_key(d));
                if log.incarnation == slot.life.name || is_revoked || !named.contains(&log.incarnation) {
                    continue;
                }
                let there = heads.get(log).copied().unwrap_or(LogHead::EMPTY);
                if let Some(last) = Self::holds_next(replica, *log, there) {
                    return Err(format!("the cloud has not {log} {last}, which box {number} holds"));
                }
            }
        }
        Ok(())
    }
}
