//! Epochs: one key a tier and school year, made a year ahead; all of them anew when a device is revoked.
//!
//! **Invariant**: a key is never taken out here: what was sealed to it stays readable. Only newer ones are added, and none
//! that was destroyed.

use std::path::Path;

use sonae_proto::ids::Tier;
use sonae_proto::manifest::{Epoch, KeyUse, Manifest, ManifestKey, school_year};
use sonae_proto::seal::OpenKey;
use time::OffsetDateTime;

use crate::board::Board;
use crate::error::ProvisionError;
use crate::names;
use crate::school::School;
use crate::words;

/// The keys of a school while they are in the clear, in memory only.
pub(crate) type Keys = Vec<(KeyUse, u32, OpenKey)>;

/// Adds what is missing for this school year and the next.
pub(crate) fn add_years(manifest: &mut Manifest, keys: &mut Keys, now_ms: u64) {
    let (year, rotation) = (school_year(now_ms), manifest.rotation());
    for year in [year, year.saturating_add(1)] {
        add(manifest, keys, Epoch { year, rotation });
    }
}

/// Makes new keys for this school year and all later ones that there are. Whoever is no reader any more can open nothing
/// that is sealed to them.
pub(crate) fn rotate(
    school: &School,
    manifest: &mut Manifest,
    keys: &mut Keys,
    now_ms: u64,
) -> Result<(), ProvisionError> {
    let (this, rotation) = (school_year(now_ms), manifest.rotation() + 1);
    let is_ahead = |year: &u32| *year > this;
    let mut years: Vec<u32> =
        manifest.keys.iter().map(|key| Epoch::of(key.epoch).year).filter(is_ahead).collect();
    years.extend([this, this.saturating_add(1)]);
    for year in years {
        let epoch = Epoch { year, rotation };
        if epoch.number().is_none() {
            return Err(ProvisionError::ManifestFull { code: school.facts.code });
        }
        add(manifest, keys, epoch);
    }
    Ok(())
}

fn add(manifest: &mut Manifest, keys: &mut Keys, epoch: Epoch) {
    let Some(number) = epoch.number() else { return };
    for tier in Tier::ALL {
        let key_use = KeyUse::Tier(tier);
        if manifest.key(key_use, number).is_none() && !manifest.is_destroyed(key_use, number) {
            let key = OpenKey::generate();
            let recipient = key.recipient();
            manifest.keys.push(ManifestKey { key_use, epoch: number, recipient });
            keys.push((key_use, number, key));
        }
    }
}

/// Adds the keys of this school year and the next, where they are missing, and writes the board's word on them. To be
/// run once a year before April; a box without its year's keys goes on with those of the last.
///
/// # Errors
/// [`ProvisionError::NothingNew`], [`ProvisionError::ManifestFull`], [`ProvisionError::OutExists`], those of the disk.
///
/// # Durability
/// State and file are on stable storage when this returns. The state comes first: `school words` writes the file again.
pub fn add_year(
    board: &Board,
    mut school: School,
    out: &Path,
    now: OffsetDateTime,
) -> Result<School, ProvisionError> {
    let now_ms = names::checked_ms(now)?;
    let mut manifest = school.manifest.body().clone();
    let mut keys = school.open_all(board)?;
    add_years(&mut manifest, &mut keys, now_ms);
    if manifest == *school.manifest.body() {
        return Err(ProvisionError::NothingNew { code: school.facts.code });
    }
    school = school.with_keys(board, manifest, keys)?;
    words::hand_out(board, &school, out, now_ms)?;
    Ok(school)
}
