//! What one pass over the journal finds.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use sonae_journal::{Frame, Journal, Lsn};
use sonae_proto::batch::Batch;
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::uplink::Shown;
use sonae_proto::wire::KeyDocuments;

use crate::batches::BatchIndex;
use crate::frame::{
    self, ChangeFrame, Checkpoint, LossFrame, ReceiptFrame, SafeHead, StoredIdentity, from_json,
};
use crate::identity::ReplicaKeys;
use crate::store::{Open, StoreError};

/// What one pass over the journal finds.
#[derive(Default)]
pub(super) struct Found {
    pub checkpoint: Option<(Lsn, Checkpoint)>,
    pub safe: BTreeMap<LogName, SafeHead>,
    pub loss_counter: u64,
    pub shown: Option<Shown>,
    pub identities: BTreeMap<Incarnation, StoredIdentity>,
    pub own: BTreeSet<Incarnation>,
    pub documents: Option<KeyDocuments>,
    pub kept_ms: BTreeMap<Tier, u64>,
    /// For each log the first change that the journal holds.
    pub first_changes: BTreeMap<LogName, u64>,
}

impl Found {
    /// The key that an incarnation signs with, if that is known here.
    pub fn writer(&self, name: Incarnation, keys: &ReplicaKeys) -> Option<VerifyingKey> {
        if name == keys.name() {
            return Some(*keys.identity.key());
        }
        let identity = self.identities.get(&name)?.verify(&keys.board, keys.school).ok()?;
        Some(*identity.key())
    }
}

pub(super) fn read_journal(
    journal: &Journal,
    index: &mut BatchIndex,
    open: &Open,
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for frame in journal.replay(journal.first_lsn()) {
        let frame = frame?;
        read_frame(&frame, index, &mut found, open)?;
    }
    Ok(found)
}

fn read_frame(
    frame: &Frame,
    index: &mut BatchIndex,
    found: &mut Found,
    open: &Open,
) -> Result<(), StoreError> {
    let payload = frame.payload.as_slice();
    match frame.kind {
        frame::SEALED | frame::PEER => {
            let batch = Batch::from_bytes(payload.to_vec())?;
            index.recovered(&batch, frame.lsn)?;
        }
        frame::CHANGE => {
            let change = ChangeFrame::from_bytes(payload)?;
            found.kept_ms.insert(change.log.tier, change.kept_ms);
            found.first_changes.entry(change.log).or_insert(change.sequence);
        }
        frame::RECEIPT => {
            let receipt: ReceiptFrame = from_json("receipt", payload)?;
            found.safe.insert(receipt.log, receipt.safe);
        }
        frame::LOSS => {
            let loss: LossFrame = from_json("loss", payload)?;
            found.loss_counter = loss.loss_counter;
            let now_ms = open.clock.now_ms();
            let at_ms = |log: &LogName| found.safe.get(log).map_or(now_ms, |safe| safe.at_ms);
            let safe =
                loss.receipted.iter().map(|(log, head)| (*log, SafeHead { head: *head, at_ms: at_ms(log) }));
            found.safe = safe.collect();
        }
        frame::SHOWN => found.shown = Some(from_json("what the cloud has said", payload)?),
        frame::IDENTITY => {
            let text: StoredIdentity = from_json("identity", payload)?;
            if let Ok(identity) = text.verify(&open.keys.board, open.keys.school) {
                found.identities.insert(identity.name(), text);
            }
        }
        frame::DOCUMENTS => found.documents = Some(from_json("key documents", payload)?),
        frame::CHECKPOINT => {
            let checkpoint: Checkpoint = from_json("checkpoint", payload)?;
            found.safe.clone_from(&checkpoint.safe);
            found.loss_counter = checkpoint.loss_counter;
            found.shown.clone_from(&checkpoint.shown);
            found.own.extend(&checkpoint.own);
            found.kept_ms.clone_from(&checkpoint.kept_ms);
            found.documents = Some(checkpoint.documents.clone());
            for text in &checkpoint.identities {
                if let Ok(identity) = text.verify(&open.keys.board, open.keys.school) {
                    found.identities.insert(identity.name(), text.clone());
                }
            }
            found.checkpoint = Some((frame.lsn, checkpoint));
        }
        // Foundations were looked for before.
        frame::FOUNDATION => {}
        kind if kind < frame::NOT_NEEDED_FROM => return Err(StoreError::LaterVersion { kind: kind.0 }),
        kind => log::warn!(kind = kind.0; "a journal frame of a later version is passed over"),
    }
    Ok(())
}

/// Checks that batches and journal hold every change that the last checkpoint counts: an archive that has rotted
/// must not pass for a shorter one.
pub(super) fn no_hole(found: &Found, index: &BatchIndex) -> Result<(), StoreError> {
    let Some((_, checkpoint)) = &found.checkpoint else { return Ok(()) };
    for (log, sequence) in &checkpoint.sequences {
        let batched = index.head(*log).sequence;
        let goes_on = found.first_changes.get(log).is_some_and(|first| *first <= batched.saturating_add(1));
        if batched < *sequence && !goes_on {
            return Err(StoreError::Hole { log: *log, after: batched });
        }
    }
    Ok(())
}
