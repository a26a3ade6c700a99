//! What the engine of a replica asks of its shell, and what comes back for a batch.

use crate::batch::Batch;
use crate::identity::IdentityText;
use crate::ids::{Hash32, LogName, Tier};
use crate::snapshot::Snapshot;
use crate::vector::{Heads, LogHead};
use crate::wire::{Fetch, KeyDocuments, Refusal, SnapshotName, SnapshotPart, SnapshotWants};

use super::{Alarm, Shown};

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open a connection; then `handle_connected` or `handle_disconnected`.
    Dial,
    /// Send a hello with the state of this moment.
    SendHello,
    /// The cloud lacks a manifest that this replica has sealed under: send the key documents.
    SendKeys,
    /// Send a held batch on a stream of its own and hand its reply to `handle_batch_reply`.
    SendBatch {
        /// Which log.
        log: LogName,
        /// First sequence of the batch; of a log of another, a change in it.
        first: u64,
    },
    /// Ask for the batches of a log, hand each to `handle_fetched`, then call `handle_fetch_end`.
    Fetch(Fetch),
    /// Ask for a snapshot, without the parts that are held of it; hand what comes to `handle_snapshot_root` and
    /// `handle_snapshot_part`, then call `handle_snapshot_end`. One that is asked for with the hello may be answered
    /// before the welcome has arrived: it is handed over behind it.
    FetchSnapshot(SnapshotName),
    /// Keep the root of a snapshot that is being fetched, so that a fetch that is cut off resumes.
    KeepSnapshot(Box<Snapshot>),
    /// Keep a part of it.
    KeepSnapshotPart(Box<SnapshotPart>),
    /// Make a fetched snapshot the state of its tier, durably, if all its parts are there and add up; then
    /// `handle_snapshot_loaded`.
    LoadSnapshot(Box<Snapshot>),
    /// Offer a snapshot on a stream of its own and hand the reply to `handle_snapshot_reply`.
    SendSnapshot(Box<Snapshot>),
    /// Send a part of it, in the same way.
    SendSnapshotPart {
        /// Hash of its root.
        root: Hash32,
        /// Its place among the parts.
        number: u32,
    },
    /// The cloud has it at the quorum of sites.
    SnapshotSafe {
        /// Of which tier.
        tier: Tier,
        /// Hash of its root.
        root: Hash32,
    },
    /// Keep a peer's batch durably and apply it.
    StoreBatch(Box<Batch>),
    /// Keep a peer's identity durably.
    KeepIdentity(Box<IdentityText>),
    /// Keep newer key documents durably and seal by them. Batches in quarantine may count by now: offer them again with
    /// `handle_carried_batch`.
    KeepKeys(Box<KeyDocuments>),
    /// Keep a batch of a revoked device durably and aside, without applying it.
    Quarantine(Box<Batch>),
    /// Keep the bytes of a receipt; it moves "safe".
    KeepReceipt {
        /// Which log.
        log: LogName,
        /// Up to where it is safe now.
        head: LogHead,
        /// The receipt, as evidence.
        bytes: Vec<u8>,
    },
    /// Keep what the cloud says of own logs, durable with the next commit: a crash before that is as if the welcome had not
    /// come.
    KeepShown(Box<Shown>),
    /// Keep a raised loss counter and the lowered heads durably, then call `handle_loss_kept`.
    KeepLoss {
        /// The new counter.
        loss_counter: u64,
        /// Heads that are still safe.
        receipted: Heads,
    },
    /// The cloud has another history of an own log: go on under a new incarnation. Asked for once; this engine
    /// sends and dials no more.
    Renew,
    /// Tell people.
    Alarm(Alarm),
    /// Close the connection; a new hello is needed.
    Disconnect,
}

impl Effect {
    /// Whether the effect only has meaning on the connection that it was asked for on.
    pub(super) const fn needs_its_connection(&self) -> bool {
        matches!(
            self,
            Self::SendHello
                | Self::SendKeys
                | Self::SendBatch { .. }
                | Self::Fetch(_)
                | Self::FetchSnapshot(_)
                | Self::SendSnapshot(_)
                | Self::SendSnapshotPart { .. }
                | Self::Disconnect
        )
    }
}

/// What came back for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchReply {
    /// Bytes of a receipt.
    Receipt(Vec<u8>),
    /// A refusal.
    Refusal(Refusal),
}

/// What came back for a snapshot that was offered, or for a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotReply {
    /// Bytes of a receipt: it is whole and safe.
    Receipt(Vec<u8>),
    /// Parts that are still missing.
    Wants(SnapshotWants),
    /// A refusal.
    Refusal(Refusal),
}
