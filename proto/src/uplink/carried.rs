//! What a courier brought: the same checks as for what comes over the line, with answers for people.
//!
//! **Invariant**: a carried receipt counts as one from the line: signature, school, present loss counter, a held
//! batch without receipt; and the cloud must not have said since that it has less. Heads in a bundle are old; they never lower what is safe and raise no counter.

use crate::batch::{Batch, BatchHeader};
use crate::identity::IdentityText;
use crate::ids::SchoolCode;
use crate::receipt::Receipt;

use super::own::Comparison;
use super::{Alarm, Effect, Fetched, Uplink};

/// What became of a carried batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarriedBatch {
    /// It is to be kept: an [`Effect::StoreBatch`] was asked for.
    Taken,
    /// It is held already.
    Known,
    /// Its log is not held up to where it begins: an earlier bundle is missing.
    Early {
        /// The last change of its log that is held here.
        held: u64,
    },
    /// It is of a revoked device and waits for a person: an [`Effect::Quarantine`] was asked for.
    Quarantined,
    /// It is of a revoked device, and the board has decided that it does not count.
    Dropped,
    /// It does not verify, is of another school or another history.
    Refused(String),
}

/// What became of a carried receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarriedReceipt {
    /// It moved what is safe: an [`Effect::KeepReceipt`] was asked for.
    Moved,
    /// It says nothing new.
    Known,
    /// It is for another replica.
    Foreign,
    /// It was signed before a loss that was noticed since, or before the cloud last said that it has less.
    Outdated,
    /// It does not verify, or is for a batch that is not held.
    Refused,
}

impl Uplink {
    /// Returns whose data it is.
    #[must_use]
    pub const fn school(&self) -> SchoolCode {
        self.school
    }

    /// Returns the identities of the other incarnations that are known here.
    #[must_use]
    pub fn peer_identities(&self) -> Vec<IdentityText> {
        self.peers.identities()
    }

    /// Somebody holds this batch of an own log, signed by the own key: if it is no part of what is held here, this data
    /// was restored from a copy, or a copy runs elsewhere. The signature has been checked, and all that is sealed was
    /// told before. Returns whether it is so; of what was pruned nobody can tell.
    pub fn handle_elsewhere(&mut self, header: &BatchHeader) -> bool {
        let Some(own) = self.own.get_mut(&header.log) else { return false };
        let is_elsewhere = own.compare(header.head()) == Comparison::Elsewhere;
        if is_elsewhere && own.wedge() {
            let (log, here, there) = (header.log, own.held().sequence, header.last);
            self.effects.push_back(Effect::Alarm(Alarm::OwnLogElsewhere { log, here, there }));
            self.renew();
        }
        is_elsewhere
    }

    /// Takes identities that a courier brought. Those that do not verify are passed over.
    pub fn handle_carried_identities(&mut self, identities: &[IdentityText]) {
        self.learn(identities);
    }

    /// Takes a batch that a courier brought.
    pub fn handle_carried_batch(&mut self, batch: Batch) -> CarriedBatch {
        let header = batch.header();
        if header.school != self.school {
            return CarriedBatch::Refused(format!("it is of school {}", header.school));
        }
        if let Some(own) = self.own.get(&header.log) {
            return match own.compare(header.head()) {
                Comparison::Fits | Comparison::Lost { .. } | Comparison::Unfillable => CarriedBatch::Known,
                Comparison::Elsewhere => {
                    CarriedBatch::Refused("it is of this box's own log, and this box does not have it".into())
                }
            };
        }
        let held = self.peers.heads().get(&header.log).map_or(0, |head| head.sequence);
        if header.first > held.saturating_add(1) && self.peers.counts(header) {
            return CarriedBatch::Early { held };
        }
        match self.peers.receive(&batch, self.school) {
            Fetched::Store => {
                self.effects.extend(self.peers.contradicts(batch.header()).map(Effect::Alarm));
                self.effects.push_back(Effect::StoreBatch(Box::new(batch)));
                CarriedBatch::Taken
            }
            Fetched::Known => CarriedBatch::Known,
            Fetched::Quarantined if self.peers.is_dropped(batch.header()) => CarriedBatch::Dropped,
            Fetched::Quarantined => {
                self.effects.push_back(Effect::Quarantine(Box::new(batch)));
                CarriedBatch::Quarantined
            }
            Fetched::Bad(reason) => CarriedBatch::Refused(reason),
        }
    }

    /// Takes the bytes of a receipt that a courier brought.
    pub fn handle_carried_receipt(&mut self, bytes: Vec<u8>, now_ms: u64) -> CarriedReceipt {
        let Ok(receipt) = Receipt::verify(&bytes, &self.cloud) else { return CarriedReceipt::Refused };
        if receipt.school != self.school {
            return CarriedReceipt::Refused;
        }
        let Some(own) = self.own.get(&receipt.log) else { return CarriedReceipt::Foreign };
        let had = own.receipted();
        if had.is_some_and(|had| had.sequence >= receipt.head.sequence) {
            return CarriedReceipt::Known;
        }
        let is_current = receipt.loss_counter == self.loss_counter && !self.loss_being_kept;
        if !is_current || self.is_outdated(&receipt) {
            return CarriedReceipt::Outdated;
        }
        self.take_receipt(&receipt, bytes, now_ms);
        let has = self.own.get(&receipt.log).and_then(super::own::OwnLog::receipted);
        if has == had { CarriedReceipt::Refused } else { CarriedReceipt::Moved }
    }
}
