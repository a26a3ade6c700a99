//! What a seed decides: the school's history, who attacks whom, and how. Printed with a failing case.
//!
//! **Invariant**: sixteen seeds in a row share a history, so that its signatures are paid for once; everything of a
//! case follows from its seed all the same.

use serde::Serialize;

use crate::random::Random;

/// Seeds that share a history.
pub const CASES_PER_HISTORY: u64 = 16;

/// What the adversary does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    /// Leaves something out.
    Drop,
    /// Changes the order.
    Reorder,
    /// Serves again what was served before, or serves it in another place.
    Replay,
    /// Shows an earlier state as the present one.
    RollBack,
    /// Shows the other branch of a log that forked.
    Fork,
    /// Flips a bit.
    Flip,
    /// Serves what belongs to another school of the same board.
    CrossSchool,
    /// Plays old receipts back for what was not stored.
    OldReceipt,
    /// Serves key documents of an earlier epoch, or hides the newer ones.
    OldEpoch,
    /// Makes something itself, with keys of its own.
    Forge,
    /// Answers late, by half, with refusals, or not at all.
    Withhold,
    /// Serves what the board has revoked.
    Revoked,
}

/// All mutations.
pub const MUTATIONS: [Mutation; 12] = [
    Mutation::Drop,
    Mutation::Reorder,
    Mutation::Replay,
    Mutation::RollBack,
    Mutation::Fork,
    Mutation::Flip,
    Mutation::CrossSchool,
    Mutation::OldReceipt,
    Mutation::OldEpoch,
    Mutation::Forge,
    Mutation::Withhold,
    Mutation::Revoked,
];

/// Who is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// A box that has run for a while and remembers.
    Running,
    /// A fresh box, with nothing from outside the cloud.
    Rebuild,
    /// A fresh box that was given heads (`--expect`).
    RebuildExpect,
    /// An auditor with public keys, without heads.
    Auditor,
    /// An auditor who was given heads.
    AuditorExpect,
    /// A node that starts on sites that were tampered with, and who trusts it.
    Node,
    /// A box that imports a bundle which a courier brought.
    CourierEdge,
    /// A node that imports one.
    CourierCloud,
    /// A box that begins with snapshots.
    Snapshots,
}

/// So many of [`VICTIMS`] are drawn together. Those of snapshots have draws of their own: what seeds meant before stays.
const DRAWN: usize = 8;

/// All victims.
pub const VICTIMS: [Victim; 9] = [
    Victim::Running,
    Victim::Rebuild,
    Victim::RebuildExpect,
    Victim::Auditor,
    Victim::AuditorExpect,
    Victim::Node,
    Victim::CourierEdge,
    Victim::CourierCloud,
    Victim::Snapshots,
];

/// Of so many seeds one is about snapshots.
const SNAPSHOTS_ONE_IN: u64 = 4;

impl Mutation {
    /// Whether it can be done to a victim at all.
    #[must_use]
    pub const fn fits(self, victim: Victim) -> bool {
        match self {
            Self::OldReceipt => matches!(victim, Victim::Running | Victim::CourierEdge),
            Self::Withhold => matches!(
                victim,
                Victim::Running | Victim::Rebuild | Victim::RebuildExpect | Victim::Snapshots
            ),
            Self::Revoked => matches!(victim, Victim::Snapshots),
            Self::Drop
            | Self::Reorder
            | Self::Replay
            | Self::RollBack
            | Self::Fork
            | Self::Flip
            | Self::CrossSchool
            | Self::OldEpoch
            | Self::Forge => true,
        }
    }
}

/// What a history looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryOptions {
    /// Names the history.
    pub number: u64,
    /// Replicas that write.
    pub replicas: usize,
    /// Batches, about.
    pub steps: usize,
    /// Sites of the cloud.
    pub sites: usize,
    /// How many of them make a receipt.
    pub quorum: usize,
    /// Real age and zstd instead of the deterministic double.
    pub real_sealing: bool,
    /// A replica was cloned: there are two branches of one of its logs.
    pub forked: bool,
}

/// Everything that a seed decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// The history.
    pub history: HistoryOptions,
    /// Who is attacked.
    pub victim: Victim,
    /// What is done; nothing in an honest run.
    pub mutations: Vec<Mutation>,
    /// The adversary is the cloud itself and can sign receipts.
    pub signs_receipts: bool,
    /// It goes on with it, instead of doing it once.
    pub persistent: bool,
    /// About a box that begins with snapshots; absent where none is attacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotOptions>,
}

/// How a box begins with snapshots, and what of that is attacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotOptions {
    /// Tier 0 is asked for with the first hello.
    pub at_once: bool,
    /// The first fetch is cut off, by nobody's fault, behind so many frames.
    pub cut_after: Option<usize>,
    /// The box holds logs of tier 0 already, and catches up with the others.
    pub holds_safety: bool,
    /// The board has revoked a device, and everybody knows.
    pub revoked: bool,
    /// The adversary alters everything, and not only what is said of snapshots.
    pub everywhere: bool,
    /// It has the keys of those who made snapshots, and signs roots that do not add up.
    pub is_thief: bool,
}

impl SnapshotOptions {
    fn draw(random: &mut Random) -> Self {
        let cut = random.index(4);
        Self {
            at_once: random.one_in(2),
            cut_after: random.one_in(4).then_some(cut),
            holds_safety: random.one_in(3),
            revoked: random.one_in(3),
            everywhere: random.one_in(4),
            is_thief: random.one_in(3),
        }
    }
}

impl HistoryOptions {
    fn of_number(number: u64) -> Self {
        let mut random = Random::new(number, "adversary history options");
        let (sites, quorum) = random.pick(&[(1, 1), (2, 2), (3, 2)]);
        Self {
            number,
            replicas: random.pick(&[2, 2, 3]),
            steps: 8 + random.index(9),
            sites,
            quorum,
            real_sealing: random.one_in(8),
            forked: random.one_in(2),
        }
    }
}

impl Options {
    /// Derives all from a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let history = HistoryOptions::of_number(seed / CASES_PER_HISTORY);
        let mut of_snapshots = Random::new(seed, "adversary options of snapshots");
        let snapshots = of_snapshots.one_in(SNAPSHOTS_ONE_IN);
        let snapshots = snapshots.then(|| SnapshotOptions::draw(&mut of_snapshots));
        let mut random = Random::new(seed, "adversary options");
        let drawn = VICTIMS[random.index(DRAWN)];
        let victim = if snapshots.is_some() { Victim::Snapshots } else { drawn };
        // What lies at a byte, age draws anew in each run, and a seed must give the same case again.
        let happens = |mutation: &Mutation| {
            (history.forked || *mutation != Mutation::Fork)
                && (*mutation != Mutation::Revoked || snapshots.as_ref().is_some_and(|s| s.revoked))
                && (!history.real_sealing || *mutation != Mutation::Flip)
        };
        let possible: Vec<Mutation> =
            MUTATIONS.into_iter().filter(|mutation| mutation.fits(victim) && happens(mutation)).collect();
        let mut mutations = vec![random.pick(&possible)];
        if random.one_in(6) {
            mutations.push(random.pick(&possible));
            mutations.sort();
            mutations.dedup();
        }
        let signs_receipts = random.one_in(3);
        let persistent = random.one_in(2);
        Self { seed, history, victim, mutations, signs_receipts, persistent, snapshots }
    }

    /// The same without an adversary.
    #[must_use]
    pub fn honest(&self) -> Self {
        Self { mutations: Vec::new(), signs_receipts: false, persistent: false, ..self.clone() }
    }
}
