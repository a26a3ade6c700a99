//! Signed documents: one line of JSON and one line with an Ed25519 signature over exactly those bytes.
//!
//! ```text
//! {"doc":"sonae/manifest/v1", ...}
//! <base64 of 64 bytes>
//! ```
//! `head -1` and `jq` read them. The `doc` label is under the signature, so that no document can stand for one
//! of another kind. Spec: `docs/spec/keys.md#signed-documents`.

use data_encoding::BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::Hash32;
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::planted::{Defect, is_planted};

/// A kind of document.
pub trait Document: Serialize + DeserializeOwned {
    /// Its label, for ever.
    const LABEL: &'static str;
}

/// Why a document is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is longer than the limit or has no two lines.
    #[error("a {label} document is malformed: {what}")]
    Malformed {
        /// Which kind was expected.
        label: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// Its JSON does not fit the kind.
    #[error("a {label} document does not have the expected fields")]
    Fields {
        /// Which kind was expected.
        label: &'static str,
        /// What serde found.
        #[source]
        source: serde_json::Error,
    },
    /// The signature is not by the key that was expected.
    #[error("a {label} document has a bad signature")]
    Signature {
        /// Which kind was expected.
        label: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Labelled<T> {
    doc: String,
    #[serde(flatten)]
    body: T,
}

/// Reads the body of a document without its signature: one that was verified when it was kept, or of which nothing is
/// believed. `None` where there is none of this kind.
#[must_use]
pub fn unverified<T: Document>(text: &str) -> Option<T> {
    serde_json::from_str(text.lines().next()?).ok()
}

/// A document whose signature holds, with its exact text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    text: String,
    body: T,
}

impl<T: Document> Signed<T> {
    /// Signs a body.
    ///
    /// # Errors
    /// [`DocumentError::Malformed`] when it would exceed the limit, [`DocumentError::Fields`] when it has no
    /// JSON form.
    pub fn sign(body: T, key: &SigningKey) -> Result<Self, DocumentError> {
        let labelled = Labelled { doc: T::LABEL.to_owned(), body };
        let line = serde_json::to_string(&labelled)
            .map_err(|source| DocumentError::Fields { label: T::LABEL, source })?;
        let signature = BASE64.encode(&key.sign(line.as_bytes()).to_bytes());
        let text = format!("{line}\n{signature}\n");
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::Malformed { label: T::LABEL, what: "longer than 256 KiB" });
        }
        Ok(Self { text, body: labelled.body })
    }

    /// Reads a text and checks that `key` signed it.
    ///
    /// # Errors
    /// [`DocumentError`], the signature before the fields, so that nothing unsigned is interpreted.
    pub fn verify(text: &str, key: &VerifyingKey) -> Result<Self, DocumentError> {
        let (line, signature) = split::<T>(text)?;
        let signed = key.verify_strict(line.as_bytes(), &signature).is_ok();
        if !signed && !is_planted(Defect::DocumentSignatureNotChecked) {
            return Err(DocumentError::Signature { label: T::LABEL });
        }
        Ok(Self { text: text.to_owned(), body: body::<T>(line)? })
    }

    /// Reads a text whose signing key stands in its own body, as a certificate request does, and checks it.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_with(
        text: &str,
        key_of: impl FnOnce(&T) -> Option<VerifyingKey>,
    ) -> Result<Self, DocumentError> {
        let (line, _) = split::<T>(text)?;
        let key = key_of(&body::<T>(line)?).ok_or(DocumentError::Signature { label: T::LABEL })?;
        Self::verify(text, &key)
    }

    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    /// Returns the exact text, as it is stored and sent.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the BLAKE3 hash of the whole text.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        Hash32(*blake3::hash(self.text.as_bytes()).as_bytes())
    }
}

fn split<T: Document>(text: &str) -> Result<(&str, Signature), DocumentError> {
    let malformed = |what| DocumentError::Malformed { label: T::LABEL, what };
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(malformed("longer than 256 KiB"));
    }
    let (line, rest) = text.split_once('\n').ok_or_else(|| malformed("no signature line"))?;
    let signature = rest.strip_suffix('\n').ok_or_else(|| malformed("no line end"))?;
    let bytes = BASE64.decode(signature.as_bytes()).map_err(|_| malformed("signature is not base64"))?;
    let signature = Signature::from_slice(&bytes).map_err(|_| malformed("signature is not 64 bytes"))?;
    Ok((line, signature))
}

fn body<T: Document>(line: &str) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Label {
        doc: String,
    }
    let fields = |source| DocumentError::Fields { label: T::LABEL, source };
    // The label first: a document of another kind is called that, not one with missing fields.
    let label: Label = serde_json::from_str(line).map_err(fields)?;
    if label.doc != T::LABEL {
        return Err(DocumentError::Malformed { label: T::LABEL, what: "it is a document of another kind" });
    }
    let labelled: Labelled<T> = serde_json::from_str(line).map_err(fields)?;
    Ok(labelled.body)
}

/// Reads a 32-byte Ed25519 public key from hexadecimal text.
pub mod public_key_hex {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::VerifyingKey;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the key.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(key: &VerifyingKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(key.as_bytes()))
    }

    /// Reads the key.
    ///
    /// # Errors
    /// When the text is not the key of a point on the curve.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VerifyingKey, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("not an Ed25519 public key in hexadecimal"))
    }

    /// Reads the key from text.
    #[must_use]
    pub fn parse(text: &str) -> Option<VerifyingKey> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        VerifyingKey::from_bytes(&<[u8; 32]>::try_from(bytes).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }
    impl Document for Note {
        const LABEL: &'static str = "test/note/v1";
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Other {
        text: String,
    }
    impl Document for Other {
        const LABEL: &'static str = "test/other/v1";
    }

    /// Goal: what was signed verifies, anything else does not. Method: flip each byte of the text.
    #[test]
    fn every_flipped_byte_is_refused() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let signed = Signed::sign(Note { text: "見本".into() }, &key).unwrap();
        assert_eq!(Signed::<Note>::verify(signed.text(), &key.verifying_key()).unwrap(), signed);
        let bytes = signed.text().as_bytes();
        for position in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[position] ^= 1;
            if let Ok(text) = String::from_utf8(damaged) {
                assert!(Signed::<Note>::verify(&text, &key.verifying_key()).is_err(), "byte {position}");
            }
        }
    }

    /// Goal: documents of one kind never pass as another. Method: equal fields, another label.
    #[test]
    fn kinds_are_separated() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let signed = Signed::sign(Note { text: "x".into() }, &key).unwrap();
        let result = Signed::<Other>::verify(signed.text(), &key.verifying_key());
        assert!(matches!(result, Err(DocumentError::Malformed { .. })));
    }
}
