//! An open replica: data directory, enrolment, keys and store together, as every command needs them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::descriptor::CloudDescriptor;
use sonae_proto::planted::{Defect, is_planted};
use sonae_proto::signed::{DocumentError, Signed};
use sonae_store::data_dir::{DataDir, DataDirError};
use sonae_store::enrolment::{self, EnrolmentError};
use sonae_store::identity::{IdentityError, ReplicaKeys, board_key};
use sonae_store::keyring::{Keyring, KeyringError};
use sonae_store::neighbours::Neighbours;
use sonae_store::proof::Proofs;
use sonae_store::renewal;
use sonae_store::status::{StatusSource, Uplink};
use sonae_store::{Clock, Filling, Open, Opened, Options, Quarantine, RealDisk, Store, StoreError};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::courier::Desk;
use crate::neighbours::{self, Known};
use crate::{proof, uplink};

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The enrolment cannot be read.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// The keys cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The epoch keys cannot be opened.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A renewal that was cut off cannot be finished.
    #[error("the stores of {} cannot be exchanged; free some room or look at the disk, then start again", path.display())]
    Renewal {
        /// The data directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The scratch store of a restore proof cannot be begun where this one begins.
    #[error("what stands for pruned batches cannot be copied for a restore proof")]
    Scratch(#[source] std::io::Error),
    /// The cloud's descriptor does not verify.
    #[error("the description of the cloud is not signed by the board")]
    Descriptor(#[from] DocumentError),
}

impl ReplicaError {
    /// Whether the remedy is to repair the store from the cloud.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_damage())
    }
}

/// An open replica.
pub struct Replica {
    /// The directory; locked for as long as this lives.
    pub dir: DataDir,
    /// What the board's bundle brought.
    pub bundle: ReplicaBundle,
    /// The cloud as the board describes it.
    pub cloud: CloudDescriptor,
    /// The open store.
    pub opened: Opened,
    /// The status, composed on demand.
    pub status: StatusSource,
    /// The told clock.
    pub clock: Clock,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica({})", self.status.incarnation)
    }
}

fn options() -> Options {
    if is_planted(Defect::ReserveLeftOut) { Options::without_reserve() } else { Options::default() }
}

impl Replica {
    /// Opens the replica in a data directory.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn open(data: &Path) -> Result<Self, ReplicaError> {
        Self::reopen(DataDir::open(data)?)
    }

    /// Opens the replica in a directory that is locked already, after a renewal that was begun has been finished and what
    /// is left of a restore proof is gone.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn reopen(dir: DataDir) -> Result<Self, ReplicaError> {
        let finished = renewal::finish(&dir);
        finished.map_err(|source| ReplicaError::Renewal { path: dir.path().to_owned(), source })?;
        if let Err(error) = proof::discard(dir.path()) {
            log::warn!(error = error.to_string(); "what is left of a restore proof cannot be deleted");
        }
        Self::open_dir(dir)
    }

    /// Opens the replica in a directory that is locked already.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn open_dir(dir: DataDir) -> Result<Self, ReplicaError> {
        Self::open_with(dir, options())
    }

    /// Opens the replica in a directory that is locked already and is only filled: `run` makes the reserve.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn open_to_fill(dir: DataDir) -> Result<Self, ReplicaError> {
        Self::open_with(dir, Options::without_reserve())
    }

    fn open_with(dir: DataDir, options: Options) -> Result<Self, ReplicaError> {
        let bundle = enrolment::load(dir.path())?;
        let board = board_key(&bundle)?;
        let cloud = Signed::<CloudDescriptor>::verify(&bundle.descriptor, &board)?.body().clone();
        let keys = ReplicaKeys::load(dir.path(), &bundle)?;
        let keyring = Keyring::open(&board, &Keyring::documents_of(&bundle), &bundle.device_age_key)?;
        let (replica, incarnation) = (keys.identity.device.body().replica(), keys.name());
        let clock = Clock::system();
        let filling = Filling::of(dir.path())
            .map_err(|source| DataDirError::Io { path: dir.path().to_owned(), source })?;
        let opened = Store::open(Open {
            journal: dir.journal(),
            batches: dir.batches(),
            snapshots: dir.snapshots(),
            view: dir.view(),
            keys,
            device_age_key: Zeroizing::new(bundle.device_age_key.clone()),
            keyring,
            clock: clock.clone(),
            disk: Arc::new(RealDisk),
            filling,
            options,
        })?;
        let status = StatusSource {
            store: opened.store.clone(),
            uplink: Uplink::default(),
            neighbours: Neighbours::default(),
            school_name: bundle.school_name.clone(),
            replica,
            incarnation,
            data: dir.path().to_owned(),
            proofs: Proofs::load(dir.path()),
        };
        Ok(Self { dir, bundle, cloud, opened, status, clock })
    }

    /// Takes what an uplink needs, with the desk at which couriers reach it. The store goes on without a listener for sealed headers when the uplink ends.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn uplink(&mut self, cloud_override: Option<String>) -> Result<(uplink::Config, Desk), ReplicaError> {
        let keys = self.keys()?;
        let bundled_documents = Keyring::documents_of(&self.bundle);
        let (store, clock) = (self.opened.store.clone(), self.clock.clone());
        let quarantine = Quarantine::of(self.dir.path());
        let (desk, couriers) = Desk::new(&keys, bundled_documents.clone(), store, quarantine.clone(), clock);
        let config = uplink::Config {
            keys,
            tls_certificate_pem: self.bundle.tls_certificate_pem.clone(),
            bundled_documents,
            cloud: self.cloud.clone(),
            cloud_override,
            ways: None,
            store: self.opened.store.clone(),
            evidence: self.opened.evidence.clone(),
            sealed: self.opened.take_sealed(),
            shared: self.status.uplink.clone(),
            clock: self.clock.clone(),
            renew: watch::Sender::new(false),
            // A store that is whole has something of every tier that there is.
            snapshots: self.opened.store.filling().takes_snapshots(),
            quarantine,
            couriers,
            purpose: uplink::Purpose::Serve,
            proofs: self.status.proofs.clone(),
            known: watch::Sender::new(Known::at_start(&self.opened.evidence, self.opened.store.documents())),
        };
        Ok((config, desk))
    }

    /// Takes what the task around neighbours needs; `known` is told by the uplink that answers the desk.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn neighbours(
        &self,
        desk: Desk,
        known: watch::Receiver<Known>,
        listener: Option<TcpListener>,
        addresses: Vec<String>,
    ) -> Result<neighbours::Config, ReplicaError> {
        let keys = self.keys()?;
        let tls = neighbours::Own {
            key: keys.device,
            certificate_pem: self.bundle.tls_certificate_pem.clone(),
            authority_pem: self.bundle.ca_pem.clone(),
        };
        let (identity, board, shared) = (keys.identity, keys.board, self.status.neighbours.clone());
        Ok(neighbours::Config { desk, identity, board, tls, known, shared, listener, addresses })
    }

    /// Loads the keys again; each user of them has its own copy.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn keys(&self) -> Result<ReplicaKeys, ReplicaError> {
        Ok(ReplicaKeys::load(self.dir.path(), &self.bundle)?)
    }
}
