//! The virtual line between a box and the node: streams that keep their own order and overtake each other, as
//! QUIC's do; whole connections that die at different moments for the two ends.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::ids::{Hash32, LogName};
use sonae_proto::wire::SnapshotName;

/// The stream of hello, welcome, keys and news.
pub(crate) const CONTROL: u64 = 0;

/// What a box waits for on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Reply(LogName),
    Fetch,
    /// For a snapshot that it asked for.
    Snapshot(SnapshotName),
    /// For what becomes of a snapshot that it offers, or of a part of it.
    Offer(Hash32),
    /// A second copy of a batch was sent on it, as with 0-RTT; nobody reads what comes back.
    Nobody,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub slot: usize,
    /// The life of the node that it leads to.
    pub boot: u64,
    pub tls_key: [u8; 32],
    pub open_at_box: bool,
    pub open_at_node: bool,
    pub streams: BTreeMap<u64, Waiting>,
    /// Whether the node has read the hello, and the box the welcome; what overtakes these waits for them.
    pub is_greeted: bool,
    pub is_welcomed: bool,
    pub early_up: Vec<(u64, Vec<u8>)>,
    pub early_down: Vec<(u64, Vec<u8>)>,
    next_stream: u64,
    /// When the last message of a stream and direction arrives.
    last_arrival: BTreeMap<(u64, bool), u64>,
    /// Streams and directions on which a message was lost: nothing behind it arrives.
    holes: BTreeSet<(u64, bool)>,
}

impl Connection {
    pub fn new(slot: usize, boot: u64, tls_key: [u8; 32]) -> Self {
        Self {
            slot,
            boot,
            tls_key,
            open_at_box: true,
            open_at_node: true,
            streams: BTreeMap::new(),
            is_greeted: false,
            is_welcomed: false,
            early_up: Vec::new(),
            early_down: Vec::new(),
            next_stream: 1,
            last_arrival: BTreeMap::new(),
            holes: BTreeSet::new(),
        }
    }

    pub fn open_stream(&mut self, waiting: Waiting) -> u64 {
        let stream = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(stream, waiting);
        stream
    }

    /// A message of a stream is lost.
    pub fn lose(&mut self, stream: u64, up: bool) {
        self.holes.insert((stream, up));
    }

    /// Whether a message of a stream was lost before.
    pub fn has_hole(&self, stream: u64, up: bool) -> bool {
        self.holes.contains(&(stream, up))
    }

    /// Returns when a message arrives that would take until `at`: never before the one ahead of it.
    pub fn arrival(&mut self, stream: u64, up: bool, at: u64) -> u64 {
        let last = self.last_arrival.entry((stream, up)).or_default();
        *last = at.max(*last);
        *last
    }
}
