//! How an attack shows: what a victim says of its own accord, or what a witness says. And which words fit which
//! attack: an alarm of another kind is no detection, it is luck.

use serde::Serialize;

use super::options::Mutation;

/// One way in which something shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Alarm: the cloud has lost what it had receipted.
    CloudLost,
    /// Alarm: the cloud has less of a peer's log than it said.
    CloudLostPeer,
    /// Alarm: the own log is elsewhere; a new incarnation begins.
    OwnLogElsewhere,
    /// Alarm: a batch of a peer, or its history, is wrong.
    BadPeerBatch,
    /// Alarm: the cloud refuses something.
    Refused,
    /// Alarm: no receipt comes.
    Stalled,
    /// Alarm: what the cloud says it has of others does not come.
    NotServed,
    /// Alarm: the cloud says that it cannot say what it has.
    Incomplete,
    /// The line broke because bytes had no meaning, or an answer did not come.
    Broken,
    /// The status says that not everything of the others is here.
    NotAll,
    /// The status says that changes have no receipt.
    Unsafe,
    /// The status says that the line is down.
    Down,
    /// A rebuild did not end.
    RebuildFailed,
    /// A rebuild or an auditor with heads from outside says "incomplete" where nothing else is said.
    Witness,
    /// A node found damaged objects.
    NodeDamaged,
    /// A node found two batches for one place.
    NodeFork,
    /// A node found batches behind a hole.
    NodeHole,
    /// A node found documents or batches that are not of the board or its writers.
    NodeForged,
    /// An auditor found a gap.
    AuditGap,
    /// An auditor found two histories.
    AuditFork,
    /// An auditor found something that does not verify, or cannot be read.
    AuditForged,
    /// An auditor found nothing at all, or a key that is missing.
    AuditMissing,
    /// A bundle was refused as a whole.
    BundleRefused,
    /// A bundle was not whole.
    BundleCut,
    /// Batches of a bundle were refused, or what follows from one that was.
    BatchRefused,
    /// Batches of a bundle came before their turn.
    BatchEarly,
    /// Receipts of a bundle do not count.
    ReceiptRefused,
    /// Alarm: a snapshot is wrong; its tier comes change by change.
    BadSnapshot,
}

impl Signal {
    /// Whether it is what an attack is called by its victim, rather than by a witness from outside.
    #[must_use]
    pub const fn is_own(self) -> bool {
        !matches!(self, Self::Witness)
    }

    /// Whether it says of a log that its history is not the one that was shown before.
    #[must_use]
    pub const fn is_of_history(self) -> bool {
        matches!(
            self,
            Self::CloudLost
                | Self::CloudLostPeer
                | Self::OwnLogElsewhere
                | Self::BadPeerBatch
                | Self::Refused
        )
    }
}

/// Signals that may stand for any withholding, because that is all that the victim can know.
const STILL: [Signal; 8] = [
    Signal::Stalled,
    Signal::NotServed,
    Signal::NotAll,
    Signal::Unsafe,
    Signal::Down,
    Signal::RebuildFailed,
    Signal::Broken,
    Signal::Witness,
];

/// Signals that say: this log is not what it was, or has a hole.
const HISTORY: [Signal; 12] = [
    Signal::CloudLost,
    Signal::CloudLostPeer,
    Signal::OwnLogElsewhere,
    Signal::BadPeerBatch,
    Signal::Refused,
    Signal::NodeFork,
    Signal::NodeHole,
    Signal::AuditGap,
    Signal::AuditFork,
    Signal::AuditMissing,
    Signal::BatchEarly,
    Signal::BatchRefused,
];

/// Signals that say: these bytes are not what somebody wrote who may.
const BYTES: [Signal; 6] = [
    Signal::NodeDamaged,
    Signal::NodeForged,
    Signal::AuditForged,
    Signal::BundleRefused,
    Signal::BundleCut,
    Signal::ReceiptRefused,
];

impl Mutation {
    /// Whether a signal is a right name for it.
    #[must_use]
    pub fn is_named_by(self, signal: Signal) -> bool {
        if STILL.contains(&signal) {
            return true;
        }
        if signal == Signal::BadSnapshot {
            return self != Self::OldReceipt;
        }
        let (history, bytes) = (HISTORY.contains(&signal), BYTES.contains(&signal));
        match self {
            // Reading an object or a bundle in which records are missing or moved, one cannot tell from a bad copy.
            Self::Drop | Self::Reorder | Self::Replay | Self::RollBack | Self::Fork => {
                history || bytes && signal != Signal::AuditForged || self.hides_documents(signal)
            }
            // A node that cannot read an object says that it does not know all, and its boxes say so too.
            Self::Flip => history || bytes || signal == Signal::Incomplete,
            Self::CrossSchool | Self::Forge | Self::OldEpoch => history || bytes,
            // It can only be served as a snapshot.
            Self::Revoked => false,
            Self::OldReceipt => matches!(
                signal,
                Signal::CloudLost | Signal::CloudLostPeer | Signal::ReceiptRefused | Signal::OwnLogElsewhere
            ),
            Self::Withhold => {
                matches!(signal, Signal::Incomplete | Signal::Refused | Signal::OwnLogElsewhere)
            }
        }
    }

    /// Without its identity or manifest a batch does not verify, so leaving those out shows as that.
    fn hides_documents(self, signal: Signal) -> bool {
        signal == Signal::AuditForged && !matches!(self, Self::Fork)
    }
}
