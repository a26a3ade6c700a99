//! Ended incarnations: what a device wrote before its present life, said as one hash. Spec:
//! `docs/spec/wire.md#ended-incarnations`.
//!
//! An incarnation has ended when an identity of a newer one of the same device is known. Both sides of a line derive
//! that from what they know; nobody declares it, and nothing is decided by it but what a greeting leaves out.
//!
//! **Invariant**: equal hashes mean equal incarnations with equal heads, so what is left out is exactly what the other
//! side holds.
//! **Invariant**: nothing of a revoked device is left out: two sides may know of different accepted heads.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::Identity;
use crate::ids::{Hash32, Incarnation, LogName, ReplicaId, Tier};
use crate::planted::{Defect, is_planted};
use crate::revocation::Revocations;
use crate::vector::{Heads, LogHead};

/// For each device a hash of its ended incarnations.
pub type EndedHashes = BTreeMap<ReplicaId, Hash32>;

/// Of one device: ended incarnations with the heads of their logs, empty ones included, in tier order.
type OfDevice = BTreeMap<Incarnation, [LogHead; Tier::ALL.len()]>;

/// Ended incarnations as one side of a line knows them. A device without any is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended(BTreeMap<ReplicaId, OfDevice>);

impl Ended {
    /// Derives them: of each device all but the newest by (`began_ms`, name). A wrong clock can only choose another one to
    /// be the newest; then a log that is written to is hashed, and hashes differ a little more often.
    pub fn of<'a>(
        identities: impl IntoIterator<Item = &'a Identity>,
        heads: &Heads,
        revocations: &Revocations,
    ) -> Self {
        let mut devices: BTreeMap<ReplicaId, BTreeSet<(u64, Incarnation)>> = BTreeMap::new();
        for identity in identities {
            let born = (identity.incarnation.body().began_ms, identity.name());
            devices.entry(identity.replica()).or_default().insert(born);
        }
        let head_of = |incarnation| {
            Tier::ALL.map(|tier| heads.get(&LogName { tier, incarnation }).copied().unwrap_or_default())
        };
        let older = |(replica, mut born): (ReplicaId, BTreeSet<(u64, Incarnation)>)| {
            born.pop_last();
            let is_said = !born.is_empty() && !revocations.is_revoked(replica);
            is_said.then(|| (replica, born.into_iter().map(|(_, name)| (name, head_of(name))).collect()))
        };
        Self(devices.into_iter().filter_map(older).collect())
    }

    /// Returns what a greeting says of them.
    #[must_use]
    pub fn hashes(&self) -> EndedHashes {
        self.0.iter().map(|(replica, device)| (*replica, hash(device))).collect()
    }

    /// Returns what shows that this side holds them: nobody can make it who has only seen [`Self::hashes`].
    #[must_use]
    pub fn proofs(&self, nonce: &str) -> EndedHashes {
        self.0.iter().map(|(replica, device)| (*replica, proof(device, nonce))).collect()
    }

    /// Keeps the devices of which the other side has said the same hash.
    #[must_use]
    pub fn equal_to(mut self, said: &EndedHashes) -> Self {
        self.0.retain(|replica, device| {
            said.get(replica).is_some_and(|said| *said == hash(device) || is_planted(Defect::EndedUnequal))
        });
        self
    }

    /// Returns those that the other side has shown to hold.
    #[must_use]
    pub fn proven_by(&self, proofs: &EndedHashes, nonce: &str) -> Self {
        let is_proven = |(replica, device): &(&ReplicaId, &OfDevice)| {
            let shown = proofs.get(replica);
            shown.is_some_and(|shown| *shown == proof(device, nonce) || is_planted(Defect::EndedUnequal))
        };
        Self(self.0.iter().filter(is_proven).map(|(replica, device)| (*replica, device.clone())).collect())
    }

    /// Returns the incarnations.
    #[must_use]
    pub fn incarnations(&self) -> BTreeSet<Incarnation> {
        self.0.values().flat_map(BTreeMap::keys).copied().collect()
    }

    /// Returns the heads of their logs.
    #[must_use]
    pub fn heads(&self) -> Heads {
        let named = |(incarnation, heads): (&Incarnation, &[LogHead; Tier::ALL.len()])| {
            let log = |tier| LogName { tier, incarnation: *incarnation };
            Tier::ALL.into_iter().map(log).zip(*heads).collect::<Vec<_>>()
        };
        let all = self.0.values().flatten().flat_map(named);
        all.filter(|(_, head)| *head != LogHead::EMPTY).collect()
    }
}

fn hash(device: &OfDevice) -> Hash32 {
    of_device("sonae 2026 ended incarnations", device, "")
}

fn proof(device: &OfDevice, nonce: &str) -> Hash32 {
    of_device("sonae 2026 ended incarnations are held", device, nonce)
}

fn of_device(context: &str, device: &OfDevice, nonce: &str) -> Hash32 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    // Each incarnation takes as many bytes as any other, so with their number nothing can be read in two ways.
    hasher.update(&u64::try_from(device.len()).unwrap_or(u64::MAX).to_be_bytes());
    for (incarnation, heads) in device {
        hasher.update(incarnation.bytes());
        for head in heads {
            hasher.update(&head.sequence.to_be_bytes());
            hasher.update(&head.hash.0);
        }
    }
    hasher.update(nonce.as_bytes());
    Hash32(*hasher.finalize().as_bytes())
}

#[cfg(test)]
#[path = "ended/tests.rs"]
mod tests;
