//! The journal handle: commit, mark, read, recycle.
//!
//! **Invariants**
//! - One write and one device flush for each commit; a new segment's header travels in its first commit.
//! - Nothing is written after a write or flush has failed.
//! - A segment is re-used only after a durable mark says that its frames are no longer needed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskLock, Room};
use crate::layout::{
    CommitHeader, FORMAT_VERSION, SegmentHeader, commit_pages, encode_frame, encode_mark, page_offset,
    to_u32, to_u64, to_usize,
};
use crate::limits::{COMMIT_OVERHEAD_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, PAGE_BYTES};
use crate::pool::Pool;
use crate::replay::Replay;
use crate::scan::Link;
use crate::segment::{Segment, commit_bytes_max, offset_after};
use crate::{Frame, FrameKind, JournalError, Lsn, Opened, Options, SegmentBounds, recover};

/// The open journal of one replica. One handle exists for a directory; one thread writes.
pub struct Journal {
    pub(crate) pool: Pool,
    /// Oldest first; the last one is being written, unless `roll` is set.
    pub(crate) live: VecDeque<Segment>,
    pub(crate) next_lsn: Lsn,
    /// Frames before this one are no longer needed. Travels in every commit.
    pub(crate) keep_from: Lsn,
    pub(crate) next_epoch: u64,
    /// The last commit, which the next one names.
    pub(crate) previous: Link,
    /// The next commit begins a new segment.
    pub(crate) roll: bool,
    /// The last commit is a mark.
    pub(crate) marked: bool,
    /// Frames that were corrected in memory; their bytes on the disk are rotten.
    pub(crate) healed: BTreeMap<Lsn, Frame>,
    /// Runs of frames that were lost when the journal was opened, in order, no two of them touching.
    pub(crate) lost: Vec<RangeInclusive<Lsn>>,
    pub(crate) poisoned: bool,
    pub(crate) flushes: u64,
    /// Re-used by every commit, so that committing does not allocate.
    pub(crate) scratch: Vec<u8>,
    /// Held for as long as the journal is open.
    pub(crate) _lock: Box<dyn DiskLock>,
}

impl Journal {
    /// Opens the journal in the directory, or begins a new one, and recovers what is durable.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] if bytes do not verify that were durable once, unless [`Options::salvage`] is
    /// set; [`JournalError::Locked`], [`JournalError::Version`], [`JournalError::Options`], [`JournalError::Io`].
    ///
    /// # Durability
    /// Everything that can be read through the new handle is on stable storage.
    ///
    /// # Source
    /// `docs/spec/journal.md`, "Recovery".
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<(Self, Opened), JournalError> {
        options.check()?;
        recover::open(disk, dir, options)
    }

    /// Stores frames, all or none, and returns the sequence numbers that they got.
    ///
    /// # Errors
    /// [`JournalError::Empty`], [`JournalError::TooLarge`] and [`JournalError::Full`] have written nothing;
    /// [`JournalError::Io`] has poisoned the handle, and the frames may or may not be there after reopening.
    ///
    /// # Durability
    /// On return the frames are on stable storage: one write, one device flush.
    pub fn commit(&mut self, frames: &[(FrameKind, &[u8])]) -> Result<RangeInclusive<Lsn>, JournalError> {
        self.store(frames, false)
    }

    /// Does the same as [`Journal::commit`], and may use the reserve when the disk is full.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    ///
    /// # Durability
    /// As [`Journal::commit`].
    pub fn commit_reserved(
        &mut self,
        frames: &[(FrameKind, &[u8])],
    ) -> Result<RangeInclusive<Lsn>, JournalError> {
        self.store(frames, true)
    }

    fn store(
        &mut self,
        frames: &[(FrameKind, &[u8])],
        reserved: bool,
    ) -> Result<RangeInclusive<Lsn>, JournalError> {
        self.usable()?;
        if frames.is_empty() {
            return Err(JournalError::Empty);
        }
        let mut body_bytes: u64 = 0;
        for (_, payload) in frames {
            let bytes = to_u64(payload.len());
            if bytes > FRAME_PAYLOAD_BYTES_MAX.into() {
                let bytes_max = FRAME_PAYLOAD_BYTES_MAX.into();
                return Err(JournalError::TooLarge { what: "a frame", bytes, bytes_max });
            }
            body_bytes += bytes + u64::from(FRAME_HEADER_BYTES);
        }
        let bytes = body_bytes + u64::from(COMMIT_OVERHEAD_BYTES);
        let bytes_max = u64::from(commit_bytes_max(self.pool.options.segment_bytes));
        if bytes > bytes_max {
            return Err(JournalError::TooLarge { what: "a commit", bytes, bytes_max });
        }
        let pages = commit_pages(body_bytes);
        if !reserved {
            self.complete_reserve()?;
        }
        if self.roll || self.live.back().is_none_or(|active| !active.fits(pages)) {
            self.begin_segment(reserved)?;
        }
        let first = self.next_lsn;
        self.write(frames, u32::try_from(body_bytes).unwrap_or(u32::MAX))?;
        Ok(first..=self.next_lsn.before())
    }

    /// Writes a mark page, which makes rot in the last commit provable, however many bits of it are hit. To be
    /// called when the owner is idle and before it closes. Does nothing if the last commit is a mark already.
    /// Returns whether it wrote.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    ///
    /// # Durability
    /// On return the mark is on stable storage, and with it how far the journal has been recycled.
    pub fn mark(&mut self) -> Result<bool, JournalError> {
        self.usable()?;
        if self.marked || self.live.is_empty() {
            return Ok(false);
        }
        self.write_mark()?;
        Ok(true)
    }

    fn write_mark(&mut self) -> Result<(), JournalError> {
        if self.roll || self.live.back().is_none_or(|active| !active.fits_mark()) {
            self.begin_segment(true)?;
        }
        self.write(&[], 0)
    }

    /// Ordinary commits go on only while the reserve is whole: a segment that was taken from it is for reserved ones.
    fn complete_reserve(&mut self) -> Result<(), JournalError> {
        let completed = self.pool.complete_reserve();
        self.poisoned = completed.as_ref().is_err_and(|error| !error.is_full());
        completed
    }

    /// Takes a free file as the active segment. Writes nothing to it yet: the header travels in its first commit.
    fn begin_segment(&mut self, use_reserve: bool) -> Result<(), JournalError> {
        let file = match self.pool.take(use_reserve) {
            Ok(file) => file,
            Err(error) => {
                self.poisoned = !error.is_full();
                return Err(error);
            }
        };
        let epoch = self.next_epoch;
        self.next_epoch = epoch.saturating_add(1);
        self.live.push_back(Segment {
            file,
            epoch,
            previous_epoch: self.live.back().map_or(0, |segment| segment.epoch),
            first_lsn: self.next_lsn,
            offsets: Vec::new(),
            next_page: 1,
            last_page: 0,
            header_pending: true,
            damaged: false,
        });
        self.roll = false;
        Ok(())
    }

    /// Encodes one commit into the scratch buffer, writes it, flushes, and only then counts it as there.
    fn write(&mut self, frames: &[(FrameKind, &[u8])], body_bytes: u32) -> Result<(), JournalError> {
        let Some(active) = self.live.back_mut() else { return Err(JournalError::Poisoned) };
        let buffer = &mut self.scratch;
        buffer.clear();
        let mut at = page_offset(active.next_page);
        if active.header_pending {
            at = 0;
            let header = SegmentHeader {
                version: FORMAT_VERSION,
                segment_bytes: active.file.bytes,
                epoch: active.epoch,
                previous_epoch: active.previous_epoch,
                first_lsn: active.first_lsn,
                keep_from: self.keep_from,
            };
            buffer.extend_from_slice(&header.encode_page());
        }
        let start = buffer.len();
        let header = CommitHeader {
            epoch: active.epoch,
            page: active.next_page,
            frame_count: to_u32(frames.len()),
            first_lsn: self.next_lsn,
            keep_from: self.keep_from,
            body_bytes,
            previous_page: self.previous.page,
            previous_crc: self.previous.crc,
        };
        header.encode(buffer);
        let held = active.offsets.len();
        for (index, (kind, payload)) in frames.iter().enumerate() {
            active.offsets.push(offset_after(at, buffer.len()));
            encode_frame(active.epoch, self.next_lsn.plus(to_u64(index)), *kind, payload, buffer);
        }
        let crc = encode_mark(&header, start, buffer);
        buffer.resize(buffer.len().next_multiple_of(to_usize(PAGE_BYTES)), 0);

        let mut outcome = active.file.disk.write_at(at, buffer);
        if outcome.is_ok() && !self.pool.options.skip_flush() {
            self.flushes += 1;
            outcome = active.file.disk.sync_data();
        }
        if let Err(source) = outcome {
            active.offsets.truncate(held);
            self.poisoned = true;
            return Err(active.file.failed("write a commit to the journal segment", source));
        }
        active.header_pending = false;
        active.last_page = header.page;
        active.next_page = header.page.saturating_add(header.pages());
        self.next_lsn = header.next_lsn();
        self.previous = Link { page: header.page, crc };
        self.marked = frames.is_empty();
        Ok(())
    }

    /// Frees the segments of which every frame lies before `lsn`, and returns how many. The segment that is
    /// being written stays. Files are re-used, or deleted if enough are free.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    ///
    /// # Durability
    /// If segments were freed, that they are is on stable storage before any of them is re-used or deleted.
    pub fn recycle_before(&mut self, lsn: Lsn) -> Result<usize, JournalError> {
        self.usable()?;
        let keep_from = lsn.min(self.next_lsn).max(self.keep_from);
        let starts = self.live.iter().skip(1).map(|segment| segment.first_lsn);
        let mut count = starts.take_while(|first| *first <= keep_from).count();
        if self.roll && keep_from == self.next_lsn {
            count = self.live.len();
        }
        self.keep_from = keep_from;
        if count == 0 {
            return Ok(0);
        }
        self.write_mark()?;
        for segment in self.live.drain(..count) {
            self.pool.give_back(segment.file, segment.damaged);
        }
        let first = self.first_lsn();
        self.healed.retain(|lsn, _| *lsn >= first);
        Ok(count)
    }

    /// Makes spare segments ahead of need, so that neither the next roll-over nor the reserve has to wait for
    /// zeros to be written. To be called when the owner is idle. Returns how many were made.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn prepare(&mut self) -> Result<usize, JournalError> {
        self.usable()?;
        let made = self.pool.prepare();
        if made.as_ref().is_err_and(|error| !error.is_full()) {
            self.poisoned = true;
        }
        made
    }

    /// Reads frames in order, from `from` on. Yields [`JournalError::NotHeld`] if that frame was recycled, and
    /// [`JournalError::Lost`] once for each run of frames that were lost to rot.
    #[must_use]
    pub fn replay(&self, from: Lsn) -> Replay<'_> {
        Replay::new(self, from)
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] if it was recycled or is not written yet, [`JournalError::Lost`] if it was lost
    /// to rot before the journal was opened, [`JournalError::Corrupt`] if since then.
    pub fn read(&self, lsn: Lsn) -> Result<Frame, JournalError> {
        match self.locate(lsn)? {
            (_, 0) => self.healed(lsn),
            (segment, offset) => segment.read(lsn, offset),
        }
    }

    /// Finds the segment that a frame belongs to and where in it the frame begins, 0 if it cannot be read.
    pub(crate) fn locate(&self, lsn: Lsn) -> Result<(&Segment, u32), JournalError> {
        self.usable()?;
        let (first, next) = (self.first_lsn(), self.next_lsn);
        let index = self.live.partition_point(|segment| segment.first_lsn <= lsn);
        let segment = index.checked_sub(1).and_then(|index| self.live.get(index));
        match segment {
            Some(segment) if lsn < next => Ok((segment, segment.offset_of(lsn).unwrap_or(0))),
            _ => Err(JournalError::NotHeld { lsn, first, next }),
        }
    }

    /// Returns the corrected frame, or the run of lost frames that it belongs to.
    pub(crate) fn healed(&self, lsn: Lsn) -> Result<Frame, JournalError> {
        if let Some(frame) = self.healed.get(&lsn) {
            return Ok(frame.clone());
        }
        // The runs that opening noted, not a walk: what a damaged header claims to be lost can be any number.
        let after = self.lost.partition_point(|run| *run.start() <= lsn);
        let run = after.checked_sub(1).and_then(|at| self.lost.get(at)).filter(|run| run.contains(&lsn));
        let (first, last) = run.map_or((lsn, lsn), |run| (*run.start(), *run.end()));
        let first = first.max(self.first_lsn());
        Err(JournalError::Lost { first, last })
    }

    /// Returns the first frame held; equal to [`Journal::next_lsn`] if none is.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.live.front().map_or(self.next_lsn, |segment| segment.first_lsn)
    }

    /// Returns the sequence number that the next frame will have.
    #[must_use]
    pub const fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Returns where each live segment begins and ends, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = SegmentBounds> + '_ {
        self.live.iter().map(Segment::bounds)
    }

    /// Returns the bytes of all segment files, free ones and the reserve included.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        let live = self.live.iter().map(|segment| u64::from(segment.file.bytes));
        live.chain(self.pool.free.iter().map(|file| u64::from(file.bytes))).sum()
    }

    /// Returns how many device flushes commits and marks through this handle have asked for.
    #[must_use]
    pub const fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Returns the bytes that a commit can have at most: its frames, [`FRAME_HEADER_BYTES`] for each, and
    /// [`COMMIT_OVERHEAD_BYTES`] once.
    #[must_use]
    pub fn commit_bytes_max(&self) -> u32 {
        commit_bytes_max(self.pool.options.segment_bytes)
    }

    /// Returns how many segments of the reserve are there, which falls short after the disk was full.
    #[must_use]
    pub fn reserve_ready(&self) -> usize {
        self.pool.free.len().min(self.pool.options.reserve_segments)
    }

    /// Returns the bytes that reserved commits may still take when the disk has no room left at all, in commits of
    /// one page.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        let active = self.live.back().filter(|_| !self.roll).map_or(0, Segment::pages_left);
        let free = self.pool.free.iter().map(|file| u64::from(commit_bytes_max(file.bytes)));
        u64::from(active) * u64::from(PAGE_BYTES) + free.sum::<u64>()
    }

    /// Returns how large the journal's file system is and how much of it is free, if anybody can tell.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        self.pool.disk.room(&self.pool.dir).ok()
    }

    /// Returns true if a write or flush has failed and the journal must be opened again.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    pub(crate) fn usable(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned) } else { Ok(()) }
    }
}
