//! Bundles that a courier carries: the sealed batches of one school with what is needed to verify and open
//! them, in one file. Spec: `docs/spec/courier.md`.
//!
//! ```text
//! "SNC1" | record*          record = kind u8 | length u32 | body | first 8 bytes of BLAKE3(kind, length, body)
//! ```
//! **Invariant**: a bundle holds ciphertext and public documents only.
//! **Invariant**: it is written and read as a stream; a reader holds one record and what it was fed.
//! **Invariant**: the check finds rot, not forgery: every record is verified like what comes from a stranger.
//!
//! Contract of [`Decoder`]: after each `feed`, drain `poll` until `None`; at the end of the file call `finish`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bytes::Reader;
use crate::identity::IdentityText;
use crate::ids::{Incarnation, SchoolCode};
use crate::limits::FRAME_BYTES_MAX;
use crate::object::RECORD_OVERHEAD_BYTES;
use crate::planted::{Defect, is_planted};
use crate::vector::{Heads, Sequences};
use crate::wire::KeyDocuments;

/// First bytes of a bundle.
pub const MAGIC: [u8; 4] = *b"SNC1";

/// Names the format, in the opening.
pub const FORMAT: &str = "sonae/courier/v1";

/// How the name of a bundle's file ends.
pub const EXTENSION: &str = "sonae-courier";

/// The first record: whose data, from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// [`FORMAT`].
    pub format: String,
    /// Whose data.
    pub school: SchoolCode,
    /// When it was made, by the clock of who made it, milliseconds since 1970 UTC.
    pub made_ms: u64,
    /// Name and version of the software, for people.
    pub software: String,
    /// Who made it.
    pub from: Origin,
}

/// Who made a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A replica: what it would say in a hello.
    Replica(Box<ReplicaOpening>),
    /// A node of the cloud, in answer to a replica's bundle.
    Cloud(CloudOpening),
    /// The board: key documents by hand, such as a revocation. They prove themselves.
    Board,
}

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaOpening {
    /// The present incarnation.
    pub identity: IdentityText,
    /// Its loss counter; receipts in the answer echo it.
    pub loss_counter: u64,
    /// Heads of its own logs that have a receipt.
    pub receipted: Heads,
    /// Sequences of all logs that it holds: the answer brings what follows.
    pub have: Sequences,
    /// Version of its manifest.
    pub manifest_version: u64,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudOpening {
    /// The incarnation that it answers.
    pub to: Incarnation,
    /// Heads of all logs of the school at the node.
    pub heads: Heads,
    /// Whether enough sites were read for the heads to be complete.
    pub complete: bool,
}

/// The last record: what the bundle had, so that a missing end is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct End {
    /// Records before this one.
    pub records: u64,
    /// Batches among them.
    pub batches: u64,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Kind 1: bytes of a [`crate::batch::Batch`].
    Batch(Vec<u8>),
    /// Kind 2.
    Identity(Box<IdentityText>),
    /// Kind 3.
    Keys(Box<KeyDocuments>),
    /// Kind 4: bytes of a [`crate::receipt::Receipt`].
    Receipt(Vec<u8>),
    /// Kind 5.
    Opening(Box<Opening>),
    /// Kind 6.
    End(End),
    /// A kind of a later version, to be passed over.
    Unknown(u8),
}

/// Why a file is not a bundle, or not a whole one. What was polled before the error stands.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The first bytes are those of another file.
    #[error("this is not a bundle of batches; choose the file whose name ends in .{EXTENSION}")]
    Magic,
    /// The opening names a format that this version does not know.
    #[error("the bundle is of format '{format}'; use a newer version of this program")]
    Format {
        /// The format.
        format: String,
    },
    /// A record does not match its check, has no meaning, or is over the limit.
    #[error("the bundle is damaged at byte {offset}; copy the file again")]
    Damaged {
        /// Where the record begins.
        offset: u64,
    },
    /// The file ends inside a record, or before the last one.
    #[error("the bundle ends at byte {offset} and is not whole; copy the file again")]
    Cut {
        /// Up to where it is whole.
        offset: u64,
    },
    /// A record stands where it must not: no opening first, two openings, something behind the end.
    #[error("the bundle has a record out of place at byte {offset}; copy the file again")]
    Order {
        /// Where the record begins.
        offset: u64,
    },
    /// The end does not count what came: records are missing.
    #[error("the bundle lacks records: {said} were written, {found} are here; copy the file again")]
    Count {
        /// Records that the end names.
        said: u64,
        /// Records that were read.
        found: u64,
    },
}

/// A record cannot be written: it is over [`FRAME_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
}

/// Writes a bundle, record by record. Each call returns bytes to append to the file.
#[derive(Debug, Default)]
pub struct Encoder {
    end: End,
}

impl Encoder {
    /// Begins with the opening.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn start(opening: &Opening) -> Result<(Self, Vec<u8>), TooLarge> {
        let mut encoder = Self::default();
        let record = encoder.record(&Record::Opening(Box::new(opening.clone())))?;
        Ok((encoder, [MAGIC.as_slice(), &record].concat()))
    }

    /// Returns a record's bytes and counts it.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn record(&mut self, record: &Record) -> Result<Vec<u8>, TooLarge> {
        fn json<T: Serialize>(value: &T) -> Vec<u8> {
            // The documents have text keys and no maps with others, so they always have a JSON form.
            serde_json::to_vec(value).unwrap_or_default()
        }
        let json_body;
        let (kind, body): (u8, &[u8]) = match record {
            Record::Batch(bytes) => (1, bytes),
            Record::Receipt(bytes) => (4, bytes),
            Record::Unknown(kind) => (*kind, &[]),
            Record::Identity(identity) => (2, {
                json_body = json(identity);
                &json_body
            }),
            Record::Keys(keys) => (3, {
                json_body = json(keys);
                &json_body
            }),
            Record::Opening(opening) => (5, {
                json_body = json(opening);
                &json_body
            }),
            Record::End(end) => (6, {
                json_body = json(end);
                &json_body
            }),
        };
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
        let length = length.ok_or(TooLarge { bytes: body.len() })?;
        let mut bytes = Vec::with_capacity(body.len() + RECORD_OVERHEAD_BYTES);
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&check(&bytes));
        self.end.records += 1;
        self.end.batches += u64::from(matches!(record, Record::Batch(_)));
        Ok(bytes)
    }

    /// Returns the last record and what it counts.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, End) {
        let end = self.end;
        (self.record(&Record::End(end)).unwrap_or_default(), end)
    }
}

fn check(record: &[u8]) -> [u8; 8] {
    blake3::hash(record).as_bytes().first_chunk::<8>().copied().unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Magic,
    Opening,
    Records,
    Ended,
}

/// Reads a bundle from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were read.
    read: usize,
    /// Offset of the next record in the file.
    offset: u64,
    stage: Stage,
    found: End,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: Vec::new(), read: 0, offset: 0, stage: Stage::Magic, found: End::default() }
    }
}

impl Decoder {
    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next record; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`CourierError`]; nothing more can be read then.
    pub fn poll(&mut self) -> Result<Option<Record>, CourierError> {
        if self.stage == Stage::Magic {
            let Some(magic) = self.rest().first_chunk::<4>() else { return Ok(None) };
            if *magic != MAGIC {
                return Err(CourierError::Magic);
            }
            self.advance(MAGIC.len());
            self.stage = Stage::Opening;
        }
        let offset = self.offset;
        let damaged = || CourierError::Damaged { offset };
        let rest = self.rest();
        if self.stage == Stage::Ended {
            return if rest.is_empty() { Ok(None) } else { Err(CourierError::Order { offset }) };
        }
        let mut reader = Reader::new(rest);
        let (Ok(kind), Ok(length)) = (reader.u8("kind"), reader.u32("length")) else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(damaged)?;
        let Ok(body) = reader.take(length, "body") else { return Ok(None) };
        let Ok(sum) = reader.array::<8>("check") else { return Ok(None) };
        if rest.get(..5 + length).map(check) != Some(sum) {
            return Err(damaged());
        }
        let record = meaning(kind, body).ok_or_else(damaged)?;
        self.place(&record)?;
        self.advance(length + RECORD_OVERHEAD_BYTES);
        Ok(Some(record))
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.read..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        self.read += bytes;
        self.offset += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// Checks that a record may stand here, and counts it.
    fn place(&mut self, record: &Record) -> Result<(), CourierError> {
        let offset = self.offset;
        match (self.stage, record) {
            (Stage::Opening, Record::Opening(opening)) => {
                if opening.format != FORMAT {
                    return Err(CourierError::Format { format: opening.format.chars().take(64).collect() });
                }
                self.stage = Stage::Records;
            }
            (Stage::Opening, _) | (_, Record::Opening(_)) => return Err(CourierError::Order { offset }),
            (_, Record::End(end)) => {
                if *end != self.found {
                    return Err(CourierError::Count { said: end.records, found: self.found.records });
                }
                self.stage = Stage::Ended;
                return Ok(());
            }
            (_, _) => {}
        }
        self.found.records += 1;
        self.found.batches += u64::from(matches!(record, Record::Batch(_)));
        Ok(())
    }

    /// Ends: the file has no more bytes. Returns what it had.
    ///
    /// # Errors
    /// [`CourierError::Cut`] unless the last record was the end.
    pub fn finish(&self) -> Result<End, CourierError> {
        match self.stage {
            Stage::Ended => Ok(self.found),
            Stage::Records if is_planted(Defect::CutBundleIsWhole) => Ok(self.found),
            Stage::Magic | Stage::Opening | Stage::Records => Err(CourierError::Cut { offset: self.offset }),
        }
    }
}

fn meaning(kind: u8, body: &[u8]) -> Option<Record> {
    fn json<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
        serde_json::from_slice(body).ok()
    }
    Some(match kind {
        1 => Record::Batch(body.to_vec()),
        2 => Record::Identity(json(body)?),
        3 => Record::Keys(json(body)?),
        4 => Record::Receipt(body.to_vec()),
        5 => Record::Opening(json(body)?),
        6 => Record::End(json(body)?),
        other => Record::Unknown(other),
    })
}

#[cfg(test)]
#[path = "courier/tests.rs"]
mod tests;
