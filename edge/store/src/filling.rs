//! Filling: a rebuild that has not ended, and which tiers people may use meanwhile.
//!
//! `DATA/rebuilding` says that the store is being filled from the cloud and of which tiers everything is here. It is JSON,
//! `{"usable":["0"],"expected":null}`; a file that cannot be read says that nothing is usable. No file: all of it is.
//!
//! **Invariant**: of a tier that is not usable nothing is read, nothing is written by people, and no snapshot is made: an
//! empty list would look like a school without pupils, a write would have seen nothing, and a snapshot would spread the gap.
//! **Invariant**: a tier that is usable stays so, whatever power does: the file is durable before anybody reads the tier.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sonae_proto::ids::Tier;
use sonae_proto::vector::{Heads, Sequences};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::data_dir::{REBUILDING, sync_dir};
use crate::status::UplinkStatus;

/// Bytes on the line for a change that comes in a batch, in a backlog of a hundred a batch: what the time left is told by.
const CHANGE_BYTES: u64 = 40;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Tiers of which everything is here that the cloud has named.
    usable: BTreeSet<Tier>,
    /// Heads from outside the cloud that are to be here in the end. All logs come whole then, and no snapshots.
    #[serde(default)]
    expected: Option<Heads>,
}

/// Which tiers of a store may be used. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct Filling(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data: PathBuf,
    /// `None` when nothing is being filled.
    note: watch::Sender<Option<Note>>,
}

impl Default for Filling {
    /// A store that is whole.
    fn default() -> Self {
        Self(Arc::new(Inner { data: PathBuf::new(), note: watch::Sender::new(None) }))
    }
}

/// A tier is not whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "tier {tier} is still being fetched from the cloud; `sonae-edge status` says how much is left. What is usable \
     already goes on"
)]
pub struct NotYet {
    /// Which.
    pub tier: Tier,
}

impl Filling {
    /// Says that a data directory is to be filled, and that nothing of it is usable yet.
    ///
    /// # Errors
    /// Those of the system.
    ///
    /// # Durability
    /// On stable storage when this returns.
    pub fn begin(data: &Path) -> io::Result<()> {
        write(data, &Note::default())
    }

    /// Returns which tiers of a data directory are usable: all, unless a rebuild has begun here and not ended.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of(data: &Path) -> io::Result<Self> {
        let note = match fs::read(data.join(REBUILDING)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_default()),
        };
        Ok(Self(Arc::new(Inner { data: data.to_owned(), note: watch::Sender::new(note) })))
    }

    /// Whether a rebuild has begun here and not ended.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.0.note.borrow().is_some()
    }

    /// Whether a tier may be used.
    #[must_use]
    pub fn is_usable(&self, tier: Tier) -> bool {
        self.0.note.borrow().as_ref().is_none_or(|note| note.usable.contains(&tier))
    }

    /// Refuses a tier that may not be used yet.
    ///
    /// # Errors
    /// [`NotYet`].
    pub fn check(&self, tier: Tier) -> Result<(), NotYet> {
        if self.is_usable(tier) { Ok(()) } else { Err(NotYet { tier }) }
    }

    /// Returns the tiers that may not be used yet, the most urgent first.
    #[must_use]
    pub fn waiting(&self) -> Vec<Tier> {
        Tier::ALL.into_iter().filter(|tier| !self.is_usable(*tier)).collect()
    }

    /// Whether tiers may begin with snapshots. What heads from outside the cloud are to prove comes change by change.
    #[must_use]
    pub fn takes_snapshots(&self) -> bool {
        self.0.note.borrow().as_ref().is_some_and(|note| note.expected.is_none())
    }

    /// Returns the heads from outside the cloud that are to be here in the end.
    #[must_use]
    pub fn expected(&self) -> Option<Heads> {
        self.0.note.borrow().as_ref().and_then(|note| note.expected.clone())
    }

    /// Tells of every change: a tier that becomes usable, the end.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.0.note.subscribe())
    }

    /// Notes which heads are to be here in the end.
    ///
    /// # Errors
    /// Those of the system; nothing has changed then.
    ///
    /// # Durability
    /// On stable storage when this returns.
    pub fn expect(&self, heads: Heads) -> io::Result<()> {
        self.change(|note| note.expected = Some(heads))
    }

    /// Lets people use a tier. All that it holds must be durable.
    ///
    /// # Errors
    /// Those of the system; it is not usable then.
    ///
    /// # Durability
    /// It stays usable, whatever power does, once this returns.
    pub fn fill(&self, tier: Tier) -> io::Result<()> {
        self.change(|note| {
            note.usable.insert(tier);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Note)) -> io::Result<()> {
        let Some(mut note) = self.0.note.borrow().clone() else { return Ok(()) };
        change(&mut note);
        write(&self.0.data, &note)?;
        self.0.note.send_replace(Some(note));
        Ok(())
    }

    /// Everything is here: from now on this is a store like any other.
    ///
    /// # Errors
    /// Those of the system; it goes on being filled then.
    ///
    /// # Durability
    /// On stable storage when this returns.
    pub fn end(&self) -> io::Result<()> {
        if self.is_filling() {
            forget(&self.0.data)?;
            self.0.note.send_replace(None);
        }
        Ok(())
    }

    /// Composes what is shown of a rebuild; `None` when there is none. `vector` is what is held.
    #[must_use]
    pub fn status(&self, uplink: &UplinkStatus, vector: &Sequences) -> Option<RebuildStatus> {
        if !self.is_filling() {
            return None;
        }
        let tiers: BTreeMap<Tier, TierFilling> =
            Tier::ALL.into_iter().map(|tier| (tier, self.tier(tier, uplink, vector))).collect();
        let left: Option<u64> = tiers.values().map(|tier| tier.left_bytes).sum();
        let rate = uplink.coming.bytes_per_second.filter(|rate| uplink.up && *rate > 0);
        let left_ms = left.zip(rate).map(|(bytes, rate)| bytes.saturating_mul(1_000) / rate);
        Some(RebuildStatus { tiers, left_bytes: left, left_ms })
    }

    fn tier(&self, tier: Tier, uplink: &UplinkStatus, vector: &Sequences) -> TierFilling {
        let usable = self.is_usable(tier);
        let here = vector.iter().filter(|(log, _)| log.tier == tier).map(|(_, sequence)| sequence).sum();
        let named = uplink.cloud_heads.iter().filter(|(log, _)| log.tier == tier);
        let is_named = uplink.coming.is_named;
        // Own changes that the cloud does not have yet are here, and nothing that is to come.
        let there = is_named.then(|| named.map(|(_, head)| head.sequence).sum::<u64>().max(here));
        let left_bytes =
            if usable { Some(0) } else { there.map(|there| left_bytes(tier, uplink, here, there)) };
        TierFilling { usable, here, there, left_bytes }
    }
}

/// Returns about how many bytes of a tier are still to come: of its snapshot those that are not on the shelf, of batches
/// what as many changes usually take.
fn left_bytes(tier: Tier, uplink: &UplinkStatus, here: u64, there: u64) -> u64 {
    let offered = uplink.coming.snapshots.get(&tier).filter(|_| here == 0);
    let snapshot = uplink.snapshot.filter(|snapshot| snapshot.tier == tier);
    let parts = snapshot.map(|snapshot| snapshot.bytes.saturating_sub(snapshot.here_bytes));
    let bytes = parts.or(offered.map(|offer| offer.bytes)).unwrap_or(0);
    let covered = offered.map_or(here, |offer| offer.changes);
    bytes.saturating_add(there.saturating_sub(covered).saturating_mul(CHANGE_BYTES))
}

/// Waits for changes of a [`Filling`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<Option<Note>>);

impl Changes {
    /// Waits for the next one; for ever once the store is gone.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// How far a rebuild is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RebuildStatus {
    /// Each tier.
    #[schema(value_type = BTreeMap<String, TierFilling>)]
    pub tiers: BTreeMap<Tier, TierFilling>,
    /// About how many bytes are still to come; absent before the cloud has said what there is.
    pub left_bytes: Option<u64>,
    /// About how long they take at the speed so far, in milliseconds; absent while nothing comes.
    pub left_ms: Option<u64>,
}

/// How far a tier is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TierFilling {
    /// Whether people may use it.
    pub usable: bool,
    /// Changes that are here. Those of a snapshot count once it is here whole.
    pub here: u64,
    /// Changes that there are, as far as the cloud has said; absent before it has.
    pub there: Option<u64>,
    /// About how many bytes of it are still to come.
    pub left_bytes: Option<u64>,
}

/// What the uplink knows of what is still to come.
#[derive(Debug, Clone, Default)]
pub struct Coming {
    /// Whether the cloud has named what there is.
    pub is_named: bool,
    /// The snapshots that it offers.
    pub snapshots: BTreeMap<Tier, Offered>,
    /// How fast the present connection is.
    pub bytes_per_second: Option<u64>,
}

/// A snapshot that the cloud offers.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    /// Bytes of its parts.
    pub bytes: u64,
    /// Changes that it stands for.
    pub changes: u64,
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

/// Forgets that a data directory was to be filled: another store has taken its place, and that one is whole.
pub(crate) fn forget(data: &Path) -> io::Result<()> {
    match fs::remove_file(data.join(REBUILDING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_dir(data),
    }
}

fn write(data: &Path, note: &Note) -> io::Result<()> {
    let staged = data.join(format!("{REBUILDING}.new"));
    let mut file = File::create(&staged)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(staged, data.join(REBUILDING))?;
    sync_dir(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::ids::{Hash32, Incarnation, LogName};
    use sonae_proto::vector::LogHead;

    fn log(tier: Tier) -> LogName {
        LogName { tier, incarnation: Incarnation::from_bytes([1; 16]) }
    }

    fn head(sequence: u64) -> LogHead {
        LogHead { sequence, hash: Hash32([1; 32]) }
    }

    /// Goal: what is usable stays so, and nothing is that nobody has said. Method: fill tier by tier, read again after each
    /// step; then a file without sense, as an earlier version wrote it.
    #[test]
    fn what_is_usable_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert!(!Filling::of(data).unwrap().is_filling(), "nothing has begun here");
        Filling::begin(data).unwrap();
        let filling = Filling::of(data).unwrap();
        assert_eq!(filling.waiting(), Tier::ALL);
        assert_eq!(filling.check(Tier::Safety), Err(NotYet { tier: Tier::Safety }));
        filling.fill(Tier::Safety).unwrap();
        let again = Filling::of(data).unwrap();
        assert_eq!(again.waiting(), [Tier::Daily, Tier::Archive]);
        assert!(again.check(Tier::Safety).is_ok() && again.takes_snapshots());
        again.expect(Heads::from([(log(Tier::Daily), head(4))])).unwrap();
        let again = Filling::of(data).unwrap();
        assert_eq!(again.expected().map(|heads| heads.len()), Some(1));
        assert!(!again.takes_snapshots() && again.is_usable(Tier::Safety));
        again.end().unwrap();
        assert!(!Filling::of(data).unwrap().is_filling() && again.waiting().is_empty());
        again.fill(Tier::Daily).unwrap();
        assert!(!data.join(REBUILDING).exists(), "what has ended does not begin again");
        fs::write(data.join(REBUILDING), "").unwrap();
        assert_eq!(Filling::of(data).unwrap().waiting(), Tier::ALL);
    }

    /// Goal: whoever waits for a tier is told. Method: subscribe, fill, end.
    #[tokio::test]
    async fn changes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        Filling::begin(dir.path()).unwrap();
        let filling = Filling::of(dir.path()).unwrap();
        let mut changes = filling.changes();
        filling.fill(Tier::Safety).unwrap();
        changes.next().await;
        filling.end().unwrap();
        changes.next().await;
    }

    /// Goal: what is left is told by what was said, and nothing is made up. Method: a snapshot that has not begun, is half
    /// here, is laid; a tail; a line that is down; a cloud that has not spoken.
    #[test]
    fn what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        Filling::begin(dir.path()).unwrap();
        let filling = Filling::of(dir.path()).unwrap();
        let mut uplink = UplinkStatus::default();
        let silent = filling.status(&uplink, &Sequences::new()).unwrap();
        assert_eq!((silent.left_bytes, silent.left_ms), (None, None));
        filling.fill(Tier::Safety).unwrap();
        uplink.up = true;
        uplink.cloud_heads = Heads::from([(log(Tier::Daily), head(1_010))]);
        uplink.coming.is_named = true;
        uplink.coming.snapshots.insert(Tier::Daily, Offered { bytes: 50_000, changes: 1_000 });
        uplink.coming.bytes_per_second = Some(10_000);
        let left = |uplink: &UplinkStatus, here| {
            let status = filling.status(uplink, &Sequences::from([(log(Tier::Daily), here)])).unwrap();
            (status.left_bytes, status.left_ms)
        };
        assert_eq!(left(&uplink, 0), (Some(50_400), Some(5_040)));
        uplink.snapshot = Some(SnapshotProgress { tier: Tier::Daily, here_bytes: 30_000, bytes: 50_000 });
        assert_eq!(left(&uplink, 0), (Some(20_400), Some(2_040)));
        uplink.snapshot = None;
        assert_eq!(left(&uplink, 1_000), (Some(400), Some(40)));
        uplink.up = false;
        assert_eq!(left(&uplink, 1_000), (Some(400), None), "nothing comes now");
        filling.end().unwrap();
        assert_eq!(filling.status(&uplink, &Sequences::new()), None);
    }
}
