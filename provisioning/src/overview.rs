//! What the board has, verified and without secrets: the answer of `show`.

use std::fmt;

use serde::Serialize;
use sonae_proto::hold::Hold;
use sonae_proto::identity::ReplicaKind;
use sonae_proto::ids::{Hash32, ReceiptKeyId, ReplicaId, SchoolCode};
use sonae_proto::manifest::{ManifestKey, Reader};
use sonae_proto::revocation::Revocation;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::board::{Board, BoardFacts, SECRET_FILES};
use crate::cloud;
use crate::error::ProvisionError;
use crate::school::{self, School};

/// Everything that may be known of a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The board.
    pub board: BoardFacts,
    /// Files of secrets that are on this machine; `recovery.key` should not be among them for long.
    pub secret_files: Vec<&'static str>,
    /// Its cloud, if there is one.
    pub cloud: Option<CloudOverview>,
    /// Its schools, by code.
    pub schools: Vec<SchoolOverview>,
}

/// The cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CloudOverview {
    /// Version of its descriptor.
    pub version: u64,
    /// Where it is dialled.
    pub hosts: Vec<String>,
    /// BLAKE3 of its nodes' certificates.
    pub tls_certificates: Vec<Hash32>,
    /// Names of the keys whose receipts count.
    pub receipt_keys: Vec<ReceiptKeyId>,
}

/// A school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchoolOverview {
    /// Its code.
    pub code: SchoolCode,
    /// Its name for people.
    pub name: String,
    /// Version of its manifest.
    pub manifest_version: u64,
    /// Hash of its manifest, as batches name it.
    pub manifest_hash: Hash32,
    /// Its keys.
    pub keys: Vec<ManifestKey>,
    /// Who may open them.
    pub readers: Vec<Reader>,
    /// Its replicas.
    pub replicas: Vec<ReplicaOverview>,
    /// Those that were revoked.
    pub revoked: Vec<Revocation>,
    /// Those at which nobody may write.
    pub held: Vec<Hold>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaOverview {
    /// Its name.
    pub replica: ReplicaId,
    /// What it is for.
    pub kind: ReplicaKind,
    /// When it was enrolled, milliseconds since 1970 UTC.
    pub enrolled_ms: u64,
    /// Its age recipient.
    pub recipient: String,
    /// Names of its LAN service.
    pub lan_names: Vec<String>,
}

impl Overview {
    /// Reads and verifies all that the board has.
    ///
    /// # Errors
    /// [`ProvisionError::Unverified`], [`ProvisionError::Damaged`], those of the disk.
    pub fn of(board: &Board) -> Result<Self, ProvisionError> {
        let cloud = cloud::descriptor(board)?.map(|descriptor| {
            let body = descriptor.body();
            CloudOverview {
                version: body.version,
                hosts: body.hosts.clone(),
                tls_certificates: body.tls_certificates.clone(),
                receipt_keys: body
                    .receipt_keys
                    .iter()
                    .map(|receipt| ReceiptKeyId::of_key(receipt.key.as_bytes()))
                    .collect(),
            }
        });
        let schools = school::codes(board)?
            .into_iter()
            .map(|code| School::load(board, code).map(SchoolOverview::from))
            .collect::<Result<_, _>>()?;
        let is_here = |name: &&str| board.dir().join(name).exists();
        let secret_files = SECRET_FILES.into_iter().filter(is_here).collect();
        Ok(Self { board: board.facts().clone(), secret_files, cloud, schools })
    }
}

impl From<School> for SchoolOverview {
    fn from(school: School) -> Self {
        let manifest = school.manifest.body();
        let replicas = school.replicas.into_iter().map(|replica| ReplicaOverview {
            replica: replica.replica,
            kind: replica.kind,
            enrolled_ms: replica.enrolled_ms,
            recipient: replica.recipient,
            lan_names: replica.lan_names,
        });
        Self {
            code: school.facts.code,
            name: school.facts.name,
            manifest_version: manifest.version,
            manifest_hash: school.manifest.hash(),
            keys: manifest.keys.clone(),
            readers: manifest.readers.clone(),
            replicas: replicas.collect(),
            revoked: manifest.revoked.clone(),
            held: manifest.held.clone(),
        }
    }
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "board     {}", self.board.name)?;
        writeln!(f, "root      {}", hex(self.board.root.as_bytes()))?;
        writeln!(f, "secrets   {}", self.secret_files.join(" "))?;
        match &self.cloud {
            None => writeln!(f, "cloud     none; run `sonae-provision cloud enrol`")?,
            Some(cloud) => {
                writeln!(f, "cloud     descriptor {}: {}", cloud.version, cloud.hosts.join(" "))?;
                for (key, certificate) in cloud.receipt_keys.iter().zip(&cloud.tls_certificates) {
                    writeln!(f, "  node    receipt key {key}, certificate {certificate}")?;
                }
            }
        }
        self.schools.iter().try_for_each(|school| school.fmt(f))
    }
}

impl fmt::Display for SchoolOverview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "school    {} {}", self.code, self.name)?;
        writeln!(f, "  manifest {} {}", self.manifest_version, self.manifest_hash)?;
        write!(f, "  keys   ")?;
        for key in &self.keys {
            write!(f, " {}-{}", key.key_use, key.epoch)?;
        }
        write!(f, "\n  readers")?;
        for reader in &self.readers {
            write!(f, " {}", reader.name)?;
        }
        writeln!(f)?;
        for replica in &self.replicas {
            let (kind, when) = (kind_name(replica.kind), utc(replica.enrolled_ms));
            writeln!(f, "  replica {} {kind}, enrolled {when}", replica.replica)?;
        }
        for revoked in &self.revoked {
            writeln!(f, "  revoked {}, {}", revoked.replica, utc(revoked.revoked_ms))?;
        }
        for hold in &self.held {
            writeln!(f, "  held    {} since {}: people only read there", hold.replica, utc(hold.held_ms))?;
        }
        Ok(())
    }
}

/// Returns a kind as the command line writes it.
#[must_use]
pub const fn kind_name(kind: ReplicaKind) -> &'static str {
    match kind {
        ReplicaKind::Appliance => "appliance",
        ReplicaKind::Spare => "spare",
        ReplicaKind::Continuity => "continuity",
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn utc(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).ok();
    let moment = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}
