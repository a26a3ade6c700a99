//! Restore proofs: this box fetches into a scratch store what the cloud alone gives back, and compares it with what it
//! holds itself (P5, P10). Daily, and whenever somebody asks.
//!
//! A mark is set first: everything is sealed, and heads and digests there are remembered; the store goes on meanwhile.
//! Once all of that has receipts, the cloud must give it back. Then equal heads, equal vectors and equal digests are a
//! success, and nothing else is. What was found is signed, kept and published.
//!
//! Mostly a tier comes as the snapshot that this box made of it, and the logs behind that, as it would for a new box.
//! Before batches are pruned they are read back once themselves, from where the last pruning ended: a *whole* proof.
//!
//! **Invariant**: a proof writes nothing under any incarnation, sends no batch and moves nothing that is safe.
//! **Invariant**: whatever ends a proof but a success is a failure, and is said (P10).

mod attempt;
pub mod compare;
pub mod policy;
pub mod power;
mod scratch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sonae_proto::digest::MERGE_VERSION;
use sonae_proto::proof::{Proof, ProofError, ProofResult};
use sonae_proto::signed::Signed;
use sonae_store::enrolment;
use sonae_store::identity::ReplicaKeys;
use sonae_store::retention::Retention;
use sonae_store::status::StatusSource;
use tokio::sync::watch;

use crate::replica::ReplicaError;
use attempt::{Attempted, attempt};
use compare::Verdict;
use policy::{Decision, Reading};
pub use scratch::{discard, scratch_dir};

/// How often the policy is asked.
const LOOK: Duration = Duration::from_secs(20);

/// How often people are told again that a proof is overdue.
const TELL_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Proves for one incarnation.
#[derive(Debug, Clone)]
pub struct Prover {
    /// The data directory.
    data: PathBuf,
    /// The store, the main uplink's word and the record.
    source: StatusSource,
    /// Dialled instead of the descriptor's hosts.
    cloud: Option<String>,
}

/// Why evidence cannot be signed.
#[derive(Debug, thiserror::Error)]
enum EvidenceError {
    /// The keys cannot be loaded.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// It does not fit its format.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl Prover {
    /// Takes what it needs of a replica that is served.
    #[must_use]
    pub fn new(data: &Path, source: StatusSource, cloud: Option<String>) -> Self {
        Self { data: data.to_owned(), source, cloud }
    }

    /// Proves whenever it is due or asked for, until `stopped` says so. One that is under way then is given up.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        self.source.proofs.serve(self.now_ms());
        self.note_cut_off();
        let (mut told, mut retention) = (None, Retention::default());
        let mut published = self.source.proofs.unpublished();
        self.tell_overdue(&mut told);
        loop {
            let asked = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = self.source.proofs.asked() => true,
                () = tokio::time::sleep(LOOK) => false,
                // What the cloud has taken may be what pruning waits for.
                Ok(()) = published.changed() => false,
            };
            // There is nothing whole yet to compare with, or to prune.
            if self.source.store.filling().is_filling() {
                continue;
            }
            self.tell_overdue(&mut told);
            retention = self.retain(retention).await;
            if (asked || policy::step(&self.reading()) == Decision::Prove) && !self.prove(&stopped).await {
                return;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.source.store.clock().now_ms()
    }

    fn reading(&self) -> Reading {
        let record = self.source.proofs.record();
        let first = self.source.incarnation.bytes().first_chunk::<8>().copied().unwrap_or_default();
        let ended = |proof: &Proof| proof.began_ms.saturating_add(proof.duration_ms);
        Reading {
            now_ms: self.now_ms(),
            since_ms: record.since_ms,
            proved_ms: record.proved_ms,
            ended_ms: record.last.as_ref().map(|last| ended(&last.proof)),
            failures: record.failures,
            is_line_up: self.source.uplink.get().up,
            is_power_good: power::is_good(Path::new(power::POWER_SUPPLIES)),
            spread: u64::from_be_bytes(first),
        }
    }

    /// Prunes what may go by now.
    async fn retain(&self, mut retention: Retention) -> Retention {
        let (store, proofs) = (self.source.store.clone(), self.source.proofs.clone());
        let data = self.data.clone();
        let looked = tokio::task::spawn_blocking(move || {
            retention.look(&store, &proofs);
            // The documents that the device was enrolled with have the keys of then.
            let forgotten = enrolment::forget_destroyed(&data, &store.destroyed());
            if let Err(error) = forgotten {
                log::warn!(error = error.to_string(); "destroyed keys cannot be taken out of the enrolment yet");
            }
            retention
        });
        // One that has panicked has said so; what it knew is noted.
        looked.await.unwrap_or_default()
    }

    /// Proves once. Returns whether it came to an end.
    async fn prove(&self, stopped: &watch::Receiver<bool>) -> bool {
        let (began, began_ms) = (Instant::now(), self.now_ms());
        let number = self.source.proofs.begin(began_ms);
        log::info!(number; "a restore proof begins");
        let Some(attempted) = attempt(self, stopped).await else { return false };
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.end(number, began_ms, duration_ms, attempted);
        true
    }

    /// A proof that was begun and never ended could not verify anything.
    fn note_cut_off(&self) {
        let record = self.source.proofs.record();
        if let Some(began_ms) = record.begun_ms {
            let verdict = Verdict::not_verified("cut_off", "the box stopped meanwhile; it is tried again");
            let attempted = Attempted { verdict, mark: None, bytes: 0, snapshots: BTreeMap::new() };
            self.end(record.number + 1, began_ms, self.now_ms().saturating_sub(began_ms), attempted);
        }
    }

    fn end(&self, number: u64, began_ms: u64, duration_ms: u64, attempted: Attempted) {
        let Verdict { result, cause, tiers, text } = attempted.verdict;
        let proof = Proof {
            school: self.source.store.school(),
            incarnation: self.source.incarnation,
            number,
            result,
            cause: cause.to_owned(),
            tiers,
            heads: attempted.mark.as_ref().map(|mark| mark.heads.clone()).unwrap_or_default(),
            digests: attempted.mark.map(|mark| mark.digests).unwrap_or_default(),
            merge_version: MERGE_VERSION,
            began_ms,
            duration_ms,
            bytes: attempted.bytes,
            software: concat!("sonae-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
            snapshots: attempted.snapshots,
        };
        let code = match result {
            ProofResult::Proved => {
                log::info!(number, duration_ms, bytes = attempted.bytes; "what the cloud holds restores");
                None
            }
            ProofResult::Differs => Some("proof_differs"),
            ProofResult::Incomplete => Some("proof_incomplete"),
            ProofResult::CouldNotVerify => Some("proof_not_verified"),
        };
        if let Some(code) = code {
            self.alarm(code, text.clone());
        }
        match self.sign(proof) {
            Ok(signed) => self.source.proofs.end(&signed, text),
            Err(error) => {
                log::error!(error = error.to_string(); "the evidence of a restore proof cannot be signed");
            }
        }
    }

    fn sign(&self, proof: Proof) -> Result<Signed<Proof>, EvidenceError> {
        let bundle = enrolment::load(&self.data).map_err(ReplicaError::from)?;
        let keys = ReplicaKeys::load(&self.data, &bundle).map_err(ReplicaError::from)?;
        Ok(proof.sign(&keys.incarnation)?)
    }

    fn alarm(&self, code: &'static str, text: String) {
        log::error!(code, text = text.as_str(); "alarm");
        self.source.uplink.note_error(self.source.store.clock(), code, text);
    }

    fn tell_overdue(&self, told: &mut Option<Instant>) {
        let status = self.source.proofs.status(self.now_ms());
        let is_told = told.is_some_and(|at| at.elapsed() < TELL_AGAIN);
        if !status.is_overdue {
            *told = None;
        } else if !is_told {
            *told = Some(Instant::now());
            let text = format!(
                "for {} h nothing has proved that the copy outside restores; look at the line, then run \
                 `sonae-edge prove`",
                status.unproved_ms / 3_600_000
            );
            self.alarm("proof_overdue", text);
        }
    }
}
