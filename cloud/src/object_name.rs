//! Names of objects: `objects/BOOT-ULID/COUNTER`. A boot's ULID is new at each start and a counter only rises,
//! so no name is ever used twice, by any node, without asking anybody.

use std::fmt;

use object_store::path::Path;
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
            assert_eq!(ObjectName::parse(&text), None, "{text}");
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
