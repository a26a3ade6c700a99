//! The scratch store of a restore proof: `DATA/proof/`, made for one proof and gone after it.
//!
//! **Invariant**: it has no identity of its own. What is fetched into it are peers' logs to its engine, the logs of this
//! very incarnation too; nothing is ever written under its name, and nothing in it is anybody's only copy.
//! **Invariant**: it never takes more room than its bound, and none when the disk is short of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::descriptor::CloudDescriptor;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::signed::Signed;
use sonae_proto::vector::Heads;
use sonae_store::enrolment;
use sonae_store::identity::{ReplicaKeys, board_key};
use sonae_store::keyring::Keyring;
use sonae_store::proof::Proofs;
use sonae_store::status::Uplink;
use sonae_store::{
    Clock, Evidence, Filling, Open, Opened, Options, Quarantine, RealDisk, Shelf, Store, held_keys,
};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use super::compare::Restored;
use crate::neighbours::Known;
use crate::replica::ReplicaError;
use crate::uplink::{self, Purpose};

/// Returns where the scratch store of a data directory lies.
#[must_use]
pub fn scratch_dir(data: &Path) -> PathBuf {
    data.join("proof")
}

/// Deletes what a proof that was cut off has left.
///
/// # Errors
/// Those of the system.
pub fn discard(data: &Path) -> io::Result<()> {
    match fs::remove_dir_all(scratch_dir(data)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the bytes of all files under a path.
pub(super) fn bytes_under(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

fn open(data: &Path, bundle: &ReplicaBundle, beside: &Store) -> Result<Opened, ReplicaError> {
    let keyring = Keyring::open(&board_key(bundle)?, &beside.documents(), &bundle.device_age_key)?;
    let dir = scratch_dir(data);
    let shelf = Shelf::new(Arc::new(RealDisk), &dir.join("snapshots"));
    held_keys::copy(beside.shelf(), &shelf).map_err(ReplicaError::Scratch)?;
    Ok(Store::open(Open {
        journal: dir.join("journal"),
        batches: dir.join("batches"),
        view: dir.join("view"),
        snapshots: dir.join("snapshots"),
        keys: ReplicaKeys::load(data, bundle)?,
        device_age_key: Zeroizing::new(bundle.device_age_key.clone()),
        keyring,
        clock: beside.clock().clone(),
        disk: Arc::new(RealDisk),
        filling: Filling::default(),
        options: Options::without_reserve(),
    })?)
}

/// An open scratch store, and what its uplink needs.
pub(super) struct Scratch {
    data: PathBuf,
    bundle: ReplicaBundle,
    cloud: CloudDescriptor,
    opened: Opened,
    clock: Clock,
    /// What the uplink of the proof says of itself.
    pub shared: Uplink,
}

impl Scratch {
    /// Makes an empty one beside a store; a whole one begins where that one begins, since an earlier proof has read what
    /// lies before. Blocking.
    pub fn open(data: &Path, beside: &Store, is_whole: bool) -> Result<Self, ReplicaError> {
        let bundle = enrolment::load(data)?;
        let board = board_key(&bundle)?;
        let cloud = Signed::<CloudDescriptor>::verify(&bundle.descriptor, &board)?.body().clone();
        let mut opened = open(data, &bundle, beside)?;
        let begin = beside.state().foundations.into_values().filter(|_| is_whole);
        for root in begin {
            beside.shelf().copy_to(root, opened.store.shelf()).map_err(ReplicaError::Scratch)?;
            let loaded = tokio::runtime::Handle::current().block_on(opened.store.load_snapshot(root));
            loaded.map_err(|reason| ReplicaError::Scratch(io::Error::other(reason)))?;
            // What an uplink starts from is read when a store is opened.
            opened.close();
            opened = open(data, &bundle, beside)?;
        }
        let clock = beside.clock().clone();
        Ok(Self { data: data.to_owned(), bundle, cloud, opened, clock, shared: Uplink::default() })
    }

    /// Closes it and opens it as the next start of a rebuilt box would. Blocking.
    pub fn reopened(self, beside: &Store) -> Result<Self, ReplicaError> {
        self.opened.close();
        let opened = open(&self.data, &self.bundle, beside)?;
        Ok(Self { opened, ..self })
    }

    /// Takes what an uplink needs that fetches what a proof asks for. The loss counter is that of the store beside.
    pub fn uplink(
        &mut self,
        purpose: Purpose,
        loss_counter: u64,
        cloud_override: Option<String>,
    ) -> Result<uplink::Config, ReplicaError> {
        // The incarnation that goes on in the store beside is none of this one's own.
        let evidence = Evidence {
            safe: BTreeMap::new(),
            loss_counter,
            own: BTreeSet::new(),
            pruned: Heads::new(),
            own_batches: Vec::new(),
            ..self.opened.evidence.clone()
        };
        let (_, couriers) = mpsc::channel(1);
        let known = watch::Sender::new(Known::at_start(&evidence, self.opened.store.documents()));
        Ok(uplink::Config {
            keys: ReplicaKeys::load(&self.data, &self.bundle)?,
            tls_certificate_pem: self.bundle.tls_certificate_pem.clone(),
            bundled_documents: Keyring::documents_of(&self.bundle),
            cloud: self.cloud.clone(),
            cloud_override,
            ways: None,
            store: self.opened.store.clone(),
            evidence,
            sealed: self.opened.take_sealed(),
            shared: self.shared.clone(),
            clock: self.clock.clone(),
            renew: watch::Sender::new(false),
            snapshots: true,
            quarantine: Quarantine::of(&self.data),
            couriers,
            purpose,
            proofs: Proofs::default(),
            known,
        })
    }

    /// Returns how many changes are in it.
    pub fn changes(&self) -> u64 {
        self.opened.store.state().vector.values().sum()
    }

    /// Whether it has failed.
    pub fn failure(&self) -> Option<String> {
        self.opened.store.state().failed
    }

    /// Returns what has come back.
    pub async fn restored(&self) -> Option<Restored> {
        // Nothing is ever written here, so a mark seals nothing.
        let heads = self.opened.store.mark().await.ok()?.heads;
        let (state, uplink) = (self.opened.store.state(), self.shared.get());
        let is_bad = |code: &str| matches!(code, "bad_peer_batch" | "peer_batch_not_stored");
        Some(Restored {
            heads,
            vector: state.vector.into_iter().filter(|(_, sequence)| *sequence > 0).collect(),
            digests: state.digests,
            is_complete: uplink.is_complete,
            manifest_version: uplink.cloud_manifest_version,
            bad: uplink.errors.into_iter().find(|error| is_bad(&error.code)).map(|error| error.text),
        })
    }

    /// Returns the snapshots that tiers begin with.
    pub fn foundations(&self) -> BTreeMap<Tier, Hash32> {
        self.opened.store.state().foundations
    }

    /// Closes it. Blocking.
    pub fn close(self) {
        self.opened.close();
    }
}
