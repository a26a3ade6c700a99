//! Passwords: argon2id hashes as PHC strings, made and checked without telling who exists.
//!
//! **Invariants**
//! - A login that does not exist costs the same work as one that does ([`PasswordHasher::verify`] with
//!   `None`), so that the time of an answer does not list the staff.
//! - Nothing longer than [`PASSWORD_BYTES_MAX`] is hashed, and no stored hash can ask for more work
//!   than [`Cost::LIMIT`]: accounts arrive by replication, and their parameters are input.
//!
//! **Left out:** lists of leaked passwords, Unicode normalisation (browsers and input methods send
//! composed characters), and how many hashes may run at once, which is the caller's budget: each takes
//! [`Cost::memory_kib`] of memory.

use std::fmt;

use argon2::password_hash::{self, Ident, PasswordHash, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use zeroize::Zeroizing;

use crate::entropy::{Entropy, EntropyError};

/// Fewest characters of a new password. Source: NIST SP 800-63B 5.1.1.2 (at least 8).
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Most characters of a new password: any passphrase fits; see [`PASSWORD_BYTES_MAX`].
pub const PASSWORD_CHARS_MAX: usize = 256;

/// Most bytes that are ever hashed: [`PASSWORD_CHARS_MAX`] characters of 4 bytes of UTF-8 each.
pub const PASSWORD_BYTES_MAX: usize = PASSWORD_CHARS_MAX * 4;

/// Longest stored hash that is parsed, bytes: a PHC string of ours has 97.
pub const PHC_BYTES_MAX: usize = 256;

/// Bytes of salt. Source: RFC 9106 3.1 (16 bytes recommended for password hashing).
const SALT_BYTES: usize = 16;

/// Bytes of the hash. Source: RFC 9106 4 (256-bit tag).
const HASH_BYTES: usize = 32;

/// How much work one hash is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes that may run in parallel.
    pub lanes: u32,
}

impl Cost {
    /// What boxes use: 19 MiB, 2 passes, 1 lane. The memory keeps graphics cards at bay, and still
    /// several staff can sign in at once on a box with 2 GiB.
    ///
    /// # Source
    /// OWASP Password Storage Cheat Sheet, argon2id, `m=19456, t=2, p=1`.
    pub const STANDARD: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };

    /// The least that argon2 accepts, for tests that hash often; never for people.
    pub const TEST: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// The most that a stored hash may ask for: 256 MiB, 16 passes, 4 lanes.
    pub const LIMIT: Self = Self { memory_kib: 262_144, passes: 16, lanes: 4 };

    fn params(self) -> Result<Params, PasswordError> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(HASH_BYTES))
            .map_err(|error| PasswordError::Hashing { detail: error.to_string() })
    }
}

/// What checking a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Match {
        /// True when the stored hash has other costs than this hasher: hash the password again and
        /// store that.
        needs_rehash: bool,
    },
    /// The password is wrong, or there is no such account.
    Mismatch,
}

impl Verdict {
    /// Whether the password is right.
    pub fn is_match(self) -> bool {
        matches!(self, Self::Match { .. })
    }
}

/// Makes and checks password hashes at one cost.
#[derive(Clone)]
pub struct PasswordHasher {
    cost: Cost,
    /// Hash of a password that nobody knows; checked in place of an account that does not exist.
    dummy_phc: String,
}

impl fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHasher").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl PasswordHasher {
    /// Makes a hasher; hashes once, for its dummy.
    ///
    /// # Errors
    /// [`PasswordError::Entropy`], or [`PasswordError::Hashing`] when `cost` is out of argon2's range.
    pub fn new(cost: Cost, entropy: &mut dyn Entropy) -> Result<Self, PasswordError> {
        let mut unknown = Zeroizing::new([0u8; HASH_BYTES]);
        entropy.fill(unknown.as_mut_slice())?;
        let dummy_phc = hash_bytes(cost, unknown.as_slice(), entropy)?;
        Ok(Self { cost, dummy_phc })
    }

    /// Hashes a new password to a PHC string (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
    ///
    /// # Errors
    /// [`PasswordError::TooShort`] or [`PasswordError::TooLong`] outside 8 to 256 characters,
    /// [`PasswordError::Entropy`], [`PasswordError::Hashing`].
    ///
    /// # Source
    /// RFC 9106 (argon2id, version 0x13); the PHC string format.
    pub fn hash(
        &self,
        password: &Zeroizing<String>,
        entropy: &mut dyn Entropy,
    ) -> Result<String, PasswordError> {
        bound_bytes(password)?;
        let chars = password.chars().count();
        if chars < PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        if chars > PASSWORD_CHARS_MAX {
            return Err(PasswordError::TooLong);
        }
        hash_bytes(self.cost, password.as_bytes(), entropy)
    }

    /// Checks a password against what is stored, or, with `None` (no such login), against a dummy, so
    /// that both take the same time. Hashes are compared in constant time.
    ///
    /// # Errors
    /// [`PasswordError::TooLong`] before any work, whoever asks; [`PasswordError::StoredHash`] for a
    /// stored text that is not an argon2id hash within [`Cost::LIMIT`], after the work of the dummy.
    pub fn verify(
        &self,
        password: &Zeroizing<String>,
        stored_phc: Option<&str>,
    ) -> Result<Verdict, PasswordError> {
        bound_bytes(password)?;
        let stored = stored_phc.map(parse_stored);
        match stored {
            Some(Ok((hash, cost))) => {
                let is_match = check(password.as_bytes(), &hash)?;
                Ok(if is_match {
                    Verdict::Match { needs_rehash: cost != self.cost }
                } else {
                    Verdict::Mismatch
                })
            }
            Some(Err(error)) => {
                self.spend(password)?;
                Err(error)
            }
            None => {
                self.spend(password)?;
                Ok(Verdict::Mismatch)
            }
        }
    }

    /// Does the work of a check whose result does not count.
    fn spend(&self, password: &Zeroizing<String>) -> Result<(), PasswordError> {
        let (hash, _) = parse_stored(&self.dummy_phc)?;
        std::hint::black_box(check(password.as_bytes(), &hash)?);
        Ok(())
    }
}

fn bound_bytes(password: &Zeroizing<String>) -> Result<(), PasswordError> {
    if password.len() > PASSWORD_BYTES_MAX { Err(PasswordError::TooLong) } else { Ok(()) }
}

fn hash_bytes(cost: Cost, password: &[u8], entropy: &mut dyn Entropy) -> Result<String, PasswordError> {
    let mut salt_bytes = [0u8; SALT_BYTES];
    entropy.fill(&mut salt_bytes)?;
    let failed = |error: password_hash::Error| PasswordError::Hashing { detail: error.to_string() };
    let salt = SaltString::encode_b64(&salt_bytes).map_err(failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.params()?);
    Ok(argon2.hash_password(password, &salt).map_err(failed)?.to_string())
}

/// Checks with the parameters that the hash itself carries; the outputs are compared by `subtle`.
fn check(password: &[u8], hash: &PasswordHash<'_>) -> Result<bool, PasswordError> {
    // The parameters of this instance do not count: `verify_password` reads those of the hash.
    match Argon2::default().verify_password(password, hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::Password) => Ok(false),
        Err(error) => Err(PasswordError::StoredHash { detail: error.to_string() }),
    }
}

fn parse_stored(phc: &str) -> Result<(PasswordHash<'_>, Cost), PasswordError> {
    let bad = |detail: &str| PasswordError::StoredHash { detail: detail.to_owned() };
    if phc.len() > PHC_BYTES_MAX {
        return Err(bad("too long"));
    }
    let hash = PasswordHash::new(phc).map_err(|error| bad(&error.to_string()))?;
    if hash.algorithm != Ident::new_unwrap("argon2id") || hash.version != Some(Version::V0x13.into()) {
        return Err(bad("not argon2id version 19"));
    }
    // The length is ours or nothing: a hash of few bytes would match by chance.
    if hash.salt.is_none() || hash.hash.map(|output| output.len()) != Some(HASH_BYTES) {
        return Err(bad("salt or hash is missing or of another length"));
    }
    let params = Params::try_from(&hash).map_err(|error| bad(&error.to_string()))?;
    let cost = Cost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
    let limit = Cost::LIMIT;
    if cost.memory_kib > limit.memory_kib || cost.passes > limit.passes || cost.lanes > limit.lanes {
        return Err(bad("asks for more work than allowed"));
    }
    Ok((hash, cost))
}

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Fewer than [`PASSWORD_CHARS_MIN`] characters.
    #[error("the password is too short: use at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// More than [`PASSWORD_CHARS_MAX`] characters or [`PASSWORD_BYTES_MAX`] bytes.
    #[error("the password is too long: use at most {PASSWORD_CHARS_MAX} characters")]
    TooLong,
    /// The stored hash cannot be used.
    #[error("the stored password hash is unusable ({detail}): set a new password for this account")]
    StoredHash {
        /// What is wrong with it; never the hash itself.
        detail: String,
    },
    /// argon2 refused to hash.
    #[error("could not hash the password ({detail}): check the cost parameters and the free memory")]
    Hashing {
        /// What argon2 said.
        detail: String,
    },
    /// No random bytes for the salt.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::{Dry, Seeded};

    fn text(value: &str) -> Zeroizing<String> {
        Zeroizing::new(value.to_owned())
    }

    fn hasher() -> PasswordHasher {
        PasswordHasher::new(Cost::TEST, &mut Seeded::new(1)).unwrap()
    }

    /// Goal: the right password matches, others do not, salts differ. Method: hash a Japanese
    /// passphrase twice and check.
    #[test]
    fn hash_then_verify() {
        let (hasher, mut entropy) = (hasher(), Seeded::new(2));
        let one = hasher.hash(&text("さくら並木の下で会う"), &mut entropy).unwrap();
        let two = hasher.hash(&text("さくら並木の下で会う"), &mut entropy).unwrap();
        assert_ne!(one, two);
        let right = hasher.verify(&text("さくら並木の下で会う"), Some(&one)).unwrap();
        assert_eq!(right, Verdict::Match { needs_rehash: false });
        assert_eq!(hasher.verify(&text("さくら並木の下で合う"), Some(&two)).unwrap(), Verdict::Mismatch);
        assert!(!hasher.verify(&text(""), Some(&two)).unwrap().is_match());
    }

    /// Goal: the standard cost is what the docs say. Method: hash once with it and read the PHC text.
    #[test]
    fn standard_cost_is_written() {
        let mut entropy = Seeded::new(3);
        let hasher = PasswordHasher::new(Cost::STANDARD, &mut entropy).unwrap();
        let phc = hasher.hash(&text("correct horse"), &mut entropy).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(phc.len(), 97);
        assert!(hasher.verify(&text("correct horse"), Some(&phc)).unwrap().is_match());
    }

    /// Goal: no account is a mismatch, and as dear as a wrong password. Method: the least of several
    /// interleaved timings of each, compared as a ratio; without the dummy it is below 1 %.
    #[test]
    fn unknown_login_costs_the_same() {
        let mut entropy = Seeded::new(9);
        let hasher = PasswordHasher::new(Cost { memory_kib: 4_096, ..Cost::TEST }, &mut entropy).unwrap();
        let phc = hasher.hash(&text("long enough"), &mut entropy).unwrap();
        let broken = phc.replace("argon2id", "argon2i");
        let time = |stored: Option<&str>| {
            let start = std::time::Instant::now();
            let outcome = hasher.verify(&text("a wrong password"), stored);
            assert!(!outcome.is_ok_and(Verdict::is_match));
            start.elapsed().as_secs_f64()
        };
        let mut least = [f64::MAX; 3];
        for _ in 0..9 {
            for (least, stored) in least.iter_mut().zip([Some(phc.as_str()), None, Some(broken.as_str())]) {
                *least = least.min(time(stored));
            }
        }
        let [known, unknown, broken] = least;
        assert!((0.4..2.5).contains(&(unknown / known)), "{least:?}");
        assert!((0.4..2.5).contains(&(broken / known)), "{least:?}");
    }

    /// Goal: bounds hold at their edges, in characters and in bytes. Method: lengths just inside and
    /// just outside.
    #[test]
    fn bounds() {
        let (hasher, mut entropy) = (hasher(), Seeded::new(4));
        let mut hash = |value: &str| hasher.hash(&text(value), &mut entropy);
        assert!(matches!(hash("1234567"), Err(PasswordError::TooShort)));
        assert!(hash("12345678").is_ok());
        assert!(hash("八文字以上の合言").is_ok());
        assert!(hash(&"𠮷".repeat(256)).is_ok());
        assert!(matches!(hash(&"a".repeat(257)), Err(PasswordError::TooLong)));
        assert!(matches!(hash(&"a".repeat(1025)), Err(PasswordError::TooLong)));
        assert!(matches!(hasher.verify(&text(&"a".repeat(1025)), None), Err(PasswordError::TooLong)));
        assert!(hasher.verify(&text(&"a".repeat(1024)), None).is_ok());
    }

    /// Goal: another cost still verifies and asks for a new hash. Method: hash at one, check at another.
    #[test]
    fn other_cost_needs_rehash() {
        let mut entropy = Seeded::new(5);
        let dearer = Cost { passes: 2, ..Cost::TEST };
        let old = PasswordHasher::new(dearer, &mut entropy).unwrap();
        let phc = old.hash(&text("long enough"), &mut entropy).unwrap();
        let verdict = hasher().verify(&text("long enough"), Some(&phc)).unwrap();
        assert_eq!(verdict, Verdict::Match { needs_rehash: true });
    }

    /// Goal: a stored text that is hostile or broken is refused before it costs anything. Method: other
    /// algorithms, huge memory, a short hash, rubbish.
    #[test]
    fn hostile_stored_hashes_are_refused() {
        let (hasher, mut entropy) = (hasher(), Seeded::new(6));
        let good = hasher.hash(&text("long enough"), &mut entropy).unwrap();
        let (short, _) = good.split_at(good.len() - 11);
        let cases = [
            "".to_owned(),
            "plain".to_owned(),
            good.replace("argon2id", "argon2d"),
            good.replace("m=8", "m=4000000"),
            good.replace("t=1", "t=17"),
            good.replace("v=19", "v=16"),
            short.to_owned(),
            "$argon2id$v=19$m=8,t=1,p=1".to_owned(),
            "x".repeat(PHC_BYTES_MAX + 1),
        ];
        for case in &cases {
            let outcome = hasher.verify(&text("long enough"), Some(case));
            assert!(matches!(outcome, Err(PasswordError::StoredHash { .. })), "{case}: {outcome:?}");
        }
    }

    /// Goal: no entropy, no hash; and no secret in `Debug`. Method: a dry source; format the hasher.
    #[test]
    fn dry_entropy_and_debug() {
        assert!(matches!(PasswordHasher::new(Cost::TEST, &mut Dry), Err(PasswordError::Entropy(_))));
        let shown = format!("{:?}", hasher());
        assert!(!shown.contains("argon2id"), "{shown}");
    }
}
