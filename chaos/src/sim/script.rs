//! The script of a run: what is done to the world, drawn from the seed before the run begins, so that a run can be
//! made shorter by leaving actions out.

use std::fmt;

use sonae_journal::sim::{Cut, Fault};
use sonae_proto::ids::Tier;

use super::carrying::Trip;
use super::more;
use super::options::{LanKind, Options, Trouble};
use super::school;
use crate::random::Random;

/// One thing that is done. Boxes and sites are named by any number, taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To a box, or by the people at it.
    Box(usize, BoxAction),
    /// To the disk or the power of a box.
    Disk(usize, DiskAction),
    /// To the cloud.
    Cloud(CloudAction),
    /// To the LAN between boxes.
    Lan(LanAction),
    /// Persons at all boxes write the same record at the same time.
    WriteEverywhere(Tier, usize),
}

/// What happens to a box. Whenever it writes or seals, it looks whether older batches may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxAction {
    /// A person writes a record.
    Write(Tier, usize),
    /// People write so many changes, as they do on a school day.
    Work(u32),
    /// So many writes of the archive, each a batch of its own, then one for a safety check.
    Backlog(usize),
    /// A person erases a record.
    Erase(Tier, usize),
    /// What is kept becomes batches of at most so many changes.
    Seal(usize),
    /// It has nothing to do for a while.
    Idle,
    /// It forgets the past of its journal.
    Compact,
    /// Nothing gets through from it (first) or to it (second).
    CutLine(bool, bool),
    /// Its line works again.
    HealLine,
    /// It is gone, with its disk, for as long as nobody digs it out; a new one takes its place.
    Destroy,
    /// The one that was gone starts again, beside the one that took its place.
    Return,
    /// The disk of the one that was gone is read; what is missing here is issued again.
    DigOut,
    /// An image is taken of its disk.
    TakeImage,
    /// It is set back to its image.
    Restore,
    /// A copy of its disk starts beside it.
    Clone,
    /// Its clock shows this from now on, in milliseconds since 1970.
    SetClock(u64),
    /// Its clock jumps back so many milliseconds.
    TurnClockBack(u64),
    /// All receipts that it ever got come again.
    ReplayReceipts,
    /// The board revokes it.
    Revoke,
    /// If it is revoked, and else another that is: its clock is set back, it writes, and all of it is carried by hand.
    CarryStolen,
    /// The board accepts what waits in quarantine.
    Accept,
    /// It writes a bundle to a stick, which a courier carries to the node, and the answer back.
    CarryOut(Trip),
}

/// What happens to the disk or the power of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskAction {
    /// The power goes now.
    PowerCut(Cut),
    /// The power goes before a disk operation that is so many ahead.
    PowerCutAhead(u64, Cut),
    /// The box stops at an effect that is so many ahead, after it is done (true) or before.
    StopAtEffect(u64, bool, Cut),
    /// A disk operation so many ahead fails.
    Error(u64, Fault),
    /// The disk has no room beyond so many bytes more.
    Full(u64),
    /// The disk has room again.
    Room,
    /// A bit of what lies on it, anywhere, is another one; the box starts again at once (true) or goes on.
    Rot(u64, bool),
}

/// What happens to the LAN. Boxes are named by any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanAction {
    /// The first can reach the second from now on, and dials it.
    Join(usize, usize),
    /// Neither reaches the other any more.
    Part(usize, usize),
    /// Nothing gets through from the first to the second.
    Stall(usize, usize),
    /// It gets through again.
    Flow(usize, usize),
    /// Their connections break at a frame so many ahead.
    Break(usize, usize, u64),
    /// A box tells its neighbours of batches of theirs that do not exist.
    Lie(usize),
}

/// What happens to the node and its sites. Where a site may be named, `None` means all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudAction {
    /// The node stops now.
    Stop,
    /// The node stops at an effect that is so many ahead.
    StopAtEffect(u64),
    /// A node starts, and copies objects to the sites that lack them (true) or not.
    Start(bool),
    /// The node stops, and a site loses so many of its newest objects.
    LoseTail(Option<usize>, usize),
    /// An image is taken of all sites.
    TakeImage,
    /// The node stops, and a site comes back as it was in the last image.
    Restore(Option<usize>),
    /// A site goes down or comes up.
    TurnSite(usize),
    /// A site misses so many of the next puts.
    MissPuts(usize, u64),
    /// Of the batches that the node serves, it leaves some out; or no more.
    TurnLies,
    /// A second node stands beside the first from now on, and the boxes whose bits are set are led to it.
    Split(u8),
    /// A box is led to the other of two nodes.
    Turn(usize),
    /// There is one node only.
    Unite,
    /// An auditor comes.
    Audit,
    /// A site does not list what is put to it, for so many milliseconds.
    ListLate(usize, u64),
}

/// One line of a script: an action, and how long the world runs after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What is done.
    pub action: Action,
    /// Milliseconds that follow.
    pub then_ms: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, then {} ms", self.action, self.then_ms)
    }
}

/// Draws the script of a seed.
#[must_use]
pub fn draw(options: &Options) -> Vec<Line> {
    let script = draw_trouble(options);
    if options.school_days == 0 { script } else { school::with_days(script, options) }
}

fn draw_trouble(options: &Options) -> Vec<Line> {
    let mut random = Random::new(options.seed, "script");
    let mut lines: Vec<Line> = (0..options.actions).map(|_| line(options, &mut random)).collect();
    // Between the others, from streams of their own.
    if options.erases {
        lines = with_erasures(lines, options);
    }
    lines = more::with_more(lines, options);
    if options.lan == LanKind::None {
        return lines;
    }
    let mut random = Random::new(options.seed, "lan script");
    let first = (0..2).map(|number| of_lan(LanAction::Join(number, number + 1), options, &mut random));
    let mut script: Vec<Line> = first.collect();
    for line in lines {
        script.push(line);
        if random.one_in(3) {
            let action = lan(&mut random);
            script.push(of_lan(action, options, &mut random));
        }
    }
    script
}

fn with_erasures(lines: Vec<Line>, options: &Options) -> Vec<Line> {
    let mut random = Random::new(options.seed, "erasure script");
    let mut script = Vec::new();
    for line in lines {
        script.push(line);
        if random.one_in(10) {
            let (tier, record) = (random.pick(&Tier::ALL), random.index(options.records));
            let erase = BoxAction::Erase(tier, record);
            script.push(Line { action: Action::Box(random.index(12), erase), then_ms: 0 });
            if random.one_in(2) {
                // Others have not heard of it.
                script.push(Line { action: Action::WriteEverywhere(tier, record), then_ms: 0 });
            }
        }
    }
    script
}

fn lan(random: &mut Random) -> LanAction {
    let (a, b) = (random.index(12), random.index(12));
    match random.below(12) {
        0..=4 => LanAction::Join(a, b),
        5 => LanAction::Part(a, b),
        6 | 7 => LanAction::Break(a, b, random.below(8)),
        8 => LanAction::Stall(a, b),
        9 | 10 => LanAction::Flow(a, b),
        _ => LanAction::Lie(a),
    }
}

fn of_lan(action: LanAction, options: &Options, random: &mut Random) -> Line {
    let then_ms = if random.one_in(2) { 0 } else { random.below(options.delay_ms_max * 8) };
    Line { action: Action::Lan(action), then_ms }
}

fn line(options: &Options, random: &mut Random) -> Line {
    let action = match options.troubles.len() {
        0 => common(options, random),
        count if random.below(100) < 45 => {
            let number = random.index(count);
            let trouble = options.troubles.iter().nth(number).copied().unwrap_or(Trouble::Line);
            troubled(trouble, options, random)
        }
        _ => common(options, random),
    };
    let then_ms = match random.below(40) {
        // Minutes and hours in which nobody writes; lines are dialled, nothing else happens.
        0 => random.below(2 * 3_600_000),
        1..=3 => random.below(60_000),
        4..=16 => 0,
        _ => random.below(options.delay_ms_max * 4),
    };
    Line { action, then_ms }
}

fn common(options: &Options, random: &mut Random) -> Action {
    let number = random.index(12);
    let tier = random.pick(&Tier::ALL);
    let record = random.index(options.records);
    let what = match random.below(24) {
        0..=9 => BoxAction::Write(tier, record),
        10 | 11 => return Action::WriteEverywhere(tier, record),
        12..=19 => BoxAction::Seal(1 + random.index(4)),
        20 | 21 => BoxAction::Idle,
        22 => BoxAction::Compact,
        _ => return Action::Cloud(CloudAction::Start(random.one_in(2))),
    };
    Action::Box(number, what)
}

fn troubled(trouble: Trouble, options: &Options, random: &mut Random) -> Action {
    let number = random.index(12);
    let of_box = |what| Action::Box(number, what);
    let of_disk = |what| Action::Disk(number, what);
    let cut = random.pick(&[Cut::Drop, Cut::Keep, Cut::Prefix, Cut::Torn, Cut::Torn]);
    let site = random.index(options.sites);
    let some_site = random.one_in(2).then_some(site);
    match (trouble, random.below(3)) {
        (Trouble::Line, 0 | 1) => {
            let (up, down) = random.pick(&[(true, true), (true, true), (true, false), (false, true)]);
            of_box(BoxAction::CutLine(up, down))
        }
        (Trouble::Line, _) => of_box(BoxAction::HealLine),
        (Trouble::Power, 0) => of_disk(DiskAction::PowerCut(cut)),
        (Trouble::Power, _) => of_disk(DiskAction::PowerCutAhead(random.below(8), cut)),
        (Trouble::BoxCrash, _) => of_disk(DiskAction::StopAtEffect(random.below(6), random.one_in(2), cut)),
        (Trouble::DiskError, _) => {
            let fault = random.pick(&[Fault::Io, Fault::Io, Fault::NoSpace]);
            of_disk(DiskAction::Error(random.below(6), fault))
        }
        (Trouble::DiskFull, 0 | 1) => of_disk(DiskAction::Full(random.below(100_000))),
        (Trouble::DiskFull, _) => of_disk(DiskAction::Room),
        (Trouble::NodeCrash, 0) => Action::Cloud(CloudAction::Stop),
        (Trouble::NodeCrash, 1) => Action::Cloud(CloudAction::StopAtEffect(random.below(8))),
        (Trouble::NodeCrash, _) => Action::Cloud(CloudAction::Start(random.one_in(2))),
        (Trouble::CloudLoss, 0) => Action::Cloud(CloudAction::TakeImage),
        (Trouble::CloudLoss, 1) => Action::Cloud(CloudAction::Restore(some_site)),
        (Trouble::CloudLoss, _) => Action::Cloud(CloudAction::LoseTail(some_site, 1 + random.index(4))),
        (Trouble::Sites, 0 | 1) => Action::Cloud(CloudAction::MissPuts(site, 1 + random.below(3))),
        (Trouble::Sites, _) => Action::Cloud(CloudAction::TurnSite(site)),
        (Trouble::Rebuild, _) | (Trouble::Return, 0) => of_box(BoxAction::Destroy),
        (Trouble::Return, 1) => of_box(BoxAction::Return),
        (Trouble::Return, _) => of_box(BoxAction::DigOut),
        (Trouble::Clone, 0) => of_box(BoxAction::TakeImage),
        (Trouble::Clone, 1) => of_box(BoxAction::Restore),
        (Trouble::Clone, _) => of_box(BoxAction::Clone),
        (Trouble::Clock, 0) => of_box(BoxAction::SetClock(random.below(60_000))),
        (Trouble::Clock, 1) => of_box(BoxAction::SetClock(4_000_000_000_000 + random.below(1_000_000))),
        (Trouble::Clock, _) => of_box(BoxAction::TurnClockBack(1 + random.below(90_000_000))),
        (Trouble::Replay, _) => of_box(BoxAction::ReplayReceipts),
        (Trouble::Revocation, 0) => of_box(BoxAction::Revoke),
        (Trouble::Revocation, 1) => of_box(BoxAction::CarryStolen),
        (Trouble::Revocation, _) if random.one_in(3) => of_box(BoxAction::Accept),
        (Trouble::Revocation, _) => of_box(BoxAction::CarryStolen),
        (Trouble::Lies, _) => Action::Cloud(CloudAction::TurnLies),
        // These are no part of what this draws from.
        (Trouble::Equivocation, _) => Action::Cloud(CloudAction::Turn(number)),
        (Trouble::Courier, _) => {
            of_box(BoxAction::CarryOut(Trip { ms: 1_000, readable: 1_000, twice: false }))
        }
        (Trouble::Rot, _) => of_disk(DiskAction::Rot(0, true)),
        (Trouble::LateLists, _) => Action::Cloud(CloudAction::ListLate(site, 1_000)),
        (Trouble::Backlog, _) => of_box(BoxAction::Backlog(8 + random.index(24))),
    }
}
