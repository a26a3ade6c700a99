//! What the tests of this crate share: a board in a temporary directory, and how bundles are checked.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sonae_proto::bundle::{CloudBundle, ReplicaBundle, open};
use sonae_proto::identity::ReplicaKind;
use sonae_proto::ids::SchoolCode;
use sonae_proto::manifest::{Manifest, WrappedKey};
use sonae_proto::seal::{OpenKey, decrypt};
use sonae_proto::signed::{Signed, public_key_hex};
use sonae_provision::board::Board;
use sonae_provision::cloud::{self, CloudFacts};
use sonae_provision::disk::Disk;
use sonae_provision::error::ProvisionError;
use sonae_provision::replica::{self, ReplicaRequest};
use sonae_provision::secret_text;
use time::OffsetDateTime;
use time::macros::datetime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// A day in school year 2026.
pub const NOW: OffsetDateTime = datetime!(2026-05-01 00:00 UTC);

/// A made-up school.
pub const CODE: &str = "B113200000011";

/// A temporary directory with a board in `board`.
pub struct Place {
    pub root: tempfile::TempDir,
}

impl Place {
    /// An empty place.
    pub fn empty() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// A board with one school and one cloud node, whose bundle is `cloud.bundle`.
    pub fn with_cloud() -> Self {
        let place = Self::empty();
        let board = Board::init(&place.dir(), "架空市教育委員会", NOW, Disk::new()).unwrap();
        sonae_provision::school::School::add(&board, code(), "架空小学校", NOW).unwrap();
        enrol_cloud(&board, "cloud.example.jp", &place.path("cloud.bundle")).unwrap();
        place
    }

    pub fn dir(&self) -> PathBuf {
        self.path("board")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn open(&self) -> Board {
        Board::open(&self.dir(), Disk::new()).unwrap()
    }
}

pub fn code() -> SchoolCode {
    CODE.parse().unwrap()
}

/// Enrols a cloud node; returns its bundle and facts.
pub fn enrol_cloud(
    board: &Board,
    host: &str,
    out: &Path,
) -> Result<(CloudBundle, CloudFacts), ProvisionError> {
    let enrolled = cloud::enrol(board, &host.parse().unwrap(), out, NOW)?;
    let bundle = open(&fs::read(out).unwrap(), enrolled.passphrase.expose()).unwrap();
    Ok((bundle, enrolled.facts))
}

/// Enrols an appliance; returns its bundle.
pub fn enrol_replica(board: &Board, out: &Path) -> Result<ReplicaBundle, ProvisionError> {
    let request = ReplicaRequest {
        school: code(),
        kind: ReplicaKind::Appliance,
        lan_names: vec!["Box.example.jp".into(), "192.0.2.7".into()],
    };
    let enrolled = replica::enrol(board, &request, out, NOW)?;
    Ok(open(&fs::read(out).unwrap(), enrolled.passphrase.expose()).unwrap())
}

/// Reads an age key of the board.
pub fn board_key(dir: &Path, name: &str) -> OpenKey {
    let text = fs::read_to_string(dir.join(name)).unwrap();
    OpenKey::parse(secret_text::secret_of(&text).unwrap()).unwrap()
}

/// Opens wrapped keys with one reader's key and checks that each is the manifest's, all of them.
pub fn check_wrapped(manifest: &Manifest, wrapped_keys: &[WrappedKey], reader: &OpenKey) {
    let mut opened = BTreeMap::new();
    for wrapped in wrapped_keys {
        let secret = decrypt(&wrapped.file, reader).unwrap();
        let key = OpenKey::parse(std::str::from_utf8(&secret).unwrap()).unwrap();
        opened.insert((wrapped.key_use, wrapped.epoch), key.recipient());
    }
    let named = manifest.keys.iter().map(|key| ((key.key_use, key.epoch), key.recipient.clone())).collect();
    assert_eq!(opened, named);
}

/// Verifies what a replica's bundle holds under the board's root, and returns the manifest.
pub fn check_replica_bundle(bundle: &ReplicaBundle, root: &VerifyingKey) -> Manifest {
    assert_eq!(public_key_hex::parse(&bundle.board_root), Some(*root));
    let manifest = Signed::<Manifest>::verify(&bundle.manifest, root).unwrap();
    let device = OpenKey::parse(&bundle.device_age_key).unwrap();
    check_wrapped(manifest.body(), &bundle.wrapped_keys, &device);
    let named = manifest.body().readers.iter().filter(|reader| reader.recipient == device.recipient());
    assert_eq!(named.count(), 1);
    manifest.body().clone()
}

/// Verifies a leaf under an authority, as rustls does, and for names.
pub fn check_tls(ca_pem: &str, leaf_pem: &str, usage: KeyUsage, names: &[&str]) -> Vec<u8> {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (root, leaf) = (der(ca_pem), der(leaf_pem));
    let certificate = EndEntityCert::try_from(&leaf).unwrap();
    let seconds = u64::try_from(NOW.unix_timestamp()).unwrap();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let anchors = [anchor_from_trusted_cert(&root).unwrap()];
    certificate
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], time, usage, None, None)
        .unwrap();
    for name in names {
        let name = ServerName::try_from(*name).unwrap();
        certificate.verify_is_valid_for_subject_name(&name).unwrap();
    }
    leaf.to_vec()
}

/// Checks that all files are 0600 and all directories 0700, and returns the files' paths below `dir`.
pub fn check_modes(dir: &Path) -> Vec<String> {
    let (mut files, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = pending.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            files.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
        }
    }
    files.sort();
    files
}
