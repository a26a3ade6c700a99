//! A place in which a box stands: its disk, its power, its line and its clock outlive the box that runs there.

use std::collections::BTreeSet;

use sonae_journal::sim::{Cut, SimDisk};
use sonae_proto::batch::Batch;
use sonae_proto::ids::{LogName, Tier};

use super::board::Life;
use super::faces::Shown;
use super::ledger::BoxLedger;
use super::replica::Replica;
use super::rot::Salvaged;

/// What the clocks of boxes show at the start, milliseconds since 1970.
const CLOCK_START_MS: u64 = 1_764_000_000_000;

/// A disk that lies somewhere, with its history.
#[derive(Clone)]
pub(crate) struct Buried {
    pub life: Life,
    pub disk: SimDisk,
    pub book: BoxLedger,
    /// Who has issued again what it has not sent.
    pub read_by: BTreeSet<usize>,
    /// A bit of the disk is not what was written.
    pub has_rotted: bool,
    /// What can be read of it then.
    pub salvaged: Option<Salvaged>,
}

/// A place in which a box stands.
pub(crate) struct Slot {
    pub life: Life,
    pub disk: SimDisk,
    pub book: BoxLedger,
    pub replica: Option<Replica>,
    /// How often a box was started here: what is under way for an earlier start is dropped.
    pub lives: u64,
    pub line: Option<u64>,
    pub blocked_up: bool,
    pub blocked_down: bool,
    /// What the clock shows, and since when.
    pub clock: (u64, u64),
    pub wake_at: Option<u64>,
    /// It has stopped for want of room, and only starts to look whether there is some.
    pub wants_room: bool,
    /// The life of the node from which there is a welcome, if its heads were complete.
    pub welcomed_by: Option<u64>,
    /// What becomes of un-synced writes when the power goes.
    pub cut: Cut,
    /// The box stops at an effect so many ahead; after it is done or before.
    pub stop_at: Option<(u64, bool)>,
    /// Receipts that came, with their logs.
    pub receipts: Vec<(LogName, Vec<u8>)>,
    pub image: Option<(SimDisk, BoxLedger)>,
    pub buried: Option<Buried>,
    /// Ended incarnations of the box that stands here, still to be carried over.
    pub ended: Vec<Buried>,
    /// Version of the newest manifest that is kept here.
    pub words: u64,
    /// Batches that a neighbour has brought and that are to be stored together.
    pub carried: Option<Vec<Batch>>,
    /// A bit of its disk is not what was written.
    pub has_rotted: bool,
    /// What it was shown of others' logs since it started.
    pub shown: Shown,
    /// From this tier on a full disk has not taken what a neighbour brought.
    pub full_from: Option<Tier>,
}

impl Slot {
    pub fn new(life: Life, disk: SimDisk, book: BoxLedger, now: u64) -> Self {
        Self {
            life,
            disk,
            book,
            replica: None,
            lives: 0,
            line: None,
            blocked_up: false,
            blocked_down: false,
            clock: (CLOCK_START_MS + now, now),
            wake_at: None,
            wants_room: false,
            welcomed_by: None,
            cut: Cut::Drop,
            stop_at: None,
            receipts: Vec::new(),
            image: None,
            buried: None,
            ended: Vec::new(),
            words: 1,
            carried: None,
            has_rotted: false,
            shown: Shown::default(),
            full_from: None,
        }
    }
}
