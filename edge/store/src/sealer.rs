//! The sealer: decides when kept changes become a batch, and makes it.
//!
//! The window is adaptive: at once when idle, 2 s under load, 60 s while the line is down, never more than
//! 1,000 changes. Pure but for sealing itself, which takes age's entropy.

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::SigningKey;
use sonae_journal::Lsn;
use sonae_proto::batch::{Batch, Place};
use sonae_proto::ids::{LogName, SchoolCode, Tier};
use sonae_proto::limits::{BATCH_CHANGES_MAX, BATCH_RAW_BYTES_MAX};
use sonae_proto::seal::{LEVEL_BACKLOG, LEVEL_LIVE, seal_lines};
use sonae_proto::vector::LogHead;
use zeroize::Zeroizing;

use crate::keyring::Keyring;
use crate::store::StoreError;

/// Milliseconds between batches of a tier while the line is up: 2.4 changes a batch on a school day.
pub const WINDOW_UP_MS: u64 = 2_000;

/// Milliseconds between batches while the line is down: fewer, larger batches, 40 % of the bytes.
pub const WINDOW_DOWN_MS: u64 = 60_000;

/// Changes from which a batch is worth the slower compression level.
const BACKLOG_CHANGES: usize = 100;

#[derive(Debug)]
struct Line {
    sequence: u64,
    lsn: Lsn,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Line>,
    bytes: usize,
    sealed_ms: Option<u64>,
}

/// Kept changes that are not sealed yet.
#[derive(Debug)]
pub(crate) struct Sealer {
    tiers: BTreeMap<Tier, Waiting>,
    line_is_up: bool,
    has_neighbours: bool,
}

impl Sealer {
    pub fn new() -> Self {
        let tiers = Tier::ALL.into_iter().map(|tier| (tier, Waiting::default())).collect();
        Self { tiers, line_is_up: false, has_neighbours: false }
    }

    pub fn set_line(&mut self, up: bool) {
        self.line_is_up = up;
    }

    pub fn set_neighbours(&mut self, any: bool) {
        self.has_neighbours = any;
    }

    /// Takes a change whose commit is durable.
    pub fn push(&mut self, tier: Tier, sequence: u64, lsn: Lsn, line: Vec<u8>) {
        let waiting = self.tiers.entry(tier).or_default();
        waiting.bytes += line.len() + 1;
        waiting.lines.push_back(Line { sequence, lsn, bytes: line });
    }

    /// Returns the last change of a tier that waits to be sealed.
    pub fn last_sequence(&self, tier: Tier) -> Option<u64> {
        self.tiers.get(&tier)?.lines.back().map(|line| line.sequence)
    }

    /// Returns the first journal frame that is still needed for sealing.
    pub fn first_lsn(&self) -> Option<Lsn> {
        self.tiers.values().filter_map(|waiting| waiting.lines.front()).map(|line| line.lsn).min()
    }

    /// Returns when the next batch is due, in milliseconds since 1970, or `None` when nothing waits.
    pub fn due_ms(&self) -> Option<u64> {
        self.tiers.values().filter_map(|waiting| self.tier_due_ms(waiting)).min()
    }

    fn tier_due_ms(&self, waiting: &Waiting) -> Option<u64> {
        if waiting.lines.is_empty() {
            return None;
        }
        let full = u64::try_from(waiting.lines.len()).is_ok_and(|count| count >= BATCH_CHANGES_MAX)
            || waiting.bytes >= BATCH_RAW_BYTES_MAX;
        let window = if self.line_is_up || self.has_neighbours { WINDOW_UP_MS } else { WINDOW_DOWN_MS };
        match waiting.sealed_ms {
            Some(sealed_ms) if !full => Some(sealed_ms.saturating_add(window)),
            _ => Some(0),
        }
    }

    /// Makes one batch of the first tier that is due, or that has anything when `force` is set. `head_of` gives
    /// a log's sealed head.
    pub fn seal_next(
        &mut self,
        now_ms: u64,
        force: bool,
        own: &Own<'_>,
        head_of: impl Fn(LogName) -> LogHead,
    ) -> Result<Option<Batch>, StoreError> {
        let due = |waiting: &Waiting| {
            let due_ms = self.tier_due_ms(waiting);
            // A clock that jumped back must not hold a batch for years.
            let jumped = waiting.sealed_ms.is_some_and(|sealed_ms| sealed_ms > now_ms);
            due_ms.is_some_and(|due_ms| force || jumped || due_ms <= now_ms)
        };
        let Some(tier) = self.tiers.iter().find(|(_, waiting)| due(waiting)).map(|(tier, _)| *tier) else {
            return Ok(None);
        };
        let log = LogName { tier, incarnation: own.incarnation };
        let after = head_of(log);
        let Some(waiting) = self.tiers.get_mut(&tier) else { return Ok(None) };
        let (lines, last, count) = take_lines(waiting, after, log)?;
        waiting.sealed_ms = Some(now_ms);
        let level = if count >= BACKLOG_CHANGES { LEVEL_BACKLOG } else { LEVEL_LIVE };
        let (epoch, recipient) = own.keyring.sealing(tier, now_ms)?;
        let payload =
            seal_lines(&lines, level, recipient).map_err(|source| StoreError::Seal { log, source })?;
        let place =
            Place { school: own.school, log, after, last, epoch, manifest: own.keyring.manifest_hash() };
        Ok(Some(Batch::sign(&place, &payload, own.key)?))
    }
}

/// Who seals.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    pub school: SchoolCode,
    pub incarnation: sonae_proto::ids::Incarnation,
    pub key: &'a SigningKey,
    pub keyring: &'a Keyring,
}

/// Takes as many lines as one batch may hold. Returns them, the last sequence and their number.
fn take_lines(
    waiting: &mut Waiting,
    after: LogHead,
    log: LogName,
) -> Result<(Zeroizing<Vec<u8>>, u64, usize), StoreError> {
    let mut lines = Zeroizing::new(Vec::new());
    let (mut last, mut count) = (after.sequence, 0);
    while let Some(line) = waiting.lines.front() {
        let full = u64::try_from(count).is_ok_and(|count| count >= BATCH_CHANGES_MAX)
            || lines.len() + line.bytes.len() + 1 > BATCH_RAW_BYTES_MAX;
        if full {
            break;
        }
        if line.sequence != last + 1 {
            return Err(StoreError::Hole { log, after: last });
        }
        lines.extend_from_slice(&line.bytes);
        lines.push(b'\n');
        waiting.bytes = waiting.bytes.saturating_sub(line.bytes.len() + 1);
        last = line.sequence;
        count += 1;
        waiting.lines.pop_front();
    }
    Ok((lines, last, count))
}
