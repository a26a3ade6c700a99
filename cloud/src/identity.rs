//! What a node is by its bundle: the board that it serves, its receipt key, its TLS. Checked as a whole, so that
//! a node that edges would not trust does not start.

use std::io::{BufRead, Read};
use std::path::Path;

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use sonae_proto::bundle::{self, BundleError, CloudBundle};
use sonae_proto::descriptor::CloudDescriptor;
use sonae_proto::ids::{Hash32, ReceiptKeyId};
use sonae_proto::limits::BUNDLE_BYTES_MAX;
use sonae_proto::signed::{Signed, public_key_hex};
use zeroize::Zeroizing;

use crate::limits::PASSPHRASE_BYTES_MAX;
use crate::tls::{self, Tls, TlsError};

/// A node's identity.
pub struct NodeIdentity {
    /// The board's root key.
    pub board: VerifyingKey,
    /// Signs receipts.
    pub receipt_key: SigningKey,
    /// What the doors are opened with.
    pub tls: Tls,
}

/// Why a bundle makes no node.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("bundle {path} cannot be read; check the path and its permissions")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no passphrase on standard input.
    #[error("standard input has no passphrase; give it as the first line, as the board's tool printed it")]
    Passphrase,
    /// It does not open.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A field has no meaning.
    #[error("the bundle's {field} has no meaning; have the board make the bundle again")]
    Field {
        /// Which field.
        field: &'static str,
    },
    /// Edges would not trust this node.
    #[error(
        "the board's descriptor of the cloud does not name the bundle's {what}; have the board make the bundle again"
    )]
    Unnamed {
        /// What is missing.
        what: &'static str,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Reads a passphrase: the first line, without the spaces around it.
///
/// # Errors
/// [`IdentityError::Passphrase`] when there is none, or more than a kibibyte of it.
pub fn read_passphrase(input: impl BufRead) -> Result<Zeroizing<String>, IdentityError> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    let mut bounded = input.take(PASSPHRASE_BYTES_MAX);
    bounded.read_line(&mut line).map_err(|_| IdentityError::Passphrase)?;
    let passphrase = Zeroizing::new(line.trim().to_owned());
    if passphrase.is_empty() || (bounded.limit() == 0 && !line.ends_with('\n')) {
        return Err(IdentityError::Passphrase);
    }
    Ok(passphrase)
}

/// Opens a bundle file.
///
/// # Errors
/// [`IdentityError::File`], [`IdentityError::Bundle`], within two seconds for any file.
pub fn open_bundle(path: &Path, passphrase: &str) -> Result<CloudBundle, IdentityError> {
    let fault = |source| IdentityError::File { path: path.display().to_string(), source };
    let limit = u64::try_from(BUNDLE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut sealed = Vec::new();
    std::fs::File::open(path).map_err(fault)?.take(limit + 1).read_to_end(&mut sealed).map_err(fault)?;
    Ok(bundle::open(&sealed, passphrase)?)
}

impl NodeIdentity {
    /// Checks a bundle's content.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of_bundle(bundle: &CloudBundle) -> Result<Self, IdentityError> {
        let field = |field| IdentityError::Field { field };
        let board = public_key_hex::parse(&bundle.board_root).ok_or_else(|| field("board key"))?;
        let receipt_key = receipt_key(&bundle.receipt_seed).ok_or_else(|| field("receipt key"))?;
        let descriptor = Signed::<CloudDescriptor>::verify(&bundle.descriptor, &board)
            .map_err(|_| field("descriptor of the cloud"))?;
        let descriptor = descriptor.body();
        let id = ReceiptKeyId::of_key(receipt_key.verifying_key().as_bytes());
        if descriptor.receipt_key(id).is_none() {
            return Err(IdentityError::Unnamed { what: "receipt key" });
        }
        let chain = tls::certificates(&bundle.tls_certificate_pem, "certificate")?;
        let hash = chain.first().map(|leaf| Hash32(*blake3::hash(leaf).as_bytes()));
        if !hash.is_some_and(|hash| descriptor.tls_certificates.contains(&hash)) {
            return Err(IdentityError::Unnamed { what: "certificate" });
        }
        let tls = tls::server_config(&bundle.ca_pem, &bundle.tls_certificate_pem, &bundle.tls_key_pem)?;
        Ok(Self { board, receipt_key, tls })
    }
}

fn receipt_key(hex: &str) -> Option<SigningKey> {
    let seed = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().ok()?);
    Some(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only a bounded, non-empty first line is a passphrase. Method: lines at and over the bound.
    #[test]
    fn a_passphrase_is_a_bounded_first_line() {
        assert_eq!(*read_passphrase(&b"  word-word \nrest"[..]).unwrap(), "word-word");
        assert_eq!(*read_passphrase(&b"no line end"[..]).unwrap(), "no line end");
        assert!(read_passphrase(&b""[..]).is_err());
        assert!(read_passphrase(&b"\nlate"[..]).is_err());
        assert!(read_passphrase(&[b'a'; 5000][..]).is_err());
        assert!(read_passphrase(&b"\xff\xfe\n"[..]).is_err());
    }
}
