//! Revocation: the board's word that a device counts no more, and up to where what it wrote still does. It stands in
//! the [manifest](crate::manifest), so it travels, is stored and is ordered as the manifest is. Spec:
//! `docs/spec/keys.md#revocation`.
//!
//! **Invariant**: what is known only grows. The entries of all manifests are joined; a manifest that says less than an
//! earlier one takes nothing back, in whatever order they come.
//! **Invariant**: everything of a revoked device that no entry accepts is quarantined, incarnations that nobody has
//! heard of included.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::BatchHeader;
use crate::ids::{Incarnation, LogName, ReplicaId};
use crate::manifest::Manifest;
use crate::planted::{Defect, is_planted};
use crate::vector::{Heads, LogHead};

/// The board's word on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The device. All its incarnations are meant, those that it begins later among them.
    pub replica: ReplicaId,
    /// When the board said so, milliseconds since 1970 UTC. For people; nothing is decided by it.
    pub revoked_ms: u64,
    /// Up to where its logs count. A log that is not named counts for nothing.
    #[serde(default, skip_serializing_if = "Heads::is_empty")]
    pub accepted: Heads,
    /// Up to where a person has decided that the rest does not count and need not be asked about again.
    #[serde(default, skip_serializing_if = "Heads::is_empty")]
    pub dropped: Heads,
}

/// What a batch is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its device is not revoked.
    Free,
    /// Its device is revoked; it is not behind what the board accepts. Its chain has to hold as ever.
    Accepted,
    /// It waits for a person.
    Quarantined,
    /// A person has decided that it does not count.
    Dropped,
}

impl Standing {
    /// Whether it may become part of its log.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Free | Self::Accepted)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    accepted: Heads,
    dropped: Heads,
}

/// All revocations that are known of a school.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<ReplicaId, Known>);

impl Revocations {
    /// Takes over what a manifest says. Returns whether it says anything new.
    pub fn learn(&mut self, manifest: &Manifest) -> bool {
        let mut is_new = false;
        for entry in &manifest.revoked {
            is_new |= !self.0.contains_key(&entry.replica);
            let known = self.0.entry(entry.replica).or_default();
            is_new |= raise(&mut known.accepted, &entry.accepted);
            is_new |= raise(&mut known.dropped, &entry.dropped);
        }
        is_new
    }

    /// Whether a manifest says at least what is known. One that does not was made by a board that has forgotten.
    #[must_use]
    pub fn are_in(&self, manifest: &Manifest) -> bool {
        let mut said = Self::default();
        said.learn(manifest);
        !said.clone().join(self)
    }

    fn join(&mut self, other: &Self) -> bool {
        let mut is_new = false;
        for (replica, theirs) in &other.0 {
            is_new |= !self.0.contains_key(replica);
            let known = self.0.entry(*replica).or_default();
            is_new |= raise(&mut known.accepted, &theirs.accepted);
            is_new |= raise(&mut known.dropped, &theirs.dropped);
        }
        is_new
    }

    /// Whether a device is revoked.
    #[must_use]
    pub fn is_revoked(&self, replica: ReplicaId) -> bool {
        self.0.contains_key(&replica) && !is_planted(Defect::RevocationIgnored)
    }

    /// Returns the revoked devices.
    pub fn devices(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.0.keys().copied()
    }

    /// Returns up to where a log of a device counts; `None` when the device is not revoked.
    #[must_use]
    pub fn accepted(&self, replica: ReplicaId, log: LogName) -> Option<LogHead> {
        let known = self.0.get(&replica).filter(|_| self.is_revoked(replica))?;
        Some(known.accepted.get(&log).copied().unwrap_or(LogHead::EMPTY))
    }

    /// Returns all accepted heads of a device.
    #[must_use]
    pub fn accepted_heads(&self, replica: ReplicaId) -> Heads {
        self.0.get(&replica).map(|known| known.accepted.clone()).unwrap_or_default()
    }

    /// Whether anything of an incarnation of a device may count.
    #[must_use]
    pub fn counts_any(&self, replica: ReplicaId, incarnation: Incarnation) -> bool {
        let accepted = self.0.get(&replica).map(|known| &known.accepted);
        !self.is_revoked(replica)
            || accepted.is_some_and(|heads| heads.keys().any(|log| log.incarnation == incarnation))
    }

    /// Says what a batch of a device is worth.
    #[must_use]
    pub fn standing(&self, replica: ReplicaId, header: &BatchHeader) -> Standing {
        let Some(accepted) = self.accepted(replica, header.log) else { return Standing::Free };
        if header.last < accepted.sequence || header.head() == accepted {
            return Standing::Accepted;
        }
        let dropped = self.0.get(&replica).and_then(|known| known.dropped.get(&header.log));
        match dropped.filter(|dropped| header.last < dropped.sequence || header.head() == **dropped) {
            Some(_) => Standing::Dropped,
            None => Standing::Quarantined,
        }
    }
}

/// Raises heads to others. Returns whether any was raised. Of two at one sequence the greater hash stands, so that the
/// order in which they come does not matter.
fn raise(known: &mut Heads, said: &Heads) -> bool {
    let mut is_new = false;
    for (log, head) in said {
        let here = known.get(log).copied().unwrap_or(LogHead::EMPTY);
        if (head.sequence, head.hash) > (here.sequence, here.hash) {
            known.insert(*log, *head);
            is_new = true;
        }
    }
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Hash32, Tier};

    fn log(byte: u8) -> LogName {
        LogName { tier: Tier::Safety, incarnation: Incarnation::of_key(&[byte; 32]) }
    }

    fn head(sequence: u64) -> LogHead {
        let hash = *blake3::hash(&sequence.to_be_bytes()).as_bytes();
        LogHead { sequence, hash: Hash32(hash) }
    }

    fn manifest(version: u64, entries: &[(u8, u64, u64)]) -> Manifest {
        let revoked = entries.iter().map(|(device, accepted, dropped)| Revocation {
            replica: ReplicaId::of_key(&[*device; 32]),
            revoked_ms: 1,
            accepted: Heads::from([(log(*device), head(*accepted))]),
            dropped: Heads::from([(log(*device), head(*dropped))]),
        });
        let school = "B113200000011".parse().unwrap();
        Manifest {
            school,
            version,
            keys: vec![],
            readers: vec![],
            revoked: revoked.collect(),
            held: vec![],
            destroyed: vec![],
        }
    }

    /// Goal: what is known is a join, so order, doubling and rollback do not matter. Method: four manifests, one of
    /// them a rollback of another, in all 24 orders.
    #[test]
    fn nothing_is_taken_back_in_any_order() {
        let all = [
            manifest(1, &[(1, 4, 0)]),
            manifest(2, &[(1, 9, 0), (2, 3, 0)]),
            manifest(3, &[(1, 9, 12), (2, 3, 5)]),
            manifest(4, &[(2, 2, 0)]),
        ];
        let mut outcomes = Vec::new();
        for order in 0..24_usize {
            let mut rest: Vec<&Manifest> = all.iter().collect();
            let mut known = Revocations::default();
            for (places, pick) in [(4, order % 4), (3, order / 4 % 3), (2, order / 12), (1, 0)] {
                assert_eq!(rest.len(), places);
                known.learn(rest.remove(pick));
            }
            assert!(!known.learn(&all[1]), "said twice is not new");
            outcomes.push(known);
        }
        assert!(outcomes.iter().all(|known| *known == outcomes[0]));
        let known = &outcomes[0];
        assert_eq!(known.accepted(ReplicaId::of_key(&[1; 32]), log(1)), Some(head(9)));
        assert!(!known.are_in(&all[3]) && !known.are_in(&all[1]) && known.are_in(&all[2]));
        assert_eq!(known.accepted(ReplicaId::of_key(&[3; 32]), log(1)), None);
    }

    /// Goal: an incarnation that the board never heard of counts for nothing. Method: another log of the device.
    #[test]
    fn unknown_incarnations_are_not_accepted() {
        let mut known = Revocations::default();
        known.learn(&manifest(1, &[(1, 4, 0)]));
        let device = ReplicaId::of_key(&[1; 32]);
        assert_eq!(known.accepted(device, log(7)), Some(LogHead::EMPTY));
        let counts = |device, number| known.counts_any(device, log(number).incarnation);
        assert!(counts(device, 1) && !counts(device, 7) && counts(ReplicaId::of_key(&[2; 32]), 7));
    }
}
