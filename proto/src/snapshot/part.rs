//! Parts of a snapshot: lines of records, cut where their keys say, sealed like the lines of a batch.
//!
//! Lines come in the order of (collection, record). Where a part ends depends on keys and sizes alone, so what has
//! not changed since the last snapshot gives the same lines again, and its sealed part need not be sent again.

use zeroize::Zeroizing;

use super::line::Line;
use crate::limits::{BATCH_RAW_BYTES_MAX, NAME_CHARS_MAX, RECORD_ID_CHARS_MAX, SNAPSHOT_PART_BYTES_MIN};
use crate::record::RecordState;
use crate::seal::{OpenKey, SealError, open_lines, seal_lines};

/// zstd level of parts. Each is sealed once, in the background, and sent and fetched over the worst lines.
const LEVEL: i32 = 19;

/// A part that is long enough ends behind a record whose key's hash has these bits clear: behind one in 256,
/// so that nearly every part finds one before it is full.
const BOUNDARY_MASK: u64 = 255;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub record: String,
    /// Its fields, each with all heads.
    pub state: RecordState,
}

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its line has no meaning.
    #[error("a line of a snapshot is no record")]
    Line(#[source] serde_json::Error),
    /// It is longer than a part.
    #[error("a record of {bytes} bytes is longer than a part of a snapshot")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// It refers to a change that it does not name.
    #[error("a line of a snapshot refers to a change that it does not name")]
    Reference,
    /// A name is over its limit.
    #[error("a line of a snapshot names a collection or record over its limit")]
    Name,
    /// The part cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Record {
    /// Writes the line, with its newline.
    ///
    /// # Errors
    /// [`RecordError::Line`], [`RecordError::TooLong`].
    pub fn to_line(&self) -> Result<Vec<u8>, RecordError> {
        let mut line = serde_json::to_vec(&Line::of(self)).map_err(RecordError::Line)?;
        line.push(b'\n');
        if line.len() > BATCH_RAW_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: line.len() });
        }
        Ok(line)
    }

    fn from_line(line: &[u8]) -> Result<Self, RecordError> {
        let line: Line = serde_json::from_slice(line).map_err(RecordError::Line)?;
        let record = line.record().ok_or(RecordError::Reference)?;
        let fits = record.collection.len() <= NAME_CHARS_MAX
            && !record.collection.contains('\0')
            && record.record.chars().count() <= RECORD_ID_CHARS_MAX;
        if fits { Ok(record) } else { Err(RecordError::Name) }
    }

    fn ends_part(&self) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.collection.as_bytes()).update(&[0]).update(self.record.as_bytes());
        let first = hasher.finalize().as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        u64::from_be_bytes(first) & BOUNDARY_MASK == 0
    }
}

/// Cuts lines into parts.
#[derive(Debug, Default)]
pub struct PartCutter {
    lines: Zeroizing<Vec<u8>>,
    ends: bool,
}

impl PartCutter {
    /// Takes the next record. Returns the lines of the part before it when that ends here.
    ///
    /// # Errors
    /// [`RecordError`]; the record is not taken then.
    pub fn push(&mut self, record: &Record) -> Result<Option<Zeroizing<Vec<u8>>>, RecordError> {
        let line = Zeroizing::new(record.to_line()?);
        let is_full = self.ends || self.lines.len() + line.len() > BATCH_RAW_BYTES_MAX;
        let part = if is_full { self.finish() } else { None };
        self.lines.extend_from_slice(&line);
        self.ends = self.lines.len() >= SNAPSHOT_PART_BYTES_MIN && record.ends_part();
        Ok(part)
    }

    /// Returns the lines of the last part, if there are any.
    pub fn finish(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.ends = false;
        (!self.lines.is_empty()).then(|| std::mem::take(&mut self.lines))
    }
}

/// Seals the lines of a part.
///
/// # Errors
/// [`SealError`].
pub fn seal_part(lines: &[u8], to: &str) -> Result<Vec<u8>, SealError> {
    seal_lines(lines, LEVEL, to)
}

/// Opens a part to its records.
///
/// # Errors
/// [`RecordError`].
pub fn open_part(sealed: &[u8], key: &OpenKey) -> Result<Vec<Record>, RecordError> {
    read_part(&open_lines(sealed, key)?)
}

/// Reads the lines of an opened part.
///
/// # Errors
/// [`RecordError`].
pub fn read_part(lines: &[u8]) -> Result<Vec<Record>, RecordError> {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Record::from_line).collect()
}
