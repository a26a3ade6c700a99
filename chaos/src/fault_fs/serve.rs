//! The kernel's questions, answered from the state. One thread serves them, so they have one order.

use std::ffi::OsStr;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::state::{Inode, NameChange, ROOT, Shared, State};

/// The kernel keeps no attribute and no name: what they are may change behind its back.
const TTL: Duration = Duration::ZERO;

/// Blocks of 4 KiB that the file system says it has and has free: 16 GiB.
const BLOCKS: u64 = 4 * 1024 * 1024;

pub(super) struct Server(pub Shared);

fn attributes(number: u64, inode: &Inode) -> FileAttr {
    let size = u64::try_from(inode.cache.len()).unwrap_or(u64::MAX);
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: inode.kind,
        perm: inode.mode,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0o600)
}

fn kind_of(mode: u32) -> FileType {
    // S_IFMT and S_IFSOCK; nothing else but files and sockets is made here.
    if mode & 0o170_000 == 0o140_000 { FileType::Socket } else { FileType::RegularFile }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something, and wakes whoever waits for the power to go.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.state();
        let outcome = change(&mut state);
        if state.is_off {
            self.0.1.notify_all();
        }
        outcome
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        Ok(attributes(number, self.state().inode(number)?))
    }

    fn enter(&self, number: Result<u64, Errno>, reply: ReplyEntry) {
        match number.and_then(|number| self.attributes(number)) {
            Ok(found) => reply.entry(&TTL, &found, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    /// Takes as long as a flush of a slow device.
    fn be_slow(&self) {
        let slow_ms = self.state().slow_ms;
        std::thread::sleep(Duration::from_millis(slow_ms));
    }
}

fn end(outcome: Result<(), Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = self.state().lookup(parent.0, name);
        self.enter(number, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let outcome = self.change(|state| {
            if let Some(mode) = mode {
                state.set_mode(ino.0, permissions(mode))?;
            }
            size.map_or(Ok(()), |size| state.set_length(ino.0, size))
        });
        match outcome.and_then(|()| self.attributes(ino.0)) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let number = self.change(|state| state.make(parent.0, name, kind_of(mode), permissions(mode)));
        self.enter(number, reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let number = self.change(|state| state.make(parent.0, name, FileType::Directory, permissions(mode)));
        self.enter(number, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(self.change(|state| state.remove(parent.0, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(self.change(|state| state.remove(parent.0, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let outcome = self.change(|state| {
            let inode = state.lookup(parent.0, name)?;
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && state.lookup(newparent.0, newname).is_ok() {
                return Err(Errno::EEXIST);
            }
            state.rename(vec![
                NameChange { parent: parent.0, name: name.to_owned(), inode: None },
                NameChange { parent: newparent.0, name: newname.to_owned(), inode: Some(inode) },
            ])
        });
        end(outcome, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let outcome = self.change(|state| {
            if state.lookup(newparent.0, newname).is_ok() {
                return Err(Errno::EEXIST);
            }
            let change = NameChange { parent: newparent.0, name: newname.to_owned(), inode: Some(ino.0) };
            state.rename(vec![change]).map(|()| ino.0)
        });
        self.enter(outcome, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().inode(ino.0) {
            Ok(inode) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.cache.len());
                let size = usize::try_from(size).unwrap_or(0);
                let end = start.saturating_add(size).min(inode.cache.len());
                reply.data(inode.cache.get(start..end).unwrap_or_default());
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.change(|state| state.write(ino.0, offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.be_slow();
        end(self.change(|state| state.flush(ino.0)), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.be_slow();
        end(self.change(|state| state.flush_directory(ino.0)), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.state();
        let names = match state.inode(ino.0) {
            Ok(inode) => &inode.names,
            Err(error) => return reply.error(error),
        };
        let kind = |number: u64| state.inode(number).map_or(FileType::RegularFile, |inode| inode.kind);
        let own = [(".".into(), ino.0), ("..".into(), ROOT)];
        let all = own.into_iter().chain(names.iter().map(|(name, number)| (name.clone(), *number)));
        for ((name, number), at) in all.zip(1_u64..) {
            if at > offset && reply.add(INodeNo(number), at, kind(number), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1_000_000, 1_000_000, 4096, 255, 4096);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.change(|state| state.make(parent.0, name, FileType::RegularFile, permissions(mode)));
        match made.and_then(|number| self.attributes(number)) {
            Ok(found) => reply.created(&TTL, &found, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }
}
