//! Sealing: change lines to one standard age file and back. JSON Lines, zstd, a skippable frame that pads by
//! the Padmé rule, age to the one key of (school, tier, epoch).
//!
//! By hand: `age -d -i KEY payload | zstd -d | jq .` reads it. Spec: `docs/spec/batch.md#payload`.
//! Sealing the same lines twice gives different bytes (age takes its own entropy), so sealed bytes are kept
//! durably before their first byte leaves and are sent again unchanged.

use std::io::{Read, Write};
use std::iter;

use age::secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::limits::{BATCH_BYTES_MAX, BATCH_RAW_BYTES_MAX, PAYLOAD_STANZAS_MAX};
use crate::padme::padded_length;

/// First four bytes of the zstd skippable frame that pads, little-endian 0x184D2A50.
const SKIPPABLE_MAGIC: [u8; 4] = [0x50, 0x2A, 0x4D, 0x18];

/// Bytes of a skippable frame before its content.
const SKIPPABLE_HEADER_BYTES: usize = 8;

/// zstd level for what leaves at once. Higher levels gain under 3 % on so few lines.
pub const LEVEL_LIVE: i32 = 3;

/// zstd level for backlog, where a batch holds hundreds of lines.
pub const LEVEL_BACKLOG: i32 = 9;

/// Why lines cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The recipient or the identity is not an age X25519 key.
    #[error("'{text}' is not an age X25519 key")]
    Key {
        /// What was read; never a secret.
        text: String,
    },
    /// Compression failed.
    #[error("compressing change lines failed")]
    Compress(#[source] std::io::Error),
    /// Encryption failed.
    #[error("encrypting a payload failed")]
    Encrypt(#[source] std::io::Error),
    /// The payload is not for this key, or was touched.
    #[error("a payload does not open with the key of its epoch; it is damaged or sealed to another key")]
    Open,
    /// What was sealed is not a bounded run of zstd frames.
    #[error("an opened payload is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A bound does not hold.
    #[error("a payload of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
}

/// An epoch key's secret half.
#[derive(Clone)]
pub struct OpenKey {
    identity: age::x25519::Identity,
}

impl std::fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenKey({})", self.recipient())
    }
}

impl OpenKey {
    /// Makes a new key. Age takes its own entropy.
    #[must_use]
    pub fn generate() -> Self {
        Self { identity: age::x25519::Identity::generate() }
    }

    /// Reads `AGE-SECRET-KEY-1…`.
    ///
    /// # Errors
    /// [`SealError::Key`], without repeating the text.
    pub fn parse(secret: &str) -> Result<Self, SealError> {
        let identity = secret.trim().parse().map_err(|_| SealError::Key { text: "(a secret key)".into() })?;
        Ok(Self { identity })
    }

    /// Returns the recipient, `age1…`.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }

    /// Returns the secret text.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<String> {
        Zeroizing::new(self.identity.to_string().expose_secret().to_owned())
    }
}

fn recipient(text: &str) -> Result<age::x25519::Recipient, SealError> {
    text.parse().map_err(|_| SealError::Key { text: text.chars().take(80).collect() })
}

/// Encrypts `content` to recipients as one binary age file.
///
/// # Errors
/// [`SealError::Key`], [`SealError::Encrypt`].
pub fn encrypt<'a>(
    content: &[u8],
    recipients: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<u8>, SealError> {
    let recipients = recipients.into_iter().map(recipient).collect::<Result<Vec<_>, _>>()?;
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|r| {
        let recipient: &dyn age::Recipient = r;
        recipient
    }))
    .map_err(|error| SealError::Encrypt(std::io::Error::other(error)))?;
    let mut sealed = Vec::with_capacity(content.len() + 512);
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(SealError::Encrypt)?;
    writer.write_all(content).map_err(SealError::Encrypt)?;
    writer.finish().map_err(SealError::Encrypt)?;
    Ok(sealed)
}

/// Decrypts a binary age file of at most [`BATCH_BYTES_MAX`] bytes.
///
/// # Errors
/// [`SealError::Open`], [`SealError::TooLarge`].
pub fn decrypt(sealed: &[u8], key: &OpenKey) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if sealed.len() > BATCH_BYTES_MAX {
        return Err(SealError::TooLarge { bytes: sealed.len(), limit: BATCH_BYTES_MAX });
    }
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| SealError::Open)?;
    let identity: &dyn age::Identity = &key.identity;
    let mut reader = decryptor.decrypt(iter::once(identity)).map_err(|_| SealError::Open)?;
    let mut content = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut content).map_err(|_| SealError::Open)?;
    Ok(content)
}

/// Seals change lines, each with its newline, to one recipient.
///
/// # Errors
/// [`SealError`].
pub fn seal_lines(lines: &[u8], level: i32, to: &str) -> Result<Vec<u8>, SealError> {
    if lines.len() > BATCH_RAW_BYTES_MAX {
        return Err(SealError::TooLarge { bytes: lines.len(), limit: BATCH_RAW_BYTES_MAX });
    }
    let mut content = Zeroizing::new(zstd::bulk::compress(lines, level).map_err(SealError::Compress)?);
    pad(&mut content);
    encrypt(&content, [to])
}

fn pad(content: &mut Vec<u8>) {
    let wanted = |bytes: usize| {
        let padded = padded_length(u64::try_from(bytes).unwrap_or(u64::MAX));
        usize::try_from(padded).unwrap_or(bytes)
    };
    let exact = wanted(content.len());
    if exact == content.len() {
        return;
    }
    // A skippable frame has at least its header, so the target is that of the content with one.
    let target = wanted(content.len() + SKIPPABLE_HEADER_BYTES);
    let filler = target.saturating_sub(content.len() + SKIPPABLE_HEADER_BYTES);
    content.extend_from_slice(&SKIPPABLE_MAGIC);
    content.extend_from_slice(&u32::try_from(filler).unwrap_or(0).to_le_bytes());
    content.resize(content.len() + filler, 0);
}

/// Opens a payload to its change lines.
///
/// # Errors
/// [`SealError`]; nothing is decompressed past [`BATCH_RAW_BYTES_MAX`].
pub fn open_lines(payload: &[u8], key: &OpenKey) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let content = decrypt(payload, key)?;
    let decoder = zstd::stream::read::Decoder::with_buffer(content.as_slice())
        .map_err(|_| SealError::Malformed { what: "not zstd" })?;
    let mut lines = Zeroizing::new(Vec::new());
    let limit = u64::try_from(BATCH_RAW_BYTES_MAX).unwrap_or(u64::MAX);
    decoder
        .take(limit + 1)
        .read_to_end(&mut lines)
        .map_err(|_| SealError::Malformed { what: "not a whole run of zstd frames" })?;
    if lines.len() > BATCH_RAW_BYTES_MAX {
        return Err(SealError::TooLarge { bytes: lines.len(), limit: BATCH_RAW_BYTES_MAX });
    }
    Ok(lines)
}

/// What anybody can see of who can open a payload, without a key.
///
/// # Errors
/// [`SealError::Malformed`] unless the age header names exactly one X25519 recipient. The age library adds one
/// stanza whose type ends in `-grease`; those open nothing and are allowed.
pub fn check_recipients(payload: &[u8]) -> Result<(), SealError> {
    let malformed = |what| SealError::Malformed { what };
    let mut lines = payload.split(|byte| *byte == b'\n');
    if lines.next() != Some(b"age-encryption.org/v1") {
        return Err(malformed("not an age file"));
    }
    let (mut recipients, mut stanzas) = (0_usize, 0_usize);
    for line in lines.take(64) {
        if line.starts_with(b"---") {
            return if recipients == 1 { Ok(()) } else { Err(malformed("not exactly one recipient")) };
        }
        let Some(arguments) = line.strip_prefix(b"-> ") else { continue };
        stanzas += 1;
        let kind = arguments.split(|byte| *byte == b' ').next().unwrap_or_default();
        if kind == b"X25519" {
            recipients += 1;
        } else if !kind.ends_with(b"-grease") {
            return Err(malformed("a recipient that no manifest allows"));
        }
        if stanzas > PAYLOAD_STANZAS_MAX {
            return Err(malformed("too many recipients"));
        }
    }
    Err(malformed("an age header without end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{{\"n\":{n},\"x\":\"{}\"}}\n", n * 7919).into_bytes()).collect()
    }

    /// Goal: lines come back, and only with the key. Method: several sizes, another key, a flipped byte.
    #[test]
    fn payloads_open_with_their_key_only() {
        let (key, other) = (OpenKey::generate(), OpenKey::generate());
        for count in [1, 2, 10, 1_000] {
            let payload = seal_lines(&lines(count), LEVEL_LIVE, &key.recipient()).unwrap();
            check_recipients(&payload).unwrap();
            assert_eq!(*open_lines(&payload, &key).unwrap(), lines(count));
            assert!(matches!(open_lines(&payload, &other), Err(SealError::Open)));
            let mut flipped = payload.clone();
            *flipped.last_mut().unwrap() ^= 1;
            assert!(open_lines(&flipped, &key).is_err());
        }
    }

    /// Goal: lengths are Padmé lengths. Method: decrypt and measure for many sizes.
    #[test]
    fn content_is_padded() {
        let key = OpenKey::generate();
        for count in 1..60 {
            let payload = seal_lines(&lines(count), LEVEL_LIVE, &key.recipient()).unwrap();
            let bytes = decrypt(&payload, &key).unwrap().len() as u64;
            assert_eq!(padded_length(bytes), bytes);
        }
    }

    /// Goal: a second recipient cannot be slipped in. Method: seal to two and look without a key.
    #[test]
    fn a_second_recipient_is_seen() {
        let (one, two) = (OpenKey::generate().recipient(), OpenKey::generate().recipient());
        let payload = encrypt(b"x", [one.as_str(), two.as_str()]).unwrap();
        assert!(check_recipients(&payload).is_err());
        assert!(check_recipients(b"age-encryption.org/v1\n-> ssh-ed25519 x y\n--- m\n").is_err());
        assert!(check_recipients(b"").is_err());
    }

    /// Goal: a bomb is not expanded. Method: compress far more than the bound and open it.
    #[test]
    fn expansion_is_bounded() {
        let key = OpenKey::generate();
        let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 3).unwrap();
        let payload = encrypt(&bomb, [key.recipient().as_str()]).unwrap();
        assert!(matches!(open_lines(&payload, &key), Err(SealError::TooLarge { .. })));
    }
}
