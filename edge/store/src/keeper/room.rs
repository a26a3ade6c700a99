//! The keeper and the room on the disk: who may write this round, and what a full journal means.
//!
//! **Invariant**: a write of tier 0 is never refused because something else in its round found no room.

use sonae_journal::{FrameKind, JournalError, Lsn};
use sonae_proto::batch::Batch;
use sonae_proto::ids::Tier;

use super::Keeper;
use super::round::Round;
use crate::edit::{Action, tier_of};
use crate::room::{BackPressure, Pressure, Quota, RoomState};
use crate::store::WriteError;

/// Milliseconds for which a journal that found no room is believed to have none.
pub(super) const FULL_RETRY_MS: u64 = 1_000;

/// What the keeper knows of room: the policy, what it said last, and what the journal has just found no room for, with
/// the steady time until which that is believed.
#[derive(Debug, Default)]
pub(crate) struct Room {
    policy: BackPressure,
    pressure: Pressure,
    ordinary_until_ms: Option<u64>,
    reserved_until_ms: Option<u64>,
}

impl Room {
    pub fn new(quota: Quota) -> Self {
        Self { policy: BackPressure::new(quota), ..Self::default() }
    }

    /// Whether a tier is refused.
    pub fn refuses(&self, tier: Tier) -> bool {
        self.pressure.refuses(tier)
    }

    /// Refuses what there is no room for.
    pub fn check(&self, tier: Tier) -> Result<(), WriteError> {
        if self.refuses(tier) { Err(WriteError::NoRoom { tier }) } else { Ok(()) }
    }

    /// Whether an ordinary commit is not worth a try: trying costs a segment of zeros.
    fn is_full(&self, steady_ms: u64) -> bool {
        self.ordinary_until_ms.is_some_and(|until_ms| steady_ms < until_ms)
    }

    /// Returns for how many milliseconds batches of a tier wait before they are tried again.
    pub fn wait_ms(&self, tier: Tier, steady_ms: u64) -> u64 {
        let until_ms = if tier == Tier::Safety { self.reserved_until_ms } else { self.ordinary_until_ms };
        until_ms.map_or(0, |until_ms| until_ms.saturating_sub(steady_ms))
    }
}

impl Keeper {
    /// Looks at the disk and says from which tier on nothing more is taken.
    pub(crate) fn step_room(&mut self) {
        let is_full = self.room.is_full(self.clock.steady_ms());
        let reading = self.shared.place.read(self.index.bytes_by_tier(), is_full);
        let pressure = self.room.policy.step(&reading);
        if pressure != self.room.pressure {
            let refused_from = pressure.refused_from().map_or("none".to_owned(), |tier| tier.to_string());
            log::warn!(refused_from, free = reading.free_bytes.unwrap_or(0); "room on the disk has changed");
        }
        self.room.pressure = pressure;
    }

    pub(super) fn set_quota(&mut self, quota: Quota) {
        self.room.policy.set_quota(quota);
        self.step_room();
    }

    /// Whether an action is what the reserve is for: tier 0 alone, and no import.
    pub(super) fn is_safety(action: &Action) -> bool {
        let is_tier_0 = |edit| tier_of(edit) == Ok(Tier::Safety);
        action.source.is_none() && action.edits.iter().all(is_tier_0)
    }

    /// Whether a sealed batch is to be tried now.
    pub(super) fn is_due(&self, batch: &Batch) -> bool {
        self.room.wait_ms(batch.header().log.tier, self.clock.steady_ms()) == 0
    }

    /// Takes the sealed batches into a round. Those that found no room wait for their time, so that tier 0 may use the
    /// reserve meanwhile.
    pub(super) fn take_sealed(&mut self, round: &mut Round, bytes_max: usize) {
        for batch in std::mem::take(&mut self.sealed) {
            if self.is_due(&batch) && round.bytes < bytes_max {
                round.push_sealed(&batch);
            } else {
                self.sealed.push(batch);
            }
        }
    }

    pub(super) fn room_state(&self) -> RoomState {
        RoomState {
            policy: self.room.policy.clone(),
            used_by_tier: self.index.bytes_by_tier(),
            reserved_bytes: self.journal.reserved_bytes(),
        }
    }

    /// Commits frames; those of tier 0 alone also into the reserve.
    pub(super) fn commit_frames(
        &mut self,
        frames: &[(FrameKind, Vec<u8>)],
        only_tier_0: bool,
    ) -> Result<Lsn, WriteError> {
        let frames: Vec<(FrameKind, &[u8])> =
            frames.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
        let retry_ms = self.clock.steady_ms().saturating_add(FULL_RETRY_MS);
        let is_full = self.room.is_full(self.clock.steady_ms());
        let mut outcome = if is_full && only_tier_0 {
            self.journal.commit_reserved(&frames)
        } else {
            self.journal.commit(&frames)
        };
        match &outcome {
            Err(JournalError::Full { .. }) if !is_full => {
                self.room.ordinary_until_ms = Some(retry_ms);
                if only_tier_0 {
                    outcome = self.journal.commit_reserved(&frames);
                }
            }
            Ok(_) if !is_full => (self.room.ordinary_until_ms, self.room.reserved_until_ms) = (None, None),
            _ => {}
        }
        match outcome {
            Ok(range) => {
                self.commits += 1;
                Ok(*range.start())
            }
            Err(error @ JournalError::Full { .. }) => {
                log::error!(error = error.to_string(); "the disk is full");
                self.room.ordinary_until_ms = Some(retry_ms);
                if only_tier_0 {
                    self.room.reserved_until_ms = Some(retry_ms);
                }
                Err(WriteError::Full)
            }
            Err(error @ JournalError::TooLarge { .. }) => {
                Err(WriteError::Refused { reason: error.to_string() })
            }
            Err(error) => {
                self.note_failure(&error);
                Err(WriteError::Failed)
            }
        }
    }
}
