//! Tests of bundles: whole, cut at every byte, flipped at every bit, in pieces of any size.

use super::*;
use crate::ids::Incarnation;
use proptest::prelude::*;

fn opening() -> Opening {
    Opening {
        format: FORMAT.into(),
        school: "B113200000011".parse().unwrap(),
        made_ms: 1,
        software: "test".into(),
        from: Origin::Cloud(CloudOpening {
            to: Incarnation::from_bytes([1; 16]),
            heads: Heads::new(),
            complete: true,
        }),
    }
}

fn records() -> Vec<Record> {
    let identity = IdentityText { device: "a".into(), incarnation: "b".into() };
    vec![
        Record::Identity(Box::new(identity)),
        Record::Batch(vec![7; 40]),
        Record::Receipt(vec![8; 10]),
        Record::Unknown(99),
        Record::Batch(Vec::new()),
    ]
}

fn bundle() -> Vec<u8> {
    let (mut encoder, mut bytes) = Encoder::start(&opening()).unwrap();
    for record in records() {
        bytes.extend(encoder.record(&record).unwrap());
    }
    let (end, count) = encoder.finish();
    assert_eq!(count, End { records: 6, batches: 2 });
    bytes.extend(end);
    bytes
}

/// Reads in pieces; returns the records and how it ended.
fn read(bytes: &[u8], piece: usize) -> (Vec<Record>, Result<End, CourierError>) {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        decoder.feed(piece);
        loop {
            match decoder.poll() {
                Ok(Some(record)) => found.push(record),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
    }
    let end = decoder.finish();
    (found, end)
}

/// Goal: a bundle comes back whatever the size of the pieces. Method: pieces of 1 byte up to the whole.
#[test]
fn pieces_do_not_matter() {
    let bytes = bundle();
    let mut expected = vec![Record::Opening(Box::new(opening()))];
    expected.extend(records());
    expected.push(Record::End(End { records: 6, batches: 2 }));
    for piece in 1..=bytes.len() {
        let (found, end) = read(&bytes, piece);
        assert_eq!(found, expected);
        assert_eq!(end.unwrap(), End { records: 6, batches: 2 });
    }
}

/// Goal: half a file gives its whole records and is called cut. Method: every prefix.
#[test]
fn every_prefix_is_cut() {
    let bytes = bundle();
    let (whole, _) = read(&bytes, bytes.len());
    for length in 0..bytes.len() {
        let (found, end) = read(&bytes[..length], 7);
        assert!(whole.starts_with(&found), "length {length}");
        assert!(
            matches!(end, Err(CourierError::Cut { offset }) if offset <= length as u64),
            "length {length}"
        );
    }
}

/// Goal: no flipped bit passes, and what stands before it does. Method: flip every bit.
#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = bundle();
    let (whole, _) = read(&bytes, bytes.len());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (found, end) = read(&flipped, flipped.len());
        assert!(end.is_err() && whole.starts_with(&found), "bit {bit}");
    }
}

/// Goal: a record that was taken out, doubled or put behind the end is noticed. Method: build such files.
#[test]
fn records_have_their_place() {
    let build = |records: &[Record], end: End| {
        let (mut encoder, mut bytes) = Encoder::start(&opening()).unwrap();
        for record in records {
            bytes.extend(encoder.record(record).unwrap());
        }
        bytes.extend(encoder.record(&Record::End(end)).unwrap());
        bytes
    };
    let batch = Record::Batch(vec![1]);
    let lacking = build(std::slice::from_ref(&batch), End { records: 3, batches: 2 });
    assert!(matches!(read(&lacking, 9).1, Err(CourierError::Count { said: 3, found: 2 })));
    let second = build(&[Record::Opening(Box::new(opening()))], End { records: 2, batches: 0 });
    assert!(matches!(read(&second, 9).1, Err(CourierError::Order { .. })));
    let mut behind = bundle();
    behind.push(1);
    assert!(matches!(read(&behind, 9).1, Err(CourierError::Order { .. })));
    let mut headless = MAGIC.to_vec();
    headless.extend(Encoder::default().record(&batch).unwrap());
    assert!(matches!(read(&headless, 9).1, Err(CourierError::Order { offset: 4 })));
    let later = Opening { format: "sonae/courier/v2".into(), ..opening() };
    let (_, bytes) = Encoder::start(&later).unwrap();
    assert!(matches!(read(&bytes, 9).1, Err(CourierError::Format { .. })));
    assert!(matches!(read(b"PK\x03\x04zip", 9).1, Err(CourierError::Magic)));
}

/// Goal: a length over the limit is refused before its body, and none is written. Method: the first too large.
#[test]
fn oversized_records_are_refused() {
    let (_, mut bytes) = Encoder::start(&opening()).unwrap();
    let start = bytes.len() as u64;
    bytes.push(1);
    bytes.extend(u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes());
    assert!(matches!(read(&bytes, 9).1, Err(CourierError::Damaged { offset }) if offset == start));
    let large = Record::Batch(vec![0; FRAME_BYTES_MAX + 1]);
    assert_eq!(Encoder::default().record(&large), Err(TooLarge { bytes: FRAME_BYTES_MAX + 1 }));
}

/// Goal: a reader holds one record, however long the file is. Method: 64 MiB in pieces, watch the buffer.
#[test]
fn memory_is_bounded() {
    let (mut encoder, start) = Encoder::start(&opening()).unwrap();
    let record = encoder.record(&Record::Batch(vec![5; 1024 * 1024])).unwrap();
    let mut decoder = Decoder::default();
    decoder.feed(&start);
    let (mut batches, mut largest) = (0, 0);
    for _ in 0..64 {
        for piece in record.chunks(64 * 1024) {
            decoder.feed(piece);
            while let Some(found) = decoder.poll().unwrap() {
                batches += usize::from(matches!(found, Record::Batch(_)));
            }
            largest = largest.max(decoder.buffer.capacity());
        }
    }
    assert_eq!(batches, 64);
    assert!(largest <= 2 * (FRAME_BYTES_MAX + RECORD_OVERHEAD_BYTES + 64 * 1024), "{largest} bytes");
}

proptest! {
    /// Goal: the decoder cannot panic. Method: arbitrary bytes behind the magic.
    #[test]
    fn any_bytes_decode_or_fail(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(tail);
        let _ = read(&bytes, 64);
    }
}
