//! What all runs have in common: an enrolled replica, a peer's batches, the sizes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use sonae_journal::sim::SimDisk;
use sonae_proto::batch::Batch;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::{Beginning, IdentityText};
use sonae_proto::ids::Tier;
use sonae_store::options::Options;
use sonae_store::testing::{Board, Stepped, opening};
use sonae_store::{Clock, StoreError, enrolment};

use crate::rig::{action, ask};
use crate::workload::COLLECTIONS;

/// Where the test's time begins: a day of the school year 2026.
pub const BEGIN_MS: u64 = 1_780_000_000_000;

/// What all runs have in common.
pub struct World {
    dir: tempfile::TempDir,
    bundle: ReplicaBundle,
    /// The peer's batches, by tier, in order.
    pub peer: BTreeMap<Tier, Vec<Batch>>,
    /// The peer's identity.
    pub identity: IdentityText,
}

/// A folder in memory where there is one: the view is flushed often, and none of it is what is tested.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (board, dir) = (Board::default(), scratch());
    let (bundle, other) = (board.bundle(), board.bundle());
    let peer_data = dir.path().join("peer");
    drop(enrolment::enrol(&dir.path().join("own"), &bundle, Beginning::Enrolment, BEGIN_MS).unwrap());
    drop(enrolment::enrol(&peer_data, &other, Beginning::Enrolment, BEGIN_MS).unwrap());
    let keys = sonae_store::identity::ReplicaKeys::load(&peer_data, &other).unwrap();
    let identity = IdentityText {
        device: keys.identity.device.text().to_owned(),
        incarnation: keys.identity.incarnation.text().to_owned(),
    };
    let mut peer = open(&peer_data, &other, &SimDisk::new(1), &dir.path().join("v"), &options()).unwrap().0;
    let mut batches: BTreeMap<Tier, Vec<Batch>> = BTreeMap::new();
    for n in 0..12_usize {
        let (collection, field) = COLLECTIONS[[0, 3][n % 2]];
        let edits = vec![(collection, format!("r{}", n % 8), field, format!("peer {n}"))];
        let store = peer.store.clone();
        ask(&mut peer, async move { store.write(action(&edits, false)).await }).unwrap();
        let store = peer.store.clone();
        ask(&mut peer, async move { store.seal_now().await });
        while let Ok(header) = peer.sealed.try_recv() {
            let store = peer.store.clone();
            let bytes = ask(&mut peer, async move { store.batch(header.log, header.first).await }).unwrap();
            batches.entry(header.log.tier).or_default().push(Batch::from_bytes(bytes).unwrap());
        }
    }
    World { dir, bundle, peer: batches, identity }
});

/// Small segments and early upkeep, so that short workloads meet all of it.
pub fn options() -> Options {
    Options {
        journal: sonae_journal::Options {
            segment_bytes: 32 * 1024,
            free_segments_max: 1,
            reserve_segments: 1,
            ..sonae_journal::Options::default()
        },
        overlay_records_max: 12,
        segments_max: 2,
        ..Options::default()
    }
}

fn open(
    data: &Path,
    bundle: &ReplicaBundle,
    disk: &SimDisk,
    view: &Path,
    options: &Options,
) -> Result<(Stepped, Arc<AtomicU64>), StoreError> {
    let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
    let told = Arc::clone(&now_ms);
    let clock = Clock::told(move || told.load(Ordering::Relaxed));
    let mut open = opening(data, bundle, clock, Arc::new(disk.clone()), options.clone());
    (open.journal, open.batches, open.view) = ("/journal".into(), "/batches".into(), view.to_owned());
    Ok((Stepped::open(open)?, now_ms))
}

/// Opens the replica under test on a disk. Returns it with its clock.
pub fn open_own(
    disk: &SimDisk,
    view: &Path,
    options: &Options,
) -> Result<(Stepped, Arc<AtomicU64>), StoreError> {
    open(&WORLD.dir.path().join("own"), &WORLD.bundle, disk, view, options)
}
