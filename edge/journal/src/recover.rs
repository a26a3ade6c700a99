//! Opening a journal: finds the segments, orders them, scans them and decides what may be trusted.
//!
//! Source: `docs/spec/journal.md`, "Recovery", whose steps the functions follow.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::journal::Journal;
use crate::layout::{FORMAT_VERSION, SegmentHeader, page_offset, to_u64};
use crate::pool::{Pool, UNFINISHED_SUFFIX};
use crate::probe::{Candidate, probe};
use crate::scan::{Expect, Link, Mended, Scan, scan, torn_bytes};
use crate::segment::{Segment, slot_of};
use crate::{JournalError, Lsn, Opened, Options, Rot, TornTail};

/// The file on which the exclusive lock is held.
const LOCK_FILE: &str = "LOCK";

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: Options,
) -> Result<(Journal, Opened), JournalError> {
    let failed = |doing, source| JournalError::Io { doing, path: dir.to_path_buf(), source };
    disk.create_dir(dir).map_err(|error| failed("create the journal directory", error))?;
    let lock = disk.lock(&dir.join(LOCK_FILE)).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            return JournalError::Locked { dir: dir.to_path_buf() };
        }
        failed("lock the journal directory", error)
    })?;
    let mut pool = Pool { disk, dir: dir.to_path_buf(), options, free: VecDeque::new(), next_slot: 1 };
    let mut candidates = find(&mut pool)?;
    settle(&mut candidates, &pool.options)?;

    let seen = candidates.iter().map(|candidate| candidate.epoch_seen).max().unwrap_or(0);
    let (live, free) = choose_live(candidates, &pool.options)?;
    let mut found = Found::default();
    found.scan_all(live, &pool.options)?;
    let opened = found.report(&pool.options)?;
    found.mend()?;
    // Only now: a file is neither re-used nor deleted before the journal is known to be whole.
    for candidate in free {
        pool.give_back(candidate.file, false);
    }
    let mut journal = Journal {
        next_lsn: opened.next_lsn,
        keep_from: found.keep_from.max(Lsn::FIRST),
        next_epoch: seen.saturating_add(1),
        previous: found.chain.unwrap_or_default(),
        roll: found.damaged,
        marked: opened.marked,
        healed: std::mem::take(&mut found.healed),
        lost: joined(&opened.lost),
        live: std::mem::take(&mut found.live),
        pool,
        poisoned: false,
        flushes: 0,
        scratch: Vec::new(),
        _lock: lock,
    };
    finish(&mut journal)?;
    Ok((journal, opened))
}

/// Joins runs that touch, as where the end of one segment and the beginning of the next are lost.
fn joined(runs: &[RangeInclusive<Lsn>]) -> Vec<RangeInclusive<Lsn>> {
    let mut joined: Vec<RangeInclusive<Lsn>> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(before) if before.end().plus(1) >= *run.start() => {
                *before = *before.start()..=*run.end().max(before.end());
            }
            _ => joined.push(run.clone()),
        }
    }
    joined
}

/// Makes the header of the active segment durable if its first commit was found without it, and the reserve
/// complete if there is room.
fn finish(journal: &mut Journal) -> Result<(), JournalError> {
    let keep_from = journal.keep_from;
    if let Some(active) = journal.live.back_mut()
        && !journal.roll
        && active.header_pending
        && active.last_page > 0
    {
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            segment_bytes: active.file.bytes,
            epoch: active.epoch,
            previous_epoch: active.previous_epoch,
            first_lsn: active.first_lsn,
            keep_from,
        };
        let written = active.file.disk.write_at(0, &header.encode_page());
        let written = written.and_then(|()| active.file.disk.sync_data());
        written.map_err(|error| active.file.failed("write the header of the journal segment", error))?;
        active.header_pending = false;
    }
    match journal.pool.prepare() {
        Ok(_) => Ok(()),
        Err(error) if error.is_full() => {
            log::warn!(error:% = error; "no room for the journal reserve");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Lists the segment files and reads what each says about itself. Half-made files are removed.
fn find(pool: &mut Pool) -> Result<Vec<Candidate>, JournalError> {
    let failed = |doing, source| JournalError::Io { doing, path: pool.dir.clone(), source };
    let names = pool.disk.list(&pool.dir).map_err(|error| failed("list the journal directory", error))?;
    let mut slots = Vec::new();
    for name in names {
        if name.ends_with(UNFINISHED_SUFFIX) {
            let removed = pool.disk.remove(&pool.dir.join(&name));
            removed.map_err(|error| failed("remove a half-made segment from", error))?;
        } else if let Some(slot) = slot_of(&name) {
            slots.push(slot);
        }
    }
    // Names that are seen but not durable could vanish under frames that are acknowledged later.
    if !pool.options.skip_directory_flush() {
        pool.disk.sync_dir(&pool.dir).map_err(|error| failed("flush the journal directory", error))?;
    }
    slots.sort_unstable();
    pool.next_slot = slots.last().map_or(1, |slot| slot.saturating_add(1));
    slots.into_iter().map(|slot| probe(pool, slot)).collect()
}

/// Makes sure that the newest segment is read as it is on the device. Older ones need no such care: the newest
/// one's existence shows that they were flushed with success. A file whose use was cut short before its first commit shows
/// nothing, so those before it are settled too, down to the first that has one.
fn settle(candidates: &mut [Candidate], options: &Options) -> Result<(), JournalError> {
    if options.skip_settle() {
        return Ok(());
    }
    loop {
        let mut newest: Option<&mut Candidate> = None;
        let mut shown = 0;
        for candidate in candidates.iter_mut().filter(|candidate| candidate.epoch_seen > 0) {
            if candidate.settled {
                // Of a recycled file that was begun and torn, the header may still be that of its last use.
                if candidate.begins_or_continues(options)? {
                    shown = shown.max(candidate.epoch());
                }
            } else if newest.as_ref().is_none_or(|newest| newest.epoch_seen < candidate.epoch_seen) {
                newest = Some(candidate);
            }
        }
        let Some(newest) = newest.filter(|newest| newest.epoch_seen > shown) else { return Ok(()) };
        let settled = newest.file.disk.settle();
        settled.map_err(|error| newest.file.failed("settle the journal segment", error))?;
        newest.settled = true;
        newest.look(options)?;
    }
}

/// Follows the segments back from the newest one to the one that holds the first frame that is needed. The
/// others are free. Returns the live ones, oldest first, and the free ones.
fn choose_live(
    mut candidates: Vec<Candidate>,
    options: &Options,
) -> Result<(Vec<Candidate>, Vec<Candidate>), JournalError> {
    candidates.sort_by_key(Candidate::epoch);
    let mut live: Vec<Candidate> = Vec::new();
    let mut free: Vec<Candidate> = Vec::new();
    let mut keep_from = None;
    while let Some(candidate) = candidates.pop() {
        let wanted = match live.last() {
            None => candidate.begins_or_continues(options)?,
            Some(newer) if keep_from.is_some_and(|needed| newer.first_lsn() <= needed) => false,
            // A file whose use as a segment was cut short can lie between two segments that are linked.
            Some(newer) => {
                newer.previous_epoch() == Some(candidate.epoch())
                    || !candidates.iter().any(|other| newer.previous_epoch() == Some(other.epoch()))
            }
        };
        if !wanted || candidate.epoch() == 0 {
            free.push(candidate);
            continue;
        }
        if keep_from.is_none() {
            keep_from = candidate.keep_from(&candidate.scan_alone(options)?);
        }
        live.push(candidate);
    }
    live.reverse();
    Ok((live, free))
}

/// What scanning the live segments has found.
#[derive(Default)]
struct Found {
    live: VecDeque<Segment>,
    healed: BTreeMap<Lsn, crate::Frame>,
    mended: Option<Mended>,
    next_lsn: Option<Lsn>,
    keep_from: Lsn,
    chain: Option<Link>,
    marked: bool,
    torn_tail: Option<TornTail>,
    rot: Vec<Rot>,
    /// The first finding that touches frames, as the error to report.
    corrupt: Option<JournalError>,
    lost: Vec<RangeInclusive<Lsn>>,
    damaged: bool,
}

impl Found {
    fn scan_all(&mut self, chain: Vec<Candidate>, options: &Options) -> Result<(), JournalError> {
        let mut rest = chain.into_iter().peekable();
        while let Some(candidate) = rest.next() {
            let reach = rest.peek().map(Candidate::first_lsn);
            let bytes = candidate.read_all(options.salvage)?;
            let first_lsn = candidate.first_lsn();
            let chain = match candidate.previous_epoch() {
                Some(0) => Some(Link::default()),
                Some(previous) if self.live.back().is_some_and(|before| before.epoch == previous) => {
                    self.chain
                }
                _ => None,
            };
            let expect = Expect {
                epoch: candidate.epoch(),
                first_lsn,
                chain,
                reach,
                mend: reach.is_none() && !options.salvage,
                truncate_at_rot: options.truncate_at_rot(),
            };
            let found = scan(&bytes, expect);
            self.take(candidate, found, reach.is_none());
        }
        Ok(())
    }

    fn take(&mut self, candidate: Candidate, mut found: Scan, is_newest: bool) {
        let name = candidate.file.name();
        // A roll-over that was cut short leaves a whole file: one that is shorter has lost its header otherwise.
        let may_be_cut_short = is_newest
            && candidate.only_first_page
            && candidate.file.bytes >= crate::limits::SEGMENT_BYTES_MIN;
        let header_rotten = candidate.header.is_none() && !may_be_cut_short;
        if header_rotten {
            found.rot.insert(
                0,
                crate::scan::RotSpot {
                    offset: 0,
                    what: "the segment header does not verify",
                    first: candidate.first_lsn(),
                    last: found.next_lsn.before(),
                },
            );
        }
        // Files are whole before they get their name, so nothing but damage makes one shorter than its header says.
        if candidate.header.is_some_and(|header| candidate.file.bytes < header.segment_bytes) {
            found.rot.push(crate::scan::RotSpot {
                offset: candidate.file.bytes.into(),
                what: "the segment file is shorter than its header says",
                first: found.next_lsn,
                last: found.next_lsn,
            });
        }
        let mut damaged = header_rotten;
        for spot in &found.rot {
            let touches_frames = spot.first <= spot.last;
            damaged |= touches_frames;
            if touches_frames && self.corrupt.is_none() {
                self.corrupt = Some(JournalError::Corrupt {
                    segment: name.clone(),
                    offset: spot.offset,
                    first: spot.first,
                    last: spot.last,
                    what: spot.what,
                });
            }
            self.rot.push(Rot { segment: name.clone(), offset: spot.offset, what: spot.what });
        }
        self.damaged |= damaged;
        if is_newest {
            self.torn_tail = found.torn.map(|header| TornTail {
                segment: name,
                offset: u64::from(found.next_page) * u64::from(crate::limits::PAGE_BYTES),
                bytes: torn_bytes(&header),
                first_lsn: header.first_lsn,
                frames: header.frame_count,
            });
        }
        self.healed.extend(found.healed.drain(..).map(|frame| (frame.lsn, frame)));
        self.mended = found.mended.take();
        let first_lsn = candidate.first_lsn();
        // A header that is missing is written again with the link that scanning has followed.
        let before = self.live.back().map_or(0, |segment| segment.epoch);
        let previous_epoch = candidate.previous_epoch().unwrap_or(before);
        self.note_lost(first_lsn, &found);
        self.keep_from = self.keep_from.max(candidate.keep_from(&found).unwrap_or_default());
        self.chain = found.chain;
        self.next_lsn = Some(found.next_lsn);
        self.marked = if found.last_page > 0 { found.marked } else { self.marked };
        self.live.push_back(Segment {
            epoch: candidate.epoch(),
            previous_epoch,
            first_lsn,
            header_pending: candidate.header.is_none() || found.last_page == 0,
            offsets: found.offsets,
            next_page: found.next_page,
            last_page: found.last_page,
            damaged,
            file: candidate.file,
        });
    }

    /// Records the runs of frames of one segment that cannot be read.
    fn note_lost(&mut self, first_lsn: Lsn, found: &Scan) {
        let mut run: Option<(Lsn, Lsn)> = None;
        let indexed = to_u64(found.offsets.len());
        for (index, offset) in (0_u64..).zip(&found.offsets) {
            let lsn = first_lsn.plus(index);
            if *offset > 0 || self.healed.contains_key(&lsn) {
                self.lost.extend(run.take().map(|(first, last)| first..=last));
            } else {
                run = Some((run.map_or(lsn, |(first, _)| first), lsn));
            }
        }
        let end = first_lsn.plus(indexed);
        if end < found.next_lsn {
            run = Some((run.map_or(end, |(first, _)| first), found.next_lsn.before()));
        }
        self.lost.extend(run.map(|(first, last)| first..=last));
    }

    /// Decides whether the journal may be opened, and tells the owner what was found.
    fn report(&mut self, options: &Options) -> Result<Opened, JournalError> {
        let first_lsn = self.live.front().map_or(Lsn::FIRST, |segment| segment.first_lsn);
        let needed = self.keep_from.max(Lsn::FIRST);
        if let Some(oldest) = self.live.front()
            && first_lsn > needed
        {
            let what = "an older segment is missing";
            let (segment, last) = (oldest.file.name(), first_lsn.before());
            self.lost.insert(0, needed..=last);
            self.rot.insert(0, Rot { segment: segment.clone(), offset: 0, what });
            self.corrupt = Some(JournalError::Corrupt { segment, offset: 0, first: needed, last, what });
            self.damaged = true;
        }
        if !options.salvage {
            if let Some(corrupt) = self.corrupt.take() {
                return Err(corrupt);
            }
            for rot in &self.rot {
                log::warn!(segment = rot.segment, offset = rot.offset, what = rot.what;
                    "rot in the journal, and no frame is lost");
            }
        }
        Ok(Opened {
            first_lsn,
            next_lsn: self.next_lsn.unwrap_or(Lsn::FIRST),
            torn_tail: self.torn_tail.take(),
            marked: self.marked,
            rot: std::mem::take(&mut self.rot),
            lost: std::mem::take(&mut self.lost),
            healed_frames: to_u64(self.healed.len())
                + self.mended.as_ref().map_or(0, |mended| mended.frames.into()),
        })
    }

    /// Writes the last commit again if a bit of it was flipped. The page then differs from what it should be in that
    /// bit or in none, so this can be interrupted anywhere.
    fn mend(&mut self) -> Result<(), JournalError> {
        let (Some(mended), Some(active)) = (self.mended.take(), self.live.back()) else { return Ok(()) };
        let written = active.file.disk.write_at(page_offset(mended.page), &mended.commit);
        let written = written.and_then(|()| active.file.disk.sync_data());
        written.map_err(|error| active.file.failed("correct a flipped bit in the journal segment", error))
    }
}
