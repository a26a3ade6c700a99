//! The end of a run: everything heals, and then everything must be safe, equal and complete within a bound.

use std::collections::BTreeSet;

use sonae_journal::sim::Fault;
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::vector::LogHead;

use super::options::LanKind;
use super::store::Store;
use super::world::World;

/// Simulated milliseconds within which everything must have converged.
const SETTLE_MS_MAX: u64 = 20 * 60 * 1_000;

/// Milliseconds between looks.
const LOOK_MS: u64 = 5_000;

impl World {
    /// Mends everything that can be mended.
    pub fn heal(&mut self) {
        self.note(format_args!("HEAL"));
        self.options.loss_one_in = 0;
        self.healed_at = Some(self.now);
        self.node_lies = false;
        self.unite();
        self.stop_node();
        for site in &mut self.sites {
            (site.is_down, site.misses, site.lists_after) = (false, 0, 0);
            site.late.clear();
        }
        self.words_due = self.board.version() > 1;
        self.start_node(true);
        for slot in 0..self.slots.len() {
            let place = &mut self.slots[slot];
            (place.blocked_up, place.blocked_down, place.stop_at) = (false, false, None);
            place.disk.set_room(None);
            place.full_from = None;
            // Faults that are still to come never come.
            place.disk.cut_at(u64::MAX);
            place.disk.fail_at(u64::MAX, Fault::Io);
            self.start_box(slot);
        }
        match self.options.lan {
            LanKind::None => {}
            LanKind::Beside => {
                self.is_lan_healed = self.random.one_in(2);
                self.heal_lan(self.is_lan_healed);
            }
            LanKind::Alone => {
                self.is_lan_healed = true;
                self.heal_lan(true);
            }
        }
    }

    /// Runs until all have converged; a violation says what has not. Where snapshots are made, a box begins with what the
    /// cloud has then, and must become like the others.
    pub fn settle(&mut self) {
        self.converge();
        let has_cloud = self.options.lan != LanKind::Alone;
        if has_cloud && self.options.snapshot_every > 0 && self.violation.is_none() {
            let slot = self.begin_beside();
            self.converge();
            slot.into_iter().for_each(|slot| self.became_equal(slot));
        }
        if self.options.audits && self.violation.is_none() {
            self.audit();
        }
    }

    fn converge(&mut self) {
        let until = self.now + SETTLE_MS_MAX;
        while self.violation.is_none() {
            for slot in 0..self.slots.len() {
                self.seal(slot, 100);
                self.maintain(slot, "mark", Store::idle);
                self.prune(slot);
                self.consider_snapshot(slot);
            }
            self.run_for(LOOK_MS);
            let converged = match self.options.lan {
                LanKind::None => self.converged(),
                LanKind::Beside => {
                    self.converged().and_then(|()| self.relayed()).and_then(|()| self.agreed())
                }
                LanKind::Alone => self.agreed(),
            };
            match converged {
                Ok(()) => return self.complete(),
                Err(what) if self.now >= until => self.violate(format!("not converged: {what}")),
                Err(_) => {}
            }
        }
    }

    fn converged(&self) -> Result<(), String> {
        let stays = |number: &usize| !self.is_revoked(*number);
        let living: BTreeSet<Incarnation> =
            (0..self.slots.len()).filter(stays).map(|number| self.slots[number].life.name).collect();
        let is_sound = |log: &LogName| !self.contested.contains(&log.incarnation);
        for (number, slot) in self.slots.iter().enumerate().filter(|(number, _)| stays(number)) {
            let Some(replica) = &slot.replica else { return Err(format!("box {number} does not run")) };
            if !replica.engine.is_up() {
                return Err(format!("box {number} has no line"));
            }
            if self.is_rebuilding(number) {
                return Err(format!("box {number} is still beginning with what the cloud has"));
            }
            if !slot.ended.is_empty() {
                return Err(format!("box {number} has not carried over what its last incarnation wrote"));
            }
            if !replica.all_safe() {
                return Err(format!("box {number} has kept what is not safe"));
            }
            let has = |log: &LogName| replica.fold.applied(*log);
            let there = replica.engine.cloud_heads().iter();
            for (log, head) in there.filter(|(log, _)| is_sound(log)) {
                if has(log) < head.sequence {
                    return Err(format!("box {number} has {log} up to {}, not {}", has(log), head.sequence));
                }
            }
            for (at, other) in self.slots.iter().enumerate().filter(|(number, _)| stays(number)) {
                let Some(sequences) = other.replica.as_ref().map(|replica| &replica.fold.sequences) else {
                    continue;
                };
                // What the cloud lost of a box that is gone, nobody can send again.
                let expected = sequences.iter().filter(|(log, _)| {
                    is_sound(log)
                        && (self.ledger.losses == 0 || living.contains(&log.incarnation))
                        && (self.are_joined(number, at) || self.comes_by_cloud(log))
                });
                for (log, sequence) in expected {
                    if has(log) < self.counted(*log, *sequence) {
                        return Err(format!("box {number} has {log} up to {}, another {sequence}", has(log)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Where nothing was lost, forked or revoked, a box that has begun with the cloud alone shows what the others show (P5).
    fn became_equal(&mut self, slot: usize) {
        let logs = self.slots[0].replica.as_ref().map(|replica| &replica.fold.sequences);
        let is_clear = self.ledger.losses == 0
            && self.contested.is_empty()
            && self.revoked.is_empty()
            && logs.into_iter().flatten().all(|(log, _)| self.comes_by_cloud(log));
        let shown = |slot: usize| {
            let replica = self.slots[slot].replica.as_ref()?;
            Some(
                Tier::ALL
                    .map(|tier| (replica.model.contents(tier), replica.fold.digests.get(&tier).copied())),
            )
        };
        if is_clear && shown(slot) != shown(0) {
            self.violate(format!("box {slot} began with the cloud alone and is not like the others"));
        }
    }

    /// What was called safe is everywhere.
    fn complete(&mut self) {
        self.check_erased();
        if self.options.lan == LanKind::Alone {
            // Nothing was, or the ledger would have said so.
            return;
        }
        let promised = self.ledger.promised().iter().map(|(log, head)| (*log, *head));
        let sound = promised.filter(|(log, _)| !self.contested.contains(&log.incarnation));
        for (log, head) in sound.collect::<Vec<(LogName, LogHead)>>() {
            let sequence = self.counted(log, head.sequence);
            for number in (0..self.slots.len()).filter(|number| !self.is_revoked(*number)).collect::<Vec<_>>()
            {
                let replica = self.slots[number].replica.as_ref();
                let has = replica.map_or(0, |replica| replica.fold.applied(log));
                if has < sequence {
                    self.violate(format!(
                        "box {number} ends with {log} up to {has}; {sequence} was called safe"
                    ));
                }
            }
        }
    }
}
