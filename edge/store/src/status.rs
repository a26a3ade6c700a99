//! The honest status of a replica: what is kept, what is safe, how old the difference is, what fails.
//!
//! One shape for the command line, the API and the pages. Facts that scripts rely on: `kept`, `safe`,
//! `unsafe`, `replica`, `school`, `replayed`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use sonae_proto::ids::{Incarnation, LogName, ReplicaId, SchoolCode, Tier};
use sonae_proto::vector::Heads;
use utoipa::ToSchema;

use crate::clock::Clock;
use crate::erasure::{ErasureStatus, KeyStatus};
use crate::filling::{Coming, RebuildStatus, SnapshotProgress};
use crate::keyring::KeyYears;
use crate::neighbours::{NeighbourStatus, Neighbours};
use crate::proof::{ProofStatus, Proofs};
use crate::quarantine::{Quarantine, WaitingLog};
use crate::retention::{self, RetentionStatus};
use crate::snapshot::Made;
use crate::state::{Point, StoreState};
use crate::store::Store;

/// How many of the last errors are kept for people.
const ERRORS_MAX: usize = 8;

/// What the uplink says of itself. Shared: the uplink writes, everybody reads.
#[derive(Debug, Clone, Default)]
pub struct Uplink(Arc<RwLock<UplinkStatus>>);

/// The progress of receipts while the line is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct StallStatus {
    /// Milliseconds since a receipt moved what is safe, with changes waiting and the line up.
    pub for_ms: u64,
}

/// What the uplink says of itself.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
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
    /// A log of another of which the cloud has another branch than is held here, so that it never comes whole.
    #[serde(skip)]
    pub parted: Option<LogName>,
    /// Whether the cloud could read enough of its sites to say what it has.
    pub is_complete: bool,
    /// The snapshot that is being fetched.
    #[serde(skip)]
    pub snapshot: Option<SnapshotProgress>,
    /// What is known of what is still to come.
    #[serde(skip)]
    pub coming: Coming,
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
    /// Present while replication stands still: the line is up, changes wait, and no receipt has come for five minutes.
    pub stalled: Option<StallStatus>,
    /// The steady time at which that began.
    #[serde(skip)]
    pub stalled_since: Option<u64>,
    /// Alarms and errors, the newest last.
    pub errors: Vec<ErrorStatus>,
}

/// The newest snapshot of a tier that was made here, if one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct SnapshotStatus {
    /// Of which tier.
    #[schema(value_type = String)]
    pub tier: Tier,
    /// Bytes of its parts.
    pub bytes: u64,
    /// Whether the cloud has it at the quorum.
    pub safe: bool,
    /// Whether another is due as soon as everything is safe.
    pub due: bool,
}

/// A replica of this school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReplicaStatus {
    /// The device.
    #[schema(value_type = String)]
    pub replica: ReplicaId,
    /// Its incarnation.
    #[schema(value_type = String)]
    pub incarnation: Incarnation,
    /// Why it began.
    #[schema(value_type = String)]
    pub beginning: sonae_proto::identity::Beginning,
    /// When, by its own clock.
    pub began_ms: u64,
    /// Whether the same device has another incarnation: a rebuild, or a bundle that is in use twice.
    pub device_has_several: bool,
    /// Whether it is this replica itself.
    pub this: bool,
}

/// An error that somebody should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorStatus {
    /// When, milliseconds since 1970 UTC, by the clock as it was then.
    pub at_ms: u64,
    /// How long ago, in milliseconds, whatever the clock has done since.
    pub age_ms: u64,
    /// The steady time.
    #[serde(skip)]
    pub steady_ms: u64,
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
    pub fn note_error(&self, clock: &Clock, code: &str, text: String) {
        let (at_ms, steady_ms) = (clock.now_ms(), clock.steady_ms());
        self.update(|status| {
            if status.errors.len() >= ERRORS_MAX {
                status.errors.remove(0);
            }
            status.errors.push(ErrorStatus { at_ms, age_ms: 0, steady_ms, code: code.to_owned(), text });
        });
    }

    /// Returns a copy of the present state with the ages of this moment.
    fn aged(&self, steady_ms: u64) -> UplinkStatus {
        let mut status = self.get();
        for error in &mut status.errors {
            error.age_ms = steady_ms.saturating_sub(error.steady_ms);
        }
        let for_ms = |since: u64| steady_ms.saturating_sub(since);
        status.stalled = status.stalled_since.map(|since| StallStatus { for_ms: for_ms(since) });
        status
    }
}

/// The whole status.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Status {
    /// Whose data.
    #[schema(value_type = String)]
    pub school: SchoolCode,
    /// The school's name.
    pub school_name: String,
    /// The device.
    #[schema(value_type = String)]
    pub replica: ReplicaId,
    /// Its present incarnation.
    #[schema(value_type = String)]
    pub incarnation: Incarnation,
    /// The told time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// For each tier the last change that is on stable storage here.
    #[schema(value_type = BTreeMap<String, Point>)]
    pub kept: BTreeMap<Tier, Point>,
    /// For each tier the last change with a receipt.
    #[schema(value_type = BTreeMap<String, Point>)]
    pub safe: BTreeMap<Tier, Point>,
    /// Kept changes without a receipt.
    #[serde(rename = "unsafe")]
    pub unsafe_changes: u64,
    /// The same by tier.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub unsafe_by_tier: BTreeMap<Tier, u64>,
    /// Age of the oldest of them in milliseconds; absent when there is none.
    pub lag_ms: Option<u64>,
    /// The same by tier.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub lag_ms_by_tier: BTreeMap<Tier, u64>,
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
    /// How far the rebuild is; absent when none is under way.
    pub rebuild: Option<RebuildStatus>,
    /// Since when the board lets nobody write here, by its clock; absent when people may write.
    pub held_ms: Option<u64>,
    /// Each key, and what here is sealed to it.
    pub key_uses: Vec<KeyStatus>,
    /// What was erased, by tier, and what is waited for before nothing of it can be read anywhere.
    pub erasures: Vec<ErasureStatus>,
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
    /// Other replicas of the school on the same LAN.
    pub neighbours: Vec<NeighbourStatus>,
    /// The newest error, if any.
    pub last_error: Option<ErrorStatus>,
}

/// The disk.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Storage {
    /// Bytes of journal and sealed batches.
    pub used_bytes: u64,
    /// Bytes of the file system, if it says so.
    pub total_bytes: Option<u64>,
    /// Bytes that it has left, if it says so.
    pub free_bytes: Option<u64>,
    /// Bytes that tier 0 may still take when nothing else is left.
    pub reserved_bytes: u64,
    /// Whether even tier 0 finds no room now: nothing is saved.
    pub is_full: bool,
    /// Tiers that are refused because the disk is nearly full, or the tier over its quota.
    #[schema(value_type = Vec<String>)]
    pub refused_tiers: Vec<Tier>,
    /// What each tier has and may have.
    #[schema(value_type = BTreeMap<String, TierStorage>)]
    pub tiers: BTreeMap<Tier, TierStorage>,
}

/// What a tier has of the disk, and may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct TierStorage {
    /// Bytes of its sealed batches that have left the journal, own and peers'.
    pub used_bytes: u64,
    /// Bytes that it may have of them; absent for tier 0, and where nobody knows how large the disk is.
    pub bytes_max: Option<u64>,
    /// Bytes that it leaves free.
    pub free_min_bytes: u64,
    /// What of it is not held as batches any more, and what is lacking before more of them go.
    pub retention: RetentionStatus,
}

/// Composes the status of a replica.
#[derive(Debug, Clone)]
pub struct StatusSource {
    /// The store.
    pub store: Store,
    /// The uplink.
    pub uplink: Uplink,
    /// The neighbours.
    pub neighbours: Neighbours,
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
        let clock = self.store.clock();
        let (now_ms, steady_ms) = (clock.now_ms(), clock.steady_ms());
        let (state, uplink) = (self.store.state(), self.uplink.aged(steady_ms));
        let failed = state.failed.as_ref().map(|text| ErrorStatus {
            at_ms: now_ms,
            age_ms: 0,
            steady_ms,
            code: "store_failed".into(),
            text: text.clone(),
        });
        let age = |(tier, at): (&Tier, &u64)| (*tier, steady_ms.saturating_sub(*at));
        let lag_ms_by_tier: BTreeMap<Tier, u64> = state.oldest_unsafe.iter().map(age).collect();
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
            lag_ms: lag_ms_by_tier.values().copied().max(),
            lag_ms_by_tier,
            disputed: state.disputed,
            loss_counter: state.loss_counter,
            forks: crate::renewal::forks(&self.data),
            replayed: state.replayed,
            view_rebuilt: state.view_rebuilt,
            commits: state.commits,
            flushes: state.flushes,
            keys: KeyYears::of(&self.store.documents(), now_ms),
            rebuild: self.store.filling().status(&uplink, &state.vector),
            held_ms: state.held_ms,
            key_uses: self.store.key_uses(),
            erasures: self.store.erasures(),
            quarantine: Quarantine::of(&self.data).by_log(&state.vector),
            storage: self.storage(state.storage_bytes),
            proof: self.proofs.status(now_ms),
            last_error: failed.or_else(|| uplink.errors.last().cloned()),
            snapshots: snapshots(&self.store),
            neighbours: self.neighbours.get(steady_ms),
            uplink,
        }
    }

    fn storage(&self, used_bytes: u64) -> Storage {
        let (reading, room) = self.store.room();
        let (pressure, quota) = (room.policy.clone().step(&reading), room.policy.quota());
        let tier = |tier| {
            let used_bytes = room.used_by_tier.get(&tier).copied().unwrap_or(0);
            let bytes_max = quota.bytes_max(tier, reading.total_bytes);
            let free_min_bytes = quota.free_min(tier, reading.total_bytes);
            let retention = retention::status(&self.store, &self.proofs, tier);
            (tier, TierStorage { used_bytes, bytes_max, free_min_bytes, retention })
        };
        Storage {
            used_bytes,
            total_bytes: reading.total_bytes,
            free_bytes: reading.free_bytes,
            reserved_bytes: room.reserved_bytes,
            is_full: room.is_full(&reading),
            refused_tiers: Tier::ALL.into_iter().filter(|tier| pressure.refuses(*tier)).collect(),
            tiers: Tier::ALL.into_iter().map(tier).collect(),
        }
    }
}

fn snapshots(store: &Store) -> Vec<SnapshotStatus> {
    let StoreState { own_bytes, loss_counter, .. } = store.state();
    let one = |tier: Tier| {
        let made = Made::read(store.shelf(), tier);
        let is_due = Made::is_due(made.as_ref(), own_bytes.get(&tier).copied().unwrap_or(0));
        let is_any = made.is_some() || is_due;
        let (bytes, safe) = made.map_or((0, false), |made| (made.bytes, made.is_safe(loss_counter)));
        is_any.then_some(SnapshotStatus { tier, bytes, safe, due: is_due })
    };
    Tier::ALL.into_iter().filter_map(one).collect()
}
