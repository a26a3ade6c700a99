//! Salvage: what can still be read of a store whose journal or archive has rotted, so that it can be carried into a
//! new one. Reads only; nothing is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sonae_journal::{Disk, Frame, Journal, JournalError, Options};
use sonae_proto::batch::{Batch, BatchHeader, PREFIX_BYTES};
use sonae_proto::bytes::Reader;
use sonae_proto::ids::{Incarnation, LogName};
use sonae_proto::vector::Sequences;
use sonae_proto::wire::KeyDocuments;

use crate::frame::{self, ChangeFrame, Checkpoint, from_json};
use crate::store::StoreError;

/// What could be read.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Incarnations whose logs this store wrote.
    pub own: BTreeSet<Incarnation>,
    /// Lines of own logs that are still in the journal, by sequence.
    pub lines: BTreeMap<LogName, BTreeMap<u64, Vec<u8>>>,
    /// Batches of own logs, by their first sequence.
    pub batches: BTreeMap<LogName, BTreeMap<u64, Batch>>,
    /// How far own logs reached at least.
    pub reached: Sequences,
    /// The newest key documents that were kept.
    pub documents: Option<KeyDocuments>,
    /// Journal frames that are lost.
    pub lost_frames: u64,
}

/// Reads what it can from a journal and an archive.
///
/// # Errors
/// [`StoreError::Journal`] when the system refuses; rot is no error.
pub fn read(
    journal: &Path,
    archive: &Path,
    present: Incarnation,
    disk: Arc<dyn Disk>,
) -> Result<Salvaged, StoreError> {
    let options = Options { salvage: true, ..Options::default() };
    let (journal, _) = Journal::open(disk, journal, options)?;
    let mut salvaged = Salvaged { own: BTreeSet::from([present]), ..Salvaged::default() };
    let mut batches = Vec::new();
    for frame in journal.replay(journal.first_lsn()) {
        match frame {
            Ok(frame) => salvaged.take(&frame, &mut batches),
            Err(JournalError::Lost { first, last }) => {
                salvaged.lost_frames += last.0.saturating_sub(first.0).saturating_add(1);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match fs::read_dir(archive) {
        Ok(entries) => entries.flatten().for_each(|entry| batches.extend(archived(&entry.path()))),
        Err(error) => {
            log::error!(error = error.to_string(); "the archive of sealed batches cannot be listed")
        }
    }
    for batch in batches {
        let header = *batch.header();
        if salvaged.own.contains(&header.log.incarnation) {
            salvaged.reach(header.log, header.last);
            salvaged.batches.entry(header.log).or_default().insert(header.first, batch);
        }
    }
    Ok(salvaged)
}

impl Salvaged {
    fn reach(&mut self, log: LogName, sequence: u64) {
        let reached = self.reached.entry(log).or_default();
        *reached = (*reached).max(sequence);
    }

    /// Takes what a frame says. A frame without meaning to this version is passed over: nothing is decided by it.
    fn take(&mut self, frame: &Frame, batches: &mut Vec<Batch>) {
        match frame.kind {
            frame::CHANGE => {
                if let Ok(change) = ChangeFrame::from_bytes(&frame.payload) {
                    self.own.insert(change.log.incarnation);
                    self.reach(change.log, change.sequence);
                    self.lines.entry(change.log).or_default().insert(change.sequence, change.line.to_vec());
                }
            }
            frame::SEALED => {
                if let Ok(batch) = Batch::from_bytes(frame.payload.clone()) {
                    self.own.insert(batch.header().log.incarnation);
                    batches.push(batch);
                }
            }
            frame::CHECKPOINT => {
                if let Ok(checkpoint) = from_json::<Checkpoint>("checkpoint", &frame.payload) {
                    self.own.extend(&checkpoint.own);
                    for (log, sequence) in &checkpoint.sequences {
                        if self.own.contains(&log.incarnation) {
                            self.reach(*log, *sequence);
                        }
                    }
                    self.documents = Some(checkpoint.documents);
                }
            }
            frame::DOCUMENTS => {
                if let Ok(documents) = from_json("key documents", &frame.payload) {
                    self.documents = Some(documents);
                }
            }
            _ => {}
        }
    }
}

/// Reads the batches of one archive file, up to the first header without meaning: where its batch ends nobody knows.
fn archived(path: &Path) -> Vec<Batch> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            log::error!(error = error.to_string(); "an archive of sealed batches cannot be read");
            return Vec::new();
        }
    };
    let mut batches = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((first, after)) = split_first(rest) {
        // A batch whose payload has rotted hides none of the others.
        batches.extend(Batch::from_bytes(first.to_vec()));
        rest = after;
    }
    if !rest.is_empty() {
        log::warn!(bytes = rest.len(); "the end of an archive of sealed batches cannot be read");
    }
    batches
}

fn split_first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = BatchHeader::from_bytes(&mut Reader::new(bytes.get(..PREFIX_BYTES)?)).ok()?;
    bytes.split_at_checked(PREFIX_BYTES.saturating_add(usize::try_from(header.payload_bytes).ok()?))
}
