//! One live segment in memory: its open file, its index and where its next commit goes.

use std::path::PathBuf;

use crate::disk::DiskFile;
use crate::layout::{FrameHeader, decode_frame, to_u32, to_u64, to_usize};
use crate::limits::{FRAME_HEADER_BYTES, PAGE_BYTES, SEGMENT_PAGES_HELD_BACK};
use crate::{Frame, JournalError, Lsn, SegmentBounds};

/// A file that holds, or may hold, a segment.
pub(crate) struct SegmentFile {
    /// Its number, from which its name is made; never changes, also when the file is recycled.
    pub(crate) slot: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u32,
    pub(crate) disk: Box<dyn DiskFile>,
}

impl SegmentFile {
    pub(crate) fn name(&self) -> String {
        file_name(self.slot)
    }

    pub(crate) fn failed(&self, doing: &'static str, source: std::io::Error) -> JournalError {
        JournalError::Io { doing, path: self.path.clone(), source }
    }
}

/// Returns the name of the file with this number.
pub(crate) fn file_name(slot: u64) -> String {
    format!("segment-{slot:016x}.snj")
}

/// Returns the number in the name, if it is the name of a segment file.
pub(crate) fn slot_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".snj")?;
    let slot = u64::from_str_radix(digits, 16).ok()?;
    (file_name(slot) == name).then_some(slot)
}

/// A segment that holds frames which are still needed, or the one that is being written.
pub(crate) struct Segment {
    pub(crate) file: SegmentFile,
    pub(crate) epoch: u64,
    pub(crate) previous_epoch: u64,
    pub(crate) first_lsn: Lsn,
    /// Where each frame begins, from the first on; 0 for one that cannot be read from the disk.
    pub(crate) offsets: Vec<u32>,
    /// Where the next commit goes.
    pub(crate) next_page: u32,
    /// Where the last commit began, 0 if there is none.
    pub(crate) last_page: u32,
    /// The header page is not known to be durable and is written together with the next commit.
    pub(crate) header_pending: bool,
    /// It has rot: its file is deleted, not recycled.
    pub(crate) damaged: bool,
}

impl Segment {
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.first_lsn.plus(to_u64(self.offsets.len()))
    }

    pub(crate) fn bounds(&self) -> SegmentBounds {
        SegmentBounds {
            epoch: self.epoch,
            first_lsn: self.first_lsn,
            next_lsn: self.next_lsn(),
            bytes: self.file.bytes,
        }
    }

    fn pages(&self) -> u32 {
        self.file.bytes / PAGE_BYTES
    }

    /// Returns true if a commit of so many pages fits; the last page is kept for a mark.
    pub(crate) fn fits(&self, pages: u32) -> bool {
        u64::from(self.next_page) + u64::from(pages) < u64::from(self.pages())
    }

    /// Returns the pages that commits may still take.
    pub(crate) fn pages_left(&self) -> u32 {
        self.pages().saturating_sub(self.next_page).saturating_sub(1)
    }

    /// Returns true if a mark page fits.
    pub(crate) fn fits_mark(&self) -> bool {
        self.next_page < self.pages()
    }

    /// Returns where the frame begins: `None` if it is not in this segment, 0 if it cannot be read.
    pub(crate) fn offset_of(&self, lsn: Lsn) -> Option<u32> {
        let index = usize::try_from(lsn.0.checked_sub(self.first_lsn.0)?).ok()?;
        self.offsets.get(index).copied()
    }

    /// Reads one frame from the disk and verifies it.
    pub(crate) fn read(&self, lsn: Lsn, offset: u32) -> Result<Frame, JournalError> {
        let mut head = vec![0; to_usize(FRAME_HEADER_BYTES)];
        self.file
            .disk
            .read_at(offset.into(), &mut head)
            .map_err(|source| self.file.failed("read the journal segment", source))?;
        let room = self.file.bytes.saturating_sub(offset);
        let header = FrameHeader::peek(&head)
            .filter(|header| header.frame_bytes() <= room)
            .ok_or_else(|| self.rotten(lsn, offset))?;
        head.resize(to_usize(header.frame_bytes()), 0);
        if let Some(payload) = head.get_mut(to_usize(FRAME_HEADER_BYTES)..) {
            self.file
                .disk
                .read_at(u64::from(offset) + u64::from(FRAME_HEADER_BYTES), payload)
                .map_err(|source| self.file.failed("read the journal segment", source))?;
        }
        self.frame_in(&head, lsn, offset)
    }

    /// Verifies the frame that begins at the start of `bytes`, which were read from `offset`.
    pub(crate) fn frame_in(&self, bytes: &[u8], lsn: Lsn, offset: u32) -> Result<Frame, JournalError> {
        match decode_frame(bytes) {
            Some((header, payload)) if header.lsn == lsn && header.epoch == self.epoch => {
                Ok(Frame { lsn, kind: header.kind, payload: payload.to_vec() })
            }
            _ => Err(self.rotten(lsn, offset)),
        }
    }

    fn rotten(&self, lsn: Lsn, offset: u32) -> JournalError {
        JournalError::Corrupt {
            segment: self.file.name(),
            offset: offset.into(),
            first: lsn,
            last: lsn,
            what: "a frame that verified before does not verify any more",
        }
    }
}

/// Returns the bytes of frames, headers included, that a commit into a segment of this size can hold at most.
pub(crate) fn commit_bytes_max(segment_bytes: u32) -> u32 {
    let pages = segment_bytes / PAGE_BYTES;
    pages.saturating_sub(SEGMENT_PAGES_HELD_BACK).saturating_mul(PAGE_BYTES)
}

/// Returns where the next frame of a commit begins.
pub(crate) fn offset_after(base: u64, written: usize) -> u32 {
    to_u32(usize::try_from(base).unwrap_or(usize::MAX).saturating_add(written))
}
