//! Sessions: who is signed in, how strongly, until when.
//!
//! **Invariants**
//! - A token has 256 bits and is held by the browser alone; the store keeps a BLAKE3 hash of it, so a
//!   dump of memory opens no session.
//! - A session ends when idle for [`SessionLimits::idle_ms_max`] and, used or not, after
//!   [`SessionLimits::age_ms_max`]; growing stronger does not prolong it.
//! - Growing stronger changes the token: one that leaked before the second factor stays weak, and then
//!   dead.
//! - The count is bounded, per login and over all.
//!
//! Looking a token up is not constant in time, and need not be: the tree compares hashes, and nobody
//! who times it can choose a token whose hash shares a longer prefix with a stored one.
//!
//! **Left out:** roles (read them from the account at each request, so that a change takes effect at
//! once), cookies, persistence: a restart signs everybody out.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::entropy::{Entropy, EntropyError};

/// Bytes of a token: 256 bits.
pub const TOKEN_BYTES: usize = 32;

/// Characters of a token: base64url without padding, `ceil(32 * 8 / 6)`.
pub const TOKEN_CHARS: usize = 43;

/// How a person proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// A password alone.
    Password,
    /// A password and a second factor, or a passkey.
    SecondFactor,
}

/// Limits of sessions; times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Longest time without a request.
    pub idle_ms_max: u64,
    /// Longest time from sign-in.
    pub age_ms_max: u64,
    /// Most sessions of one login; one more ends the one that was used least recently.
    pub per_login_max: usize,
    /// Most sessions of all; one more ends the one that was used least recently.
    pub total_max: usize,
}

impl SessionLimits {
    /// What boxes use: 30 minutes idle, 10 hours in all (a school day), 8 per login (a desk, a tablet,
    /// a phone, and forgotten ones), 1,024 in all (about 200 bytes each).
    pub const STANDARD: Self = Self {
        idle_ms_max: 30 * 60 * 1_000,
        age_ms_max: 10 * 60 * 60 * 1_000,
        per_login_max: 8,
        total_max: 1_024,
    };
}

/// What the browser holds. Wiped when dropped; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// The text for the cookie: [`TOKEN_CHARS`] characters of base64url.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(redacted)")
    }
}

/// One live session, as a request sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who is signed in.
    pub login: String,
    /// How strongly.
    pub strength: Strength,
    /// When they signed in, monotonic ms.
    pub opened_ms: u64,
    /// Their last request before or at this one, monotonic ms.
    pub used_ms: u64,
    /// When the session ends whatever happens, monotonic ms.
    pub ends_ms: u64,
}

/// All sessions of one process.
#[derive(Debug)]
pub struct SessionStore {
    limits: SessionLimits,
    /// By hash of the token.
    sessions: BTreeMap<[u8; 32], Session>,
}

impl SessionStore {
    /// Makes an empty store.
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, sessions: BTreeMap::new() }
    }

    /// Opens a session at `now_ms` (monotonic, counting time asleep) and returns its token, the only
    /// copy. May end the least recently used session of this login, or of all.
    ///
    /// # Errors
    /// [`EntropyError`]; nothing is opened or ended then.
    pub fn open(
        &mut self,
        login: &str,
        strength: Strength,
        now_ms: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<SessionToken, EntropyError> {
        let (token, key) = new_token(entropy)?;
        self.expire(now_ms);
        self.make_room(login);
        let session = Session {
            login: login.to_owned(),
            strength,
            opened_ms: now_ms,
            used_ms: now_ms,
            ends_ms: now_ms.saturating_add(self.limits.age_ms_max),
        };
        self.sessions.insert(key, session);
        Ok(token)
    }

    /// Finds the session of a token, if it is live at `now_ms`, and counts this as use.
    pub fn touch(&mut self, token: &str, now_ms: u64) -> Option<&Session> {
        let key = token_key(token)?;
        let limits = self.limits;
        if !is_live(self.sessions.get(&key)?, &limits, now_ms) {
            self.sessions.remove(&key);
            return None;
        }
        let session = self.sessions.get_mut(&key)?;
        session.used_ms = session.used_ms.max(now_ms);
        Some(session)
    }

    /// Raises a live session to [`Strength::SecondFactor`] under a new token, which is returned; the
    /// old token is dead from here on. `None` when `token` has no live session.
    ///
    /// # Errors
    /// [`EntropyError`]; the session stays as it was then.
    pub fn strengthen(
        &mut self,
        token: &str,
        now_ms: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<SessionToken>, EntropyError> {
        if self.touch(token, now_ms).is_none() {
            return Ok(None);
        }
        let (new, new_key) = new_token(entropy)?;
        let old = token_key(token).and_then(|key| self.sessions.remove(&key));
        Ok(old.map(|session| {
            self.sessions.insert(new_key, Session { strength: Strength::SecondFactor, ..session });
            new
        }))
    }

    /// Ends the session of a token; tells whether there was one.
    pub fn revoke(&mut self, token: &str) -> bool {
        token_key(token).is_some_and(|key| self.sessions.remove(&key).is_some())
    }

    /// Ends all sessions of a login (password changed, account closed); tells how many.
    pub fn revoke_login(&mut self, login: &str) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| session.login != login);
        before - self.sessions.len()
    }

    /// Forgets sessions that have ended; tells how many. [`SessionStore::open`] does this too, so no
    /// timer is needed.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        let (before, limits) = (self.sessions.len(), self.limits);
        self.sessions.retain(|_, session| is_live(session, &limits, now_ms));
        before - self.sessions.len()
    }

    /// Number of sessions held, ended ones included until they are forgotten.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is held.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Ends the least recently used sessions until one more fits both bounds.
    fn make_room(&mut self, login: &str) {
        while self.sessions.values().filter(|session| session.login == login).count()
            >= self.limits.per_login_max.max(1)
        {
            self.evict(Some(login));
        }
        while self.sessions.len() >= self.limits.total_max.max(1) {
            self.evict(None);
        }
    }

    fn evict(&mut self, login: Option<&str>) {
        let least_recent = self
            .sessions
            .iter()
            .filter(|(_, session)| login.is_none_or(|login| session.login == login))
            .min_by_key(|(_, session)| (session.used_ms, session.opened_ms))
            .map(|(key, _)| *key);
        if let Some(key) = least_recent {
            self.sessions.remove(&key);
        }
    }
}

/// A clock that runs backwards ends nothing; it cannot prolong either, since `ends_ms` is fixed.
fn is_live(session: &Session, limits: &SessionLimits, now_ms: u64) -> bool {
    now_ms < session.ends_ms && now_ms.saturating_sub(session.used_ms) < limits.idle_ms_max
}

fn new_token(entropy: &mut dyn Entropy) -> Result<(SessionToken, [u8; 32]), EntropyError> {
    let mut bytes = Zeroizing::new([0u8; TOKEN_BYTES]);
    entropy.fill(bytes.as_mut_slice())?;
    let token = SessionToken(Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice())));
    Ok((token, hash_token(bytes.as_slice())))
}

/// The key of a token as a browser sends it; `None` unless it has exactly the form that we give out.
fn token_key(token: &str) -> Option<[u8; 32]> {
    if token.len() != TOKEN_CHARS {
        return None;
    }
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(token.as_bytes()).ok()?);
    Some(hash_token(&bytes))
}

fn hash_token(bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key("sonae 2026 session token v1", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::{Dry, Seeded};

    const MINUTE_MS: u64 = 60_000;

    fn store() -> (SessionStore, Seeded) {
        (SessionStore::new(SessionLimits::STANDARD), Seeded::new(7))
    }

    /// Goal: an idle session ends at 30 minutes, a used one goes on. Method: touch at 29 min steps.
    #[test]
    fn idle_time_out() {
        let (mut store, mut entropy) = store();
        let token = store.open("tanaka", Strength::Password, 0, &mut entropy).unwrap();
        assert!(store.touch(token.expose(), 29 * MINUTE_MS).is_some());
        assert!(store.touch(token.expose(), 58 * MINUTE_MS).is_some());
        assert!(store.touch(token.expose(), 88 * MINUTE_MS).is_none());
        assert!(store.is_empty());
    }

    /// Goal: ten hours end a session however busy, and a second factor does not prolong it. Method:
    /// touch each minute, strengthen half way.
    #[test]
    fn absolute_expiry() {
        let (mut store, mut entropy) = store();
        let mut token = store.open("tanaka", Strength::Password, 0, &mut entropy).unwrap();
        for minute in 0..600 {
            assert!(store.touch(token.expose(), minute * MINUTE_MS).is_some(), "{minute}");
            if minute == 300 {
                token = store.strengthen(token.expose(), minute * MINUTE_MS, &mut entropy).unwrap().unwrap();
            }
        }
        assert!(store.touch(token.expose(), 600 * MINUTE_MS).is_none());
    }

    /// Goal: the second factor changes the token and kills the old one. Method: compare before and
    /// after; a dry source changes nothing.
    #[test]
    fn strengthen_rotates() {
        let (mut store, mut entropy) = store();
        let weak = store.open("tanaka", Strength::Password, 0, &mut entropy).unwrap();
        assert!(store.strengthen(weak.expose(), 1, &mut Dry).is_err());
        assert_eq!(store.touch(weak.expose(), 1).unwrap().strength, Strength::Password);
        let strong = store.strengthen(weak.expose(), 2, &mut entropy).unwrap().unwrap();
        assert_ne!(weak, strong);
        assert!(store.touch(weak.expose(), 3).is_none());
        let session = store.touch(strong.expose(), 3).unwrap();
        assert_eq!((session.strength, session.opened_ms), (Strength::SecondFactor, 0));
        assert!(store.strengthen(weak.expose(), 3, &mut entropy).unwrap().is_none());
    }

    /// Goal: sessions are bounded per login and over all, least recently used first. Method: small
    /// limits; see who survives.
    #[test]
    fn bounded() {
        let limits = SessionLimits { per_login_max: 2, total_max: 3, ..SessionLimits::STANDARD };
        let (mut store, mut entropy) = (SessionStore::new(limits), Seeded::new(8));
        let mut open = |store: &mut SessionStore, login: &str, now_ms| {
            store.open(login, Strength::Password, now_ms, &mut entropy).unwrap()
        };
        let a1 = open(&mut store, "a", 1);
        let a2 = open(&mut store, "a", 2);
        store.touch(a1.expose(), 3);
        let a3 = open(&mut store, "a", 4);
        assert!(store.touch(a2.expose(), 5).is_none());
        let b1 = open(&mut store, "b", 6);
        store.touch(a1.expose(), 7);
        let c1 = open(&mut store, "c", 8);
        assert_eq!(store.len(), 3);
        assert!(store.touch(a3.expose(), 9).is_none());
        for token in [&a1, &b1, &c1] {
            assert!(store.touch(token.expose(), 9).is_some());
        }
    }

    /// Goal: one login that signs in too often ends its own sessions only. Method: another login's older
    /// session stays.
    #[test]
    fn login_bound_spares_others() {
        let limits = SessionLimits { per_login_max: 1, ..SessionLimits::STANDARD };
        let (mut store, mut entropy) = (SessionStore::new(limits), Seeded::new(9));
        let other = store.open("b", Strength::Password, 0, &mut entropy).unwrap();
        for now_ms in 1..4 {
            store.open("a", Strength::Password, now_ms, &mut entropy).unwrap();
        }
        assert!(store.touch(other.expose(), 5).is_some());
        assert_eq!(store.len(), 2);
    }

    /// Goal: revoking ends what it names and nothing else. Method: by token and by login.
    #[test]
    fn revoke() {
        let (mut store, mut entropy) = store();
        let mut open = |login: &str| store.open(login, Strength::Password, 0, &mut entropy).unwrap();
        let (a1, _a2, b1) = (open("a"), open("a"), open("b"));
        assert!(store.revoke(a1.expose()));
        assert!(!store.revoke(a1.expose()));
        assert_eq!(store.revoke_login("a"), 1);
        assert_eq!(store.revoke_login("a"), 0);
        assert!(store.touch(b1.expose(), 1).is_some());
    }

    /// Goal: tokens are long, differ, are not kept, and odd ones are refused. Method: look at the store
    /// and at malformed texts.
    #[test]
    fn tokens() {
        let (mut store, mut entropy) = store();
        let token = store.open("tanaka", Strength::Password, 0, &mut entropy).unwrap();
        let other = store.open("tanaka", Strength::Password, 0, &mut entropy).unwrap();
        assert_ne!(token, other);
        assert_eq!(token.expose().len(), TOKEN_CHARS);
        let raw = BASE64URL_NOPAD.decode(token.expose().as_bytes()).unwrap();
        assert!(store.sessions.keys().all(|key| key.as_slice() != raw));
        assert!(!format!("{token:?} {store:?}").contains(token.expose()));
        let padded = format!("{}=", token.expose());
        for odd in ["", "short", padded.as_str(), &"!".repeat(TOKEN_CHARS), &"A".repeat(TOKEN_CHARS)] {
            assert!(store.touch(odd, 0).is_none(), "{odd}");
        }
        assert!(store.open("tanaka", Strength::Password, 0, &mut Dry).is_err());
    }

    /// Goal: a clock that steps back does not end sessions. Method: touch at an earlier time.
    #[test]
    fn clock_steps_back() {
        let (mut store, mut entropy) = store();
        let token = store.open("tanaka", Strength::SecondFactor, 1_000, &mut entropy).unwrap();
        assert_eq!(store.touch(token.expose(), 10).unwrap().used_ms, 1_000);
    }
}
