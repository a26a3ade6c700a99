//! What the cloud answers to a batch: a receipt, or a refusal that passes, stops a log, or ends an incarnation.

use super::{Alarm, BatchReply, Effect, Uplink};
use crate::ids::LogName;
use crate::manifest::KeyUse;
use crate::planted::{Defect, is_planted};
use crate::receipt::Receipt;
use crate::wire::{Refusal, RefusalCode};

impl Uplink {
    /// The cloud has answered a batch.
    pub fn handle_batch_reply(&mut self, log: LogName, reply: BatchReply, now_ms: u64) {
        self.last_contact_ms = Some(now_ms);
        if !self.own.contains_key(&log) {
            return self.relayed(log, reply, now_ms);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match reply {
            BatchReply::Receipt(bytes) => self.receive_receipt(bytes, now_ms),
            BatchReply::Refusal(refusal) => self.receive_refusal(log, refusal),
        }
        self.send_more();
        self.handle_relay(now_ms);
    }

    fn receive_refusal(&mut self, log: LogName, refusal: Refusal) {
        let passes = match refusal.code {
            // Key documents travel on another stream than batches, so a batch can overtake them.
            RefusalCode::Manifest => {
                self.keys_refused = true;
                true
            }
            // What a chain refusal means is told by the next greeting: a loss, a fork, or nothing. To stop here
            // would be to stop silently.
            RefusalCode::Storage | RefusalCode::Unexpected | RefusalCode::Chain => true,
            RefusalCode::Protocol
            | RefusalCode::Identity
            | RefusalCode::WrongSchool
            | RefusalCode::Signature
            | RefusalCode::Fork
            | RefusalCode::Recipients
            | RefusalCode::Malformed
            | RefusalCode::Oversized => false,
        };
        self.cannot_store = (refusal.code == RefusalCode::Storage).then_some(log);
        let overtaken = refusal.code == RefusalCode::Manifest && self.refusals == 0;
        let is_fork = refusal.code == RefusalCode::Fork;
        if !overtaken {
            self.effects.push_back(Effect::Alarm(Alarm::Refused(refusal)));
        }
        if passes {
            self.refusals = self.refusals.saturating_add(1);
            self.effects.push_back(Effect::Disconnect);
        } else if let Some(own) = self.own.get_mut(&log) {
            own.wedge();
            if is_fork {
                self.renew();
            }
            self.renew_unreadable();
        }
    }

    /// What has no receipt and is sealed to a destroyed key is never sent: nobody could open it. It is written again under
    /// a new incarnation, sealed to a key that stands.
    pub(super) fn renew_unreadable(&mut self) {
        let is_any = self.own.iter().any(|(log, own)| {
            own.waits_under(|epoch| self.destroyed.contains(KeyUse::Tier(log.tier), epoch))
        });
        if is_any {
            self.renew();
        }
    }

    pub(super) fn renew(&mut self) {
        if !std::mem::replace(&mut self.renewing, true) {
            self.effects.extend([Effect::Renew, Effect::Disconnect]);
        }
    }

    fn receive_receipt(&mut self, bytes: Vec<u8>, now_ms: u64) {
        let Ok(receipt) = Receipt::verify(&bytes, &self.cloud) else { return };
        let is_current =
            receipt.loss_counter == self.loss_counter && !self.loss_being_kept && !self.is_replayed(&receipt);
        if receipt.school == self.school && (is_current || is_planted(Defect::StaleReceipt)) {
            self.take_receipt(&receipt, bytes, now_ms);
        }
    }

    /// Counts a receipt that has been found current.
    pub(super) fn take_receipt(&mut self, receipt: &Receipt, bytes: Vec<u8>, now_ms: u64) {
        let Some(own) = self.own.get_mut(&receipt.log) else { return };
        if own.receive_receipt(receipt.head, receipt.issued_ms) {
            self.refusals = 0;
            self.cannot_store = None;
            let waiting = self.is_waiting();
            self.stall.moved(now_ms, waiting);
            self.cloud_said.insert(receipt.log, receipt.head);
            self.cloud_heads.insert(receipt.log, receipt.head);
            self.effects.push_back(Effect::KeepReceipt { log: receipt.log, head: receipt.head, bytes });
        }
    }
}
