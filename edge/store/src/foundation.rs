//! The foundation of a tier: the snapshot that its state began with, in place of the batches before it.
//!
//! **Invariant**: a foundation is read whole and added up, or not at all.

use std::collections::BTreeMap;

use sonae_journal::Journal;
use sonae_proto::clock::Stamp;
use sonae_proto::digest::{Digest, DigestKey};
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::seal::OpenKey;
use sonae_proto::snapshot::{PartName, Record, SnapshotRoot, Sum, open_part};
use sonae_proto::vector::Heads;
use sonae_proto::view::{Fold, Records as _};

use crate::frame::{self, Checkpoint, FoundationFrame, from_json};
use crate::keyring::Keyring;
use crate::shelf::Shelf;
use crate::store::StoreError;
use crate::view::Staged;

/// The foundations of a store.
#[derive(Debug, Default)]
pub(crate) struct Foundations {
    /// For each tier that has one the hash of its root.
    pub roots: BTreeMap<Tier, Hash32>,
    /// Where logs begin behind them.
    pub heads: Heads,
}

impl Foundations {
    /// Looks for them in a journal: what it holds of batches is only understood behind them.
    pub fn find(journal: &Journal, shelf: &Shelf) -> Result<Self, StoreError> {
        let mut foundations = Self::default();
        for frame in journal.replay(journal.first_lsn()) {
            let frame = frame?;
            match frame.kind {
                frame::FOUNDATION => {
                    let founded: FoundationFrame = from_json("foundation", &frame.payload)?;
                    foundations.roots.insert(founded.tier, founded.root);
                }
                frame::CHECKPOINT => {
                    let checkpoint: Checkpoint = from_json("checkpoint", &frame.payload)?;
                    foundations.roots.extend(checkpoint.foundations);
                }
                _ => {}
            }
        }
        for hash in foundations.roots.values() {
            foundations.heads.extend(root(shelf, *hash)?.heads);
        }
        Ok(foundations)
    }

    /// Lays all of them under a fold that nothing was applied to.
    pub fn enter(
        &self,
        shelf: &Shelf,
        keyring: &Keyring,
        fold: &mut Fold,
        staged: &mut Staged<'_>,
    ) -> Result<(), StoreError> {
        for hash in self.roots.values() {
            let root = root(shelf, *hash)?;
            let found = read(shelf, *hash, &root, keyring, |records| {
                for Record { collection, record, state } in records {
                    staged.put(root.tier, &collection, &record, state)?;
                }
                Ok(())
            })?;
            found.enter(&root, fold);
        }
        Ok(())
    }
}

fn root(shelf: &Shelf, hash: Hash32) -> Result<SnapshotRoot, StoreError> {
    shelf.root(hash).ok_or(StoreError::Snapshot { root: hash, what: "is not there whole" })
}

/// What reading one has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub disputed: u64,
    pub highest_stamp: Stamp,
    digest: Digest,
}

impl Found {
    /// Tells a fold that nothing of this tier was applied to what it stands on now.
    pub fn enter(&self, root: &SnapshotRoot, fold: &mut Fold) {
        fold.sequences.extend(root.heads.iter().map(|(log, head)| (*log, head.sequence)));
        fold.digests.insert(root.tier, self.digest);
        fold.highest_stamp = fold.highest_stamp.max(self.highest_stamp);
    }
}

/// What opens a snapshot and adds it up.
#[derive(Debug)]
pub(crate) struct Keys {
    open: OpenKey,
    digest: DigestKey,
}

/// Takes the keys of a tier and an epoch out of a keyring.
pub(crate) fn keys(keyring: &Keyring, tier: Tier, epoch: u32) -> Result<Keys, StoreError> {
    let open = keyring.opening(tier, epoch).cloned().ok_or_else(|| keyring.missing(tier, epoch))?;
    Ok(Keys { open, digest: keyring.digest_key()? })
}

/// The same as [`read_with`], with the keys of a keyring.
///
/// # Errors
/// As [`read_with`], and [`StoreError::Keyring`].
pub(crate) fn read(
    shelf: &Shelf,
    hash: Hash32,
    root: &SnapshotRoot,
    keyring: &Keyring,
    take: impl FnMut(Vec<Record>) -> Result<(), StoreError>,
) -> Result<Found, StoreError> {
    read_with(shelf, hash, root, &keys(keyring, root.tier, root.epoch)?, take)
}

/// Reads all parts from the shelf, hands the records of each on, and checks that they are the state of the root.
///
/// # Errors
/// [`StoreError::Snapshot`] when a part is not there whole or the sum is another; what `take` returns.
pub(crate) fn read_with(
    shelf: &Shelf,
    hash: Hash32,
    root: &SnapshotRoot,
    keys: &Keys,
    mut take: impl FnMut(Vec<Record>) -> Result<(), StoreError>,
) -> Result<Found, StoreError> {
    let wrong = |what| StoreError::Snapshot { root: hash, what };
    let mut sum = Sum::new(keys.digest.clone());
    let mut found = Found { disputed: 0, highest_stamp: Stamp::default(), digest: Digest::default() };
    let unreadable = "has a part that cannot be opened";
    let open = |part: &PartName| {
        let sealed = shelf.part(part).ok_or_else(|| wrong("is not there whole"))?;
        open_part(&sealed, &keys.open).map_err(|_| wrong(unreadable))
    };
    // Somebody waits for the roster: the smallest boxes have two cores.
    let opened = root.parts.chunks(2).flat_map(|parts| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = parts.iter().map(|part| scope.spawn(move || open(part))).collect();
            let ends =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(wrong(unreadable))));
            ends.collect::<Vec<_>>()
        })
    });
    for records in opened {
        let records = records?;
        for record in &records {
            sum.add(record);
            found.disputed += u64::from(record.state.disputed().next().is_some());
            let stamps = record.state.fields.values().flat_map(|field| &field.heads).map(|head| head.stamp);
            found.highest_stamp = stamps.fold(found.highest_stamp, Stamp::max);
        }
        take(records)?;
    }
    if !sum.is_of(root) {
        return Err(wrong("does not add up to the state that it names"));
    }
    found.digest = sum.digest();
    Ok(found)
}
