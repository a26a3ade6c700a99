//! The descriptor of the cloud: where it is and which keys speak for it. Signed by the board; edges trust it
//! and not X.509 dates, so that a box with a wrong clock can still reach its cloud. Spec:
//! `docs/spec/keys.md#descriptor`.

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::ids::{Hash32, ReceiptKeyId};
use crate::signed::{Document, public_key_hex};

/// A key that signs receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptKey {
    /// The Ed25519 key.
    #[serde(with = "public_key_hex")]
    pub key: VerifyingKey,
}

/// The cloud as the board describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudDescriptor {
    /// Increases with each change; the higher one stands.
    pub version: u64,
    /// Names to dial, `NAME:PORT`, in order of preference.
    pub hosts: Vec<String>,
    /// BLAKE3 of the DER certificates that the cloud's nodes present, an offline spare among them.
    pub tls_certificates: Vec<Hash32>,
    /// Keys whose receipts count.
    pub receipt_keys: Vec<ReceiptKey>,
}

impl Document for CloudDescriptor {
    const LABEL: &'static str = "sonae/cloud/v1";
}

impl CloudDescriptor {
    /// Finds a receipt key by name.
    #[must_use]
    pub fn receipt_key(&self, id: ReceiptKeyId) -> Option<&VerifyingKey> {
        self.receipt_keys
            .iter()
            .map(|receipt| &receipt.key)
            .find(|key| ReceiptKeyId::of_key(key.as_bytes()) == id)
    }
}
