//! Identifiers: schools, tiers, incarnations, logs, changes. Owns their text forms; leaves certificates to
//! [`crate::identity`].

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the identifier that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct IdError {
    /// What was read, cut to 64 characters.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

fn wrong(text: &str, expected: &'static str) -> IdError {
    IdError { text: text.chars().take(64).collect(), expected }
}

/// The 13-character 学校コード: type, prefecture, founder, number, check character.
///
/// The check character is not verified: its algorithm is not public.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchoolCode([u8; 13]);

impl SchoolCode {
    /// Length in bytes, all of them ASCII.
    pub const BYTES: usize = 13;

    /// Checks raw bytes.
    ///
    /// # Errors
    /// [`IdError`] when the form `[A-H][12][0-4][0-9][123][0-9]{8}` does not hold.
    pub fn from_bytes(bytes: [u8; 13]) -> Result<Self, IdError> {
        let allowed: [&[u8]; 5] = [b"ABCDEFGH", b"12", b"01234", b"0123456789", b"123"];
        let fits = bytes.iter().enumerate().all(|(position, byte)| match allowed.get(position) {
            Some(set) => set.contains(byte),
            None => byte.is_ascii_digit(),
        });
        if fits {
            Ok(Self(bytes))
        } else {
            Err(wrong(
                &String::from_utf8_lossy(&bytes),
                "a 13-character school code such as B113200000011 (type, prefecture, founder, number)",
            ))
        }
    }

    /// Returns the ASCII bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 13] {
        &self.0
    }
}

impl FromStr for SchoolCode {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = <[u8; 13]>::try_from(text.as_bytes())
            .map_err(|_| wrong(text, "a school code of 13 ASCII characters such as B113200000011"))?;
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for SchoolCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

/// What a record is needed for, and so what is sealed, sent and rebuilt first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// What a safety check needs.
    Safety,
    /// Daily work.
    Daily,
    /// Archive.
    Archive,
}

impl Tier {
    /// All tiers in the order in which they are served.
    pub const ALL: [Self; 3] = [Self::Safety, Self::Daily, Self::Archive];

    /// Returns 0, 1 or 2.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Safety => 0,
            Self::Daily => 1,
            Self::Archive => 2,
        }
    }

    /// Reads 0, 1 or 2.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Safety),
            1 => Some(Self::Daily),
            2 => Some(Self::Archive),
            _ => None,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl FromStr for Tier {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // One text form each: `u8` would also take `+1` and `01`.
        match text {
            "0" => Ok(Self::Safety),
            "1" => Ok(Self::Daily),
            "2" => Ok(Self::Archive),
            _ => Err(wrong(text, "a tier: 0, 1 or 2")),
        }
    }
}

macro_rules! hash_name {
    ($(#[$doc:meta])* $name:ident, $context:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Names a key: the first 16 bytes of BLAKE3 in key-derivation mode over the public key.
            #[must_use]
            pub fn of_key(public_key: &[u8; 32]) -> Self {
                let full = blake3::derive_key($context, public_key);
                let mut name = [0; 16];
                name.copy_from_slice(full.first_chunk::<16>().unwrap_or(&[0; 16]));
                Self(name)
            }

            /// Takes raw bytes as they stand in a header.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the raw bytes.
            #[must_use]
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
                    .map(Self)
                    .ok_or_else(|| wrong(text, $expected))
            }
        }
    };
}

hash_name!(
    /// One life of a replica, named by its signing key. Never reused.
    ///
    /// 128 bits: finding a second key for a name is out of reach, and a device that makes two keys with one
    /// name gains only what it has already, the power to fork its own log.
    Incarnation,
    "sonae 2026 incarnation name",
    "an incarnation: 32 lower-case hexadecimal digits"
);

hash_name!(
    /// A replica, named by its device key, which the board has certified.
    ReplicaId,
    "sonae 2026 replica name",
    "a replica: 32 lower-case hexadecimal digits"
);

hash_name!(
    /// The node key that signed a receipt.
    ReceiptKeyId,
    "sonae 2026 receipt key name",
    "a receipt key: 32 lower-case hexadecimal digits"
);

/// One log: what one incarnation wrote in one tier. One writer, gapless sequence numbers from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName {
    /// The tier comes first, so that ordered maps serve tier 0 first.
    pub tier: Tier,
    /// Whose log it is.
    pub incarnation: Incarnation,
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incarnation, self.tier)
    }
}

impl FromStr for LogName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (incarnation, tier) =
            text.split_once('/').ok_or_else(|| wrong(text, "a log: INCARNATION/TIER"))?;
        Ok(Self { tier: tier.parse()?, incarnation: incarnation.parse()? })
    }
}

/// A change, named by where it was first written. Survives re-issue under another incarnation.
///
/// Unique within a tier; a record lives in one tier, so the tier is never part of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    /// Who wrote it first.
    pub incarnation: Incarnation,
    /// Where in that log, from 1.
    pub sequence: u64,
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.incarnation, self.sequence)
    }
}

impl FromStr for ChangeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = "a change: INCARNATION:SEQUENCE";
        let (incarnation, sequence) = text.split_once(':').ok_or_else(|| wrong(text, expected))?;
        let is_plain = sequence == "0" || sequence.starts_with(|digit| matches!(digit, '1'..='9'));
        // One text form each: `u64` would also take `+7` and `07`.
        let sequence = sequence.parse().ok().filter(|_| is_plain).ok_or_else(|| wrong(text, expected))?;
        Ok(Self { incarnation: incarnation.parse()?, sequence })
    }
}

/// A 32-byte BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash32(pub [u8; 32]);

impl Hash32 {
    /// What stands before the first batch of a log.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Hash32 {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| wrong(text, "64 lower-case hexadecimal digits"))
    }
}

macro_rules! text_serde {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_serde!(SchoolCode, Tier, Incarnation, ReplicaId, ReceiptKeyId, LogName, ChangeId, Hash32);

macro_rules! debug_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    )*};
}
debug_as_text!(SchoolCode, Incarnation, ReplicaId, ReceiptKeyId, Hash32);

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: text forms are inverse to parsing. Method: one example of each, both ways.
    #[test]
    fn text_round_trips() {
        let incarnation = Incarnation::of_key(&[7; 32]);
        let log = LogName { tier: Tier::Daily, incarnation };
        assert_eq!(log.to_string().parse::<LogName>().unwrap(), log);
        let change = ChangeId { incarnation, sequence: 42 };
        assert_eq!(change.to_string().parse::<ChangeId>().unwrap(), change);
        let code: SchoolCode = "B113200000011".parse().unwrap();
        assert_eq!(code.to_string(), "B113200000011");
    }

    /// Goal: a wrong code is refused. Method: length, letter, prefecture digit, non-ASCII.
    #[test]
    fn wrong_school_codes_are_refused() {
        for code in ["", "B11320000001", "Z113200000011", "B153200000011", "B1132000000１", "B11320000001x"]
        {
            assert!(code.parse::<SchoolCode>().is_err(), "{code}");
        }
    }

    /// Goal: a name has one text form, so that no text is another's alias. Method: signs and leading zeros.
    #[test]
    fn names_have_one_text_form() {
        let incarnation = Incarnation::of_key(&[7; 32]);
        for tier in ["+1", "01", "1 ", "3", ""] {
            assert!(tier.parse::<Tier>().is_err(), "{tier}");
            assert!(format!("{incarnation}/{tier}").parse::<LogName>().is_err(), "{tier}");
        }
        for sequence in ["+7", "07", "00", "", "-1", " 7"] {
            assert!(format!("{incarnation}:{sequence}").parse::<ChangeId>().is_err(), "{sequence}");
        }
        assert!(format!("{incarnation}:0").parse::<ChangeId>().is_ok());
    }

    /// Goal: names of different kinds of key never coincide. Method: one key, three names.
    #[test]
    fn names_are_separated_by_kind() {
        let key = [9; 32];
        assert_ne!(Incarnation::of_key(&key).bytes(), ReplicaId::of_key(&key).bytes());
        assert_ne!(ReplicaId::of_key(&key).bytes(), ReceiptKeyId::of_key(&key).bytes());
    }
}
