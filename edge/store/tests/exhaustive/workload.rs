//! Workloads: what people, imports, peers and the cloud ask of a store, by seed and by hand.

use sonae_proto::ids::Tier;

/// One thing that is asked of a store.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes fields of records (collection, record, field, value), as one action.
    Write { edits: Vec<(&'static str, String, &'static str, String)>, import: bool },
    /// Seals everything that waits.
    Seal,
    /// Stores the next batch of a peer's tier.
    Peer(Tier),
    /// Brings receipts for everything that was told as sealed.
    Receipts,
    /// Raises the loss counter; nothing is receipted any more.
    Loss,
    /// Brings the peer's identity.
    Identity,
    /// Takes over a change of another branch.
    Reissue,
    /// Nobody asks for anything for a while.
    Idle,
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The line goes up or down.
    Line(bool),
    /// Closes and opens again.
    Reopen,
    /// Dies and is opened again, without losing power.
    Kill,
}

/// A small generator, so that a seed means the same for ever.
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Collections in workloads, a field of each, one tier after the other.
pub const COLLECTIONS: [(&str, &str); 6] = [
    ("student", "grade"),
    ("student", "address"),
    ("guardian_contact", "name"),
    ("attendance", "code"),
    ("school_diary", "events"),
    ("grade_result", "title"),
];

fn edit(random: &mut Random, longest: u64) -> (&'static str, String, &'static str, String) {
    let (collection, field) = COLLECTIONS[random.below(6) as usize];
    let value = format!("{}{}", random.below(1_000), "x".repeat(random.below(longest) as usize));
    (collection, format!("r{}", random.below(8)), field, value)
}

fn step(random: &mut Random) -> Step {
    match random.below(24) {
        0..=9 => {
            let count = 1 + random.below(3);
            let longest = if random.below(3) == 0 { 5_000 } else { 60 };
            let edits = (0..count).map(|_| edit(random, longest)).collect();
            Step::Write { edits, import: random.below(4) == 0 }
        }
        10..=12 => Step::Seal,
        13..=14 => Step::Peer(Tier::ALL[random.below(2) as usize]),
        15..=16 => Step::Receipts,
        17 => Step::Loss,
        18 => Step::Identity,
        19 => Step::Reissue,
        20 => Step::Idle,
        21 => Step::Wait(700 + random.below(70_000)),
        22 => Step::Line(random.below(2) == 0),
        _ => [Step::Reopen, Step::Kill][random.below(2) as usize].clone(),
    }
}

/// Returns the workload of a seed.
pub fn generated(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    random.below(2);
    (0..steps).map(|_| step(&mut random)).collect()
}

fn write(collection: &'static str, field: &'static str, record: usize, bytes: usize) -> Step {
    let value = format!("{record}{}", "y".repeat(bytes));
    Step::Write { edits: vec![(collection, format!("r{}", record % 9), field, value)], import: false }
}

/// Writes and seals until several segments were recycled.
fn recycling() -> Vec<Step> {
    (0..14).flat_map(|n| [write("school_diary", "events", n, 6_000), Step::Seal, Step::Receipts]).collect()
}

/// Peers' batches only, until they move to the archive.
fn peers() -> Vec<Step> {
    let batches = |tier| std::iter::repeat_n(Step::Peer(tier), 6);
    let mut steps: Vec<Step> = vec![Step::Identity];
    steps.extend(batches(Tier::Safety));
    steps.push(Step::Kill);
    steps.extend(batches(Tier::Daily));
    steps.extend((0..5).map(|n| write("school_diary", "events", n, 6_000)));
    steps
}

/// Everything that the cloud brings, around writes of all tiers.
fn line() -> Vec<Step> {
    vec![
        Step::Line(true),
        write("student", "grade", 1, 1),
        Step::Receipts,
        write("attendance", "code", 1, 1),
        Step::Wait(2_500),
        Step::Receipts,
        Step::Loss,
        write("student", "grade", 2, 1),
        Step::Wait(2_500),
        Step::Receipts,
        Step::Idle,
        Step::Kill,
        Step::Reissue,
        Step::Reissue,
        Step::Seal,
        Step::Reopen,
        write("student", "grade", 3, 1),
        Step::Idle,
    ]
}

/// Checkpoint after checkpoint: more records than the overlay may hold.
fn checkpoints() -> Vec<Step> {
    let edits = |n: usize| (0..5).map(move |k| ("student", format!("c{n}-{k}"), "address", format!("{n}")));
    let writes = (0..8).map(|n| Step::Write { edits: edits(n).collect(), import: n % 2 == 0 });
    writes.flat_map(|write| [write, Step::Kill]).collect()
}

/// Reopened again and again with one change between.
fn reopening() -> Vec<Step> {
    (0..6)
        .flat_map(|n| [write("guardian_contact", "name", n, 10), [Step::Reopen, Step::Kill][n % 2].clone()])
        .collect()
}

/// Large actions, several pages each, so that commits roll over.
fn large() -> Vec<Step> {
    (0..8).flat_map(|n| [write("school_diary", "events", n, 15_000), Step::Wait(700)]).collect()
}

/// Fills the journal with changes of tier 1 that are not sealed, seals them, and goes on at once with tier 0.
pub fn no_room(changes: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..changes).map(|n| write("attendance", "code", n, n)).collect();
    steps.extend([Step::Seal, write("student", "grade", 1, 1), write("student", "grade", 2, 1)]);
    steps
}

/// Returns the workloads that are written by hand, with their names.
pub fn by_hand() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("recycling", recycling()),
        ("peers", peers()),
        ("line", line()),
        ("checkpoints", checkpoints()),
        ("reopening", reopening()),
        ("large", large()),
    ]
}
