//! With the line up, receipts must come for what waits, and what the cloud says it has of others must come too; or people
//! are told (P4, P10).

use super::{Alarm, Effect, Uplink};
use crate::ids::LogName;

impl Uplink {
    /// Returns a log of another of which the cloud has more than is here, with both sequences. What there is no room for,
    /// and another branch than the one that is held, is not waited for: both are told in their own words.
    fn not_here(&self) -> Option<(LogName, u64, u64)> {
        self.cloud_heads.iter().find_map(|(log, there)| {
            let here = self.peers.heads().get(log).map_or(0, |head| head.sequence);
            let is_awaited = here < there.sequence
                && !self.own.contains_key(log)
                && !self.peers.is_refused(log.tier)
                && !self.peers.is_parted(*log, *there);
            is_awaited.then_some((*log, here, there.sequence))
        })
    }

    /// The cloud has said what it has, after it was not heard of for `silent_ms`.
    pub(super) fn watch_unserved(&mut self, now_ms: u64, silent_ms: Option<u64>) {
        let is_missing = self.not_here().is_some();
        if std::mem::take(&mut self.has_arrived) {
            self.unserved.moved(now_ms, is_missing);
        } else {
            self.unserved.up(now_ms, is_missing, silent_ms);
        }
    }

    /// When [`Self::check_progress`] is due.
    pub(super) fn progress_due_ms(&self) -> Option<u64> {
        [self.stall.due_ms(), self.unserved.due_ms()].into_iter().flatten().min()
    }

    /// Tells people of what has stood still for [`super::STALL_MS`], or to twice that for what others wrote. A new
    /// connection, of another node perhaps, is the only remedy that there is from here.
    pub(super) fn check_progress(&mut self, now_ms: u64) {
        let stalled = self.stall.check(now_ms).map(|since_ms| Alarm::Stalled { since_ms });
        for alarm in stalled.into_iter().chain(self.check_unserved(now_ms)) {
            self.effects.extend([Effect::Alarm(alarm), Effect::Disconnect]);
        }
    }

    fn check_unserved(&mut self, now_ms: u64) -> Option<Alarm> {
        self.unserved.due_ms().filter(|due_ms| *due_ms <= now_ms)?;
        let missing = self.not_here();
        let Some((log, here, there)) = missing.filter(|_| !self.has_arrived) else {
            self.has_arrived = false;
            self.unserved.moved(now_ms, missing.is_some());
            return None;
        };
        let since_ms = self.unserved.check(now_ms)?;
        Some(Alarm::NotServed { log, here, there, since_ms })
    }
}
