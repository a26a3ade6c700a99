//! What a seed decides before its run begins. Everything derived is here and is printed with a report or replay.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::random::Random;

/// A kind of trouble that a run may contain. Each run has some of them, so that rare ones meet undisturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Lines that are cut, in both directions or in one.
    Line,
    /// The power of a box goes, before any disk operation; un-synced writes are lost, kept or torn.
    Power,
    /// A box stops at any effect of its engine.
    BoxCrash,
    /// A disk operation fails with EIO or ENOSPC.
    DiskError,
    /// A disk is full for a while.
    DiskFull,
    /// A node stops at any effect; what was being put may be on some sites.
    NodeCrash,
    /// Sites lose their newest objects, or come back as an old image.
    CloudLoss,
    /// Sites are down, or miss a single put.
    Sites,
    /// A box is gone for good; another one rebuilds under a new incarnation.
    Rebuild,
    /// The box that was gone comes back, or its disk is dug out and what it had not sent is issued again.
    Return,
    /// A disk is copied and started twice, or set back to an old copy.
    Clone,
    /// Clocks jump to 1970, to the far future, back.
    Clock,
    /// A backlog of the archive before something for a safety check.
    Backlog,
    /// Somebody who has recorded the line plays old receipts back.
    Replay,
    /// The cloud leaves batches out when it serves a log.
    Lies,
    /// A device is revoked, and goes on writing in the past; the board may accept some of it later.
    Revocation,
    /// The cloud shows one face to some boxes and another to others.
    Equivocation,
    /// A site lists what was put to it only after a while.
    LateLists,
    /// A bit of what a box has on its disk is another one.
    Rot,
    /// Sticks are carried between boxes and the cloud: late, twice, unreadable from the middle on.
    Courier,
}

/// Kinds of trouble whose actions come between those of the others, each from streams of its own: what seeds meant before
/// them stays.
const MORE: [(Trouble, &str, u64); 4] = [
    (Trouble::Equivocation, "equivocation", 5),
    (Trouble::LateLists, "late lists", 4),
    (Trouble::Rot, "rot", 5),
    (Trouble::Courier, "courier", 4),
];

const TROUBLES: [(Trouble, u64); 16] = [
    (Trouble::Line, 2),
    (Trouble::Power, 2),
    (Trouble::BoxCrash, 2),
    (Trouble::DiskError, 3),
    (Trouble::DiskFull, 3),
    (Trouble::NodeCrash, 2),
    (Trouble::CloudLoss, 3),
    (Trouble::Sites, 2),
    (Trouble::Rebuild, 2),
    (Trouble::Return, 2),
    (Trouble::Clone, 4),
    (Trouble::Clock, 3),
    (Trouble::Backlog, 2),
    (Trouble::Replay, 2),
    (Trouble::Lies, 4),
    (Trouble::Revocation, 4),
];

/// What the LAN of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LanKind {
    /// No box knows another one.
    None,
    /// Boxes have lines and, now and then, each other.
    Beside,
    /// No box has a line, from the beginning to the end.
    Alone,
}

/// Everything that a seed decides before its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Boxes at the start.
    pub boxes: usize,
    /// Sites of the cloud.
    pub sites: usize,
    /// How many of them make a receipt.
    pub quorum: usize,
    /// Longest delay of a message or a put, in milliseconds.
    pub delay_ms_max: u64,
    /// A batch is sent, or served, twice once in so many times; 0 for never.
    pub duplicate_one_in: u64,
    /// A message is late or its connection dies once in so many times; 0 for never.
    pub loss_one_in: u64,
    /// Records that a node puts into one object at most.
    pub records_per_object: usize,
    /// Bytes of a journal segment.
    pub segment_bytes: u32,
    /// Records that are written to: few make concurrent edits.
    pub records: usize,
    /// Actions of the script.
    pub actions: usize,
    /// Kinds of trouble.
    pub troubles: BTreeSet<Trouble>,
    /// The same, of kinds that came later.
    pub more: BTreeSet<Trouble>,
    /// An auditor comes now and then, and at the end.
    pub audits: bool,
    /// Every second device, and the node, speak and write as a later version will.
    pub later: bool,
    /// A box makes a snapshot of a tier when it has sealed so many changes of it since the last one, and boxes that take
    /// the place of others begin with snapshots; 0 for neither.
    pub snapshot_every: u64,
    /// Days on which a school works between all the trouble, a thousand changes each.
    pub school_days: u32,
    /// The LAN between boxes.
    pub lan: LanKind,
    /// Boxes bring to the cloud what it lacks of others.
    pub relays: bool,
    /// Persons erase records.
    pub erases: bool,
}

impl Options {
    /// Derives all from a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        use LanKind::{Alone, Beside, None};
        let mut random = Random::new(seed, "options");
        // From a stream of its own: what seeds meant before stays.
        let mut of_lan = Random::new(seed, "lan");
        let lan = of_lan.pick(&[None, None, Beside, Beside, Beside, Alone]);
        let relays = lan != None || of_lan.one_in(2);
        let school_days = if Random::new(seed, "school days").one_in(200) { 5 } else { 0 };
        let has_days = school_days > 0;
        let (sites, quorum) = random.pick(&[(1, 1), (2, 2), (3, 2), (3, 2)]);
        Self {
            seed,
            boxes: random.pick(&[1, 2, 2, 3]),
            sites,
            quorum,
            delay_ms_max: random.pick(&[20, 300, 2_000]),
            duplicate_one_in: random.pick(&[0, 4]),
            loss_one_in: random.pick(&[0, 25]),
            records_per_object: random.pick(&[1, 4]),
            // A batch is one commit, and must find room in a segment: of a backlog, or of a school day's hundred changes.
            segment_bytes: random.pick(&[64, 128]) * 1024 * if has_days { 2 } else { 1 },
            records: random.pick(&[1, 2, 4]) * if has_days { 40 } else { 1 },
            actions: random.pick(&[40, 60, 90]),
            troubles: TROUBLES
                .iter()
                .filter_map(|(trouble, one_in)| random.one_in(*one_in).then_some(*trouble))
                .collect(),
            more: MORE
                .iter()
                .filter_map(|(trouble, name, one_in)| {
                    Random::new(seed, name).one_in(*one_in).then_some(*trouble)
                })
                .collect(),
            audits: Random::new(seed, "audits").one_in(4),
            later: Random::new(seed, "later").one_in(3),
            snapshot_every: Random::new(seed, "snapshots").pick(&[0, 1, 2, 5])
                * if has_days { 200 } else { 1 },
            school_days,
            lan,
            relays,
            erases: Random::new(seed, "erasure").one_in(2),
        }
    }

    /// Whether a kind of trouble may happen.
    #[must_use]
    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble) || self.more.contains(&trouble)
    }

    /// Sets the kinds of trouble to these alone.
    pub fn set_troubles(&mut self, troubles: &[Trouble]) {
        let is_more = |trouble: &&Trouble| MORE.iter().any(|(more, ..)| more == *trouble);
        (self.more, self.troubles) = troubles.iter().partition(is_more);
    }
}
