//! The shelf of snapshots: roots and sealed parts as files that are named by their hashes. What a replica has made
//! and not yet sent, what it is fetching, and what its state began with.
//!
//! **Invariant**: a file is read only as what its name says; anything else on the shelf counts as not there.
//! Leaves to its callers when the names must be durable ([`Shelf::settle`]) and which files are still needed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sonae_journal::Disk;
use sonae_proto::ids::Hash32;
use sonae_proto::limits::DOCUMENT_BYTES_MAX;
use sonae_proto::snapshot::{PartName, Snapshot, SnapshotRoot};

/// A shelf; cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({})", self.dir.display())
    }
}

impl Shelf {
    /// Names the shelf, whose directory is made with the first file: a full disk must not keep a store shut.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    fn path(&self, hash: Hash32, kind: &str) -> PathBuf {
        self.dir.join(format!("{hash}.{kind}"))
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.disk.create_dir(&self.dir)?;
        let file = self.disk.create(path)?;
        file.write_at(0, bytes)?;
        file.sync_data()
    }

    fn read(&self, path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
        let file = self.disk.open(path).ok()?;
        let length = usize::try_from(file.bytes().ok()?).ok()?;
        let mut bytes = vec![0; Some(length).filter(|length| *length <= bytes_max)?];
        file.read_at(0, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Keeps a sealed part.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Durability
    /// Its bytes are on stable storage; its name is after [`Self::settle`].
    pub fn put_part(&self, sealed: &[u8]) -> io::Result<()> {
        self.put(&self.path(PartName::of(sealed).hash, "part"), sealed)
    }

    /// Takes a part off the shelf, if it is there. One that cannot be removed now is when the shelf is tidied.
    pub fn remove_part(&self, name: &PartName) {
        let _ = self.disk.remove(&self.path(name.hash, "part"));
    }

    /// Keeps a root.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Durability
    /// As [`Self::put_part`].
    pub fn put_root(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.put(&self.path(snapshot.hash(), "root"), snapshot.text().as_bytes())
    }

    /// Makes the names of everything on the shelf durable.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn settle(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)
    }

    /// Returns a part, if it is there whole.
    #[must_use]
    pub fn part(&self, name: &PartName) -> Option<Vec<u8>> {
        let bytes = self.read(&self.path(name.hash, "part"), usize::try_from(name.bytes).ok()?)?;
        name.is_of(&bytes).then_some(bytes)
    }

    /// Returns the text of a root, if it is there whole.
    #[must_use]
    pub fn root_text(&self, hash: Hash32) -> Option<String> {
        let text = String::from_utf8(self.read(&self.path(hash, "root"), DOCUMENT_BYTES_MAX)?).ok()?;
        (*blake3::hash(text.as_bytes()).as_bytes() == hash.0).then_some(text)
    }

    /// Returns what a root says that this replica has verified before it noted the hash.
    #[must_use]
    pub fn root(&self, hash: Hash32) -> Option<SnapshotRoot> {
        Snapshot::peek(&self.root_text(hash)?)
    }

    /// Puts a snapshot that is here on another shelf.
    ///
    /// # Errors
    /// Those of the disks, and [`io::ErrorKind::NotFound`] when it is not here whole.
    ///
    /// # Durability
    /// As [`Self::put_part`].
    pub fn copy_to(&self, root: Hash32, other: &Self) -> io::Result<()> {
        let text = self.root_text(root).ok_or(io::ErrorKind::NotFound)?;
        for name in Snapshot::peek(&text).map(|root| root.parts).unwrap_or_default() {
            other.put_part(&self.part(&name).ok_or(io::ErrorKind::NotFound)?)?;
        }
        other.put(&other.path(root, "root"), text.as_bytes())
    }

    /// Returns the places of those parts of a snapshot that are there whole.
    #[must_use]
    pub fn has(&self, root: Hash32) -> Vec<u32> {
        let parts = self.root(root).map(|root| root.parts).unwrap_or_default();
        let held = parts.iter().zip(0..).filter(|(part, _)| self.part(part).is_some());
        held.map(|(_, number)| number).collect()
    }

    /// Whether no root is there, whole or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let names = self.disk.list(&self.dir).unwrap_or_default();
        !names.iter().any(|name| name.ends_with(".root"))
    }

    /// Returns what the roots say that are there.
    #[must_use]
    pub fn roots(&self) -> Vec<SnapshotRoot> {
        let names = self.disk.list(&self.dir).unwrap_or_default();
        let hash = |name: &String| name.strip_suffix(".root")?.parse().ok();
        names.iter().filter_map(hash).filter_map(|hash| self.root(hash)).collect()
    }

    /// Removes everything that does not belong to one of these snapshots.
    ///
    /// # Errors
    /// Those of the disk; what is left over is removed another time.
    pub fn keep_only(&self, roots: &BTreeSet<Hash32>) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for hash in roots {
            names.insert(format!("{hash}.root"));
            let parts = self.root(*hash).map(|root| root.parts).unwrap_or_default();
            names.extend(parts.iter().map(|part| format!("{}.part", part.hash)));
        }
        let is_ours = |name: &str| name.ends_with(".root") || name.ends_with(".part");
        for name in self.disk.list(&self.dir)? {
            if is_ours(&name) && !names.contains(&name) {
                self.disk.remove(&self.dir.join(&name))?;
            }
        }
        self.settle()
    }

    /// Writes a small file in place of an earlier one of this name, whole or not at all.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Durability
    /// It is on stable storage when this returns.
    pub fn put_note(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (new, path) = (self.dir.join(format!("{name}.new")), self.dir.join(name));
        self.put(&new, bytes)?;
        self.disk.rename(&new, &path)?;
        self.settle()
    }

    /// Returns the names of such files with an ending.
    pub(crate) fn notes(&self, ending: &str) -> Vec<String> {
        let names = self.disk.list(&self.dir).unwrap_or_default();
        names.into_iter().filter(|name| name.ends_with(ending)).collect()
    }

    /// Overwrites such a file where it lies.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Durability
    /// The new bytes are on stable storage when this returns.
    pub(crate) fn overwrite_note(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk.open(&self.dir.join(name))?;
        file.write_at(0, bytes)?;
        file.sync_data()
    }

    /// Removes such a file. One that cannot be removed is read again, and everything that it says is checked again.
    pub fn remove_note(&self, name: &str) {
        let _ = self.disk.remove(&self.dir.join(name));
    }

    /// Reads such a file.
    #[must_use]
    pub fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.read(&self.dir.join(name), DOCUMENT_BYTES_MAX)
    }
}
