//! A disk in memory for the journal and the store: files that an input gives, and faults that are planted.
//!
//! `sonae-journal` has a simulated disk of its own behind a feature. It is not used here, because a feature that
//! a program of the workspace asks for is on in the product's programs as well when all are built together.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sonae_journal::{Disk, DiskFile, DiskLock};

use super::layout::resum;
use crate::Planted;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The bytes of a file, which keep their handles when it is renamed.
type Content = Arc<Mutex<Vec<u8>>>;

/// A disk in memory; clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    names: Arc<Mutex<BTreeMap<PathBuf, Content>>>,
    planted: Planted,
}

struct MemoryFile {
    content: Content,
    planted: Planted,
}

struct MemoryLock;

impl DiskLock for MemoryLock {}

impl MemoryDisk {
    /// A disk that holds files.
    pub fn holding(files: Files, planted: Planted) -> Self {
        let names = files.into_iter().map(|(path, bytes)| (path, Arc::new(Mutex::new(bytes)))).collect();
        Self { names: Arc::new(Mutex::new(names)), planted }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Content>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds now.
    pub fn contents(&self) -> Files {
        self.names().iter().map(|(path, content)| (path.clone(), bytes_of(content).clone())).collect()
    }
}

fn bytes_of(content: &Content) -> MutexGuard<'_, Vec<u8>> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let names = self.names();
        let within = names.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(name).collect())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn DiskLock>> {
        Ok(Box::new(MemoryLock))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let content = self.names().get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { content, planted: self.planted }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.names().insert(path.to_owned(), Content::default());
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let content = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(u64::try_from(bytes_of(&self.content).len()).unwrap_or(u64::MAX))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = bytes_of(&self.content);
        let mut whole = std::borrow::Cow::Borrowed(&*bytes);
        if self.planted.is("checksums") {
            resum(whole.to_mut(), &mut None);
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = whole.get(from..from.saturating_add(buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.planted.is("forgets") {
            return Ok(());
        }
        let mut file = bytes_of(&self.content);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = from.saturating_add(bytes.len());
        if file.len() < end {
            file.resize(end, 0);
        }
        file.get_mut(from..end).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        Ok(())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        bytes_of(&self.content).resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }
}
