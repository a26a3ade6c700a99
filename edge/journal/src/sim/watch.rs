//! Watching the simulated disk: whoever asks is told of each operation before it happens, with the disk as it
//! then is. One recorded run so gives every disk that a power cut can leave.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{SimDisk, State};

/// What is asked of the disk, where it changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A directory is made.
    CreateDir,
    /// A file is made or emptied.
    Create,
    /// A file gets another name.
    Rename,
    /// A name goes.
    Remove,
    /// Bytes are written.
    Write,
    /// A file is made longer or shorter.
    Resize,
    /// A file is flushed.
    Flush,
    /// The names of a directory are flushed.
    FlushDirectory,
}

type Told = dyn Fn(Operation, &Path, SimDisk) + Send + Sync;

/// Who is told, if anybody.
#[derive(Clone, Default)]
pub(super) struct Watcher(Option<Arc<Told>>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watcher({})", self.0.is_some())
    }
}

impl State {
    pub(super) fn tell_watcher(&self, operation: Operation, path: &Path) {
        if let Watcher(Some(told)) = &self.watcher {
            let mut copy = self.clone();
            copy.watcher = Watcher::default();
            told(operation, path, SimDisk(Arc::new(std::sync::Mutex::new(copy))));
        }
    }
}

impl SimDisk {
    /// Tells `watcher` of each operation before it happens: what, to which file or directory, and a copy of the
    /// disk as it is. It must not use this disk itself. The copy is cheap.
    pub fn watch(&self, watcher: impl Fn(Operation, &Path, Self) + Send + Sync + 'static) {
        self.state().watcher = Watcher(Some(Arc::new(watcher)));
    }

    /// Begins the random sequence anew, so that one disk can lose power in several ways.
    pub fn reseed(&self, seed: u64) {
        self.state().random = seed;
    }

    /// Tells nobody any more.
    pub fn unwatch(&self) {
        self.state().watcher = Watcher::default();
    }
}
