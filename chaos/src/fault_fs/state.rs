//! What the fault file system holds: what can be read apart from what is durable, and what happens to the
//! difference when the power goes.
//!
//! **Invariant**: contents become durable by `fsync` of the file alone, names by `fsync` of their directory alone.
//! Real file systems are kinder. A rename is one change; both its names are kept or neither.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use fuser::{Errno, FileType};
use serde::Serialize;

/// Bytes that a device writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// Number of the top directory.
pub(super) const ROOT: u64 = 1;

/// What becomes of what was not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// All of it is dropped.
    Drop,
    /// A random number of the first writes and names is kept.
    Prefix,
    /// Each sector of each write is kept or dropped at random, and each name.
    Torn,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// EIO. A failed flush may have written some sectors, and forgets the others.
    Io,
    /// ENOSPC.
    NoSpace,
}

impl Fault {
    fn errno(self) -> Errno {
        match self {
            Self::Io => Errno::EIO,
            Self::NoSpace => Errno::ENOSPC,
        }
    }
}

#[derive(Debug, Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Bytes { offset, bytes } => {
                let end = offset.saturating_add(bytes.len());
                if to.len() < end {
                    to.resize(end, 0);
                }
                if let Some(target) = to.get_mut(*offset..end) {
                    target.copy_from_slice(bytes);
                }
            }
        }
    }
}

/// A file, a directory or a socket.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub kind: FileType,
    pub mode: u16,
    pub cache: Vec<u8>,
    pub names: BTreeMap<OsString, u64>,
    durable: Vec<u8>,
    durable_names: BTreeMap<OsString, u64>,
    pending: Vec<Write>,
}

impl Inode {
    fn new(kind: FileType, mode: u16) -> Self {
        Self {
            kind,
            mode,
            cache: Vec::new(),
            names: BTreeMap::new(),
            durable: Vec::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
        }
    }
}

/// A name that leads to an inode from now on, or to nothing.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    pub parent: u64,
    pub name: OsString,
    pub inode: Option<u64>,
}

/// The whole file system.
#[derive(Debug)]
pub(super) struct State {
    random: u64,
    next: u64,
    inodes: BTreeMap<u64, Inode>,
    pending_names: Vec<Vec<NameChange>>,
    /// Operations that change something or flush, since the beginning.
    pub operations: u64,
    pub is_off: bool,
    pub cut_at: Option<u64>,
    pub fault: Option<(u64, Fault)>,
    /// Flushes answer well and do nothing.
    pub lies: bool,
    /// Milliseconds that each flush takes longer.
    pub slow_ms: u64,
}

type Outcome<T> = Result<T, Errno>;

impl State {
    pub fn new(seed: u64) -> Self {
        let root = Inode::new(FileType::Directory, 0o755);
        Self {
            random: seed,
            next: ROOT + 1,
            inodes: BTreeMap::from([(ROOT, root)]),
            pending_names: Vec::new(),
            operations: 0,
            is_off: false,
            cut_at: None,
            fault: None,
            lies: false,
            slow_ms: 0,
        }
    }

    /// The next number of a splitmix64 sequence.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn at_most(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).saturating_add(1);
        usize::try_from(self.random() % bound).unwrap_or(0)
    }

    /// Fails when there is no power.
    pub fn powered(&self) -> Outcome<()> {
        if self.is_off { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Counts an operation that changes something; power or operation fail if it is its turn.
    fn operation(&mut self) -> Outcome<()> {
        self.powered()?;
        let number = self.operations;
        self.operations += 1;
        if self.cut_at == Some(number) {
            self.is_off = true;
        }
        self.powered()?;
        match self.fault {
            Some((at, fault)) if at == number => {
                self.fault = None;
                Err(fault.errno())
            }
            _ => Ok(()),
        }
    }

    pub fn inode(&self, number: u64) -> Outcome<&Inode> {
        self.powered()?;
        self.inodes.get(&number).ok_or(Errno::ENOENT)
    }

    fn inode_mut(&mut self, number: u64) -> Outcome<&mut Inode> {
        self.inodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    pub fn lookup(&self, parent: u64, name: &OsStr) -> Outcome<u64> {
        self.inode(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Changes names as one.
    pub fn rename(&mut self, changes: Vec<NameChange>) -> Outcome<()> {
        self.operation()?;
        for change in &changes {
            let names = &mut self.inode_mut(change.parent)?.names;
            match change.inode {
                Some(inode) => drop(names.insert(change.name.clone(), inode)),
                None => drop(names.remove(&change.name)),
            }
        }
        self.pending_names.push(changes);
        Ok(())
    }

    /// Makes a file, a directory or a socket.
    pub fn make(&mut self, parent: u64, name: &OsStr, kind: FileType, mode: u16) -> Outcome<u64> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.rename(vec![NameChange { parent, name: name.to_owned(), inode: Some(number) }])?;
        self.next += 1;
        self.inodes.insert(number, Inode::new(kind, mode));
        Ok(number)
    }

    pub fn remove(&mut self, parent: u64, name: &OsStr) -> Outcome<()> {
        let number = self.lookup(parent, name)?;
        if !self.inode(number)?.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.rename(vec![NameChange { parent, name: name.to_owned(), inode: None }])
    }

    pub fn set_mode(&mut self, number: u64, mode: u16) -> Outcome<()> {
        self.powered()?;
        self.inode_mut(number)?.mode = mode;
        Ok(())
    }

    pub fn write(&mut self, number: u64, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let outcome = self.operation();
        if self.is_off {
            return outcome;
        }
        // A write that fails may have got half-way.
        let written = if outcome.is_ok() { bytes.len() } else { self.at_most(bytes.len()) };
        let write = Write::Bytes { offset, bytes: bytes.get(..written).unwrap_or_default().to_vec() };
        let inode = self.inode_mut(number)?;
        write.apply(&mut inode.cache);
        inode.pending.push(write);
        outcome
    }

    pub fn set_length(&mut self, number: u64, length: u64) -> Outcome<()> {
        self.operation()?;
        let write = Write::Length(usize::try_from(length).map_err(|_| Errno::EINVAL)?);
        let inode = self.inode_mut(number)?;
        write.apply(&mut inode.cache);
        inode.pending.push(write);
        Ok(())
    }

    pub fn flush(&mut self, number: u64) -> Outcome<()> {
        let outcome = self.operation();
        if self.is_off || self.lies {
            return outcome;
        }
        let pending = std::mem::take(&mut self.inode_mut(number)?.pending);
        for write in pending {
            match outcome {
                Ok(()) => write.apply(&mut self.inode_mut(number)?.durable),
                Err(_) => self.tear(number, &write),
            }
        }
        outcome
    }

    pub fn flush_directory(&mut self, number: u64) -> Outcome<()> {
        self.operation()?;
        if self.lies {
            return Ok(());
        }
        for group in std::mem::take(&mut self.pending_names) {
            if group.iter().any(|change| change.parent == number) {
                self.keep_names(&group);
            } else {
                self.pending_names.push(group);
            }
        }
        Ok(())
    }

    fn keep_names(&mut self, group: &[NameChange]) {
        for change in group {
            let Some(parent) = self.inodes.get_mut(&change.parent) else { continue };
            match change.inode {
                Some(inode) => drop(parent.durable_names.insert(change.name.clone(), inode)),
                None => drop(parent.durable_names.remove(&change.name)),
            }
        }
    }

    fn tear(&mut self, number: u64, write: &Write) {
        let Write::Bytes { offset, bytes } = write else {
            if self.random() & 1 == 0 {
                self.keep(number, write);
            }
            return;
        };
        let mut at = 0;
        while at < bytes.len() {
            let end = ((offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset).min(bytes.len());
            if self.random() & 1 == 0 {
                let bytes = bytes.get(at..end).unwrap_or_default().to_vec();
                self.keep(number, &Write::Bytes { offset: offset + at, bytes });
            }
            at = end;
        }
    }

    fn keep(&mut self, number: u64, write: &Write) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            write.apply(&mut inode.durable);
        }
    }

    /// Decides what of the un-flushed is left, forgets the rest, and switches the power on again.
    pub fn lose(&mut self, loss: Loss) {
        let numbers: Vec<u64> = self.inodes.keys().copied().collect();
        for number in numbers {
            let pending = self
                .inodes
                .get_mut(&number)
                .map(|inode| std::mem::take(&mut inode.pending))
                .unwrap_or_default();
            let kept = self.at_most(pending.len());
            for (at, write) in pending.iter().enumerate() {
                match loss {
                    Loss::Prefix if at < kept => self.keep(number, write),
                    Loss::Torn => self.tear(number, write),
                    Loss::Prefix | Loss::Drop => {}
                }
            }
        }
        let groups = std::mem::take(&mut self.pending_names);
        let kept = self.at_most(groups.len());
        for (at, group) in groups.iter().enumerate() {
            let keep = match loss {
                Loss::Drop => false,
                Loss::Prefix => at < kept,
                Loss::Torn => self.random() & 1 == 0,
            };
            if keep {
                self.keep_names(group);
            }
        }
        for inode in self.inodes.values_mut() {
            inode.cache.clone_from(&inode.durable);
            inode.names.clone_from(&inode.durable_names);
        }
        (self.is_off, self.cut_at, self.fault) = (false, None, None);
    }

    /// Makes everything durable.
    pub fn keep_all(&mut self) {
        self.pending_names.clear();
        for inode in self.inodes.values_mut() {
            inode.pending.clear();
            inode.durable.clone_from(&inode.cache);
            inode.durable_names.clone_from(&inode.names);
        }
    }

    /// Flips bits of a byte, durably. Returns whether the file has such a byte.
    pub fn flip(&mut self, path: &[&str], offset: usize, mask: u8) -> bool {
        let number = path.iter().try_fold(ROOT, |at, name| self.lookup(at, OsStr::new(name)));
        let Some(inode) = number.ok().and_then(|number| self.inodes.get_mut(&number)) else { return false };
        match (inode.durable.get_mut(offset), inode.cache.get_mut(offset)) {
            (Some(durable), Some(cache)) => {
                *durable ^= mask;
                *cache ^= mask;
                true
            }
            _ => false,
        }
    }
}

/// The state, shared by the server and whoever controls it.
pub(super) type Shared = Arc<(std::sync::Mutex<State>, std::sync::Condvar)>;
