//! Destroyed keys that something here is still sealed to: a note beside the snapshots, apart from the key documents, so
//! that removing it removes them.
//!
//! **Invariant**: a destroyed key is held only as long as a batch or a snapshot here needs it, and in no other file.

use std::collections::BTreeSet;
use std::io;

use sonae_proto::manifest::{KeyUse, WrappedKey};

use crate::shelf::Shelf;

/// The note.
const NOTE: &str = "held-keys.json";

/// Reads the wrapped keys that are held.
#[must_use]
pub fn read(shelf: &Shelf) -> Vec<WrappedKey> {
    let note = shelf.note(NOTE);
    note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default()
}

/// Holds exactly these.
///
/// # Errors
/// Those of the disk; what was held before is then held still.
///
/// # Durability
/// They are on stable storage when this returns, and the bytes of those that were held before are overwritten.
pub fn write(shelf: &Shelf, keys: &[WrappedKey]) -> io::Result<()> {
    let before = shelf.note(NOTE).map_or(0, |note| note.len());
    let note = if keys.is_empty() { Vec::new() } else { serde_json::to_vec(keys)? };
    if keys.is_empty() && before > 0 {
        // Whoever reads it in between finds no keys, which is what is to be.
        shelf.overwrite_note(NOTE, &vec![b' '; before])?;
        shelf.remove_note(NOTE);
        return shelf.settle();
    }
    if note.is_empty() { Ok(()) } else { shelf.put_note(NOTE, &note) }
}

/// Takes what is held to another shelf, for a store that begins with what this one has.
///
/// # Errors
/// Those of the disk.
pub fn copy(from: &Shelf, to: &Shelf) -> io::Result<()> {
    let keys = read(from);
    if keys.is_empty() { Ok(()) } else { write(to, &keys) }
}

/// Names of keys.
pub(crate) fn names(keys: &[WrappedKey]) -> BTreeSet<(KeyUse, u32)> {
    keys.iter().map(|key| (key.key_use, key.epoch)).collect()
}
