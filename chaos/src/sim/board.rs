//! The board of a simulated school: fixed keys, one manifest, devices and their incarnations.
//!
//! **Invariant**: everything here is a function of numbers, so that a run can be repeated.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::Result;
use ed25519_dalek::SigningKey;
use sonae_proto::batch::{Batch, BatchError, Place};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::digest::DigestKey;
use sonae_proto::identity::{
    Beginning, DeviceCertificate, Identity, IdentityError, IdentityText, IncarnationCertificate, ReplicaKind,
};
use sonae_proto::ids::{Hash32, Incarnation, LogName, ReplicaId, SchoolCode, Tier};
use sonae_proto::intake::{Config, Intake};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader, WrappedKey};
use sonae_proto::receipt::SiteId;
use sonae_proto::revocation::{Revocation, Revocations};
use sonae_proto::signed::Signed;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::KeyDocuments;

use super::seal;

pub(crate) const EPOCH: u32 = 2026;

/// Keys of the board as opposed to those of devices, which are told apart by their first bytes.
const ROOT: [u8; 32] = [1; 32];
const RECEIPTS: [u8; 32] = [2; 32];

/// The name of a site by its number.
pub(crate) fn site(number: usize) -> SiteId {
    [u8::try_from(number).unwrap_or(u8::MAX).saturating_add(1); 16]
}

/// The board.
pub(crate) struct Board {
    pub root: SigningKey,
    pub school: SchoolCode,
    receipt_key: SigningKey,
    manifest: Signed<Manifest>,
    /// Later manifests, that revoke devices. Batches are sealed under the first one all the same.
    words: Vec<Signed<Manifest>>,
    /// Identities that were verified before, by their texts.
    verified: RefCell<BTreeMap<(String, String), Identity>>,
}

impl Board {
    pub fn new() -> Result<Self> {
        let root = SigningKey::from_bytes(&ROOT);
        let school: SchoolCode = "B113200000011".parse()?;
        let key = |key_use, epoch| ManifestKey { key_use, epoch, recipient: "age1double".into() };
        let mut keys = Tier::ALL.map(|tier| key(KeyUse::Tier(tier), EPOCH)).to_vec();
        keys.push(key(KeyUse::Digest, 0));
        let reader = Reader { name: "operations".into(), kind: None, recipient: "age1double".into() };
        let manifest = Manifest {
            school,
            version: 1,
            keys,
            readers: vec![reader],
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        let manifest = Signed::sign(manifest, &root)?;
        Ok(Self {
            receipt_key: SigningKey::from_bytes(&RECEIPTS),
            root,
            school,
            manifest,
            words: Vec::new(),
            verified: RefCell::default(),
        })
    }

    /// Verifies an identity, the first time that its texts are seen.
    pub fn identity(&self, text: &IdentityText) -> Result<Identity, IdentityError> {
        let texts = (text.device.clone(), text.incarnation.clone());
        if let Some(known) = self.verified.borrow().get(&texts) {
            return Ok(known.clone());
        }
        let identity = text.verify(&self.root.verifying_key(), self.school)?;
        self.verified.borrow_mut().insert(texts, identity.clone());
        Ok(identity)
    }

    /// The hash of the manifest that all is sealed under.
    pub fn manifest(&self) -> Hash32 {
        self.manifest.hash()
    }

    /// The version of the newest manifest.
    pub fn version(&self) -> u64 {
        self.words.last().unwrap_or(&self.manifest).body().version
    }

    /// Signs the next manifest.
    pub fn say(&mut self, revoked: Vec<Revocation>) -> Result<()> {
        let version = self.version() + 1;
        let body = Manifest { version, revoked, ..self.manifest.body().clone() };
        self.words.push(Signed::sign(body, &self.root)?);
        Ok(())
    }

    /// What a box that has seen manifests up to a version knows of revoked devices.
    pub fn revocations_at(&self, version: u64) -> Revocations {
        let mut known = Revocations::default();
        for word in self.words.iter().filter(|word| word.body().version <= version) {
            known.learn(word.body());
        }
        known
    }

    /// Key documents of a version.
    pub fn documents_at(&self, version: u64) -> KeyDocuments {
        let word = self.words.iter().find(|word| word.body().version == version);
        let manifest = word.unwrap_or(&self.manifest).text().to_owned();
        KeyDocuments { manifest, ..self.documents() }
    }

    /// The version that key documents are of; 0 for those that are not the board's.
    pub fn version_of(&self, keys: &KeyDocuments) -> u64 {
        let signed = Signed::<Manifest>::verify(&keys.manifest, &self.root.verifying_key());
        signed.map_or(0, |signed| signed.body().version)
    }

    /// The key in the TLS certificate of a device.
    pub fn tls_key(&self, device: u8) -> [u8; 32] {
        SigningKey::from_bytes(&[device; 32]).verifying_key().to_bytes()
    }

    /// The name of a device.
    pub fn replica(&self, device: u8) -> ReplicaId {
        ReplicaId::of_key(&self.tls_key(device))
    }

    pub fn documents(&self) -> KeyDocuments {
        let wrap = |key: &ManifestKey| WrappedKey {
            key_use: key.key_use,
            epoch: key.epoch,
            file: b"double".to_vec(),
        };
        KeyDocuments {
            school: self.school,
            manifest: self.manifest.text().to_owned(),
            wrapped_keys: self.manifest.body().keys.iter().map(wrap).collect(),
        }
    }

    pub fn descriptor(&self) -> CloudDescriptor {
        CloudDescriptor {
            version: 1,
            hosts: vec!["cloud.example:443".into()],
            tls_certificates: vec![],
            receipt_keys: vec![ReceiptKey { key: self.receipt_key.verifying_key() }],
        }
    }

    pub fn digest_key(&self) -> DigestKey {
        DigestKey::from_secret("simulation")
    }

    pub fn intake(&self, sites: usize, quorum: usize, receipt_before_store: bool) -> Intake {
        Intake::new(Config {
            board: self.root.verifying_key(),
            receipt_key: self.receipt_key.clone(),
            sites,
            quorum,
            receipt_before_store,
        })
    }

    /// Certifies a device and lets it begin an incarnation; both are known by numbers.
    pub fn begin(&self, number: u8, incarnation: u8, beginning: Beginning) -> Result<Life> {
        let device_key = SigningKey::from_bytes(&[number; 32]);
        let certificate = DeviceCertificate {
            school: self.school,
            key: device_key.verifying_key(),
            recipient: "age1double".into(),
            kind: ReplicaKind::Appliance,
            enrolled_ms: 1,
        };
        let device = Signed::sign(certificate, &self.root)?;
        let key = SigningKey::from_bytes(&[incarnation ^ 0x80; 32]);
        let certificate = IncarnationCertificate {
            school: self.school,
            replica: device.body().replica(),
            key: key.verifying_key(),
            beginning,
            // In every third life the clock of the box stood at 1970.
            began_ms: if incarnation.is_multiple_of(3) { 0 } else { u64::from(incarnation) },
        };
        let name = certificate.incarnation();
        let signed = Signed::sign(certificate, &device_key)?;
        let identity =
            IdentityText { device: device.text().to_owned(), incarnation: signed.text().to_owned() };
        let tls_key = device_key.verifying_key().to_bytes();
        Ok(Life { device: number, tls_key, key, name, identity, rebuilds: false })
    }

    /// Seals lines into the next batch of a log of `life`.
    pub fn seal(
        &self,
        life: &Life,
        tier: Tier,
        after: LogHead,
        lines: &[Vec<u8>],
        salt: u64,
    ) -> Result<Batch, BatchError> {
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let place = Place {
            school: self.school,
            log: life.log(tier),
            after,
            last: after.sequence.saturating_add(count),
            epoch: EPOCH,
            manifest: self.manifest.hash(),
        };
        Batch::sign(&place, &seal::seal(lines, salt), &life.key)
    }
}

/// One incarnation of one device.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub device: u8,
    pub tls_key: [u8; 32],
    pub key: SigningKey,
    pub name: Incarnation,
    pub identity: IdentityText,
    /// It begins with what the cloud has, and nobody writes before that is here.
    pub rebuilds: bool,
}

impl Life {
    pub fn log(&self, tier: Tier) -> LogName {
        LogName { tier, incarnation: self.name }
    }
}
