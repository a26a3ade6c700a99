//! Destroyed keys: the board's word that an epoch's key exists no more, so that nobody opens what is sealed to it. It
//! stands in the [manifest](crate::manifest), as revocations do. Spec: `docs/spec/keys.md#destruction`.
//!
//! **Invariant**: what is known only grows. A manifest that says less than an earlier one takes nothing back, in whatever
//! order they come.
//! **Invariant**: wrapped keys of a destroyed epoch are dropped wherever they are met.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::SchoolCode;
use crate::manifest::{KeyUse, Manifest};
use crate::receipt::SiteId;
use crate::signed::Document;
use crate::wire::KeyDocuments;

/// A key that the board has ordered to be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyedKey {
    /// What it was for.
    #[serde(rename = "use")]
    pub key_use: KeyUse,
    /// Its epoch.
    pub epoch: u32,
    /// When the board said so, milliseconds since 1970 UTC. For people; nothing is decided by it.
    pub destroyed_ms: u64,
}

/// A node's word that no copy of destroyed keys is left at any of its sites: it has read every object there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestructionCertificate {
    /// Whose keys.
    pub school: SchoolCode,
    /// Which.
    pub keys: Vec<DestroyedKey>,
    /// The sites that were read: all that the node was given.
    pub sites: Vec<SiteId>,
    /// When the last of them was read, by the node's clock, milliseconds since 1970 UTC.
    pub issued_ms: u64,
}

impl Document for DestructionCertificate {
    const LABEL: &'static str = "sonae/destruction/v1";
}

/// All destroyed keys that are known of a school, each with the earliest time that was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destroyed(BTreeMap<(KeyUse, u32), u64>);

impl Destroyed {
    /// Returns those of one manifest.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let mut destroyed = Self::default();
        destroyed.learn(manifest);
        destroyed
    }

    /// Takes over what a manifest says. Returns whether it names a key that was not known to be destroyed.
    pub fn learn(&mut self, manifest: &Manifest) -> bool {
        let mut is_new = false;
        for key in &manifest.destroyed {
            is_new |= !self.contains(key.key_use, key.epoch);
            let at_ms = self.0.entry((key.key_use, key.epoch)).or_insert(key.destroyed_ms);
            *at_ms = key.destroyed_ms.min(*at_ms);
        }
        is_new
    }

    /// Whether a key is destroyed.
    #[must_use]
    pub fn contains(&self, key_use: KeyUse, epoch: u32) -> bool {
        self.0.contains_key(&(key_use, epoch))
    }

    /// Whether a manifest says at least what is known. One that does not was made by a board that has forgotten.
    #[must_use]
    pub fn are_in(&self, manifest: &Manifest) -> bool {
        self.0.keys().all(|(key_use, epoch)| manifest.is_destroyed(*key_use, *epoch))
    }

    /// Returns them, by use and epoch, each with when the board said so.
    pub fn iter(&self) -> impl Iterator<Item = (KeyUse, u32, u64)> + '_ {
        self.0.iter().map(|((key_use, epoch), at_ms)| (*key_use, *epoch, *at_ms))
    }

    /// Returns them as a list.
    #[must_use]
    pub fn keys(&self) -> Vec<DestroyedKey> {
        self.iter()
            .map(|(key_use, epoch, destroyed_ms)| DestroyedKey { key_use, epoch, destroyed_ms })
            .collect()
    }

    /// Drops wrapped keys of destroyed epochs from the JSON of key documents, and leaves everything else in it, what later
    /// versions have put there too. `None` if there are none.
    #[must_use]
    pub fn strip_json(&self, documents: &[u8]) -> Option<Vec<u8>> {
        let mut documents: serde_json::Value = serde_json::from_slice(documents).ok()?;
        let wrapped = documents.get_mut("wrapped_keys")?.as_array_mut()?;
        let before = wrapped.len();
        wrapped.retain(|key| {
            let key_use =
                key.get("use").and_then(serde_json::Value::as_str).and_then(|name| name.parse().ok());
            let epoch =
                key.get("epoch").and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok());
            !key_use.zip(epoch).is_some_and(|(key_use, epoch)| self.contains(key_use, epoch))
        });
        if wrapped.len() == before { None } else { serde_json::to_vec(&documents).ok() }
    }

    /// Drops wrapped keys of destroyed epochs. Returns whether there were any.
    pub fn strip(&self, keys: &mut KeyDocuments) -> bool {
        let before = keys.wrapped_keys.len();
        keys.wrapped_keys.retain(|key| !self.contains(key.key_use, key.epoch));
        keys.wrapped_keys.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Tier;
    use crate::manifest::{ManifestKey, WrappedKey};

    const DAILY: KeyUse = KeyUse::Tier(Tier::Daily);

    fn manifest(version: u64, destroyed: &[(u32, u64)]) -> Manifest {
        let destroyed = destroyed
            .iter()
            .map(|(epoch, destroyed_ms)| DestroyedKey {
                key_use: DAILY,
                epoch: *epoch,
                destroyed_ms: *destroyed_ms,
            })
            .collect();
        let school = "B113200000011".parse().unwrap();
        Manifest { school, version, keys: vec![], readers: vec![], revoked: vec![], held: vec![], destroyed }
    }

    /// Goal: what is known is a join, so order, doubling and rollback do not matter. Method: three manifests, one of
    /// them a rollback, in all six orders.
    #[test]
    fn nothing_is_taken_back_in_any_order() {
        let all =
            [manifest(2, &[(2020, 5)]), manifest(3, &[(2020, 5), (2021, 9)]), manifest(4, &[(2020, 7)])];
        let mut outcomes = Vec::new();
        for [a, b, c] in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut known = Destroyed::default();
            assert!(known.learn(&all[a]));
            known.learn(&all[b]);
            known.learn(&all[c]);
            assert!(!known.learn(&all[1]), "said twice is not new");
            outcomes.push(known);
        }
        assert!(outcomes.iter().all(|known| *known == outcomes[0]));
        let known = &outcomes[0];
        assert_eq!(known.iter().collect::<Vec<_>>(), [(DAILY, 2020, 5), (DAILY, 2021, 9)]);
        assert!(known.are_in(&all[1]) && !known.are_in(&all[2]) && !known.are_in(&all[0]));
        assert!(!known.contains(KeyUse::Tier(Tier::Safety), 2020));
    }

    /// Goal: wrapped keys of a destroyed epoch are dropped, others stay. Method: documents with both.
    #[test]
    fn wrapped_keys_of_destroyed_epochs_are_dropped() {
        let wrapped = |epoch| WrappedKey { key_use: DAILY, epoch, file: vec![1] };
        let mut keys = KeyDocuments {
            school: "B113200000011".parse().unwrap(),
            manifest: String::new(),
            wrapped_keys: vec![wrapped(2020), wrapped(2022)],
        };
        let known = Destroyed::of(&manifest(3, &[(2020, 5)]));
        let json = serde_json::to_string(&keys).unwrap().replacen('{', "{\"later\":1,", 1);
        let stripped = known.strip_json(json.as_bytes()).unwrap();
        let there: serde_json::Value = serde_json::from_slice(&stripped).unwrap();
        assert_eq!((&there["later"], &there["wrapped_keys"][0]["epoch"]), (&1.into(), &2022.into()));
        assert_eq!(there["wrapped_keys"].as_array().unwrap().len(), 1);
        assert_eq!(known.strip_json(&stripped), None, "what is left is left alone");
        assert_eq!(known.strip_json(b"no JSON"), None);
        assert!(known.strip(&mut keys));
        assert_eq!(keys.wrapped_keys, [wrapped(2022)]);
        assert!(!known.strip(&mut keys));
    }

    /// Goal: a manifest does not both name a key and destroy it. Method: one that does is over its limits.
    #[test]
    fn a_key_is_named_or_destroyed() {
        let mut both = manifest(3, &[(2020, 5)]);
        assert!(both.is_within_limits() && both.is_destroyed(DAILY, 2020) && !both.is_destroyed(DAILY, 2021));
        both.keys.push(ManifestKey { key_use: DAILY, epoch: 2020, recipient: "age1".into() });
        assert!(!both.is_within_limits());
    }
}
