//! The bytes: segment header, commit header, frame, commit mark. Encoders and decoders only, no I/O.
//!
//! All integers are little-endian. Decoders cannot panic: they read through [`u32_at`] and its kin, which
//! return `None` past the end.
//!
//! Source: `docs/spec/journal.md`, "Bytes".

use crc32c::{crc32c, crc32c_append};

use crate::limits::{
    COMMIT_HEADER_BYTES, COMMIT_MARK_BYTES, COMMIT_OVERHEAD_BYTES, FRAME_HEADER_BYTES,
    FRAME_PAYLOAD_BYTES_MAX, PAGE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
};
use crate::{FrameKind, Lsn};

/// The format version that this program writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 4] = *b"SNJ1";
const COMMIT_MAGIC: [u8; 4] = *b"SNJC";
const MARK_MAGIC: [u8; 4] = *b"SNJM";

/// Where the CRC lies in a segment header and in a commit header: at their end.
const HEADER_CRC_OFFSET: usize = 60;
/// Where the CRC lies in a commit mark.
const MARK_CRC_OFFSET: usize = 28;
/// Where the CRC lies in a frame header, and where the bytes after it begin.
const FRAME_CRC_OFFSET: usize = 4;
const FRAME_AFTER_CRC: usize = 8;

/// Converts a count that a limit keeps small; saturates instead of wrapping.
pub(crate) fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Converts a length that a limit keeps small; saturates instead of wrapping.
pub(crate) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Converts a length; saturates instead of wrapping.
pub(crate) fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Returns where a page begins in its file.
pub(crate) fn page_offset(page: u32) -> u64 {
    u64::from(page) * u64::from(PAGE_BYTES)
}

/// Returns the part of `bytes` from `offset`, `length` long, or `None` if it is not wholly there.
pub(crate) fn part(bytes: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(length)?)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    part(bytes, offset, N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// Page 0 of a segment: which use of the file this is, and where it stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) segment_bytes: u32,
    /// Increases with every use of any file of the journal.
    pub(crate) epoch: u64,
    /// The epoch of the segment before this one, 0 if there was none: a missing segment shows.
    pub(crate) previous_epoch: u64,
    pub(crate) first_lsn: Lsn,
    /// Frames before this one are no longer needed.
    pub(crate) keep_from: Lsn,
}

impl SegmentHeader {
    /// Returns the header page.
    pub(crate) fn encode_page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(to_usize(PAGE_BYTES));
        page.extend_from_slice(&SEGMENT_MAGIC);
        page.extend_from_slice(&self.version.to_le_bytes());
        page.extend_from_slice(&[0; 2]);
        page.extend_from_slice(&self.segment_bytes.to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&self.epoch.to_le_bytes());
        page.extend_from_slice(&self.previous_epoch.to_le_bytes());
        page.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        page.extend_from_slice(&self.keep_from.0.to_le_bytes());
        page.resize(HEADER_CRC_OFFSET, 0);
        let crc = crc32c(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        page.resize(to_usize(PAGE_BYTES), 0);
        page
    }

    /// Reads a header; `None` unless magic, checksum and size are right. The version is for the caller to judge.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = part(bytes, 0, to_usize(SEGMENT_HEADER_BYTES))?;
        if array_at(header, 0)? != SEGMENT_MAGIC || !header_crc_holds(header) {
            return None;
        }
        let found = Self {
            version: u16_at(header, 4)?,
            segment_bytes: u32_at(header, 8)?,
            epoch: u64_at(header, 16)?,
            previous_epoch: u64_at(header, 24)?,
            first_lsn: Lsn(u64_at(header, 32)?),
            keep_from: Lsn(u64_at(header, 40)?),
        };
        let sane = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&found.segment_bytes) && found.epoch > 0;
        sane.then_some(found)
    }
}

/// The first 64 bytes of a commit, or of a mark page, which is a commit without frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    pub(crate) epoch: u64,
    /// The page at which the commit begins, so that a copy elsewhere is not mistaken for it.
    pub(crate) page: u32,
    /// 0 for a mark page.
    pub(crate) frame_count: u32,
    /// The first frame in it. Every frame before this one was durable before the commit was written.
    pub(crate) first_lsn: Lsn,
    /// Frames before this one are no longer needed.
    pub(crate) keep_from: Lsn,
    /// Bytes of all frames with their headers.
    pub(crate) body_bytes: u32,
    /// The page at which the commit before began, in this segment or the one before; 0 for the first of all.
    pub(crate) previous_page: u32,
    /// The checksum of the commit before.
    pub(crate) previous_crc: u32,
}

impl CommitHeader {
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&COMMIT_MAGIC);
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&self.epoch.to_le_bytes());
        to.extend_from_slice(&self.page.to_le_bytes());
        to.extend_from_slice(&self.frame_count.to_le_bytes());
        to.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        to.extend_from_slice(&self.keep_from.0.to_le_bytes());
        to.extend_from_slice(&self.body_bytes.to_le_bytes());
        to.extend_from_slice(&self.previous_page.to_le_bytes());
        to.extend_from_slice(&self.previous_crc.to_le_bytes());
        to.resize(start + HEADER_CRC_OFFSET, 0);
        let crc = crc32c(to.get(start..).unwrap_or_default());
        to.extend_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header; `None` unless magic and checksum are right and its sizes fit into a segment.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = part(bytes, 0, to_usize(COMMIT_HEADER_BYTES))?;
        if array_at(header, 0)? != COMMIT_MAGIC || !header_crc_holds(header) {
            return None;
        }
        let found = Self {
            epoch: u64_at(header, 8)?,
            page: u32_at(header, 16)?,
            frame_count: u32_at(header, 20)?,
            first_lsn: Lsn(u64_at(header, 24)?),
            keep_from: Lsn(u64_at(header, 32)?),
            body_bytes: u32_at(header, 40)?,
            previous_page: u32_at(header, 44)?,
            previous_crc: u32_at(header, 48)?,
        };
        let fits = found.body_bytes <= SEGMENT_BYTES_MAX
            && u64::from(found.frame_count) * u64::from(FRAME_HEADER_BYTES) <= u64::from(found.body_bytes)
            && found.first_lsn.0 > 0;
        fits.then_some(found)
    }

    /// Returns the pages that the whole commit takes.
    pub(crate) fn pages(&self) -> u32 {
        commit_pages(u64::from(self.body_bytes))
    }

    /// Returns one past the last frame.
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.first_lsn.plus(self.frame_count.into())
    }
}

fn header_crc_holds(header: &[u8]) -> bool {
    let covered = part(header, 0, HEADER_CRC_OFFSET).map(crc32c);
    covered.is_some() && covered == u32_at(header, HEADER_CRC_OFFSET)
}

/// Returns the pages that a commit with this many bytes of frames takes.
pub(crate) fn commit_pages(body_bytes: u64) -> u32 {
    let bytes = body_bytes.saturating_add(COMMIT_OVERHEAD_BYTES.into());
    u32::try_from(bytes.div_ceil(PAGE_BYTES.into())).unwrap_or(u32::MAX)
}

/// The header of a frame, whose payload follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) epoch: u64,
    pub(crate) lsn: Lsn,
    pub(crate) kind: FrameKind,
}

/// Appends a frame. The caller has checked the payload against its limit.
pub(crate) fn encode_frame(epoch: u64, lsn: Lsn, kind: FrameKind, payload: &[u8], to: &mut Vec<u8>) {
    let start = to.len();
    let length = to_u32(payload.len()).to_le_bytes();
    to.extend_from_slice(&length);
    to.extend_from_slice(&[0; 4]);
    to.extend_from_slice(&epoch.to_le_bytes());
    to.extend_from_slice(&lsn.0.to_le_bytes());
    to.push(kind.0);
    to.extend_from_slice(&[0; 7]);
    to.extend_from_slice(payload);
    let crc = crc32c_append(crc32c(&length), to.get(start + FRAME_AFTER_CRC..).unwrap_or_default());
    if let Some(place) = to.get_mut(start + FRAME_CRC_OFFSET..start + FRAME_AFTER_CRC) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

impl FrameHeader {
    /// Reads a frame header without verifying it, to learn how much to read for [`decode_frame`].
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        let payload_bytes = u32_at(bytes, 0)?;
        (payload_bytes <= FRAME_PAYLOAD_BYTES_MAX).then_some(Self {
            payload_bytes,
            epoch: u64_at(bytes, 8)?,
            lsn: Lsn(u64_at(bytes, 16)?),
            kind: FrameKind(array_at::<1>(bytes, 24)?.first().copied()?),
        })
    }

    /// Returns the bytes of the frame, header included.
    pub(crate) fn frame_bytes(&self) -> u32 {
        self.payload_bytes + FRAME_HEADER_BYTES
    }
}

/// Reads and verifies the frame that begins at the start of `bytes`, and returns its header and payload.
pub(crate) fn decode_frame(bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let header = FrameHeader::peek(bytes)?;
    let whole = part(bytes, 0, to_usize(header.frame_bytes()))?;
    let length = part(whole, 0, FRAME_CRC_OFFSET)?;
    let crc = crc32c_append(crc32c(length), whole.get(FRAME_AFTER_CRC..)?);
    if crc != u32_at(whole, FRAME_CRC_OFFSET)? {
        return None;
    }
    Some((header, whole.get(to_usize(FRAME_HEADER_BYTES)..)?))
}

/// Appends the mark that ends a commit, whose bytes so far are `to[start..]`, and returns the commit's checksum.
pub(crate) fn encode_mark(header: &CommitHeader, start: usize, to: &mut Vec<u8>) -> u32 {
    to.extend_from_slice(&MARK_MAGIC);
    to.extend_from_slice(&header.frame_count.to_le_bytes());
    to.extend_from_slice(&header.first_lsn.0.to_le_bytes());
    to.extend_from_slice(&header.next_lsn().before().0.to_le_bytes());
    to.extend_from_slice(&header.page.to_le_bytes());
    let crc = crc32c(to.get(start..).unwrap_or_default());
    to.extend_from_slice(&crc.to_le_bytes());
    crc
}

/// Verifies a whole commit that begins at the start of `bytes`, frames excepted, and returns its checksum.
pub(crate) fn verify_commit(bytes: &[u8], header: &CommitHeader) -> Option<u32> {
    let mark_offset = to_usize(COMMIT_HEADER_BYTES.checked_add(header.body_bytes)?);
    let mark = part(bytes, mark_offset, to_usize(COMMIT_MARK_BYTES))?;
    let crc = u32_at(mark, MARK_CRC_OFFSET)?;
    let holds = array_at(mark, 0)? == MARK_MAGIC
        && u32_at(mark, 4)? == header.frame_count
        && u64_at(mark, 8)? == header.first_lsn.0
        && u64_at(mark, 16)? == header.next_lsn().before().0
        && u32_at(mark, 24)? == header.page
        && crc32c(part(bytes, 0, mark_offset.checked_add(MARK_CRC_OFFSET)?)?) == crc;
    holds.then_some(crc)
}

/// Returns the bytes of a commit without its padding, checksum included.
pub(crate) fn commit_bytes_unpadded(header: &CommitHeader) -> usize {
    to_usize(header.body_bytes.saturating_add(COMMIT_OVERHEAD_BYTES))
}
