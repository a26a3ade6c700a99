//! The simulated disk: what a file system and a device may do to a journal, on purpose and repeatably.
//!
//! It keeps what can be read (the cache) apart from what is durable. Power cuts drop, keep or tear un-synced
//! writes at 512 B and forget names that were not flushed; chosen operations fail; a failed flush leaves the
//! cache looking clean although nothing arrived; bits flip. The same seed and calls give the same result.

mod port;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::layout::to_u64;
use crate::limits::SECTOR_BYTES;

pub use watch::Operation;
use watch::Watcher;

/// What becomes of un-synced writes and names when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All are dropped.
    Drop,
    /// All are kept, as after kill -9.
    Keep,
    /// A random number of the first ones is kept.
    Prefix,
    /// Each sector of each write is kept or dropped at random, and each name.
    Torn,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device fails (EIO). A failed flush may have written some of the sectors and forgets the others.
    Io,
    /// There is no room (ENOSPC).
    NoSpace,
}

/// How often each kind of operation was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// All operations that change something: what [`SimDisk::cut_at`] and [`SimDisk::fail_at`] count.
    pub operations: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Flushes of files.
    pub flushes: u64,
    /// Flushes of directories.
    pub directory_flushes: u64,
    /// Reads.
    pub reads: u64,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes {
        offset: usize,
        bytes: Vec<u8>,
    },
    /// The file gets this length.
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
    unreadable: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Unset(PathBuf),
}

#[derive(Debug, Clone)]
struct State {
    random: u64,
    /// Shared with snapshots until one of them changes.
    inodes: Vec<Arc<Inode>>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    counters: Counters,
    /// Handles of an earlier generation died with the power.
    generation: u64,
    power_off: bool,
    cut_at: Option<u64>,
    fault: Option<(u64, Fault)>,
    /// Bytes that files may have together.
    room: Option<u64>,
    /// Before this operation somebody else takes all that is free.
    fill_at: Option<u64>,
    /// Whether the disk says how full it is.
    tells_room: bool,
    watcher: Watcher,
}

/// A disk that lives in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn device_error() -> io::Error {
    // EIO. The number is the same on every architecture that Linux knows.
    io::Error::from_raw_os_error(5)
}

impl State {
    /// The next number of a splitmix64 sequence.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = to_u64(bound).saturating_add(1);
        usize::try_from(self.random() % bound).unwrap_or(0)
    }

    /// Counts an operation that changes something, and lets the power or the operation fail if it is its turn.
    fn operation(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.power_off {
            return Err(no_power());
        }
        self.tell_watcher(operation, path);
        let number = self.counters.operations;
        self.counters.operations += 1;
        if self.fill_at == Some(number) {
            self.room = Some(self.used());
        }
        if self.cut_at == Some(number) {
            self.power_off = true;
            return Err(no_power());
        }
        match self.fault {
            Some((at, fault)) if at == number => {
                self.fault = None;
                Err(match fault {
                    Fault::Io => device_error(),
                    Fault::NoSpace => io::ErrorKind::StorageFull.into(),
                })
            }
            _ => Ok(()),
        }
    }

    fn inode(&mut self, index: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(index).map(Arc::make_mut).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A name of the file, for whoever watches.
    fn path_of(&self, index: usize) -> PathBuf {
        let found = self.names.iter().find(|(_, inode)| **inode == index);
        found.map(|(path, _)| path.clone()).unwrap_or_default()
    }

    fn used(&self) -> u64 {
        let inodes: BTreeSet<usize> = self.names.values().copied().collect();
        inodes.iter().filter_map(|inode| self.inodes.get(*inode)).map(|inode| to_u64(inode.cache.len())).sum()
    }

    fn rename_pending(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn lose_power(&mut self, cut: Cut) {
        for index in 0..self.inodes.len() {
            let pending = self.inode(index).map(|inode| std::mem::take(&mut inode.pending));
            self.resolve(index, &pending.unwrap_or_default(), cut);
        }
        let changes = std::mem::take(&mut self.pending_names);
        let kept = self.below(changes.len());
        for (at, change) in changes.iter().enumerate() {
            let keep = match cut {
                Cut::Drop => false,
                Cut::Keep => true,
                Cut::Prefix => at < kept,
                Cut::Torn => self.random() & 1 == 0,
            };
            if keep {
                apply_name(&mut self.durable_names, change);
            }
        }
        self.names = self.durable_names.clone();
        for inode in self.inodes.iter_mut().map(Arc::make_mut) {
            inode.cache = inode.durable.clone();
        }
        self.locks.clear();
        self.generation += 1;
        self.power_off = false;
        self.cut_at = None;
        self.fault = None;
    }

    /// Decides which of a file's un-synced writes reach the device.
    fn resolve(&mut self, index: usize, pending: &[Write], cut: Cut) {
        let kept = self.below(pending.len());
        for (at, write) in pending.iter().enumerate() {
            match cut {
                Cut::Drop => {}
                Cut::Prefix if at >= kept => {}
                Cut::Keep | Cut::Prefix => self.persist(index, write),
                Cut::Torn => self.persist_torn(index, write),
            }
        }
    }

    fn persist(&mut self, index: usize, write: &Write) {
        if let Ok(inode) = self.inode(index) {
            write.apply(&mut inode.durable);
        }
    }

    fn persist_torn(&mut self, index: usize, write: &Write) {
        let Write::Bytes { offset, bytes } = write else {
            if self.random() & 1 == 0 {
                self.persist(index, write);
            }
            return;
        };
        let sector = usize::try_from(SECTOR_BYTES).unwrap_or(512);
        let mut at = 0;
        while at < bytes.len() {
            let end = ((offset + at) / sector * sector + sector - offset).min(bytes.len());
            if self.random() & 1 == 0 {
                let bytes = bytes.get(at..end).unwrap_or_default().to_vec();
                self.persist(index, &Write::Bytes { offset: offset + at, bytes });
            }
            at = end;
        }
    }
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Bytes { offset, bytes } => place(to, *offset, bytes),
            Self::Length(bytes) => to.resize(*bytes, 0),
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unset(path) => {
            names.remove(path);
        }
    }
}

fn place(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    if let Some(target) = to.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Unset(path) => path,
        }
    }
}

impl SimDisk {
    /// Creates an empty disk. Everything random about it follows from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: seed,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            locks: BTreeSet::new(),
            counters: Counters::default(),
            generation: 0,
            power_off: false,
            cut_at: None,
            fault: None,
            room: None,
            fill_at: None,
            tells_room: true,
            watcher: Watcher::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns another disk that holds the same. Handles and locks stay with the first one.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.generation += 1;
        state.locks.clear();
        state.watcher = Watcher::default();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Lets the power go before the operation with this number, counted from the creation of the disk. All calls
    /// fail from then on until [`SimDisk::power_cycle`].
    pub fn cut_at(&self, operation: u64) {
        self.state().cut_at = Some(operation);
    }

    /// Lets the operation with this number fail once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().fault = Some((operation, fault));
    }

    /// Lets the power go, if it has not gone yet, decides what is left, and switches it on again. Handles from
    /// before are dead; faults that were asked for are forgotten.
    pub fn power_cycle(&self, cut: Cut) {
        self.state().lose_power(cut);
    }

    /// Limits the bytes that all files may have together. `None` lifts the limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// Lets somebody else take all that is free before the operation with this number. `is_told` says whether the disk
    /// says so when it is asked, or only by refusing.
    pub fn fill_at(&self, operation: u64, is_told: bool) {
        let mut state = self.state();
        (state.fill_at, state.tells_room) = (Some(operation), is_told);
    }

    /// Returns what was asked for since the creation of the disk.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state().counters
    }

    /// Returns true once the cut that was asked for has happened.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().power_off
    }

    /// Flips bits of a byte, on the device and in the cache. Returns false if the file has no such byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) -> bool {
        let mut state = self.state();
        let Some(index) = state.names.get(path).copied() else { return false };
        let Ok(inode) = state.inode(index) else { return false };
        match (inode.durable.get_mut(offset), inode.cache.get_mut(offset)) {
            (Some(durable), Some(cache)) => {
                *durable ^= mask;
                *cache ^= mask;
                true
            }
            _ => false,
        }
    }

    /// Makes the sector that holds the byte unreadable (EIO).
    pub fn make_unreadable(&self, path: &Path, offset: usize) {
        let mut state = self.state();
        let sector = offset / usize::try_from(SECTOR_BYTES).unwrap_or(512);
        if let Some(index) = state.names.get(path).copied()
            && let Ok(inode) = state.inode(index)
        {
            inode.unreadable.insert(sector);
        }
    }

    /// Returns what a file holds, or `None` if there is no such file.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let index = state.names.get(path)?;
        state.inodes.get(*index).map(|inode| inode.cache.clone())
    }
}
