//! One-time passphrases: printed, read aloud, typed in once.
//!
//! **Invariants**
//! - At least 128 bits: 28 characters of an alphabet of 29, `28 * log2(29) = 136.0`.
//! - Of every pair that looks or sounds alike in print only one is in the alphabet (`0` not `O`, `1` not
//!   `I` or `L`, `2` not `Z`, `5` not `S`, `8` not `B`, `V` not `U`), and the other is read as it.
//! - There is one canonical text, and it is what secrets are derived from.
//!
//! **Left out:** finding typing errors: what the passphrase opens does that.

use std::fmt;

use zeroize::Zeroizing;

use crate::entropy::{Entropy, EntropyError};

/// Groups of a passphrase.
pub const GROUPS: usize = 7;

/// Characters of a group.
pub const GROUP_CHARS: usize = 4;

/// Characters without the dashes.
const CHARS: usize = GROUPS * GROUP_CHARS;

/// Canonical characters: no `B I L O S U Z`.
const ALPHABET: &[u8; 29] = b"0123456789ACDEFGHJKMNPQRTVWXY";

/// Bytes at and above this are drawn again, so that all characters are equally likely: `8 * 29`.
const REJECT_FROM: u8 = 232;

/// Longest text that is parsed, bytes; room for full-width characters and blanks.
const TEXT_BYTES_MAX: usize = 256;

/// A one-time passphrase in canonical form. Wiped when dropped; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

impl Passphrase {
    /// Draws a new passphrase, such as `7K3M-….-Q2XA` with seven groups of four.
    ///
    /// # Errors
    /// [`PassphraseError::Entropy`].
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, PassphraseError> {
        let mut symbols = Zeroizing::new(Vec::with_capacity(CHARS));
        let mut drawn = Zeroizing::new([0u8; 32]);
        while symbols.len() < CHARS {
            entropy.fill(drawn.as_mut_slice())?;
            let fair = drawn.iter().filter(|byte| **byte < REJECT_FROM);
            let chosen = fair.filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
            let missing = CHARS - symbols.len();
            symbols.extend(chosen.take(missing));
        }
        Ok(Self::join(&symbols))
    }

    /// Reads what a person typed: blanks, dashes, case, full-width forms and look-alikes do not matter.
    ///
    /// # Errors
    /// [`PassphraseError::Length`] and [`PassphraseError::Character`].
    pub fn parse(text: &str) -> Result<Self, PassphraseError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PassphraseError::Length { count: text.len() });
        }
        let mut symbols = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX));
        for c in text.chars().map(narrow).filter(|c| !is_separator(*c)) {
            let symbol = canonical(c).ok_or(PassphraseError::Character { position: symbols.len() + 1 })?;
            symbols.push(symbol);
        }
        if symbols.len() != CHARS {
            return Err(PassphraseError::Length { count: symbols.len() });
        }
        Ok(Self::join(&symbols))
    }

    /// The canonical text: upper case, groups of four joined by `-`, 34 characters.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn join(symbols: &[u8]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(CHARS + GROUPS));
        for (index, group) in symbols.chunks(GROUP_CHARS).enumerate() {
            if index > 0 {
                text.push('-');
            }
            text.extend(group.iter().copied().map(char::from));
        }
        Self(text)
    }
}

/// Full-width ASCII (U+FF01 to U+FF5E) as plain ASCII; input methods produce it.
fn narrow(c: char) -> char {
    match c {
        '！'..='～' => u32::from(c).checked_sub(0xFEE0).and_then(char::from_u32).unwrap_or(c),
        _ => c,
    }
}

/// Blanks, and what keyboards and word processors make of a dash, the Japanese long mark included.
fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | 'ー' | 'ｰ' | '_' | '.')
}

/// The character of the alphabet that was meant.
fn canonical(c: char) -> Option<u8> {
    let upper = u8::try_from(c.to_ascii_uppercase()).ok()?;
    let meant = match upper {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        b'Z' => b'2',
        b'S' => b'5',
        b'B' => b'8',
        b'U' => b'V',
        other => other,
    };
    ALPHABET.contains(&meant).then_some(meant)
}

/// Why there is no passphrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Too few or too many characters.
    #[error(
        "the passphrase has {count} characters instead of {CHARS}: type all {GROUPS} groups of {GROUP_CHARS}"
    )]
    Length {
        /// Characters found, separators not counted.
        count: usize,
    },
    /// A character that no passphrase has.
    #[error(
        "character {position} of the passphrase is neither a letter nor a digit: type it again from the sheet"
    )]
    Character {
        /// Its place, from 1, separators not counted.
        position: usize,
    },
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::{Dry, Seeded};
    use std::collections::BTreeMap;

    /// Goal: seven groups of four from the alphabet, different each time, at least 128 bits. Method:
    /// look at some; compute the bits.
    #[test]
    fn form_and_strength() {
        let mut entropy = Seeded::new(1);
        let (one, two) =
            (Passphrase::generate(&mut entropy).unwrap(), Passphrase::generate(&mut entropy).unwrap());
        assert_ne!(one, two);
        let groups: Vec<_> = one.expose().split('-').collect();
        assert_eq!(groups.len(), GROUPS);
        assert!(groups.iter().all(|group| group.len() == GROUP_CHARS));
        assert!(one.expose().bytes().all(|byte| byte == b'-' || ALPHABET.contains(&byte)));
        assert!((28.0 * 29f64.log2()) >= 128.0);
        assert_eq!(usize::from(REJECT_FROM) % ALPHABET.len(), 0);
    }

    /// Goal: characters are equally likely. Method: 1,000 passphrases; each of 29 characters is within
    /// 20 % of its share of 28,000.
    #[test]
    fn no_bias() {
        let (mut entropy, mut counts) = (Seeded::new(2), BTreeMap::new());
        for _ in 0..1_000 {
            let phrase = Passphrase::generate(&mut entropy).unwrap();
            for c in phrase.expose().chars().filter(|c| *c != '-') {
                *counts.entry(c).or_insert(0u32) += 1;
            }
        }
        assert_eq!(counts.len(), 29);
        assert!(counts.values().all(|count| (772..=1_159).contains(count)), "{counts:?}");
    }

    /// Goal: what people type is understood. Method: one passphrase in many spellings.
    #[test]
    fn tolerant_parsing() {
        let canonical = "0125-8VAC-DEFG-HJKM-NPQR-TVWX-Y347";
        for typed in [
            canonical,
            "0125 8vac defg hjkm npqr tvwx y347",
            "01258VACDEFGHJKMNPQRTVWXY347",
            "oIzs-bUaC-defg-hjkm-npqr-tuwx-y347",
            "olZS BvAC\u{3000}DEFG\nHJKM NPQR TVWX Y347 ",
            "０１２５ー８ＶＡＣ−ｄｅｆｇ－HJKM–NPQR—TVWX‐Y347",
        ] {
            assert_eq!(Passphrase::parse(typed).unwrap().expose(), canonical, "{typed}");
        }
    }

    /// Goal: errors say where and what. Method: short, long, odd characters.
    #[test]
    fn parse_errors() {
        let length = |text: &str| match Passphrase::parse(text) {
            Err(PassphraseError::Length { count }) => count,
            other => panic!("{other:?}"),
        };
        assert_eq!(length(""), 0);
        assert_eq!(length(&"A".repeat(27)), 27);
        assert_eq!(length(&"A".repeat(29)), 29);
        assert_eq!(length(&"A".repeat(9_999)), 9_999);
        for (text, position) in [("AB?", 3), ("校", 1), ("A-é", 2)] {
            assert_eq!(Passphrase::parse(text), Err(PassphraseError::Character { position }));
        }
    }

    /// Goal: no secret in `Debug`, no passphrase without entropy. Method: format one; a dry source.
    #[test]
    fn debug_and_dry() {
        let phrase = Passphrase::generate(&mut Seeded::new(3)).unwrap();
        assert!(!format!("{phrase:?}").contains(phrase.expose()));
        assert!(matches!(Passphrase::generate(&mut Dry), Err(PassphraseError::Entropy(_))));
    }
}
