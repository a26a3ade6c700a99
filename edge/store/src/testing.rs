//! A board and its replicas in memory, for tests. Not built into the product.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod stepped;

use std::path::Path;
use std::sync::Arc;

pub use stepped::Stepped;

use ed25519_dalek::{SigningKey, VerifyingKey};
use sonae_proto::bundle::{BundleKind, ReplicaBundle};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::destruction::DestroyedKey;
use sonae_proto::identity::{Beginning, DeviceCertificate, ReplicaKind};
use sonae_proto::ids::{SchoolCode, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader, WrappedKey};
use sonae_proto::revocation::Revocation;
use sonae_proto::seal::{OpenKey, encrypt};
use sonae_proto::signed::Signed;
use sonae_proto::wire::KeyDocuments;
use sonae_trust::authority::Authority;
use sonae_trust::device_name::DeviceName;
use sonae_trust::entropy::{Entropy, SystemEntropy};
use sonae_trust::leaf::ServerNames;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::enrolment;
use crate::identity::ReplicaKeys;
use crate::keyring::Keyring;
use crate::options::Options;
use crate::status::{StatusSource, Uplink};
use crate::store::{Open, Opened, Store};

/// A board with one school and one cloud.
pub struct Board {
    root: SigningKey,
    authority: Authority,
    school: SchoolCode,
    keys: Vec<(KeyUse, u32, OpenKey)>,
    /// Keys of a first rotation, by tier.
    rotated: [OpenKey; 3],
    /// The key that signs the cloud's receipts.
    pub receipt_key: SigningKey,
    /// Hashes of TLS certificates that the descriptor names.
    pub tls_certificates: Vec<sonae_proto::ids::Hash32>,
    /// Hosts that the descriptor names.
    pub hosts: Vec<String>,
}

fn signing_key() -> SigningKey {
    let mut seed = [0; 32];
    SystemEntropy.fill(&mut seed).unwrap();
    SigningKey::from_bytes(&seed)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl Default for Board {
    fn default() -> Self {
        let now = time::OffsetDateTime::now_utc();
        let authority = Authority::create("架空市教育委員会", now, &mut SystemEntropy).unwrap();
        let mut keys: Vec<(KeyUse, u32, OpenKey)> = Tier::ALL
            .into_iter()
            .flat_map(|tier| [2025, 2026, 2027].map(|epoch| (KeyUse::Tier(tier), epoch, OpenKey::generate())))
            .collect();
        keys.push((KeyUse::Digest, 0, OpenKey::generate()));
        Self {
            root: signing_key(),
            authority,
            school: "B113200000011".parse().unwrap(),
            rotated: Tier::ALL.map(|_| OpenKey::generate()),
            keys,
            receipt_key: signing_key(),
            tls_certificates: Vec::new(),
            hosts: vec!["localhost:1".into()],
        }
    }
}

impl Board {
    /// Returns the board's root key.
    #[must_use]
    pub fn root(&self) -> VerifyingKey {
        self.root.verifying_key()
    }

    /// Returns the board's certificate authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the cloud's descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Signed<CloudDescriptor> {
        let body = CloudDescriptor {
            version: 1,
            hosts: self.hosts.clone(),
            tls_certificates: self.tls_certificates.clone(),
            receipt_keys: vec![ReceiptKey { key: self.receipt_key.verifying_key() }],
        };
        Signed::sign(body, &self.root).unwrap()
    }

    /// Key documents for the device of a bundle, of a later version, that revoke others.
    #[must_use]
    pub fn revoking(&self, bundle: &ReplicaBundle, version: u64, revoked: Vec<Revocation>) -> KeyDocuments {
        let mut manifest = Signed::<Manifest>::verify(&bundle.manifest, &self.root()).unwrap().body().clone();
        (manifest.version, manifest.revoked) = (version, revoked);
        let manifest = Signed::sign(manifest, &self.root).unwrap().text().to_owned();
        KeyDocuments { manifest, ..Keyring::documents_of(bundle) }
    }

    /// Key documents for the device of a bundle, of a later version, with keys of a first rotation for the year 2026 in
    /// all tiers, and with the tiers' keys of these epochs destroyed.
    #[must_use]
    pub fn rotating(&self, bundle: &ReplicaBundle, version: u64, destroyed: &[u32]) -> KeyDocuments {
        let mut manifest = Signed::<Manifest>::verify(&bundle.manifest, &self.root()).unwrap().body().clone();
        let device = OpenKey::parse(&bundle.device_age_key).unwrap().recipient();
        let mut documents = Keyring::documents_of(bundle);
        for (tier, key) in Tier::ALL.into_iter().zip(&self.rotated) {
            let (key_use, epoch) = (KeyUse::Tier(tier), 2_026_001);
            manifest.keys.push(ManifestKey { key_use, epoch, recipient: key.recipient() });
            let file = encrypt(key.secret().as_bytes(), [device.as_str()]).unwrap();
            documents.wrapped_keys.push(WrappedKey { key_use, epoch, file });
        }
        for (key_use, epoch) in
            Tier::ALL.into_iter().flat_map(|tier| destroyed.iter().map(move |e| (KeyUse::Tier(tier), *e)))
        {
            manifest.keys.retain(|key| (key.key_use, key.epoch) != (key_use, epoch));
            documents.wrapped_keys.retain(|key| (key.key_use, key.epoch) != (key_use, epoch));
            manifest.destroyed.push(DestroyedKey { key_use, epoch, destroyed_ms: 1 });
        }
        manifest.version = version;
        documents.manifest = Signed::sign(manifest, &self.root).unwrap().text().to_owned();
        documents
    }

    /// Enrols some devices that one manifest names, and returns their bundles.
    #[must_use]
    pub fn bundles(&self, count: usize) -> Vec<ReplicaBundle> {
        let mut bundles: Vec<_> = (0..count).map(|_| self.bundle()).collect();
        let of = |bundle: &ReplicaBundle| Signed::<Manifest>::verify(&bundle.manifest, &self.root()).unwrap();
        let manifests = bundles.iter().map(|bundle| of(bundle).body().clone());
        let merged = manifests.reduce(|mut all, one| {
            all.readers.extend(one.readers);
            all
        });
        let text = merged.map(|manifest| Signed::sign(manifest, &self.root).unwrap().text().to_owned());
        for bundle in &mut bundles {
            bundle.manifest.clone_from(text.as_ref().unwrap());
        }
        bundles
    }

    /// Enrols a new device and returns its bundle.
    #[must_use]
    pub fn bundle(&self) -> ReplicaBundle {
        let now = time::OffsetDateTime::now_utc();
        let (device, age_key) = (signing_key(), OpenKey::generate());
        let certificate = DeviceCertificate {
            school: self.school,
            key: device.verifying_key(),
            recipient: age_key.recipient(),
            kind: ReplicaKind::Appliance,
            enrolled_ms: 0,
        };
        let name = DeviceName::new(&self.school.to_string(), &certificate.replica().to_string()).unwrap();
        let tls = self
            .authority
            .issue_device(&name, device.verifying_key().as_bytes(), 300, now, &mut SystemEntropy)
            .unwrap();
        let names = ServerNames::new(&["localhost"], &["127.0.0.1".parse().unwrap()]).unwrap();
        let lan = self.authority.issue_lan_server(&names, 300, now, &mut SystemEntropy).unwrap();
        let manifest = Manifest {
            school: self.school,
            version: 1,
            keys: self
                .keys
                .iter()
                .map(|(key_use, epoch, key)| ManifestKey {
                    key_use: *key_use,
                    epoch: *epoch,
                    recipient: key.recipient(),
                })
                .collect(),
            readers: vec![Reader {
                name: certificate.replica().to_string(),
                kind: Some(ReplicaKind::Appliance),
                recipient: age_key.recipient(),
            }],
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        let wrapped_keys = self
            .keys
            .iter()
            .map(|(key_use, epoch, key)| WrappedKey {
                key_use: *key_use,
                epoch: *epoch,
                file: encrypt(key.secret().as_bytes(), [age_key.recipient().as_str()]).unwrap(),
            })
            .collect();
        ReplicaBundle {
            doc: ReplicaBundle::LABEL.into(),
            board_root: hex(self.root().as_bytes()),
            board_name: "架空市教育委員会".into(),
            school: self.school,
            school_name: "架空市立見本小学校".into(),
            device_seed: hex(&device.to_bytes()),
            device_age_key: age_key.secret().to_string(),
            device_certificate: Signed::sign(certificate, &self.root).unwrap().text().to_owned(),
            tls_certificate_pem: tls.certificate_pem,
            ca_pem: self.authority.certificate_pem().to_owned(),
            lan_certificate_pem: lan.certificate_pem,
            lan_key_pem: lan.private_key_pem.to_string(),
            lan_names: vec!["localhost".into()],
            manifest: Signed::sign(manifest, &self.root).unwrap().text().to_owned(),
            wrapped_keys,
            descriptor: self.descriptor().text().to_owned(),
        }
    }
}

/// Opens the store of an enrolled replica with the real disk.
#[must_use]
pub fn open_store(data: &Path, bundle: &ReplicaBundle, clock: Clock) -> Opened {
    open_store_on(data, bundle, clock, Arc::new(sonae_journal::RealDisk))
}

/// Opens the store of an enrolled replica whose journal lies on a disk of the caller's.
#[must_use]
pub fn open_store_on(
    data: &Path,
    bundle: &ReplicaBundle,
    clock: Clock,
    disk: Arc<dyn sonae_journal::Disk>,
) -> Opened {
    Store::open(opening(data, bundle, clock, disk, Options::default())).unwrap()
}

/// What opening the store of an enrolled replica takes.
#[must_use]
pub fn opening(
    data: &Path,
    bundle: &ReplicaBundle,
    clock: Clock,
    disk: Arc<dyn sonae_journal::Disk>,
    options: Options,
) -> Open {
    let keys = ReplicaKeys::load(data, bundle).unwrap();
    let keyring = Keyring::open(&keys.board, &Keyring::documents_of(bundle), &bundle.device_age_key).unwrap();
    Open {
        journal: data.join("journal"),
        batches: data.join("batches"),
        snapshots: data.join("snapshots"),
        view: data.join("view"),
        keys,
        device_age_key: Zeroizing::new(bundle.device_age_key.clone()),
        keyring,
        clock,
        disk,
        filling: crate::Filling::default(),
        options,
    }
}

/// Enrols a replica of a new board in `data` and opens it.
#[must_use]
pub fn open_replica(data: &Path) -> (Opened, StatusSource) {
    let bundle = Board::default().bundle();
    let clock = Clock::system();
    drop(enrolment::enrol(data, &bundle, Beginning::Enrolment, clock.now_ms()).unwrap());
    let keys = ReplicaKeys::load(data, &bundle).unwrap();
    let opened = open_store(data, &bundle, clock);
    let source = StatusSource {
        store: opened.store.clone(),
        uplink: Uplink::default(),
        neighbours: crate::neighbours::Neighbours::default(),
        school_name: bundle.school_name.clone(),
        replica: keys.identity.device.body().replica(),
        incarnation: keys.name(),
        data: data.to_owned(),
        proofs: crate::proof::Proofs::default(),
    };
    (opened, source)
}
