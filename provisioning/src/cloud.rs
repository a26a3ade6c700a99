//! Enrolling a node of the cloud: its TLS key, its receipt key, the descriptor that makes them count.
//!
//! **Invariant**: the board keeps no copy of the node's secret keys; they leave in the bundle.
//!
//! **Left out**: retiring a node.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use serde::Serialize;
use sonae_proto::bundle::{BundleKind as _, CloudBundle};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::ids::{Hash32, ReceiptKeyId};
use sonae_proto::signed::Signed;
use sonae_trust::entropy::{Entropy as _, SystemEntropy};
use sonae_trust::leaf::LEAF_DAYS_DEFAULT;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::board::Board;
use crate::bundle_file::{Enrolled, check_free, hand_over};
use crate::disk;
use crate::error::ProvisionError;
use crate::names::{self, Host};

/// What is known of a node that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CloudFacts {
    /// Where it is dialled.
    pub host: String,
    /// Version of the descriptor that names it first.
    pub descriptor_version: u64,
    /// BLAKE3 of its certificate.
    pub tls_certificate: Hash32,
    /// Name of its receipt key.
    pub receipt_key: ReceiptKeyId,
    /// File of its bundle.
    pub bundle: PathBuf,
}

/// Enrols a node: new keys, the next descriptor, a bundle in `out`.
///
/// # Errors
/// [`ProvisionError::OutExists`], [`ProvisionError::Clock`], those of the authority and of the disk.
///
/// # Durability
/// Bundle and descriptor are on stable storage when this returns; see [`crate::bundle_file`] for the order.
pub fn enrol(
    board: &Board,
    host: &Host,
    out: &Path,
    now: OffsetDateTime,
) -> Result<Enrolled<CloudFacts>, ProvisionError> {
    names::checked_ms(now)?;
    check_free(out)?;
    let authority = board.authority()?;
    let names = host.certificate_names()?;
    let server = authority.issue_cloud_server(&names, LEAF_DAYS_DEFAULT, now, &mut SystemEntropy)?;
    let mut receipt_seed = Zeroizing::new([0_u8; 32]);
    SystemEntropy.fill(receipt_seed.as_mut_slice())?;
    let receipt_key = SigningKey::from_bytes(&receipt_seed).verifying_key();
    let tls_certificate = Hash32(*blake3::hash(&server.certificate_der).as_bytes());

    let mut next = descriptor(board)?.map_or_else(empty, |old| old.body().clone());
    next.version += 1;
    if !next.hosts.contains(&host.to_string()) {
        next.hosts.push(host.to_string());
    }
    next.tls_certificates.push(tls_certificate);
    next.receipt_keys.push(ReceiptKey { key: receipt_key });
    let next = Signed::sign(next, &board.root_key()?).map_err(ProvisionError::Sign)?;

    let bundle = CloudBundle {
        doc: CloudBundle::LABEL.into(),
        board_root: HEXLOWER.encode(board.facts().root.as_bytes()),
        board_name: board.facts().name.clone(),
        ca_pem: authority.certificate_pem().to_owned(),
        tls_certificate_pem: server.certificate_pem.clone(),
        tls_key_pem: server.private_key_pem.as_str().to_owned(),
        receipt_seed: HEXLOWER.encode(receipt_seed.as_slice()),
        descriptor: next.text().to_owned(),
    };
    let passphrase = hand_over(&bundle, out, board.disk(), || {
        board.disk().replace(&descriptor_path(board), next.text().as_bytes())
    })?;
    let facts = CloudFacts {
        host: host.to_string(),
        descriptor_version: next.body().version,
        tls_certificate,
        receipt_key: ReceiptKeyId::of_key(receipt_key.as_bytes()),
        bundle: out.to_owned(),
    };
    Ok(Enrolled { facts, passphrase })
}

/// Reads the descriptor, if there is a cloud, and verifies it against the board's root.
///
/// # Errors
/// [`ProvisionError::Unverified`], those of the disk.
pub fn descriptor(board: &Board) -> Result<Option<Signed<CloudDescriptor>>, ProvisionError> {
    let path = descriptor_path(board);
    if !path.exists() {
        return Ok(None);
    }
    Signed::verify(&disk::read_text(&path)?, &board.facts().root)
        .map(Some)
        .map_err(|source| ProvisionError::Unverified { path, source })
}

fn descriptor_path(board: &Board) -> PathBuf {
    board.dir().join("descriptor")
}

fn empty() -> CloudDescriptor {
    CloudDescriptor { version: 0, hosts: Vec::new(), tls_certificates: Vec::new(), receipt_keys: Vec::new() }
}
