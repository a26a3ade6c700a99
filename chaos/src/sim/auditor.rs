//! An auditor with public keys only, who comes now and then: the real audit of `cloud` over copies of the sites. What the
//! cloud showed at earlier visits is the witness for the next one (P4).
//!
//! **Invariants** that it checks: what was shown at a visit and is not there whole at a later one is told, and so are two
//! batches for one place; of logs of one history that are whole nothing is told; no copy is damaged.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use sonae_cloud::export::ExportError;
use sonae_cloud::export::audit::{self, Question};
use sonae_cloud::object_name::ObjectName;
use sonae_cloud::site::Site;
use sonae_proto::export::Problem;
use sonae_proto::ids::LogName;
use sonae_proto::vector::Heads;
use ulid::Ulid;

use super::board::site;
use super::options::LanKind;
use super::planted::Planted;
use super::world::World;

/// The name under which a real site has an object of this simulation.
fn name(name: &str) -> Option<ObjectName> {
    let (boot, counter) = name.split_once('-')?;
    Some(ObjectName { boot: Ulid::from_parts(boot.parse().ok()?, 0), counter: counter.parse().ok()? })
}

/// The log that a problem is about.
const fn log_of(problem: &Problem) -> Option<LogName> {
    match problem {
        Problem::Gap { log, .. }
        | Problem::MissingHead { log, .. }
        | Problem::Fork { log, .. }
        | Problem::UnverifiedBatch { log, .. } => Some(*log),
        Problem::Unreadable { .. }
        | Problem::DamagedCopy { .. }
        | Problem::DamagedObject { .. }
        | Problem::UnverifiedDocument { .. }
        | Problem::KeyMissing { .. }
        | Problem::KeyDestroyed { .. }
        | Problem::Uncovered { .. }
        | Problem::SnapshotNotWhole { .. }
        | Problem::Quarantined { .. }
        | Problem::UnknownRecord { .. }
        | Problem::NoRoot => None,
    }
}

const fn is_damage(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Unreadable { .. } | Problem::DamagedCopy { .. } | Problem::DamagedObject { .. }
    )
}

impl World {
    /// An auditor reads what the sites hold that are up.
    pub fn audit(&mut self) {
        if self.options.lan == LanKind::Alone {
            return;
        }
        let expect = match self.planted {
            Some(Planted::AuditorForgets) => Heads::new(),
            _ => self.shown_to_auditor.clone(),
        };
        let problems = match self.audited(expect) {
            Ok(Some(problems)) => problems,
            // There is nothing at all of the school, which is said plainly.
            Ok(None) => return self.show_to_auditor(),
            Err(error) => return self.violate(format!("an audit fails: {error:#}")),
        };
        self.tally.counts.audits += 1;
        self.note(format_args!("an auditor finds {problems:?}"));
        self.judge(&problems);
        self.show_to_auditor();
    }

    fn audited(&self, expect: Heads) -> Result<Option<Vec<Problem>>> {
        let question = Question { school: self.board.school, root: self.board.root.verifying_key(), expect };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let mut sites = Vec::new();
            for (number, disk) in self.sites.iter().enumerate().filter(|(_, disk)| !disk.is_down) {
                let store = InMemory::new();
                for (object, bytes) in &disk.objects {
                    let path = name(object).context("an object has no name")?.path();
                    store.put(&path, PutPayload::from(bytes.clone())).await?;
                }
                let store: Arc<dyn ObjectStore> = Arc::new(store);
                sites.push(Site::over(site(number), format!("site {number}"), store));
            }
            match audit::of_sites(&question, sites, Vec::new(), &mut |_| {}).await {
                Ok(verdict) => Ok(Some(verdict.summary.problems)),
                Err(ExportError::Nothing { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Compares what an auditor says with what is really there.
    fn judge(&mut self, problems: &[Problem]) {
        let up: BTreeSet<usize> =
            (0..self.sites.len()).filter(|number| !self.sites[*number].is_down).collect();
        if let Some(problem) = problems.iter().find(|problem| is_damage(problem)) {
            return self.violate(format!("an auditor finds what nobody has damaged: {problem:?}"));
        }
        let told: BTreeSet<LogName> = problems.iter().filter_map(log_of).collect();
        let (rivals, holes) = (self.ledger.rivals_at(&up), self.ledger.holes_at(&up));
        let known = self.ledger.named_at(&up);
        for log in &rivals {
            if known.contains(&log.incarnation) && !told.contains(log) {
                self.violate(format!("two batches of {log} are for one place, and an auditor is silent"));
            }
        }
        for (log, head) in self.shown_to_auditor.clone() {
            let is_whole = self.ledger.is_whole_at(log, head, &up) && known.contains(&log.incarnation);
            let device = self.devices.get(&log.incarnation);
            let is_revoked = device.is_some_and(|device| self.revoked.contains_key(device));
            let is_odd = rivals.contains(&log) || holes.contains(&log) || is_revoked;
            if !is_whole && !told.contains(&log) && !is_revoked {
                self.violate(format!("{log} is not what an auditor was shown, and the auditor is silent"));
            }
            if is_whole && told.contains(&log) && !is_odd {
                self.violate(format!("an auditor finds {log} wrong, which is whole"));
            }
        }
    }

    /// An auditor writes down what the cloud says it has.
    fn show_to_auditor(&mut self) {
        let overview = self.node.as_ref().map(|node| node.intake.overview()).unwrap_or_default();
        let heads: Heads = overview.into_iter().flat_map(|school| school.heads).collect();
        if self.node.is_some() {
            self.shown_to_auditor = heads;
        }
    }
}
