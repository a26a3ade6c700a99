//! What people must know of replication.

use crate::ids::{LogName, Tier};
use crate::wire::Refusal;

/// What people must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The cloud has lost what it had receipted. It is sent again.
    CloudLost {
        /// Which log.
        log: LogName,
        /// What was receipted.
        had: u64,
        /// What is left.
        has: u64,
    },
    /// What the cloud has lost of an own log is partly pruned here, and cannot be sent again: it is held as a state and
    /// not as changes. That state is written again under a new incarnation.
    Unfillable {
        /// Which log.
        log: LogName,
        /// The last change that the cloud still had.
        has: u64,
        /// The last change that was pruned here.
        pruned: u64,
    },
    /// The cloud has less of another replica's log than it has said before. What is here stays.
    CloudLostPeer {
        /// Which log.
        log: LogName,
        /// The last change that it had.
        had: u64,
        /// The last that it has now.
        has: u64,
    },
    /// The cloud knows more of this replica's own log, or another history of it: this data directory was
    /// restored from a copy, or its bundle is in use twice. Nothing of that log is sent any more.
    OwnLogElsewhere {
        /// Which log.
        log: LogName,
        /// What is held here.
        here: u64,
        /// What the cloud has.
        there: u64,
    },
    /// The cloud refused something.
    Refused(Refusal),
    /// What the cloud served of a peer, or says it has, does not verify.
    BadPeerBatch {
        /// Which log.
        log: LogName,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot that the cloud served does not verify or does not add up; its tier comes change by change.
    BadSnapshot {
        /// Of which tier.
        tier: Tier,
        /// What is wrong.
        reason: String,
    },
    /// With the line up and changes waiting, no receipt has come for [`super::STALL_MS`].
    Stalled {
        /// Since when nothing has moved, milliseconds since 1970 UTC.
        since_ms: u64,
    },
    /// With the line up, the cloud says that it has more of another replica's log than is here, and nothing of others has
    /// come for at least [`super::STALL_MS`].
    NotServed {
        /// A log of which that is so.
        log: LogName,
        /// The last change that is here.
        here: u64,
        /// The last that the cloud says it has.
        there: u64,
        /// Since when nothing has come, milliseconds since 1970 UTC.
        since_ms: u64,
    },
    /// A newer manifest takes back a revocation, or the destruction of a key: the board was set back to an old copy, or its key is in other hands.
    /// Nothing of it is taken.
    RevocationTakenBack {
        /// Of the manifest.
        version: u64,
    },
    /// The board has revoked a device, and more of it was applied here than it accepts, before that was known.
    AppliedBeforeRevocation {
        /// Which log.
        log: LogName,
        /// Up to where it counts.
        accepted: u64,
        /// Up to where it was applied here.
        held: u64,
    },
    /// The cloud could not read enough sites to say what it has.
    Incomplete,
}

impl Alarm {
    pub(super) fn other_history(log: LogName) -> Self {
        let reason = "the cloud has another history of it than this replica, or than it showed before".into();
        Self::BadPeerBatch { log, reason }
    }
}
