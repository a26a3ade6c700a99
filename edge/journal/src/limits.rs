//! Every limit of the journal, with its unit and its reason. The spec repeats them under "Limits".

/// Bytes of a page: the unit of commits. 4 KiB is the page of the kernel's cache and of common flash, so that
/// writing a commit never rewrites a page which holds an acknowledged one.
pub const PAGE_BYTES: u32 = 4096;

/// Bytes of a sector: the largest write that a device is trusted to do wholly or not at all.
pub const SECTOR_BYTES: u32 = 512;

/// Bytes of a segment header, of which the rest of its page is zero.
pub const SEGMENT_HEADER_BYTES: u32 = 64;

/// Bytes of a commit header. It lies at the start of a page, inside one sector, so that it is never torn.
pub const COMMIT_HEADER_BYTES: u32 = 64;

/// Bytes of a frame header, before its payload.
pub const FRAME_HEADER_BYTES: u32 = 32;

/// Bytes of the mark that ends a commit.
pub const COMMIT_MARK_BYTES: u32 = 32;

/// Bytes that a commit needs besides its frames, before padding.
pub const COMMIT_OVERHEAD_BYTES: u32 = COMMIT_HEADER_BYTES + COMMIT_MARK_BYTES;

/// Largest payload of one frame: 1 MiB for a sealed batch and 64 KiB for what its owner wraps around it.
pub const FRAME_PAYLOAD_BYTES_MAX: u32 = 1024 * 1024 + 64 * 1024;

/// Bytes of a segment unless the owner says otherwise: long enough that rolling over is rare, short enough
/// that a spare is zeroed in tens of milliseconds and that recycling frees room soon.
pub const SEGMENT_BYTES_DEFAULT: u32 = 4 * 1024 * 1024;

/// Smallest segment: a header page, two pages of commits and the page kept for a mark.
pub const SEGMENT_BYTES_MIN: u32 = 4 * PAGE_BYTES;

/// Largest segment: one is read into memory whole when the journal is opened or replayed.
pub const SEGMENT_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Free segments that are kept for re-use unless the owner says otherwise; more are deleted.
pub const FREE_SEGMENTS_MAX_DEFAULT: usize = 4;

/// Segments that are kept pre-zeroed for [`crate::Journal::commit_reserved`] unless the owner says otherwise:
/// 4 times 4 MiB are the 16 MiB that a full disk leaves for what must still be written.
pub const RESERVE_SEGMENTS_DEFAULT: usize = 4;

/// Commits of one page, such as one small change each, that the reserve takes at least when the disk is full:
/// 4 segments of 1,024 pages less the two held back, 4 * 1,022 = 4,088. Those in the segment that is being
/// written come on top.
pub const RESERVE_COMMITS_MIN: usize =
    RESERVE_SEGMENTS_DEFAULT * (SEGMENT_BYTES_DEFAULT / PAGE_BYTES - SEGMENT_PAGES_HELD_BACK) as usize;

/// Pages that hold no ordinary commit: the header page, and the last page, which is kept so that a mark (and
/// with it the recycling of old segments) is possible when the disk is full.
pub(crate) const SEGMENT_PAGES_HELD_BACK: u32 = 2;

const _: () = assert!(RESERVE_COMMITS_MIN == 4_088);
const _: () = assert!(COMMIT_HEADER_BYTES <= SECTOR_BYTES);
const _: () = assert!(SEGMENT_HEADER_BYTES <= SECTOR_BYTES);
const _: () =
    assert!(SEGMENT_BYTES_MIN.is_multiple_of(PAGE_BYTES) && SEGMENT_BYTES_MAX.is_multiple_of(PAGE_BYTES));
// A frame of the largest size fits into a segment of the default size.
const _: () = assert!(
    FRAME_PAYLOAD_BYTES_MAX + FRAME_HEADER_BYTES + COMMIT_OVERHEAD_BYTES
        <= SEGMENT_BYTES_DEFAULT - SEGMENT_PAGES_HELD_BACK * PAGE_BYTES
);
