//! Private keys of certificates: made, read back, wiped.
//!
//! **Invariants**
//! - A key is of the one kind that its use asks for: P-256 for what browsers see, Ed25519 for devices.
//! - Its encoded form is wiped when dropped.
//!
//! P-256 keys and the nonces of their signatures are drawn by `ring` from the operating system, not from
//! the told entropy. Copies inside `ring` and in the encoder of PEM are freed without being wiped.
//!
//! # Source
//! RFC 5958 (PKCS#8, version 1 and 2), RFC 8410 (Ed25519 in it).

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

/// Longest PEM text that is read, bytes: ours have below 1 KiB.
pub const PEM_BYTES_MAX: usize = 16 * 1024;

/// Reads the public half (32 bytes, RFC 8032 5.1.5) of a device's Ed25519 key, given as PKCS#8 DER.
///
/// # Errors
/// [`PrivateKeyError`] unless it is an Ed25519 key; in version 2 its halves must belong together.
pub fn device_public_key(device_key_pkcs8: &Zeroizing<Vec<u8>>) -> Result<[u8; 32], PrivateKeyError> {
    let bad = |detail: &'static str| PrivateKeyError { detail };
    let der = PrivatePkcs8KeyDer::from(device_key_pkcs8.as_slice());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
        .map(PrivateKey)
        .map_err(|_| bad("not an Ed25519 key in PKCS#8"))?;
    key.0.public_key_raw().try_into().map_err(|_| bad("not 32 bytes"))
}

/// A key pair whose encoded form is wiped when dropped.
pub(crate) struct PrivateKey(KeyPair);

impl PrivateKey {
    /// Draws a P-256 key from the operating system.
    pub(crate) fn generate_p256() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// Reads a P-256 key from PKCS#8 PEM.
    pub(crate) fn p256_from_pem(pem: &Zeroizing<String>) -> Result<Self, PrivateKeyError> {
        let bad = |detail: &'static str| PrivateKeyError { detail };
        if pem.len() > PEM_BYTES_MAX {
            return Err(bad("too long"));
        }
        let mut der =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad("not a private key in PEM"))?;
        let key = KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        der.zeroize();
        key.map(Self).map_err(|_| bad("not a P-256 key in PKCS#8"))
    }

    /// The pair, for signing.
    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// The key as PKCS#8 PEM.
    pub(crate) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The key as PKCS#8 DER.
    pub(crate) fn der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A device's public Ed25519 key, as `rcgen` wants to see it.
pub(crate) struct DevicePublicKey(pub(crate) [u8; 32]);

impl PublicKeyData for DevicePublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// A private key is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the private key is unusable ({detail}): restore it from the backup or make a new one")]
pub struct PrivateKeyError {
    /// What is wrong with it; never the key.
    pub detail: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the public half is that of RFC 8410 10.3, from version 1 and version 2. Method: its two
    /// example keys; a flipped public half is refused.
    #[test]
    fn rfc_8410_keys() {
        let decode = |text: &str| Zeroizing::new(data_encoding::BASE64.decode(text.as_bytes()).unwrap());
        let version_1 = decode("MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC");
        let version_2 = decode(concat!(
            "MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhCoB8wHQYKKoZIhvcNAQkJFDEPDA1D",
            "dXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
        ));
        let public = decode("Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        assert_eq!(device_public_key(&version_1).unwrap(), public.as_slice());
        assert_eq!(device_public_key(&version_2).unwrap(), public.as_slice());
        let mut flipped = version_2.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(device_public_key(&flipped).is_err());
    }

    /// Goal: keys survive their text and other kinds are refused, without showing them. Method: round
    /// trip; an Ed25519 key where P-256 is asked for, and the other way round.
    #[test]
    fn p256_round_trip() {
        let key = PrivateKey::generate_p256().unwrap();
        let again = PrivateKey::p256_from_pem(&key.pem()).unwrap();
        assert_eq!(key.der(), again.der());
        let error = device_public_key(&key.der()).unwrap_err().to_string();
        assert!(error.ends_with("restore it from the backup or make a new one"), "{error}");
        for text in ["", "rubbish", &"x".repeat(PEM_BYTES_MAX + 1)] {
            assert!(PrivateKey::p256_from_pem(&Zeroizing::new(text.to_owned())).is_err());
        }
    }
}
