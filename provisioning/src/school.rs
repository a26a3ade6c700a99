//! A school as the board keeps it: its manifest, its wrapped keys, its replicas. All of it is public.
//!
//! **Invariants**
//! - A school is written whole beside its place, `schools/.CODE.unfinished`, and takes its place in one rename
//!   (a new one) or one exchange (a changed one). So manifest, wrapped keys and registry always fit together,
//!   and an interrupted run leaves the school as it was, or as it is meant to be.
//! - The secrets of its keys exist only wrapped, to exactly the manifest's readers.
//!
//! **Left out**: replicas' own secrets ([`crate::replica`]).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sonae_proto::identity::{DeviceCertificate, ReplicaKind};
use sonae_proto::ids::{ReplicaId, SchoolCode, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader, WrappedKey, school_year};
use sonae_proto::seal::{OpenKey, decrypt, encrypt};
use sonae_proto::signed::Signed;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::board::{Board, json_file, read_json};
use crate::disk::{self, Disk, unfinished};
use crate::epochs::{self, Keys};
use crate::error::ProvisionError;
use crate::names::{self, SCHOOL_NAME_CHARS_MAX};

/// Name of the board's operations key among the readers.
pub const OPERATIONS: &str = "operations";

/// Name of the board's recovery key among the readers.
pub const RECOVERY: &str = "recovery";

/// The public facts of a school, as they stand in `school.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchoolFacts {
    /// `sonae/school/v1`.
    pub doc: String,
    /// Its code.
    pub code: SchoolCode,
    /// Its name for people.
    pub name: String,
    /// When it was added, milliseconds since 1970 UTC.
    pub added_ms: u64,
}

/// The public facts of a replica, as they stand in `replicas/REPLICA.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFacts {
    /// `sonae/replica/v1`.
    pub doc: String,
    /// Its name.
    pub replica: ReplicaId,
    /// What it is for.
    pub kind: ReplicaKind,
    /// When it was enrolled, milliseconds since 1970 UTC.
    pub enrolled_ms: u64,
    /// Its age recipient.
    pub recipient: String,
    /// Names of its LAN service.
    pub lan_names: Vec<String>,
    /// Text of its device certificate.
    pub device_certificate: String,
    /// PEM of its TLS client certificate.
    pub tls_certificate_pem: String,
}

/// A school with everything that was verified about it.
#[derive(Debug, Clone)]
pub struct School {
    /// Its facts.
    pub facts: SchoolFacts,
    /// Its manifest.
    pub manifest: Signed<Manifest>,
    /// Its keys in the order of the manifest, each wrapped to the manifest's readers.
    pub wrapped_keys: Vec<WrappedKey>,
    /// Its replicas, by name.
    pub replicas: Vec<ReplicaFacts>,
}

impl School {
    /// Adds a school: keys of this school year and the next for each tier, the digest's key, manifest 1.
    ///
    /// # Errors
    /// [`ProvisionError::SchoolExists`], [`ProvisionError::Name`], [`ProvisionError::Clock`], those of the disk.
    ///
    /// # Durability
    /// Everything is on stable storage when this returns; an interrupted run leaves no school.
    pub fn add(
        board: &Board,
        code: SchoolCode,
        name: &str,
        now: OffsetDateTime,
    ) -> Result<Self, ProvisionError> {
        let added_ms = names::checked_ms(now)?;
        names::check_name("school's name", name, SCHOOL_NAME_CHARS_MAX)?;
        if place(board, code).exists() {
            return Err(ProvisionError::SchoolExists { code });
        }
        let year = school_year(added_ms);
        let mut keys = vec![(KeyUse::Digest, 0, OpenKey::generate())];
        for epoch in [year, year + 1] {
            keys.extend(Tier::ALL.map(|tier| (KeyUse::Tier(tier), epoch, OpenKey::generate())));
        }
        let reader = |name: &str, recipient: &String| Reader {
            name: name.into(),
            kind: None,
            recipient: recipient.clone(),
        };
        let of_board = board.facts();
        let manifest = Manifest {
            school: code,
            version: 1,
            keys: keys
                .iter()
                .map(|(key_use, epoch, key)| ManifestKey {
                    key_use: *key_use,
                    epoch: *epoch,
                    recipient: key.recipient(),
                })
                .collect(),
            readers: vec![reader(OPERATIONS, &of_board.operations), reader(RECOVERY, &of_board.recovery)],
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        let wrapped_keys = wrap_all(&manifest, keys)?;
        let school = Self {
            facts: SchoolFacts { doc: SchoolFacts::LABEL.into(), code, name: name.to_owned(), added_ms },
            manifest: Signed::sign(manifest, &board.root_key()?).map_err(ProvisionError::Sign)?,
            wrapped_keys,
            replicas: Vec::new(),
        };
        let place = place(board, code);
        school.write(&unfinished(&place), board.disk())?;
        board.disk().publish(&unfinished(&place), &place)?;
        Ok(school)
    }

    /// Loads a school and verifies it against the board's root.
    ///
    /// # Errors
    /// [`ProvisionError::UnknownSchool`], [`ProvisionError::Unverified`], [`ProvisionError::Damaged`], those of
    /// the disk.
    pub fn load(board: &Board, code: SchoolCode) -> Result<Self, ProvisionError> {
        let (place, root) = (place(board, code), &board.facts().root);
        if !place.is_dir() {
            return Err(ProvisionError::UnknownSchool { code });
        }
        let path = place.join("school.json");
        let facts = read_json::<SchoolFacts>(&path)?;
        if facts.doc != SchoolFacts::LABEL || facts.code != code {
            return Err(ProvisionError::Damaged { path, what: "of another school, kind or version" });
        }
        let path = place.join("manifest");
        let manifest = Signed::<Manifest>::verify(&disk::read_text(&path)?, root)
            .map_err(|source| ProvisionError::Unverified { path: path.clone(), source })?;
        if manifest.body().school != code {
            return Err(ProvisionError::Damaged { path, what: "of another school" });
        }
        let mut wrapped_keys = Vec::new();
        for key in &manifest.body().keys {
            let file = disk::read(&key_path(&place, key.key_use, key.epoch))?;
            wrapped_keys.push(WrappedKey { key_use: key.key_use, epoch: key.epoch, file });
        }
        let mut replicas = Vec::new();
        for name in disk::names_in(&place.join("replicas"))? {
            replicas.push(load_replica(&place.join("replicas").join(name), board, code)?);
        }
        let school = Self { facts, manifest, wrapped_keys, replicas };
        if school.has_all_readers(board) {
            Ok(school)
        } else {
            let path = place.join("replicas");
            Err(ProvisionError::Damaged { path, what: "not the readers that the manifest names" })
        }
    }

    /// Whether the manifest's readers are exactly the board's keys and the registered replicas.
    fn has_all_readers(&self, board: &Board) -> bool {
        let of_board = board.facts();
        let mut expected = vec![
            (OPERATIONS.to_owned(), None, of_board.operations.as_str()),
            (RECOVERY.to_owned(), None, of_board.recovery.as_str()),
        ];
        expected.extend(
            self.replicas.iter().map(|r| (r.replica.to_string(), Some(r.kind), r.recipient.as_str())),
        );
        let readers = &self.manifest.body().readers;
        let is_reader = |(name, kind, recipient): &(String, Option<ReplicaKind>, &str)| {
            readers.iter().any(|reader| {
                (&reader.name, reader.kind, reader.recipient.as_str()) == (name, *kind, *recipient)
            })
        };
        expected.len() == readers.len() && expected.iter().all(is_reader)
    }

    /// Adds a replica to the readers: a new manifest, all keys wrapped anew. Nothing is written.
    ///
    /// # Errors
    /// [`ProvisionError::ManifestFull`], [`ProvisionError::Damaged`] when a wrapped key is not the manifest's.
    pub fn with_replica(&self, board: &Board, replica: ReplicaFacts) -> Result<Self, ProvisionError> {
        let mut manifest = self.manifest.body().clone();
        manifest.readers.push(Reader {
            name: replica.replica.to_string(),
            kind: Some(replica.kind),
            recipient: replica.recipient.clone(),
        });
        let mut keys = self.open_all(board)?;
        // Whenever something new is signed, so that a school never comes to its last year unnoticed.
        epochs::add_years(&mut manifest, &mut keys, replica.enrolled_ms);
        let mut next = self.clone();
        next.replicas.push(replica);
        next.replicas.sort_by_key(|replica| replica.replica);
        next.with_keys(board, manifest, keys)
    }

    /// Signs the next version of a manifest and wraps its keys to its readers. Nothing is written.
    ///
    /// # Errors
    /// [`ProvisionError::ManifestFull`].
    pub(crate) fn with_keys(
        self,
        board: &Board,
        mut manifest: Manifest,
        keys: Keys,
    ) -> Result<Self, ProvisionError> {
        manifest.version = self.manifest.body().version + 1;
        let full = ProvisionError::ManifestFull { code: self.facts.code };
        if !manifest.is_within_limits() {
            return Err(full);
        }
        let wrapped_keys = wrap_all(&manifest, keys)?;
        // What has no place in one document is over a limit too.
        let manifest = Signed::sign(manifest, &board.root_key()?).map_err(|_| full)?;
        Ok(Self { manifest, wrapped_keys, ..self })
    }

    /// Puts this state in place of the one that the board has.
    ///
    /// # Errors
    /// Those of the disk; the board then has the old state, or the new one when only tidying up failed.
    ///
    /// # Durability
    /// Everything is on stable storage when this returns.
    pub fn replace(&self, board: &Board) -> Result<(), ProvisionError> {
        let place = place(board, self.facts.code);
        let beside = unfinished(&place);
        self.write(&beside, board.disk())?;
        board.disk().exchange(&beside, &place)?;
        // The old state. It counts no more: what cannot be removed now goes at the next start.
        board.disk().remove(&beside).or(Ok(()))
    }

    /// Opens all keys with the operations key and checks that they are the manifest's.
    pub(crate) fn open_all(&self, board: &Board) -> Result<Keys, ProvisionError> {
        let operations = board.operations_key()?;
        let place = place(board, self.facts.code);
        let mut keys = Vec::new();
        for wrapped in &self.wrapped_keys {
            let (key_use, epoch) = (wrapped.key_use, wrapped.epoch);
            let key = decrypt(&wrapped.file, &operations).ok().and_then(|secret| {
                std::str::from_utf8(&secret).ok().and_then(|text| OpenKey::parse(text).ok())
            });
            let named = self.manifest.body().key(key_use, epoch).map(|named| named.recipient.as_str());
            let key = key.filter(|key| named == Some(key.recipient().as_str())).ok_or_else(|| {
                let path = key_path(&place, key_use, epoch);
                ProvisionError::Damaged { path, what: "not the key that the manifest names" }
            })?;
            keys.push((key_use, epoch, key));
        }
        Ok(keys)
    }

    fn write(&self, dir: &Path, disk: &Disk) -> Result<(), ProvisionError> {
        disk.make_directory(dir)?;
        disk.make_directory(&dir.join("keys"))?;
        disk.make_directory(&dir.join("replicas"))?;
        disk.write_new(&dir.join("school.json"), &json_file(&self.facts)?)?;
        for wrapped in &self.wrapped_keys {
            disk.write_new(&key_path(dir, wrapped.key_use, wrapped.epoch), &wrapped.file)?;
        }
        for replica in &self.replicas {
            let path = dir.join("replicas").join(format!("{}.json", replica.replica));
            disk.write_new(&path, &json_file(replica)?)?;
        }
        disk.write_new(&dir.join("manifest"), self.manifest.text().as_bytes())
    }
}

impl SchoolFacts {
    const LABEL: &'static str = "sonae/school/v1";
}

impl ReplicaFacts {
    /// Label of the facts.
    pub(crate) const LABEL: &'static str = "sonae/replica/v1";
}

/// Lists the codes of all schools, in order.
///
/// # Errors
/// Those of the disk, [`ProvisionError::Damaged`] for a directory that is no school's.
pub fn codes(board: &Board) -> Result<Vec<SchoolCode>, ProvisionError> {
    let dir = board.schools_dir();
    let code = |name: String| {
        let path = dir.join(&name);
        name.parse().map_err(|_| ProvisionError::Damaged { path, what: "its name is not a school code" })
    };
    disk::names_in(&dir)?.into_iter().map(code).collect()
}

fn load_replica(path: &Path, board: &Board, code: SchoolCode) -> Result<ReplicaFacts, ProvisionError> {
    let facts = read_json::<ReplicaFacts>(path)?;
    let certificate = Signed::<DeviceCertificate>::verify(&facts.device_certificate, &board.facts().root)
        .map_err(|source| ProvisionError::Unverified { path: path.to_owned(), source })?;
    let body = certificate.body();
    let fits = facts.doc == ReplicaFacts::LABEL
        && (body.school, body.replica(), body.kind) == (code, facts.replica, facts.kind)
        && body.recipient == facts.recipient;
    if fits {
        Ok(facts)
    } else {
        Err(ProvisionError::Damaged { path: path.to_owned(), what: "it contradicts its certificate" })
    }
}

fn place(board: &Board, code: SchoolCode) -> PathBuf {
    board.schools_dir().join(code.to_string())
}

fn key_path(place: &Path, key_use: KeyUse, epoch: u32) -> PathBuf {
    place.join("keys").join(format!("{key_use}-{epoch}.age"))
}

/// Wraps secrets to all readers of a manifest.
fn wrap_all(manifest: &Manifest, keys: Keys) -> Result<Vec<WrappedKey>, ProvisionError> {
    let wrap = |(key_use, epoch, key): (KeyUse, u32, OpenKey)| {
        let readers = manifest.readers.iter().map(|reader| reader.recipient.as_str());
        // With a line end, so that `age -d` prints a whole identity file.
        let line = Zeroizing::new(format!("{}\n", key.secret().as_str()));
        let file = encrypt(line.as_bytes(), readers).map_err(ProvisionError::Wrap)?;
        Ok(WrappedKey { key_use, epoch, file })
    };
    keys.into_iter().map(wrap).collect()
}
