//! The virtual line between replicas and the node: streams that keep their own order and overtake each other,
//! as QUIC's do; whole connections that die at different moments for the two ends.

use std::collections::BTreeMap;

use sonae_proto::ids::LogName;

/// The stream of hello, welcome, keys and news.
pub const CONTROL: u64 = 0;

/// What a replica waits for on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Reply(LogName),
    Fetch,
    /// A second copy of a batch was sent on it, as with 0-RTT; nobody reads what comes back.
    Nobody,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    pub replica: usize,
    /// The life of the node that it leads to.
    pub boot: u64,
    pub open_at_replica: bool,
    pub open_at_node: bool,
    pub streams: BTreeMap<u64, Waiting>,
    next_stream: u64,
    /// When the last message of a stream and direction arrives.
    last_arrival: BTreeMap<(u64, bool), u64>,
}

impl Connection {
    pub fn new(replica: usize, boot: u64) -> Self {
        Self {
            replica,
            boot,
            open_at_replica: true,
            open_at_node: true,
            streams: BTreeMap::new(),
            next_stream: 1,
            last_arrival: BTreeMap::new(),
        }
    }

    pub fn open_stream(&mut self, waiting: Waiting) -> u64 {
        let stream = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(stream, waiting);
        stream
    }

    /// Returns when a message arrives that would take until `at`: never before the one ahead of it.
    pub fn arrival(&mut self, stream: u64, up: bool, at: u64) -> u64 {
        let last = self.last_arrival.entry((stream, up)).or_default();
        *last = at.max(*last);
        *last
    }
}
