//! Reads one segment from its bytes: which commits are sound, where they stop, and whether what stops them is a
//! torn tail or rot. No I/O.
//!
//! The rule: a commit is written only after the one before it is durable. So whatever was written later, in this
//! segment or the next, testifies that everything before it was durable once; what does not verify there is
//! rot. What does not verify at the very end is a torn tail, unless one flipped bit explains it: then the commit is
//! what was being written, whether its write was torn or a bit has rotted since, and it is mended.
//!
//! Source: `docs/spec/journal.md`, "Recovery".

use crate::heal::heal_commit;
use crate::layout::{
    CommitHeader, FrameHeader, decode_frame, page_offset, part, to_u32, to_usize, verify_commit,
};
use crate::limits::{COMMIT_HEADER_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES};
use crate::{Frame, Lsn};

/// Said of a mark page that is lost where no frame is.
const MARK_ROTTEN: &str = "a mark page does not verify";

/// What is known about a segment before it is scanned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    pub(crate) epoch: u64,
    pub(crate) first_lsn: Lsn,
    /// The last commit before the segment, if it is known.
    pub(crate) chain: Option<Link>,
    /// The first frame of the next segment, which testifies that this one was durable up to there.
    pub(crate) reach: Option<Lsn>,
    /// One flipped bit in the last commit is to be corrected on the disk.
    pub(crate) mend: bool,
    /// A planted defect, always false in production.
    pub(crate) truncate_at_rot: bool,
}

/// What a commit says about the one before it: the page at which it began, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) page: u32,
    pub(crate) crc: u32,
}

/// Bytes that do not verify although they were durable once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RotSpot {
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
    /// The frames affected, healed or not: empty, `last < first`, if only a mark page was hit.
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Where each frame begins, from the segment's first on; 0 for one that cannot be read from the disk.
    pub(crate) offsets: Vec<u32>,
    pub(crate) next_lsn: Lsn,
    /// Where the next commit goes.
    pub(crate) next_page: u32,
    /// Where the last commit began, 0 if there is none.
    pub(crate) last_page: u32,
    /// The last commit, if it is known.
    pub(crate) chain: Option<Link>,
    pub(crate) keep_from: Lsn,
    pub(crate) marked: bool,
    pub(crate) torn: Option<CommitHeader>,
    pub(crate) rot: Vec<RotSpot>,
    pub(crate) healed: Vec<Frame>,
    pub(crate) mended: Option<Mended>,
}

/// The last commit with its one flipped bit corrected, to be written again.
#[derive(Debug)]
pub(crate) struct Mended {
    pub(crate) page: u32,
    pub(crate) commit: Vec<u8>,
    pub(crate) frames: u32,
}

/// A commit whose bytes all verify.
struct Sound {
    header: CommitHeader,
    crc: u32,
    /// Where each frame begins, from the start of the commit.
    frames: Vec<u32>,
}

/// Returns the commit header at the page if it belongs to this use of the file and to this page.
pub(crate) fn header_at(bytes: &[u8], page: u32) -> Option<CommitHeader> {
    let at = part(bytes, usize::try_from(page_offset(page)).ok()?, to_usize(COMMIT_HEADER_BYTES))?;
    CommitHeader::decode(at).filter(|header| header.page == page)
}

/// Returns the number of whole pages.
pub(crate) fn page_count(bytes: &[u8]) -> u32 {
    to_u32(bytes.len()) / PAGE_BYTES
}

/// Verifies the commit that begins at the start of `bytes` with all its frames.
fn sound_commit(bytes: &[u8], page: u32, expect: &Expect) -> Option<Sound> {
    let header = CommitHeader::decode(bytes)?;
    if header.page != page || header.epoch != expect.epoch {
        return None;
    }
    let crc = verify_commit(bytes, &header)?;
    let body_end = COMMIT_HEADER_BYTES.checked_add(header.body_bytes)?;
    let mut frames = Vec::with_capacity(to_usize(header.frame_count));
    let mut at = COMMIT_HEADER_BYTES;
    for index in 0..header.frame_count {
        let (frame, _) = decode_frame(bytes.get(to_usize(at)..to_usize(body_end))?)?;
        if frame.epoch != header.epoch || frame.lsn != header.first_lsn.plus(index.into()) {
            return None;
        }
        frames.push(at);
        at = at.checked_add(frame.frame_bytes())?;
    }
    (at == body_end).then_some(Sound { header, crc, frames })
}

/// Scans a whole segment, header page included.
pub(crate) fn scan(bytes: &[u8], expect: Expect) -> Scan {
    let found = Scan { next_lsn: expect.first_lsn, next_page: 1, chain: expect.chain, ..Scan::default() };
    let mut scanner = Scanner { bytes, expect, found };
    while scanner.found.next_page < page_count(bytes) && scanner.step() {}
    scanner.finish()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    expect: Expect,
    found: Scan,
}

impl Scanner<'_> {
    fn bytes_from(&self, page: u32) -> &[u8] {
        usize::try_from(page_offset(page)).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    /// Takes the next commit or deals with what is there instead; false at the end.
    fn step(&mut self) -> bool {
        let page = self.found.next_page;
        let sound = sound_commit(self.bytes_from(page), page, &self.expect)
            .filter(|sound| sound.header.first_lsn == self.found.next_lsn);
        if let Some(sound) = sound {
            self.check_chain(&sound.header);
            self.accept_at(&sound, page);
            return true;
        }
        if self.expect.truncate_at_rot {
            return false;
        }
        match self.witness(page) {
            Some((later, header)) => {
                self.rot(page, later, header.first_lsn);
                true
            }
            None if self.expect.mend && self.found.mended.is_none() => self.mend(page),
            None => self.heal(page, None),
        }
    }

    fn accept_at(&mut self, sound: &Sound, page: u32) {
        let base = to_u32(usize::try_from(page_offset(page)).unwrap_or(usize::MAX));
        self.accept(sound, |at| base.saturating_add(at));
    }

    fn accept(&mut self, sound: &Sound, place: impl Fn(u32) -> u32) {
        let header = &sound.header;
        self.found.offsets.extend(sound.frames.iter().map(|at| place(*at)));
        self.found.next_lsn = header.next_lsn();
        self.found.last_page = header.page;
        self.found.next_page = header.page.saturating_add(header.pages());
        self.found.chain = Some(Link { page: header.page, crc: sound.crc });
        self.found.keep_from = self.found.keep_from.max(header.keep_from);
        self.found.marked = header.frame_count == 0;
    }

    /// Compares a sound commit with the one found before it. If it names another page, a mark page is lost
    /// between the two, which hurts nobody. If it names the same page with another checksum, the one found was
    /// put there instead of the one that was durable.
    fn check_chain(&mut self, header: &CommitHeader) {
        let named = Link { page: header.previous_page, crc: header.previous_crc };
        let Some(found) = self.found.chain.filter(|found| *found != named) else { return };
        let last = self.found.next_lsn.before();
        let replaced = found.page == named.page;
        self.found.rot.push(RotSpot {
            offset: page_offset(header.page),
            what: if replaced { "the commit before it was replaced by another" } else { MARK_ROTTEN },
            first: if replaced { last } else { last.plus(1) },
            last,
        });
    }

    /// Finds the first later commit header of this epoch. It was written only once everything before its first
    /// frame was durable.
    fn witness(&self, page: u32) -> Option<(u32, CommitHeader)> {
        let expected = self.found.next_lsn;
        (page..page_count(self.bytes)).find_map(|at| {
            let header = header_at(self.bytes, at).filter(|header| header.epoch == self.expect.epoch)?;
            let later = if at == page { header.first_lsn > expected } else { header.first_lsn >= expected };
            later.then_some((at, header))
        })
    }

    /// Corrects one flipped bit in the commit at the page, if it is the one that is expected there.
    fn corrected(&self, page: u32) -> Option<(Vec<u8>, Sound)> {
        let (_, commit) = heal_commit(self.bytes_from(page))?;
        let sound = sound_commit(&commit, page, &self.expect)?;
        (sound.header.first_lsn == self.found.next_lsn).then_some((commit, sound))
    }

    /// Takes the last commit with one flipped bit corrected.
    fn mend(&mut self, page: u32) -> bool {
        let Some((commit, sound)) = self.corrected(page) else { return false };
        self.check_chain(&sound.header);
        let next = sound.header.first_lsn;
        self.found.rot.push(RotSpot {
            offset: page_offset(page),
            what: "one flipped bit, which is corrected",
            first: next,
            last: next.before(),
        });
        self.found.mended = Some(Mended { page, commit, frames: sound.header.frame_count });
        self.accept_at(&sound, page);
        true
    }

    /// Corrects one flipped bit in the commit at the page in memory. Its frames must not pass `limit`.
    fn heal(&mut self, page: u32, limit: Option<Lsn>) -> bool {
        let Some((commit, sound)) = self.corrected(page) else { return false };
        let header = sound.header;
        if limit.is_some_and(|limit| header.next_lsn() > limit) {
            return false;
        }
        self.check_chain(&header);
        for at in &sound.frames {
            if let Some((frame, payload)) = commit.get(to_usize(*at)..).and_then(decode_frame) {
                self.found.healed.push(Frame { lsn: frame.lsn, kind: frame.kind, payload: payload.to_vec() });
            }
        }
        self.found.rot.push(RotSpot {
            offset: page_offset(page),
            what: "one flipped bit",
            first: header.first_lsn,
            last: header.next_lsn().before(),
        });
        self.accept(&sound, |_| 0);
        true
    }

    /// Deals with rot from `page` up to `later`, where the journal goes on with frame `target`.
    fn rot(&mut self, page: u32, later: u32, target: Lsn) {
        if self.heal(page, Some(target)) {
            return;
        }
        let first = self.found.next_lsn;
        self.salvage(page, later, target);
        self.found.rot.push(RotSpot {
            offset: page_offset(page),
            what: if target > first { "a commit does not verify" } else { MARK_ROTTEN },
            first,
            last: target.before(),
        });
        self.found.next_lsn = self.found.next_lsn.max(target);
        self.found.next_page = later;
        self.found.chain = None;
    }

    /// Finds frames that verify by themselves among pages that do not, and indexes them.
    fn salvage(&mut self, page: u32, later: u32, target: Lsn) {
        let wanted = self.found.next_lsn..target;
        let held = self.found.offsets.len();
        // No more frames than the segment has room for, whatever the numbers found on the disk say.
        let room = self.bytes.len() / to_usize(FRAME_HEADER_BYTES);
        let lost = usize::try_from(target.0.saturating_sub(wanted.start.0)).unwrap_or(usize::MAX);
        self.found.offsets.resize(held.saturating_add(lost).min(room.max(held)), 0);
        let mut at = usize::try_from(page_offset(page)).unwrap_or(usize::MAX);
        let end = usize::try_from(page_offset(later)).unwrap_or(usize::MAX);
        while at < end {
            let rest = self.bytes.get(at..end).unwrap_or_default();
            let Some(peeked) = FrameHeader::peek(rest) else {
                at += 1;
                continue;
            };
            let ours = peeked.epoch == self.expect.epoch && wanted.contains(&peeked.lsn);
            if !ours || decode_frame(rest).is_none() {
                at += 1;
                continue;
            }
            let index = usize::try_from(peeked.lsn.0.saturating_sub(wanted.start.0)).ok();
            if let Some(slot) = index.and_then(|index| self.found.offsets.get_mut(held.saturating_add(index)))
            {
                *slot = to_u32(at);
            }
            at = at.saturating_add(to_usize(peeked.frame_bytes()));
        }
    }

    /// Compares the end with what the next segment testifies, and looks for an unfinished commit.
    fn finish(mut self) -> Scan {
        let page = self.found.next_page;
        match self.expect.reach {
            Some(reach) if self.found.next_lsn < reach && !self.expect.truncate_at_rot => {
                self.rot(page, page_count(self.bytes), reach);
            }
            Some(reach) if self.found.next_lsn > reach => self.found.rot.push(RotSpot {
                offset: page_offset(page),
                what: "the next segment begins before this one ends",
                first: reach,
                last: self.found.next_lsn.before(),
            }),
            Some(_) => {}
            None => {
                self.found.torn = header_at(self.bytes, page).filter(|header| {
                    header.epoch == self.expect.epoch && header.first_lsn == self.found.next_lsn
                });
            }
        }
        self.found
    }
}

/// Returns the bytes that an unfinished commit would have taken, padding included.
pub(crate) fn torn_bytes(header: &CommitHeader) -> u64 {
    u64::from(header.pages()) * u64::from(PAGE_BYTES)
}
