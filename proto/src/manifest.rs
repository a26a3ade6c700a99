//! The manifest of recipients: which keys a school's data is sealed to and who may open those keys. Signed by
//! the board's root; nothing is sealed without it, so nobody can slip in a recipient. Spec:
//! `docs/spec/keys.md#manifest`.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identity::ReplicaKind;
use crate::ids::{IdError, SchoolCode, Tier};
use crate::limits::{MANIFEST_KEYS_MAX, MANIFEST_READERS_MAX};
use crate::signed::Document;

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
}

impl Document for Manifest {
    const LABEL: &'static str = "sonae/manifest/v1";
}

impl Manifest {
    /// Whether the counts are within bounds.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        self.keys.len() <= MANIFEST_KEYS_MAX && self.readers.len() <= MANIFEST_READERS_MAX
    }

    /// Finds a key.
    #[must_use]
    pub fn key(&self, key_use: KeyUse, epoch: u32) -> Option<&ManifestKey> {
        self.keys.iter().find(|key| key.key_use == key_use && key.epoch == epoch)
    }

    /// Finds the key that seals a tier in a school year: the newest epoch that has begun, or the oldest when
    /// none has, as on a box that believes it is 1970.
    #[must_use]
    pub fn sealing_key(&self, tier: Tier, school_year: u32) -> Option<&ManifestKey> {
        let of_tier = || self.keys.iter().filter(|key| key.key_use == KeyUse::Tier(tier));
        of_tier()
            .filter(|key| key.epoch <= school_year)
            .max_by_key(|key| key.epoch)
            .or_else(|| of_tier().min_by_key(|key| key.epoch))
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
}
