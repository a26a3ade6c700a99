//! Reads the journal in order, one segment in memory at a time.

use crate::journal::Journal;
use crate::layout::to_usize;
use crate::{Frame, JournalError, Lsn};

/// Frames in order. A run of lost frames, which only a salvaged journal has, is one error, after which the
/// iterator goes on behind it; any other error ends it.
pub struct Replay<'a> {
    journal: &'a Journal,
    next: Lsn,
    /// The epoch of the segment in `bytes`, 0 for none.
    epoch: u64,
    bytes: Vec<u8>,
    ended: bool,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(journal: &'a Journal, from: Lsn) -> Self {
        Self { journal, next: from, epoch: 0, bytes: Vec::new(), ended: false }
    }

    fn load(&mut self) -> Result<Frame, JournalError> {
        let (segment, offset) = self.journal.locate(self.next)?;
        if offset == 0 {
            return self.journal.healed(self.next);
        }
        if self.epoch != segment.epoch {
            self.epoch = 0;
            self.bytes.resize(to_usize(segment.file.bytes), 0);
            if segment.file.disk.read_at(0, &mut self.bytes).is_err() {
                // One unreadable sector must not hide the rest of the segment.
                return segment.read(self.next, offset);
            }
            self.epoch = segment.epoch;
        }
        segment.frame_in(self.bytes.get(to_usize(offset)..).unwrap_or_default(), self.next, offset)
    }
}

impl Iterator for Replay<'_> {
    type Item = Result<Frame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.next == self.journal.next_lsn() {
            return None;
        }
        let result = self.load();
        match &result {
            Ok(frame) => self.next = frame.lsn.plus(1),
            Err(JournalError::Lost { last, .. }) => self.next = last.plus(1),
            Err(_) => self.ended = true,
        }
        Some(result)
    }
}
