//! The durable local log of a replica: the journal is the truth, everything else is derived from it.
//!
//! Stores opaque, typed frames and gives each a gapless sequence number ([`Lsn`]). It knows nothing of what a
//! frame means. The bytes, the recovery procedure and what can and cannot be detected are specified in
//! `docs/spec/journal.md`.
//!
//! **Invariants**
//! - When [`Journal::commit`] returns, its frames are on stable storage: one write and one device flush.
//! - A page that holds an acknowledged frame is never written again until its whole segment is recycled.
//! - What is read back is what was committed, or an error. Rot is reported, never truncated.
//! - After a failed write or flush nothing more is written through the same handle.
//!
//! Left out: encryption, compression, the meaning of kinds, and group commit (the one writer thread collects
//! requests and hands them over together).

pub mod disk;
mod error;
mod heal;
mod journal;
mod layout;
pub mod limits;
mod options;
mod pool;
mod probe;
mod recover;
mod replay;
mod scan;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod tests;
mod wipe;

pub use disk::{Disk, DiskFile, DiskLock, RealDisk, Room};
pub use error::JournalError;
pub use journal::Journal;
#[cfg(any(test, feature = "sim"))]
pub use options::Planted;
pub use options::{Opened, Options, Rot, SegmentBounds, TornTail};
pub use replay::Replay;

use std::fmt;

/// The gapless sequence number of a frame, counted from 1 over the whole life of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The sequence number of the first frame that a new journal stores.
    pub const FIRST: Self = Self(1);

    /// Returns the sequence number that lies `count` further; saturates at the end of the number space.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Returns the sequence number just before this one, or 0 for the first.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the owner of the journal says a frame is; the journal only stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u8);

/// One stored frame, as read back and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the journal.
    pub lsn: Lsn,
    /// Its kind, as given to [`Journal::commit`].
    pub kind: FrameKind,
    /// Its bytes, as given to [`Journal::commit`].
    pub payload: Vec<u8>,
}
