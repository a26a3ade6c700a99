//! Enrolling a replica: its device keys, its certificates, the manifest that makes it a reader, its bundle.
//!
//! **Invariant**: the board keeps no copy of the device's secret keys; they leave in the bundle.
//! **Invariant**: the bundle holds every live epoch key, wrapped to the device, under the manifest beside them.
//!
//! **Left out**: revocation ([`crate::revoke`]) and renewal.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use serde::Serialize;
use sonae_proto::bundle::{BundleKind as _, ReplicaBundle};
use sonae_proto::identity::{DeviceCertificate, ReplicaKind};
use sonae_proto::ids::{ReplicaId, SchoolCode};
use sonae_proto::seal::OpenKey;
use sonae_proto::signed::Signed;
use sonae_trust::authority::Authority;
use sonae_trust::device_name::DeviceName;
use sonae_trust::entropy::{Entropy as _, SystemEntropy};
use sonae_trust::leaf::LEAF_DAYS_DEFAULT;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::board::Board;
use crate::bundle_file::{Enrolled, check_free, hand_over};
use crate::cloud;
use crate::error::ProvisionError;
use crate::names::{self, HostName};
use crate::school::{ReplicaFacts, School};

/// What a new replica shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRequest {
    /// Its school.
    pub school: SchoolCode,
    /// What it is for.
    pub kind: ReplicaKind,
    /// More names of its LAN service, DNS names or addresses.
    pub lan_names: Vec<String>,
}

/// What is known of a replica that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaEnrolment {
    /// Its school.
    pub school: SchoolCode,
    /// Its name.
    pub replica: ReplicaId,
    /// What it is for.
    pub kind: ReplicaKind,
    /// Its age recipient.
    pub recipient: String,
    /// Version of the manifest that names it first.
    pub manifest_version: u64,
    /// Names of its LAN service.
    pub lan_names: Vec<String>,
    /// File of its bundle.
    pub bundle: PathBuf,
}

/// The keys that a device gets.
struct DeviceKeys {
    seed: Zeroizing<[u8; 32]>,
    sign: SigningKey,
    age: OpenKey,
}

impl DeviceKeys {
    fn generate() -> Result<Self, ProvisionError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        SystemEntropy.fill(seed.as_mut_slice())?;
        let sign = SigningKey::from_bytes(&seed);
        Ok(Self { seed, sign, age: OpenKey::generate() })
    }
}

/// Enrols a replica of a school: new keys, the next manifest, a bundle in `out`.
///
/// # Errors
/// [`ProvisionError::NoCloud`], [`ProvisionError::UnknownSchool`], [`ProvisionError::OutExists`],
/// [`ProvisionError::ServerNames`], [`ProvisionError::Clock`], those of the authority and of the disk.
///
/// # Durability
/// Bundle, manifest, wrapped keys and registry are on stable storage when this returns; see
/// [`crate::bundle_file`] for the order.
pub fn enrol(
    board: &Board,
    request: &ReplicaRequest,
    out: &Path,
    now: OffsetDateTime,
) -> Result<Enrolled<ReplicaEnrolment>, ProvisionError> {
    names::checked_ms(now)?;
    let school = School::load(board, request.school)?;
    let descriptor = cloud::descriptor(board)?.ok_or(ProvisionError::NoCloud)?;
    check_free(out)?;
    let authority = board.authority()?;
    let names = names::server_names(&lan_names(request))?;
    let lan = authority.issue_lan_server(&names, LEAF_DAYS_DEFAULT, now, &mut SystemEntropy)?;

    let device = DeviceKeys::generate()?;
    let (certificate, tls_certificate_pem) = certify(board, &authority, &device, request, now)?;
    let replica = certificate.body().replica();
    let facts = ReplicaFacts {
        doc: ReplicaFacts::LABEL.into(),
        replica,
        kind: request.kind,
        enrolled_ms: certificate.body().enrolled_ms,
        recipient: device.age.recipient(),
        lan_names: names
            .dns()
            .iter()
            .cloned()
            .chain(names.addresses().iter().map(ToString::to_string))
            .collect(),
        device_certificate: certificate.text().to_owned(),
        tls_certificate_pem,
    };
    let next = school.with_replica(board, facts.clone())?;
    let bundle = ReplicaBundle {
        doc: ReplicaBundle::LABEL.into(),
        board_root: HEXLOWER.encode(board.facts().root.as_bytes()),
        board_name: board.facts().name.clone(),
        school: request.school,
        school_name: next.facts.name.clone(),
        device_seed: HEXLOWER.encode(device.seed.as_slice()),
        device_age_key: device.age.secret().as_str().to_owned(),
        device_certificate: facts.device_certificate,
        tls_certificate_pem: facts.tls_certificate_pem,
        ca_pem: authority.certificate_pem().to_owned(),
        lan_certificate_pem: lan.certificate_pem.clone(),
        lan_key_pem: lan.private_key_pem.as_str().to_owned(),
        lan_names: facts.lan_names.clone(),
        manifest: next.manifest.text().to_owned(),
        wrapped_keys: next.wrapped_keys.clone(),
        descriptor: descriptor.text().to_owned(),
    };
    let passphrase = hand_over(&bundle, out, board.disk(), || next.replace(board))?;
    let facts = ReplicaEnrolment {
        school: request.school,
        replica,
        kind: request.kind,
        recipient: facts.recipient,
        manifest_version: next.manifest.body().version,
        lan_names: facts.lan_names,
        bundle: out.to_owned(),
    };
    Ok(Enrolled { facts, passphrase })
}

/// Issues the board's certificate of a device and the authority's TLS certificate (PEM) for the same key.
fn certify(
    board: &Board,
    authority: &Authority,
    device: &DeviceKeys,
    request: &ReplicaRequest,
    now: OffsetDateTime,
) -> Result<(Signed<DeviceCertificate>, String), ProvisionError> {
    let certificate = DeviceCertificate {
        school: request.school,
        key: device.sign.verifying_key(),
        recipient: device.age.recipient(),
        kind: request.kind,
        enrolled_ms: names::checked_ms(now)?,
    };
    let name = DeviceName::new(&request.school.to_string(), &certificate.replica().to_string())?;
    let public = device.sign.verifying_key().to_bytes();
    let tls = authority.issue_device(&name, &public, LEAF_DAYS_DEFAULT, now, &mut SystemEntropy)?;
    let certificate = Signed::sign(certificate, &board.root_key()?).map_err(ProvisionError::Sign)?;
    Ok((certificate, tls.certificate_pem))
}

/// The one name of the school, the loopback, and what was asked for.
fn lan_names(request: &ReplicaRequest) -> Vec<HostName> {
    let own = format!("{}.sonae.internal", request.school).to_ascii_lowercase();
    let fixed = [own.as_str(), "localhost", "127.0.0.1", "::1"];
    let asked = request.lan_names.iter().map(String::as_str);
    fixed.into_iter().chain(asked).map(HostName::read).collect()
}
