//! How long sealed batches stay: for each tier a snapshot that is to stand for them, what is known of it, and what is
//! lacking before they go. The policy is `sonae_proto::retention`; the keeper does the deed.
//!
//! **Invariant**: what is remembered here can be lost at any time: then everything that is lacking has to come anew.

use std::collections::BTreeMap;

use serde::Serialize;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::proof::Proof;
use sonae_proto::retention::{Candidate, DAY_MS, Lack, RETAIN_DAYS_MIN};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::foundation;
use crate::keeper::{Late, Request};
use crate::proof::Proofs;
use crate::shelf::Shelf;
use crate::snapshot::Made;
use crate::store::{Store, StoreError};

/// Milliseconds of running for which batches are kept.
const RETAIN_MS: u64 = RETAIN_DAYS_MIN * DAY_MS;

/// Milliseconds of running that a power cut may take from the age of a candidate: it only gets younger by that.
const WRITE_MS: u64 = 60 * 60 * 1_000;

/// The note of a tier's candidate.
fn name(tier: Tier) -> String {
    format!("prune-{tier}.json")
}

/// Reads the candidate of a tier, if its snapshot is on the shelf.
pub(crate) fn candidate(shelf: &Shelf, tier: Tier) -> Option<Candidate> {
    let candidate: Candidate = serde_json::from_slice(&shelf.note(&name(tier))?).ok()?;
    shelf.root(candidate.root).filter(|root| root.tier == tier).map(|_| candidate)
}

/// What is kept of a tier as batches, and what is lacking before some of them go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RetentionStatus {
    /// Changes that are not held one by one any more: a snapshot stands for them.
    pub pruned_changes: u64,
    /// What is lacking before the batches below the next snapshot go: `receipt`, `read_back`, `proof`, `restore`, `age`.
    /// Absent while there is none.
    #[schema(value_type = Option<String>)]
    pub lacks: Option<Lack>,
    /// For how long the box has to run until then, at least, in milliseconds.
    pub left_ms: Option<u64>,
}

/// Composes what is shown of a tier.
pub(crate) fn status(store: &Store, proofs: &Proofs, tier: Tier) -> RetentionStatus {
    let state = store.state();
    let of_tier = state.pruned.iter().filter(|(log, _)| log.tier == tier);
    let pruned_changes = of_tier.map(|(_, head)| head.sequence).sum();
    let candidate = candidate(store.shelf(), tier);
    let restores = proofs.status(store.clock().now_ms()).is_proved;
    RetentionStatus {
        pruned_changes,
        lacks: candidate.and_then(|candidate| candidate.lacks(state.loss_counter, restores, RETAIN_MS)),
        left_ms: candidate.map(|candidate| RETAIN_MS.saturating_sub(candidate.aged_ms)),
    }
}

/// What is known at one look.
struct Seen<'a> {
    /// Milliseconds since the last look.
    passed_ms: u64,
    /// Number of the last proof that has begun.
    begun: u64,
    /// The last proof, if the cloud has its evidence.
    shown: Option<&'a Proof>,
    /// Whether the last proof succeeded and is young.
    restores: bool,
}

/// Watches over the candidates of a store that runs.
#[derive(Debug, Default)]
pub struct Retention {
    /// The steady time of the last look in this life of the process.
    looked_ms: Option<u64>,
    candidates: BTreeMap<Tier, Candidate>,
}

impl Retention {
    /// Looks what is known by now, and prunes what may go. Blocking; to be called often.
    pub fn look(&mut self, store: &Store, proofs: &Proofs) {
        let now_ms = store.clock().steady_ms();
        let passed_ms = self.looked_ms.replace(now_ms).map_or(0, |then_ms| now_ms.saturating_sub(then_ms));
        let record = proofs.record();
        // One that is under way counts as one of before.
        let begun = record.number + u64::from(record.begun_ms.is_some());
        let shown = record.last.as_ref().filter(|last| last.published).map(|last| &last.proof);
        let restores = proofs.status(store.clock().now_ms()).is_proved;
        for tier in Tier::ALL {
            let seen = Seen { passed_ms, begun, shown, restores };
            if let Err(error) = self.look_at(store, tier, &seen) {
                log::warn!(tier:% = tier, error = error.to_string(); "batches of a tier cannot be pruned yet");
            }
        }
    }

    fn look_at(&mut self, store: &Store, tier: Tier, seen: &Seen<'_>) -> Result<(), StoreError> {
        let (shelf, state) = (store.shelf(), store.state());
        let kept = candidate(shelf, tier);
        // In memory it is up to an hour older than what is written.
        let known = self.candidates.get(&tier).filter(|known| Some(known.root) == kept.map(|kept| kept.root));
        let known = known.copied().or(kept).filter(|known| known.loss_counter == state.loss_counter);
        let fresh = fresh(shelf, tier, state.loss_counter, state.foundations.get(&tier));
        let fresh = fresh.map(|root| Candidate::new(root, state.loss_counter, seen.begun));
        // One that has not come back is given up for a newer one: the cloud serves the newest ones only.
        let stays = |known: &Candidate| known.read_back || fresh.is_none_or(|fresh| fresh.root == known.root);
        let Some(mut now) = known.filter(stays).or(fresh) else { return Ok(()) };
        let is_known = known.is_some_and(|known| known.root == now.root);
        let Some(root) = shelf.root(now.root) else { return Ok(()) };
        now.aged_ms = now.aged_ms.saturating_add(if is_known { seen.passed_ms } else { 0 });
        seen.shown.into_iter().for_each(|proof| now.learn(tier, &root.heads, proof));
        self.candidates.insert(tier, now);
        if now.lacks(state.loss_counter, seen.restores, RETAIN_MS).is_none() {
            return self.prune(store, tier, now);
        }
        let is_news = kept.is_none_or(|kept| {
            Candidate { aged_ms: 0, ..kept } != Candidate { aged_ms: 0, ..now }
                || now.aged_ms >= kept.aged_ms.saturating_add(WRITE_MS)
        });
        if is_news
            && let Ok(note) = serde_json::to_vec(&now)
            && let Err(error) = shelf.put_note(&name(tier), &note)
        {
            log::warn!(error = error.to_string(); "what is known of a snapshot cannot be noted");
        }
        Ok(())
    }

    fn prune(&mut self, store: &Store, tier: Tier, candidate: Candidate) -> Result<(), StoreError> {
        let (hash, shelf) = (candidate.root, store.shelf());
        let pruned = store.prune_blocking(tier, hash);
        match &pruned {
            Ok(None) => return Ok(()),
            Ok(Some(freed_bytes)) => {
                log::info!(tier:% = tier, root:% = hash, freed_bytes; "batches were pruned");
            }
            // The next one is made anew.
            Err(StoreError::Snapshot { .. }) => Made::forget(shelf, tier, hash),
            Err(_) => return pruned.map(drop),
        }
        self.candidates.remove(&tier);
        shelf.remove_note(&name(tier));
        pruned.map(drop)
    }
}

/// Returns the newest snapshot that was made here and has its receipt, unless the tier begins with it already.
fn fresh(shelf: &Shelf, tier: Tier, loss_counter: u64, foundation: Option<&Hash32>) -> Option<Hash32> {
    let made = Made::read(shelf, tier).filter(|made| made.is_safe(loss_counter));
    made.map(|made| made.root).filter(|root| Some(root) != foundation)
}

impl Store {
    /// Has a snapshot on the shelf stand for the batches below its heads: it is read whole and added up once more, then
    /// the keeper lays it under its tier. Whoever calls this has asked the policy. For a thread that may be busy for a
    /// while. Returns the bytes by which the archive has become smaller; `None` while a snapshot is being made.
    ///
    /// # Errors
    /// [`StoreError`]; the batches are then as they were.
    ///
    /// # Durability
    /// As [`crate::Store::load_snapshot`].
    pub fn prune_blocking(&self, tier: Tier, hash: Hash32) -> Result<Option<u64>, StoreError> {
        let closing = || StoreError::Closing;
        let missing = StoreError::Snapshot { root: hash, what: "is not there whole" };
        let root = self.shelf().root(hash).filter(|root| root.tier == tier).ok_or(missing)?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Late(Late::Keys { tier, epoch: root.epoch, reply })).map_err(|_| closing())?;
        let keys = answer.blocking_recv().map_err(|_| closing())??;
        foundation::read_with(self.shelf(), hash, &root, &keys, |_| Ok(()))?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Late(Late::Prune { root: hash, reply })).map_err(|_| closing())?;
        answer.blocking_recv().map_err(|_| closing())?
    }

    /// Whether a proof is wanted that reads back, change by change, what is to be pruned next.
    #[must_use]
    pub fn wants_whole_proof(&self) -> bool {
        let waits =
            |tier| candidate(self.shelf(), tier).is_some_and(|known| known.read_back && !known.proved);
        Tier::ALL.into_iter().any(waits)
    }

    /// Returns the snapshots that the cloud has and whose heads are held here: for each tier the one that is to stand for
    /// batches, until it has come back once, else the newest that was made here, else the one that the tier begins with.
    #[must_use]
    pub fn own_snapshots(&self) -> BTreeMap<Tier, Hash32> {
        let (shelf, state) = (self.shelf(), self.state());
        let loss_counter = state.loss_counter;
        let of = |tier| {
            let waiting = candidate(shelf, tier).filter(|known| !known.read_back).map(|known| known.root);
            let made = Made::read(shelf, tier).filter(|made| made.is_safe(loss_counter));
            let own = waiting.or_else(|| made.map(|made| made.root));
            Some((tier, own.or_else(|| state.foundations.get(&tier).copied())?))
        };
        Tier::ALL.into_iter().filter_map(of).collect()
    }
}
