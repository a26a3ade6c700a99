//! Batches: consecutive changes of one log, sealed once. A fixed header in clear, an Ed25519 signature over all
//! of it, the sealed payload. Spec with drawn bytes: `docs/spec/batch.md`.
//!
//! **Invariant**: a batch is re-sent byte-identical; its hash names one history of its log.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::bytes::{Reader, Short};
use crate::ids::{Hash32, Incarnation, LogName, SchoolCode, Tier};
use crate::limits::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX};
use crate::planted::{Defect, is_planted};
use crate::seal::{SealError, check_recipients};
use crate::vector::LogHead;

/// Label of the header: no signature over it can stand for anything else.
pub const LABEL: [u8; 16] = *b"sonae/batch/v1\0\0";

/// Bytes of the header that are signed and hashed.
pub const HEADER_BYTES: usize = 16 + 13 + 1 + 16 + 8 + 8 + 32 + 4 + 32 + 4 + 32;

/// Bytes before the payload: header and signature.
pub const PREFIX_BYTES: usize = HEADER_BYTES + 64;

/// What the cloud and the wire see of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Whose data.
    pub school: SchoolCode,
    /// Which log.
    pub log: LogName,
    /// Sequence of its first change.
    pub first: u64,
    /// Sequence of its last change.
    pub last: u64,
    /// Hash of the batch before it, [`Hash32::ZERO`] for the first of a log.
    pub previous: Hash32,
    /// School year of the key that it is sealed to.
    pub epoch: u32,
    /// Hash of the manifest that names that key.
    pub manifest: Hash32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// BLAKE3 of the payload.
    pub payload_hash: Hash32,
}

/// Why a batch is refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// It ends too early.
    #[error("a batch is cut short")]
    Short(#[from] Short),
    /// A field of the header has no meaning.
    #[error("field {field} of a batch header has no meaning")]
    Field {
        /// Which field.
        field: &'static str,
    },
    /// The payload is not the one that the header names.
    #[error("the payload of batch {log} {first}..{last} is not the one that its header names")]
    Payload {
        /// Which log.
        log: LogName,
        /// First sequence.
        first: u64,
        /// Last sequence.
        last: u64,
    },
    /// The signature is not by the incarnation's key.
    #[error("batch {log} {first}..{last} is not signed by its incarnation")]
    Signature {
        /// Which log.
        log: LogName,
        /// First sequence.
        first: u64,
        /// Last sequence.
        last: u64,
    },
    /// The payload names recipients that no manifest allows.
    #[error("the payload of a batch names other recipients than its manifest")]
    Recipients(#[source] SealError),
}

impl BatchHeader {
    /// Returns the bytes that are signed and hashed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&LABEL);
        bytes.extend_from_slice(self.school.bytes());
        bytes.push(self.log.tier.number());
        bytes.extend_from_slice(self.log.incarnation.bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.last.to_be_bytes());
        bytes.extend_from_slice(&self.previous.0);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.manifest.0);
        bytes.extend_from_slice(&self.payload_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.payload_hash.0);
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        bytes
    }

    /// Reads a header and checks what it can show alone.
    ///
    /// # Errors
    /// [`BatchError::Short`], [`BatchError::Field`].
    pub fn from_bytes(reader: &mut Reader<'_>) -> Result<Self, BatchError> {
        let field = |field| BatchError::Field { field };
        if reader.array::<16>("label")? != LABEL {
            return Err(field("label"));
        }
        let school = SchoolCode::from_bytes(reader.array("school")?).map_err(|_| field("school"))?;
        let tier = Tier::from_number(reader.u8("tier")?).ok_or_else(|| field("tier"))?;
        let incarnation = Incarnation::from_bytes(reader.array("incarnation")?);
        let header = Self {
            school,
            log: LogName { tier, incarnation },
            first: reader.u64("first")?,
            last: reader.u64("last")?,
            previous: Hash32(reader.array("previous")?),
            epoch: reader.u32("epoch")?,
            manifest: Hash32(reader.array("manifest")?),
            payload_bytes: reader.u32("payload length")?,
            payload_hash: Hash32(reader.array("payload hash")?),
        };
        if header.first == 0 || header.last < header.first {
            return Err(field("sequence"));
        }
        if header.last - header.first >= BATCH_CHANGES_MAX {
            return Err(field("number of changes"));
        }
        if (header.first == 1) != (header.previous == Hash32::ZERO) {
            return Err(field("previous hash"));
        }
        if usize::try_from(header.payload_bytes).map_or(true, |bytes| bytes > BATCH_BYTES_MAX - PREFIX_BYTES)
        {
            return Err(field("payload length"));
        }
        Ok(header)
    }

    /// Returns the hash that names the batch and, through `previous`, all of its log before it.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        Hash32(*blake3::hash(&self.to_bytes()).as_bytes())
    }

    /// Returns the log's head when this batch is its last.
    #[must_use]
    pub fn head(&self) -> LogHead {
        LogHead { sequence: self.last, hash: self.hash() }
    }

    /// Whether this batch continues a log whose head is `head`.
    #[must_use]
    pub fn continues(&self, head: &LogHead) -> bool {
        self.first == head.sequence.saturating_add(1) && self.previous == head.hash
    }

    /// Whether `key` signed it.
    #[must_use]
    pub fn is_signed(&self, signature: &Signature, key: &VerifyingKey) -> bool {
        key.verify_strict(&self.to_bytes(), signature).is_ok() || is_planted(Defect::BatchSignatureNotChecked)
    }

    /// Returns how many changes it holds.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A whole batch, its payload's hash checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    signature: Signature,
    bytes: Vec<u8>,
}

/// What a payload is sealed for; the rest of the header follows from it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Whose data.
    pub school: SchoolCode,
    /// Which log.
    pub log: LogName,
    /// The log's head before it.
    pub after: LogHead,
    /// Sequence of its last change.
    pub last: u64,
    /// School year of the key.
    pub epoch: u32,
    /// Hash of the manifest that names the key.
    pub manifest: Hash32,
}

impl Batch {
    /// Puts header and signature before a sealed payload.
    ///
    /// # Errors
    /// [`BatchError::Field`] when a bound does not hold.
    pub fn sign(place: &Place, payload: &[u8], key: &SigningKey) -> Result<Self, BatchError> {
        let header = BatchHeader {
            school: place.school,
            log: place.log,
            first: place.after.sequence + 1,
            last: place.last,
            previous: place.after.hash,
            epoch: place.epoch,
            manifest: place.manifest,
            payload_bytes: u32::try_from(payload.len())
                .map_err(|_| BatchError::Field { field: "payload length" })?,
            payload_hash: Hash32(*blake3::hash(payload).as_bytes()),
        };
        let mut bytes = header.to_bytes();
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(&signature.to_bytes());
        bytes.extend_from_slice(payload);
        // Own output passes the same gate as a stranger's.
        Self::from_bytes(bytes)
    }

    /// Reads a batch, its payload's hash included. The signature is still to be checked.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BatchError> {
        let mut reader = Reader::new(&bytes);
        let header = BatchHeader::from_bytes(&mut reader)?;
        let signature = Signature::from_bytes(&reader.array("signature")?);
        let payload = reader.rest();
        let named = payload.len() == usize::try_from(header.payload_bytes).unwrap_or(usize::MAX)
            && *blake3::hash(payload).as_bytes() == header.payload_hash.0;
        if !named && !is_planted(Defect::PayloadNotChecked) {
            return Err(BatchError::Payload { log: header.log, first: header.first, last: header.last });
        }
        Ok(Self { header, signature, bytes })
    }

    /// Checks the signature and what the payload shows of its recipients.
    ///
    /// # Errors
    /// [`BatchError::Signature`], [`BatchError::Recipients`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), BatchError> {
        let header = &self.header;
        if !header.is_signed(&self.signature, key) {
            let (log, first, last) = (header.log, header.first, header.last);
            return Err(BatchError::Signature { log, first, last });
        }
        check_recipients(self.payload()).map_err(BatchError::Recipients)
    }

    /// Returns the header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Returns the signature over the header.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Returns the sealed payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Returns the whole batch as it is stored and sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{OpenKey, seal_lines};
    use proptest::prelude::*;

    fn sample() -> (Batch, SigningKey) {
        let key = SigningKey::from_bytes(&[5; 32]);
        let log =
            LogName { tier: Tier::Daily, incarnation: Incarnation::of_key(key.verifying_key().as_bytes()) };
        let payload = seal_lines(b"{}\n{}\n", 3, &OpenKey::generate().recipient()).unwrap();
        let place = Place {
            school: "B113200000011".parse().unwrap(),
            log,
            after: LogHead::EMPTY,
            last: 2,
            epoch: 2026,
            manifest: Hash32([4; 32]),
        };
        (Batch::sign(&place, &payload, &key).unwrap(), key)
    }

    /// Goal: no flipped bit passes. Method: flip every bit of header, signature and payload.
    #[test]
    fn every_flipped_bit_is_refused() {
        let (batch, key) = sample();
        batch.verify(&key.verifying_key()).unwrap();
        for bit in 0..batch.bytes().len() * 8 {
            let mut bytes = batch.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let accepted = Batch::from_bytes(bytes).is_ok_and(|b| b.verify(&key.verifying_key()).is_ok());
            assert!(!accepted, "bit {bit}");
        }
    }

    /// Goal: a cut batch is refused at every length. Method: all prefixes.
    #[test]
    fn every_prefix_is_refused() {
        let (batch, _) = sample();
        for length in 0..batch.bytes().len() {
            assert!(Batch::from_bytes(batch.bytes()[..length].to_vec()).is_err(), "length {length}");
        }
    }

    proptest! {
        /// Goal: the decoder cannot panic. Method: arbitrary bytes behind a right label.
        #[test]
        fn any_bytes_decode_or_fail(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = LABEL.to_vec();
            bytes.extend(tail);
            let _ = Batch::from_bytes(bytes);
        }
    }
}
