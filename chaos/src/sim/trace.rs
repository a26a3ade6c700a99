//! The trace of a run: everything that happens, in order, as lines of text and the bytes of messages, hashed.
//!
//! **Invariant**: nothing that differs between two runs of one seed enters. That includes payloads, because sealing
//! is the deterministic double of [`super::seal`].

use std::fmt;

/// The trace.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    /// Lines, when they are to be printed.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn new(keep_lines: bool) -> Self {
        Self { hasher: blake3::Hasher::new(), lines: keep_lines.then(Vec::new) }
    }

    /// Notes something that happened at a time.
    pub fn note(&mut self, now_ms: u64, what: fmt::Arguments<'_>) {
        let line = format!("{now_ms:>9} {what}");
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// Notes the bytes of a message.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The digest of everything, in hexadecimal, and the lines if they were kept.
    pub fn finish(self) -> (String, Vec<String>) {
        (self.hasher.finalize().to_hex().to_string(), self.lines.unwrap_or_default())
    }
}
