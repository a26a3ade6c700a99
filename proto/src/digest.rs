//! The state digest: a keyed multiset hash over canonical (collection, record, field, heads).
//!
//! Each field's heads are hashed with BLAKE3 under the school's digest key; the digest of a tier is the sum of
//! those hashes modulo 2^256, so that one changed field costs two hashes. The key is secret to the replicas,
//! which makes the sum a sound multiset hash (Clarke et al., "Incremental Multiset Hash Functions", 2003).
//!
//! **Invariant**: equal vectors, equal keys and equal [`MERGE_VERSION`]s give equal digests.
//! Left out: mirrored import values and early replacements, which are derived.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::ZeroizeOnDrop;

use crate::record::{FieldState, RecordState};

/// Version of the merge rules. Digests of different versions are never compared.
pub const MERGE_VERSION: u32 = 1;

/// Characters of a tombstone's id: 128 bits. Two names meet by chance once in 2^64 records.
const ERASURE_NAME_CHARS: usize = 32;

/// The school's digest key, and that of the names of [what was erased](crate::erasure), which is derived of the same
/// secret.
#[derive(Clone, ZeroizeOnDrop)]
pub struct DigestKey {
    digest: [u8; 32],
    erasure: [u8; 32],
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

impl DigestKey {
    /// Derives the key from the school's digest secret, an age secret key in text form.
    #[must_use]
    pub fn from_secret(secret: &str) -> Self {
        Self {
            digest: blake3::derive_key("sonae 2026 state digest", secret.as_bytes()),
            erasure: blake3::derive_key("sonae 2026 erasure", secret.as_bytes()),
        }
    }

    /// Hashes what a tombstone names, in hexadecimal.
    pub(crate) fn erasure_name(&self, collection: &str, place: u8, text: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.erasure);
        for part in [collection.as_bytes(), &[place], text.as_bytes()] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
        HEXLOWER.encode(hasher.finalize().as_bytes()).chars().take(ERASURE_NAME_CHARS).collect()
    }

    /// Adds up the fields of a record.
    #[must_use]
    pub fn record(&self, collection: &str, record: &str, state: &RecordState) -> Digest {
        let mut sum = Digest::default();
        for (name, field) in &state.fields {
            sum.add(&self.field(collection, record, name, Some(field)));
        }
        sum
    }

    /// Hashes one field's heads. A field without heads counts as absent.
    #[must_use]
    pub fn field(&self, collection: &str, record: &str, field: &str, state: Option<&FieldState>) -> Digest {
        let Some(state) = state.filter(|state| !state.heads.is_empty()) else {
            return Digest::default();
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.digest);
        let mut part = |bytes: &[u8]| {
            hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(bytes);
        };
        part(&MERGE_VERSION.to_be_bytes());
        for name in [collection, record, field] {
            part(name.as_bytes());
        }
        for head in &state.heads {
            part(head.id.to_string().as_bytes());
            part(&head.stamp.ms.to_be_bytes());
            part(&head.stamp.counter.to_be_bytes());
            part(head.value.to_string().as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// A digest: a number modulo 2^256, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Adds an element.
    pub fn add(&mut self, element: &Self) {
        let mut carry = 0_u16;
        for (sum, byte) in self.0.iter_mut().zip(element.0) {
            let total = u16::from(*sum) + u16::from(byte) + carry;
            let [low, high] = total.to_le_bytes();
            *sum = low;
            carry = u16::from(high);
        }
    }

    /// Takes an element out.
    pub fn remove(&mut self, element: &Self) {
        let mut borrow = false;
        for (rest, byte) in self.0.iter_mut().zip(element.0) {
            let (first, under) = rest.overflowing_sub(byte);
            let (second, again) = first.overflowing_sub(u8::from(borrow));
            *rest = second;
            borrow = under || again;
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hash = crate::ids::Hash32::deserialize(deserializer)?;
        Ok(Self(hash.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: adding and removing are inverse and commute. Method: arbitrary elements.
        #[test]
        fn sums_are_a_group(a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), c in any::<[u8; 32]>()) {
            let (a, b, c) = (Digest(a), Digest(b), Digest(c));
            let mut left = a;
            left.add(&b);
            left.add(&c);
            let mut right = c;
            right.add(&a);
            right.add(&b);
            prop_assert_eq!(left, right);
            left.remove(&c);
            left.remove(&b);
            prop_assert_eq!(left, a);
        }
    }

    /// Goal: the key matters, so that the cloud cannot test guesses. Method: one field, two keys.
    #[test]
    fn keys_separate_digests() {
        let state: FieldState =
            serde_json::from_str(r#"{"h":[{"i":"01010101010101010101010101010101:1","t":[1,0],"v":"x"}]}"#)
                .unwrap();
        let one = DigestKey::from_secret("one").field("c", "r", "f", Some(&state));
        assert_ne!(one, DigestKey::from_secret("two").field("c", "r", "f", Some(&state)));
        assert_ne!(one, DigestKey::from_secret("one").field("c", "r", "g", Some(&state)));
        assert_eq!(Digest::default(), DigestKey::from_secret("one").field("c", "r", "f", None));
    }
}
