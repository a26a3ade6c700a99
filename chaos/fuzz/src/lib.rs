//! Fuzz targets over every decoder of the product.
//!
//! An input is bytes, of which the first says how much of its envelope the harness makes: nothing, lengths and
//! hashes, or signature and encryption as well. So a mutation of any field gets past the checks before it, a
//! failing input is one file, and any engine that mutates bytes could drive a target.
//!
//! **Invariant**: the judgement of an input depends on the input alone. (age draws its own entropy; that
//! changes bytes of an envelope, never a judgement.)
//! **Invariant**: planted bugs live in the harness, in front of or behind the product's decoders; no product
//! code has a switch for them.

pub mod corpus;
pub mod json;
mod keys;
pub mod measure;
pub mod mutate;
pub mod random;
pub mod run;
pub mod targets;

use random::Random;

/// A property that an input breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// Says that a property does not hold, unless it does.
///
/// # Errors
/// [`Broken`] with the text of `what`.
pub fn hold(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}

/// The bug that is planted before or behind a decoder, if one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Planted(Option<&'static str>);

impl Planted {
    /// None: the product as it is.
    pub const NONE: Self = Self(None);

    /// Plants one of [`Target::bugs`].
    #[must_use]
    pub const fn bug(name: &'static str) -> Self {
        Self(Some(name))
    }

    /// Whether it is the bug of this name.
    #[must_use]
    pub fn is(self, name: &str) -> bool {
        self.0 == Some(name)
    }
}

/// What a decoder said of an input, without its values: `accepted`, or the class of the refusal. Inputs with a
/// class that was not seen before are kept and mutated further.
pub type Verdict = String;

/// A seed: its name and its bytes.
pub type Seed = (&'static str, Vec<u8>);

/// One decoder, or a few that belong together.
pub trait Target: Sync {
    /// Its name on the command line, and its folder of the corpus.
    fn name(&self) -> &'static str;

    /// What `make test` runs of it: executions, chosen so that all targets together take about 15 CPU seconds.
    fn executions(&self) -> u64 {
        6_000
    }

    /// Bugs that can be planted.
    fn bugs(&self) -> &'static [&'static str];

    /// Classes that a short run must reach: it shows how deep the inputs get.
    fn reaches(&self) -> &'static [&'static str];

    /// Valid values as the product's own writers write them today.
    fn seeds(&self) -> Vec<Seed>;

    /// Changes one thing of an input.
    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random);

    /// Decodes an input and checks every property.
    ///
    /// # Errors
    /// [`Broken`] names the property that does not hold.
    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken>;
}

/// The byte in front of an input, and the rest.
pub(crate) fn layered(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(layer, body)| (*layer, body))
}

/// Puts the byte of a layer in front.
pub(crate) fn layer(number: u8, body: &[u8]) -> Vec<u8> {
    [&[number], body].concat()
}

/// Mutates what is behind the first byte, and now and then that byte.
pub(crate) fn behind_layer(
    input: &mut Vec<u8>,
    layers: u8,
    random: &mut Random,
    body: impl FnOnce(u8, &mut Vec<u8>, &mut Random),
) {
    let (mut number, rest) = layered(input);
    let mut rest = rest.to_vec();
    if random.once_in(24) {
        number = random.byte() % layers;
    }
    body(number % layers, &mut rest, random);
    *input = layer(number % layers, &rest);
}
