//! The brake on guessing: how long a login or an address waits before it may try again.
//!
//! A pure policy: [`Lockout::step`] is told what happens and when, and says whether to go on.
//!
//! **Invariants**
//! - An attempt is charged when it is allowed, not when it fails: a hundred attempts in flight at once
//!   count as a hundred. A success pays back.
//! - Attempts during a wait are not charged, so that a wait ends.
//! - Memory is bounded, and logins are kept as hashes.
//!
//! **Left out:** telling the person (HTTP 429 with `Retry-After`), and attempts spread over many addresses
//! and logins, which are as slow as the password hash makes them. Someone on the LAN can hold a login
//! back by guessing at it; the wait is capped for that reason.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Limits of the brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockoutLimits {
    /// Failures of one login that cost no wait.
    pub login_free_failures: u32,
    /// Failures from one address that cost no wait.
    pub address_free_failures: u32,
    /// First wait, ms; each further failure doubles it.
    pub wait_ms_first: u64,
    /// Longest wait, ms.
    pub wait_ms_max: u64,
    /// A quiet time of this length forgives one failure, ms; at most `wait_ms_max`, so that whoever waits
    /// the longest wait is forgiven one and the count stops growing.
    pub decay_ms: u64,
    /// Most logins and most addresses that are remembered, each.
    pub entries_max: usize,
}

impl LockoutLimits {
    /// What boxes use: 5 free failures for a login and 20 for an address (a staff room behind one
    /// router shares it), then 1 s, 2 s, 4 s … 15 min; 15 quiet minutes forgive one failure. 4,096
    /// entries of about 100 bytes stay below 1 MiB.
    pub const STANDARD: Self = Self {
        login_free_failures: 5,
        address_free_failures: 20,
        wait_ms_first: 1_000,
        wait_ms_max: 15 * 60 * 1_000,
        decay_ms: 15 * 60 * 1_000,
        entries_max: 4_096,
    };
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Somebody wants to sign in: ask before any work is done.
    Attempt {
        /// The login as typed, in the caller's normal form.
        login: &'a str,
        /// Where it comes from.
        address: IpAddr,
    },
    /// An allowed attempt turned out right, all its factors included.
    Succeeded {
        /// The login of that attempt.
        login: &'a str,
        /// The address of that attempt.
        address: IpAddr,
    },
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Check the password.
    Allow,
    /// Check nothing and say when to come back.
    Wait {
        /// Whole seconds until the next attempt is allowed, rounded up, at least 1.
        retry_after_s: u64,
    },
}

/// Failures of one login or one address.
#[derive(Debug, Clone, Copy)]
struct Tally {
    failures: u32,
    /// When the last failure was charged, or when decay last forgave one, ms.
    since_ms: u64,
    /// When the last attempt was charged, ms: the wait runs from here.
    last_ms: u64,
}

/// Tallies under keys of 16 bytes, bounded.
#[derive(Debug, Default)]
struct Ledger {
    tallies: BTreeMap<[u8; 16], Tally>,
}

/// The brake.
#[derive(Debug)]
pub struct Lockout {
    limits: LockoutLimits,
    logins: Ledger,
    addresses: Ledger,
}

impl Lockout {
    /// Makes an empty brake.
    pub fn new(limits: LockoutLimits) -> Self {
        Self { limits, logins: Ledger::default(), addresses: Ledger::default() }
    }

    /// Takes in what happened at `now_ms` (monotonic, ms) and says whether to go on; after
    /// [`Event::Succeeded`] always [`Decision::Allow`].
    ///
    /// A success clears the login but only one failure of the address: the owner of one account must not
    /// wash an address clean by signing in between guesses.
    pub fn step(&mut self, event: Event<'_>, now_ms: u64) -> Decision {
        let limits = self.limits;
        match event {
            Event::Attempt { login, address } => {
                let (login, address) = (login_key(login), address_key(address));
                let (login_free, address_free) = (limits.login_free_failures, limits.address_free_failures);
                let login_wait_ms = self.logins.wait_ms(&login, login_free, &limits, now_ms);
                let address_wait_ms = self.addresses.wait_ms(&address, address_free, &limits, now_ms);
                let wait_ms = login_wait_ms.max(address_wait_ms);
                if wait_ms > 0 {
                    return Decision::Wait { retry_after_s: wait_ms.div_ceil(1_000) };
                }
                self.logins.charge(login, &limits, now_ms);
                self.addresses.charge(address, &limits, now_ms);
            }
            Event::Succeeded { login, address } => {
                self.logins.tallies.remove(&login_key(login));
                self.addresses.forgive_one(&address_key(address));
            }
        }
        Decision::Allow
    }

    /// How many logins and addresses are remembered.
    pub fn entries(&self) -> (usize, usize) {
        (self.logins.tallies.len(), self.addresses.tallies.len())
    }
}

impl Ledger {
    /// Time left until this key may try again, ms; zero when it may.
    fn wait_ms(&mut self, key: &[u8; 16], free: u32, limits: &LockoutLimits, now_ms: u64) -> u64 {
        let Some(tally) = self.tallies.get_mut(key) else { return 0 };
        let wait_ms = full_wait_ms(tally.failures, free, limits);
        // Before decay, which must not shorten a wait. A clock that ran backwards: no time passed.
        let passed_ms = now_ms.saturating_sub(tally.last_ms);
        let left_ms = wait_ms.saturating_sub(passed_ms);
        if left_ms == 0 {
            tally.decay(limits.decay_ms, now_ms);
            if tally.failures == 0 {
                self.tallies.remove(key);
            }
        }
        left_ms
    }

    /// Counts one failure.
    fn charge(&mut self, key: [u8; 16], limits: &LockoutLimits, now_ms: u64) {
        if !self.tallies.contains_key(&key) && self.tallies.len() >= limits.entries_max {
            self.make_room(limits, now_ms);
        }
        let tally =
            self.tallies.entry(key).or_insert(Tally { failures: 0, since_ms: now_ms, last_ms: now_ms });
        tally.failures = tally.failures.saturating_add(1);
        tally.since_ms = now_ms;
        tally.last_ms = now_ms;
    }

    fn forgive_one(&mut self, key: &[u8; 16]) {
        if let Some(tally) = self.tallies.get_mut(key) {
            tally.failures = tally.failures.saturating_sub(1);
            if tally.failures == 0 {
                self.tallies.remove(key);
            }
        }
    }

    /// Drops what has decayed to nothing, and if that is not enough, the oldest. Looks at every entry, but
    /// only when the ledger is full, and that is small beside a password hash.
    fn make_room(&mut self, limits: &LockoutLimits, now_ms: u64) {
        self.tallies.retain(|_, tally| {
            tally.decay(limits.decay_ms, now_ms);
            tally.failures > 0
        });
        while self.tallies.len() >= limits.entries_max.max(1) {
            let oldest = self.tallies.iter().min_by_key(|(_, tally)| tally.last_ms).map(|(key, _)| *key);
            let Some(key) = oldest else { return };
            self.tallies.remove(&key);
        }
    }
}

impl Tally {
    /// Forgives one failure per full quiet interval.
    fn decay(&mut self, decay_ms: u64, now_ms: u64) {
        let quiet_ms = now_ms.saturating_sub(self.since_ms);
        let Some(intervals) = quiet_ms.checked_div(decay_ms) else { return };
        self.failures = self.failures.saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX));
        self.since_ms = self.since_ms.saturating_add(intervals.saturating_mul(decay_ms));
    }
}

/// The wait after so many failures, ms.
fn full_wait_ms(failures: u32, free: u32, limits: &LockoutLimits) -> u64 {
    let Some(beyond) = failures.checked_sub(free) else { return 0 };
    let factor = 1u64.checked_shl(beyond).unwrap_or(u64::MAX);
    limits.wait_ms_first.saturating_mul(factor).min(limits.wait_ms_max)
}

/// Names are kept as a hash: bounded, and not readable in memory.
fn login_key(login: &str) -> [u8; 16] {
    let mut key = [0u8; 16];
    let mut hasher = blake3::Hasher::new_derive_key("sonae 2026 lockout login v1");
    hasher.update(login.as_bytes()).finalize_xof().fill(&mut key);
    key
}

/// IPv4 as it is; IPv6 by its /64, since one device may use any address within it.
fn address_key(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).octets()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 1, last])
    }

    fn attempt(lockout: &mut Lockout, login: &str, from: IpAddr, now_ms: u64) -> Decision {
        lockout.step(Event::Attempt { login, address: from }, now_ms)
    }

    /// Goal: five free failures, then 1, 2, 4 … s up to 15 min. Method: fail as soon as each wait ends
    /// and note the waits. Addresses change, so that only the login counts.
    #[test]
    fn login_waits_double_up_to_the_cap() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        let (mut now_ms, mut waits) = (10_000, Vec::new());
        for last in 0..20 {
            match attempt(&mut lockout, "tanaka", address(last), now_ms) {
                Decision::Allow => waits.push(0),
                Decision::Wait { retry_after_s } => {
                    waits.push(retry_after_s);
                    now_ms += retry_after_s * 1_000;
                    let again = attempt(&mut lockout, "tanaka", address(last), now_ms);
                    assert_eq!(again, Decision::Allow);
                }
            }
        }
        assert_eq!(&waits[..5], &[0; 5]);
        assert_eq!(&waits[5..15], &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert!(waits[15..].iter().all(|wait| *wait == 900), "{waits:?}");
    }

    /// Goal: a wait is not prolonged by asking, and is rounded up. Method: ask often within one wait.
    #[test]
    fn asking_during_a_wait_is_free() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        for _ in 0..6 {
            attempt(&mut lockout, "tanaka", address(1), 0);
        }
        for now_ms in 0..999 {
            let decision = attempt(&mut lockout, "tanaka", address(1), now_ms);
            assert_eq!(decision, Decision::Wait { retry_after_s: 1 }, "{now_ms}");
        }
        assert_eq!(attempt(&mut lockout, "tanaka", address(1), 1_000), Decision::Allow);
    }

    /// Goal: attempts in flight together are all counted. Method: 100 at the same instant; only the
    /// free ones pass.
    #[test]
    fn attempts_in_flight_are_charged() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        let allowed =
            (0..100).filter(|_| attempt(&mut lockout, "tanaka", address(1), 5) == Decision::Allow).count();
        assert_eq!(allowed, 5);
    }

    /// Goal: one address that tries many logins is slowed, another is not. Method: 20 logins from one,
    /// then one more from each.
    #[test]
    fn addresses_are_slowed_too() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        for n in 0..20 {
            assert_eq!(attempt(&mut lockout, &format!("staff{n}"), address(1), 0), Decision::Allow);
        }
        assert_eq!(attempt(&mut lockout, "sato", address(1), 0), Decision::Wait { retry_after_s: 1 });
        assert_eq!(attempt(&mut lockout, "sato", address(2), 0), Decision::Allow);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..20 {
            attempt(&mut lockout, &format!("other{n}"), v6(&format!("2001:db8::{n}")), 0);
        }
        let same_64 = attempt(&mut lockout, "ito", v6("2001:db8::ffff"), 0);
        assert_eq!(same_64, Decision::Wait { retry_after_s: 1 });
        assert_eq!(attempt(&mut lockout, "ito", v6("2001:db8:0:1::1"), 0), Decision::Allow);
    }

    /// Goal: success clears the login but washes the address only by what it was charged. Method: an
    /// owner of one account signs in between guesses at others.
    #[test]
    fn success_pays_back_only_itself() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        let mut guesses = 0;
        for n in 0..100 {
            if attempt(&mut lockout, &format!("victim{n}"), address(1), 0) == Decision::Allow {
                guesses += 1;
            }
            if attempt(&mut lockout, "own", address(1), 0) == Decision::Allow {
                lockout.step(Event::Succeeded { login: "own", address: address(1) }, 0);
            }
        }
        assert_eq!(guesses, 20);
        for _ in 0..4 {
            attempt(&mut lockout, "sato", address(9), 0);
        }
        lockout.step(Event::Succeeded { login: "sato", address: address(9) }, 0);
        for _ in 0..5 {
            assert_eq!(attempt(&mut lockout, "sato", address(9), 0), Decision::Allow);
        }
    }

    /// Goal: quiet time forgives, one failure per interval. Method: six failures, then 30 quiet
    /// minutes: the next is free and the one after waits 1 s; after a day all is forgiven.
    #[test]
    fn quiet_time_forgives() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        for now_ms in [0, 0, 0, 0, 0, 1_000] {
            assert_eq!(attempt(&mut lockout, "tanaka", address(1), now_ms), Decision::Allow);
        }
        let later_ms = 1_000 + 30 * MINUTE_MS;
        assert_eq!(attempt(&mut lockout, "tanaka", address(2), later_ms), Decision::Allow);
        assert_eq!(
            attempt(&mut lockout, "tanaka", address(2), later_ms),
            Decision::Wait { retry_after_s: 1 }
        );
        let much_later_ms = later_ms + 24 * 60 * MINUTE_MS;
        assert_eq!(attempt(&mut lockout, "tanaka", address(2), much_later_ms), Decision::Allow);
        assert_eq!(lockout.logins.tallies.values().map(|tally| tally.failures).collect::<Vec<_>>(), [1]);
    }

    /// Goal: memory is bounded and the oldest goes first. Method: three entries at most; the newest
    /// stay slowed, and no name is readable in `Debug`.
    #[test]
    fn oldest_is_evicted() {
        let limits =
            LockoutLimits { entries_max: 3, address_free_failures: 1_000, ..LockoutLimits::STANDARD };
        let mut lockout = Lockout::new(limits);
        for (now_ms, login) in ["tanaka", "b", "c", "d"].into_iter().enumerate() {
            for _ in 0..5 {
                attempt(&mut lockout, login, address(1), now_ms as u64);
            }
        }
        assert_eq!(lockout.entries(), (3, 1));
        let waits = |lockout: &mut Lockout, login| attempt(lockout, login, address(1), 4) != Decision::Allow;
        assert!(waits(&mut lockout, "b") && waits(&mut lockout, "c") && waits(&mut lockout, "d"));
        assert!(!waits(&mut lockout, "tanaka"));
        assert!(!format!("{lockout:?}").contains("tanaka"));
    }

    /// Goal: odd clocks and limits neither free nor panic. Method: step back; limits of zero.
    #[test]
    fn odd_clocks_and_limits() {
        let mut lockout = Lockout::new(LockoutLimits::STANDARD);
        for _ in 0..5 {
            attempt(&mut lockout, "tanaka", address(1), 100_000);
        }
        assert_eq!(attempt(&mut lockout, "tanaka", address(1), 0), Decision::Wait { retry_after_s: 1 });
        let zero = LockoutLimits {
            login_free_failures: 0,
            address_free_failures: 0,
            wait_ms_first: 0,
            wait_ms_max: 0,
            decay_ms: 0,
            entries_max: 0,
        };
        let mut lockout = Lockout::new(zero);
        assert_eq!(attempt(&mut lockout, "tanaka", address(1), u64::MAX), Decision::Allow);
    }
}
