//! The honest status of a replica: what is kept, what is safe, how old the difference is, what fails.
//!
//! One shape for the command line, the API and the pages. Facts that scripts rely on: `kept`, `safe`,
//! `unsafe`, `replica`, `school`, `replayed`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use sonae_proto::ids::{Incarnation, ReplicaId, SchoolCode, Tier};
use sonae_proto::vector::Heads;

use crate::keyring::KeyYears;
use crate::proof::{ProofStatus, Proofs};
use crate::quarantine::{Quarantine, WaitingLog};
use crate::snapshot::Made;
use crate::state::Point;
use crate::store::Store;

/// How many of the last errors are kept for people.
const ERRORS_MAX: usize = 8;

/// What the uplink says of itself. Shared: the uplink writes, everybody reads.
#[derive(Debug, Clone, Default)]
pub struct Uplink(Arc<RwLock<UplinkStatus>>);

/// What the uplink says of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UplinkStatus {
    /// Whether the cloud answers now.
    pub up: bool,
    /// When it was last heard of, milliseconds since 1970 UTC.
    pub last_contact_ms: Option<u64>,
    /// Address that is dialled.
    pub cloud: Option<String>,
    /// What carries the connection: `quic`, or `tcp` where UDP is blocked; absent without a connection.
    pub transport: Option<&'static str>,
    /// Other incarnations of this school, from the cloud.
    pub replicas: Vec<ReplicaStatus>,
    /// Heads that the cloud has said it has.
    #[serde(skip)]
    pub cloud_heads: Heads,
    /// Whether everything that the cloud has of others is here.
    pub has_all: bool,
    /// Whether the cloud could read enough of its sites to say what it has.
    pub is_complete: bool,
    /// The snapshot that is being fetched.
    #[serde(skip)]
    pub snapshot: Option<SnapshotProgress>,
    /// Whether something is being fetched, or is to be.
    #[serde(skip)]
    pub is_fetching: bool,
    /// Version of the newest manifest of recipients that the cloud has.
    #[serde(skip)]
    pub cloud_manifest_version: u64,
    /// Sealed bytes that were sent, batches with their headers.
    pub batch_bytes_sent: u64,
    /// Changes in them, as often as they were sent.
    pub changes_sent: u64,
    /// UDP payload bytes, or bytes over TCP, that were sent and received on all connections.
    pub udp_bytes_sent: u64,
    /// Received.
    pub udp_bytes_received: u64,
    /// Connections that were made since the start.
    pub connections: u64,
    /// Alarms and errors, the newest last.
    pub errors: Vec<ErrorStatus>,
}

/// The newest snapshot of a tier that was made here, if one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    /// Of which tier.
    pub tier: Tier,
    /// Bytes of its parts.
    pub bytes: u64,
    /// Whether the cloud has it at the quorum.
    pub safe: bool,
    /// Whether another is due as soon as everything is safe.
    pub due: bool,
}

/// How far the fetch of a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// Of which tier.
    pub tier: Tier,
    /// Bytes of its parts that are here.
    pub here_bytes: u64,
    /// Bytes of all its parts.
    pub bytes: u64,
}

/// A replica of this school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// The device.
    pub replica: ReplicaId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Why it began.
    pub beginning: sonae_proto::identity::Beginning,
    /// When, by its own clock.
    pub began_ms: u64,
    /// Whether the same device has another incarnation: a rebuild, or a bundle that is in use twice.
    pub device_has_several: bool,
    /// Whether it is this replica itself.
    pub this: bool,
}

/// An error that somebody should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorStatus {
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// A stable name.
    pub code: String,
    /// What happened and what to do next.
    pub text: String,
}

impl Uplink {
    /// Returns a copy of the present state.
    #[must_use]
    pub fn get(&self) -> UplinkStatus {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the state.
    pub fn update(&self, change: impl FnOnce(&mut UplinkStatus)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes an error. Only the newest few are kept.
    pub fn note_error(&self, at_ms: u64, code: &str, text: String) {
        self.update(|status| {
            if status.errors.len() >= ERRORS_MAX {
                status.errors.remove(0);
            }
            status.errors.push(ErrorStatus { at_ms, code: code.to_owned(), text });
        });
    }
}

/// The whole status.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Whose data.
    pub school: SchoolCode,
    /// The school's name.
    pub school_name: String,
    /// The device.
    pub replica: ReplicaId,
    /// Its present incarnation.
    pub incarnation: Incarnation,
    /// The told time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// For each tier the last change that is on stable storage here.
    pub kept: BTreeMap<Tier, Point>,
    /// For each tier the last change with a receipt.
    pub safe: BTreeMap<Tier, Point>,
    /// Kept changes without a receipt.
    #[serde(rename = "unsafe")]
    pub unsafe_changes: u64,
    /// The same by tier.
    pub unsafe_by_tier: BTreeMap<Tier, u64>,
    /// Age of the oldest of them in milliseconds; absent when there is none.
    pub lag_ms: Option<u64>,
    /// Records in which writers did not see each other.
    pub disputed: u64,
    /// How often the cloud was found to have lost something.
    pub loss_counter: u64,
    /// Branches of own logs that are kept aside: how often this box had to go on under a new incarnation, as long
    /// as they are kept.
    pub forks: usize,
    /// Changes replayed at the last start.
    pub replayed: u64,
    /// Whether the view had to be rebuilt at the last start.
    pub view_rebuilt: bool,
    /// Journal commits since the start.
    pub commits: u64,
    /// Device flushes that they took.
    pub flushes: u64,
    /// School years and the keys for them.
    pub keys: KeyYears,
    /// Batches of revoked devices that wait here for the board's decision, by log.
    pub quarantine: Vec<WaitingLog>,
    /// The disk.
    pub storage: Storage,
    /// Snapshots that were made here, for whoever has to rebuild.
    pub snapshots: Vec<SnapshotStatus>,
    /// The restore proofs.
    pub proof: ProofStatus,
    /// The uplink.
    pub uplink: UplinkStatus,
    /// The newest error, if any.
    pub last_error: Option<ErrorStatus>,
}

/// The disk.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Storage {
    /// Bytes of journal and sealed batches.
    pub used_bytes: u64,
    /// Bytes that the file system has left, if it says so.
    pub free_bytes: Option<u64>,
}

/// Composes the status of a replica.
#[derive(Debug, Clone)]
pub struct StatusSource {
    /// The store.
    pub store: Store,
    /// The uplink.
    pub uplink: Uplink,
    /// The school's name.
    pub school_name: String,
    /// The device.
    pub replica: ReplicaId,
    /// Its present incarnation.
    pub incarnation: Incarnation,
    /// The data directory, whose file system is looked at.
    pub data: std::path::PathBuf,
    /// The restore proofs.
    pub proofs: Proofs,
}

impl StatusSource {
    /// Composes the status of this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let (state, uplink) = (self.store.state(), self.uplink.get());
        let now_ms = self.store.clock().now_ms();
        let failed =
            state.failed.map(|text| ErrorStatus { at_ms: now_ms, code: "store_failed".into(), text });
        Status {
            school: self.store.school(),
            school_name: self.school_name.clone(),
            replica: self.replica,
            incarnation: self.incarnation,
            now_ms,
            kept: state.kept,
            safe: state.safe,
            unsafe_changes: state.unsafe_by_tier.values().sum(),
            unsafe_by_tier: state.unsafe_by_tier,
            lag_ms: state.oldest_unsafe_ms.map(|oldest| now_ms.saturating_sub(oldest)),
            disputed: state.disputed,
            loss_counter: state.loss_counter,
            forks: crate::renewal::forks(&self.data),
            replayed: state.replayed,
            view_rebuilt: state.view_rebuilt,
            commits: state.commits,
            flushes: state.flushes,
            keys: KeyYears::of(&self.store.documents(), now_ms),
            quarantine: Quarantine::of(&self.data).by_log(&state.vector),
            storage: Storage { used_bytes: state.storage_bytes, free_bytes: free_bytes(&self.data) },
            proof: self.proofs.status(now_ms),
            last_error: failed.or_else(|| uplink.errors.last().cloned()),
            snapshots: snapshots(&self.store),
            uplink,
        }
    }
}

fn snapshots(store: &Store) -> Vec<SnapshotStatus> {
    let own_bytes = store.state().own_bytes;
    let one = |tier: Tier| {
        let made = Made::read(store.shelf(), tier);
        let is_due = Made::is_due(made.as_ref(), own_bytes.get(&tier).copied().unwrap_or(0));
        let is_any = made.is_some() || is_due;
        let (bytes, safe) = made.map_or((0, false), |made| (made.bytes, made.safe));
        is_any.then_some(SnapshotStatus { tier, bytes, safe, due: is_due })
    };
    Tier::ALL.into_iter().filter_map(one).collect()
}

/// Returns the bytes that a path's file system has left for this process, if it says so.
pub(crate) fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}
