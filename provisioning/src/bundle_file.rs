//! The file of a bundle: sealed to a new passphrase, written before the board's state changes, taken back when
//! that fails.
//!
//! Order of an enrolment: seal, write the file, change the board's state, show the passphrase. A run that is
//! killed after the file was written leaves a file that nobody can open, and an unchanged board: delete it and
//! run again. One that is killed after the state changed but before the passphrase was shown leaves a replica
//! (or a node) in `show` whose keys nobody has: it can open nothing and harms nothing, enrol another one.

use std::path::{Path, PathBuf};

use sonae_proto::bundle::{BundleKind, seal};
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::passphrase::Passphrase;

use crate::disk::Disk;
use crate::error::ProvisionError;

/// A finished enrolment: what may be known, and the passphrase of the bundle.
#[derive(Debug)]
pub struct Enrolled<F> {
    /// Public facts.
    pub facts: F,
    /// Opens the bundle. Shown once.
    pub passphrase: Passphrase,
}

/// Refuses an output file that exists, before any work is done.
///
/// # Errors
/// [`ProvisionError::OutExists`].
pub fn check_free(path: &Path) -> Result<(), ProvisionError> {
    match path.symlink_metadata() {
        Ok(_) => Err(ProvisionError::OutExists { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Seals a bundle, writes it with mode 0600, and then changes the board's state with `change`.
///
/// # Errors
/// [`ProvisionError::OutExists`], [`ProvisionError::Bundle`], those of the disk and of `change`; the file is
/// removed again then.
///
/// # Durability
/// The file is on stable storage before `change` is called.
pub fn hand_over<B: BundleKind>(
    bundle: &B,
    out: &Path,
    disk: &Disk,
    change: impl FnOnce() -> Result<(), ProvisionError>,
) -> Result<Passphrase, ProvisionError> {
    let passphrase = Passphrase::generate(&mut SystemEntropy)?;
    let sealed = seal(bundle, passphrase.expose()).map_err(ProvisionError::Bundle)?;
    check_free(out)?;
    let written = disk.write_new(out, &sealed);
    if matches!(written, Err(ProvisionError::OutExists { .. })) {
        // Somebody else's, made since the look above.
        return Err(ProvisionError::OutExists { path: PathBuf::from(out) });
    }
    written.and_then(|()| change()).inspect_err(|_| {
        // Nobody has its passphrase. If it cannot be removed, the first error is still the one to report.
        let _ = disk.remove(out);
    })?;
    Ok(passphrase)
}
