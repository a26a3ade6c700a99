//! What happens at a moment of virtual time: arrivals, ends, waits that are over.

use super::carrying::Trip;

/// What happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    Connect {
        slot: usize,
        life: u64,
    },
    ToNode {
        connection: u64,
        stream: u64,
        frame: Vec<u8>,
    },
    ToBox {
        connection: u64,
        stream: u64,
        frame: Vec<u8>,
    },
    BoxLosesLine {
        connection: u64,
    },
    /// A line on which nothing gets through is noticed.
    LookAtLine {
        connection: u64,
    },
    NodeLosesLine {
        connection: u64,
    },
    SiteWrote {
        boot: u64,
        site: usize,
    },
    LossKept {
        slot: usize,
        life: u64,
    },
    StartBox {
        slot: usize,
        life: u64,
    },
    StartNode {
        boot: u64,
    },
    ToNeighbour {
        link: u64,
        /// The end that reads it.
        end: usize,
        stream: u64,
        frame: Vec<u8>,
    },
    /// An end of a link notices that it is gone.
    LoseLink {
        link: u64,
        end: usize,
    },
    /// An end of a link on which something has not been answered for long is given up.
    LookAtLink {
        link: u64,
        end: usize,
    },
    /// A direction of the LAN in which nothing has got through for long is noticed.
    LookAtStall {
        from: usize,
        to: usize,
    },
    DialNeighbour {
        from: usize,
        to: usize,
    },
    /// A courier comes to the node with a bundle of a box.
    ToNodeByHand {
        slot: usize,
        trip: Trip,
        file: Vec<u8>,
    },
    /// Everything that a courier brought has its answer.
    AnswerByHand {
        courier: u64,
    },
    /// A courier comes back to a box with the answer.
    ToBoxByHand {
        slot: usize,
        file: Vec<u8>,
    },
    /// What an ended incarnation wrote is carried over, if everything else is here.
    CarryOver {
        slot: usize,
    },
}
