//! How a store is to be kept, and for its tests the deliberate defects that they must find.

use crate::room::Quota;

/// How a store is to be kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// How its journal is to be kept.
    pub journal: sonae_journal::Options,
    /// Records in the overlay that make a checkpoint due.
    pub overlay_records_max: usize,
    /// Journal segments that make recycling due when there are more.
    pub segments_max: usize,
    /// What each tier may take of the disk.
    pub quota: Quota,
    /// A deliberate defect, with which tests prove that they can fail.
    pub defects: Defects,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            journal: sonae_journal::Options::default(),
            // Four school days.
            overlay_records_max: 4_000,
            // Two that are full and the one being written: recycling frees at least one.
            segments_max: 3,
            quota: Quota::default(),
            defects: Defects::default(),
        }
    }
}

impl Options {
    /// For a store that nobody writes to, a rebuild or a restore proof: no tier needs room that is kept for it, and zeros
    /// on a slow card are seconds.
    #[must_use]
    pub fn without_reserve() -> Self {
        let mut options = Self::default();
        options.journal.reserve_segments = 0;
        options
    }
}

/// A deliberate defect that the tests must catch. The product has none to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Defects {
    /// No defect.
    #[default]
    None,
    /// Writes are answered before their commit.
    #[cfg(feature = "testing")]
    AnswerBeforeCommit,
    /// Sealed batches are told to the uplink before their commit.
    #[cfg(feature = "testing")]
    ToldBeforeCommit,
    /// Batches leave the journal before their archive is flushed.
    #[cfg(feature = "testing")]
    ArchiveUnflushed,
    /// The name of a new archive is never flushed.
    #[cfg(feature = "testing")]
    ArchiveNameUnflushed,
    /// After a failed write the archive goes on behind what that left.
    #[cfg(feature = "testing")]
    ArchiveAfterRest,
    /// A batch in the archive is trusted for its length.
    #[cfg(feature = "testing")]
    ArchiveUnread,
    /// The view is trusted whatever checkpoint it holds.
    #[cfg(feature = "testing")]
    AnyCheckpoint,
    /// Changes whose batch has found no room leave the journal.
    #[cfg(feature = "testing")]
    RecycleUnkeptBatches,
    /// An import replaces whatever stands.
    #[cfg(feature = "testing")]
    ImportTwoWay,
}

/// Tells which defect is planted: one method for each, always false in the product.
macro_rules! defects {
    ($($method:ident => $variant:ident),* $(,)?) => {
        impl Defects {
            $(
                #[cfg(feature = "testing")]
                pub(crate) fn $method(self) -> bool {
                    self == Self::$variant
                }
                #[cfg(not(feature = "testing"))]
                pub(crate) const fn $method(self) -> bool {
                    let Self::None = self;
                    false
                }
            )*
        }
    };
}

defects! {
    answer_before_commit => AnswerBeforeCommit,
    told_before_commit => ToldBeforeCommit,
    archive_unflushed => ArchiveUnflushed,
    archive_name_unflushed => ArchiveNameUnflushed,
    archive_after_rest => ArchiveAfterRest,
    archive_unread => ArchiveUnread,
    any_checkpoint => AnyCheckpoint,
    recycle_unkept_batches => RecycleUnkeptBatches,
    import_two_way => ImportTwoWay,
}
