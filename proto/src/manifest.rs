//! The manifest of recipients: which keys a school's data is sealed to and who may open those keys. Signed by
//! the board's root; nothing is sealed without it, so nobody can slip in a recipient. Spec:
//! `docs/spec/keys.md#manifest`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::destruction::{Destroyed, DestroyedKey};
use crate::hold::Hold;
use crate::identity::ReplicaKind;
use crate::ids::{IdError, ReplicaId, SchoolCode, Tier};
use crate::limits::{
    MANIFEST_DESTROYED_MAX, MANIFEST_KEYS_MAX, MANIFEST_READERS_MAX, MANIFEST_REVOKED_HEADS_MAX,
    MANIFEST_REVOKED_MAX,
};
use crate::revocation::Revocation;
use crate::signed::Document;
use crate::wire::KeyDocuments;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyUse {
    /// Seals the batches of a tier in one epoch.
    Tier(Tier),
    /// Keys the state digest; its epoch is 0.
    Digest,
}

impl fmt::Display for KeyUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tier(tier) => write!(f, "tier{tier}"),
            Self::Digest => f.write_str("digest"),
        }
    }
}

impl FromStr for KeyUse {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "tier0" => Ok(Self::Tier(Tier::Safety)),
            "tier1" => Ok(Self::Tier(Tier::Daily)),
            "tier2" => Ok(Self::Tier(Tier::Archive)),
            "digest" => Ok(Self::Digest),
            _ => Err(IdError {
                text: text.chars().take(64).collect(),
                expected: "a key use: tier0, tier1, tier2 or digest",
            }),
        }
    }
}

impl Serialize for KeyUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestKey {
    /// What it is for.
    #[serde(rename = "use")]
    pub key_use: KeyUse,
    /// School year that it serves, such as 2026; 0 for the digest.
    pub epoch: u32,
    /// Its age recipient, `age1…`.
    pub recipient: String,
}

/// Somebody to whom the keys are wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// A replica's name, or `operations` or `recovery` of the board.
    pub name: String,
    /// What the replica is for; absent for the board's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ReplicaKind>,
    /// The age recipient.
    pub recipient: String,
}

/// The manifest of one school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose.
    pub school: SchoolCode,
    /// Increases with each change; the higher one stands.
    pub version: u64,
    /// All keys that are not destroyed.
    pub keys: Vec<ManifestKey>,
    /// All who may open them.
    pub readers: Vec<Reader>,
    /// Devices that count no more. Absent in manifests of boards that have revoked none, and passed over by software
    /// that does not know it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revocation>,
    /// Devices at which nobody writes until the board lets them. Absent when there is none, and passed over by software
    /// that does not know it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Hold>,
    /// Keys that exist no more. None of them is in `keys`. Absent in manifests of boards that have destroyed none, and
    /// passed over by software that does not know it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destroyed: Vec<DestroyedKey>,
}

impl Document for Manifest {
    const LABEL: &'static str = "sonae/manifest/v1";
}

impl Manifest {
    /// Whether the counts are within bounds, and no key is both named and destroyed.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let heads = self.revoked.iter().map(|entry| entry.accepted.len() + entry.dropped.len());
        self.keys.len() <= MANIFEST_KEYS_MAX
            && self.readers.len() <= MANIFEST_READERS_MAX
            && self.revoked.len() <= MANIFEST_REVOKED_MAX
            && self.held.len() <= MANIFEST_READERS_MAX
            && self.destroyed.len() <= MANIFEST_DESTROYED_MAX
            && !self.keys.iter().any(|key| self.is_destroyed(key.key_use, key.epoch))
            && heads.sum::<usize>() <= MANIFEST_REVOKED_HEADS_MAX
    }

    /// Returns the board's word that nobody writes at a device; `None` when there is none.
    #[must_use]
    pub fn hold(&self, replica: ReplicaId) -> Option<&Hold> {
        self.held.iter().find(|hold| hold.replica == replica)
    }

    /// Whether the board has ordered a key to be destroyed.
    #[must_use]
    pub fn is_destroyed(&self, key_use: KeyUse, epoch: u32) -> bool {
        self.destroyed.iter().any(|key| key.key_use == key_use && key.epoch == epoch)
    }

    /// Finds a key.
    #[must_use]
    pub fn key(&self, key_use: KeyUse, epoch: u32) -> Option<&ManifestKey> {
        self.keys.iter().find(|key| key.key_use == key_use && key.epoch == epoch)
    }

    /// Says how a set of wrapped keys fits. Only the manifest is signed: whoever passes the set on can leave keys out,
    /// or put in what nobody can open.
    #[must_use]
    pub fn wrapping(&self, wrapped: &[WrappedKey]) -> Wrapping {
        let named: BTreeSet<_> = self.keys.iter().map(|key| (key.key_use, key.epoch)).collect();
        let there: BTreeSet<_> = wrapped.iter().map(|key| (key.key_use, key.epoch)).collect();
        if there.len() < wrapped.len() || !there.is_subset(&named) {
            return Wrapping::Strange;
        }
        if there.len() < named.len() { Wrapping::Partial } else { Wrapping::Whole }
    }

    /// Returns key documents of this manifest without the keys that it destroys; `None` if they are not
    /// [`Wrapping::Whole`] then.
    #[must_use]
    pub fn whole(&self, documents: &KeyDocuments) -> Option<KeyDocuments> {
        let mut documents = documents.clone();
        Destroyed::of(self).strip(&mut documents);
        (self.wrapping(&documents.wrapped_keys) == Wrapping::Whole).then_some(documents)
    }

    /// Finds the key that seals a tier in a school year. Only keys of the newest rotation are looked at: what was
    /// there before is known to whoever was revoked then. Of them the newest year that has begun, or the oldest when
    /// none has, as on a box that believes it is 1970.
    #[must_use]
    pub fn sealing_key(&self, tier: Tier, school_year: u32) -> Option<&ManifestKey> {
        let rotation = self.rotation();
        let of_tier = || {
            self.keys
                .iter()
                .filter(|key| key.key_use == KeyUse::Tier(tier) && Epoch::of(key.epoch).rotation == rotation)
        };
        let year = |key: &&ManifestKey| Epoch::of(key.epoch).year;
        of_tier()
            .filter(|key| year(key) <= school_year)
            .max_by_key(year)
            .or_else(|| of_tier().min_by_key(year))
    }

    /// Returns the newest rotation of keys, 0 when they were never rotated.
    #[must_use]
    pub fn rotation(&self) -> u32 {
        self.keys.iter().map(|key| Epoch::of(key.epoch).rotation).max().unwrap_or(0)
    }

    /// Returns the newest school year that a tier has a key of the newest rotation for.
    #[must_use]
    pub fn last_year(&self, tier: Tier) -> Option<u32> {
        self.sealing_key(tier, u32::MAX).map(|key| Epoch::of(key.epoch).year)
    }
}

/// What the number of an epoch says: 2026 is the school year 2026; 2026003 is the same year after the third rotation
/// of the keys. Software that does not know rotations finds such a year in the far future, and goes on with what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// The school year.
    pub year: u32,
    /// How often the keys had been rotated, below [`ROTATIONS_END`].
    pub rotation: u32,
}

/// One more than the largest rotation.
pub const ROTATIONS_END: u32 = 1_000;

impl Epoch {
    /// Reads a number.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        if number < 10_000 {
            return Self { year: number, rotation: 0 };
        }
        Self { year: number / ROTATIONS_END, rotation: number % ROTATIONS_END }
    }

    /// Returns the number; `None` when there is none.
    #[must_use]
    pub fn number(self) -> Option<u32> {
        if self.year >= 10_000 || self.rotation >= ROTATIONS_END {
            return None;
        }
        if self.rotation == 0 {
            return Some(self.year);
        }
        // A year below 10 would be read as one without a rotation.
        self.year.checked_mul(ROTATIONS_END)?.checked_add(self.rotation).filter(|number| *number >= 10_000)
    }
}

/// An epoch key's secret as an age file, readable by the manifest's readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// What the key is for.
    #[serde(rename = "use")]
    pub key_use: KeyUse,
    /// School year.
    pub epoch: u32,
    /// The age file: `age -d -i READER` prints `AGE-SECRET-KEY-1…`.
    #[serde(with = "base64_bytes")]
    pub file: Vec<u8>,
}

/// How a set of wrapped keys fits a manifest, by its names alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// There is exactly one for each key that the manifest names.
    Whole,
    /// Some are missing.
    Partial,
    /// One is of a key that the manifest does not name, or there are two of one key.
    Strange,
}

/// Bytes as base64 text in JSON.
pub mod base64_bytes {
    use super::{BASE64, Deserialize, Deserializer, Serializer};

    /// Writes base64.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    /// Reads base64.
    ///
    /// # Errors
    /// When the text is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

/// Returns the school year of a moment: it begins on 1 April, Japan time. `now_ms` is since 1970 UTC.
#[must_use]
pub fn school_year(now_ms: u64) -> u32 {
    // Days since 1970 in Japan, then the civil year and day of year by the 400-year cycle.
    let days = (now_ms / 1_000 + 9 * 3_600) / 86_400;
    let era_day = days + 719_468;
    let era = era_day / 146_097;
    let day_of_era = era_day % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // `day_of_year` counts from 1 March: 31 is 1 April.
    let year = year_of_era + era * 400;
    u32::try_from(if day_of_year >= 31 { year } else { year.saturating_sub(1) }).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the year turns at midnight of 1 April in Japan. Method: seconds around it, leap years, 1970.
    #[test]
    fn school_years_turn_in_april() {
        let turn_2026 = 1_774_969_200_000; // 2026-04-01T00:00:00+09:00
        assert_eq!(school_year(turn_2026 - 1), 2025);
        assert_eq!(school_year(turn_2026), 2026);
        assert_eq!(school_year(1_711_897_200_000 - 1), 2023); // 2024-04-01T00:00+09:00
        assert_eq!(school_year(1_711_897_200_000), 2024);
        assert_eq!(school_year(1_735_657_200_000), 2024); // 2025-01-01
        assert_eq!(school_year(0), 1969);
    }

    fn manifest(epochs: &[u32]) -> Manifest {
        let key = |epoch: &u32| ManifestKey {
            key_use: KeyUse::Tier(Tier::Safety),
            epoch: *epoch,
            recipient: epoch.to_string(),
        };
        let mut keys: Vec<ManifestKey> = epochs.iter().map(key).collect();
        keys.push(ManifestKey { key_use: KeyUse::Digest, epoch: 0, recipient: "d".into() });
        let school = "B113200000011".parse().unwrap();
        Manifest {
            school,
            version: 1,
            keys,
            readers: vec![],
            revoked: vec![],
            held: vec![],
            destroyed: vec![],
        }
    }

    /// Goal: a school year has one key; years without keys use the last; what was there before a rotation seals nothing.
    /// Method: years before, in and after the keys, with no rotation, one, and one that next year has not got.
    #[test]
    fn the_newest_rotation_seals() {
        let sealing =
            |epochs: &[u32], year| manifest(epochs).sealing_key(Tier::Safety, year).map(|key| key.epoch);
        let plain = [2026, 2027];
        for (year, expected) in [(1969, 2026), (2026, 2026), (2027, 2027), (2031, 2027)] {
            assert_eq!(sealing(&plain, year), Some(expected));
        }
        let rotated = [2026, 2027, 2026001, 2027001];
        for (year, expected) in [(1969, 2026001), (2026, 2026001), (2027, 2027001), (2031, 2027001)] {
            assert_eq!(sealing(&rotated, year), Some(expected));
        }
        assert_eq!(sealing(&[2026, 2027, 2026001], 2027), Some(2026001), "2027 is known to the revoked one");
        assert_eq!(sealing(&[], 2026), None);
        assert_eq!(manifest(&rotated).last_year(Tier::Safety), Some(2027));
        assert_eq!(manifest(&rotated).rotation(), 1);
    }

    /// Goal: an epoch and its number say the same. Method: both ways, and numbers that there are none for.
    #[test]
    fn epochs_and_numbers_agree() {
        for (year, rotation, number) in [(2026, 0, 2026), (2026, 1, 2026001), (9999, 999, 9999999), (0, 0, 0)]
        {
            assert_eq!(Epoch { year, rotation }.number(), Some(number));
            assert_eq!(Epoch::of(number), Epoch { year, rotation });
        }
        assert_eq!(Epoch { year: 2026, rotation: 1_000 }.number(), None);
        assert_eq!(Epoch { year: 10_000, rotation: 0 }.number(), None);
        assert_eq!(Epoch { year: 3, rotation: 1 }.number(), None);
    }
}
