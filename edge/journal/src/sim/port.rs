//! The disk port on the simulated disk: each call takes its turn, may fail, and is counted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use super::{Cut, Inode, NameChange, Operation, SimDisk, State, Write, apply_name, device_error, no_power};
use crate::disk::{Disk, DiskFile, DiskLock, Room};
use crate::layout::to_u64;
use crate::limits::SECTOR_BYTES;

struct SimFile {
    disk: SimDisk,
    inode: usize,
    generation: u64,
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    generation: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.generation == self.generation {
            state.locks.remove(&self.path);
        }
    }
}

impl SimDisk {
    fn handle(&self, state: &State, inode: usize) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), inode, generation: state.generation })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().operation(Operation::CreateDir, dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.power_off {
            return Err(no_power());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state();
        if state.power_off {
            return Err(no_power());
        }
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf(), generation: state.generation }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        if state.power_off {
            return Err(no_power());
        }
        let inode = state.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&state, inode))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.operation(Operation::Create, path)?;
        let inode = state.inodes.len();
        state.inodes.push(Arc::new(Inode::default()));
        state.rename_pending(NameChange::Set(path.to_path_buf(), inode));
        Ok(self.handle(&state, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Rename, from)?;
        let inode = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.rename_pending(NameChange::Unset(from.to_path_buf()));
        state.rename_pending(NameChange::Set(to.to_path_buf(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Remove, path)?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename_pending(NameChange::Unset(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::FlushDirectory, dir)?;
        state.counters.directory_flushes += 1;
        for change in std::mem::take(&mut state.pending_names) {
            if change.path().parent() == Some(dir) {
                apply_name(&mut state.durable_names, &change);
            } else {
                state.pending_names.push(change);
            }
        }
        Ok(())
    }

    fn room(&self, _dir: &Path) -> io::Result<Room> {
        let state = self.state();
        let total_bytes = state.room.filter(|_| state.tells_room).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Room { total_bytes, free_bytes: total_bytes.saturating_sub(state.used()) })
    }
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.power_off || state.generation != self.generation { Err(no_power()) } else { Ok(state) }
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(to_u64(self.state()?.inode(self.inode)?.cache.len()))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.counters.reads += 1;
        let inode = state.inode(self.inode)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.saturating_add(buffer.len());
        let sector = usize::try_from(SECTOR_BYTES).unwrap_or(512);
        if inode.unreadable.range(start / sector..end.div_ceil(sector)).next().is_some() {
            return Err(device_error());
        }
        let bytes = inode.cache.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let path = state.path_of(self.inode);
        let outcome = state.operation(Operation::Write, &path);
        state.counters.writes += 1;
        state.counters.bytes_written += to_u64(bytes.len());
        let used = state.used();
        let room = state.room;
        // A write that fails may have got half-way.
        let written = if outcome.is_ok() { bytes.len() } else { state.below(bytes.len()) };
        let inode = state.inode(self.inode)?;
        let grown = to_u64((offset + bytes.len()).saturating_sub(inode.cache.len()));
        if grown > 0 && room.is_some_and(|room| used.saturating_add(grown) > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let write = Write::Bytes { offset, bytes: bytes.get(..written).unwrap_or_default().to_vec() };
        write.apply(&mut inode.cache);
        inode.pending.push(write);
        outcome
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let path = state.path_of(self.inode);
        state.operation(Operation::Resize, &path)?;
        let write = Write::Length(usize::try_from(bytes).map_err(io::Error::other)?);
        let inode = state.inode(self.inode)?;
        write.apply(&mut inode.cache);
        inode.pending.push(write);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let path = state.path_of(self.inode);
        let outcome = state.operation(Operation::Flush, &path);
        if state.power_off {
            return outcome;
        }
        state.counters.flushes += 1;
        let pending = std::mem::take(&mut state.inode(self.inode)?.pending);
        // After a failed flush the kernel holds the pages for clean: no later flush writes them.
        let cut = if outcome.is_ok() { Cut::Keep } else { Cut::Torn };
        state.resolve(self.inode, &pending, cut);
        outcome
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()?;
        let mut state = self.state()?;
        let inode = state.inode(self.inode)?;
        inode.cache = inode.durable.clone();
        Ok(())
    }
}
