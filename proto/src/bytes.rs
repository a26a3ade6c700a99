//! A cursor over untrusted bytes. Owns bounds checking for all binary formats; leaves meaning to its callers.
//!
//! **Invariant**: no read past the end, no panic, no allocation larger than the input.

/// The input ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the input ends inside {field}")]
pub struct Short {
    /// The field that could not be read.
    pub field: &'static str,
}

/// Reads big-endian fields from a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Returns what has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads `count` bytes.
    ///
    /// # Errors
    /// [`Short`] when fewer remain.
    pub fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Short { field })?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads `N` bytes into an array.
    ///
    /// # Errors
    /// [`Short`] when fewer remain.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Short> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Short { field })?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// [`Short`] when none remains.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, Short> {
        let [byte] = self.array::<1>(field)?;
        Ok(byte)
    }

    /// Reads a big-endian `u32`.
    ///
    /// # Errors
    /// [`Short`] when fewer than four bytes remain.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, Short> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Reads a big-endian `u64`.
    ///
    /// # Errors
    /// [`Short`] when fewer than eight bytes remain.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, Short> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }
}
