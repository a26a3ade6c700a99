//! Owns the choices of a run: streams of the generator's random source, each named, so that a draw in one place
//! changes no other. **Invariant**: the same seed and name give the same choices for ever.

use crate::generate::random::{Source, Stream};

/// A named row of choices.
#[derive(Clone)]
pub(crate) struct Random(Stream);

impl Random {
    /// Opens the stream `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(Source::new(seed).stream(name, 0))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        u64::from(self.0.bits()) << 32 | u64::from(self.0.bits())
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits().checked_rem(end).unwrap_or(0)
    }

    /// A place in a list of `length`.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    /// True once in `n` times; never if `n` is 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// One of a list that is not empty.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }
}
