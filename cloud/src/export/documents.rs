//! Identities, manifests and wrapped keys of one school, as the sites hold them.
//!
//! **Invariant**: with a root key, only what it signed opens or verifies anything; the rest is written to
//! `foreign/` and told.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use sonae_proto::batch::{Batch, BatchError, BatchHeader};
use sonae_proto::destruction::Destroyed;
use sonae_proto::export::{
    Line, Problem, earlier_key_file, foreign_file, identity_files, key_file, key_name, manifest_file,
    proof_file, short,
};
use sonae_proto::identity::{DeviceCertificate, Identity, IdentityText, IncarnationCertificate};
use sonae_proto::ids::{Hash32, Incarnation, LogName, SchoolCode, Tier};
use sonae_proto::manifest::{KeyUse, Manifest};
use sonae_proto::object::RecordKind;
use sonae_proto::proof::Proof;
use sonae_proto::revocation::Revocations;
use sonae_proto::signed::{Signed, unverified};
use sonae_proto::snapshot::{Snapshot, SnapshotRoot};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::KeyDocuments;

use super::ExportError;
use super::out::Out;

/// Whose it is cannot be told either.
pub const NO_MEANING: &str = "it has no meaning; perhaps it is of a later version";

const NO_KEY: &str = "no manifest at the sites names its key";

struct KeySet {
    version: u64,
    hash: Hash32,
    verified: bool,
    documents: KeyDocuments,
}

/// The documents of one school.
pub struct Documents {
    school: SchoolCode,
    root: Option<VerifyingKey>,
    identities: BTreeMap<Incarnation, Identity>,
    manifests: BTreeMap<Hash32, Manifest>,
    /// What they say. Without the board's root key nothing is believed, and nothing set aside.
    revocations: Revocations,
    sets: Vec<KeySet>,
    /// Evidence, until all identities are known: objects are not read in the order in which they were written.
    proofs: Vec<Vec<u8>>,
    lines: Vec<Line>,
    problems: Vec<Problem>,
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}

impl Documents {
    /// Starts with none.
    pub fn new(school: SchoolCode, root: Option<VerifyingKey>) -> Self {
        Self {
            school,
            root,
            identities: BTreeMap::new(),
            manifests: BTreeMap::new(),
            revocations: Revocations::default(),
            sets: Vec::new(),
            proofs: Vec::new(),
            lines: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.problems.is_empty() && self.sets.is_empty() && self.proofs.is_empty()
    }

    /// Takes a record; one of another school is passed over.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn add(&mut self, kind: RecordKind, body: &[u8], out: &mut Out) -> Result<(), ExportError> {
        match kind {
            RecordKind::Identity => self.add_identity(body, out),
            RecordKind::Keys => self.add_keys(body, out),
            RecordKind::Proof => {
                self.proofs.push(body.to_owned());
                Ok(())
            }
            RecordKind::Batch | RecordKind::Snapshot | RecordKind::SnapshotPart | RecordKind::Inputs => {
                Ok(())
            }
        }
    }

    /// Writes what does not verify aside, and remembers why.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn foreign(
        &mut self,
        kind: &str,
        body: &[u8],
        text: String,
        out: &mut Out,
    ) -> Result<(), ExportError> {
        let file = out.write(&foreign_file(kind, hash(body)), body)?;
        let problem = Problem::UnverifiedDocument { file, text };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        Ok(())
    }

    fn add_identity(&mut self, body: &[u8], out: &mut Out) -> Result<(), ExportError> {
        let text = serde_json::from_slice::<IdentityText>(body).ok();
        let device = text.as_ref().and_then(|text| unverified::<DeviceCertificate>(&text.device));
        let (Some(text), Some(device)) = (text, device) else {
            return self.foreign("identity", body, NO_MEANING.into(), out);
        };
        if device.school != self.school {
            return Ok(());
        }
        let (incarnation, replica) = match self.root {
            Some(root) => match text.verify(&root, self.school) {
                Ok(identity) => {
                    let named = (identity.name(), identity.device.body().replica());
                    self.identities.insert(named.0, identity);
                    named
                }
                Err(error) => return self.foreign("identity", body, said(&error), out),
            },
            None => match Signed::<IncarnationCertificate>::verify(&text.incarnation, &device.key) {
                Ok(certificate) => (certificate.body().incarnation(), device.replica()),
                Err(error) => return self.foreign("identity", body, said(&error), out),
            },
        };
        let (device_file, incarnation_file) = identity_files(incarnation, hash(text.device.as_bytes()));
        let device_file = out.write(&device_file, text.device.as_bytes())?;
        let incarnation_file = out.write(&incarnation_file, text.incarnation.as_bytes())?;
        let verified = self.root.is_some();
        self.note(Line::Identity { incarnation, replica, device_file, incarnation_file, verified });
        Ok(())
    }

    fn note(&mut self, line: Line) {
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    fn add_keys(&mut self, body: &[u8], out: &mut Out) -> Result<(), ExportError> {
        let Ok(documents) = serde_json::from_slice::<KeyDocuments>(body) else {
            return self.foreign("keys", body, NO_MEANING.into(), out);
        };
        if documents.school != self.school {
            return Ok(());
        }
        let hash = hash(documents.manifest.as_bytes());
        let manifest = match self.root {
            Some(root) => match Signed::<Manifest>::verify(&documents.manifest, &root) {
                Ok(signed) => Some(signed.body().clone()),
                Err(error) => return self.foreign("keys", body, said(&error), out),
            },
            None => unverified::<Manifest>(&documents.manifest),
        };
        let Some(manifest) = manifest.filter(|manifest| manifest.school == self.school) else {
            return self.foreign("keys", body, "the manifest is of another school".into(), out);
        };
        let version = manifest.version;
        let file = out.write(&manifest_file(version, hash), documents.manifest.as_bytes())?;
        let verified = self.root.is_some();
        self.note(Line::Manifest { version, hash, file, verified });
        if verified {
            self.revocations.learn(&manifest);
        }
        self.manifests.insert(hash, manifest);
        if !self.sets.iter().any(|known| known.documents == documents) {
            self.sets.push(KeySet { version, hash, verified, documents });
        }
        Ok(())
    }

    /// Writes the evidence of restore proofs, once all identities are known.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn write_proofs(&mut self, out: &mut Out) -> Result<(), ExportError> {
        for proof in std::mem::take(&mut self.proofs) {
            self.add_proof(&proof, out)?;
        }
        Ok(())
    }

    fn add_proof(&mut self, body: &[u8], out: &mut Out) -> Result<(), ExportError> {
        let text = std::str::from_utf8(body).ok();
        let Some((text, proof)) = text.and_then(|text| Some((text, unverified::<Proof>(text)?))) else {
            return self.foreign("proof", body, NO_MEANING.into(), out);
        };
        if proof.school != self.school {
            return Ok(());
        }
        let (incarnation, number, result) = (proof.incarnation, proof.number, proof.result);
        let key = |of| self.identities.get(&of).map(|identity| *identity.key());
        let verified = match self.root {
            Some(_) => match Proof::verify(text, self.school, key) {
                Ok(_) => true,
                Err(error) => return self.foreign("proof", body, said(&error), out),
            },
            None => false,
        };
        let file = out.write(&proof_file(incarnation, number), body)?;
        self.note(Line::Proof { incarnation, number, result, file, verified });
        Ok(())
    }

    /// Writes the wrapped keys, the newest of each in the first place.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn write_keys(&mut self, out: &mut Out) -> Result<(), ExportError> {
        let mut sets = std::mem::take(&mut self.sets);
        sets.sort_by_key(|set| {
            std::cmp::Reverse((set.verified, set.version, set.documents.wrapped_keys.len()))
        });
        let destroyed = self.destroyed();
        for set in &mut sets {
            destroyed.strip(&mut set.documents);
        }
        let mut named = BTreeMap::new();
        for set in &sets {
            let label = format!("{:06}-{}", set.version, short(set.hash));
            for key in &set.documents.wrapped_keys {
                let first = !named.contains_key(&(key.key_use, key.epoch));
                let name = if first {
                    key_file(key.key_use, key.epoch)
                } else {
                    earlier_key_file(&label, key.key_use, key.epoch)
                };
                let file = out.write(&name, &key.file)?;
                named.entry((key.key_use, key.epoch)).or_insert_with(|| file.clone());
                let (key_use, epoch, manifest) = (key.key_use, key.epoch, set.version);
                self.note(Line::WrappedKey { key_use, epoch, manifest, file });
            }
        }
        self.sets = sets;
        Ok(())
    }

    /// Whether anything is verified at all.
    pub const fn verifies(&self) -> bool {
        self.root.is_some()
    }

    /// Says why a batch does not verify; `None` when it does.
    pub fn objection(&self, batch: &Batch) -> Option<String> {
        let header = batch.header();
        self.root?;
        let Some(identity) = self.identities.get(&header.log.incarnation) else {
            return Some("the sites hold no identity of its incarnation".into());
        };
        if let Err(error) = batch.verify(identity.key()) {
            let what: &BatchError = &error;
            return Some(said(what));
        }
        (!self.names_key(header.manifest, header.log.tier, header.epoch)).then(|| NO_KEY.into())
    }

    /// Whether a manifest is here, and names the key of a tier.
    fn names_key(&self, manifest: Hash32, tier: Tier, epoch: u32) -> bool {
        let manifest = self.manifests.get(&manifest);
        manifest.is_some_and(|manifest| manifest.key(KeyUse::Tier(tier), epoch).is_some())
    }

    /// Says why the root of a snapshot does not verify; `None` when it does.
    pub fn objection_to_root(&self, text: &str, root: &SnapshotRoot) -> Option<String> {
        self.root?;
        let key_of = |author| self.identities.get(&author).map(|identity| *identity.key());
        if let Err(error) = Snapshot::verify(text, self.school, key_of) {
            return Some(said(&error));
        }
        (!self.names_key(root.manifest, root.tier, root.epoch)).then(|| NO_KEY.into())
    }

    /// Whether a snapshot counts: not one that somebody made whose device is revoked, and none that holds more of a log
    /// than the board accepts. It brings a state, and nobody could tell what of it the thief made up.
    pub fn counts_root(&self, root: &SnapshotRoot) -> bool {
        let replica = |of: Incarnation| self.identities.get(&of).map(Identity::replica);
        let is_within = |(log, head): (&LogName, &LogHead)| {
            let accepted =
                replica(log.incarnation).and_then(|replica| self.revocations.accepted(replica, *log));
            accepted.is_none_or(|accepted| head.sequence <= accepted.sequence)
        };
        !replica(root.author).is_some_and(|author| self.revocations.is_revoked(author))
            && root.heads.iter().all(is_within)
    }

    /// Whether the board has revoked the device of a batch, and does not accept it.
    pub fn is_quarantined(&self, header: &BatchHeader) -> bool {
        let identity = self.identities.get(&header.log.incarnation);
        identity.is_some_and(|identity| !self.revocations.standing(identity.replica(), header).counts())
    }

    /// Returns the heads of revoked devices that the board accepts.
    pub fn accepted(&self) -> Heads {
        self.revocations.devices().flat_map(|device| self.revocations.accepted_heads(device)).collect()
    }

    /// Returns what the board has destroyed. Without its root key nothing is believed, and nothing is left out.
    pub fn destroyed(&self) -> Destroyed {
        let mut destroyed = Destroyed::default();
        for manifest in self.manifests.values().filter(|_| self.root.is_some()) {
            destroyed.learn(manifest);
        }
        destroyed
    }

    /// Whether a wrapped key of this name was written.
    pub fn has_key(&self, key_use: KeyUse, epoch: u32) -> bool {
        let wanted = key_name(key_use, epoch);
        self.sets
            .iter()
            .flat_map(|set| &set.documents.wrapped_keys)
            .any(|key| key_name(key.key_use, key.epoch) == wanted)
    }

    /// Returns the lines of the index and the problems.
    pub fn finish(self) -> (Vec<Line>, Vec<Problem>) {
        (self.lines, self.problems)
    }
}

/// An error with what caused it.
pub fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
