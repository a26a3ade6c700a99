//! Mutations of bytes that know nothing of a format but where its fields lie.

use std::ops::Range;

use crate::random::Random;

/// Inputs never grow past this, so that a run stays quick. Larger limits of the product are reached by headers
/// that announce more.
pub const INPUT_BYTES_MAX: usize = 192 * 1024;

/// Numbers at which decoders go wrong.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    3,
    15,
    16,
    17,
    63,
    64,
    127,
    128,
    255,
    256,
    999,
    1_000,
    1_001,
    65_535,
    65_536,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    u64::MAX - 1,
    u64::MAX,
];

/// Byte order of the numbers of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Most significant byte first.
    Big,
    /// Least significant byte first.
    Little,
}

/// Does one small thing to some bytes.
pub fn bytes(input: &mut Vec<u8>, random: &mut Random) {
    let length = input.len();
    let at = random.below(length);
    match random.below(9) {
        0 => flip(input, at, random),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => input.truncate(at),
        3 => {
            let more = 1 + random.below(40);
            (0..more).for_each(|_| input.push(random.byte()));
        }
        4 => {
            let piece = piece(input, random);
            input.splice(at..at, piece);
        }
        5 => {
            let end = (at + 1 + random.below(24)).min(length);
            input.drain(at.min(end)..end);
        }
        6 => {
            let piece = piece(input, random);
            let end = (at + piece.len()).min(length);
            input.splice(at..end, piece);
        }
        7 => {
            let width = [1, 2, 4, 8].get(random.below(4)).copied().unwrap_or(1);
            let order = if random.once_in(2) { Order::Big } else { Order::Little };
            number(input, at..at + width, order, random);
        }
        _ => input.insert(at, random.byte()),
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn flip(input: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn piece(input: &[u8], random: &mut Random) -> Vec<u8> {
    let from = random.below(input.len());
    let to = (from + 1 + random.below(64)).min(input.len());
    input.get(from..to).unwrap_or_default().to_vec()
}

/// Writes an edge, or a number near the one that stands there, into a field of up to 8 bytes.
pub fn number(input: &mut [u8], field: Range<usize>, order: Order, random: &mut Random) {
    let Some(place) = input.get_mut(field) else { return };
    let width = place.len().min(8);
    let mut wide = [0; 8];
    if let (Some(to), Some(from)) = (wide.get_mut(8 - width..), place.get(..width)) {
        to.copy_from_slice(from);
        if order == Order::Little {
            to.reverse();
        }
    }
    let old = u64::from_be_bytes(wide);
    let new = match random.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => random.pick(&EDGES).copied().unwrap_or(0),
        _ => random.bits(),
    };
    let bytes = new.to_be_bytes();
    let mut tail = bytes.get(8 - width..).unwrap_or_default().to_vec();
    if order == Order::Little {
        tail.reverse();
    }
    if let Some(to) = place.get_mut(..width) {
        to.copy_from_slice(&tail);
    }
}

/// Does something to one field: a number if it is short, else a few of its bytes.
pub fn field(input: &mut [u8], fields: &[Range<usize>], order: Order, random: &mut Random) {
    let Some(range) = random.pick(fields).cloned() else { return };
    if range.len() <= 8 {
        return number(input, range, order, random);
    }
    let Some(place) = input.get_mut(range) else { return };
    match random.below(3) {
        0 => place.fill(0),
        1 => place.iter_mut().for_each(|byte| *byte = random.byte()),
        _ => {
            let at = random.below(place.len());
            flip(place, at, random);
        }
    }
}

/// Puts the head of one input before the tail of another.
pub fn splice(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    input.truncate(random.below(input.len() + 1));
    let from = random.below(other.len() + 1);
    input.extend_from_slice(other.get(from..).unwrap_or_default());
    input.truncate(INPUT_BYTES_MAX);
}
