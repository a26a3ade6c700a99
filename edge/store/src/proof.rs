//! What this replica knows of its restore proofs: the record in `DATA/proof.json`, what is shown of it, and the desk
//! where one can be asked for.
//!
//! **Invariant**: only a proof that succeeded has an age. One that is older than two days, or whose age a clock that
//! was set cannot tell, is overdue (P10).
//! **Invariant**: a proof that was begun and did not end is one that could not verify.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use sonae_proto::ids::Tier;
use sonae_proto::limits::PROOF_AGE_MS_MAX;
use sonae_proto::proof::{Proof, ProofResult};
use sonae_proto::signed::Signed;
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::secret_file;
use tokio::sync::{Notify, watch};
use utoipa::ToSchema;

/// The file. What it holds is no secret; it is written as secrets are, whole and durably.
const FILE: &str = "proof.json";

/// What is kept of all proofs of a data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRecord {
    /// Since when proofs are due, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Number of the last proof that ended.
    pub number: u64,
    /// When one was begun that has not ended.
    pub begun_ms: Option<u64>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last that ended.
    pub last: Option<KeptProof>,
    /// The last that succeeded, as it was signed.
    pub proved: Option<String>,
    /// When that ended.
    pub proved_ms: Option<u64>,
}

/// A proof that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptProof {
    /// The evidence, as it was signed.
    pub document: String,
    /// What it says.
    pub proof: Proof,
    /// The same for people, with what to do next.
    pub text: String,
    /// Whether the cloud holds it durably.
    pub published: bool,
}

/// One that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RunningProof {
    /// Its number.
    pub number: u64,
    /// When it began.
    pub began_ms: u64,
    /// What it is doing: `receipts`, `fetching`, `comparing`.
    pub stage: &'static str,
    /// Changes that have come back.
    pub here: u64,
    /// Changes that are to come back.
    pub there: u64,
}

/// What is shown of restore proofs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProofStatus {
    /// The last that ended, whichever way.
    pub last: Option<LastProof>,
    /// When the last one that succeeded ended, milliseconds since 1970 UTC.
    pub proved_ms: Option<u64>,
    /// How long ago that is; absent when there was none.
    pub age_ms: Option<u64>,
    /// Whether that, or the wait for the first, is over two days: an alarm.
    pub is_overdue: bool,
    /// Whether nothing is wrong: the last one succeeded and none is overdue.
    pub is_proved: bool,
    /// How long none has succeeded: since the last that did, or since proofs are due.
    pub unproved_ms: u64,
    /// Failures since the last success.
    pub failures: u32,
    /// One that is under way.
    pub running: Option<RunningProof>,
}

/// One that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastProof {
    /// Its number.
    pub number: u64,
    /// How it ended; anything but `proved` is a failure.
    #[schema(value_type = String)]
    pub result: ProofResult,
    /// A stable word for why; empty for a success.
    pub cause: String,
    /// What happened and what to do next.
    pub text: String,
    /// Tiers that differ or are incomplete.
    #[schema(value_type = Vec<String>)]
    pub tiers: Vec<Tier>,
    /// Tiers that came as a snapshot and not change by change.
    #[schema(value_type = Vec<String>)]
    pub snapshots: Vec<Tier>,
    /// When it ended.
    pub at_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Bytes that came over the line for it.
    pub bytes: u64,
    /// Whether the cloud holds the evidence durably.
    pub published: bool,
}

#[derive(Debug)]
struct Known {
    record: ProofRecord,
    running: Option<RunningProof>,
    /// Somebody proves here.
    is_served: bool,
}

#[derive(Debug)]
struct Inner {
    path: Option<PathBuf>,
    known: RwLock<Known>,
    asked: Notify,
    unpublished: watch::Sender<Option<String>>,
}

/// A handle to what is known; cheap to clone.
#[derive(Debug, Clone)]
pub struct Proofs(Arc<Inner>);

impl Default for Proofs {
    /// Nothing is known and nothing is kept.
    fn default() -> Self {
        Self::of(None, ProofRecord::default())
    }
}

impl Proofs {
    fn of(path: Option<PathBuf>, record: ProofRecord) -> Self {
        let (unpublished, _) = watch::channel(unpublished(&record));
        let known = RwLock::new(Known { record, running: None, is_served: false });
        Self(Arc::new(Inner { path, known, asked: Notify::new(), unpublished }))
    }

    /// Reads what a data directory knows. A record that cannot be read is one of no proof.
    #[must_use]
    pub fn load(data: &Path) -> Self {
        let path = data.join(FILE);
        let read = path.exists().then(|| secret_file::read(&path));
        let record = match read {
            None => ProofRecord::default(),
            Some(Ok(content)) => serde_json::from_slice(&content).unwrap_or_else(|error| {
                log::error!(error = error.to_string(); "the record of restore proofs has no meaning");
                ProofRecord::default()
            }),
            Some(Err(error)) => {
                log::error!(error = error.to_string(); "the record of restore proofs cannot be read");
                ProofRecord::default()
            }
        };
        Self::of(Some(path), record)
    }

    /// Returns what is kept.
    #[must_use]
    pub fn record(&self) -> ProofRecord {
        self.read(|known| known.record.clone())
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.0.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the record and keeps it. A record that cannot be written is said and goes on in memory.
    fn change(&self, change: impl FnOnce(&mut Known)) {
        let record = {
            let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut known);
            known.record.clone()
        };
        if let Some(path) = &self.0.path
            && let Ok(content) = serde_json::to_vec(&record)
            && let Err(error) = secret_file::replace(path, &content, &mut SystemEntropy)
        {
            log::error!(error = error.to_string(); "the record of restore proofs cannot be written");
        }
        self.0.unpublished.send_replace(unpublished(&record));
    }

    /// Says that proofs are made here from now on.
    pub fn serve(&self, now_ms: u64) {
        self.change(|known| {
            known.is_served = true;
            if known.record.since_ms == 0 {
                known.record.since_ms = now_ms.max(1);
            }
        });
    }

    /// Notes durably that one begins. Returns its number.
    ///
    /// # Durability
    /// If power is cut from here on, the next start knows that this one did not end.
    pub fn begin(&self, now_ms: u64) -> u64 {
        self.change(|known| {
            let number = known.record.number + 1;
            known.record.begun_ms = Some(now_ms);
            known.running =
                Some(RunningProof { number, began_ms: now_ms, stage: "receipts", here: 0, there: 0 });
        });
        self.read(|known| known.record.number + 1)
    }

    /// Notes how far the one is that is under way.
    pub fn progress(&self, stage: &'static str, here: u64, there: u64) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &mut known.running {
            (running.stage, running.here, running.there) = (stage, here, there);
        }
    }

    /// Keeps one that ended.
    ///
    /// # Durability
    /// It is on stable storage when this returns, unless the log says otherwise.
    pub fn end(&self, signed: &Signed<Proof>, text: String) {
        let (proof, document) = (signed.body().clone(), signed.text().to_owned());
        self.change(|known| {
            let record = &mut known.record;
            (record.number, record.begun_ms, known.running) = (proof.number, None, None);
            record.failures = if proof.result == ProofResult::Proved { 0 } else { record.failures + 1 };
            if proof.result == ProofResult::Proved {
                record.proved = Some(document.clone());
                record.proved_ms = Some(proof.began_ms.saturating_add(proof.duration_ms));
            }
            record.last = Some(KeptProof { document, proof, text, published: false });
        });
    }

    /// Notes that the cloud holds a document durably.
    pub fn published(&self, document: &str) {
        let is_last =
            |known: &Known| known.record.last.as_ref().is_some_and(|last| last.document == document);
        if self.read(is_last) {
            self.change(|known| {
                if let Some(last) = &mut known.record.last {
                    last.published |= last.document == document;
                }
            });
        }
    }

    /// Returns what the cloud does not hold yet, now and whenever that changes.
    #[must_use]
    pub fn unpublished(&self) -> watch::Receiver<Option<String>> {
        self.0.unpublished.subscribe()
    }

    /// Asks for a proof as soon as may be. Returns the number of the one that answers; `None` when nobody proves here.
    #[must_use]
    pub fn ask(&self) -> Option<u64> {
        let number = self.read(|known| known.is_served.then_some(known.record.number + 1));
        if number.is_some() && self.read(|known| known.running.is_none()) {
            self.0.asked.notify_one();
        }
        number
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Composes what is shown.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> ProofStatus {
        self.read(|known| status(known, now_ms))
    }
}

fn unpublished(record: &ProofRecord) -> Option<String> {
    record.last.as_ref().filter(|last| !last.published).map(|last| last.document.clone())
}

fn status(known: &Known, now_ms: u64) -> ProofStatus {
    let record = &known.record;
    let last = record.last.as_ref().map(|kept| LastProof {
        number: kept.proof.number,
        result: kept.proof.result,
        cause: kept.proof.cause.clone(),
        text: kept.text.clone(),
        tiers: kept.proof.tiers.clone(),
        snapshots: kept.proof.snapshots.keys().copied().collect(),
        at_ms: kept.proof.began_ms.saturating_add(kept.proof.duration_ms),
        duration_ms: kept.proof.duration_ms,
        bytes: kept.proof.bytes,
        published: kept.published,
    });
    // A clock that fell back makes the distance large, and so tells that the age is not known.
    let distance = |at_ms: u64| now_ms.abs_diff(at_ms);
    let unproved_ms = match (record.proved_ms, record.since_ms) {
        (Some(at_ms), _) => distance(at_ms),
        (None, 0) => 0,
        (None, since_ms) => distance(since_ms),
    };
    let is_overdue = unproved_ms > PROOF_AGE_MS_MAX;
    let is_success = record.last.as_ref().is_some_and(|last| last.proof.result == ProofResult::Proved);
    ProofStatus {
        last,
        proved_ms: record.proved_ms,
        age_ms: record.proved_ms.map(distance),
        is_overdue,
        is_proved: is_success && !is_overdue,
        unproved_ms,
        failures: record.failures,
        running: known.running.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use sonae_proto::digest::Digest;
    use sonae_proto::ids::Incarnation;

    fn signed(number: u64, result: ProofResult, began_ms: u64) -> Signed<Proof> {
        let cause = if result == ProofResult::Proved { "" } else { "missing" };
        let proof = Proof {
            school: "B113200000011".parse().unwrap(),
            incarnation: Incarnation::from_bytes([1; 16]),
            number,
            result,
            cause: cause.into(),
            tiers: Vec::new(),
            heads: sonae_proto::vector::Heads::new(),
            digests: Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect(),
            merge_version: 1,
            began_ms,
            duration_ms: 10,
            bytes: 0,
            software: "test".into(),
            snapshots: std::collections::BTreeMap::new(),
        };
        proof.sign(&SigningKey::from_bytes(&[1; 32])).unwrap()
    }

    /// Goal: what is known survives a restart, a proof that did not end included. Method: begin, load anew, end, load
    /// anew, publish another document and the right one.
    #[test]
    fn the_record_survives() {
        let dir = tempfile::tempdir().unwrap();
        let proofs = Proofs::load(dir.path());
        assert_eq!(proofs.ask(), None, "nobody proves here");
        proofs.serve(1_000);
        assert_eq!((proofs.ask(), proofs.begin(2_000)), (Some(1), 1));
        let again = Proofs::load(dir.path());
        assert_eq!((again.record().begun_ms, again.status(3_000).is_proved), (Some(2_000), false));
        let evidence = signed(1, ProofResult::Proved, 2_000);
        again.end(&evidence, String::new());
        let again = Proofs::load(dir.path());
        assert_eq!((again.record().begun_ms, again.record().proved_ms), (None, Some(2_010)));
        assert_eq!(again.unpublished().borrow().as_deref(), Some(evidence.text()));
        again.published("another");
        assert!(again.unpublished().borrow().is_some());
        again.published(evidence.text());
        let again = Proofs::load(dir.path());
        assert_eq!(*again.unpublished().borrow(), None);
        assert!(again.status(3_000).is_proved && again.status(3_000).last.unwrap().published);
    }

    /// Goal: a failure never counts as a pass, an old success not for ever, and a clock that fell back cannot make it
    /// young. Method: success, failure, then later and earlier times.
    #[test]
    fn could_not_verify_is_no_pass() {
        let day = PROOF_AGE_MS_MAX / 2;
        let now_ms = 1_000 * day;
        let proofs = Proofs::default();
        assert!(!proofs.status(now_ms).is_proved && !proofs.status(now_ms).is_overdue);
        proofs.serve(now_ms);
        assert!(!proofs.status(now_ms + day).is_overdue && proofs.status(now_ms + 3 * day).is_overdue);
        proofs.end(&signed(1, ProofResult::Proved, now_ms), String::new());
        assert!(proofs.status(now_ms + day).is_proved);
        assert!(proofs.status(now_ms + 3 * day).is_overdue && !proofs.status(now_ms + 3 * day).is_proved);
        assert!(proofs.status(0).is_overdue, "a clock that fell back to 1970");
        proofs.end(&signed(2, ProofResult::CouldNotVerify, now_ms + day), String::new());
        let status = proofs.status(now_ms + day);
        assert!(!status.is_proved && !status.is_overdue && status.failures == 1);
        assert_eq!(status.proved_ms, Some(now_ms + 10), "the success keeps its date");
    }
}
