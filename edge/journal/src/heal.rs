//! Finds the one flipped bit that explains a wrong checksum.
//!
//! CRC32C is linear: the difference between the checksum found and the checksum stored depends only on which
//! bits differ. For one bit, that difference is found by stepping the polynomial back from the end. This tells
//! a flipped bit in the last commit from a torn write, for which no later page can testify.
//!
//! Source: `docs/spec/journal.md`, "One flipped bit".

use crc32c::crc32c;

use crate::layout::{CommitHeader, commit_bytes_unpadded, part, to_usize};
use crate::limits::COMMIT_HEADER_BYTES;

/// The Castagnoli polynomial, bits reversed as the checksum uses it.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Bytes of a checksum.
const CRC_BYTES: usize = 4;

/// Corrects one flipped bit in `record`, whose last four bytes are the checksum of the rest. Returns false, with
/// the record unchanged, if it verifies already or if more than one bit differs.
pub(crate) fn heal_record(record: &mut [u8]) -> bool {
    let Some(covered_bytes) = record.len().checked_sub(CRC_BYTES) else { return false };
    let Some((covered, stored)) = record.split_at_mut_checked(covered_bytes) else { return false };
    let Ok(crc) = <[u8; CRC_BYTES]>::try_from(&*stored) else { return false };
    let stored_crc = u32::from_le_bytes(crc);
    let difference = crc32c(covered) ^ stored_crc;
    if difference == 0 {
        return false;
    }
    if difference.is_power_of_two() {
        stored.copy_from_slice(&(stored_crc ^ difference).to_le_bytes());
        return true;
    }
    let mut step = POLYNOMIAL;
    for byte in covered.iter_mut().rev() {
        for bit in (0..8).rev() {
            if step == difference {
                *byte ^= 1 << bit;
                return true;
            }
            step = (step >> 1) ^ if step & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    false
}

/// Corrects one flipped bit in the commit that begins at the start of `bytes`, and returns the corrected commit
/// without its padding. Its frames and its place are for the caller to verify.
pub(crate) fn heal_commit(bytes: &[u8]) -> Option<(CommitHeader, Vec<u8>)> {
    let mut header_bytes = part(bytes, 0, to_usize(COMMIT_HEADER_BYTES))?.to_vec();
    let header_healed = CommitHeader::decode(&header_bytes).is_none();
    if header_healed && !heal_record(&mut header_bytes) {
        return None;
    }
    let header = CommitHeader::decode(&header_bytes)?;
    let mut commit = part(bytes, 0, commit_bytes_unpadded(&header))?.to_vec();
    commit.get_mut(..to_usize(COMMIT_HEADER_BYTES))?.copy_from_slice(&header_bytes);
    // A flip in the header is now corrected; one in the body or the mark shows in the checksum of the commit.
    (header_healed || heal_record(&mut commit)).then_some((header, commit))
}
