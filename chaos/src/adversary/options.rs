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
}

/// All mutations.
pub const MUTATIONS: [Mutation; 11] = [
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
}

/// All victims.
pub const VICTIMS: [Victim; 8] = [
    Victim::Running,
    Victim::Rebuild,
    Victim::RebuildExpect,
    Victim::Auditor,
    Victim::AuditorExpect,
    Victim::Node,
    Victim::CourierEdge,
    Victim::CourierCloud,
];

impl Mutation {
    /// Whether it can be done to a victim at all.
    #[must_use]
    pub const fn fits(self, victim: Victim) -> bool {
        match self {
            Self::OldReceipt => matches!(victim, Victim::Running | Victim::CourierEdge),
            Self::Withhold => matches!(victim, Victim::Running | Victim::Rebuild | Victim::RebuildExpect),
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
        let mut random = Random::new(seed, "adversary options");
        let victim = random.pick(&VICTIMS);
        // What lies at a byte, age draws anew in each run, and a seed must give the same case again.
        let happens = |mutation: &Mutation| {
            (history.forked || *mutation != Mutation::Fork)
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
        Self { seed, history, victim, mutations, signs_receipts, persistent }
    }

    /// The same without an adversary.
    #[must_use]
    pub fn honest(&self) -> Self {
        Self { mutations: Vec::new(), signs_receipts: false, persistent: false, ..self.clone() }
    }
}
