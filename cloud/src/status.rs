//! The facts of a node for people and scripts: `DATA/status.json`, rewritten at most once a second and only when
//! something changed. It holds nothing secret and nothing that matters: a lost file costs nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sonae_proto::identity::{Beginning, ReplicaKind};
use sonae_proto::ids::{Incarnation, LogName, ReplicaId, SchoolCode};
use sonae_proto::intake::{Proofs, QuarantinedBranch, SchoolOverview};
use sonae_proto::proof::{Proof, ProofResult};
use sonae_proto::receipt::SiteId;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::RefusalCode;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::now_ms;
use crate::compaction::{CompactionStatus, DestructionStatus};
use crate::engine::Input;
use crate::limits::{STATUS_BYTES_MAX, STATUS_INTERVAL};

/// Label of the file.
pub const FORMAT: &str = "sonae/cloud-status/v1";

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// [`FORMAT`].
    pub format: String,
    /// The ULID of this start.
    pub boot: String,
    /// Where the node listens.
    pub listen: String,
    /// When it started, milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When this file was written.
    pub updated_ms: u64,
    /// Whether enough sites were read at the start for the heads to be complete.
    pub complete: bool,
    /// How many sites make a receipt.
    pub quorum: usize,
    /// All sites that were named.
    pub sites: Vec<SiteStatus>,
    /// All schools.
    pub schools: Vec<SchoolStatus>,
    /// Connections now.
    pub connections: u64,
    /// Refusals since the start, by code.
    pub refusals: BTreeMap<RefusalCode, u64>,
    /// Handshakes that were refused since the start: an unknown or expired certificate.
    pub handshakes_refused: u64,
    /// Handshakes that did not come to an end since the start.
    pub handshakes_failed: u64,
    /// Batches for whose place in their log there is another, found at the start.
    pub equivocations: u64,
    /// Batches before which something is lost, found at the start.
    pub cut_off: u64,
    /// What is merged and deleted.
    #[serde(default)]
    pub compaction: CompactionStatus,
    /// What is left of keys that boards have destroyed.
    #[serde(default)]
    pub destruction: DestructionStatus,
    /// The last error.
    pub last_error: Option<LastError>,
}

/// One site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Its id in hexadecimal; empty when it cannot be opened.
    pub id: String,
    /// Where it is.
    pub place: String,
    /// What can be said of it.
    pub state: SiteState,
    /// Objects that it holds.
    pub objects: u64,
    /// Objects that were damaged at the start.
    pub damaged: u64,
    /// Objects that were copied to it at the start.
    pub healed: u64,
    /// Reads and writes that failed since the start.
    pub faults: u64,
    /// The last of them.
    pub last_error: Option<LastError>,
}

/// What can be said of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteState {
    /// The last write or read worked.
    Ok,
    /// The last one did not.
    Failing,
    /// It could not be opened; the node does not use it until it is started again.
    Unusable,
}

/// An error and when it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastError {
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// One school.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchoolStatus {
    /// Its code.
    pub school: SchoolCode,
    /// Version of its newest manifest here.
    pub manifest_version: u64,
    /// Heads of its logs.
    pub heads: Heads,
    /// Devices that the board has revoked.
    #[serde(default)]
    pub revoked: Vec<ReplicaId>,
    /// Batches of theirs that wait for the board's decision.
    #[serde(default)]
    pub quarantined: Vec<QuarantinedStatus>,
    /// Its incarnations.
    pub incarnations: Vec<IncarnationStatus>,
    /// What they say of their restore proofs.
    #[serde(default)]
    pub proofs: Vec<ProofStatus>,
}

/// What one incarnation says of its restore proofs, under its signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProofStatus {
    /// Whose word it is.
    pub incarnation: Incarnation,
    /// Number of its last proof.
    pub number: u64,
    /// How that ended; anything but `proved` is a failure.
    pub result: ProofResult,
    /// Why it was no success; empty for one.
    pub cause: String,
    /// When it ended, by the device's clock, milliseconds since 1970 UTC.
    pub ended_ms: u64,
    /// When the last one that succeeded ended; absent when none did.
    pub proved_ms: Option<u64>,
}

/// Batches of a revoked device that follow one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedStatus {
    /// The device.
    pub replica: ReplicaId,
    /// The log.
    pub log: LogName,
    /// Batches.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Their end, as the board names it to accept or drop them.
    pub head: LogHead,
}

impl From<QuarantinedBranch> for QuarantinedStatus {
    fn from(branch: QuarantinedBranch) -> Self {
        let QuarantinedBranch { replica, log, batches, changes, head } = branch;
        Self { replica, log, batches, changes, head }
    }
}

/// One incarnation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IncarnationStatus {
    /// Its name.
    pub incarnation: Incarnation,
    /// The device.
    pub replica: ReplicaId,
    /// What the device is for.
    pub kind: ReplicaKind,
    /// Why it began.
    pub beginning: Beginning,
    /// When, by the device's clock.
    pub began_ms: u64,
    /// 1 for the device's first.
    pub ordinal: usize,
    /// Whether the device had one before: a rebuild, or its bundle was used twice.
    pub second: bool,
}

fn ended_ms(proof: &Proof) -> u64 {
    proof.began_ms.saturating_add(proof.duration_ms)
}

impl From<Proofs> for ProofStatus {
    fn from(proofs: Proofs) -> Self {
        let last = proofs.last.body();
        Self {
            incarnation: last.incarnation,
            number: last.number,
            result: last.result,
            cause: last.cause.clone(),
            ended_ms: ended_ms(last),
            proved_ms: proofs.proved.map(|proved| ended_ms(proved.body())),
        }
    }
}

impl From<SchoolOverview> for SchoolStatus {
    fn from(school: SchoolOverview) -> Self {
        let incarnations = school.incarnations.into_iter().map(|one| IncarnationStatus {
            incarnation: one.incarnation,
            replica: one.replica,
            kind: one.kind,
            beginning: one.beginning,
            began_ms: one.began_ms,
            ordinal: one.ordinal,
            second: one.ordinal > 1,
        });
        Self {
            school: school.school,
            manifest_version: school.manifest_version,
            heads: school.heads,
            revoked: school.revoked,
            quarantined: school.quarantined.into_iter().map(QuarantinedStatus::from).collect(),
            incarnations: incarnations.collect(),
            proofs: school.proofs.into_iter().map(ProofStatus::from).collect(),
        }
    }
}

/// Where the parts of a node note what happens.
#[derive(Debug)]
pub struct Board {
    status: Mutex<Status>,
    changed: Notify,
}

impl Board {
    /// Starts with what is known at the start.
    #[must_use]
    pub fn new(status: Status) -> Arc<Self> {
        Arc::new(Self { status: Mutex::new(status), changed: Notify::new() })
    }

    /// Changes something.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        // A panic elsewhere leaves counters that are at worst one behind.
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Notes that the engine's state may have changed.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    /// Returns a copy, without schools.
    #[must_use]
    pub fn copy(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a refusal.
    pub fn note_refusal(&self, code: RefusalCode) {
        self.update(|status| *status.refusals.entry(code).or_default() += 1);
    }

    /// Notes an error.
    pub fn note_error(&self, text: &str) {
        self.update(|status| status.last_error = Some(error_now(text)));
    }

    /// Notes that a read or write at a site failed.
    pub fn note_site_fault(&self, id: SiteId, text: &str) {
        let id = HEXLOWER.encode(&id);
        self.update(|status| {
            status.last_error = Some(error_now(text));
            for site in status.sites.iter_mut().filter(|site| site.id == id) {
                site.state = SiteState::Failing;
                site.faults += 1;
                site.last_error = Some(error_now(text));
            }
        });
    }

    /// Notes an object that these sites have.
    pub fn note_put(&self, sites: &[SiteId]) {
        let ids: Vec<String> = sites.iter().map(|id| HEXLOWER.encode(id)).collect();
        self.update(|status| {
            for site in status.sites.iter_mut().filter(|site| ids.contains(&site.id)) {
                site.state = SiteState::Ok;
                site.objects += 1;
            }
        });
    }

    /// Keeps the file fresh for as long as it runs.
    pub async fn keep(self: Arc<Self>, engine: mpsc::Sender<Input>, data: PathBuf) {
        loop {
            self.changed.notified().await;
            self.write(&engine, &data).await;
            tokio::time::sleep(STATUS_INTERVAL).await;
        }
    }

    /// Writes the file once.
    pub async fn write(&self, engine: &mpsc::Sender<Input>, data: &Path) {
        let (ask, answer) = oneshot::channel();
        if engine.send(Input::Overview(ask)).await.is_err() {
            return;
        }
        let Ok(schools) = answer.await else { return };
        let mut status = self.copy();
        status.schools = schools.into_iter().map(SchoolStatus::from).collect();
        status.updated_ms = now_ms();
        let path = data.to_owned();
        let written = tokio::task::spawn_blocking(move || write_file(&path, &status)).await;
        if let Ok(Err(error)) = written {
            log::warn!(error:% = error; "the status file was not written");
        }
    }
}

/// Returns an error with the present time.
#[must_use]
pub fn error_now(text: &str) -> LastError {
    LastError { at_ms: now_ms(), text: text.to_owned() }
}

fn write_file(data: &Path, status: &Status) -> std::io::Result<()> {
    let staged = data.join("status.json.new");
    std::fs::write(&staged, serde_json::to_vec_pretty(status)?)?;
    std::fs::rename(staged, data.join("status.json"))
}

/// Reads the file of a data directory.
///
/// # Errors
/// When it is not there or has no meaning.
pub fn read(data: &Path) -> std::io::Result<Status> {
    let mut text = Vec::new();
    File::open(data.join("status.json"))?.take(STATUS_BYTES_MAX).read_to_end(&mut text)?;
    let status: Status = serde_json::from_slice(&text)?;
    if status.format == FORMAT {
        Ok(status)
    } else {
        Err(std::io::Error::other("a status file of another version"))
    }
}
