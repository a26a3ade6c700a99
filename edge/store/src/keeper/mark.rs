//! Marks: a point of all logs where everything is sealed, with the digests there. A restore proof compares with it.
//!
//! **Invariant**: heads and digests of a mark belong together: each head ends the last batch of what the digests add
//! up, and nothing more is in them.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::digest::Digest;
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::vector::{Heads, LogHead};

use super::Keeper;
use crate::store::WriteError;

/// A point of all logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// The head of every log that is not empty. Own heads may still wait for their receipts.
    pub heads: Heads,
    /// The state digest of each tier there.
    pub digests: BTreeMap<Tier, Digest>,
    /// Whose logs this replica writes or wrote.
    pub own: BTreeSet<Incarnation>,
    /// Version of the manifest of recipients that is held.
    pub manifest_version: u64,
}

impl Keeper {
    /// Answers those who asked for a mark. Between rounds: nothing is staged, so the fold is what is kept.
    pub(super) fn answer_marks(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        self.seal_due(true);
        let mark = self.mark();
        for reply in std::mem::take(&mut self.marks) {
            let _ = reply.send(mark.clone());
        }
    }

    fn mark(&self) -> Result<Mark, WriteError> {
        if self.failed.is_some() {
            return Err(WriteError::Failed);
        }
        // A mark says what a rebuild must find: of a tier that is being filled nobody knows that here.
        Tier::ALL.into_iter().try_for_each(|tier| self.shared.filling.check(tier))?;
        let mut heads = Heads::new();
        for (log, sequence) in self.fold.sequences.iter().filter(|(_, sequence)| **sequence > 0) {
            let head = self.sealed_head(*log, *sequence);
            if head.sequence != *sequence {
                let reason =
                    format!("log {log} is sealed up to change {}, not up to {sequence}", head.sequence);
                return Err(WriteError::Refused { reason });
            }
            heads.insert(*log, head);
        }
        Ok(Mark {
            heads,
            digests: self.fold.digests.clone(),
            own: self.own.clone(),
            manifest_version: self.keyring.manifest().version,
        })
    }

    /// The head of what is sealed, durable or not yet, up to what counts.
    fn sealed_head(&self, log: LogName, applied: u64) -> LogHead {
        let newest = self.sealed.iter().rev().find(|batch| batch.header().log == log);
        newest.map_or_else(|| self.index.head_at(log, applied), |batch| batch.header().head())
    }
}
