//! The planted defects: each is one switch in a build that has the feature `sim`, and each must be found by runs of
//! some seeds, or the simulation proves nothing.

use sonae_journal::Planted as JournalDefect;
use sonae_proto::planted::Defect as ProtoDefect;

use super::options::Trouble;

/// A defect that is planted for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// In `proto`.
    Proto(ProtoDefect),
    /// In the journal.
    Journal(JournalDefect),
    /// The node signs a receipt before it stores.
    ReceiptBeforeStore,
    /// The keeper sends a sealed batch before it is durable, and seals again after a crash.
    SealedLazily,
    /// The keeper says that a raised loss counter is durable before it is.
    LossKeptLazily,
}

/// All planted defects that the simulation must find.
pub const ALL: [Planted; 24] = [
    Planted::Proto(ProtoDefect::StaleReceipt),
    Planted::Proto(ProtoDefect::LossNotNoticed),
    Planted::Proto(ProtoDefect::OwnLogReused),
    Planted::Proto(ProtoDefect::TierPriorityLost),
    Planted::Proto(ProtoDefect::SentForGood),
    Planted::Proto(ProtoDefect::FetchForGood),
    Planted::Proto(ProtoDefect::PeerChainNotChecked),
    Planted::Proto(ProtoDefect::KnownBatchStored),
    Planted::Proto(ProtoDefect::ChainNotChecked),
    Planted::Proto(ProtoDefect::ReceiptOfOneSite),
    Planted::Proto(ProtoDefect::ReceiptBehindHole),
    Planted::Proto(ProtoDefect::IdentityNotStored),
    Planted::Proto(ProtoDefect::SecondAskerForgotten),
    Planted::Proto(ProtoDefect::BaseIgnored),
    Planted::Proto(ProtoDefect::EarlyReplacementForgotten),
    Planted::Proto(ProtoDefect::HeadsAsTheyCame),
    Planted::Proto(ProtoDefect::ReissueAppliedTwice),
    Planted::Proto(ProtoDefect::ClockDragged),
    Planted::Journal(JournalDefect::SkipFlush),
    Planted::Journal(JournalDefect::SkipDirectoryFlush),
    Planted::Journal(JournalDefect::SkipSettle),
    Planted::ReceiptBeforeStore,
    Planted::SealedLazily,
    Planted::LossKeptLazily,
];

impl Planted {
    /// Without these kinds of trouble it cannot show, so seeds that lack one need not be run to find it.
    #[must_use]
    pub const fn needs(self) -> &'static [Trouble] {
        match self {
            Self::Proto(ProtoDefect::StaleReceipt) => &[Trouble::CloudLoss, Trouble::Replay],
            Self::Proto(ProtoDefect::LossNotNoticed | ProtoDefect::ReceiptBehindHole)
            | Self::LossKeptLazily => &[Trouble::CloudLoss],
            Self::Proto(ProtoDefect::OwnLogReused) => &[Trouble::Clone],
            Self::Proto(ProtoDefect::ClockDragged) => &[Trouble::Clock],
            Self::Proto(_) | Self::Journal(_) | Self::ReceiptBeforeStore | Self::SealedLazily => &[],
        }
    }

    /// What of it concerns the journal.
    pub(crate) fn of_journal(planted: Option<Self>) -> JournalDefect {
        match planted {
            Some(Self::Journal(defect)) => defect,
            _ => JournalDefect::None,
        }
    }

    /// What of it concerns `proto`.
    pub(crate) fn of_proto(planted: Option<Self>) -> Option<ProtoDefect> {
        match planted {
            Some(Self::Proto(defect)) => Some(defect),
            _ => None,
        }
    }
}
