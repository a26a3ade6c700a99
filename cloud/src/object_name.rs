//! Names of objects: `objects/BOOT-ULID/COUNTER` for those that are written, `objects/merged/HASH` for those that were
//! made of others. A boot's ULID is new at each start and a counter only rises, so no name is ever used twice, by any
//! node, without asking anybody; a hash names the same bytes whoever makes them.

use std::fmt;

use data_encoding::HEXLOWER;
use object_store::path::Path;
use sonae_proto::ids::Hash32;
use ulid::Ulid;

/// The directory of all objects at a site.
pub const DIRECTORY: &str = "objects";

/// One name. Names are ordered as their objects were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The start of the process that wrote it.
    pub boot: Ulid,
    /// Which of that process, from 0.
    pub counter: u64,
}

impl ObjectName {
    /// Before every name that is given to an object.
    pub const FIRST: Self = Self { boot: Ulid::nil(), counter: 0 };

    /// Reads a name; anything else that lies at a site is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (boot, counter) = text.strip_prefix(DIRECTORY)?.strip_prefix('/')?.split_once('/')?;
        let name = Self { boot: boot.parse().ok()?, counter: counter.parse().ok()? };
        // One text for one name: no `+1`, no lower case, no missing zeros.
        (name.to_string() == text).then_some(name)
    }

    /// Returns the name as the object store wants it.
    #[must_use]
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DIRECTORY}/{}/{:08}", self.boot, self.counter)
    }
}

/// The folder of merged objects, in [`DIRECTORY`].
const MERGED: &str = "merged";

/// Any object that lies at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredName {
    /// One that a node wrote.
    Written(ObjectName),
    /// One that was made of others; the name is that of [`sonae_proto::object::merge`].
    Merged(Hash32),
}

impl StoredName {
    /// Reads a name; anything else that lies at a site is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = ObjectName::parse(text) {
            return Some(Self::Written(name));
        }
        let hash =
            text.strip_prefix(DIRECTORY)?.strip_prefix('/')?.strip_prefix(MERGED)?.strip_prefix('/')?;
        let hash = HEXLOWER.decode(hash.as_bytes()).ok()?;
        Some(Self::Merged(Hash32(hash.try_into().ok()?)))
    }

    /// Returns the name as the object store wants it.
    #[must_use]
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// Returns the name of one that a node wrote.
    #[must_use]
    pub const fn written(&self) -> Option<ObjectName> {
        match self {
            Self::Written(name) => Some(*name),
            Self::Merged(_) => None,
        }
    }
}

impl From<ObjectName> for StoredName {
    fn from(name: ObjectName) -> Self {
        Self::Written(name)
    }
}

impl fmt::Display for StoredName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(name) => name.fmt(f),
            Self::Merged(hash) => write!(f, "{DIRECTORY}/{MERGED}/{}", HEXLOWER.encode(&hash.0)),
        }
    }
}

/// Chooses the ULID of this start: of now, or just after the newest that the sites hold, so that a clock that
/// went back does not make this start's objects older than those before it.
#[must_use]
pub fn boot_after(newest: Option<Ulid>) -> Ulid {
    let now = Ulid::new();
    match newest {
        Some(newest) if newest >= now => newest.increment().unwrap_or(now),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name has one text. Method: round trip, and texts that nearly are names.
    #[test]
    fn a_name_has_one_text() {
        let name = ObjectName { boot: Ulid::new(), counter: 7 };
        assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        let boot = name.boot;
        for text in [
            format!("objects/{boot}/7"),
            format!("objects/{boot}/+0000007"),
            format!("objects/{}/00000007", boot.to_string().to_lowercase()),
            format!("objects/{boot}/00000007/x"),
            format!("other/{boot}/00000007"),
            "site.json".to_owned(),
        ] {
            assert_eq!(StoredName::parse(&text), None, "{text}");
        }
        let merged = StoredName::Merged(Hash32([0xAB; 32]));
        for name in [merged, name.into()] {
            assert_eq!(StoredName::parse(&name.to_string()), Some(name));
        }
        for text in
            [merged.to_string().to_uppercase(), format!("{merged}0"), merged.to_string().replace('a', "A")]
        {
            assert_eq!(StoredName::parse(&text), None, "{text}");
        }
    }

    /// Goal: a start is always newer than those before. Method: a newest from the future.
    #[test]
    fn a_clock_that_goes_back_makes_no_older_boot() {
        let future = Ulid::from_parts(1 << 45, 3);
        assert!(boot_after(Some(future)) > future);
        assert!(boot_after(None) > Ulid::from_parts(0, 0));
    }
}
