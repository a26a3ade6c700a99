//! Opening and closing a store: what it takes, what it gives, and the keeper's thread between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use sonae_proto::batch::BatchHeader;

use super::{Store, StoreError};
use crate::clock::Clock;
use crate::evidence::Evidence;
use crate::keeper::{Keeper, Request};
use crate::recover;

/// Requests that may wait for the keeper before writers are held back.
const REQUESTS_WAITING_MAX: usize = 4096;

/// What a replica needs to open its store.
pub struct Open {
    /// The journal's directory.
    pub journal: PathBuf,
    /// The sealed batches' directory.
    pub batches: PathBuf,
    /// The directory of snapshots.
    pub snapshots: PathBuf,
    /// The view's directory.
    pub view: PathBuf,
    /// The replica's keys.
    pub keys: crate::identity::ReplicaKeys,
    /// The device's age key, with which newer epoch keys are unwrapped.
    pub device_age_key: zeroize::Zeroizing<String>,
    /// Epoch keys as the bundle brought them; newer ones in the journal win.
    pub keyring: crate::keyring::Keyring,
    /// The told clock.
    pub clock: Clock,
    /// The disk of journal and sealed batches.
    pub disk: Arc<dyn sonae_journal::Disk>,
    /// Which of its tiers may be used.
    pub filling: crate::filling::Filling,
    /// How it is kept.
    pub options: crate::options::Options,
}

/// An open store: the handle, what an uplink starts from, and the thread to wait for.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub store: Store,
    /// Heads, headers and identities for the sync engine.
    pub evidence: Evidence,
    /// Headers of batches sealed from now on.
    pub sealed: tokio::sync::mpsc::UnboundedReceiver<BatchHeader>,
    keeper: JoinHandle<()>,
}

/// A recovered store whose keeper does not run yet.
pub(crate) struct Ready {
    pub store: Store,
    pub keeper: Keeper,
    pub waiting: mpsc::Receiver<Request>,
    pub evidence: Evidence,
    pub sealed: tokio::sync::mpsc::UnboundedReceiver<BatchHeader>,
}

impl Opened {
    /// Takes the receiver of sealed headers, leaving a closed one.
    pub fn take_sealed(&mut self) -> tokio::sync::mpsc::UnboundedReceiver<BatchHeader> {
        let (_, closed) = tokio::sync::mpsc::unbounded_channel();
        std::mem::replace(&mut self.sealed, closed)
    }

    /// Checkpoints, closes the journal cleanly and waits for the keeper. All other handles fail afterwards.
    pub fn close(self) {
        let _ = self.store.requests.send(Request::Close);
        // A keeper that panicked has said so in the log; there is nothing left to close.
        let _ = self.keeper.join();
    }
}

impl Store {
    /// Opens the store of a replica: recovers the journal, opens or rebuilds the view, starts the keeper.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(open: Open) -> Result<Opened, StoreError> {
        let Ready { store, keeper, waiting, evidence, sealed } = Self::recover(open)?;
        let keeper = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || keeper.run(&waiting))
            .map_err(StoreError::Thread)?;
        Ok(Opened { store, evidence, sealed, keeper })
    }

    pub(crate) fn recover(open: Open) -> Result<Ready, StoreError> {
        let (requests, waiting) = mpsc::sync_channel(REQUESTS_WAITING_MAX);
        let (sealed_sender, sealed) = tokio::sync::mpsc::unbounded_channel();
        let (clock, school) = (open.clock.clone(), open.keys.school);
        let recover::Recovered { keeper, evidence } = recover::recover(open, sealed_sender)?;
        let store = Self { requests, shared: keeper.shared(), school, clock };
        Ok(Ready { store, keeper, waiting, evidence, sealed })
    }
}
