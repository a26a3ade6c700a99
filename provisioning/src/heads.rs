//! Heads that the board is told: out of a status file of the cloud, or one by one on the command line.

use std::path::Path;

use serde::Deserialize;
use sonae_proto::ids::{Incarnation, LogName, ReplicaId, SchoolCode};
use sonae_proto::vector::{Heads, LogHead};

use crate::disk;
use crate::error::ProvisionError;

/// What is read of `sonae-cloud status --json`.
#[derive(Debug, Deserialize)]
struct CloudStatus {
    schools: Vec<SchoolStatus>,
}

#[derive(Debug, Deserialize)]
struct SchoolStatus {
    school: SchoolCode,
    heads: Heads,
    incarnations: Vec<IncarnationStatus>,
    #[serde(default)]
    quarantined: Vec<QuarantinedStatus>,
}

#[derive(Debug, Deserialize)]
struct IncarnationStatus {
    incarnation: Incarnation,
    replica: ReplicaId,
}

#[derive(Debug, Deserialize)]
struct QuarantinedStatus {
    replica: ReplicaId,
    log: LogName,
    head: LogHead,
}

/// Which heads of a status are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What the logs are made of.
    Stored,
    /// What waits in quarantine.
    Quarantined,
}

/// Reads the heads of one replica out of a status file of the cloud.
///
/// # Errors
/// [`ProvisionError::Heads`] when it is no such file or does not know the school; when two branches of one log wait, so
/// that a person has to name one with `--head`; those of the disk.
pub fn of_status(
    path: &Path,
    code: SchoolCode,
    replica: ReplicaId,
    which: Which,
) -> Result<Heads, ProvisionError> {
    let wrong = |what| ProvisionError::Heads { path: path.to_owned(), what };
    let status: CloudStatus = serde_json::from_str(&disk::read_text(path)?)
        .map_err(|_| wrong("not the output of `sonae-cloud status --json`"))?;
    let school = status.schools.into_iter().find(|school| school.school == code);
    let school = school.ok_or_else(|| wrong("it does not know the school"))?;
    if which == Which::Stored {
        let own = school.incarnations.iter().filter(|one| one.replica == replica);
        let own: Vec<Incarnation> = own.map(|one| one.incarnation).collect();
        return Ok(school.heads.into_iter().filter(|(log, _)| own.contains(&log.incarnation)).collect());
    }
    let mut heads = Heads::new();
    for waiting in school.quarantined.iter().filter(|waiting| waiting.replica == replica) {
        if heads.insert(waiting.log, waiting.head).is_some() {
            return Err(wrong("two branches of one log wait; name one of them with --head"));
        }
    }
    Ok(heads)
}

/// Reads `LOG:SEQUENCE:HASH`, where LOG is `INCARNATION/TIER`.
///
/// # Errors
/// A text for people.
pub fn parse(text: &str) -> Result<(LogName, LogHead), String> {
    let mut parts = text.split(':');
    let mut parsed = || {
        let log = parts.next()?.parse().ok()?;
        let sequence = parts.next()?.parse().ok()?;
        let hash = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((log, LogHead { sequence, hash }))
    };
    parsed().ok_or_else(|| "give INCARNATION/TIER:SEQUENCE:HASH, as a status shows them".to_owned())
}
