//! Sites that were tampered with, before an auditor, or a node and those who trust it, read them: the real loader,
//! index and auditor of the cloud over object stores in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use sonae_cloud::export::ExportError;
use sonae_cloud::export::audit::{self, Completeness, Question};
use sonae_cloud::load;
use sonae_cloud::site::Site;
use sonae_proto::batch::Batch;
use sonae_proto::export::Problem;
use sonae_proto::object::{self, RecordKind};
use sonae_proto::vector::Heads;
use tokio::runtime::Runtime;

use super::appliance::{Appliance, Kept};
use super::board::site;
use super::boxes::{Times, batches, fresh, holds_foreign, own_heads};
use super::cloud::{Cloud, Object};
use super::history::{History, hash};
use super::is_expected;
use super::judge::Facts;
use super::objects::tamper;
use super::options::{Options, Victim};
use super::proxy::Proxy;
use super::signal::Signal;

/// Connections of those who trust a node.
const CONNECTIONS: usize = 3;

async fn open(copies: &[Vec<Object>]) -> Result<Vec<Site>> {
    let mut sites = Vec::new();
    for (number, copy) in copies.iter().enumerate() {
        let store = InMemory::new();
        for (name, bytes) in copy {
            store.put(&name.path(), PutPayload::from(bytes.clone())).await.context("memory is full")?;
        }
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        sites.push(Site::over(site(number), format!("site {number}"), store));
    }
    Ok(sites)
}

/// What copies of all sites together still hold.
struct Left {
    /// Batches that replicas sealed, whole, as many as there were.
    all: bool,
    /// Without a hole, and with nothing that no replica sealed: what is missing is missing at the ends of logs.
    sound: bool,
}

fn left(history: &History, copies: &[Vec<Object>], expected: &[Batch]) -> Left {
    let mut whole = BTreeSet::new();
    let mut sound = true;
    for (_, bytes) in copies.iter().flatten() {
        let (records, damage) = object::records(bytes);
        sound &= damage.is_none();
        for record in records.iter().filter(|record| record.kind == Some(RecordKind::Batch)) {
            whole.insert(hash(record.body));
            let batch = Batch::from_bytes(record.body.to_vec());
            let ours = batch.as_ref().is_ok_and(|batch| batch.header().school == history.board.school.code);
            sound &= history.is_genuine(record.body) || (batch.is_ok() && !ours);
        }
    }
    let is_there = |batch: &Batch| whole.contains(&hash(batch.bytes()));
    for log in history.batches.values() {
        let mut ends = log
            .iter()
            .filter(|batch| expected.iter().any(|other| other == *batch))
            .skip_while(|b| is_there(b));
        sound &= !ends.any(is_there);
    }
    Left { all: expected.iter().all(is_there), sound }
}

pub(crate) fn audited(history: &History, options: &Options, runtime: &Runtime) -> Result<Facts> {
    let now = Times::of(history, options).now;
    let tampered = tamper(history, options, now)?;
    let heads = history.heads_at(now);
    let expect =
        if options.victim == Victim::AuditorExpect && is_expected() { heads.clone() } else { Heads::new() };
    let question =
        Question { school: history.board.school.code, root: history.board.root.verifying_key(), expect };
    let verdict = runtime.block_on(async {
        let sites = open(&tampered.copies).await?;
        Ok::<_, anyhow::Error>(audit::of_sites(&question, sites, Vec::new(), &mut |_| {}).await)
    })?;
    let expected = history.batches_up_to(&heads);
    let left = left(history, &tampered.copies, &expected);
    let mut facts =
        Facts { done: tampered.done, notes: tampered.notes, must_say: !left.sound, ..Facts::default() };
    match verdict {
        Ok(verdict) => {
            let changes: u64 = heads.values().map(|head| head.sequence).sum();
            facts.exact = left.all && verdict.summary.changes == changes;
            facts.verified = verdict.completeness == Completeness::Verified
                || (options.victim == Victim::AuditorExpect
                    && verdict.completeness == Completeness::Unverified);
            for problem in &verdict.summary.problems {
                facts.notes.push(format!("{problem:?}"));
                facts.signals.insert(signal_of(problem));
            }
        }
        Err(ExportError::Nothing { .. }) => drop(facts.signals.insert(Signal::AuditMissing)),
        Err(error) => return Err(error).context("the auditor"),
    }
    Ok(facts)
}

const fn signal_of(problem: &Problem) -> Signal {
    match problem {
        Problem::Gap { .. } => Signal::AuditGap,
        Problem::Fork { .. } => Signal::AuditFork,
        Problem::MissingHead { .. } => Signal::Witness,
        // No key is destroyed in this ring, no device revoked, no snapshot made: what is said to be so is missing.
        Problem::KeyMissing { .. }
        | Problem::KeyDestroyed { .. }
        | Problem::Uncovered { .. }
        | Problem::SnapshotNotWhole { .. }
        | Problem::Quarantined { .. } => Signal::AuditMissing,
        Problem::Unreadable { .. }
        | Problem::DamagedCopy { .. }
        | Problem::DamagedObject { .. }
        | Problem::UnverifiedBatch { .. }
        | Problem::UnverifiedDocument { .. }
        | Problem::UnknownRecord { .. }
        | Problem::NoRoot => Signal::AuditForged,
    }
}

/// Starts a node on tampered sites; then a box that has run before, and a fresh one, trust it.
pub(crate) fn node(history: &History, options: &Options, runtime: &Runtime) -> Result<Facts> {
    let now = Times::of(history, options).now;
    let tampered = tamper(history, options, now)?;
    let (sites, quorum) = (history.options.sites, history.options.quorum);
    let loaded = runtime.block_on(async {
        let sites = open(&tampered.copies).await?;
        Ok::<_, anyhow::Error>(load::load(&sites).await)
    })?;
    let readable = loaded.sites.iter().filter(|reading| reading.fault.is_none()).count();
    let complete = readable + quorum > sites;
    let mut signals = BTreeSet::new();
    if loaded.sites.iter().any(|reading| reading.damaged > 0 || reading.fault.is_some()) || !complete {
        signals.insert(Signal::NodeDamaged);
    }
    let objects = tampered.copies.concat();
    let cloud = Cloud::of_index(&history.board, loaded.index, objects, (sites, quorum), complete);
    let found = [
        (cloud.fed.equivocations, Signal::NodeFork),
        (cloud.fed.cut_off, Signal::NodeHole),
        (
            cloud.fed.forged + cloud.fed.nameless + cloud.fed.meaningless + cloud.fed.foreign_documents,
            Signal::NodeForged,
        ),
    ];
    signals.extend(found.into_iter().filter(|(count, _)| *count > 0).map(|(_, signal)| signal));
    let heads = history.heads_at(now);
    let mut facts = Facts { done: tampered.done, notes: tampered.notes, signals, ..Facts::default() };
    trust(history, options, cloud, &heads, &mut facts)?;
    let left = left(history, &tampered.copies, &history.batches_up_to(&heads));
    facts.must_say |= !left.sound;
    Ok(facts)
}

fn trust(history: &History, options: &Options, cloud: Cloud, heads: &Heads, facts: &mut Facts) -> Result<()> {
    let life = history.lives[0].clone();
    let there = cloud.heads(&history.board);
    let kept = Kept {
        batches: batches(history, heads, heads),
        receipted: own_heads(history, heads),
        loss_counter: 0,
        epoch: 1,
        ..Kept::default()
    };
    let wanted = history.state_of(&history.batches_up_to(heads))?;
    let (sites, quorum) = (history.options.sites, history.options.quorum);
    let same = Cloud::boot(&history.board, cloud.objects.clone(), sites, quorum);
    let mut proxy = Proxy::honest(history, options, cloud, &life)?;
    let mut owner = Appliance::start(history, life, kept)?;
    owner.meet(&mut proxy, CONNECTIONS);
    let fresh = fresh(history, options, same)?;
    let missing = fresh.missing(heads) > 0 && is_expected();
    facts.must_say |= own_heads(history, &there) != own_heads(history, heads);
    facts.exact = there == *heads && owner.state() == wanted && fresh.state() == wanted && !missing;
    if missing {
        facts.signals.insert(Signal::Witness);
    }
    for trusting in [&owner, &fresh] {
        facts.kept_foreign |= holds_foreign(history, trusting);
        facts.signals.extend(trusting.signals.iter().copied());
        facts.notes.extend(trusting.notes.iter().cloned());
    }
    Ok(())
}
