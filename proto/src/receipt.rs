//! Receipts: the cloud's signature that a batch is durable at the quorum. "Safe" is said on nothing else (P2).
//!
//! The edge mints the loss counter; a receipt echoes the one that the edge named in its hello, and the edge
//! ignores receipts with an older one. Spec: `docs/spec/wire.md#receipt`.

use ed25519_dalek::{Signature, Signer, SigningKey};

use crate::bytes::{Reader, Short};
use crate::descriptor::CloudDescriptor;
use crate::ids::{Hash32, Incarnation, LogName, ReceiptKeyId, SchoolCode, Tier};
use crate::limits::RECEIPT_SITES_MAX;
use crate::planted::{Defect, is_planted};
use crate::vector::LogHead;

/// Label of a receipt.
pub const LABEL: [u8; 16] = *b"sonae/receipt/v1";

/// A site's name: random, minted when the site is first opened.
pub type SiteId = [u8; 16];

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Whose data.
    pub school: SchoolCode,
    /// Which log.
    pub log: LogName,
    /// The batch that is durable, and with it all before it.
    pub head: LogHead,
    /// The edge's loss counter at the time.
    pub loss_counter: u64,
    /// When, by the node's clock, milliseconds since 1970 UTC.
    pub issued_ms: u64,
    /// The sites that hold it, at least the quorum.
    pub sites: Vec<SiteId>,
}

/// Why a receipt is ignored.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// It ends too early.
    #[error("a receipt is cut short")]
    Short(#[from] Short),
    /// A field has no meaning.
    #[error("field {field} of a receipt has no meaning")]
    Field {
        /// Which field.
        field: &'static str,
    },
    /// Its key is not in the cloud's descriptor, or the signature does not hold.
    #[error("a receipt is not signed by a key of the cloud's descriptor")]
    Signature,
}

impl Receipt {
    fn signed_bytes(&self, key: ReceiptKeyId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.sites.len() * 16);
        bytes.extend_from_slice(&LABEL);
        bytes.extend_from_slice(self.school.bytes());
        bytes.push(self.log.tier.number());
        bytes.extend_from_slice(self.log.incarnation.bytes());
        bytes.extend_from_slice(&self.head.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.head.hash.0);
        bytes.extend_from_slice(&self.loss_counter.to_be_bytes());
        bytes.extend_from_slice(&self.issued_ms.to_be_bytes());
        bytes.extend_from_slice(key.bytes());
        bytes.push(u8::try_from(self.sites.len()).unwrap_or(u8::MAX));
        for site in &self.sites {
            bytes.extend_from_slice(site);
        }
        bytes
    }

    /// Signs a receipt.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        assert!(self.sites.len() <= RECEIPT_SITES_MAX, "a receipt names at most 16 sites");
        let mut bytes = self.signed_bytes(ReceiptKeyId::of_key(key.verifying_key().as_bytes()));
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(&signature.to_bytes());
        bytes
    }

    /// Reads a receipt and checks it against the keys of the descriptor.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(bytes: &[u8], cloud: &CloudDescriptor) -> Result<Self, ReceiptError> {
        let field = |field| ReceiptError::Field { field };
        let mut reader = Reader::new(bytes);
        if reader.array::<16>("label")? != LABEL {
            return Err(field("label"));
        }
        let school = SchoolCode::from_bytes(reader.array("school")?).map_err(|_| field("school"))?;
        let tier = Tier::from_number(reader.u8("tier")?).ok_or_else(|| field("tier"))?;
        let incarnation = Incarnation::from_bytes(reader.array("incarnation")?);
        let head = LogHead { sequence: reader.u64("sequence")?, hash: Hash32(reader.array("hash")?) };
        let loss_counter = reader.u64("loss counter")?;
        let issued_ms = reader.u64("issued")?;
        let key = ReceiptKeyId::from_bytes(reader.array("key")?);
        let count = usize::from(reader.u8("sites")?);
        if count == 0 || count > RECEIPT_SITES_MAX {
            return Err(field("sites"));
        }
        let sites = (0..count).map(|_| reader.array("site")).collect::<Result<Vec<SiteId>, _>>()?;
        let distinct: std::collections::BTreeSet<&SiteId> = sites.iter().collect();
        if distinct.len() != sites.len() {
            return Err(field("sites"));
        }
        let signature = Signature::from_bytes(&reader.array("signature")?);
        if !reader.rest().is_empty() {
            return Err(field("length"));
        }
        let receipt =
            Self { school, log: LogName { tier, incarnation }, head, loss_counter, issued_ms, sites };
        cloud
            .receipt_key(key)
            .filter(|public| public.verify_strict(&receipt.signed_bytes(key), &signature).is_ok())
            .map(drop)
            .or_else(|| is_planted(Defect::ReceiptSignatureNotChecked).then_some(()))
            .map(|()| receipt)
            .ok_or(ReceiptError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::ReceiptKey;

    /// Goal: only a receipt of a known key, unchanged, counts. Method: flip every bit; another key.
    #[test]
    fn receipts_cannot_be_altered() {
        let key = SigningKey::from_bytes(&[8; 32]);
        let cloud = CloudDescriptor {
            version: 1,
            hosts: vec![],
            tls_certificates: vec![],
            receipt_keys: vec![ReceiptKey { key: key.verifying_key() }],
        };
        let receipt = Receipt {
            school: "B113200000011".parse().unwrap(),
            log: LogName { tier: Tier::Safety, incarnation: Incarnation::from_bytes([1; 16]) },
            head: LogHead { sequence: 9, hash: Hash32([2; 32]) },
            loss_counter: 3,
            issued_ms: 4,
            sites: vec![[1; 16], [2; 16]],
        };
        let bytes = receipt.sign(&key);
        assert_eq!(Receipt::verify(&bytes, &cloud).unwrap(), receipt);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Receipt::verify(&flipped, &cloud).is_err(), "bit {bit}");
        }
        let stranger = receipt.sign(&SigningKey::from_bytes(&[9; 32]));
        assert!(matches!(Receipt::verify(&stranger, &cloud), Err(ReceiptError::Signature)));
    }
}
