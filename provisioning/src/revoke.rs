//! Revoking a replica, and deciding later about what came of it afterwards.
//!
//! **Invariant**: in one step the replica is revoked, is no reader any more, and all tiers have new keys that it cannot
//! open.
//! **Invariant**: what was said once is never said less: a device stays revoked, and accepted heads only rise.

use std::path::Path;

use serde::Serialize;
use sonae_proto::ids::{LogName, ReplicaId, SchoolCode};
use sonae_proto::manifest::Manifest;
use sonae_proto::revocation::Revocation;
use sonae_proto::vector::{Heads, LogHead};
use time::OffsetDateTime;

use crate::board::Board;
use crate::epochs;
use crate::error::ProvisionError;
use crate::names;
use crate::school::School;
use crate::words;

/// What the board says now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// The school.
    pub school: SchoolCode,
    /// Version of the manifest that says it.
    pub manifest_version: u64,
    /// The device.
    pub replica: ReplicaId,
    /// Up to where its logs count.
    pub accepted: Heads,
    /// Up to where the rest is dropped.
    pub dropped: Heads,
    /// How often the keys have been rotated.
    pub rotation: u32,
}

/// A person's decision about what waits in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It counts.
    Accept,
    /// It does not, and need not be asked about again.
    Drop,
}

/// Revokes a replica: it counts up to `accepted` and no further, and cannot open what is sealed from now on. Writes the
/// board's word to `out`.
///
/// # Errors
/// [`ProvisionError::UnknownReplica`], [`ProvisionError::Revoked`], [`ProvisionError::ManifestFull`],
/// [`ProvisionError::OutExists`], [`ProvisionError::Clock`], those of the disk.
///
/// # Durability
/// State and file are on stable storage when this returns. The state comes first: `school words` writes the file again.
pub fn revoke(
    board: &Board,
    school: &School,
    replica: ReplicaId,
    accepted: Heads,
    out: &Path,
    now: OffsetDateTime,
) -> Result<Word, ProvisionError> {
    let now_ms = names::checked_ms(now)?;
    let mut manifest = school.manifest.body().clone();
    if manifest.revoked.iter().any(|known| known.replica == replica) {
        return Err(ProvisionError::Revoked { replica });
    }
    if !school.replicas.iter().any(|known| known.replica == replica) {
        return Err(ProvisionError::UnknownReplica { replica, code: school.facts.code });
    }
    let mut next = school.clone();
    next.replicas.retain(|known| known.replica != replica);
    let name = replica.to_string();
    manifest.readers.retain(|reader| reader.name != name);
    manifest.held.retain(|hold| hold.replica != replica);
    manifest.revoked.push(Revocation { replica, revoked_ms: now_ms, accepted, dropped: Heads::new() });
    let mut keys = school.open_all(board)?;
    epochs::rotate(school, &mut manifest, &mut keys, now_ms)?;
    let next = next.with_keys(board, manifest, keys)?;
    words::hand_out(board, &next, out, now_ms)?;
    word(&next, replica)
}

/// Decides about what waits of a revoked replica, up to `heads`. Writes the board's word to `out`.
///
/// # Errors
/// [`ProvisionError::UnknownReplica`] unless it is revoked, [`ProvisionError::NothingNew`] when nothing is raised, and as
/// [`revoke`].
///
/// # Durability
/// As [`revoke`].
pub fn decide(
    board: &Board,
    school: &School,
    replica: ReplicaId,
    decision: Decision,
    heads: &Heads,
    out: &Path,
    now: OffsetDateTime,
) -> Result<Word, ProvisionError> {
    let now_ms = names::checked_ms(now)?;
    let code = school.facts.code;
    let mut manifest = school.manifest.body().clone();
    let entry = manifest.revoked.iter_mut().find(|known| known.replica == replica);
    let entry = entry.ok_or(ProvisionError::UnknownReplica { replica, code })?;
    let place = match decision {
        Decision::Accept => &mut entry.accepted,
        Decision::Drop => &mut entry.dropped,
    };
    let is_higher = |log: &LogName, head: &LogHead, place: &Heads| {
        place.get(log).is_none_or(|known| known.sequence < head.sequence)
    };
    let raised: Heads = heads
        .iter()
        .filter(|(log, head)| is_higher(log, head, place))
        .map(|(log, head)| (*log, *head))
        .collect();
    if raised.is_empty() {
        return Err(ProvisionError::NothingNew { code });
    }
    place.extend(raised);
    let keys = school.open_all(board)?;
    let next = school.clone().with_keys(board, manifest, keys)?;
    words::hand_out(board, &next, out, now_ms)?;
    word(&next, replica)
}

fn word(school: &School, replica: ReplicaId) -> Result<Word, ProvisionError> {
    let manifest: &Manifest = school.manifest.body();
    let entry = manifest.revoked.iter().find(|entry| entry.replica == replica);
    let code = school.facts.code;
    let entry = entry.ok_or(ProvisionError::UnknownReplica { replica, code })?;
    Ok(Word {
        school: code,
        manifest_version: manifest.version,
        replica,
        accepted: entry.accepted.clone(),
        dropped: entry.dropped.clone(),
        rotation: manifest.rotation(),
    })
}
