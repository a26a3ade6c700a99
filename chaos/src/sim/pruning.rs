//! Pruning of own logs: the policy is the real one, what it is told is modelled. The lines that a box keeps stand for the
//! snapshot: they are the state, and no batch can be made of them again.
//!
//! Left out: peers' logs, and how snapshots and proofs travel. A snapshot has its receipt, has come back and is proved
//! when the cloud, as far as this box has been told, holds the quorum of everything below it.

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::retention::Candidate;
use sonae_proto::vector::Heads;

use super::item::Item;
use super::world::World;

/// Milliseconds of running for which batches are kept: some of a run, so that losses come after it as well.
const RETAIN_MS: u64 = 200;

/// What a box is waiting to prune.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    heads: Heads,
    candidate: Candidate,
    /// When it began to wait, by a clock that never jumps.
    since: u64,
}

impl World {
    /// A box looks whether batches may go: the first time it makes a snapshot, later it asks the policy.
    pub fn prune(&mut self, slot: usize) {
        let (life, now, is_revoked) = (self.slots[slot].life.clone(), self.now, self.is_revoked(slot));
        let is_welcome = self.slots[slot].welcomed_by.is_some();
        let Some(replica) = self.slots[slot].replica.as_mut().filter(|_| !is_revoked) else { return };
        let held = &replica.store.held;
        let Some(mut waiting) = replica.waiting.take() else {
            let ends = Tier::ALL.map(|tier| (life.log(tier), held.sealed_head(life.log(tier))));
            let heads = ends.into_iter().filter(|(log, head)| *head != held.base(*log)).collect();
            let candidate = Candidate::new(Hash32::ZERO, held.loss_counter, 0);
            replica.waiting = Some(Waiting { heads, candidate, since: now });
            return;
        };
        let (safe, there) = (replica.engine.receipted(), replica.engine.cloud_heads());
        let is_at =
            |heads: &Heads, log, sequence| heads.get(log).is_some_and(|head| head.sequence >= sequence);
        let came_back = waiting
            .heads
            .iter()
            .all(|(log, head)| is_at(&safe, log, head.sequence) && is_at(there, log, head.sequence));
        let restores = is_welcome && replica.engine.is_up() && came_back && replica.stopped.is_empty();
        (waiting.candidate.read_back, waiting.candidate.proved) = (restores, restores);
        waiting.candidate.aged_ms = now - waiting.since;
        if waiting.candidate.lacks(held.loss_counter, restores, RETAIN_MS).is_some() {
            if waiting.candidate.loss_counter == held.loss_counter {
                replica.waiting = Some(waiting);
            }
            return;
        }
        let bases = waiting.heads;
        self.note(format_args!("box {slot} prunes {bases:?}"));
        if self.keep(slot, Item::Pruned(bases.clone()))
            && let Some(replica) = &mut self.slots[slot].replica
        {
            replica.engine.handle_pruned(&bases);
            self.tally.counts.prunes += 1;
        }
    }
}
