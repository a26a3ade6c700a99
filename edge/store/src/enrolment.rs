//! Enrolment: turns a bundle and its passphrase into a data directory of a new replica.

use std::fs;
use std::path::{Path, PathBuf};

use sonae_proto::bundle::{self, BundleError, ReplicaBundle};
use sonae_proto::destruction::Destroyed;
use sonae_proto::identity::Beginning;
use sonae_proto::limits::BUNDLE_BYTES_MAX;
use sonae_trust::{entropy::SystemEntropy, secret_file};
use zeroize::Zeroizing;

use crate::data_dir::{DataDir, DataDirError};
use crate::identity::{IdentityError, ReplicaKeys};
use crate::keyring::{Keyring, KeyringError};

/// Why a replica cannot be enrolled or loaded.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The bundle file cannot be read.
    #[error("cannot read the bundle {}", path.display())]
    ReadBundle {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The bundle cannot be opened.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Keys do not belong together.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The epoch keys cannot be opened.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The enrolment file cannot be read or written.
    #[error("the enrolment of this replica cannot be read or written")]
    File(#[from] secret_file::SecretFileError),
    /// The enrolment file is not what this program wrote.
    #[error("the enrolment of this replica is damaged; enrol it again with a new bundle")]
    Damaged,
}

/// Opens a bundle file.
///
/// # Errors
/// [`EnrolmentError`], within two seconds.
pub fn open_bundle(path: &Path, passphrase: &str) -> Result<ReplicaBundle, EnrolmentError> {
    let read = |source| EnrolmentError::ReadBundle { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(read)?.len();
    let limit = u64::try_from(BUNDLE_BYTES_MAX).unwrap_or(u64::MAX);
    if bytes > limit {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        return Err(BundleError::TooLarge { bytes }.into());
    }
    Ok(bundle::open(&fs::read(path).map_err(read)?, passphrase)?)
}

/// Makes an empty directory the data directory of a new replica.
///
/// # Errors
/// [`EnrolmentError`]; everything in the bundle is verified before anything is written.
///
/// # Durability
/// Keys and certificates are on stable storage when this returns.
pub fn enrol(
    data: &Path,
    bundle: &ReplicaBundle,
    beginning: Beginning,
    now_ms: u64,
) -> Result<DataDir, EnrolmentError> {
    let board = crate::identity::board_key(bundle)?;
    Keyring::open(&board, &Keyring::documents_of(bundle), &bundle.device_age_key)?;
    let dir = DataDir::create(data)?;
    ReplicaKeys::begin(dir.path(), bundle, beginning, now_ms)?;
    // Last, because its presence says that the directory holds a replica.
    let content = Zeroizing::new(serde_json::to_vec(bundle).map_err(|_| EnrolmentError::Damaged)?);
    secret_file::create(&data.join("enrolment.json"), &content, &mut SystemEntropy)?;
    Ok(dir)
}

/// Reads what `enrol` wrote.
///
/// # Errors
/// [`EnrolmentError`].
pub fn load(data: &Path) -> Result<ReplicaBundle, EnrolmentError> {
    let content = secret_file::read(&data.join("enrolment.json"))?;
    serde_json::from_slice(&content).map_err(|_| EnrolmentError::Damaged)
}

/// Takes wrapped keys that the board has destroyed out of what `enrol` wrote. Returns whether there were any.
///
/// # Errors
/// [`EnrolmentError`]; the file is as it was then.
///
/// # Durability
/// The file without them is on stable storage when this returns.
pub fn forget_destroyed(data: &Path, destroyed: &Destroyed) -> Result<bool, EnrolmentError> {
    let mut bundle = load(data)?;
    let before = bundle.wrapped_keys.len();
    bundle.wrapped_keys.retain(|key| !destroyed.contains(key.key_use, key.epoch));
    if bundle.wrapped_keys.len() == before {
        return Ok(false);
    }
    let content = Zeroizing::new(serde_json::to_vec(&bundle).map_err(|_| EnrolmentError::Damaged)?);
    secret_file::replace(&data.join("enrolment.json"), &content, &mut SystemEntropy)?;
    Ok(true)
}
