//! Batches of others that the cloud lacks. A box that burned, or has no line, has given them to its neighbours; somebody
//! has to bring them to the cloud.
//!
//! **Invariant**: nothing becomes safe by it. The receipt echoes this replica's loss counter, so it says nothing to the
//! writer, and here it only moves what the cloud has (P2).
//! **Invariant**: own batches go first, and the writer itself is waited for [`RELAY_MS`] at least.

use std::collections::BTreeSet;

use crate::identity::IdentityText;
use crate::ids::LogName;
use crate::planted::{Defect, is_planted};
use crate::receipt::Receipt;
use crate::wire::RefusalCode;

use super::{Alarm, BatchReply, Effect, Line, Uplink};

/// Wait until what the cloud lacks of others is brought to it, in milliseconds, and the longest spread beyond that. A
/// writer that has the line dials within 5 s of its return and sends at once; the spread keeps several neighbours from
/// sending the same.
pub const RELAY_MS: u64 = 20_000;

#[derive(Debug, Default)]
pub(super) struct Relay {
    is_on: bool,
    /// Texts of identities that the cloud has; it takes no batch of others.
    known: BTreeSet<String>,
    /// Logs of which it has refused a batch on this connection, or of which the next batch is not here.
    refused: BTreeSet<LogName>,
    /// A batch on its way, by its first change.
    in_flight: Option<(LogName, u64)>,
    due_ms: Option<u64>,
}

impl Relay {
    /// The connection is gone.
    pub(super) fn forget(&mut self) {
        *self = Self { is_on: self.is_on, ..Self::default() };
    }

    pub(super) const fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

/// Whether what stands behind a refusal may pass while the connection lives. A manifest that the cloud lacks may be here
/// as little, and one log must not hold up the others.
const fn passes(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::Storage | RefusalCode::Unexpected)
}

impl Uplink {
    /// Brings to the cloud what it lacks of others' logs, from now on.
    pub fn set_relay(&mut self) {
        self.relay.is_on = !is_planted(Defect::RelayForgotten);
    }

    /// The cloud has these identities. Those that are not known here as well name nothing that could be brought.
    pub(super) fn learn_relay(&mut self, identities: &[IdentityText]) {
        if self.relay.is_on {
            let known = identities.iter().filter(|text| self.peers.knows(text));
            self.relay.known.extend(known.map(|text| text.incarnation.clone()));
        }
    }

    /// Returns the most urgent log of another of which the cloud has less than is held here, and from where on.
    fn lacking(&self) -> Option<(LogName, u64)> {
        let there = |log: &LogName| self.cloud_heads.get(log).map_or(0, |head| head.sequence);
        let can_go = |log: &LogName| {
            let identity = self.peers.identity(log.incarnation);
            // What the board has not accepted of a revoked device goes by a courier, in front of a person.
            identity.is_some_and(|text| self.relay.known.contains(text))
                && self.peers.accepted(*log).is_none()
        };
        let lags = |(log, here): (&LogName, &crate::vector::LogHead)| {
            (here.sequence > there(log)).then(|| (*log, there(log) + 1))
        };
        let mut lacking = self.peers.heads().iter().filter_map(lags);
        lacking.find(|(log, _)| !self.relay.refused.contains(log) && can_go(log))
    }

    /// Something has moved: looks whether the cloud lacks anything of others, and since when.
    pub fn handle_relay(&mut self, now_ms: u64) {
        let can_wait = self.relay.is_on && self.line == Line::Up && self.is_complete && !self.renewing;
        if !can_wait || self.relay.in_flight.is_some() {
            return;
        }
        self.relay.due_ms = match (self.lacking(), self.relay.due_ms) {
            (None, _) => None,
            // No wait is longer than the maximum: if it seems to be, the told time has jumped back.
            (Some(_), Some(due_ms)) if due_ms <= now_ms || due_ms > now_ms.saturating_add(2 * RELAY_MS) => {
                self.relay_next();
                None
            }
            (Some(_), Some(due_ms)) => Some(due_ms),
            (Some(_), None) => Some(now_ms + RELAY_MS + self.jitter % RELAY_MS),
        };
    }

    /// Sends the next batch, one at a time, unless own ones wait.
    fn relay_next(&mut self) {
        if self.line != Line::Up || self.loss_being_kept || self.is_waiting() {
            return;
        }
        if let Some((log, first)) = self.lacking() {
            self.relay.in_flight = Some((log, first));
            self.effects.push_back(Effect::SendBatch { log, first });
        }
    }

    /// A batch of another that was to be sent is not here: a snapshot stands for what the cloud lacks.
    pub fn handle_batch_missing(&mut self, log: LogName, now_ms: u64) {
        self.relay.in_flight = None;
        self.relay.refused.insert(log);
        self.relay_next();
        self.handle_relay(now_ms);
    }

    /// The cloud has answered a batch of another.
    pub(super) fn relayed(&mut self, log: LogName, reply: BatchReply, now_ms: u64) {
        let first = self.relay.in_flight.take().map_or(u64::MAX, |(_, first)| first);
        let receipt = match reply {
            BatchReply::Receipt(bytes) => Receipt::verify(&bytes, &self.cloud).ok(),
            // It is tried again later.
            BatchReply::Refusal(refusal) if passes(refusal.code) => return self.handle_relay(now_ms),
            BatchReply::Refusal(refusal) => {
                let is_other = matches!(refusal.code, RefusalCode::Fork | RefusalCode::Chain);
                if is_other && self.peers.dispute(log) {
                    self.effects.push_back(Effect::Alarm(Alarm::other_history(log)));
                }
                None
            }
        };
        let is_for_it = |receipt: &Receipt| {
            receipt.school == self.school && receipt.log == log && receipt.head.sequence >= first
        };
        match receipt.filter(is_for_it) {
            // News of it come on another stream, and may have been faster.
            Some(receipt) => {
                let had = self.cloud_heads.get(&log).map_or(0, |head| head.sequence);
                if receipt.head.sequence > had {
                    self.cloud_said.insert(log, receipt.head);
                    self.cloud_heads.insert(log, receipt.head);
                }
            }
            // Another history, or one whose writer the cloud does not know: it is not tried again on this connection.
            None => {
                self.relay.refused.insert(log);
            }
        }
        self.relay_next();
        self.handle_relay(now_ms);
    }
}
