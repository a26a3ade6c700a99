//! A board in memory: authority, cloud bundle, devices, manifest and keys of a school.

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sonae_proto::bundle::{BundleKind as _, CloudBundle};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::identity::{
    Beginning, DeviceCertificate, IdentityText, IncarnationCertificate, ReplicaKind,
};
use sonae_proto::ids::{Hash32, Incarnation, ReplicaId, SchoolCode, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, WrappedKey};
use sonae_proto::seal::OpenKey;
use sonae_proto::signed::Signed;
use sonae_proto::wire::KeyDocuments;

/// The school of most tests.
pub const SCHOOL: &str = "B113200000011";
/// Another school of the same board.
pub const OTHER_SCHOOL: &str = "B113200000022";
/// The node's name in its certificate.
pub const HOST: &str = "cloud.example";
/// The school year that everything is sealed for.
pub const EPOCH: u32 = 2026;

pub struct Board {
    pub root: SigningKey,
    authority: Issuer<'static, KeyPair>,
    ca_pem: String,
    pub ca_der: CertificateDer<'static>,
    server_pem: String,
    server_key_pem: String,
    pub descriptor: Signed<CloudDescriptor>,
    receipt_seed: [u8; 32],
}

pub struct Device {
    pub school: SchoolCode,
    pub key: SigningKey,
    pub certificate: Signed<DeviceCertificate>,
    pub tls_certificate: CertificateDer<'static>,
}

/// One life of a device.
pub struct Life {
    pub key: SigningKey,
    pub name: Incarnation,
    pub text: IdentityText,
}

/// The keys of a school, open.
pub struct SchoolKeys {
    pub open: OpenKey,
    pub manifest: Signed<Manifest>,
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn params(name: &str, host: Option<&str>) -> CertificateParams {
    let names: Vec<String> = host.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Board {
    pub fn new() -> Self {
        let mut ca = params("test authority", None);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let authority = Issuer::new(ca, ca_key);
        let server_key = KeyPair::generate().unwrap();
        let server = params("cloud", Some(HOST)).signed_by(&server_key, &authority).unwrap();
        let (root, receipt_seed) = (SigningKey::from_bytes(&random()), random());
        let descriptor = CloudDescriptor {
            version: 1,
            hosts: vec![format!("{HOST}:4433")],
            tls_certificates: vec![Hash32(*blake3::hash(server.der()).as_bytes())],
            receipt_keys: vec![ReceiptKey { key: SigningKey::from_bytes(&receipt_seed).verifying_key() }],
        };
        Self {
            descriptor: Signed::sign(descriptor, &root).unwrap(),
            root,
            authority,
            ca_pem: ca_certificate.pem(),
            ca_der: ca_certificate.der().clone(),
            server_pem: server.pem(),
            server_key_pem: server_key.serialize_pem(),
            receipt_seed,
        }
    }

    pub fn bundle(&self) -> CloudBundle {
        CloudBundle {
            doc: CloudBundle::LABEL.to_owned(),
            board_root: HEXLOWER.encode(self.root.verifying_key().as_bytes()),
            board_name: "架空市教育委員会".to_owned(),
            ca_pem: self.ca_pem.clone(),
            tls_certificate_pem: self.server_pem.clone(),
            tls_key_pem: self.server_key_pem.clone(),
            receipt_seed: HEXLOWER.encode(&self.receipt_seed),
            descriptor: self.descriptor.text().to_owned(),
        }
    }

    pub fn device(&self, school: &str) -> Device {
        let school: SchoolCode = school.parse().unwrap();
        let key = SigningKey::from_bytes(&random());
        let pkcs8 = PrivatePkcs8KeyDer::from(key.to_pkcs8_der().unwrap().as_bytes().to_vec());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).unwrap();
        let tls = params("device", None).signed_by(&pair, &self.authority).unwrap();
        let certificate = DeviceCertificate {
            school,
            key: key.verifying_key(),
            recipient: OpenKey::generate().recipient(),
            kind: ReplicaKind::Appliance,
            enrolled_ms: 1,
        };
        Device {
            school,
            certificate: Signed::sign(certificate, &self.root).unwrap(),
            key,
            tls_certificate: tls.der().clone(),
        }
    }

    /// Makes the keys of a school: one for all tiers, which is enough for a cloud that opens none.
    pub fn school_keys(&self, school: &str) -> SchoolKeys {
        let open = OpenKey::generate();
        let key =
            |tier| ManifestKey { key_use: KeyUse::Tier(tier), epoch: EPOCH, recipient: open.recipient() };
        let manifest = Manifest {
            school: school.parse().unwrap(),
            version: 1,
            keys: Tier::ALL.map(key).to_vec(),
            readers: Vec::new(),
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        SchoolKeys { manifest: Signed::sign(manifest, &self.root).unwrap(), open }
    }
}

impl SchoolKeys {
    /// With files that nobody can open, which is enough as well.
    pub fn documents(&self) -> KeyDocuments {
        let manifest = self.manifest.body();
        let wrap = |key: &ManifestKey| WrappedKey {
            key_use: key.key_use,
            epoch: key.epoch,
            file: b"for a reader".to_vec(),
        };
        KeyDocuments {
            school: manifest.school,
            manifest: self.manifest.text().to_owned(),
            wrapped_keys: manifest.keys.iter().map(wrap).collect(),
        }
    }
}

impl Device {
    pub fn tls_key(&self) -> PrivateKeyDer<'static> {
        let der = self.key.to_pkcs8_der().unwrap().as_bytes().to_vec();
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))
    }

    pub fn replica(&self) -> ReplicaId {
        self.certificate.body().replica()
    }

    /// Begins a life of this device.
    pub fn life(&self, beginning: Beginning, began_ms: u64) -> Life {
        let key = SigningKey::from_bytes(&random());
        let certificate = IncarnationCertificate {
            school: self.school,
            replica: self.replica(),
            key: key.verifying_key(),
            beginning,
            began_ms,
        };
        let name = certificate.incarnation();
        let signed = Signed::sign(certificate, &self.key).unwrap();
        let text = IdentityText {
            device: self.certificate.text().to_owned(),
            incarnation: signed.text().to_owned(),
        };
        Life { key, name, text }
    }
}
