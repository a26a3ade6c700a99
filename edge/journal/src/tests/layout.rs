//! The bytes: pinned vectors, and decoders on arbitrary input.

use proptest::prelude::*;

use crate::heal::{heal_commit, heal_record};
use crate::layout::{
    CommitHeader, FORMAT_VERSION, SegmentHeader, decode_frame, encode_frame, encode_mark, verify_commit,
};
use crate::limits::SEGMENT_BYTES_MIN;
use crate::scan::{Expect, scan};
use crate::{FrameKind, Lsn};

fn header() -> SegmentHeader {
    SegmentHeader {
        version: FORMAT_VERSION,
        segment_bytes: SEGMENT_BYTES_MIN,
        epoch: 7,
        previous_epoch: 6,
        first_lsn: Lsn(40),
        keep_from: Lsn(30),
    }
}

fn commit(epoch: u64, page: u32, first_lsn: u64, payloads: &[&[u8]]) -> Vec<u8> {
    let mut header = CommitHeader {
        epoch,
        page,
        frame_count: payloads.len() as u32,
        first_lsn: Lsn(first_lsn),
        keep_from: Lsn(30),
        body_bytes: 0,
        previous_page: 2,
        previous_crc: 0x0102_0304,
    };
    header.body_bytes = payloads.iter().map(|payload| payload.len() as u32 + 32).sum();
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    for (lsn, payload) in (first_lsn..).zip(payloads) {
        encode_frame(epoch, Lsn(lsn), FrameKind(9), payload, &mut bytes);
    }
    encode_mark(&header, 0, &mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Goal: the format does not change by accident. Method: the encoders' bytes, as drawn in the spec.
#[test]
fn bytes_are_pinned() {
    let page = header().encode_page();
    assert_eq!(page.len(), 4096);
    assert_eq!(
        hex(&page[..64]),
        "534e4a31010000000040000000000000070000000000000006000000000000002800000000000000\
         1e000000000000000000000000000000000000006b44e946"
    );
    assert_eq!(
        hex(&commit(7, 1, 40, &[b"kept"])),
        concat!(
            // Commit header.
            "534e4a43000000000700000000000000010000000100000028000000000000001e00000000000000",
            "2400000002000000040302010000000000000000483ea03c",
            // Frame.
            "0400000048ada1140700000000000000280000000000000009000000000000006b657074",
            // Commit mark.
            "534e4a4d0100000028000000000000002800000000000000010000003a4e9288",
        )
    );
}

/// Goal: what is encoded is decoded, and a damaged header is not. Method: round trip, then flip every bit.
#[test]
fn segment_header_round_trip() {
    let mut page = header().encode_page();
    assert_eq!(SegmentHeader::decode(&page), Some(header()));
    for bit in 0..64 * 8 {
        page[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&page), None, "bit {bit}");
        page[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Goal: commits of an earlier use of the file are not taken for current ones although their checksums, page and
/// sequence numbers fit. Method: the same commit with the segment's epoch and with an older one.
#[test]
fn stale_commits_are_not_revived() {
    for (epoch, frames) in [(7, 2), (6, 0)] {
        let mut bytes = header().encode_page();
        bytes.extend_from_slice(&commit(epoch, 1, 40, &[b"one", b"two"]));
        bytes.resize(SEGMENT_BYTES_MIN as usize, 0);
        let expect = Expect {
            epoch: 7,
            first_lsn: Lsn(40),
            chain: None,
            reach: None,
            mend: false,
            truncate_at_rot: false,
        };
        let found = scan(&bytes, expect);
        assert_eq!(found.offsets.len(), frames, "epoch {epoch}");
        assert!(found.rot.is_empty() && found.torn.is_none(), "epoch {epoch}");
    }
}

/// Goal: every single flipped bit of a commit is corrected, and two are not mistaken for one. Method: all bits.
#[test]
fn one_flipped_bit_is_found() {
    let whole = commit(7, 1, 40, &[b"a payload", b"another"]);
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let (_, healed) = heal_commit(&bytes).expect("healable");
        assert_eq!(healed, whole, "bit {at}");
        bytes[(at / 8 + 5) % whole.len()] ^= 0x10;
        if let Some((_, healed)) = heal_commit(&bytes) {
            assert_ne!(healed, bytes);
            let frames = CommitHeader::decode(&healed).and_then(|header| verify_commit(&healed, &header));
            assert!(frames.is_none() || healed == whole, "bit {at}: a third commit was invented");
        }
    }
    assert!(!heal_record(&mut whole.clone()), "a sound record is left alone");
}

proptest! {
    /// Goal: decoders do not panic and take nothing arbitrary for sound. Method: arbitrary bytes.
    #[test]
    fn arbitrary_bytes_do_not_decode(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(decode_frame(&bytes).is_none());
        prop_assert!(SegmentHeader::decode(&bytes).is_none());
        prop_assert!(CommitHeader::decode(&bytes).is_none());
        prop_assert!(heal_commit(&bytes).is_none());
    }

    /// Goal: a frame survives the round trip, and no changed byte goes unnoticed. Method: any frame, any change.
    #[test]
    fn frames_round_trip(
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        kind: u8,
        epoch: u64,
        lsn: u64,
        at: prop::sample::Index,
        mask in 1_u8..,
    ) {
        let mut bytes = Vec::new();
        encode_frame(epoch, Lsn(lsn), FrameKind(kind), &payload, &mut bytes);
        let (header, found) = decode_frame(&bytes).expect("round trip");
        prop_assert_eq!((header.epoch, header.lsn, header.kind), (epoch, Lsn(lsn), FrameKind(kind)));
        prop_assert_eq!(found, payload.as_slice());
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        prop_assert!(decode_frame(&bytes).is_none());
        prop_assert!(decode_frame(&bytes[..at]).is_none());
    }

    /// Goal: scanning does not panic and never yields what was not written, whatever a segment holds. Method:
    /// sound commits with arbitrary damage; frames that are found must be the right ones.
    #[test]
    fn damaged_segments_yield_only_what_was_written(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        reach in proptest::option::of(40_u64..60),
    ) {
        let payloads: [&[u8]; 3] = [&[1; 3000], &[2; 500], &[3; 40]];
        let mut bytes = header().encode_page();
        bytes.extend_from_slice(&commit(7, 1, 40, &payloads));
        bytes.resize(8192, 0);
        bytes.extend_from_slice(&commit(7, 2, 43, &payloads[1..]));
        bytes.resize(SEGMENT_BYTES_MIN as usize, 0);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let reach = reach.map(Lsn);
        let expect = Expect { epoch: 7, first_lsn: Lsn(40), chain: None, reach, mend: false, truncate_at_rot: false };
        let found = scan(&bytes, expect);
        for (lsn, offset) in (40_u64..).zip(&found.offsets) {
            if *offset > 0 {
                let (frame, payload) = decode_frame(&bytes[*offset as usize..]).expect("indexed frames verify");
                prop_assert_eq!(frame.lsn, Lsn(lsn));
                prop_assert_eq!(payload, [payloads[0], payloads[1], payloads[2], payloads[1], payloads[2]][lsn as usize - 40]);
            }
        }
    }
}
