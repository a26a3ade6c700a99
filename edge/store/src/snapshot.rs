//! Making a snapshot of a tier: the view on disk is held still, read page by page, cut, sealed and put on the shelf.
//! Writers go on meanwhile.
//!
//! **Invariant**: a snapshot is signed only if what was read adds up to the digest that the keeper has kept of that
//! state: a view that is not the fold of its journal is found here, and never spread.
//! **Invariant**: a part whose lines were sealed before, to the same key, is used again: its bytes travel once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sonae_proto::digest::MERGE_VERSION;
use sonae_proto::ids::{Hash32, Incarnation, Tier};
use sonae_proto::snapshot::{PartCutter, PartName, RecordError, Snapshot, SnapshotRoot, Sum, seal_part};
use tokio::sync::oneshot;

use crate::keeper::{Late, Pinned, Request};
use crate::shelf::Shelf;
use crate::store::{Store, WriteError};
use crate::view_db::ViewError;

/// Bytes of own batches without which no snapshot is made: what they add to a rebuild is a second on the worst line.
const GROWTH_BYTES_MIN: u64 = 32 * 1024;

/// A snapshot is due when own batches have grown by this part of it: a rebuild fetches at most so much more.
const GROWTH_PARTS: u64 = 8;

/// Records that are read at a time, so that writers wait for at most so many.
const PAGE_RECORDS: usize = 500;

/// How often sealing is tried before the tier counts as too busy.
const PIN_TRIES: usize = 5;

/// Why no snapshot was made. The next one is made anew.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFailure {
    /// Changes come too fast, there is no room, or nothing to make one of.
    #[error("a snapshot of tier {tier} has to wait")]
    Later {
        /// Of which tier.
        tier: Tier,
    },
    /// The store is gone.
    #[error(transparent)]
    Store(#[from] WriteError),
    /// The view cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A record cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The shelf cannot be written.
    #[error("a snapshot cannot be put on its shelf")]
    Shelf(#[from] std::io::Error),
    /// What was read is not the state that the keeper knows.
    #[error("the view of tier {tier} on disk is not what was kept; restart the box, which rebuilds it")]
    Differs {
        /// Of which tier.
        tier: Tier,
    },
    /// It is over the limits of a snapshot.
    #[error("the state of tier {tier} is too large for a snapshot")]
    TooLarge {
        /// Of which tier.
        tier: Tier,
    },
}

/// What is remembered of the newest snapshot of a tier that was made here. Losing it costs bytes, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Hash of its root.
    pub root: Hash32,
    /// Bytes of its parts.
    pub bytes: u64,
    /// Whether the cloud has had it at the quorum.
    safe: bool,
    /// The loss counter under which it said so.
    #[serde(default)]
    loss_counter: u64,
    own_bytes: u64,
    recipient: String,
    /// For each part the hash of its lines, in order.
    lines: Vec<Hash32>,
}

impl Made {
    fn name(tier: Tier) -> String {
        format!("made-{tier}.json")
    }

    /// Reads what is remembered.
    #[must_use]
    pub fn read(shelf: &Shelf, tier: Tier) -> Option<Self> {
        serde_json::from_slice(&shelf.note(&Self::name(tier))?).ok()
    }

    /// Forgets a snapshot that cannot be read here any more, so that the next one is made anew.
    pub(crate) fn forget(shelf: &Shelf, tier: Tier, root: Hash32) {
        if Self::read(shelf, tier).is_some_and(|made| made.root == root) {
            shelf.remove_note(&Self::name(tier));
        }
    }

    fn write(&self, shelf: &Shelf, tier: Tier) -> std::io::Result<()> {
        shelf.put_note(&Self::name(tier), &serde_json::to_vec(self)?)
    }

    /// Whether the cloud has it at the quorum, as far as is known: after a loss it has to say so again.
    #[must_use]
    pub const fn is_safe(&self, loss_counter: u64) -> bool {
        self.safe && self.loss_counter == loss_counter
    }

    /// Own batches were pruned: those that are left have grown by as much as before.
    pub(crate) fn pruned(shelf: &Shelf, tier: Tier, bytes: u64) {
        if let Some(mut made) = Self::read(shelf, tier) {
            made.own_bytes = made.own_bytes.saturating_sub(bytes);
            if let Err(error) = made.write(shelf, tier) {
                log::warn!(error = error.to_string(); "a snapshot is made earlier than it is due");
            }
        }
    }

    /// Returns by how much own batches have grown since. Fewer than it remembers: a new incarnation writes here now.
    #[must_use]
    pub fn grown(&self, own_bytes: u64) -> u64 {
        own_bytes.checked_sub(self.own_bytes).unwrap_or(own_bytes)
    }

    /// Whether another is due when own batches have `own_bytes`.
    #[must_use]
    pub fn is_due(made: Option<&Self>, own_bytes: u64) -> bool {
        let (grown, bytes) = made.map_or((own_bytes, 0), |made| (made.grown(own_bytes), made.bytes));
        grown >= GROWTH_BYTES_MIN.max(bytes / GROWTH_PARTS)
    }
}

impl Store {
    /// Returns the shelf of snapshots.
    #[must_use]
    pub fn shelf(&self) -> &Shelf {
        &self.shared.shelf
    }

    /// Begins a tier of which nothing is held with a snapshot that is on the shelf whole, and whose root was verified
    /// before it was put there.
    ///
    /// # Errors
    /// [`crate::StoreError`]; nothing has changed for readers then.
    ///
    /// # Durability
    /// The tier is on stable storage when this returns.
    pub async fn load_snapshot(&self, root: Hash32) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let load = Late::Load { root, reply };
        self.send(Request::Late(load)).map_err(|error| error.to_string())?;
        let outcome = answer.await.map_err(|_| WriteError::Failed.to_string())?;
        outcome.map_err(|error| error.to_string())
    }

    /// Notes that the cloud has a snapshot, and forgets older ones.
    pub fn snapshot_safe(&self, tier: Tier, root: Hash32) {
        if let Some(mut made) = Made::read(self.shelf(), tier)
            && made.root == root
        {
            (made.safe, made.loss_counter) = (true, self.state().loss_counter);
            if let Err(error) = made.write(self.shelf(), tier) {
                log::warn!(error = error.to_string(); "a snapshot's receipt is not noted; it is offered again");
            }
        }
        let _ = self.send(Request::Late(Late::Tidy));
    }

    /// Makes a snapshot of a tier. For a thread that may be busy for a while: seconds for a year of a school.
    ///
    /// # Errors
    /// [`SnapshotFailure`].
    ///
    /// # Durability
    /// It is on the shelf, on stable storage, when this returns.
    pub fn make_snapshot_blocking(&self, tier: Tier) -> Result<Snapshot, SnapshotFailure> {
        let pinned = self.pin(tier)?;
        let mut parts = Parts::new(self.shelf(), tier, &pinned.recipient);
        let made = self.make_pinned(tier, &pinned, &mut parts);
        if made.is_err() {
            parts.forget();
        }
        if matches!(made, Err(SnapshotFailure::Differs { .. })) {
            let _ = self.send(Request::Late(Late::Distrust));
        }
        // Until here nothing is tidied away.
        let _ = self.send(Request::Late(Late::Unpin));
        made
    }

    fn make_pinned(
        &self,
        tier: Tier,
        pinned: &Pinned,
        parts: &mut Parts<'_>,
    ) -> Result<Snapshot, SnapshotFailure> {
        let records = self.collect(tier, pinned, parts)?;
        let root = SnapshotRoot {
            school: self.school(),
            tier,
            // The keeper, who signs, puts its own name.
            author: Incarnation::from_bytes([0; 16]),
            epoch: pinned.epoch,
            manifest: pinned.manifest,
            merge_version: MERGE_VERSION,
            heads: pinned.heads.clone(),
            digest: pinned.digest,
            records,
            parts: parts.names.clone(),
        };
        let (bytes, too_large) = (root.bytes(), SnapshotFailure::TooLarge { tier });
        let (reply, answer) = oneshot::channel();
        self.send(Request::Late(Late::Sign { root: Box::new(root), reply }))?;
        let signed = answer.blocking_recv().map_err(|_| WriteError::Failed)?;
        let snapshot = signed.ok_or(too_large)?;
        self.shelf().put_root(&snapshot)?;
        self.shelf().settle()?;
        let made = Made {
            root: snapshot.hash(),
            bytes,
            safe: false,
            loss_counter: 0,
            own_bytes: pinned.own_bytes,
            recipient: pinned.recipient.clone(),
            lines: parts.lines.clone(),
        };
        made.write(self.shelf(), tier)?;
        Ok(snapshot)
    }

    fn pin(&self, tier: Tier) -> Result<Pinned, SnapshotFailure> {
        for _ in 0..PIN_TRIES {
            let (sealed, answer) = oneshot::channel();
            self.send(Request::SealNow { reply: sealed })?;
            answer.blocking_recv().map_err(|_| WriteError::Failed)?;
            let (reply, answer) = oneshot::channel();
            self.send(Request::Late(Late::Pin { tier, reply }))?;
            if let Some(pinned) = answer.blocking_recv().map_err(|_| WriteError::Failed)? {
                return Ok(pinned);
            }
        }
        Err(SnapshotFailure::Later { tier })
    }

    /// Reads the pinned view into sealed parts on the shelf. Returns the number of records.
    fn collect(&self, tier: Tier, pinned: &Pinned, parts: &mut Parts<'_>) -> Result<u64, SnapshotFailure> {
        let mut sum = Sum::new(self.digest_key()?);
        let (mut cutter, mut records, mut after) = (PartCutter::default(), 0, None);
        loop {
            let page = self.read(|view| view.page(tier, after.as_ref(), PAGE_RECORDS))?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (_, record) in &page {
                sum.add(record);
                records += 1;
                if let Some(lines) = cutter.push(record)? {
                    parts.put(&lines)?;
                }
            }
        }
        if let Some(lines) = cutter.finish() {
            parts.put(&lines)?;
        }
        if sum.digest() == pinned.digest { Ok(records) } else { Err(SnapshotFailure::Differs { tier }) }
    }

    pub(crate) fn digest_key(&self) -> Result<sonae_proto::digest::DigestKey, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Late(Late::DigestKey { reply }))?;
        answer.blocking_recv().map_err(|_| WriteError::Failed)
    }
}

/// Parts of one snapshot, and those of the one before that may be used again.
struct Parts<'a> {
    shelf: &'a Shelf,
    recipient: &'a str,
    before: BTreeMap<Hash32, PartName>,
    names: Vec<PartName>,
    lines: Vec<Hash32>,
    /// Those that were not there before.
    fresh: Vec<PartName>,
}

impl<'a> Parts<'a> {
    fn new(shelf: &'a Shelf, tier: Tier, recipient: &'a str) -> Self {
        let made = Made::read(shelf, tier).filter(|made| made.recipient == recipient);
        let root = made.as_ref().and_then(|made| shelf.root(made.root));
        let names = root.map(|root| root.parts).unwrap_or_default();
        let before = made.map(|made| made.lines).unwrap_or_default().into_iter().zip(names).collect();
        Self { shelf, recipient, before, names: Vec::new(), lines: Vec::new(), fresh: Vec::new() }
    }

    /// Takes what a try that failed has put there off the shelf: sealed again it has other names.
    fn forget(&self) {
        for name in &self.fresh {
            self.shelf.remove_part(name);
        }
    }

    fn put(&mut self, lines: &[u8]) -> Result<(), SnapshotFailure> {
        let hash = Hash32(*blake3::hash(lines).as_bytes());
        let known = self.before.get(&hash).and_then(|name| self.shelf.part(name));
        let name = match known {
            // Named anew: roots of before said less of a part.
            Some(sealed) => PartName::of(&sealed),
            None => {
                let sealed = seal_part(lines, self.recipient).map_err(RecordError::Seal)?;
                self.fresh.push(PartName::of(&sealed));
                self.shelf.put_part(&sealed)?;
                PartName::of(&sealed)
            }
        };
        self.names.push(name);
        self.lines.push(hash);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sonae_journal::RealDisk;
    use sonae_proto::seal::OpenKey;

    use super::*;

    /// Goal: a part that is used again is named by everything that names of today say, whatever the root before said of it.
    /// Method: a name of before, without SHA-256.
    #[test]
    fn a_part_that_is_used_again_is_named_anew() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Arc::new(RealDisk), &folder.path().join("snapshots"));
        let (lines, to) = (b"lines\n", OpenKey::generate().recipient());
        let sealed = seal_part(lines, &to).unwrap();
        shelf.put_part(&sealed).unwrap();
        let before = PartName { sha256: None, ..PartName::of(&sealed) };
        let before = BTreeMap::from([(Hash32(*blake3::hash(lines).as_bytes()), before)]);
        let (names, of_lines, fresh) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = Parts { shelf: &shelf, recipient: &to, before, names, lines: of_lines, fresh };
        parts.put(lines).unwrap();
        assert_eq!(parts.names, [PartName::of(&sealed)]);
        assert!(parts.fresh.is_empty(), "nothing is sealed again");
    }
}
