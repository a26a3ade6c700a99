//! Random bytes: a port with the operating system behind it, so that simulations can tell them.
//!
//! **Invariant:** everything in this crate that is drawn at random comes through [`Entropy`], except
//! the private keys of certificates and the nonces of ECDSA: `ring` takes those from the operating
//! system and offers no other way.

/// A source of bytes that nobody can guess.
///
/// The real body is [`SystemEntropy`]; simulations bring their own, seeded.
pub trait Entropy {
    /// Fills `out` with random bytes.
    ///
    /// # Errors
    /// [`EntropyError`] when the source gives nothing; `out` must not be used then.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system's generator (`getrandom(2)` on Linux, which waits until it is seeded).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|error| EntropyError { detail: error.to_string() })
    }
}

/// The source of random bytes gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes from the operating system ({detail}): restart the machine and try again")]
pub struct EntropyError {
    /// What the source said.
    pub detail: String,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Seeded bytes and a source that fails, for the tests of this crate only.
    use super::{Entropy, EntropyError};

    /// Bytes that follow from a seed.
    pub(crate) struct Seeded(blake3::OutputReader);

    impl Seeded {
        pub(crate) fn new(seed: u64) -> Self {
            Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
        }
    }

    impl Entropy for Seeded {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
            self.0.fill(out);
            Ok(())
        }
    }

    /// A source that never gives anything.
    pub(crate) struct Dry;

    impl Entropy for Dry {
        fn fill(&mut self, _out: &mut [u8]) -> Result<(), EntropyError> {
            Err(EntropyError { detail: "dry".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the system source fills the whole buffer. Method: two draws of 32 bytes differ from zero
    /// and from each other.
    #[test]
    fn system_bytes_differ() {
        let (mut one, mut two) = ([0u8; 32], [0u8; 32]);
        SystemEntropy.fill(&mut one).unwrap();
        SystemEntropy.fill(&mut two).unwrap();
        assert_ne!(one, [0u8; 32]);
        assert_ne!(one, two);
    }
}
