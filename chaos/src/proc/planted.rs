//! Defects that are planted in the real programs: each must be found by this ring, or it proves nothing.
//!
//! They need programs that were built with defects (`make planted`), in the folder that `SONAE_BIN_DIR` names. Each is
//! run with the kinds of trouble in which it shows, and the same run without it must hold.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::options::{Options, Trouble};
use super::{Plan, run};

/// How long programs with a defect may take to converge; the same run without the defect has no more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs in which a defect must show at least once.
const RUNS_TO_FIND: u64 = 4;

/// Defects by the names that `proto` gives them, with the trouble that they need and a seed in which it comes.
pub const ALL: [(&str, &[Trouble], u64); 6] = [
    ("receipt_before_store", &[Trouble::NodeKill], 13),
    ("base_ignored", &[], 1),
    ("loss_not_noticed", &[Trouble::CloudLoss], 13),
    ("heads_as_they_came", &[Trouble::Conflict], 4),
    ("sent_for_good", &[Trouble::NodeKill], 3),
    ("site_not_flushed", &[Trouble::SitePower], 1),
];

/// How a planted defect was found.
#[derive(Debug, Clone, Serialize)]
pub struct Find {
    /// Its name.
    pub defect: String,
    /// What the oracle said; absent when it was not found.
    pub violation: Option<String>,
    /// What the oracle said of the same run without the defect: nothing, or the finding shows nothing.
    pub without: Option<String>,
    /// Seconds of processors until then, of this process and the programs that it ran.
    pub cpu_seconds: f64,
}

/// Seconds that this process and the children that it waited for have had of processors; 0 where the kernel does not
/// say.
fn cpu_seconds() -> f64 {
    /// Ticks of the clock in a second, as the kernel shows them everywhere.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: utime, stime, cutime and cstime are the 12th to 15th.
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / TICKS
}

/// Plants a defect and looks whether it is found. What was under way at a kill is the machine's choice, so that it does
/// not show in every run of a seed: the next seed is tried then.
///
/// # Errors
/// As [`run`].
pub async fn find(dir: &Path, defect: &str, troubles: &[Trouble], seed: u64) -> Result<Find> {
    let troubles: BTreeSet<Trouble> = troubles.iter().copied().collect();
    let plan = |planted| Plan { planted, patience: PATIENCE };
    let mut find = Find { defect: defect.to_owned(), violation: None, without: None, cpu_seconds: 0.0 };
    for seed in seed..seed + RUNS_TO_FIND {
        let options = Options::of(seed, troubles.clone());
        let begin = cpu_seconds();
        let place = dir.join(format!("{defect}-{seed}"));
        let with = run(&place, options.clone(), plan(Some(defect.to_owned()))).await;
        find.cpu_seconds += cpu_seconds() - begin;
        // A town that cannot even be founded is found out, too.
        find.violation = with.map_or_else(|error| Some(format!("{error:#}")), |outcome| outcome.violation);
        if find.violation.is_some() {
            let place = dir.join(format!("without-{defect}"));
            find.without = run(&place, options, plan(None)).await?.violation;
            break;
        }
    }
    Ok(find)
}
