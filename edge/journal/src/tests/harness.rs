//! The harness: seeded workloads, and an outside ledger that knows what was attempted and acknowledged.

use std::path::Path;
use std::sync::Arc;

use crate::sim::SimDisk;
use crate::{Frame, FrameKind, Journal, JournalError, Lsn, Opened, Options};

/// Where the journal lies on the simulated disk.
pub(super) const DIR: &str = "/journal";

/// A small generator, so that a seed means the same for ever.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One thing that the owner of a journal does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Commits frames with payloads of these lengths.
    Commit(Vec<usize>),
    /// The same, from the reserve if need be.
    CommitReserved(Vec<usize>),
    Mark,
    /// Recycles all but so many of the newest frames.
    Recycle(u64),
    Prepare,
    /// Begins a new segment, recycles all others and overwrites them. No part of a random workload, so that a seed
    /// means the same for ever.
    Wipe,
    Reopen,
}

/// Returns a workload that rolls over and recycles often: segments hold about two small commits.
pub(super) fn workload(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    random.below(2);
    (0..steps)
        .map(|_| {
            let count = 1 + random.below(3);
            let longest = if random.below(4) == 0 { 2400 } else { 300 };
            let lengths = (0..count).map(|_| random.below(longest) as usize).collect();
            match random.below(12) {
                0..=6 => Step::Commit(lengths),
                7 => Step::CommitReserved(lengths),
                8 => Step::Mark,
                9 => Step::Recycle(random.below(6)),
                10 => Step::Prepare,
                _ => Step::Reopen,
            }
        })
        .collect()
}

pub(super) fn options() -> Options {
    Options { segment_bytes: 16 * 1024, free_segments_max: 1, reserve_segments: 1, ..Options::default() }
}

pub(super) fn open(disk: &SimDisk, options: &Options) -> Result<(Journal, Opened), JournalError> {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), options.clone())
}

/// The outside witness. Knows nothing of the journal but what was asked of it and what it answered.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    /// Everything attempted, by sequence number from 1; what lies past `acknowledged` may or may not survive.
    pub(super) attempted: Vec<Frame>,
    /// How many of these were acknowledged.
    pub(super) acknowledged: usize,
    /// The frame up to which recycling was asked for.
    pub(super) recycled: Lsn,
    /// Makes each attempt's bytes different, also for the same sequence number.
    attempts: u64,
}

impl Ledger {
    fn attempt(&mut self, lengths: &[usize]) -> Vec<Frame> {
        self.attempted.truncate(self.acknowledged);
        self.attempts += 1;
        for length in lengths {
            let lsn = Lsn(self.attempted.len() as u64 + 1);
            let mut random = Random((self.attempts << 32) ^ lsn.0 ^ 0x5DEE_CE66);
            let payload = (0..*length).map(|_| random.below(256) as u8).collect();
            self.attempted.push(Frame { lsn, kind: FrameKind(random.below(256) as u8), payload });
        }
        self.attempted[self.acknowledged..].to_vec()
    }

    /// Performs one step and notes what was acknowledged.
    pub(super) fn step(&mut self, journal: &mut Journal, step: &Step) -> Result<(), JournalError> {
        match step {
            Step::Commit(lengths) | Step::CommitReserved(lengths) => {
                let frames = self.attempt(lengths);
                let borrowed: Vec<_> =
                    frames.iter().map(|frame| (frame.kind, frame.payload.as_slice())).collect();
                let range = if matches!(step, Step::CommitReserved(_)) {
                    journal.commit_reserved(&borrowed)?
                } else {
                    journal.commit(&borrowed)?
                };
                assert_eq!(*range.start(), frames[0].lsn, "sequence numbers are gapless");
                assert_eq!(*range.end(), frames[frames.len() - 1].lsn, "sequence numbers are gapless");
                self.acknowledged = self.attempted.len();
            }
            Step::Mark => drop(journal.mark()?),
            Step::Recycle(keep) => {
                let lsn = Lsn((self.acknowledged as u64 + 1).saturating_sub(*keep));
                self.recycled = self.recycled.max(lsn);
                journal.recycle_before(lsn)?;
            }
            Step::Prepare => drop(journal.prepare()?),
            Step::Wipe => {
                journal.turn();
                self.step(journal, &Step::Commit(vec![10]))?;
                self.step(journal, &Step::Recycle(1))?;
                journal.wipe_free()?;
            }
            Step::Reopen => {}
        }
        Ok(())
    }

    /// Compares a recovered journal with the ledger; says what is wrong. Afterwards what was recovered counts as
    /// acknowledged, because it was shown.
    pub(super) fn check(&mut self, journal: &Journal, opened: &Opened) -> Result<(), String> {
        if (opened.first_lsn, opened.next_lsn) != (journal.first_lsn(), journal.next_lsn()) {
            return Err("the report of opening differs from the handle".into());
        }
        let recovered = (journal.next_lsn().0 - 1) as usize;
        if recovered < self.acknowledged {
            return Err(format!("lost: {} acknowledged, {recovered} recovered", self.acknowledged));
        }
        if recovered > self.attempted.len() {
            return Err(format!("invented: {} attempted, {recovered} recovered", self.attempted.len()));
        }
        if journal.first_lsn() > self.recycled.max(Lsn::FIRST) {
            return Err(format!("{} is gone, only {} was recycled", journal.first_lsn(), self.recycled));
        }
        let wanted = &self.attempted[(journal.first_lsn().0 - 1) as usize..recovered];
        let replayed: Result<Vec<_>, _> = journal.replay(journal.first_lsn()).collect();
        let replayed = replayed.map_err(|error| format!("replay: {error}"))?;
        if replayed != wanted {
            return Err("replay differs from what was committed".into());
        }
        for frame in wanted {
            match journal.read(frame.lsn) {
                Ok(found) if found == *frame => {}
                other => return Err(format!("read {}: {other:?}", frame.lsn)),
            }
        }
        self.attempted.truncate(recovered);
        self.acknowledged = recovered;
        Ok(())
    }

    /// Opening tolerates that a superfluous file cannot be deleted; if that was the cut, nothing can be read.
    fn check_unless_off(&mut self, disk: &SimDisk, journal: &Journal, opened: &Opened) -> Result<(), Stop> {
        if disk.is_off() {
            return Err(Stop::Journal(JournalError::Poisoned));
        }
        self.check(journal, opened).map_err(Stop::Wrong)
    }

    /// Opens the journal, checks it and performs the steps, until the first error.
    pub(super) fn run(&mut self, disk: &SimDisk, options: &Options, steps: &[Step]) -> Result<(), Stop> {
        let (mut journal, opened) = open(disk, options).map_err(Stop::Journal)?;
        self.check_unless_off(disk, &journal, &opened)?;
        for step in steps {
            if matches!(step, Step::Reopen) {
                drop(journal);
                let (again, opened) = open(disk, options).map_err(Stop::Journal)?;
                journal = again;
                self.check_unless_off(disk, &journal, &opened)?;
            }
            match self.step(&mut journal, step) {
                Ok(()) => assert!(!journal.is_poisoned(), "success does not poison"),
                Err(error @ JournalError::Full { .. }) => {
                    assert!(!journal.is_poisoned(), "no room does not poison");
                    self.attempted.truncate(self.acknowledged);
                    drop(error);
                }
                Err(error) => {
                    assert!(matches!(journal.commit(&[(FrameKind(0), b"x")]), Err(JournalError::Poisoned)));
                    return Err(Stop::Journal(error));
                }
            }
        }
        Ok(())
    }
}

/// Why a run ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The journal gave an error, as it may when faults are injected.
    Journal(JournalError),
    /// The journal is wrong.
    Wrong(String),
}
