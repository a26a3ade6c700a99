//! Why a store cannot be opened, read or written, and what its caller is to do about it.

use std::path::PathBuf;

use sonae_proto::ids::{Hash32, LogName};

use crate::view_db::ViewError;

/// Why the store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] sonae_journal::JournalError),
    /// The view failed and could not be rebuilt.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Sealed batches cannot be read or written.
    #[error("cannot {doing} sealed batches in {}", path.display())]
    Batches {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A kept frame has no meaning to this version.
    #[error("the journal holds a {kind} that this version cannot read; use the version that wrote it")]
    Frame {
        /// Which kind.
        kind: &'static str,
    },
    /// A later version has written what this one does not know and would lose.
    #[error(
        "a later version of the software has written here what this one cannot read (frame kind {kind}); nothing is \
         lost: install that version again"
    )]
    LaterVersion {
        /// The number of its kind.
        kind: u8,
    },
    /// Keys are missing or damaged.
    #[error(transparent)]
    Keyring(#[from] crate::keyring::KeyringError),
    /// The keys of this replica are damaged.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    /// Sealing or opening failed.
    #[error("sealing or opening a batch of log {log} failed")]
    Seal {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: sonae_proto::seal::SealError,
    },
    /// A batch does not pass its own gate.
    #[error(transparent)]
    Batch(#[from] sonae_proto::batch::BatchError),
    /// A kept log has a hole.
    #[error(
        "log {log} has a hole after change {after}; start `sonae-edge run`, which repairs it from the cloud"
    )]
    Hole {
        /// Which log.
        log: LogName,
        /// The last change before it.
        after: u64,
    },
    /// A snapshot that a tier begins with, or is to begin with, cannot be used.
    #[error("snapshot {root} {what}; start `sonae-edge run`, which repairs it from the cloud")]
    Snapshot {
        /// Hash of its root.
        root: Hash32,
        /// What is wrong.
        what: &'static str,
    },
    /// The store has been closed, or has failed, meanwhile.
    #[error("the store is closed; start again")]
    Closing,
    /// The keeper thread could not be started.
    #[error("cannot start the keeper thread")]
    Thread(#[source] std::io::Error),
}

impl StoreError {
    /// Whether what was kept cannot be read any more, so that the remedy is to repair from the cloud.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_corrupt(),
            Self::Hole { .. } | Self::Batch(_) | Self::Seal { .. } | Self::Snapshot { .. } => true,
            Self::View(_)
            | Self::Batches { .. }
            | Self::Frame { .. }
            | Self::LaterVersion { .. }
            | Self::Keyring(_)
            | Self::Identity(_)
            | Self::Closing
            | Self::Thread(_) => false,
        }
    }
}

/// Why a write was not kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// A change is over a limit or malformed. Nothing was kept.
    #[error("nothing was saved: {reason}")]
    Refused {
        /// What is wrong.
        reason: String,
    },
    /// The record was erased for good. Nothing was kept.
    #[error(
        "nothing was saved: this record was erased for good, and nothing can be written to it any more; ask the board"
    )]
    Erased,
    /// The disk is nearly full, and what is left of it is for tiers that matter more. Nothing was kept.
    #[error(
        "nothing was saved: the disk of this box is nearly full and takes nothing of tier {tier} and above; what \
         lies below still goes on. Free some room, or call the board"
    )]
    NoRoom {
        /// The tier that was refused.
        tier: sonae_proto::ids::Tier,
    },
    /// The disk is full, the reserve included. Nothing was kept.
    #[error("nothing was saved: the disk of this box is full; write on paper and call the board")]
    Full,
    /// The board has not let anybody write here again yet. Nothing was kept.
    #[error(
        "nothing was saved: the board has this box under a hold, so it can be read and not written at. What it held \
         goes on being merged. Write at another box or on paper, and ask the board to release it"
    )]
    Held,
    /// A rebuild has not brought all of the tier yet, so nobody has seen what the write would replace. Nothing was kept.
    #[error("nothing was saved: {0}")]
    NotYet(#[from] crate::filling::NotYet),
    /// The box is just going on under a new incarnation. Nothing was kept.
    #[error("nothing was saved: this box is changing over; save it again in a moment")]
    Moving,
    /// The store has failed and takes nothing more until it is opened again.
    #[error("nothing was saved: the disk of this box fails; write on paper and restart the box")]
    Failed,
}
