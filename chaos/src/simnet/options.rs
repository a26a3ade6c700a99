//! What a seed decides before its run: boxes, sites, the line, and the script.

use serde::Serialize;

use crate::random::Random;

/// What a line does to datagrams all the time, in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// One way, in milliseconds.
    pub delay_ms: u64,
    /// By how much more a datagram may take: those behind it overtake it.
    pub jitter_ms: u64,
    /// Lost, of 1,000.
    pub lost: u64,
    /// Delivered twice, of 1,000.
    pub twice: u64,
    /// Delivered with a flipped bit, of 1,000.
    pub flipped: u64,
    /// How fast it is; `None` without limit.
    pub bytes_per_second: Option<u64>,
    /// The longest datagram that passes. QUIC needs 1,200.
    pub datagram_bytes_max: usize,
}

impl Conditions {
    /// Whether nothing but time and a rate stands between the two sides, so that promises in seconds hold.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.lost == 0 && self.flipped == 0
    }

    /// The round trip, in milliseconds.
    #[must_use]
    pub const fn round_trip_ms(&self) -> u64 {
        2 * (self.delay_ms + self.jitter_ms)
    }
}

/// A direction of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Way {
    /// From the box to the cloud.
    Up,
    /// From the cloud to the box.
    Down,
}

/// What happens, one after the other. Boxes and sites are named by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Step {
    /// A box keeps so many actions.
    Write { slot: usize, actions: u64 },
    /// No datagram of a box passes for so long; it writes on meanwhile.
    Blackout { slot: usize, seconds: u64 },
    /// None passes in one direction.
    OneWay { slot: usize, way: Way, seconds: u64 },
    /// The router before a box gives it another address.
    Rebind { slot: usize },
    /// A site fails for so long, or does not answer at all.
    Site { site: usize, hangs: bool, seconds: u64 },
    /// The node stops and starts again.
    NodeRestarts { pause_seconds: u64 },
    /// A box loses its power and starts again.
    PowerCut { slot: usize, pause_seconds: u64 },
    /// Nobody does anything.
    Quiet { seconds: u64 },
}

/// Everything that a seed decides before its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Boxes.
    pub boxes: usize,
    /// Sites of the cloud.
    pub sites: usize,
    /// How many of them make a receipt.
    pub quorum: usize,
    /// The line of every box.
    pub line: Conditions,
    /// What happens.
    pub script: Vec<Step>,
}

impl Options {
    /// Derives all from a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed, "simnet options");
        let (sites, quorum) = random.pick(&[(2, 2), (3, 2)]);
        let boxes = random.pick(&[1, 2, 2]);
        let line = conditions(&mut random);
        let steps = random.pick(&[5, 6, 7]);
        let mut script = vec![Step::Write { slot: 0, actions: 3 }];
        script.extend((0..steps).map(|_| step(&mut random, boxes, sites)));
        Self { seed, boxes, sites, quorum, line, script }
    }
}

fn conditions(random: &mut Random) -> Conditions {
    let is_rough = random.one_in(2);
    let rough = |random: &mut Random, values: &[u64]| if is_rough { random.pick(values) } else { 0 };
    Conditions {
        delay_ms: random.pick(&[5, 20, 60, 150, 300]),
        jitter_ms: random.pick(&[0, 0, 10, 40]),
        lost: rough(random, &[0, 10, 50, 100]),
        twice: random.pick(&[0, 0, 20]),
        flipped: rough(random, &[0, 5, 20]),
        bytes_per_second: random.pick(&[None, None, Some(32_000), Some(250_000)]),
        datagram_bytes_max: random.pick(&[1_200, 1_252, 1_472]),
    }
}

fn step(random: &mut Random, boxes: usize, sites: usize) -> Step {
    let slot = random.index(boxes);
    match random.below(16) {
        0..=2 => Step::Write { slot, actions: random.pick(&[1, 5, 40]) },
        3..=6 => Step::Blackout { slot, seconds: random.pick(&[30, 30, 120]) },
        7 => Step::OneWay { slot, way: random.pick(&[Way::Up, Way::Down]), seconds: random.pick(&[8, 40]) },
        8..=10 => Step::Rebind { slot },
        11 => Step::Site {
            site: random.index(sites),
            hangs: random.one_in(2),
            seconds: random.pick(&[15, 90, 400]),
        },
        12 => Step::NodeRestarts { pause_seconds: random.pick(&[0, 20]) },
        13 | 14 => Step::PowerCut { slot, pause_seconds: random.pick(&[0, 20]) },
        _ => Step::Quiet { seconds: random.pick(&[10, 200]) },
    }
}
