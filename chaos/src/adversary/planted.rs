//! The planted defects of this ring. Each must be found by cases of some seeds, or the ring proves nothing.

use anyhow::Result;
use sonae_proto::planted::Defect;

use super::Ring;
use super::options::{Mutation, Options, Victim};
use crate::sim::planted::{Find, cpu_seconds};

/// Cases that a planted defect may take to be found, of those in which it can show.
pub const CASES_TO_FIND: usize = 600;

/// A defect that is planted for one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// In `proto`.
    Proto(Defect),
    /// Nobody compares with the heads from outside that were given.
    ExpectIgnored,
}

/// All planted defects that the ring must find.
pub const ALL: [Planted; 18] = [
    Planted::Proto(Defect::StaleReceipt),
    Planted::Proto(Defect::LossNotNoticed),
    Planted::Proto(Defect::OwnLogReused),
    Planted::Proto(Defect::PeerChainNotChecked),
    Planted::Proto(Defect::ChainNotChecked),
    Planted::Proto(Defect::PeerLossNotNoticed),
    Planted::Proto(Defect::OtherHistoryTaken),
    Planted::Proto(Defect::BatchSignatureNotChecked),
    Planted::Proto(Defect::PayloadNotChecked),
    Planted::Proto(Defect::ReceiptSignatureNotChecked),
    Planted::Proto(Defect::ReceiptOfOtherBatch),
    Planted::Proto(Defect::DocumentSignatureNotChecked),
    Planted::Proto(Defect::CutBundleIsWhole),
    Planted::Proto(Defect::KnownBatchStored),
    Planted::Proto(Defect::SnapshotPartUnchecked),
    Planted::Proto(Defect::SnapshotSumUnchecked),
    Planted::Proto(Defect::SnapshotOfRevoked),
    Planted::ExpectIgnored,
];

/// Plants each defect and runs cases until it is found.
///
/// # Errors
/// As [`Ring::run`].
pub fn find_all() -> Result<Vec<Find>> {
    ALL.into_iter().map(find).collect()
}

fn find(planted: Planted) -> Result<Find> {
    let start = cpu_seconds();
    let mut ring = Ring::new()?;
    let mut find = Find {
        defect: format!("{planted:?}"),
        seed: None,
        runs: 0,
        cpu_seconds: 0.0,
        violation: String::new(),
    };
    let fits = |options: &Options| planted.fits(options);
    for options in (0..).map(Options::of_seed).filter(fits).take(CASES_TO_FIND) {
        find.runs += 1;
        if let Err(violation) = ring.run(&options, Some(planted))?.found {
            (find.seed, find.violation) = (Some(options.seed), violation);
            break;
        }
    }
    find.cpu_seconds = cpu_seconds() - start;
    Ok(find)
}

impl Planted {
    pub(crate) const fn of_proto(self) -> Option<Defect> {
        match self {
            Self::Proto(defect) => Some(defect),
            Self::ExpectIgnored => None,
        }
    }

    /// Whether it can show in a case; others need not be run to find it.
    #[must_use]
    pub fn fits(self, options: &Options) -> bool {
        let does = |mutations: &[Mutation]| options.mutations.iter().any(|done| mutations.contains(done));
        let is = |victims: &[Victim]| victims.contains(&options.victim);
        let line = || is(&[Victim::Running, Victim::Rebuild, Victim::RebuildExpect]);
        let Self::Proto(defect) = self else {
            return does(&[Mutation::RollBack, Mutation::Fork])
                && is(&[Victim::RebuildExpect, Victim::AuditorExpect]);
        };
        if matches!(defect, Defect::StaleReceipt) {
            does(&[Mutation::OldReceipt])
        } else if matches!(defect, Defect::ReceiptSignatureNotChecked) {
            does(&[Mutation::Forge]) && is(&[Victim::Running, Victim::CourierEdge])
        } else if matches!(defect, Defect::ReceiptOfOtherBatch) {
            does(&[Mutation::Forge]) && options.signs_receipts && is(&[Victim::Running])
        } else if matches!(defect, Defect::LossNotNoticed | Defect::PeerLossNotNoticed) {
            does(&[Mutation::RollBack]) && is(&[Victim::Running, Victim::Node])
        } else if matches!(defect, Defect::OwnLogReused) {
            does(&[Mutation::Forge, Mutation::Fork]) && is(&[Victim::Running])
        } else if matches!(defect, Defect::OtherHistoryTaken) {
            does(&[Mutation::Fork]) && options.mutations.len() > 1 && line()
        } else if matches!(defect, Defect::CutBundleIsWhole) {
            does(&[Mutation::Drop]) && is(&[Victim::CourierEdge, Victim::CourierCloud])
        } else if matches!(defect, Defect::PeerChainNotChecked) {
            does(&[Mutation::Drop, Mutation::Replay, Mutation::Reorder]) && line()
        } else if matches!(defect, Defect::ChainNotChecked) {
            does(&[Mutation::Fork]) && is(&[Victim::CourierCloud])
        } else if matches!(defect, Defect::SnapshotPartUnchecked) {
            is(&[Victim::Snapshots])
        } else if matches!(defect, Defect::SnapshotSumUnchecked) {
            does(&[Mutation::Forge]) && options.snapshots.as_ref().is_some_and(|snapshots| snapshots.is_thief)
        } else if matches!(defect, Defect::SnapshotOfRevoked) {
            does(&[Mutation::Revoked])
        } else if matches!(defect, Defect::KnownBatchStored) {
            does(&[Mutation::Replay]) && line()
        } else {
            true
        }
    }
}
