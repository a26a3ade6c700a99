//! The watch over progress: with the line up and changes waiting, receipts must come (P10).
//!
//! A line that comes and goes does not hide a stall: short gaps count as up.

/// With the line up, waiting changes and no receipt for so long, people are told. Five minutes: a slow line brings
/// a receipt for 1 MiB at 256 kbit/s in 35 s.
pub const STALL_MS: u64 = 5 * 60_000;

/// A longer gap in the line begins the watch anew: nothing could have moved.
const GAP_MS: u64 = 60_000;

/// Since when nothing has moved.
#[derive(Debug, Default)]
pub(super) struct Stall {
    since_ms: Option<u64>,
    is_told: bool,
}

impl Stall {
    /// The line is up again. `silent_ms` is how long the cloud was not heard of.
    pub(super) fn up(&mut self, now_ms: u64, waiting: bool, silent_ms: Option<u64>) {
        if silent_ms.is_none_or(|silent_ms| silent_ms > GAP_MS) {
            *self = Self::default();
        }
        self.watch(now_ms, waiting);
    }

    /// Something may have begun to wait.
    pub(super) fn watch(&mut self, now_ms: u64, waiting: bool) {
        if waiting && self.since_ms.is_none() {
            self.since_ms = Some(now_ms);
        }
    }

    /// A receipt has moved what is safe.
    pub(super) fn moved(&mut self, now_ms: u64, waiting: bool) {
        *self = Self { since_ms: waiting.then_some(now_ms), is_told: false };
    }

    /// When [`Self::check`] is due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.since_ms.filter(|_| !self.is_told).map(|since_ms| since_ms.saturating_add(STALL_MS))
    }

    /// Returns since when nothing has moved, as long as people have been told so.
    pub(super) fn told_since_ms(&self) -> Option<u64> {
        self.since_ms.filter(|_| self.is_told)
    }

    /// Returns since when nothing has moved, once, if that is too long ago.
    pub(super) fn check(&mut self, now_ms: u64) -> Option<u64> {
        self.due_ms().filter(|due_ms| *due_ms <= now_ms)?;
        self.is_told = true;
        self.since_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: told once after five minutes without a receipt, again only after something has moved. Method: time.
    #[test]
    fn a_stall_is_told_once() {
        let mut stall = Stall::default();
        stall.up(0, true, None);
        assert_eq!(stall.check(STALL_MS - 1), None);
        assert_eq!(stall.check(STALL_MS), Some(0));
        assert_eq!((stall.check(STALL_MS * 2), stall.due_ms()), (None, None));
        stall.moved(STALL_MS * 2, true);
        assert_eq!(stall.check(STALL_MS * 3), Some(STALL_MS * 2));
    }

    /// Goal: nothing that waits, and a line that was away, are no stall; a line that flaps is one. Method: time.
    #[test]
    fn only_a_stall_is_one() {
        let mut stall = Stall::default();
        stall.up(0, false, None);
        assert_eq!(stall.due_ms(), None);
        stall.watch(10, true);
        stall.up(1_000_000, true, Some(GAP_MS + 1));
        assert_eq!(stall.check(1_000_000 + STALL_MS - 1), None);
        stall.up(1_000_000 + STALL_MS - 1, true, Some(GAP_MS));
        assert_eq!(stall.check(1_000_000 + STALL_MS), Some(1_000_000));
        stall.moved(2_000_000, false);
        assert_eq!(stall.due_ms(), None);
    }
}
