//! What the engine of a node asks of its shell, and the numbers by which they name things to each other.

use crate::ids::{Hash32, LogName, SchoolCode};
use crate::object::RecordKind;
use crate::wire::{Frame, RefusalCode};

use super::StoredBatch;

/// A connection, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Where a reply goes: a stream of a connection, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyTo {
    /// The connection.
    pub connection: ConnectionId,
    /// The stream.
    pub stream: u64,
}

/// A record on its way to the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame on a stream.
    Reply {
        /// Where.
        to: ReplyTo,
        /// What.
        frame: Box<Frame>,
    },
    /// Send a frame on the control stream of a connection.
    Tell {
        /// Whom.
        connection: ConnectionId,
        /// What.
        frame: Box<Frame>,
    },
    /// Put a record into the next object, write that to the sites, then call `handle_stored`. Records are
    /// stored in the order in which they are asked for.
    Store {
        /// Named in `handle_stored`.
        ticket: Ticket,
        /// What it is.
        kind: RecordKind,
        /// Its bytes.
        body: Vec<u8>,
    },
    /// Send stored batches on a stream, then a `FetchEnd`.
    Serve {
        /// Where.
        to: ReplyTo,
        /// Which, in order.
        batches: Vec<StoredBatch>,
        /// Which log, for the end.
        log: LogName,
    },
    /// Send the root of a snapshot and parts of it on a stream, then a `FetchEnd` of sequence 0.
    ServeSnapshot {
        /// Where.
        to: ReplyTo,
        /// Hash of the root.
        root: Hash32,
        /// Its text; `None` when it is not whole here any more: only the end is sent then.
        text: Option<String>,
        /// Of each part its place, its hash and its location.
        parts: Vec<(u32, Hash32, Location)>,
    },
    /// Log and count a refusal.
    Refused {
        /// Whose data, when known.
        school: Option<SchoolCode>,
        /// Why.
        code: RefusalCode,
        /// For the log.
        text: String,
    },
    /// A device began another incarnation while an earlier one exists: a rebuild, or its bundle used twice.
    SecondIncarnation {
        /// Whose data.
        school: SchoolCode,
        /// The device's name.
        replica: String,
        /// How many incarnations it has now.
        incarnations: usize,
    },
    /// A carried batch of a revoked device is in quarantine, at the quorum: answer the courier.
    Quarantined {
        /// Where.
        to: ReplyTo,
        /// Whether it was not there before.
        is_new: bool,
    },
    /// Key documents that the board brought are stored, or not at the quorum: answer.
    DocumentsStored {
        /// Where.
        to: ReplyTo,
        /// Whether the quorum has them, and all other documents of the school.
        durable: bool,
    },
    /// A manifest was refused because it takes back a revocation or the destruction of a key: tell people.
    RevocationTakenBack {
        /// Whose.
        school: SchoolCode,
        /// Of the manifest.
        version: u64,
    },
    /// Close a connection.
    Close(ConnectionId),
}

/// Where a record lies in an object. The shell resolves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The object's name.
    pub object: String,
    /// Offset of the body.
    pub offset: u64,
    /// Bytes of the body.
    pub bytes: u64,
}
