//! Destroying keys: the board's order that an epoch's keys exist no more, and what it asks before.
//!
//! **Invariant**: no key is destroyed that seals now or later, or that a replica which is not named as lost needs by its
//! own word.
//! **Invariant**: what was said once is never said less: a destroyed key stays destroyed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sonae_proto::destruction::DestroyedKey;
use sonae_proto::ids::{ReplicaId, SchoolCode, Tier};
use sonae_proto::manifest::{Epoch, KeyUse, Manifest, school_year};
use time::OffsetDateTime;

use crate::board::Board;
use crate::disk;
use crate::epochs;
use crate::error::ProvisionError;
use crate::names;
use crate::school::School;
use crate::words;

/// What the board orders.
#[derive(Debug, Clone)]
pub struct Order {
    /// Tiers whose keys are meant.
    pub tiers: Vec<Tier>,
    /// Their epoch.
    pub epoch: u32,
    /// Files with what `sonae-edge status --json` printed, one for each replica that lives.
    pub statuses: Vec<PathBuf>,
    /// Replicas that nobody can ask: what only they hold under these keys is lost for good.
    pub lost: Vec<ReplicaId>,
}

/// What was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destruction {
    /// The school.
    pub school: SchoolCode,
    /// Version of the manifest that says it.
    pub manifest_version: u64,
    /// All keys that are destroyed by now, `tier1-2025` and so on.
    pub destroyed: Vec<String>,
}

/// What is read of `sonae-edge status --json`.
#[derive(Debug, Deserialize)]
struct BoxStatus {
    school: SchoolCode,
    replica: ReplicaId,
    key_uses: Vec<KeyUses>,
}

#[derive(Debug, Deserialize)]
struct KeyUses {
    tier: Tier,
    epoch: u32,
    uses: Uses,
    seals: bool,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Uses {
    batches: u64,
    without_receipt: u64,
    snapshots: u64,
}

/// Returns the text that a person types to confirm an order, such as `destroy-2025`.
#[must_use]
pub fn confirmation(epoch: u32) -> String {
    format!("destroy-{epoch}")
}

/// Makes new keys for all tiers of this school year and the next, as a revocation does, and writes the board's word. What
/// is written from then on is sealed to them, so that older keys come to be needed by nobody.
///
/// # Errors
/// [`ProvisionError::ManifestFull`], [`ProvisionError::OutExists`], those of the disk.
///
/// # Durability
/// As [`epochs::add_year`].
pub fn rotate(
    board: &Board,
    school: School,
    out: &Path,
    now: OffsetDateTime,
) -> Result<School, ProvisionError> {
    let now_ms = names::checked_ms(now)?;
    let mut manifest = school.manifest.body().clone();
    let mut keys = school.open_all(board)?;
    epochs::rotate(&school, &mut manifest, &mut keys, now_ms)?;
    let school = school.with_keys(board, manifest, keys)?;
    words::hand_out(board, &school, out, now_ms)?;
    Ok(school)
}

/// Destroys keys of an epoch: the board's own wrapped copies go in this step, everybody else's when they learn of it.
/// Writes the board's word to `out`.
///
/// # Errors
/// [`ProvisionError::KeyInUse`] when a key seals now or later, or a replica needs it or does not say; when there is no such
/// key, [`ProvisionError::NothingNew`]; [`ProvisionError::Status`], [`ProvisionError::OutExists`], those of the disk.
///
/// # Durability
/// State and file are on stable storage when this returns. The state comes first: `school words` writes the file again.
pub fn destroy(
    board: &Board,
    school: School,
    order: &Order,
    out: &Path,
    now: OffsetDateTime,
) -> Result<Destruction, ProvisionError> {
    let now_ms = names::checked_ms(now)?;
    let code = school.facts.code;
    let mut manifest = school.manifest.body().clone();
    check_unused(&manifest, order, now_ms)?;
    check_boxes(&school, order)?;
    let mut keys = school.open_all(board)?;
    let mut is_any = false;
    for tier in &order.tiers {
        let (key_use, epoch) = (KeyUse::Tier(*tier), order.epoch);
        if manifest.key(key_use, epoch).is_some() {
            is_any = true;
            manifest.keys.retain(|key| (key.key_use, key.epoch) != (key_use, epoch));
            keys.retain(|(of, number, _)| (*of, *number) != (key_use, epoch));
            manifest.destroyed.push(DestroyedKey { key_use, epoch, destroyed_ms: now_ms });
        }
    }
    if !is_any {
        return Err(ProvisionError::NothingNew { code });
    }
    let school = school.with_keys(board, manifest, keys)?;
    words::hand_out(board, &school, out, now_ms)?;
    let manifest = school.manifest.body();
    let destroyed = manifest.destroyed.iter().map(|key| format!("{}-{}", key.key_use, key.epoch)).collect();
    Ok(Destruction { school: code, manifest_version: manifest.version, destroyed })
}

/// Only keys of before the one that seals now may go.
fn check_unused(manifest: &Manifest, order: &Order, now_ms: u64) -> Result<(), ProvisionError> {
    let place = |epoch: u32| (Epoch::of(epoch).rotation, Epoch::of(epoch).year);
    for tier in &order.tiers {
        let sealing = manifest.sealing_key(*tier, school_year(now_ms));
        if sealing.is_none_or(|key| place(order.epoch) >= place(key.epoch)) {
            let what =
                format!("tier {tier} is sealed to it, or will be; rotate the keys first (`epoch rotate`)");
            return Err(ProvisionError::KeyInUse { epoch: order.epoch, what });
        }
    }
    Ok(())
}

/// Every replica that lives has said that it needs none of the keys.
fn check_boxes(school: &School, order: &Order) -> Result<(), ProvisionError> {
    let in_use = |what| Err(ProvisionError::KeyInUse { epoch: order.epoch, what });
    let mut heard = Vec::new();
    for path in &order.statuses {
        let wrong = |what| ProvisionError::Status { path: path.clone(), what };
        let status: BoxStatus = serde_json::from_str(&disk::read_text(path)?)
            .map_err(|_| wrong("not the output of `sonae-edge status --json`"))?;
        if status.school != school.facts.code {
            return Err(wrong("it is of another school"));
        }
        for tier in &order.tiers {
            let uses = status.key_uses.iter().find(|of| (of.tier, of.epoch) == (*tier, order.epoch));
            let Some(KeyUses { uses, seals, .. }) = uses else {
                return Err(wrong("it does not know the key; bring the box the board's present word first"));
            };
            if *seals || *uses != (Uses { batches: 0, without_receipt: 0, snapshots: 0 }) {
                return in_use(format!(
                    "replica {} needs the key of tier {tier}: {} batch(es), {} of them without a receipt, {} \
                     snapshot(s); wait until `sonae-edge status` says that nothing is left",
                    status.replica, uses.batches, uses.without_receipt, uses.snapshots
                ));
            }
        }
        heard.push(status.replica);
    }
    let silent = school.replicas.iter().map(|known| known.replica);
    match silent.into_iter().find(|replica| !heard.contains(replica) && !order.lost.contains(replica)) {
        Some(replica) => in_use(format!(
            "replica {replica} has not said that it does not need the key: give its `sonae-edge status --json` with \
             --status, or --lost {replica} if nobody can ask it any more"
        )),
        None => Ok(()),
    }
}
