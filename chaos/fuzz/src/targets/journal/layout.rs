//! What the harness knows of a segment's bytes, written again from `docs/spec/journal.md`: where fields lie, how
//! checksums are made right, and whether a frame that was read stands in the bytes.

use std::ops::Range;

use crc32c::{crc32c, crc32c_append};
use sonae_journal::Frame;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Fields of a segment header.
pub const SEGMENT_FIELDS: [Range<usize>; 7] = [0..4, 4..6, 8..12, 16..24, 24..32, 32..40, 40..48];

/// Fields of a commit header and of the header of its first frame.
pub const COMMIT_FIELDS: [Range<usize>; 13] =
    [0..4, 8..16, 16..20, 20..24, 24..32, 32..40, 40..44, 44..48, 48..52, 64..68, 72..80, 80..88, 88..89];

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

fn set(bytes: &mut [u8], at: usize, crc: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Makes every checksum of a segment right, as far as its lengths lead. `chain` is the checksum of the commit
/// before, in this segment or the one before it.
pub fn resum(bytes: &mut [u8], chain: &mut Option<u32>) {
    if bytes.starts_with(b"SNJ1") && bytes.len() >= PAGE {
        set(bytes, 60, crc32c(bytes.get(..60).unwrap_or_default()));
    }
    for page in bytes.chunks(PAGE).enumerate().skip(1).map(|(page, _)| page).collect::<Vec<_>>() {
        let Some(commit) = bytes.get_mut(page * PAGE..) else { return };
        if commit.starts_with(b"SNJC") {
            resum_commit(commit, chain);
        }
    }
}

fn resum_commit(commit: &mut [u8], chain: &mut Option<u32>) {
    if let Some(before) = *chain {
        set(commit, 48, before);
    }
    set(commit, 60, crc32c(commit.get(..60).unwrap_or_default()));
    let Some(end) = u32_at(commit, 40).and_then(|body| body.checked_add(64)) else { return };
    let mut at = 64;
    while at < end {
        let Some(frame_end) = u32_at(commit, at).and_then(|length| length.checked_add(at + 32)) else {
            break;
        };
        let (Some(length), Some(rest)) = (commit.get(at..at + 4), commit.get(at + 8..frame_end)) else {
            break;
        };
        let crc = crc32c_append(crc32c(length), rest);
        set(commit, at + 4, crc);
        at = frame_end;
    }
    if commit.get(end..).is_some_and(|mark| mark.starts_with(b"SNJM"))
        && let Some(covered) = commit.get(..end + 28)
    {
        let crc = crc32c(covered);
        set(commit, end + 28, crc);
        *chain = Some(crc);
    }
}

/// Whether a frame lies somewhere in the bytes, with a right checksum.
pub fn stands_in(bytes: &[u8], frame: &Frame) -> bool {
    let mut wanted = frame.lsn.0.to_le_bytes().to_vec();
    wanted.push(frame.kind.0);
    let starts = bytes.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted);
    starts.filter_map(|(at, _)| at.checked_sub(16)).any(|at| {
        let end = u32_at(bytes, at).and_then(|length| length.checked_add(at + 32));
        let covered = end.and_then(|end| bytes.get(at + 8..end));
        let (Some(length), Some(covered)) = (bytes.get(at..at + 4), covered) else { return false };
        let crc = crc32c_append(crc32c(length), covered);
        covered.get(24..) == Some(&frame.payload) && u32_at(bytes, at + 4) == usize::try_from(crc).ok()
    })
}
