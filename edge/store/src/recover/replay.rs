//! Applying what is held: bases, batches, and the journal's frames behind a checkpoint.

use sonae_journal::{Frame, Journal, Lsn};
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::ids::LogName;
use sonae_proto::view::{Applied, Fold, FoldError};

use super::Revoked;
use crate::batches::BatchIndex;
use crate::frame::{self, ChangeFrame};
use crate::keeper::apply_batch;
use crate::keyring::Keyring;
use crate::store::StoreError;
use crate::view::Staged;

/// What is applied from, and what it adds up to.
pub(super) struct Replay<'a> {
    pub journal: &'a Journal,
    pub index: &'a BatchIndex,
    pub keyring: &'a Keyring,
    pub revoked: &'a Revoked,
    pub fold: Fold,
    pub replayed: u64,
}

impl Replay<'_> {
    /// Applies all held batches of all logs, tier 0 first.
    pub fn batches(&mut self, staged: &mut Staged<'_>) -> Result<(), StoreError> {
        let logs: Vec<LogName> = self.index.logs().collect();
        for log in logs {
            let headers: Vec<BatchHeader> = self.index.headers(log).collect();
            for header in headers.iter().take_while(|header| self.revoked.counts(header)) {
                let Some(batch) = self.index.read(self.journal, log, header.first)? else { continue };
                self.replayed += apply_batch(&mut self.fold, staged, self.keyring, &batch)?.changed;
            }
        }
        Ok(())
    }

    /// Applies changes and peers' batches from a frame on. What a batch has brought already is passed over.
    pub fn frames(&mut self, staged: &mut Staged<'_>, from: Lsn, rebuilt: bool) -> Result<(), StoreError> {
        for frame in self.journal.replay(from.max(self.journal.first_lsn())) {
            let frame = frame?;
            match frame.kind {
                frame::CHANGE => self.change(staged, &frame)?,
                frame::PEER if !rebuilt => {
                    let batch = Batch::from_bytes(frame.payload)?;
                    if !self.revoked.counts(batch.header()) {
                        continue;
                    }
                    self.replayed += apply_batch(&mut self.fold, staged, self.keyring, &batch)?.changed;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn change(&mut self, staged: &mut Staged<'_>, frame: &Frame) -> Result<(), StoreError> {
        let change = ChangeFrame::from_bytes(&frame.payload)?;
        match self.fold.apply(staged, change.log, change.sequence, change.line) {
            Ok(Applied::Changed(_)) => self.replayed += 1,
            Ok(Applied::Duplicate | Applied::Erased | Applied::Unreadable) => {}
            Err(FoldError::Gap { expected, .. }) => {
                return Err(StoreError::Hole { log: change.log, after: expected.saturating_sub(1) });
            }
            Err(FoldError::Store(error)) => return Err(error.into()),
        }
        Ok(())
    }
}
