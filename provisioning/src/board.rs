//! The board's directory: made once, opened by one process at a time, its keys read when they are needed.
//!
//! **Invariants**
//! - `board init` writes `unfinished` first and removes it last. Only a directory that holds that file, or
//!   nothing, is ever cleared: the keys of a finished board cannot be lost to a second run.
//! - The lock is held from before the first look until after the last change.
//!
//! An interrupted `init` leaves `unfinished`; the other commands refuse such a directory, and the next `init`
//! begins anew in it.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sonae_proto::seal::OpenKey;
use sonae_proto::signed::public_key_hex;
use sonae_trust::authority::{Authority, BOARD_NAME_CHARS_MAX};
use sonae_trust::entropy::{Entropy as _, SystemEntropy};
use sonae_trust::secret_file;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::disk::{self, Disk};
use crate::error::ProvisionError;
use crate::names;
use crate::secret_text;

const LOCK: &str = "lock";
const UNFINISHED: &str = "unfinished";
const FACTS: &str = "board.json";
const ROOT_KEY: &str = "root.key";
const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.pem";
const OPERATIONS_KEY: &str = "operations.key";
const RECOVERY_KEY: &str = "recovery.key";
const SCHOOLS: &str = "schools";

/// Files that hold secrets, in the order in which they are written.
pub const SECRET_FILES: [&str; 4] = [ROOT_KEY, CA_KEY, OPERATIONS_KEY, RECOVERY_KEY];

/// The other names that an interrupted `init` can leave.
const PUBLIC_NAMES: [&str; 3] = [CA_CERTIFICATE, SCHOOLS, FACTS];

/// The public facts of a board, as they stand in `board.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardFacts {
    /// `sonae/board/v1`.
    pub doc: String,
    /// Its name for people.
    pub name: String,
    /// Its root key, under which everything verifies.
    #[serde(with = "public_key_hex")]
    pub root: VerifyingKey,
    /// age recipient of the operations key.
    pub operations: String,
    /// age recipient of the recovery key.
    pub recovery: String,
    /// When it was made, milliseconds since 1970 UTC.
    pub created_ms: u64,
}

impl BoardFacts {
    const LABEL: &'static str = "sonae/board/v1";
}

/// An opened board.
#[derive(Debug)]
pub struct Board {
    dir: PathBuf,
    disk: Disk,
    facts: BoardFacts,
    /// Held until the end.
    _lock: File,
}

impl Board {
    /// Makes a board in a new or empty directory.
    ///
    /// # Errors
    /// [`ProvisionError::BoardExists`], [`ProvisionError::InUse`], [`ProvisionError::Clock`], those of the
    /// disk and of the authority.
    ///
    /// # Durability
    /// Everything is on stable storage when this returns; see the module for what an interrupted run leaves.
    pub fn init(dir: &Path, name: &str, now: OffsetDateTime, disk: Disk) -> Result<Self, ProvisionError> {
        let created_ms = names::checked_ms(now)?;
        names::check_name("board's name", name, BOARD_NAME_CHARS_MAX)?;
        if dir.exists() {
            check_clearable(dir)?;
        }
        disk.make_directory(dir)?;
        let lock = lock(dir)?;
        // Again, because another process may have made a board while this one waited for the lock.
        check_clearable(dir)?;
        clear(dir, &disk)?;
        let text = "This board is being made. If no sonae-provision runs, run `board init` again.\n";
        disk.write_new(&dir.join(UNFINISHED), text.as_bytes())?;

        let authority = Authority::create(name, now, &mut SystemEntropy)?;
        let (root, operations, recovery) = (new_root()?, OpenKey::generate(), OpenKey::generate());
        let facts = BoardFacts {
            doc: BoardFacts::LABEL.into(),
            name: name.to_owned(),
            root: root.verifying_key(),
            operations: operations.recipient(),
            recovery: recovery.recipient(),
            created_ms,
        };
        write_secrets(dir, &disk, &root, &authority, &operations, &recovery)?;
        disk.write_new(&dir.join(CA_CERTIFICATE), authority.certificate_pem().as_bytes())?;
        disk.make_directory(&dir.join(SCHOOLS))?;
        disk.write_new(&dir.join(FACTS), &json_file(&facts)?)?;
        disk.remove(&dir.join(UNFINISHED))?;
        Ok(Self { dir: dir.to_owned(), disk, facts, _lock: lock })
    }

    /// Opens a board and removes what an interrupted run left.
    ///
    /// # Errors
    /// [`ProvisionError::NotABoard`], [`ProvisionError::BoardUnfinished`], [`ProvisionError::InUse`],
    /// [`ProvisionError::Damaged`], those of the disk.
    pub fn open(dir: &Path, disk: Disk) -> Result<Self, ProvisionError> {
        let (facts, marker) = (dir.join(FACTS), dir.join(UNFINISHED));
        if !facts.is_file() && !marker.is_file() {
            return Err(ProvisionError::NotABoard { dir: dir.to_owned() });
        }
        let lock = lock(dir)?;
        if marker.is_file() {
            return Err(ProvisionError::BoardUnfinished { dir: dir.to_owned() });
        }
        let facts = read_json::<BoardFacts>(&facts)?;
        if facts.doc != BoardFacts::LABEL {
            return Err(ProvisionError::Damaged { path: dir.join(FACTS), what: "another kind or version" });
        }
        disk.remove_unfinished(dir)?;
        disk.remove_unfinished(&dir.join(SCHOOLS))?;
        Ok(Self { dir: dir.to_owned(), disk, facts, _lock: lock })
    }

    /// Returns the public facts.
    #[must_use]
    pub fn facts(&self) -> &BoardFacts {
        &self.facts
    }

    /// Returns its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the directory of its schools.
    #[must_use]
    pub fn schools_dir(&self) -> PathBuf {
        self.dir.join(SCHOOLS)
    }

    /// Returns the disk, which counts.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Reads the root key.
    ///
    /// # Errors
    /// [`ProvisionError::SecretFile`], [`ProvisionError::Damaged`] unless it is the key of `board.json`.
    pub fn root_key(&self) -> Result<SigningKey, ProvisionError> {
        let path = self.dir.join(ROOT_KEY);
        let text = read_secret(&path)?;
        let seed = secret_text::secret_of(&text)
            .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
            .map(Zeroizing::new)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
            .map(Zeroizing::new);
        let key = seed.map(|seed| SigningKey::from_bytes(&seed));
        key.filter(|key| key.verifying_key() == self.facts.root)
            .ok_or(ProvisionError::Damaged { path, what: "not the key of board.json" })
    }

    /// Reads the operations key.
    ///
    /// # Errors
    /// As [`Self::root_key`].
    pub fn operations_key(&self) -> Result<OpenKey, ProvisionError> {
        let path = self.dir.join(OPERATIONS_KEY);
        let text = read_secret(&path)?;
        secret_text::secret_of(&text)
            .and_then(|secret| OpenKey::parse(secret).ok())
            .filter(|key| key.recipient() == self.facts.operations)
            .ok_or(ProvisionError::Damaged { path, what: "not the key of board.json" })
    }

    /// Reads the certificate authority with its key.
    ///
    /// # Errors
    /// [`ProvisionError::Authority`], [`ProvisionError::SecretFile`].
    pub fn authority(&self) -> Result<Authority, ProvisionError> {
        let certificate = disk::read_text(&self.dir.join(CA_CERTIFICATE))?;
        Ok(Authority::from_pem(&certificate, &read_secret(&self.dir.join(CA_KEY))?)?)
    }
}

fn new_root() -> Result<SigningKey, ProvisionError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    SystemEntropy.fill(seed.as_mut_slice())?;
    Ok(SigningKey::from_bytes(&seed))
}

fn write_secrets(
    dir: &Path,
    disk: &Disk,
    root: &SigningKey,
    authority: &Authority,
    operations: &OpenKey,
    recovery: &OpenKey,
) -> Result<(), ProvisionError> {
    let seed = Zeroizing::new(HEXLOWER.encode(root.as_bytes()));
    let texts = [
        secret_text::compose(
            &[
                "SECRET (秘密): the board's root key, an Ed25519 seed. It signs who may read a school's data.",
                "Never copy it off this machine, except as an encrypted backup in a safe.",
            ],
            &seed,
        ),
        secret_text::compose(
            &["SECRET (秘密): the key of the board's certificate authority, ECDSA P-256."],
            authority.private_key_pem().trim_end(),
        ),
        secret_text::compose(
            &[
                "SECRET (秘密): the board's operations key. It opens the data of every school.",
                &format!("public key: {}", operations.recipient()),
            ],
            &operations.secret(),
        ),
        secret_text::compose(
            &[
                "SECRET (秘密): the board's recovery key. It opens the data of every school when all else is lost.",
                "この鍵を印刷し、分けて別々の金庫に保管し、その後このファイルを消してください。",
                "Print this page, split it, lock the parts away in different safes, then delete this file.",
                "To read by hand: age -d -i THIS-FILE USE-EPOCH.age > epoch.key",
                "                 age -d -i epoch.key BATCH | zstd -d | jq .",
                &format!("public key: {}", recovery.recipient()),
            ],
            &recovery.secret(),
        ),
    ];
    for (name, text) in SECRET_FILES.into_iter().zip(&texts) {
        disk.write_secret(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Refuses a directory with anything in it that an interrupted `init` cannot have left.
fn check_clearable(dir: &Path) -> Result<(), ProvisionError> {
    let exists = || ProvisionError::BoardExists { dir: dir.to_owned() };
    if !dir.is_dir() {
        return Err(exists());
    }
    let names = disk::names_in(dir)?;
    let is_marked = names.iter().any(|name| name == UNFINISHED);
    let is_ours = |name: &String| {
        name == LOCK
            || is_marked
                && (name == UNFINISHED
                    || SECRET_FILES.contains(&name.as_str())
                    || PUBLIC_NAMES.contains(&name.as_str())
                    || name.starts_with('.'))
    };
    if names.iter().all(is_ours) { Ok(()) } else { Err(exists()) }
}

/// Removes what an interrupted `init` left, the marker last.
fn clear(dir: &Path, disk: &Disk) -> Result<(), ProvisionError> {
    let names = disk::names_in(dir)?;
    for name in names.iter().filter(|name| *name != LOCK && *name != UNFINISHED) {
        disk.remove(&dir.join(name))?;
    }
    if names.iter().any(|name| name == UNFINISHED) {
        disk.remove(&dir.join(UNFINISHED))?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, ProvisionError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(ProvisionError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ProvisionError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(ProvisionError::io("lock", &path)(source)),
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, ProvisionError> {
    let bytes = secret_file::read(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| ProvisionError::Damaged { path: path.to_owned(), what: "not text in UTF-8" })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Encodes public facts for a file that people may open.
pub(crate) fn json_file<T: Serialize>(facts: &T) -> Result<Vec<u8>, ProvisionError> {
    let mut text = serde_json::to_vec_pretty(facts).map_err(ProvisionError::Json)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads public facts.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, ProvisionError> {
    serde_json::from_str(&disk::read_text(path)?)
        .map_err(|_| ProvisionError::Damaged { path: path.to_owned(), what: "not the expected JSON" })
}
