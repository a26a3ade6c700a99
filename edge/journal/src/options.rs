//! What the owner says when it opens a journal, and what it is told.

use std::ops::RangeInclusive;

use crate::limits::{
    FREE_SEGMENTS_MAX_DEFAULT, PAGE_BYTES, RESERVE_SEGMENTS_DEFAULT, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
use crate::{JournalError, Lsn};

/// How a journal is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a new segment, a multiple of 4 KiB. Segments that exist keep their size.
    pub segment_bytes: u32,
    /// Free segments kept pre-allocated for ordinary commits; more are deleted when they are recycled.
    pub free_segments_max: usize,
    /// Free segments, besides, that only [`crate::Journal::commit_reserved`] may use.
    pub reserve_segments: usize,
    /// Opens a journal that has rot, instead of failing with [`JournalError::Corrupt`].
    pub salvage: bool,
    /// A deliberate defect, with which tests prove that they can fail.
    #[cfg(any(test, feature = "sim"))]
    pub planted: Planted,
}

/// A deliberate defect that the tests must catch, which proves that they can fail.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Planted {
    /// No defect.
    #[default]
    None,
    /// Commits are acknowledged without a flush.
    SkipFlush,
    /// New segment files are used without making their directory entry durable.
    SkipDirectoryFlush,
    /// Recovery takes every commit that does not verify for a torn tail.
    TruncateAtRot,
    /// Recovery trusts the cache, which can hold what a failed flush never wrote.
    SkipSettle,
    /// Ordinary commits use up the reserve.
    SpendReserve,
}

/// Tells which defect is planted: one method for each, always false in production code.
macro_rules! planted {
    ($($method:ident => $variant:ident),* $(,)?) => {
        impl Options {
            $(
                #[cfg(any(test, feature = "sim"))]
                pub(crate) fn $method(&self) -> bool {
                    self.planted == Planted::$variant
                }
                #[cfg(not(any(test, feature = "sim")))]
                pub(crate) const fn $method(&self) -> bool {
                    false
                }
            )*
        }
    };
}

planted! {
    skip_flush => SkipFlush,
    skip_directory_flush => SkipDirectoryFlush,
    truncate_at_rot => TruncateAtRot,
    skip_settle => SkipSettle,
    spend_reserve => SpendReserve,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            free_segments_max: FREE_SEGMENTS_MAX_DEFAULT,
            reserve_segments: RESERVE_SEGMENTS_DEFAULT,
            salvage: false,
            #[cfg(any(test, feature = "sim"))]
            planted: Planted::None,
        }
    }
}

impl Options {
    /// Checks the options against the limits.
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        let size = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&size) || !size.is_multiple_of(PAGE_BYTES) {
            return Err(JournalError::Options {
                what: "segment_bytes (a multiple of 4096)",
                value: size.into(),
                min: SEGMENT_BYTES_MIN.into(),
                max: SEGMENT_BYTES_MAX.into(),
            });
        }
        Ok(())
    }
}

/// What opening a journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The first frame held. Frames that were recycled may appear again if no commit or mark followed.
    pub first_lsn: Lsn,
    /// The sequence number that the next frame will have.
    pub next_lsn: Lsn,
    /// The unfinished commit that was discarded, if its header is legible. It was never acknowledged, unless
    /// its owner knows better: see "What cannot be detected" in the spec.
    pub torn_tail: Option<TornTail>,
    /// True if the last thing in the journal is a mark, so that a lost last commit would have been noticed.
    pub marked: bool,
    /// What does not verify. Without salvage only marks that are lost where no frame is, and one flipped bit of the
    /// last commit.
    pub rot: Vec<Rot>,
    /// Runs of frames that cannot be read. Empty unless opened with salvage.
    pub lost: Vec<RangeInclusive<Lsn>>,
    /// Frames that one flipped bit had damaged and that were corrected: on the disk where they end the journal, in
    /// memory, and only with salvage, elsewhere.
    pub healed_frames: u64,
}

/// A commit that was begun and not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The name of the segment file.
    pub segment: String,
    /// Where the unfinished commit begins.
    pub offset: u64,
    /// How many bytes, padding included, it would have had.
    pub bytes: u64,
    /// The sequence number that its first frame would have had.
    pub first_lsn: Lsn,
    /// How many frames it would have had.
    pub frames: u32,
}

/// Bytes that were durable once and do not verify any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rot {
    /// The name of the segment file, or of the neighbour of one that is missing.
    pub segment: String,
    /// Where the first page that does not verify begins.
    pub offset: u64,
    /// What did not verify.
    pub what: &'static str,
}

/// Where a segment begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentBounds {
    /// The segment's epoch: increases with every use of a file.
    pub epoch: u64,
    /// The first frame in it.
    pub first_lsn: Lsn,
    /// One past the last frame in it.
    pub next_lsn: Lsn,
    /// Bytes of the file.
    pub bytes: u32,
}
