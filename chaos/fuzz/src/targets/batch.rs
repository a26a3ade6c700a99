//! Sealed batches: header, signature and what the payload shows without a key.
//!
//! Layers: 0 as it is; 1 the harness names length and hash of the payload and signs; 2 it only signs.

use std::ops::Range;

use ed25519_dalek::{Signature, Signer};
use sonae_proto::batch::{Batch, BatchError, BatchHeader, HEADER_BYTES, PREFIX_BYTES, Place};
use sonae_proto::bytes::Reader;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::limits::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX};
use sonae_proto::seal::check_recipients;
use sonae_proto::vector::LogHead;

use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, behind_layer, hold, keys, layer, layered, measure};

/// The target.
pub struct BatchTarget;

const FIRST: Range<usize> = 46..54;
const LAST: Range<usize> = 54..62;
const LENGTH: Range<usize> = 130..134;
const HASH: Range<usize> = 134..166;
const SIGNATURE: Range<usize> = 166..230;

/// What may be held besides the batch itself: the bytes of a header, and the text of an error.
const MEMORY_BYTES_MAX: usize = 8 * 1024;

fn fields() -> [Range<usize>; 12] {
    [0..16, 16..29, 29..30, 30..46, FIRST, LAST, 62..94, 94..98, 98..130, LENGTH, HASH, SIGNATURE]
}

/// Puts the envelope around a body.
fn envelope(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    let payload = bytes.get(PREFIX_BYTES..).map(<[u8]>::to_vec);
    let Some(payload) = payload.filter(|_| number > 0) else { return bytes };
    if number == 1 {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        set(&mut bytes, LENGTH, &length);
        set(&mut bytes, HASH, blake3::hash(&payload).as_bytes());
    }
    let signature = keys::writer().sign(bytes.get(..HEADER_BYTES).unwrap_or_default());
    set(&mut bytes, SIGNATURE, &signature.to_bytes());
    bytes
}

fn set(bytes: &mut [u8], field: Range<usize>, value: &[u8]) {
    if let Some(place) = bytes.get_mut(field) {
        place.copy_from_slice(value);
    }
}

/// What a decoder saw of a batch that it accepted.
struct Seen {
    header: BatchHeader,
    bytes: Vec<u8>,
}

fn class(error: &BatchError) -> Verdict {
    match error {
        BatchError::Short(short) => format!("short {}", short.field),
        BatchError::Field { field } => format!("field {field}"),
        BatchError::Payload { .. } => "payload".into(),
        BatchError::Signature { .. } => "signature".into(),
        BatchError::Recipients(error) => format!("recipients: {error}"),
    }
}

fn decode(bytes: Vec<u8>) -> Result<Seen, BatchError> {
    let batch = Batch::from_bytes(bytes)?;
    batch.verify(&keys::writer().verifying_key())?;
    Ok(Seen { header: *batch.header(), bytes: batch.bytes().to_vec() })
}

/// The product's decoder with a planted bug.
fn decode_with(bytes: &[u8], planted: Planted) -> Result<Seen, BatchError> {
    let header = || BatchHeader::from_bytes(&mut Reader::new(bytes));
    if planted.is("reserve") {
        let announced = bytes.get(LENGTH).and_then(|field| field.first_chunk::<4>().copied());
        let announced = announced.map_or(0, u32::from_be_bytes).min(1 << 30);
        drop(std::hint::black_box(Vec::<u8>::with_capacity(usize::try_from(announced).unwrap_or(0))));
    }
    if planted.is("trailing") {
        let end = header()
            .map_or(bytes.len(), |header| PREFIX_BYTES + usize::try_from(header.payload_bytes).unwrap_or(0));
        return decode(bytes.get(..end).unwrap_or(bytes).to_vec());
    }
    match decode(bytes.to_vec()) {
        Err(BatchError::Payload { .. }) if planted.is("payload-hash") => {
            Ok(Seen { header: header()?, bytes: bytes.to_vec() })
        }
        Err(BatchError::Signature { .. }) if planted.is("signature") => {
            Ok(Seen { header: header()?, bytes: bytes.to_vec() })
        }
        Err(BatchError::Recipients(_)) if planted.is("recipients") => {
            Ok(Seen { header: header()?, bytes: bytes.to_vec() })
        }
        Err(BatchError::Field { field: "number of changes" }) if planted.is("changes-limit") => {
            // One change more than allowed: the header of one less, and then the true one.
            let mut less = bytes.to_vec();
            mutate_last(&mut less, |last| last.saturating_sub(1));
            let mut header = BatchHeader::from_bytes(&mut Reader::new(&less))?;
            header.last += 1;
            Ok(Seen { header, bytes: bytes.to_vec() })
        }
        other => other,
    }
}

fn mutate_last(bytes: &mut [u8], change: impl Fn(u64) -> u64) {
    let number = |field: Range<usize>| bytes.get(field).and_then(|at| at.first_chunk::<8>().copied());
    let last = number(LAST).map_or(0, u64::from_be_bytes);
    set(bytes, LAST, &change(last).to_be_bytes());
}

/// The rules of the format, written again from `docs/spec/batch.md` without the product's code.
fn allowed(bytes: &[u8]) -> bool {
    let (Some(header), Some(payload)) = (bytes.get(..HEADER_BYTES), bytes.get(PREFIX_BYTES..)) else {
        return false;
    };
    let number = |field: Range<usize>| -> u64 {
        bytes.get(field).unwrap_or_default().iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    };
    let part = |field: Range<usize>| bytes.get(field).unwrap_or_default();
    let (first, last) = (number(FIRST), number(LAST));
    let school_fits = part(16..29).iter().enumerate().all(|(at, byte)| match at {
        0 => (b'A'..=b'H').contains(byte),
        1 => (b'1'..=b'2').contains(byte),
        2 => (b'0'..=b'4').contains(byte),
        4 => (b'1'..=b'3').contains(byte),
        _ => byte.is_ascii_digit(),
    });
    let signature = Signature::from_slice(part(SIGNATURE));
    part(0..16) == b"sonae/batch/v1\0\0"
        && school_fits
        && number(29..30) <= 2
        && first > 0
        && last >= first
        && last - first < BATCH_CHANGES_MAX
        && (first == 1) == part(62..94).iter().all(|byte| *byte == 0)
        && bytes.len() <= BATCH_BYTES_MAX
        && number(LENGTH) == u64::try_from(payload.len()).unwrap_or(u64::MAX)
        && part(HASH) == blake3::hash(payload).as_bytes()
        && signature.is_ok_and(|it| keys::writer().verifying_key().verify_strict(header, &it).is_ok())
        && check_recipients(payload).is_ok()
}

fn check(bytes: &[u8], seen: &Seen) -> Result<(), Broken> {
    let header = &seen.header;
    hold(seen.bytes == bytes, || "an accepted batch is kept byte for byte".into())?;
    hold(Some(header.to_bytes().as_slice()) == bytes.get(..HEADER_BYTES), || {
        "the header of an accepted batch encodes to what was read".into()
    })?;
    let place = Place {
        school: header.school,
        log: header.log,
        after: LogHead { sequence: header.first - 1, hash: header.previous },
        last: header.last,
        epoch: header.epoch,
        manifest: header.manifest,
    };
    let payload = bytes.get(PREFIX_BYTES..).unwrap_or_default();
    let again = Batch::sign(&place, payload, &keys::writer());
    hold(again.is_ok_and(|again| again.bytes() == bytes), || {
        "an accepted batch is what its writer would sign".into()
    })?;
    hold(header.continues(&place.after) && (1..=BATCH_CHANGES_MAX).contains(&header.changes()), || {
        "an accepted batch continues its own past".into()
    })
}

/// An age header with one recipient, as the eye of the cloud sees it; nothing opens it.
pub fn sealed_looking(tail: &[u8]) -> Vec<u8> {
    let header = b"age-encryption.org/v1\n-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\n\
        EmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U\n--- Vn+54jqiiUCE+WZcEVY3f1sqHjlu/z1LCQ/T7Xm7qI0\n";
    [&header[..], tail].concat()
}

impl Target for BatchTarget {
    fn name(&self) -> &'static str {
        "batch"
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["payload-hash", "signature", "recipients", "changes-limit", "trailing", "reserve"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "accepted",
            "payload",
            "signature",
            "field sequence",
            "field number of changes",
            "field previous hash",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        let Ok(school) = keys::school() else { return Vec::new() };
        let mut place = Place {
            school,
            log: keys::log(Tier::Safety),
            after: LogHead::EMPTY,
            last: 3,
            epoch: 2026,
            manifest: Hash32([7; 32]),
        };
        let mut seeds = Vec::new();
        for (name, last) in [("first", 3), ("second", 1_003), ("single", 1_004)] {
            place.last = last;
            let payload = sealed_looking(name.as_bytes());
            let Ok(batch) = Batch::sign(&place, &payload, &keys::writer()) else { continue };
            place.after = batch.header().head();
            seeds.push((name, layer(2, batch.bytes())));
        }
        seeds
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 3, random, |_, body, random| match random.below(8) {
            0 => mutate::bytes(body, random),
            1 => {
                let number = |bytes: &[u8]| bytes.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
                let first = number(body.get(FIRST).unwrap_or_default());
                let more = [0, 998, 999, 1_000, 1_001].get(random.below(5)).copied().unwrap_or(0);
                set(body, LAST, &first.wrapping_add(more).to_be_bytes());
            }
            2 => {
                let mut payload = body.split_off(PREFIX_BYTES.min(body.len()));
                mutate::bytes(&mut payload, random);
                body.extend(payload);
            }
            _ => mutate::field(body, &fields(), Order::Big, random),
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let bytes = envelope(number % 3, body);
        let memory = 3 * bytes.len() + MEMORY_BYTES_MAX;
        let outcome = measure::call(memory, || decode_with(&bytes, planted))?;
        hold(outcome.is_ok() == allowed(&bytes), || {
            let said = outcome.as_ref().map_or_else(class, |_| "accepted".into());
            format!("a batch is accepted if and only if it follows the rules: {said}")
        })?;
        match outcome {
            Ok(seen) => check(&bytes, &seen).map(|()| "accepted".into()),
            Err(error) => Ok(class(&error)),
        }
    }
}
