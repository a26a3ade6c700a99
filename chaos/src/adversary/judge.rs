//! The oracle of one case: either nothing was lost and nothing differs, or it was detected, by a name that fits.
//! A different view that nobody speaks of is a violation, and so is a raised "safe" for what no site holds.
//!
//! **Invariant**: what it judges by was computed without the engines: bytes that replicas really sealed, a fold of
//! the honest batches, what lies at the sites.

use std::collections::BTreeSet;

use super::options::{Mutation, Options};
use super::signal::Signal;

/// What a case has shown.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// What victims said, and witnesses.
    pub signals: BTreeSet<Signal>,
    /// Mutations that were really done.
    pub done: BTreeSet<Mutation>,
    /// The view is that of an honest run.
    pub exact: bool,
    /// Something that the victim was shown contradicts itself or what it had been shown before, so the victim itself
    /// must say so.
    pub must_say: bool,
    /// The cloud has contradicted what it had shown, or shown what cannot be. That must be told, whatever came of it.
    pub contradicted: bool,
    /// Something was kept that no replica sealed, or that continues nothing.
    pub kept_foreign: bool,
    /// A "safe" was raised for what no site holds.
    pub false_safe: bool,
    /// The adversary has signed a receipt for what it threw away. Only a witness can tell.
    pub lied: bool,
    /// What a victim with heads from outside calls "verified" although it differs.
    pub verified: bool,
    /// Tiers that began with snapshots.
    pub begun: usize,
    /// For people.
    pub notes: Vec<String>,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// There was no opportunity to do anything.
    Idle,
    /// It changed nothing.
    Harmless,
    /// The victim said it.
    Said,
    /// Heads from outside of the cloud show it, and nothing else can.
    Witnessed,
    /// Nothing can show it without heads from outside, and the victim says "completeness unverified".
    Unverified,
}

/// Judges a case.
///
/// # Errors
/// What the oracle has against it.
pub(crate) fn judge(options: &Options, facts: &Facts) -> Result<Found, String> {
    let said: Vec<Signal> = facts.signals.iter().copied().filter(|signal| signal.is_own()).collect();
    if facts.kept_foreign {
        return Err("something was kept that no replica has sealed, or that continues nothing".into());
    }
    if facts.false_safe && !(facts.lied && facts.signals.contains(&Signal::Witness)) {
        return Err("something is called safe that no site holds".into());
    }
    if options.mutations.is_empty() {
        return match (said.first(), facts.exact) {
            (Some(signal), _) => Err(format!("a false alarm: {signal:?}")),
            (None, false) => Err("an honest run ends with another view".into()),
            (None, true) => Ok(Found::Harmless),
        };
    }
    if facts.verified && !facts.exact {
        return Err("a view that differs passes for verified".into());
    }
    let named = |signal: &Signal| facts.done.iter().any(|mutation| mutation.is_named_by(*signal));
    if let Some(signal) = said.iter().find(|signal| !named(signal)) {
        return Err(format!("{:?} is called {signal:?}", facts.done));
    }
    if facts.done.is_empty() {
        return if facts.exact {
            Ok(Found::Idle)
        } else {
            Err("a view differs, and nothing was done".into())
        };
    }
    if facts.contradicted && !said.iter().any(|signal| signal.is_of_history()) {
        return Err("the cloud contradicts itself, and the victim says nothing of it".into());
    }
    match (said.is_empty(), facts.exact) {
        (false, _) => Ok(Found::Said),
        (true, true) if facts.false_safe => Ok(Found::Witnessed),
        (true, true) => Ok(Found::Harmless),
        (true, false) if facts.must_say => Err("a view differs, and the victim says nothing".into()),
        (true, false) if facts.signals.contains(&Signal::Witness) => Ok(Found::Witnessed),
        (true, false) => Ok(Found::Unverified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attacked() -> (Options, Facts) {
        let mut options = Options::of_seed(1);
        options.mutations = vec![Mutation::Drop];
        let facts = Facts { done: BTreeSet::from([Mutation::Drop]), exact: true, ..Facts::default() };
        (options, facts)
    }

    /// Goal: the oracle can fail. Method: each thing that it must not let pass, alone.
    #[test]
    fn nothing_wrong_passes() {
        let (options, good) = attacked();
        assert_eq!(judge(&options, &good), Ok(Found::Harmless));
        let wrong = [
            Facts { kept_foreign: true, ..attacked().1 },
            Facts { false_safe: true, ..attacked().1 },
            Facts { false_safe: true, lied: true, ..attacked().1 },
            Facts { exact: false, verified: true, ..attacked().1 },
            Facts { exact: false, must_say: true, ..attacked().1 },
            Facts { contradicted: true, signals: BTreeSet::from([Signal::Broken]), ..attacked().1 },
            Facts { exact: false, done: BTreeSet::new(), ..attacked().1 },
            Facts {
                signals: BTreeSet::from([Signal::ReceiptRefused]),
                done: BTreeSet::new(),
                ..attacked().1
            },
        ];
        for facts in wrong {
            assert!(judge(&options, &facts).is_err(), "{facts:?}");
        }
        let refused = Facts { signals: BTreeSet::from([Signal::Incomplete]), ..attacked().1 };
        assert!(judge(&options, &refused).is_err(), "a dropped batch is not an incomplete answer");
    }

    /// Goal: an honest run must be silent and exact. Method: an alarm, another view.
    #[test]
    fn honest_runs_are_silent() {
        let options = Options::of_seed(1).honest();
        let good = Facts { exact: true, ..Facts::default() };
        assert_eq!(judge(&options, &good), Ok(Found::Harmless));
        assert!(judge(&options, &Facts::default()).is_err());
        let alarmed = Facts { exact: true, signals: BTreeSet::from([Signal::Unsafe]), ..Facts::default() };
        assert!(judge(&options, &alarmed).is_err());
    }
}
