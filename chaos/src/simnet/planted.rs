//! The planted defects of this ring: each must be found by runs of some seeds, or the ring proves nothing. Some lie in
//! the engines of `proto`, some in the driver of the uplink, some in how the cloud is set up.

use anyhow::{Context, Result};
use sonae_proto::planted::Defect;

use super::Ring;
use super::options::{Options, Step};
use crate::sim::planted::Find;

/// Seeds that a planted defect may take to be found, of those in which it can show.
pub const SEEDS_TO_FIND: usize = 12;

/// A defect that is planted for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// In `proto`, or in the driver around its engine.
    Proto(Defect),
    /// The cloud takes no notice of a connection that comes from another address.
    AddressChangeForgotten,
}

/// All planted defects that the ring must find.
pub const ALL: [Planted; 12] = [
    Planted::Proto(Defect::SentForGood),
    Planted::Proto(Defect::FetchForGood),
    Planted::Proto(Defect::ReceiptOfOneSite),
    Planted::Proto(Defect::HeadsAsTheyCame),
    Planted::Proto(Defect::IdentityNotStored),
    Planted::Proto(Defect::SilenceNotWatched),
    Planted::Proto(Defect::StandbyForgotten),
    Planted::Proto(Defect::LineNotTold),
    Planted::Proto(Defect::KeepAliveForgotten),
    Planted::Proto(Defect::InputDeletedEarly),
    Planted::Proto(Defect::ReceiptBeforeStore),
    Planted::AddressChangeForgotten,
];

impl Planted {
    /// Returns what it is called on a command line.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Proto(defect) => format!("{defect:?}"),
            Self::AddressChangeForgotten => format!("{self:?}"),
        }
    }

    /// Finds a defect by its name.
    ///
    /// # Errors
    /// When this ring does not know it.
    pub fn named(name: &str) -> Result<Self> {
        ALL.into_iter().find(|planted| planted.name() == name).context("this ring plants no such defect")
    }

    pub(super) const fn of_proto(planted: Option<Self>) -> Option<Defect> {
        match planted {
            Some(Self::Proto(defect)) => Some(defect),
            Some(Self::AddressChangeForgotten) | None => None,
        }
    }

    /// Whether it can show in a run; others need not be run to find it.
    #[must_use]
    pub fn fits(self, options: &Options) -> bool {
        let has = |wanted: fn(&Step) -> bool| options.script.iter().any(wanted);
        let Self::Proto(defect) = self else {
            return options.line.is_sound() && has(|step| matches!(step, Step::Rebind { .. }));
        };
        if matches!(defect, Defect::ReceiptOfOneSite) {
            has(|step| matches!(step, Step::Site { .. }))
        } else if matches!(defect, Defect::InputDeletedEarly) {
            // A node that starts again brings a merged object to the site that lacks it.
            options.quorum == options.sites && !has(|step| matches!(step, Step::NodeRestarts { .. }))
        } else if matches!(defect, Defect::LineNotTold) {
            has(|step| matches!(step, Step::Rebind { .. })) && options.line.is_sound()
        } else if matches!(defect, Defect::IdentityNotStored) {
            has(|step| matches!(step, Step::NodeRestarts { .. }))
        } else if matches!(defect, Defect::KeepAliveForgotten) {
            let long = |step: &Step| matches!(step, Step::Quiet { seconds: 200.. });
            let mut pairs = options.script.windows(2);
            let speaks = |step: &Step| matches!(step, Step::Write { .. } | Step::Rebind { .. });
            options.boxes > 1
                && options.line.is_sound()
                && pairs.any(|pair| long(&pair[0]) && speaks(&pair[1]))
        } else if matches!(defect, Defect::FetchForGood | Defect::HeadsAsTheyCame) {
            options.boxes > 1
        } else {
            has(|step| matches!(step, Step::Blackout { .. })) && options.line.is_sound()
        }
    }
}

/// Plants each defect and runs seeds until it is found.
///
/// # Errors
/// As [`Ring::run`].
pub fn find_all(ring: &Ring) -> Result<Vec<Find>> {
    ALL.into_iter().map(|planted| find(ring, planted)).collect()
}

/// Plants a defect and runs seeds until it is found.
///
/// # Errors
/// As [`Ring::run`].
pub fn find(ring: &Ring, planted: Planted) -> Result<Find> {
    let mut find =
        Find { defect: planted.name(), seed: None, runs: 0, cpu_seconds: 0.0, violation: String::new() };
    let fits = |seed: &u64| planted.fits(&Options::of_seed(*seed));
    for seed in (0..).filter(fits).take(SEEDS_TO_FIND) {
        find.runs += 1;
        let outcome = ring.run(seed, Some(planted), false)?;
        find.cpu_seconds += outcome.cpu_seconds;
        if let Some(violation) = outcome.violation {
            (find.seed, find.violation) = (Some(seed), violation);
            break;
        }
    }
    Ok(find)
}
