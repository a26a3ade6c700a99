//! What the cloud has said of own logs, and receipts that it has contradicted so.
//!
//! **Invariant**: a receipt that was signed before a complete welcome moves nothing that this welcome was to name and did not. The
//! loss counter does not see to it where the receipt never came here, or was forgotten in a crash.

use serde::{Deserialize, Serialize};

use super::{Effect, Uplink};
use crate::ids::LogName;
use crate::receipt::Receipt;
use crate::vector::{Heads, Sequences};
use crate::wire::Welcome;

/// How far the clocks of two nodes may be apart, in milliseconds. A receipt that a courier brings and that is not older
/// than this much after the last welcome waits for the next one.
const CLOUD_SKEW_MS: u64 = 600_000;

/// What the cloud said last of own logs, having read enough sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// When, by its clock, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Up to where it had them.
    pub heads: Heads,
    /// Up to where they were held here then: of what was sealed later it has said nothing.
    pub held: Sequences,
}

impl Shown {
    fn sequence(&self, log: &LogName) -> u64 {
        self.heads.get(log).map_or(0, |head| head.sequence)
    }

    /// Whether it says of a change of a log that it lacks it.
    fn lacks(&self, log: &LogName, sequence: u64) -> bool {
        sequence > self.sequence(log) && self.held.get(log).is_some_and(|held| sequence <= *held)
    }

    fn is_less(&self) -> bool {
        self.held.iter().any(|(log, held)| self.lacks(log, *held))
    }
}

impl Uplink {
    /// Notes what a complete welcome says. It is worth a place in the journal if something is held beyond it, for which a
    /// receipt may turn up later, and in the place of one of which that was so.
    pub(super) fn note_shown(&mut self, welcome: &Welcome) {
        let own = welcome.heads.iter().filter(|(log, _)| self.own.contains_key(log));
        let held = self.own.iter().map(|(log, own)| (*log, own.held().sequence));
        let shown = Shown {
            at_ms: welcome.time_ms,
            heads: own.map(|(log, head)| (*log, *head)).collect(),
            held: held.filter(|(_, sequence)| *sequence > 0).collect(),
        };
        if shown.is_less() || self.shown.as_ref().is_some_and(Shown::is_less) {
            self.effects.push_back(Effect::KeepShown(Box::new(shown.clone())));
        }
        self.shown = Some(shown);
    }

    /// Whether the cloud has said that it lacks what a receipt is for, and that was not signed later by the clock that it
    /// is compared with: what it is for may be lost.
    fn is_contradicted(&self, receipt: &Receipt, after_ms: u64) -> bool {
        let lacks = |shown: &Shown| shown.lacks(&receipt.log, receipt.head.sequence);
        self.shown.as_ref().is_some_and(lacks) && receipt.issued_ms < after_ms
    }

    /// The same for a receipt from the line: the node that signed it there greeted on this connection, and its clock is
    /// not that of the one that has said less.
    pub(super) fn is_replayed(&self, receipt: &Receipt) -> bool {
        self.is_contradicted(receipt, self.greeted_ms)
    }

    /// The same for one that was carried by hand, of any node.
    pub(super) fn is_outdated(&self, receipt: &Receipt) -> bool {
        let said_ms = self.shown.as_ref().map_or(0, |shown| shown.at_ms);
        self.is_contradicted(receipt, said_ms.saturating_add(CLOUD_SKEW_MS))
    }
}
