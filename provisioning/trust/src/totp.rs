//! Time-based one-time codes: the second factor that works with the line down.
//!
//! **Invariants**
//! - A code is accepted once: the caller keeps the step that [`verify`] returns and passes it back.
//! - All candidate codes are computed and compared every time, without branching on the secret.
//!
//! SHA-1, 6 digits and 30 s are what every authenticator app supports; several ignore other values.
//!
//! **Left out:** guessing is slowed by [`crate::lockout`]; storage of secrets is the caller's. A box
//! whose clock is not trusted must offer one-time codes instead: if a code is accepted while the clock
//! runs ahead, that login has no valid code until true time passes the kept step.
//!
//! # Source
//! RFC 6238 (TOTP), RFC 4226 (HOTP), the Key URI format of Google Authenticator.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use totp_rs::{Algorithm, TOTP};
use zeroize::{Zeroize as _, Zeroizing};

use crate::entropy::{Entropy, EntropyError};

/// Seconds that one code lasts. Source: RFC 6238 5.2 (30 s recommended).
pub const STEP_S: u64 = 30;

/// Digits of a code.
pub const DIGITS: usize = 6;

/// Steps before and after the present one that are accepted. Source: RFC 6238 5.2 (at most one for
/// delay); one ahead for phones that run fast.
pub const SKEW_STEPS: u64 = 1;

/// Bytes of a new secret. Source: RFC 4226 4, R6 (160 bits recommended).
pub const SECRET_BYTES: usize = 20;

/// Fewest and most bytes of a secret that is read back. Source: RFC 4226 4, R6 (at least 128 bits); a
/// longer key than SHA-1's block of 64 bytes adds nothing.
const SECRET_BYTES_RANGE: std::ops::RangeInclusive<usize> = 16..=64;

/// Who issues the codes; shown by the app above the account.
pub const ISSUER: &str = "Sonae";

/// What a person's app and their school share.
#[derive(Clone)]
pub struct TotpSecret(Zeroizing<Vec<u8>>);

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(redacted)")
    }
}

impl TotpSecret {
    /// Draws a new secret of [`SECRET_BYTES`].
    ///
    /// # Errors
    /// [`TotpError::Entropy`].
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, TotpError> {
        let mut bytes = Zeroizing::new(vec![0u8; SECRET_BYTES]);
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads a secret from base32 (RFC 4648, no padding); spaces, dashes and case do not matter.
    ///
    /// # Errors
    /// [`TotpError::Secret`] when it is not base32 of 16 to 64 bytes.
    pub fn from_base32(text: &str) -> Result<Self, TotpError> {
        // 64 bytes are 103 characters of base32; twice that leaves room for spaces.
        if text.len() > 206 {
            return Err(TotpError::Secret);
        }
        let plain: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '='))
                .map(|c| c.to_ascii_uppercase())
                .collect(),
        );
        let bytes = BASE32_NOPAD.decode(plain.as_bytes()).map(Zeroizing::new);
        match bytes {
            Ok(bytes) if SECRET_BYTES_RANGE.contains(&bytes.len()) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(TotpError::Secret),
        }
    }

    /// The secret as base32 without padding, as it is stored and typed by hand.
    pub fn to_base32(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE32_NOPAD.encode(&self.0))
    }

    /// The `otpauth://` address that an app reads from a QR code: issuer [`ISSUER`], account
    /// `school:login`.
    ///
    /// The label is `Sonae:school%3Alogin`: strict apps refuse a label whose part before the first
    /// colon is not the issuer, so the account's own colon is encoded.
    ///
    /// # Source
    /// Key URI format (label and parameters), RFC 3986 2.1 (percent-encoding of UTF-8).
    pub fn uri(&self, school: &str, login: &str) -> Zeroizing<String> {
        let secret = self.to_base32();
        let (school, login) = (percent_encode(school), percent_encode(login));
        Zeroizing::new(format!(
            "otpauth://totp/{ISSUER}:{school}%3A{login}?secret={}&issuer={ISSUER}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}",
            secret.as_str()
        ))
    }

    /// The code of one step, at most `u64::MAX / STEP_S`; wiped when dropped.
    fn code(&self, step: u64) -> Zeroizing<String> {
        let totp = TOTP::new_unchecked(
            Algorithm::SHA1,
            DIGITS,
            0,
            STEP_S,
            self.0.to_vec(),
            Some(ISSUER.to_owned()),
            String::new(),
        );
        Zeroizing::new(totp.generate(step.saturating_mul(STEP_S)))
    }
}

/// Checks a code against told time (Unix, seconds) and the step that was accepted last for this login.
///
/// Returns the step to keep, durably, before the sign-in is granted; `None` when the code is wrong, out
/// of its time, or not newer than `last_step`. Full-width digits and spaces are understood.
///
/// # Source
/// RFC 6238 4.2 and 5.2 (a second use of a code must be refused).
pub fn verify(secret: &TotpSecret, code: &str, now_unix_s: u64, last_step: Option<u64>) -> Option<u64> {
    let given = digits_of(code)?;
    let present = now_unix_s / STEP_S;
    let first = present.saturating_sub(SKEW_STEPS);
    // Not beyond the last step that a time in seconds can name, so that no product below overflows.
    let last = present.saturating_add(SKEW_STEPS).min(u64::MAX / STEP_S);
    let (mut found, mut step_found) = (Choice::from(0), 0u64);
    for step in first..=last {
        let is_new = last_step.is_none_or(|kept| step > kept);
        let is_equal = secret.code(step).as_bytes().ct_eq(given.as_slice());
        let is_hit = is_equal & Choice::from(u8::from(is_new));
        step_found = u64::conditional_select(&step_found, &step, is_hit);
        found |= is_hit;
    }
    bool::from(found).then_some(step_found)
}

/// The six digits of what a person typed, or nothing.
fn digits_of(code: &str) -> Option<Zeroizing<[u8; DIGITS]>> {
    // Six full-width digits are 18 bytes; leave room for a few spaces.
    if code.len() > 64 {
        return None;
    }
    let mut digits = Zeroizing::new([0u8; DIGITS]);
    let mut count = 0;
    for c in code.chars().filter(|c| !c.is_whitespace()) {
        let offset = match c {
            '0'..='9' => u32::from(c) - u32::from('0'),
            '０'..='９' => u32::from(c) - u32::from('０'),
            _ => return None,
        };
        *digits.get_mut(count)? = b'0' + u8::try_from(offset).ok()?;
        count += 1;
    }
    if count == DIGITS {
        Some(digits)
    } else {
        digits.zeroize();
        None
    }
}

/// Encodes all but the unreserved characters of RFC 3986 2.3.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    encoded
}

/// Why a secret could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TotpError {
    /// Not base32, or too short or too long.
    #[error("the secret of the authenticator is unusable: register the authenticator app again")]
    Secret,
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::{Dry, Seeded};

    /// The secret of RFC 6238 appendix B for SHA-1: `12345678901234567890`.
    fn rfc_secret() -> TotpSecret {
        TotpSecret(Zeroizing::new(b"12345678901234567890".to_vec()))
    }

    /// Goal: codes are those of the standard. Method: RFC 6238 appendix B, SHA-1 rows, last 6 of the 8
    /// digits (the truncation is modulo a power of ten).
    #[test]
    fn rfc_6238_vectors() {
        let rows = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (time_s, code) in rows {
            assert_eq!(verify(&rfc_secret(), code, time_s, None), Some(time_s / 30), "{time_s}");
        }
    }

    /// Goal: one step either side is accepted, two are not. Method: move the clock around one code.
    #[test]
    fn skew_is_one_step() {
        let (secret, step) = (rfc_secret(), 37_037_036u64);
        let code = secret.code(step);
        let at = |offset: i64| (step * 30).checked_add_signed(offset).unwrap();
        for offset in [-30, -1, 0, 29, 59] {
            assert_eq!(verify(&secret, &code, at(offset), None), Some(step), "{offset}");
        }
        for offset in [-31, 60, 3_600] {
            assert_eq!(verify(&secret, &code, at(offset), None), None, "{offset}");
        }
    }

    /// Goal: a code works once, and an older one not after a newer one. Method: keep the step as a
    /// caller does.
    #[test]
    fn replay_is_refused() {
        let (secret, now) = (rfc_secret(), 1_111_111_111u64);
        let kept = verify(&secret, "050471", now, None).unwrap();
        assert_eq!(verify(&secret, "050471", now, Some(kept)), None);
        assert_eq!(verify(&secret, "081804", now, Some(kept)), None);
        let next = secret.code(kept + 1);
        assert_eq!(verify(&secret, &next, now, Some(kept)), Some(kept + 1));
    }

    /// Goal: clocks at the ends of time do not overflow. Method: zero and the largest value.
    #[test]
    fn ends_of_time() {
        let secret = rfc_secret();
        assert_eq!(verify(&secret, &secret.code(0), 0, None), Some(0));
        assert_eq!(verify(&secret, "x", u64::MAX, None), None);
        let last = u64::MAX / STEP_S;
        assert_eq!(verify(&secret, &secret.code(last), u64::MAX, Some(last - 1)), Some(last));
    }

    /// Goal: what input methods produce is understood, and nothing else. Method: full-width digits,
    /// spaces; letters and wrong lengths.
    #[test]
    fn typed_forms() {
        for typed in ["287082", " 287 082 ", "２８７０８２", "287\u{3000}082"] {
            assert_eq!(verify(&rfc_secret(), typed, 59, None), Some(1), "{typed}");
        }
        for typed in ["", "28708", "2870822", "28708a", "-287082", &"2".repeat(99)] {
            assert_eq!(verify(&rfc_secret(), typed, 59, None), None, "{typed}");
        }
    }

    /// Goal: the address is what apps read, with Japanese encoded. Method: compare the whole text.
    #[test]
    fn uri_is_percent_encoded() {
        let uri = rfc_secret().uri("みなと小", "tanaka@a b");
        assert_eq!(
            uri.as_str(),
            "otpauth://totp/Sonae:%E3%81%BF%E3%81%AA%E3%81%A8%E5%B0%8F%3Atanaka%40a%20b?\
             secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Sonae&algorithm=SHA1&digits=6&period=30"
        );
    }

    /// Goal: secrets survive their text form and are bounded; `Debug` hides them. Method: round trip,
    /// bad inputs, format.
    #[test]
    fn secret_text() {
        let secret = TotpSecret::generate(&mut Seeded::new(1)).unwrap();
        let text = secret.to_base32();
        assert_eq!(text.len(), 32);
        let spaced = format!("{}  {}", &text[..8].to_lowercase(), &text[8..]);
        assert_eq!(TotpSecret::from_base32(&spaced).unwrap().0, secret.0);
        for bad in ["", "GEZDGNBV", "1189", &"A".repeat(400)] {
            assert!(matches!(TotpSecret::from_base32(bad), Err(TotpError::Secret)), "{bad}");
        }
        assert!(matches!(TotpSecret::generate(&mut Dry), Err(TotpError::Entropy(_))));
        assert!(!format!("{secret:?}").contains(text.as_str()));
    }
}
