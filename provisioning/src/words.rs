//! The board's word as a file: key documents in a courier's bundle, which boxes and nodes of the cloud take with
//! `bundle import`. It holds no secret; whoever carries it can change nothing.

use std::path::Path;

use sonae_proto::courier::{Encoder, FORMAT, Opening, Origin, Record};
use sonae_proto::wire::KeyDocuments;
use time::OffsetDateTime;

use crate::board::Board;
use crate::bundle_file::check_free;
use crate::error::ProvisionError;
use crate::names;
use crate::school::School;

/// Writes the present key documents of a school.
///
/// # Errors
/// [`ProvisionError::OutExists`], [`ProvisionError::Clock`], those of the disk.
///
/// # Durability
/// The file is on stable storage when this returns.
pub fn write(board: &Board, school: &School, out: &Path, now: OffsetDateTime) -> Result<(), ProvisionError> {
    let made_ms = names::checked_ms(now)?;
    board.disk().write_new(out, &encode(school, made_ms)?)
}

/// Puts a new state in place and then writes its file.
pub(crate) fn hand_out(
    board: &Board,
    school: &School,
    out: &Path,
    made_ms: u64,
) -> Result<(), ProvisionError> {
    check_free(out)?;
    let file = encode(school, made_ms)?;
    school.replace(board)?;
    board.disk().write_new(out, &file)
}

fn encode(school: &School, made_ms: u64) -> Result<Vec<u8>, ProvisionError> {
    let full = |_| ProvisionError::ManifestFull { code: school.facts.code };
    let opening = Opening {
        format: FORMAT.to_owned(),
        school: school.facts.code,
        made_ms,
        software: concat!("sonae-provision ", env!("CARGO_PKG_VERSION")).to_owned(),
        from: Origin::Board,
    };
    let keys = KeyDocuments {
        school: school.facts.code,
        manifest: school.manifest.text().to_owned(),
        wrapped_keys: school.wrapped_keys.clone(),
    };
    let (mut encoder, mut bytes) = Encoder::start(&opening).map_err(full)?;
    bytes.extend(encoder.record(&Record::Keys(Box::new(keys))).map_err(full)?);
    bytes.extend(encoder.finish().0);
    Ok(bytes)
}
