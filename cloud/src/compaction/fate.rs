//! What becomes of a record when objects are merged. The one place where anything is left out or put in its stead.
//!
//! **Invariant**: batches, identities and records of later versions are kept, whatever anybody says.

use std::fmt;
use std::sync::Arc;

use sonae_proto::intake::Keeping;
use sonae_proto::object::{Record, RecordKind};

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is copied byte for byte.
    Keep,
    /// It is left out.
    Drop,
    /// This is copied in its stead.
    Replace(Vec<u8>),
}

/// Says what stands in place of a set of key documents; `None` if they stay as they are. Asked about what it has returned
/// itself it must say `None`.
pub type Rewrite = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// What is known about which records are needed.
#[derive(Clone, Default)]
pub struct Judge {
    /// What the engine keeps of snapshots; `None` if the start has shown that something is missing or does not verify,
    /// and so nobody can tell.
    pub keeping: Option<Keeping>,
    /// Replaces key documents; the text of the manifest in them must stay, by which they are known.
    pub keys: Option<Rewrite>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("keeping", &self.keeping).finish_non_exhaustive()
    }
}

impl Judge {
    /// Says what becomes of a record.
    #[must_use]
    pub fn fate(&self, record: &Record<'_>) -> Fate {
        let dropped = |is_dropped: fn(&Keeping, &[u8]) -> bool| {
            let is_dropped = self.keeping.as_ref().is_some_and(|keeping| is_dropped(keeping, record.body));
            if is_dropped { Fate::Drop } else { Fate::Keep }
        };
        match record.kind {
            Some(RecordKind::Snapshot) => dropped(Keeping::is_superseded_root),
            Some(RecordKind::SnapshotPart) => dropped(Keeping::is_superseded_part),
            Some(RecordKind::Keys) => {
                self.keys.as_ref().and_then(|keys| keys(record.body)).map_or(Fate::Keep, Fate::Replace)
            }
            // Evidence is small, and tells for years whether restoring has worked.
            Some(RecordKind::Proof | RecordKind::Batch | RecordKind::Identity | RecordKind::Inputs)
            | None => Fate::Keep,
        }
    }
}
