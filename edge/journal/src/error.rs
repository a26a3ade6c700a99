//! The one error type of the journal. Each variant tells its caller what to do: retry, repair, refuse or stop.

use std::io;
use std::path::PathBuf;

use crate::Lsn;

/// Why the journal refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The operating system failed. A failed write or flush has also poisoned the handle.
    #[error("could not {doing} {}; reopen the journal, and replace the disk if it happens again", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable once do not verify any more. Never an I/O error, never a torn tail.
    #[error(
        "segment {segment} is corrupt at byte {offset} ({what}), frames {first} to {last}: open with salvage, \
         fetch the lost frames from the cloud, commit again what is still needed and recycle the old segments"
    )]
    Corrupt {
        /// The name of the segment file, or of the neighbour of one that is missing.
        segment: String,
        /// Where in the file the first page that does not verify begins.
        offset: u64,
        /// The first frame that cannot be trusted.
        first: Lsn,
        /// The last frame that cannot be trusted.
        last: Lsn,
        /// What did not verify.
        what: &'static str,
    },
    /// No room for another segment. Nothing was written and the handle stays usable.
    #[error(
        "no room on the disk for a journal segment of {segment_bytes} bytes: recycle old segments or free space, \
         then try again; commit_reserved may still use the reserve"
    )]
    Full {
        /// Bytes of the segment for which there was no room.
        segment_bytes: u32,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// An earlier write or flush failed, so what is on the disk is unknown until it has been read again.
    #[error("the journal handle is poisoned by an earlier failed write: drop it and open the journal again")]
    Poisoned,
    /// The commit or frame is larger than the limit. Nothing was written.
    #[error("{what} of {bytes} bytes is larger than the limit of {bytes_max}: split it")]
    TooLarge {
        /// "a frame" or "a commit".
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A commit without frames. Nothing was written.
    #[error("a commit needs at least one frame: use mark to make the last commit provable")]
    Empty,
    /// The frame was recycled or has not been written yet.
    #[error("frame {lsn} is not in the journal, which holds {first} up to but not including {next}")]
    NotHeld {
        /// The frame that was asked for.
        lsn: Lsn,
        /// The first frame held.
        first: Lsn,
        /// One past the last frame held.
        next: Lsn,
    },
    /// The frames were lost to rot and the journal was opened with salvage.
    #[error("frames {first} to {last} are lost to rot: fetch them from the cloud")]
    Lost {
        /// The first lost frame of the run.
        first: Lsn,
        /// The last lost frame of the run.
        last: Lsn,
    },
    /// Another handle, in this process or another, has the journal open.
    #[error("the journal in {} is in use: stop the other process first", dir.display())]
    Locked {
        /// The directory of the journal.
        dir: PathBuf,
    },
    /// The segment was written by a version that this one does not know.
    #[error("segment {segment} has format version {version}, this program knows up to {known}: update it")]
    Version {
        /// The name of the segment file.
        segment: String,
        /// The version found.
        version: u16,
        /// The newest version known.
        known: u16,
    },
    /// The options contradict a limit. Nothing was opened.
    #[error("{what} of {value} is outside {min} to {max}: correct the options")]
    Options {
        /// Which option.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
}

impl JournalError {
    /// Returns true if trying again on the same handle can succeed once room has been made.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Returns true if the remedy is to open with salvage and repair from the cloud.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Lost { .. })
    }
}

/// Returns true if the operating system says that there is no room, as opposed to a failing device.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
