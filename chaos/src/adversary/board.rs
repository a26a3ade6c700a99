//! The board of two schools, with keys that follow from numbers, and both ways of sealing.
//!
//! **Invariant**: all but what age draws is a function of the history's number.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use sonae_proto::batch::{Batch, Place};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::identity::{
    Beginning, DeviceCertificate, IdentityText, IncarnationCertificate, ReplicaKind,
};
use sonae_proto::ids::{Hash32, Incarnation, LogName, SchoolCode, Tier};
use sonae_proto::intake::Config;
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader, WrappedKey};
use sonae_proto::receipt::SiteId;
use sonae_proto::revocation::Revocation;
use sonae_proto::seal::{LEVEL_LIVE, OpenKey, open_lines, seal_lines};
use sonae_proto::signed::Signed;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::KeyDocuments;

use crate::sim::seal;

/// The school years of the two epochs.
pub(crate) const EPOCHS: [u32; 2] = [2025, 2026];

/// The name of a site by its number.
pub(crate) fn site(number: usize) -> SiteId {
    [u8::try_from(number).unwrap_or(u8::MAX).saturating_add(1); 16]
}

/// A key that follows from a name.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes())
}

/// One school: its keys and its two manifests, the second of which adds an epoch.
pub(crate) struct School {
    pub code: SchoolCode,
    manifests: [Signed<Manifest>; 2],
    /// Empty when sealing is the double.
    open: BTreeMap<(Tier, u32), OpenKey>,
}

impl School {
    fn new(code: &str, root: &SigningKey, real: bool) -> Result<Self> {
        let code: SchoolCode = code.parse()?;
        let places = EPOCHS.iter().flat_map(|epoch| Tier::ALL.map(|tier| (tier, *epoch)));
        let open: BTreeMap<_, _> =
            places.filter(|_| real).map(|place| (place, OpenKey::generate())).collect();
        let recipient = |place| open.get(&place).map_or_else(|| "age1double".to_owned(), OpenKey::recipient);
        let manifest = |version: usize| {
            let mut keys =
                vec![ManifestKey { key_use: KeyUse::Digest, epoch: 0, recipient: "age1double".into() }];
            for epoch in EPOCHS.iter().take(version) {
                keys.extend(Tier::ALL.map(|tier| ManifestKey {
                    key_use: KeyUse::Tier(tier),
                    epoch: *epoch,
                    recipient: recipient((tier, *epoch)),
                }));
            }
            let reader = Reader { name: "operations".into(), kind: None, recipient: "age1double".into() };
            let version = u64::try_from(version)?;
            let body = Manifest {
                school: code,
                version,
                keys,
                readers: vec![reader],
                revoked: Vec::new(),
                held: Vec::new(),
                destroyed: Vec::new(),
            };
            Ok::<_, anyhow::Error>(Signed::sign(body, root)?)
        };
        Ok(Self { code, manifests: [manifest(1)?, manifest(2)?], open })
    }

    /// Signs the manifest that revokes a device, and is newer than the two.
    pub fn revoke(&self, revocation: Revocation, root: &SigningKey) -> Result<Signed<Manifest>> {
        let body = self.manifests[1].body().clone();
        let version = body.version + 1;
        Ok(Signed::sign(Manifest { version, revoked: vec![revocation], ..body }, root)?)
    }

    /// The key documents of an epoch, 0 or 1.
    pub fn documents(&self, epoch: usize) -> KeyDocuments {
        self.documents_of(&self.manifests[epoch])
    }

    /// The key documents of a manifest.
    pub fn documents_of(&self, manifest: &Signed<Manifest>) -> KeyDocuments {
        let wrap = |key: &ManifestKey| WrappedKey {
            key_use: key.key_use,
            epoch: key.epoch,
            file: b"double".to_vec(),
        };
        KeyDocuments {
            school: self.code,
            manifest: manifest.text().to_owned(),
            wrapped_keys: manifest.body().keys.iter().map(wrap).collect(),
        }
    }

    /// Seals lines into the next batch of a log.
    pub fn seal(
        &self,
        life: &Life,
        tier: Tier,
        after: LogHead,
        lines: &[Vec<u8>],
        epoch: usize,
    ) -> Result<Batch> {
        let log = life.log(tier);
        let payload = self.seal_payload((tier, epoch), lines, after.sequence)?;
        let place = Place {
            school: self.code,
            log,
            after,
            last: after.sequence + u64::try_from(lines.len())?,
            epoch: EPOCHS[epoch],
            manifest: self.manifests[epoch].hash(),
        };
        Ok(Batch::sign(&place, &payload, &life.key)?)
    }

    /// Seals lines to the key of a tier and an epoch, 0 or 1.
    pub fn seal_payload(
        &self,
        (tier, epoch): (Tier, usize),
        lines: &[Vec<u8>],
        salt: u64,
    ) -> Result<Vec<u8>> {
        let Some(key) = self.open.get(&(tier, EPOCHS[epoch])) else { return Ok(seal::seal(lines, salt)) };
        let text: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect();
        Ok(seal_lines(&text, LEVEL_LIVE, &key.recipient())?)
    }

    /// The hash of the manifest of an epoch, 0 or 1.
    pub fn manifest(&self, epoch: usize) -> Hash32 {
        self.manifests[epoch].hash()
    }

    /// Opens a batch to its lines.
    pub fn open(&self, batch: &Batch) -> Result<Vec<Vec<u8>>> {
        let header = batch.header();
        self.open_payload((header.log.tier, header.epoch), batch.payload())
    }

    /// Opens a payload that is sealed to the key of a tier and a school year.
    pub fn open_payload(&self, place: (Tier, u32), payload: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.open.is_empty() {
            return Ok(seal::open(payload));
        }
        let key = self.open.get(&place).context("there is no key of its epoch")?;
        let lines = open_lines(payload, key)?;
        Ok(lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
    }
}

/// One incarnation of one device.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub tls_key: [u8; 32],
    pub key: SigningKey,
    pub name: Incarnation,
    pub identity: IdentityText,
}

impl Life {
    pub fn log(&self, tier: Tier) -> LogName {
        LogName { tier, incarnation: self.name }
    }

    pub fn logs(&self) -> [LogName; 3] {
        Tier::ALL.map(|tier| self.log(tier))
    }
}

/// The board, the cloud's receipt key, and two schools.
pub(crate) struct Board {
    pub root: SigningKey,
    pub receipt_key: SigningKey,
    pub school: School,
    pub other: School,
    number: u64,
}

impl Board {
    pub fn new(number: u64, real: bool) -> Result<Self> {
        let root = key("root");
        Ok(Self {
            school: School::new("B113200000011", &root, real)?,
            other: School::new("B113200000022", &root, real)?,
            receipt_key: key("receipts"),
            root,
            number,
        })
    }

    pub fn descriptor(&self) -> CloudDescriptor {
        CloudDescriptor {
            version: 1,
            hosts: vec!["cloud.example:443".into()],
            tls_certificates: vec![],
            receipt_keys: vec![ReceiptKey { key: self.receipt_key.verifying_key() }],
        }
    }

    pub fn config(&self, sites: usize, quorum: usize) -> Config {
        Config {
            board: self.root.verifying_key(),
            receipt_key: self.receipt_key.clone(),
            sites,
            quorum,
            receipt_before_store: false,
        }
    }

    /// Certifies a device and lets it begin an incarnation.
    pub fn begin(&self, school: &School, device: &str, life: &str, beginning: Beginning) -> Result<Life> {
        self.begin_under(&self.root, school, device, life, beginning)
    }

    /// The same under any root: a stranger's identity verifies nowhere.
    pub fn begin_under(
        &self,
        root: &SigningKey,
        school: &School,
        device: &str,
        life: &str,
        beginning: Beginning,
    ) -> Result<Life> {
        let device_key = key(&format!("{} {device}", self.number));
        let certificate = DeviceCertificate {
            school: school.code,
            key: device_key.verifying_key(),
            recipient: "age1double".into(),
            kind: ReplicaKind::Appliance,
            enrolled_ms: 1,
        };
        let device = Signed::sign(certificate, root)?;
        let key = key(&format!("{} incarnation {life}", self.number));
        let certificate = IncarnationCertificate {
            school: school.code,
            replica: device.body().replica(),
            key: key.verifying_key(),
            beginning,
            began_ms: 2,
        };
        let name = certificate.incarnation();
        let signed = Signed::sign(certificate, &device_key)?;
        let identity =
            IdentityText { device: device.text().to_owned(), incarnation: signed.text().to_owned() };
        Ok(Life { tls_key: device_key.verifying_key().to_bytes(), key, name, identity })
    }
}
