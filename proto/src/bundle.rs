//! Bundles: what a new replica or a cloud node needs, in one file sealed to a one-time passphrase. Spec:
//! `docs/spec/keys.md#bundles`.

use std::io::{Read, Write};
use std::iter;

use age::secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::ids::SchoolCode;
use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_WORK_FACTOR, BUNDLE_WORK_FACTOR_MAX};
use crate::manifest::WrappedKey;

/// Everything that makes an empty machine a replica of a school.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct ReplicaBundle {
    /// `sonae/replica-bundle/v1`.
    pub doc: String,
    /// The board's root key, hexadecimal.
    #[zeroize(skip)]
    pub board_root: String,
    /// The board's name for people.
    #[zeroize(skip)]
    pub board_name: String,
    /// The school's code.
    #[zeroize(skip)]
    pub school: SchoolCode,
    /// The school's name for people.
    #[zeroize(skip)]
    pub school_name: String,
    /// The device's Ed25519 seed, hexadecimal. Secret.
    pub device_seed: String,
    /// The device's age key, `AGE-SECRET-KEY-1…`. Secret.
    pub device_age_key: String,
    /// Text of the device certificate.
    #[zeroize(skip)]
    pub device_certificate: String,
    /// PEM of the device's TLS client certificate.
    #[zeroize(skip)]
    pub tls_certificate_pem: String,
    /// PEM of the board's certificate authority, the trust root of LAN clients.
    #[zeroize(skip)]
    pub ca_pem: String,
    /// PEM of the LAN service's certificate.
    #[zeroize(skip)]
    pub lan_certificate_pem: String,
    /// PEM of the LAN service's key. Secret.
    pub lan_key_pem: String,
    /// Names that the LAN certificate is good for.
    #[zeroize(skip)]
    pub lan_names: Vec<String>,
    /// Text of the manifest.
    #[zeroize(skip)]
    pub manifest: String,
    /// Wrapped keys of all live epochs.
    #[zeroize(skip)]
    pub wrapped_keys: Vec<WrappedKey>,
    /// Text of the cloud's descriptor.
    #[zeroize(skip)]
    pub descriptor: String,
}

/// Everything that makes an empty machine a node of the cloud. It holds no key to any data.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct CloudBundle {
    /// `sonae/cloud-bundle/v1`.
    pub doc: String,
    /// The board's root key, hexadecimal.
    #[zeroize(skip)]
    pub board_root: String,
    /// The board's name for people.
    #[zeroize(skip)]
    pub board_name: String,
    /// PEM of the board's certificate authority, against which devices are verified.
    #[zeroize(skip)]
    pub ca_pem: String,
    /// PEM of the node's TLS certificate.
    #[zeroize(skip)]
    pub tls_certificate_pem: String,
    /// PEM of the node's TLS key. Secret.
    pub tls_key_pem: String,
    /// The Ed25519 seed of the receipt key, hexadecimal. Secret.
    pub receipt_seed: String,
    /// Text of the cloud's descriptor.
    #[zeroize(skip)]
    pub descriptor: String,
}

/// A kind of bundle.
pub trait BundleKind: Serialize + DeserializeOwned {
    /// Its label.
    const LABEL: &'static str;
    /// Returns the label that the content carries.
    fn label(&self) -> &str;
}

impl BundleKind for ReplicaBundle {
    const LABEL: &'static str = "sonae/replica-bundle/v1";
    fn label(&self) -> &str {
        &self.doc
    }
}

impl BundleKind for CloudBundle {
    const LABEL: &'static str = "sonae/cloud-bundle/v1";
    fn label(&self) -> &str {
        &self.doc
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The passphrase does not open it.
    #[error(
        "the passphrase does not open this bundle; check it against the line that the board's tool printed"
    )]
    WrongPassphrase,
    /// The file is not a bundle or has changed since it was made.
    #[error("the bundle is damaged or is not a bundle; copy it again from the board")]
    Damaged,
    /// It is a bundle of another kind or version.
    #[error("this bundle is a '{found}', not a '{expected}'; use the file that was made for this program")]
    Kind {
        /// What it says it is.
        found: String,
        /// What was needed.
        expected: &'static str,
    },
    /// It would be over the limit.
    #[error("a bundle of {bytes} bytes is over the limit of {BUNDLE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Seals a bundle to a passphrase.
///
/// # Errors
/// [`BundleError::TooLarge`]; [`BundleError::Damaged`] when it cannot be encoded.
pub fn seal<B: BundleKind>(bundle: &B, passphrase: &str) -> Result<Vec<u8>, BundleError> {
    let content = Zeroizing::new(serde_json::to_vec(bundle).map_err(|_| BundleError::Damaged)?);
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(BUNDLE_WORK_FACTOR);
    let recipient: &dyn age::Recipient = &recipient;
    let encryptor =
        age::Encryptor::with_recipients(iter::once(recipient)).map_err(|_| BundleError::Damaged)?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(|_| BundleError::Damaged)?;
    writer.write_all(&content).map_err(|_| BundleError::Damaged)?;
    writer.finish().map_err(|_| BundleError::Damaged)?;
    if sealed.len() > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge { bytes: sealed.len() });
    }
    Ok(sealed)
}

/// Opens a bundle.
///
/// # Errors
/// [`BundleError`], within two seconds for any input: size and work factor are bounded.
pub fn open<B: BundleKind>(sealed: &[u8], passphrase: &str) -> Result<B, BundleError> {
    if sealed.len() > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge { bytes: sealed.len() });
    }
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| BundleError::Damaged)?;
    if !decryptor.is_scrypt() {
        return Err(BundleError::Damaged);
    }
    let mut identity = age::scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    identity.set_max_work_factor(BUNDLE_WORK_FACTOR_MAX);
    let identity: &dyn age::Identity = &identity;
    let mut reader = decryptor.decrypt(iter::once(identity)).map_err(|error| {
        // Anything but a failed unwrap means that the header was touched.
        let wrong_passphrase = matches!(
            error,
            age::DecryptError::DecryptionFailed
                | age::DecryptError::KeyDecryptionFailed
                | age::DecryptError::NoMatchingKeys
        );
        if wrong_passphrase { BundleError::WrongPassphrase } else { BundleError::Damaged }
    })?;
    let mut content = Zeroizing::new(Vec::new());
    reader.read_to_end(&mut content).map_err(|_| BundleError::Damaged)?;
    #[derive(Deserialize)]
    struct Label {
        doc: String,
    }
    let label: Label = serde_json::from_slice(&content).map_err(|_| BundleError::Damaged)?;
    if label.doc != B::LABEL {
        return Err(BundleError::Kind { found: label.doc, expected: B::LABEL });
    }
    serde_json::from_slice(&content).map_err(|_| BundleError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CloudBundle {
        CloudBundle {
            doc: CloudBundle::LABEL.into(),
            board_root: "00".into(),
            board_name: "架空市教育委員会".into(),
            ca_pem: String::new(),
            tls_certificate_pem: String::new(),
            tls_key_pem: "secret".into(),
            receipt_seed: "secret".into(),
            descriptor: String::new(),
        }
    }

    /// Goal: each way a bundle can be wrong is told apart. Method: passphrase, flip, cut, other kind.
    #[test]
    fn wrong_bundles_say_what_is_wrong() {
        let sealed = seal(&sample(), "abc").unwrap();
        assert_eq!(open::<CloudBundle>(&sealed, "abc").unwrap().tls_key_pem, "secret");
        let wrong = open::<CloudBundle>(&sealed, "abd");
        assert!(matches!(wrong, Err(BundleError::WrongPassphrase)));
        let other = open::<ReplicaBundle>(&sealed, "abc");
        assert!(matches!(other, Err(BundleError::Kind { .. })));
        let mut flipped = sealed.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(open::<CloudBundle>(&flipped, "abc"), Err(BundleError::Damaged)));
        let cut = &sealed[..sealed.len() / 2];
        assert!(open::<CloudBundle>(cut, "abc").is_err());
        assert!(matches!(open::<CloudBundle>(b"PK\x03\x04", "abc"), Err(BundleError::Damaged)));
    }
}
