//! What a seed decides before its run begins: the town, the kinds of trouble, and the script. All of it is printed
//! with a report or replay. What is not decided is the moment: real programs on a real machine take their own time.

use std::collections::BTreeSet;

use serde::Serialize;

use super::network::Block;
use crate::fault_fs::{Fault, Loss};
use crate::random::Random;

/// A kind of trouble that a run may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Lines that are cut, in both directions or in one, or lose packets.
    Line,
    /// UDP does not get through.
    Udp,
    /// The cloud's line is slow.
    Rate,
    /// `kill -9` of a box.
    BoxKill,
    /// `kill -9` of the node.
    NodeKill,
    /// The node's machine is gone; another one takes its address and its sites.
    NodeMove,
    /// A program stands still for a while.
    Stop,
    /// The power of a box goes, at any operation of its disk.
    Power,
    /// An operation of a box's disk fails with EIO or ENOSPC.
    DiskError,
    /// A box's disk is slow.
    SlowDisk,
    /// A box's disk answers flushes well and does nothing, until the power goes.
    LyingDisk,
    /// A bit of a box's journal flips.
    Rot,
    /// A site is slow, or an operation of it fails.
    Site,
    /// All sites lose their newest objects.
    CloudLoss,
    /// A box has little memory and processor time.
    Limits,
    /// A box's clock is in 1970, in the far future, or jumps back.
    Clock,
    /// A box is gone for good; another one rebuilds from the cloud.
    Rebuild,
    /// A copy of a box's data starts beside it.
    Clone,
    /// People at all boxes write the same record without having seen one another.
    Conflict,
    /// The power of the house goes in which the node and all sites are, at any operation of their disk.
    SitePower,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Line,
        Self::Udp,
        Self::Rate,
        Self::BoxKill,
        Self::NodeKill,
        Self::NodeMove,
        Self::Stop,
        Self::Power,
        Self::DiskError,
        Self::SlowDisk,
        Self::LyingDisk,
        Self::Rot,
        Self::Site,
        Self::CloudLoss,
        Self::Limits,
        Self::Clock,
        Self::Rebuild,
        Self::Clone,
        Self::Conflict,
        Self::SitePower,
    ];
}

/// What a box's clock shows, in days from the right time: 1970, sixteen years ahead, and a little wrong.
const CLOCKS: [i64; 4] = [-20_700, 6_000, -1, 1];

/// What a power cut leaves of what was not flushed; a torn write twice as often.
const LOSSES: [Loss; 4] = [Loss::Drop, Loss::Prefix, Loss::Torn, Loss::Torn];

/// One thing that is done. Boxes are named by any number, taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To a box, or to its line.
    Box(usize, BoxAction),
    /// To the disk of a box.
    Disk(usize, DiskAction),
    /// To the cloud.
    Cloud(CloudAction),
    /// People at all boxes write the same record at the same time.
    WriteEverywhere,
    /// Nothing; people go on writing.
    Work,
}

/// What happens to a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxAction {
    /// Nothing gets through between it and the cloud, or not all; `None` mends it.
    Block(Option<Block>),
    /// `kill -9`, and a start.
    Kill,
    /// SIGSTOP, and SIGCONT after the pause.
    Stop,
    /// It has so many MiB and so many percent of a processor.
    Bound(u64, u64),
    /// It starts with its clock so many days off.
    StartAt(i64),
    /// Its clock jumps to so many days off.
    Jump(i64),
    /// It is gone; a new one rebuilds from the cloud.
    Rebuild,
    /// A copy of it starts beside it.
    Clone,
}

/// What happens to the disk of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskAction {
    /// The power goes at an operation that is so many ahead, and what was not flushed is lost like this.
    Cut(u64, Loss),
    /// An operation so many ahead fails; then the power goes.
    Fail(u64, Fault),
    /// Each flush takes so many milliseconds longer.
    Slow(u64),
    /// Flushes lie until the power goes, after the pause.
    Lie,
    /// A bit of the journal flips: the byte is drawn from this number.
    Rot(u64),
}

/// What happens to the node and its sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloudAction {
    /// At most so many kilobits a second come from it.
    Shape(Option<u32>),
    /// `kill -9`, and a start.
    Kill,
    /// `kill -9`, and a start on another machine.
    Move,
    /// SIGSTOP, and SIGCONT after the pause.
    Stop,
    /// An operation of the last site fails, so many ahead, or of any where all sites are on one disk.
    FailSite(u64, Fault),
    /// Each flush of the last site takes so many milliseconds longer.
    SlowSite(u64),
    /// The power of the node and all sites goes at an operation of their disk that is so many ahead, and what was not
    /// flushed is lost like this.
    Cut(u64, Loss),
    /// All sites lose so many of their newest objects, while the node is down.
    LoseTail(usize),
}

/// One line of a script: an action, what kind of trouble it is, and how long the world runs after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The kind of trouble.
    pub trouble: Option<Trouble>,
    /// What is done.
    pub action: Action,
    /// Milliseconds that follow.
    pub then_ms: u64,
}

/// Everything that a seed decides before its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Boxes at the start.
    pub boxes: usize,
    /// Sites of the cloud; two of them make a receipt.
    pub sites: usize,
    /// Pupils of the school.
    pub pupils: u32,
    /// Milliseconds that a packet takes between box and cloud, one way, through a relay; 0 for none.
    pub delay_ms: u64,
    /// Milliseconds between two writes of a person.
    pub write_pause_ms: u64,
    /// Kinds of trouble.
    pub troubles: BTreeSet<Trouble>,
    /// What is done.
    pub script: Vec<Line>,
}

/// Of so many runs, a kind of trouble is in one.
const TROUBLE_ONE_IN: u64 = 4;

impl Options {
    /// Derives all from a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed, "proc options");
        let mut troubles: BTreeSet<_> =
            Trouble::ALL.into_iter().filter(|_| random.one_in(TROUBLE_ONE_IN)).collect();
        // What the cloud loses of an incarnation that has ended, nobody can send again; so these never meet.
        if [Trouble::Rebuild, Trouble::Rot, Trouble::LyingDisk, Trouble::Clone]
            .iter()
            .any(|ends| troubles.contains(ends))
        {
            troubles.remove(&Trouble::CloudLoss);
        }
        Self::of(seed, troubles)
    }

    /// Derives all but the kinds of trouble from a seed.
    #[must_use]
    pub fn of(seed: u64, troubles: BTreeSet<Trouble>) -> Self {
        let mut random = Random::new(seed, "proc town");
        // Some kinds show only between two.
        let has_two = troubles.contains(&Trouble::Conflict) || random.one_in(2);
        let mut options = Self {
            seed,
            boxes: if has_two { 2 } else { 1 },
            sites: random.pick(&[2, 3]),
            pupils: random.pick(&[24, 40]),
            delay_ms: random.pick(&[0, 0, 40, 200]),
            write_pause_ms: random.pick(&[5, 25]),
            troubles,
            script: Vec::new(),
        };
        options.script = options.draw();
        options
    }

    /// Leaves out what a machine cannot make; the rest of the script stays as it is.
    pub fn leave_out(&mut self, troubles: &[Trouble]) {
        self.script.retain(|line| line.trouble.is_none_or(|trouble| !troubles.contains(&trouble)));
        self.troubles.retain(|trouble| !troubles.contains(trouble));
    }

    /// Each kind of trouble at least once, in any order, with work and more of the same between.
    fn draw(&self) -> Vec<Line> {
        let mut random = Random::new(self.seed, "proc script");
        let mut kinds: Vec<Option<Trouble>> = self.troubles.iter().copied().map(Some).collect();
        let more = random.index(3);
        for _ in 0..more {
            let again = random.index(kinds.len().max(1));
            kinds.push(kinds.get(again).copied().flatten());
        }
        // Drawn one after the other, which is a shuffle.
        let mut script = Vec::new();
        while !kinds.is_empty() {
            let trouble = kinds.swap_remove(random.index(kinds.len()));
            let action = trouble.map_or(Action::Work, |trouble| troubled(trouble, &mut random));
            script.push(Line { trouble, action, then_ms: 100 + random.below(1_100) });
        }
        script.insert(0, Line { trouble: None, action: Action::Work, then_ms: 500 });
        script
    }
}

fn troubled(trouble: Trouble, random: &mut Random) -> Action {
    let number = random.index(12);
    let (of_box, of_disk) = (|what| Action::Box(number, what), |what| Action::Disk(number, what));
    let fault = random.pick(&[Fault::Io, Fault::Io, Fault::NoSpace]);
    match trouble {
        Trouble::Line => {
            let blocks =
                [Block::Both, Block::Both, Block::Out, Block::In, Block::Lose(100), Block::Lose(300)];
            of_box(BoxAction::Block(Some(random.pick(&blocks))))
        }
        Trouble::Udp => of_box(BoxAction::Block(Some(Block::Udp))),
        Trouble::Rate => Action::Cloud(CloudAction::Shape(Some(random.pick(&[64, 256])))),
        Trouble::BoxKill => of_box(BoxAction::Kill),
        Trouble::NodeKill => Action::Cloud(CloudAction::Kill),
        Trouble::NodeMove => Action::Cloud(CloudAction::Move),
        Trouble::Stop => random.pick(&[of_box(BoxAction::Stop), Action::Cloud(CloudAction::Stop)]),
        Trouble::Power => {
            let ahead = random.below(200);
            of_disk(DiskAction::Cut(ahead, random.pick(&LOSSES)))
        }
        Trouble::DiskError => of_disk(DiskAction::Fail(random.below(60), fault)),
        Trouble::SlowDisk => of_disk(DiskAction::Slow(random.pick(&[5, 50]))),
        Trouble::LyingDisk => of_disk(DiskAction::Lie),
        Trouble::Rot => of_disk(DiskAction::Rot(random.bits())),
        Trouble::Site => {
            let fails = CloudAction::FailSite(random.below(20), fault);
            Action::Cloud(random.pick(&[fails, CloudAction::SlowSite(300), CloudAction::SlowSite(2_000)]))
        }
        Trouble::CloudLoss => Action::Cloud(CloudAction::LoseTail(1 + random.index(4))),
        Trouble::Limits => of_box(BoxAction::Bound(random.pick(&[192, 256]), random.pick(&[15, 40]))),
        Trouble::Clock => {
            let days = random.pick(&CLOCKS);
            of_box(random.pick(&[BoxAction::Jump(days), BoxAction::StartAt(days)]))
        }
        Trouble::Rebuild => of_box(BoxAction::Rebuild),
        Trouble::Clone => of_box(BoxAction::Clone),
        Trouble::Conflict => Action::WriteEverywhere,
        Trouble::SitePower => Action::Cloud(CloudAction::Cut(random.below(60), random.pick(&LOSSES))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a seed decides the same for ever, and different ones differ. Method: derive twice; compare with others.
    #[test]
    fn a_seed_decides_everything() {
        let texts: BTreeSet<String> =
            (0..200).map(|seed| serde_json::to_string(&Options::of_seed(seed)).unwrap()).collect();
        assert_eq!(texts.len(), 200);
        for seed in 0..200 {
            assert_eq!(Options::of_seed(seed), Options::of_seed(seed));
        }
    }
}
