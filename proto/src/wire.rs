//! Frames of the wire: `length u32 | type u8 | body`, the same over QUIC and TCP. Control bodies are JSON, bulk
//! bodies are the bytes of [`crate::batch`] and [`crate::receipt`]. Spec: `docs/spec/wire.md`.

mod snapshots;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bytes::{Reader, Short};
use crate::ended::EndedHashes;
use crate::identity::IdentityText;
use crate::ids::{LogName, SchoolCode};
use crate::limits::FRAME_BYTES_MAX;
use crate::manifest::WrappedKey;
use crate::vector::{Heads, Sequences};

pub use snapshots::{FetchSnapshot, SnapshotName, SnapshotOffer, SnapshotPart, SnapshotWants};

/// Version of this protocol, in the hello.
pub const PROTOCOL: u32 = 1;

/// The protocol's name in TLS (ALPN).
pub const ALPN: &[u8] = b"sonae/1";

/// The name of the protocol between replicas on one LAN. Spec: `docs/spec/neighbours.md`.
pub const ALPN_NEIGHBOURS: &[u8] = b"sonae-lan/1";

/// Bytes before a body: length and type.
pub const FRAME_HEADER_BYTES: usize = 5;

/// First message of a connection, from the replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Whose data.
    pub school: SchoolCode,
    /// Who speaks.
    pub identity: IdentityText,
    /// The replica's loss counter.
    pub loss_counter: u64,
    /// Heads of its own logs that have a receipt.
    pub receipted: Heads,
    /// Sequences of all logs that it holds, but for those of which `ended` speaks.
    pub have: Sequences,
    /// Version of its manifest.
    pub manifest_version: u64,
    /// 16 random bytes in hexadecimal, echoed.
    pub nonce: String,
    /// Name and version of the software, for the log.
    pub software: String,
    /// Of each device a hash of what is held of its ended incarnations. Absent from an older version.
    #[serde(default, skip_serializing_if = "EndedHashes::is_empty")]
    pub ended: EndedHashes,
}

/// Answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The hello's nonce.
    pub nonce: String,
    /// The cloud's time, milliseconds since 1970 UTC.
    pub time_ms: u64,
    /// Heads of all logs of the school.
    pub heads: Heads,
    /// Whether enough sites were read for the heads to be complete.
    pub complete: bool,
    /// Identities of all incarnations of the school.
    pub identities: Vec<IdentityText>,
    /// Version of the newest manifest here; 0 when there is none.
    pub manifest_version: u64,
    /// Sites that this node writes to.
    pub sites: u32,
    /// How many of them make a receipt.
    pub quorum: u32,
    /// The newest whole snapshot of each tier. Absent from a node that keeps none: nothing is offered to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<SnapshotOffer>>,
    /// Whether this node takes the evidence of restore proofs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proofs: bool,
    /// Devices of whose ended incarnations heads and identities are left out, with what shows that the node has the very
    /// heads that the hello spoke of.
    #[serde(default, skip_serializing_if = "EndedHashes::is_empty")]
    pub ended: EndedHashes,
}

/// A manifest and the keys that it names. Sent by whoever has the newer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocuments {
    /// Whose.
    pub school: SchoolCode,
    /// Text of the manifest.
    pub manifest: String,
    /// Wrapped keys of all its live epochs.
    pub wrapped_keys: Vec<WrappedKey>,
}

/// Asks for the batches of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which log.
    pub log: LogName,
    /// Last sequence that the asker has.
    pub after: u64,
}

/// Ends the batches of a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchEnd {
    /// Last sequence that was sent.
    pub sequence: u64,
}

/// News of other replicas' batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Heads that have moved.
    pub heads: Heads,
    /// Identities that have not been sent before.
    pub identities: Vec<IdentityText>,
}

/// The evidence of a restore proof. The node returns it when it is durable at the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofText {
    /// Text of a signed [`crate::proof::Proof`].
    pub document: String,
}

/// Why something was refused. The text forms are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Another protocol version.
    Protocol,
    /// The identity does not verify or is not the TLS certificate's.
    Identity,
    /// A batch or document of another school.
    WrongSchool,
    /// A signature does not hold.
    Signature,
    /// A batch that does not continue its log.
    Chain,
    /// The same sequence with another hash.
    Fork,
    /// A manifest that is not known here.
    Manifest,
    /// Recipients that the manifest does not name.
    Recipients,
    /// Bytes without meaning.
    Malformed,
    /// A frame over the limit.
    Oversized,
    /// The quorum of sites cannot be reached now; try again.
    Storage,
    /// Something out of turn.
    Unexpected,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// For the log of the other side.
    pub text: String,
    /// What is known of the log, when a batch was refused.
    #[serde(default, skip_serializing_if = "Heads::is_empty")]
    pub heads: Heads,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Type 1.
    Hello(Box<Hello>),
    /// Type 2.
    Welcome(Box<Welcome>),
    /// Type 3: bytes of a [`crate::batch::Batch`].
    Batch(Vec<u8>),
    /// Type 4: bytes of a [`crate::receipt::Receipt`].
    Receipt(Vec<u8>),
    /// Type 5.
    Refusal(Refusal),
    /// Type 6.
    Keys(Box<KeyDocuments>),
    /// Type 7.
    Fetch(Fetch),
    /// Type 8.
    FetchEnd(FetchEnd),
    /// Type 9.
    News(Box<News>),
    /// Type 10: text of a [`crate::snapshot::Snapshot`]'s root. Offered by a replica, or the first answer to a
    /// [`FetchSnapshot`], which its parts and a [`FetchEnd`] follow.
    Snapshot(String),
    /// Type 11.
    SnapshotPart(Box<SnapshotPart>),
    /// Type 12: answers an offer or a part.
    SnapshotWants(SnapshotWants),
    /// Type 13.
    FetchSnapshot(FetchSnapshot),
    /// Type 14.
    Proof(ProofText),
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit; nothing of the body was read.
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    Oversized {
        /// The length that was announced.
        bytes: u64,
    },
    /// A type that this version does not know.
    #[error("frame type {kind} is not known")]
    Kind {
        /// The type.
        kind: u8,
    },
    /// The body has no meaning.
    #[error("the body of frame type {kind} has no meaning")]
    Body {
        /// The type.
        kind: u8,
        /// What serde found.
        #[source]
        source: serde_json::Error,
    },
    /// A part of a snapshot without its place.
    #[error("a part of a snapshot is cut short")]
    Part(#[from] Short),
    /// A text that is not UTF-8.
    #[error("the root of a snapshot is not text")]
    Text,
}

/// What the five bytes before a body say.
///
/// # Errors
/// [`FrameError::Oversized`], before anything is allocated.
pub fn frame_header(header: [u8; FRAME_HEADER_BYTES]) -> Result<(u8, usize), FrameError> {
    let mut reader = Reader::new(&header);
    let length = reader.u32("length").unwrap_or(u32::MAX);
    let kind = reader.u8("type").unwrap_or(0);
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= FRAME_BYTES_MAX)
        .map(|length| (kind, length))
        .ok_or(FrameError::Oversized { bytes: u64::from(length) })
}

impl Frame {
    /// Returns the frame's bytes.
    ///
    /// # Errors
    /// [`FrameError::Oversized`]; [`FrameError::Body`] when a body has no JSON form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FrameError> {
        fn json<T: Serialize>(kind: u8, body: &T) -> Result<(u8, Vec<u8>), FrameError> {
            Ok((kind, serde_json::to_vec(body).map_err(|source| FrameError::Body { kind, source })?))
        }
        let (kind, body) = match self {
            Self::Hello(hello) => json(1, hello)?,
            Self::Welcome(welcome) => json(2, welcome)?,
            Self::Batch(bytes) => (3, bytes.clone()),
            Self::Receipt(bytes) => (4, bytes.clone()),
            Self::Refusal(refusal) => json(5, refusal)?,
            Self::Keys(keys) => json(6, keys)?,
            Self::Fetch(fetch) => json(7, fetch)?,
            Self::FetchEnd(end) => json(8, end)?,
            Self::News(news) => json(9, news)?,
            Self::Snapshot(text) => (10, text.clone().into_bytes()),
            Self::SnapshotPart(part) => (11, part.to_body()),
            Self::SnapshotWants(wants) => json(12, wants)?,
            Self::FetchSnapshot(fetch) => json(13, fetch)?,
            Self::Proof(proof) => json(14, proof)?,
        };
        let oversized = || FrameError::Oversized { bytes: u64::try_from(body.len()).unwrap_or(u64::MAX) };
        if body.len() > FRAME_BYTES_MAX {
            return Err(oversized());
        }
        let length = u32::try_from(body.len()).map_err(|_| oversized())?;
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads a body of a type.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn from_body(kind: u8, body: Vec<u8>) -> Result<Self, FrameError> {
        fn json<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, FrameError> {
            serde_json::from_slice(body).map_err(|source| FrameError::Body { kind, source })
        }
        if body.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Oversized { bytes: u64::try_from(body.len()).unwrap_or(u64::MAX) });
        }
        Ok(match kind {
            1 => Self::Hello(json(kind, &body)?),
            2 => Self::Welcome(json(kind, &body)?),
            3 => Self::Batch(body),
            4 => Self::Receipt(body),
            5 => Self::Refusal(json(kind, &body)?),
            6 => Self::Keys(json(kind, &body)?),
            7 => Self::Fetch(json(kind, &body)?),
            8 => Self::FetchEnd(json(kind, &body)?),
            9 => Self::News(json(kind, &body)?),
            10 => Self::Snapshot(String::from_utf8(body).map_err(|_| FrameError::Text)?),
            11 => Self::SnapshotPart(Box::new(SnapshotPart::from_body(&body)?)),
            12 => Self::SnapshotWants(json(kind, &body)?),
            13 => Self::FetchSnapshot(json(kind, &body)?),
            14 => Self::Proof(json(kind, &body)?),
            _ => return Err(FrameError::Kind { kind }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goal: a length over the limit is refused before its body. Method: the first length too large.
    #[test]
    fn oversized_frames_are_refused_at_the_header() {
        let header = |length: u32| {
            let [a, b, c, d] = length.to_be_bytes();
            frame_header([a, b, c, d, 3])
        };
        let limit = u32::try_from(FRAME_BYTES_MAX).unwrap();
        assert_eq!(header(limit).unwrap(), (3, FRAME_BYTES_MAX));
        assert!(matches!(header(limit + 1), Err(FrameError::Oversized { .. })));
        assert!(matches!(header(u32::MAX), Err(FrameError::Oversized { .. })));
    }

    proptest! {
        /// Goal: the decoder cannot panic. Method: arbitrary bodies of every type.
        #[test]
        fn any_body_decodes_or_fails(kind in 0_u8..16, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::from_body(kind, body);
        }
    }
}
