//! One log of this replica: which of its batches are receipted, which are not, which are on the line.
//!
//! **Invariant**: a receipt counts only for a batch that is held with that very hash.
//! **Invariant**: `receipted` is lowered by a loss that was noticed, and by nothing else.
//! **Invariant**: what was pruned is never sent: where the cloud ends below it, nothing of the log is sent any more.

use std::collections::VecDeque;

use crate::batch::BatchHeader;
use crate::planted::{Defect, is_planted};
use crate::vector::LogHead;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    first: u64,
    head: LogHead,
    epoch: u32,
}

/// How the cloud's head of an own log compares with what is held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// It is a point of the history that is held, and nothing that has a receipt is missing.
    Fits,
    /// It is a point of the history that is held, before the receipted head.
    Lost {
        /// What had a receipt.
        had: LogHead,
    },
    /// "Safe" was lowered to below what was pruned, and nothing is held whose receipt would raise it again: what it
    /// takes to fill the gap cannot be sent.
    Unfillable,
    /// It is no point of the history that is held.
    Elsewhere,
}

#[derive(Debug, Default)]
pub(super) struct OwnLog {
    receipted: Option<LogHead>,
    /// Up to here batches were pruned: a snapshot stands for them.
    base: LogHead,
    /// Held batches up to the receipted head, oldest first: needed again when the cloud loses its tail.
    receipted_batches: Vec<Held>,
    /// Held batches after the receipted head, oldest first.
    unsafe_batches: VecDeque<Held>,
    /// When the receipt was signed that moved `receipted` last, if that was in this life of the process.
    issued_ms: u64,
    /// How many of `unsafe_batches` have been sent on this connection.
    sent: usize,
    /// Not sent any more: the cloud has another history.
    wedged: bool,
}

impl OwnLog {
    pub(super) fn new(receipted: Option<LogHead>) -> Self {
        Self { receipted, ..Self::default() }
    }

    /// Takes a batch that is durable here. Batches come in order.
    pub(super) fn hold(&mut self, header: &BatchHeader) {
        let held = Held { first: header.first, head: header.head(), epoch: header.epoch };
        if self.receipted.is_some_and(|head| head.sequence >= header.last) {
            self.receipted_batches.push(held);
        } else {
            self.unsafe_batches.push_back(held);
        }
    }

    /// Batches up to this head are not here any more.
    pub(super) fn prune(&mut self, base: LogHead) {
        let pruned = self.receipted_batches.partition_point(|batch| batch.head.sequence <= base.sequence);
        self.receipted_batches.drain(..pruned);
        self.base = base;
    }

    /// Returns up to where batches were pruned.
    pub(super) const fn base(&self) -> LogHead {
        self.base
    }

    /// Returns the last point that is held.
    pub(super) fn held(&self) -> LogHead {
        let last = self.unsafe_batches.back().map(|held| held.head);
        last.unwrap_or_else(|| {
            self.receipted.filter(|head| head.sequence > self.base.sequence).unwrap_or(self.base)
        })
    }

    /// Returns what is safe.
    pub(super) const fn receipted(&self) -> Option<LogHead> {
        self.receipted
    }

    /// Whether a batch without a receipt is sealed to a key of which this is true.
    pub(super) fn waits_under(&self, is_meant: impl Fn(u32) -> bool) -> bool {
        self.unsafe_batches.iter().any(|held| is_meant(held.epoch))
    }

    /// Whether a held batch has no receipt.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unsafe_batches.is_empty()
    }

    /// Compares with what the cloud says it has.
    pub(super) fn compare(&self, there: LogHead) -> Comparison {
        let had = self.receipted.unwrap_or(LogHead::EMPTY);
        if there.sequence < self.base.sequence {
            // Whether it is a point of this history nobody can tell any more. It had a receipt for months.
            let is_lowered = had.sequence <= there.sequence;
            return if is_lowered { Comparison::Unfillable } else { Comparison::Lost { had } };
        }
        let receipted = self
            .receipted_batches
            .binary_search_by_key(&there.sequence, |batch| batch.head.sequence)
            .is_ok_and(|index| self.receipted_batches.get(index).is_some_and(|batch| batch.head == there));
        let held = there == LogHead::EMPTY
            || there == had
            || there == self.base
            || receipted
            || self.unsafe_batches.iter().any(|batch| batch.head == there);
        match held {
            false => Comparison::Elsewhere,
            true if there.sequence < had.sequence => Comparison::Lost { had },
            // The cloud has come back with what it had lost, but only what is sent again gets a receipt again.
            true if had.sequence < self.base.sequence && self.unsafe_batches.is_empty() => {
                Comparison::Unfillable
            }
            true => Comparison::Fits,
        }
    }

    /// Stops sending. Returns whether it was being sent until now.
    pub(super) fn wedge(&mut self) -> bool {
        !std::mem::replace(&mut self.wedged, true)
    }

    /// Lowers what is safe to what the cloud still has; the rest is to be sent again. Below what was pruned nobody can tell
    /// whether it is a point of this history, so nothing of the log is called safe then.
    pub(super) fn lower(&mut self, there: LogHead) {
        let there = if there.sequence < self.base.sequence { LogHead::EMPTY } else { there };
        self.receipted = (there != LogHead::EMPTY).then_some(there);
        let keep = self.receipted_batches.partition_point(|batch| batch.head.sequence <= there.sequence);
        for batch in self.receipted_batches.drain(keep..).rev() {
            self.unsafe_batches.push_front(batch);
        }
        self.sent = 0;
    }

    /// Returns when the last receipt was signed that moved what is safe, by the cloud's clock.
    pub(super) const fn issued_ms(&self) -> u64 {
        self.issued_ms
    }

    /// Takes a verified receipt. Returns whether it moves what is safe.
    pub(super) fn receive_receipt(&mut self, head: LogHead, issued_ms: u64) -> bool {
        let Some(position) = self.unsafe_batches.iter().position(|batch| is_named(batch, head)) else {
            return false;
        };
        self.receipted_batches.extend(self.unsafe_batches.drain(..=position));
        self.sent = self.sent.saturating_sub(position + 1);
        (self.receipted, self.issued_ms) = (Some(head), issued_ms);
        true
    }

    /// Returns the first sequence of the next batch to send and counts it as sent.
    pub(super) fn send_next(&mut self) -> Option<u64> {
        if self.wedged {
            return None;
        }
        let first = self.unsafe_batches.get(self.sent)?.first;
        self.sent += 1;
        Some(first)
    }

    /// The connection is gone, and with it whatever was on the line.
    pub(super) fn forget_sent(&mut self) {
        self.sent = 0;
    }
}

/// Whether a receipt for `head` is one for a batch that is held.
fn is_named(batch: &Held, head: LogHead) -> bool {
    batch.head == head || (batch.head.sequence == head.sequence && is_planted(Defect::ReceiptOfOtherBatch))
}
