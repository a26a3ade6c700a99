//! What a replica learns of revoked devices, and what it does with their batches.
//!
//! **Invariant**: key documents that take back a revocation, or the destruction of a key, are refused as a whole, aloud.
//! **Invariant**: wrapped keys of destroyed epochs are not kept.
//! **Invariant**: key documents that lack a key which their manifest names leave everything as it was, so that the whole
//! set of that version is taken when it comes.
//! **Invariant**: of a revoked device nothing is fetched or applied behind what the board accepts; what a courier
//! brings of it is kept aside.

use crate::ids::LogName;
use crate::manifest::Manifest;
use crate::signed::Signed;
use crate::vector::{Heads, LogHead};
use crate::wire::KeyDocuments;

use super::{Alarm, Effect, Line, Uplink};

/// What became of key documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysOutcome {
    /// They are newer: an [`Effect::KeepKeys`] was asked for.
    Newer,
    /// They are held already, or newer ones are.
    Known,
    /// They are not the board's, of another school, not whole, or take back a revocation or the destruction of a key.
    Refused(String),
}

impl Uplink {
    /// Whether [`Self::handle_keys`] would take key documents as newer ones.
    #[must_use]
    pub fn wants_keys(&self, keys: &KeyDocuments) -> bool {
        let verified = self.newer_manifest(keys);
        verified.is_ok_and(|manifest| !self.takes_back(&manifest) && manifest.whole(keys).is_some())
    }

    /// Takes key documents, from the cloud, a courier or the board's own hand. Those that are [wanted](Self::wants_keys)
    /// are handed over only after the shell has opened each of their keys: this engine holds no key to do so, and
    /// counts the version as held from here on.
    ///
    /// # Source
    /// `docs/spec/keys.md#wrapped-keys`
    pub fn handle_keys(&mut self, keys: &KeyDocuments) -> KeysOutcome {
        let manifest = match self.newer_manifest(keys) {
            Ok(manifest) => manifest,
            Err(outcome) => return outcome,
        };
        if self.takes_back(&manifest) {
            let version = manifest.version;
            self.effects.push_back(Effect::Alarm(Alarm::RevocationTakenBack { version }));
            let text = format!("manifest {version} takes back a revocation or the destruction of a key");
            return KeysOutcome::Refused(text);
        }
        let Some(keys) = manifest.whole(keys) else {
            let version = manifest.version;
            let text = format!("not every key that manifest {version} names is there exactly once");
            return KeysOutcome::Refused(text);
        };
        self.manifest_version = manifest.version;
        self.destroyed.learn(&manifest);
        self.effects.push_back(Effect::KeepKeys(Box::new(keys)));
        self.peers.learn_revocations(&manifest);
        let said = std::mem::take(&mut self.cloud_said);
        self.cloud_heads = self.within_accepted(&said);
        self.tell_applied();
        self.renew_unreadable();
        if self.line == Line::Up {
            // What the cloud said before this came may count by now.
            self.want_peers(&said);
        }
        self.cloud_said = said;
        if self.line == Line::Up && self.cloud_manifest < self.manifest_version {
            self.cloud_manifest = self.manifest_version;
            self.effects.push_back(Effect::SendKeys);
        }
        KeysOutcome::Newer
    }

    /// Returns the manifest of key documents if it is the board's for this school, and newer than what is held.
    fn newer_manifest(&self, keys: &KeyDocuments) -> Result<Manifest, KeysOutcome> {
        let signed = Signed::<Manifest>::verify(&keys.manifest, &self.board)
            .map_err(|error| KeysOutcome::Refused(error.to_string()))?;
        let manifest = signed.body();
        if keys.school != self.school || manifest.school != self.school || !manifest.is_within_limits() {
            return Err(KeysOutcome::Refused("they are of another school or over their limits".into()));
        }
        if manifest.version <= self.manifest_version {
            return Err(KeysOutcome::Known);
        }
        Ok(manifest.clone())
    }

    /// Whether a newer manifest says less than what is known.
    fn takes_back(&self, manifest: &Manifest) -> bool {
        !self.peers.revocations().are_in(manifest) || !self.destroyed.are_in(manifest)
    }

    /// Takes heads of the cloud, those of revoked devices up to what counts: a cloud that has not learnt of it yet
    /// names more.
    pub(super) fn within_accepted(&self, heads: &Heads) -> Heads {
        let clamp = |(log, head): (&LogName, &LogHead)| match self.peers.accepted(*log) {
            Some(accepted) if accepted.sequence < head.sequence => (*log, accepted),
            _ => (*log, *head),
        };
        heads.iter().map(clamp).filter(|(_, head)| *head != LogHead::EMPTY).collect()
    }

    /// What was applied before the revocation was known stays applied; people must know.
    pub(super) fn tell_applied(&mut self) {
        for (log, accepted, held) in self.peers.applied_too_much() {
            let alarm = Alarm::AppliedBeforeRevocation { log, accepted, held };
            self.effects.push_back(Effect::Alarm(alarm));
        }
    }
}
