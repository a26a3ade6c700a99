//! Overwriting: what was recycled is gone from the journal's files, for whoever has the disk.
//!
//! **Invariant**: only free files are overwritten, and that they are free was durable before.

use crate::{Journal, JournalError};

impl Journal {
    /// Has the next commit begin a new segment, so that everything before it can be recycled.
    pub fn turn(&mut self) {
        self.roll = !self.live.is_empty();
    }

    /// Writes zeros over all free segments: what was recycled cannot be read in them any more.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    ///
    /// # Durability
    /// The zeros are on stable storage when this returns. What a file system or a flash chip keeps of what lay there
    /// before is not reached.
    pub fn wipe_free(&mut self) -> Result<(), JournalError> {
        self.usable()?;
        let wiped = self.pool.wipe();
        self.poisoned = wiped.is_err();
        wiped
    }
}
