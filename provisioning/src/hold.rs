//! Holding a box that was given up for lost: if it is dug out it merges, and nobody writes at it until the board has
//! looked at it and releases it.

use std::path::Path;

use sonae_proto::hold::Hold;
use sonae_proto::ids::ReplicaId;
use time::OffsetDateTime;

use crate::board::Board;
use crate::error::ProvisionError;
use crate::names;
use crate::school::School;
use crate::words;

/// Says that nobody writes at a replica (`is_held`), or that people may again. Writes the board's word to `out`.
///
/// # Errors
/// [`ProvisionError::UnknownReplica`], also for one that is revoked; [`ProvisionError::NothingNew`] when it is so already;
/// [`ProvisionError::OutExists`], [`ProvisionError::Clock`], those of the disk.
///
/// # Durability
/// State and file are on stable storage when this returns. The state comes first: `school words` writes the file again.
pub fn say(
    board: &Board,
    school: &School,
    replica: ReplicaId,
    is_held: bool,
    out: &Path,
    now: OffsetDateTime,
) -> Result<School, ProvisionError> {
    let now_ms = names::checked_ms(now)?;
    let code = school.facts.code;
    if !school.replicas.iter().any(|known| known.replica == replica) {
        return Err(ProvisionError::UnknownReplica { replica, code });
    }
    let mut manifest = school.manifest.body().clone();
    if manifest.hold(replica).is_some() == is_held {
        return Err(ProvisionError::NothingNew { code });
    }
    manifest.held.retain(|hold| hold.replica != replica);
    if is_held {
        manifest.held.push(Hold { replica, held_ms: now_ms });
    }
    let keys = school.open_all(board)?;
    let next = school.clone().with_keys(board, manifest, keys)?;
    words::hand_out(board, &next, out, now_ms)?;
    Ok(next)
}
