//! Earlier manifests under which batches here were sealed: notes beside the snapshots, one for each.
//!
//! **Invariant**: the manifest of every batch that was sealed here is here for as long as the batch is: a cloud that has
//! lost both takes the batch only behind it.

use std::collections::BTreeSet;
use std::io;

use sonae_proto::ids::Hash32;
use sonae_proto::manifest::Manifest;
use sonae_proto::signed::unverified;
use sonae_proto::wire::KeyDocuments;

use crate::shelf::Shelf;

const SUFFIX: &str = ".manifest";

fn hash(text: &str) -> Hash32 {
    Hash32(*blake3::hash(text.as_bytes()).as_bytes())
}

/// Keeps a manifest that gives way to a newer one.
///
/// # Errors
/// Those of the disk.
///
/// # Durability
/// It is on stable storage when this returns.
pub(crate) fn keep(shelf: &Shelf, text: &str) -> io::Result<()> {
    shelf.put_note(&format!("{}{SUFFIX}", hash(text)), text.as_bytes())
}

/// Removes those that no held batch names.
pub(crate) fn keep_only(shelf: &Shelf, named: &BTreeSet<Hash32>) {
    for name in shelf.notes(SUFFIX) {
        let is_named = name.strip_suffix(SUFFIX).and_then(|hash| hash.parse().ok());
        if !is_named.is_some_and(|hash: Hash32| named.contains(&hash)) {
            shelf.remove_note(&name);
        }
    }
}

/// Returns all that are kept, the oldest first, without keys: they say what batches were sealed to, and no more is asked
/// of them.
pub(crate) fn all(shelf: &Shelf) -> Vec<KeyDocuments> {
    let read = |name: String| {
        let manifest = String::from_utf8(shelf.note(&name)?).ok()?;
        let body: Manifest = unverified(&manifest)?;
        Some((body.version, KeyDocuments { school: body.school, manifest, wrapped_keys: Vec::new() }))
    };
    let mut kept: Vec<_> = shelf.notes(SUFFIX).into_iter().filter_map(read).collect();
    kept.sort_by_key(|(version, _)| *version);
    kept.into_iter().map(|(_, documents)| documents).collect()
}
