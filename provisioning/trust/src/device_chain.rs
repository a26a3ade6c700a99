//! Whether a certificate is that of a device of this board, whatever the clock says.
//!
//! Boxes meet in the dark: one may have begun in 1970, and a certificate may have expired while nobody could renew it.
//! So the dates of a certificate decide nothing here; its signature, its purpose and its name do, and the board revokes
//! by other means.
//!
//! **Left out:** that the other side has the key. The handshake proves that.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::device_name::{DeviceName, DeviceNameError};

/// A device that the board's authority has certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: DeviceName,
    /// Its Ed25519 key.
    pub key: [u8; 32],
}

/// Why a certificate is not that of a device of this board.
#[derive(Debug, thiserror::Error)]
pub enum DeviceChainError {
    /// Another authority has signed it, or for another purpose.
    #[error("the board's authority has not certified it for a device: ask the board which device that is")]
    Foreign(#[source] webpki::Error),
    /// It has no device's name.
    #[error(transparent)]
    Name(#[from] DeviceNameError),
    /// It has no Ed25519 key.
    #[error("its key is not that of a device: enrol the device again")]
    Key,
}

/// Verifies that the authority has certified a device, at the time at which it did.
///
/// # Errors
/// [`DeviceChainError`].
pub fn verify(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> Result<Device, DeviceChainError> {
    let name = DeviceName::from_certificate(certificate)?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| DeviceChainError::Key)?;
    let began = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(began));
    let foreign = DeviceChainError::Foreign;
    let anchor = anchor_from_trusted_cert(authority).map_err(foreign)?;
    let leaf = EndEntityCert::try_from(certificate).map_err(foreign)?;
    let usage = KeyUsage::client_auth();
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], at, usage, None, None)
        .map_err(foreign)?;
    let key = parsed.public_key();
    let is_ed25519 = key.algorithm.algorithm == OID_SIG_ED25519;
    let key = <[u8; 32]>::try_from(key.subject_public_key.data.as_ref());
    let key = key.ok().filter(|_| is_ed25519).ok_or(DeviceChainError::Key)?;
    Ok(Device { name, key })
}
