//! Segments of the journal: opened strictly and with salvage, replayed, written to and opened again.
//!
//! Layers: 0 as they are; 1 the harness makes every checksum right; 2 as they are, the last one not filled up.
//! Each 16 KiB of the input is a file; the last is filled up with zeros.

pub(super) mod disk;
mod layout;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sonae_journal::{Disk, Frame, FrameKind, Journal, JournalError, Opened, Options};

use self::disk::MemoryDisk;
use self::layout::{COMMIT_FIELDS, PAGE, SEGMENT_FIELDS, resum, stands_in};
use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, behind_layer, hold, layer, layered, measure};

/// The target.
pub struct JournalTarget;

const DIR: &str = "/journal";

/// Bytes of a file: the smallest segment.
const FILE: usize = 4 * PAGE;

/// Files of one input.
const FILES_MAX: usize = 3;

/// What opening may hold for each byte of its files: a copy, an index of frames and what it corrects.
const MEMORY_PER_BYTE: usize = 8;

/// The new frame that is written after opening.
const NEWS: (FrameKind, &[u8]) = (FrameKind(200), b"written after opening");

/// What the journal says of a header that is not there any more: it must not lose one by itself.
const HEADER_ROTTEN: &str = "the segment header does not verify";

type Files = BTreeMap<PathBuf, Vec<u8>>;

#[allow(clippy::needless_update, reason = "tests build the journal with a feature that adds a field")]
fn options(salvage: bool) -> Options {
    Options {
        segment_bytes: u32::try_from(FILE).unwrap_or(u32::MAX),
        free_segments_max: 0,
        reserve_segments: 0,
        salvage,
        ..Options::default()
    }
}

fn files(number: u8, body: &[u8]) -> Files {
    let mut files = Files::new();
    let mut chain = None;
    for (slot, chunk) in (1..).zip(body.chunks(FILE).take(FILES_MAX)) {
        let mut bytes = chunk.to_vec();
        if number != 2 {
            bytes.resize(FILE, 0);
        }
        if number == 1 {
            resum(&mut bytes, &mut chain);
        }
        files.insert(Path::new(DIR).join(format!("segment-{slot:016x}.snj")), bytes);
    }
    files
}

fn class(error: &JournalError) -> Verdict {
    if let JournalError::Corrupt { what, .. } = error {
        return format!("corrupt: {what}");
    }
    if let JournalError::Version { .. } = error {
        return "version".into();
    }
    error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect()
}

type Opening = Result<(Journal, Opened), JournalError>;

fn open(disk: &MemoryDisk, salvage: bool, planted: Planted) -> Opening {
    let again = |salvage| Journal::open(Arc::new(disk.clone()), Path::new(DIR), options(salvage));
    match again(salvage) {
        Err(JournalError::Corrupt { .. }) if planted.is("repairs") => again(true),
        Err(JournalError::Corrupt { segment, offset, first, last, what }) if planted.is("cleans-up") => {
            let _ = disk.remove(&Path::new(DIR).join(&segment));
            Err(JournalError::Corrupt { segment, offset, first, last, what })
        }
        other => other,
    }
}

fn measured(disk: &MemoryDisk, salvage: bool, planted: Planted) -> Result<Opening, Broken> {
    let bytes: usize = disk.contents().values().map(Vec::len).sum();
    measure::call(MEMORY_PER_BYTE * bytes + 128 * 1024, || open(disk, salvage, planted))
}

/// Reads every frame in order; a run that is lost counts. An error is loud, so it is no broken property: files of
/// several journals mixed up can be opened and not be read.
fn replay(journal: &Journal) -> Result<(Vec<Frame>, u64), Verdict> {
    let (mut frames, mut lost) = (Vec::new(), 0_u64);
    for frame in journal.replay(journal.first_lsn()) {
        match frame {
            Ok(frame) => frames.push(frame),
            Err(JournalError::Lost { first, last }) => {
                lost = lost.saturating_add((last.0 - first.0).saturating_add(1))
            }
            Err(error) => return Err(format!("not replayed: {}", class(&error))),
        }
    }
    Ok((frames, lost))
}

fn check_strict(
    files: &Files,
    forged: bool,
    planted: Planted,
) -> Result<(Verdict, Option<Vec<Frame>>), Broken> {
    let disk = MemoryDisk::holding(files.clone(), planted);
    let (mut journal, opened) = match measured(&disk, false, planted)? {
        Ok(pair) => pair,
        Err(error) => {
            hold(disk.contents() == *files, || "a refused journal is left as it was".into())?;
            return Ok((class(&error), None));
        }
    };
    let (frames, lost) = match measure::call(usize::MAX, || replay(&journal))? {
        Ok(replayed) => replayed,
        Err(verdict) => return Ok((verdict, None)),
    };
    hold(lost == 0 && opened.lost.is_empty(), || "what opens strictly has lost nothing".into())?;
    let expected = opened.next_lsn.0.checked_sub(opened.first_lsn.0);
    hold(u64::try_from(frames.len()).ok() == expected, || {
        "frames are replayed without gap from first to next".into()
    })?;
    let stands = |files: &Files, frame: &Frame| files.values().any(|bytes| stands_in(bytes, frame));
    let corrected = frames.iter().filter(|frame| !stands(files, frame)).count();
    hold(u64::try_from(corrected).is_ok_and(|corrected| corrected <= opened.healed_frames), || {
        "a frame that is read and was not corrected stood in the bytes with a right checksum".into()
    })?;
    let now = disk.contents();
    for frame in &frames {
        hold(stands(&now, frame), || {
            "a frame that is read stands in the bytes with a right checksum".into()
        })?;
        let read = journal.read(frame.lsn);
        hold(read.is_ok_and(|read| read == *frame), || "a frame reads as it replays".into())?;
    }
    // Right checksums over senseless numbers are no damage that a disk does: nothing is promised of what follows.
    if !forged {
        check_write(&disk, &mut journal, &frames, planted)?;
    }
    let verdict = if opened.healed_frames > 0 { "corrected" } else { "opened" };
    Ok((verdict.into(), Some(frames)))
}

/// What was opened takes another frame, and has it after it was opened again.
fn check_write(
    disk: &MemoryDisk,
    journal: &mut Journal,
    frames: &[Frame],
    planted: Planted,
) -> Result<(), Broken> {
    let lsn = journal.next_lsn();
    let committed = journal.commit(&[NEWS]);
    hold(committed.is_ok(), || "what was opened can be written".into())?;
    let again = match open(disk, false, planted) {
        Ok(again) => again,
        // Where a torn tail was rot in truth, what is left of it can be found behind the new commit. That is said.
        Err(JournalError::Corrupt { what, .. }) if what != HEADER_ROTTEN => return Ok(()),
        Err(error) => return Err(Broken(format!("a journal opens again: {}", class(&error)))),
    };
    let now = replay(&again.0).map(|(now, _)| now).unwrap_or_default();
    let news = Frame { lsn, kind: NEWS.0, payload: NEWS.1.to_vec() };
    hold(now.last() == Some(&news), || "a frame that was acknowledged is there after opening again".into())?;
    hold(now.get(..now.len().saturating_sub(1)).is_some_and(|old| frames.ends_with(old)), || {
        "older frames are the same after a commit".into()
    })
}

fn check_salvage(files: &Files, strict: Option<&Vec<Frame>>) -> Result<Verdict, Broken> {
    let disk = MemoryDisk::holding(files.clone(), Planted::NONE);
    let (journal, opened) = match measured(&disk, true, Planted::NONE)? {
        Ok(pair) => pair,
        Err(error) => {
            hold(strict.is_none(), || "what opens strictly opens with salvage".into())?;
            hold(!error.is_corrupt(), || "salvage never fails for rot".into())?;
            return Ok(format!("not salvaged: {}", class(&error)));
        }
    };
    let (frames, lost) = match measure::call(usize::MAX, || replay(&journal))? {
        Ok(replayed) => replayed,
        Err(verdict) => return Ok(verdict),
    };
    if let Some(strict) = strict {
        hold(*strict == frames && lost == 0, || "salvage of a sound journal finds the same".into())?;
        return Ok("sound".into());
    }
    let span = opened.next_lsn.0.checked_sub(opened.first_lsn.0);
    let span = span.ok_or_else(|| Broken("what is held ends where it begins, or later".into()))?;
    let read = u64::try_from(frames.len()).unwrap_or(u64::MAX);
    hold(read.saturating_add(lost) == span, || {
        "salvage accounts for every frame, as read or as lost".into()
    })?;
    let standing = frames.iter().filter(|frame| files.values().any(|bytes| stands_in(bytes, frame))).count();
    let healed = u64::try_from(frames.len() - standing).unwrap_or(u64::MAX);
    hold(healed <= opened.healed_frames, || {
        "a frame that is salvaged stands in the bytes, or was healed".into()
    })?;
    Ok(if frames.is_empty() { "nothing salvaged" } else { "salvaged" }.into())
}

/// The files of a journal that was written with commits of these lengths.
fn written(commits: &[&[usize]], marks: bool) -> Option<Vec<u8>> {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, false, Planted::NONE).ok()?;
    for (at, lengths) in (1_u8..).zip(commits) {
        let payloads: Vec<Vec<u8>> = lengths.iter().map(|length| vec![at; *length]).collect();
        let frames: Vec<(FrameKind, &[u8])> =
            payloads.iter().map(|payload| (FrameKind(at), payload.as_slice())).collect();
        journal.commit(&frames).ok()?;
    }
    if marks {
        journal.mark().ok()?;
    }
    let mut bytes = disk.contents().into_values().collect::<Vec<_>>().concat();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    bytes.truncate(used);
    Some(bytes)
}

impl Target for JournalTarget {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn executions(&self) -> u64 {
        800
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["checksums", "forgets", "repairs", "cleans-up"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "opened, sound",
            "corrected, sound",
            "corrupt: a commit does not verify, salvaged",
            "corrupt: one flipped bit, salvaged",
            "corrupt: the segment header does not verify, salvaged",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        let journals = [
            ("one-commit", written(&[&[40]], false)),
            ("marked", written(&[&[60, 10, 0]], true)),
            ("two-segments", written(&[&[20], &[30, 5], &[100]], true)),
        ];
        journals.into_iter().filter_map(|(name, bytes)| Some((name, layer(0, &bytes?)))).collect()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 3, random, |_, body, random| {
            let pages = body.len().div_ceil(PAGE).max(1);
            let start = random.below(pages) * PAGE;
            let fields: &[_] = if start.is_multiple_of(FILE) { &SEGMENT_FIELDS } else { &COMMIT_FIELDS };
            match random.below(8) {
                0 => {
                    let offset = start + random.below(200);
                    if let Some(byte) = body.get_mut(offset) {
                        *byte ^= 1 << random.below(8);
                    }
                }
                1 => body.truncate(start + random.below(PAGE)),
                2 => {
                    let page = body.get(start..(start + PAGE).min(body.len())).map(<[u8]>::to_vec);
                    let to = random.below(pages) * PAGE;
                    let page = page.unwrap_or_default();
                    let end = (to + page.len()).min(body.len());
                    body.splice(to.min(end)..end, page);
                }
                3 => mutate::bytes(body, random),
                _ => {
                    let end = (start + PAGE).min(body.len());
                    let page = body.get_mut(start.min(end)..end).unwrap_or_default();
                    mutate::field(page, fields, Order::Little, random);
                }
            }
            body.truncate(FILES_MAX * FILE);
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let files = files(number % 3, body);
        let (verdict, frames) = check_strict(&files, number % 3 == 1, planted)?;
        let salvaged = check_salvage(&files, frames.as_ref())?;
        Ok(format!("{verdict}, {salvaged}"))
    }
}
