//! Room on the disk: how much there is, and who may still take it (P9).
//!
//! The policy is pure: it is told a reading and says from which tier on nothing more is taken. It refuses tier 2
//! first, then tier 1, and never tier 0: what tier 0 needs is left free by the others, and when somebody else has
//! taken even that, the journal's reserve is there for it.
//!
//! Decision: `docs/decisions/0020-room-for-tier-0.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sonae_journal::Disk;
use sonae_journal::limits::{PAGE_BYTES, RESERVE_COMMITS_MIN, SEGMENT_BYTES_DEFAULT};
use sonae_proto::ids::Tier;

const MIB: u64 = 1024 * 1024;

/// Bytes that must be free before the view is written: several times what 4,000 records take.
pub const CHECKPOINT_ROOM_BYTES: u64 = 16 * MIB;

/// Bytes that tier 1 leaves free at least: a checkpoint, so that the journal goes on being recycled for tier 0,
/// and as much again for tier 0's own batches.
pub const DAILY_FREE_MIN_BYTES: u64 = 2 * CHECKPOINT_ROOM_BYTES;

/// Bytes that tier 2 leaves free at least: so that tier 1 has several days after tier 2 has had to stop.
pub const ARCHIVE_FREE_MIN_BYTES: u64 = DAILY_FREE_MIN_BYTES + CHECKPOINT_ROOM_BYTES;

/// Bytes that a tier leaves free at most, however large the disk is.
pub const FREE_MIN_BYTES_MAX: u64 = 1024 * MIB;

/// Parts of the room that must have come back beyond a bound before a tier is taken again: an eighth, so that a
/// disk at its bound does not take and refuse in turn.
const COMES_BACK_PART: u64 = 8;

/// Bytes of room for each byte of an import's changes: in the journal, in sealed batches, in the view.
const IMPORT_FACTOR: u64 = 3;

/// Changes of tier 0 that a full disk takes at least, with 16 MiB of reserve: each may take a page for itself, one
/// for its batch and one for the mark after it, and [`RESERVE_COMMITS_MIN`] / 3 = 1,362. Pressed together, as in a
/// busy hour, they are many times as many. Changes of more than a page, 4 KiB, count for as many as they take.
pub const RESERVE_CHANGES_MIN: usize = RESERVE_COMMITS_MIN / 3;

const _: () = assert!(RESERVE_CHANGES_MIN == 1_362);
const _: () = assert!(ARCHIVE_FREE_MIN_BYTES < FREE_MIN_BYTES_MAX);

/// What each tier may take. What is not said follows from the size of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of sealed batches of a tier, own and peers', at most. Tier 0 has no bound but the disk.
    pub bytes_max: BTreeMap<Tier, u64>,
    /// Bytes that a tier leaves free at least.
    pub free_min: BTreeMap<Tier, u64>,
}

/// What is known of the disk at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes of the file system; `None` where nobody can tell.
    pub total_bytes: Option<u64>,
    /// Bytes of it that are free.
    pub free_bytes: Option<u64>,
    /// Bytes of sealed batches by tier.
    pub used_by_tier: BTreeMap<Tier, u64>,
    /// Whether the journal has just found no room for an ordinary commit, whatever the file system says.
    pub is_journal_full: bool,
}

/// From which tier on nothing more is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// Everything is taken.
    #[default]
    None,
    /// Tier 2 is refused.
    Archive,
    /// Tiers 1 and 2 are refused.
    Daily,
}

impl Pressure {
    /// Whether a tier is refused.
    #[must_use]
    pub const fn refuses(self, tier: Tier) -> bool {
        match tier {
            Tier::Safety => false,
            Tier::Daily => matches!(self, Self::Daily),
            Tier::Archive => matches!(self, Self::Daily | Self::Archive),
        }
    }

    /// Returns the lowest tier that is refused.
    #[must_use]
    pub const fn refused_from(self) -> Option<Tier> {
        match self {
            Self::None => None,
            Self::Archive => Some(Tier::Archive),
            Self::Daily => Some(Tier::Daily),
        }
    }
}

/// Why an import does not begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Shortage {
    /// Bytes that it needs, with what must stay free beside it.
    pub needed_bytes: u64,
    /// Bytes that it would find.
    pub found_bytes: u64,
}

impl Quota {
    /// Returns how many bytes of sealed batches a tier may have on a disk of this size: half of it for tier 1, a
    /// quarter for tier 2.
    #[must_use]
    pub fn bytes_max(&self, tier: Tier, total_bytes: Option<u64>) -> Option<u64> {
        let part = match tier {
            Tier::Safety => return None,
            Tier::Daily => 2,
            Tier::Archive => 4,
        };
        self.bytes_max.get(&tier).copied().or(total_bytes.map(|total| total / part))
    }

    /// Returns how many bytes a tier leaves free on a disk of this size: a twentieth of it for tier 1, a tenth for
    /// tier 2, within bounds.
    #[must_use]
    pub fn free_min(&self, tier: Tier, total_bytes: Option<u64>) -> u64 {
        let total = total_bytes.unwrap_or(0);
        let of_the_disk = match tier {
            Tier::Safety => return 0,
            Tier::Daily => (total / 20).clamp(DAILY_FREE_MIN_BYTES, FREE_MIN_BYTES_MAX / 2),
            Tier::Archive => (total / 10).clamp(ARCHIVE_FREE_MIN_BYTES, FREE_MIN_BYTES_MAX),
        };
        self.free_min.get(&tier).copied().unwrap_or(of_the_disk)
    }

    /// Whether a tier has too little room; once it had, until an eighth more has come back.
    fn is_short(&self, tier: Tier, reading: &Reading, was_short: bool) -> bool {
        let margin = |bytes: u64| if was_short { bytes / COMES_BACK_PART } else { 0 };
        let free_min = self.free_min(tier, reading.total_bytes);
        let lacks_room =
            reading.free_bytes.is_some_and(|free| free < free_min.saturating_add(margin(free_min)));
        let used = reading.used_by_tier.get(&tier).copied().unwrap_or(0);
        let over = |max: u64| used >= max.saturating_sub(margin(max));
        lacks_room || self.bytes_max(tier, reading.total_bytes).is_some_and(over)
    }

    /// Says whether an import of so many bytes of changes, by tier, would fit as a whole. An import is bulk work: it
    /// leaves free what tier 1 leaves free, also where it brings tier 0.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn fits(&self, reading: &Reading, changes: &BTreeMap<Tier, u64>) -> Result<(), Shortage> {
        let whole: u64 = changes.values().sum();
        let highest = changes.keys().copied().max().unwrap_or(Tier::Daily).max(Tier::Daily);
        let needed = whole.saturating_mul(IMPORT_FACTOR);
        let needed_bytes = needed.saturating_add(self.free_min(highest, reading.total_bytes));
        if let Some(found_bytes) = reading.free_bytes.filter(|free| *free < needed_bytes) {
            return Err(Shortage { needed_bytes, found_bytes });
        }
        for (tier, bytes) in changes {
            let used = reading.used_by_tier.get(tier).copied().unwrap_or(0);
            let left = self.bytes_max(*tier, reading.total_bytes).map(|max| max.saturating_sub(used));
            if let Some(found_bytes) = left.filter(|left| left < bytes) {
                return Err(Shortage { needed_bytes: *bytes, found_bytes });
            }
        }
        Ok(())
    }
}

/// The policy with what it said last, because it hesitates before it takes again what it has refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackPressure {
    quota: Quota,
    now: Pressure,
}

impl BackPressure {
    /// Begins without pressure.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self { quota, now: Pressure::None }
    }

    /// Returns what each tier may take.
    #[must_use]
    pub const fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Takes another quota.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Says from which tier on nothing more is taken.
    pub fn step(&mut self, reading: &Reading) -> Pressure {
        let is_short = |tier| self.quota.is_short(tier, reading, self.now.refuses(tier));
        self.now = if reading.is_journal_full || is_short(Tier::Daily) {
            Pressure::Daily
        } else if is_short(Tier::Archive) {
            Pressure::Archive
        } else {
            Pressure::None
        };
        self.now
    }
}

/// Where the room is looked for.
#[derive(Clone)]
pub(crate) struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: std::path::PathBuf,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.dir.display())
    }
}

impl Place {
    /// Reads what is free now.
    pub fn read(&self, used_by_tier: BTreeMap<Tier, u64>, is_journal_full: bool) -> Reading {
        let room = self.disk.room(&self.dir).ok();
        Reading {
            total_bytes: room.map(|room| room.total_bytes),
            free_bytes: room.map(|room| room.free_bytes),
            used_by_tier,
            is_journal_full,
        }
    }
}

/// How the room stands, for people and for whoever asks before writing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomState {
    /// The policy as of the last round.
    pub policy: BackPressure,
    /// Bytes of sealed batches by tier.
    pub used_by_tier: BTreeMap<Tier, u64>,
    /// Bytes that tier 0 may still take when nothing is free.
    pub reserved_bytes: u64,
}

impl RoomState {
    /// Whether not even tier 0 finds room: the reserve has no page left, and the file system none for a segment.
    #[must_use]
    pub fn is_full(&self, reading: &Reading) -> bool {
        let has_room = reading.free_bytes.is_none_or(|free| free >= SEGMENT_BYTES_DEFAULT.into());
        !has_room && self.reserved_bytes < PAGE_BYTES.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of 64 GiB: tier 1 leaves 512 MiB free, tier 2 leaves 1 GiB.
    const TOTAL: u64 = 64 * 1024 * MIB;

    fn reading(free_mib: u64) -> Reading {
        Reading { total_bytes: Some(TOTAL), free_bytes: Some(free_mib * MIB), ..Reading::default() }
    }

    /// Goal: tier 2 is refused first, then tier 1, tier 0 never; with hesitation on the way back. Method: a disk that
    /// fills and empties in steps of 1 MiB; each change of the answer, and that none comes twice.
    #[test]
    fn refuses_from_tier_2_up() {
        let mut policy = BackPressure::default();
        let mut changes = Vec::new();
        let mut last = Pressure::None;
        for free in (0..=2_048).rev().chain(0..=2_048) {
            let now = policy.step(&reading(free));
            assert!(!now.refuses(Tier::Safety) && (!now.refuses(Tier::Daily) || now.refuses(Tier::Archive)));
            if now != last {
                changes.push((free, now));
            }
            last = now;
        }
        let wanted = [
            (1_023, Pressure::Archive),
            (511, Pressure::Daily),
            (576, Pressure::Archive),
            (1_152, Pressure::None),
        ];
        assert_eq!(changes, wanted);
    }

    /// Goal: a tier over its quota stops, and with it those that matter less; a disk that cannot be read refuses
    /// nothing by itself; a journal without room refuses all but tier 0. Method: readings.
    #[test]
    fn quotas_and_what_cannot_be_read() {
        let used = |tier, bytes| Reading { used_by_tier: BTreeMap::from([(tier, bytes)]), ..reading(9_000) };
        let step = |reading: &Reading| BackPressure::default().step(reading);
        assert_eq!(step(&used(Tier::Archive, TOTAL / 4 - 1)), Pressure::None);
        assert_eq!(step(&used(Tier::Archive, TOTAL / 4)), Pressure::Archive);
        assert_eq!(step(&used(Tier::Daily, TOTAL / 2)), Pressure::Daily);
        assert_eq!(step(&used(Tier::Safety, TOTAL)), Pressure::None);
        assert_eq!(step(&Reading::default()), Pressure::None);
        assert_eq!(step(&Reading { is_journal_full: true, ..reading(9_000) }), Pressure::Daily);
        let bytes_max = BTreeMap::from([(Tier::Daily, 10 * MIB)]);
        let mut policy = BackPressure::new(Quota { bytes_max, free_min: BTreeMap::new() });
        assert_eq!(policy.step(&used(Tier::Daily, 10 * MIB)), Pressure::Daily);
        assert_eq!(policy.step(&used(Tier::Daily, 9 * MIB)), Pressure::Daily, "it hesitates");
        assert_eq!(policy.step(&used(Tier::Daily, 8 * MIB)), Pressure::None);
    }

    /// Goal: "nothing is saved" is said when it is so, and only then. Method: with and without reserve, with and without
    /// room, on a disk that does not say.
    #[test]
    fn full_is_the_end_of_the_reserve() {
        let room = |reserved_bytes| RoomState { reserved_bytes, ..RoomState::default() };
        assert!(room(4_095).is_full(&reading(3)) && room(0).is_full(&reading(0)));
        assert!(!room(4_096).is_full(&reading(0)), "a page is left");
        assert!(!room(0).is_full(&reading(4)), "a segment can be made");
        assert!(!room(0).is_full(&Reading::default()), "nobody can tell");
    }

    /// Goal: defaults follow the disk within their bounds, and what is said wins. Method: a small, a middle and a
    /// huge disk; one value said.
    #[test]
    fn defaults_follow_the_disk() {
        let quota = Quota::default();
        let rows = [(100 * MIB, 32, 48), (1_000 * MIB, 50, 100), (TOTAL, 512, 1_024)];
        for (total, daily, archive) in rows {
            assert_eq!(quota.free_min(Tier::Daily, Some(total)), daily * MIB);
            assert_eq!(quota.free_min(Tier::Archive, Some(total)), archive * MIB);
        }
        assert_eq!(quota.free_min(Tier::Archive, None), ARCHIVE_FREE_MIN_BYTES);
        assert_eq!((quota.bytes_max(Tier::Archive, None), quota.free_min(Tier::Safety, None)), (None, 0));
        let said = Quota { free_min: BTreeMap::from([(Tier::Daily, 7)]), ..Quota::default() };
        assert_eq!(said.free_min(Tier::Daily, Some(TOTAL)), 7);
    }

    /// Goal: an import is refused before it begins if it would not fit whole, and leaves room for tier 0. Method: one
    /// byte too many and one that fits, by room and by quota.
    #[test]
    fn imports_fit_or_do_not_begin() {
        let import = |tier, bytes| BTreeMap::from([(tier, bytes)]);
        let quota = Quota::default();
        assert_eq!(quota.fits(&reading(572), &import(Tier::Safety, 20 * MIB)), Ok(()));
        let shortage = quota.fits(&reading(572), &import(Tier::Safety, 20 * MIB + 1)).unwrap_err();
        assert_eq!((shortage.needed_bytes, shortage.found_bytes), (572 * MIB + 3, 572 * MIB));
        assert!(quota.fits(&reading(1_023), &import(Tier::Archive, 0)).is_err());
        let nearly =
            Reading { used_by_tier: BTreeMap::from([(Tier::Archive, TOTAL / 4 - MIB)]), ..reading(9_000) };
        assert_eq!(quota.fits(&nearly, &import(Tier::Archive, MIB)), Ok(()));
        assert!(quota.fits(&nearly, &import(Tier::Archive, MIB + 1)).is_err());
        assert_eq!(quota.fits(&Reading::default(), &import(Tier::Daily, TOTAL)), Ok(()));
    }
}
