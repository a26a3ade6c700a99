//! The free segment files: pre-zeroed spares and recycled ones, and the making of new ones.
//!
//! **Invariants**
//! - A file gets its final name only once all its zeros are durable, so a half-made one is never used.
//! - A free file holds no frame that is needed: that it is free was durable before it came here.
//!
//! Zeros are really written. Space that is merely reserved (`fallocate`) makes the file system convert extents
//! at the first write of each page, which costs every commit a second device flush.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::is_no_room;
use crate::layout::to_usize;
use crate::segment::{SegmentFile, file_name};
use crate::{JournalError, Options};

/// How a file is called while it is being made.
pub(crate) const UNFINISHED_SUFFIX: &str = ".new";

/// Bytes of zeros written at once.
const ZEROS_BYTES: u32 = 256 * 1024;

pub(crate) struct Pool {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) free: VecDeque<SegmentFile>,
    pub(crate) next_slot: u64,
}

impl Pool {
    /// Returns a free file: recycled, spare or new. The reserve is used only if allowed to.
    pub(crate) fn take(&mut self, use_reserve: bool) -> Result<SegmentFile, JournalError> {
        let spend = use_reserve || self.options.spend_reserve();
        let held_back = if spend { 0 } else { self.options.reserve_segments };
        if self.free.len() > held_back
            && let Some(file) = self.free.pop_front()
        {
            return Ok(file);
        }
        self.make()
    }

    /// Makes files until there are as many free as the reserve and one more. Returns how many were made.
    pub(crate) fn prepare(&mut self) -> Result<usize, JournalError> {
        let mut made = 0;
        while self.free.len() <= self.options.reserve_segments {
            let file = self.make()?;
            self.free.push_back(file);
            made += 1;
        }
        Ok(made)
    }

    /// Makes files until the reserve is whole.
    pub(crate) fn complete_reserve(&mut self) -> Result<(), JournalError> {
        while self.free.len() < self.options.reserve_segments && !self.options.spend_reserve() {
            let file = self.make()?;
            self.free.push_back(file);
        }
        Ok(())
    }

    /// Keeps a file for re-use, or deletes it if there are enough or if it has another size.
    pub(crate) fn give_back(&mut self, file: SegmentFile, damaged: bool) {
        let enough =
            self.free.len() >= self.options.free_segments_max.saturating_add(self.options.reserve_segments);
        if !enough && !damaged && file.bytes == self.options.segment_bytes {
            self.free.push_back(file);
            return;
        }
        if let Err(error) = self.disk.remove(&file.path) {
            log::warn!(error:% = error, segment = file.name(); "could not delete a free journal segment");
        }
    }

    /// Writes zeros over all free files.
    pub(crate) fn wipe(&self) -> Result<(), JournalError> {
        let wiped = |file: &SegmentFile| {
            write_zeros(&*file.disk, file.bytes)
                .map_err(|source| file.failed("write zeros over the free journal segment", source))
        };
        self.free.iter().try_for_each(wiped)
    }

    /// Creates one file of zeros. If there is no room, nothing is left behind.
    fn make(&mut self) -> Result<SegmentFile, JournalError> {
        let segment_bytes = self.options.segment_bytes;
        // Zeros that find no room in the end would fill the disk for everybody meanwhile.
        if self.disk.room(&self.dir).is_ok_and(|room| room.free_bytes < segment_bytes.into()) {
            return Err(JournalError::Full { segment_bytes, source: io::ErrorKind::StorageFull.into() });
        }
        let slot = self.next_slot;
        let path = self.dir.join(file_name(slot));
        let unfinished = self.dir.join(format!("{}{UNFINISHED_SUFFIX}", file_name(slot)));
        match self.write_zeros(&unfinished, &path) {
            Ok(disk) => {
                self.next_slot = slot.saturating_add(1);
                Ok(SegmentFile { slot, path, bytes: segment_bytes, disk })
            }
            Err(source) => {
                // Best effort: what remains is removed when the journal is next opened.
                let _ = self.disk.remove(&unfinished);
                let _ = self.disk.remove(&path);
                if is_no_room(&source) {
                    return Err(JournalError::Full { segment_bytes, source });
                }
                Err(JournalError::Io { doing: "create the journal segment", path, source })
            }
        }
    }

    fn write_zeros(
        &self,
        unfinished: &std::path::Path,
        path: &std::path::Path,
    ) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.create(unfinished)?;
        write_zeros(&*file, self.options.segment_bytes)?;
        self.disk.rename(unfinished, path)?;
        if !self.options.skip_directory_flush() {
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(file)
    }
}

fn write_zeros(file: &dyn DiskFile, total: u32) -> io::Result<()> {
    let zeros = vec![0; to_usize(ZEROS_BYTES.min(total))];
    let mut at = 0;
    while at < total {
        let piece = ZEROS_BYTES.min(total - at);
        file.write_at(at.into(), zeros.get(..to_usize(piece)).unwrap_or_default())?;
        at += piece;
    }
    file.sync_data()
}
