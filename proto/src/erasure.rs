//! Erasure: a tombstone takes records out of the view for good, whatever is or was written to them, in any order.
//!
//! A tombstone is a record of the tier's collection of tombstones. Its id names a part of a record id under a key, so
//! that whoever lacks the school's keys cannot test whom it means. Spec: `docs/spec/batch.md#erasure`.
//!
//! **Invariant**: what a tombstone names follows from its id alone, and a tombstone that was applied stays.

use crate::digest::DigestKey;
use crate::ids::Tier;
use crate::view::REISSUED;

/// Parts of a record id, separated by `/`, that tombstones may name. The longest id in use has three.
pub const ERASED_PLACES: usize = 8;

/// What a tombstone names of a record id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The part with this number, from 0, of those that `/` separates: all records with it there.
    Part(usize),
    /// The whole id: one record.
    Whole,
}

impl Place {
    const fn byte(self) -> u8 {
        match self {
            Self::Whole => u8::MAX,
            // Below ERASED_PLACES.
            Self::Part(number) => number.to_le_bytes()[0],
        }
    }

    /// Returns what stands at this place of an id.
    #[must_use]
    pub fn of(self, record: &str) -> Option<&str> {
        match self {
            Self::Whole => Some(record),
            Self::Part(number) => record.split('/').take(ERASED_PLACES).nth(number),
        }
    }
}

/// Returns the collection of a tier's tombstones.
#[must_use]
pub const fn tombstones(tier: Tier) -> &'static str {
    match tier {
        Tier::Safety => "erased.safety",
        Tier::Daily => "erased.daily",
        Tier::Archive => "erased.archive",
    }
}

/// Returns the ids of the tombstones that would erase a record of a tier, if there are any. Tombstones themselves and
/// the names of what was issued again are never erased.
pub(crate) fn erasers<'a>(
    key: &'a DigestKey,
    tier: Tier,
    collection: &'a str,
    record: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let is_erasable = collection != tombstones(tier) && collection != REISSUED;
    let parts = record.split('/').take(ERASED_PLACES).enumerate();
    let parts = parts.map(|(number, part)| (Place::Part(number), part));
    let names = parts.chain([(Place::Whole, record)]).filter(move |_| is_erasable);
    names.map(move |(place, text)| tombstone(key, collection, place, text))
}

/// Returns the id of the tombstone for all records of a collection with this text at a place.
#[must_use]
pub fn tombstone(key: &DigestKey, collection: &str, place: Place, text: &str) -> String {
    key.erasure_name(collection, place.byte(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an id names a collection, a place and a text, under the school's key, and nothing of it can be read.
    /// Method: change each.
    #[test]
    fn names_are_of_one_place() {
        let key = DigestKey::from_secret("k");
        let name = tombstone(&key, "attendance", Place::Part(1), "p1");
        assert_eq!(name.len(), 32);
        let others = [
            tombstone(&DigestKey::from_secret("l"), "attendance", Place::Part(1), "p1"),
            tombstone(&key, "attendanc", Place::Part(1), "p1"),
            tombstone(&key, "attendance", Place::Part(0), "p1"),
            tombstone(&key, "attendance", Place::Whole, "p1"),
            tombstone(&key, "attendance", Place::Part(1), "p2"),
        ];
        assert!(!others.contains(&name));
        let erases = |collection, record| erasers(&key, Tier::Daily, collection, record).any(|id| id == name);
        assert!(erases("attendance", "2026-04-08/p1/day"));
        assert!(!erases("attendance", "p1/2026-04-08/day") && !erases("health_profile", "x/p1"));
        assert_eq!(erasers(&key, Tier::Daily, "attendance", "a/b").count(), 3);
        assert_eq!(erasers(&key, Tier::Daily, "erased.daily", "a").count(), 0);
        assert_eq!(erasers(&key, Tier::Daily, REISSUED, "a").count(), 0);
        let long = "x/".repeat(40);
        assert_eq!(erasers(&key, Tier::Daily, "c", &long).count(), ERASED_PLACES + 1);
    }
}
