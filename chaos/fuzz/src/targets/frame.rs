//! Frames of the wire, all kinds.
//!
//! Layers: 0 header and body as they are; 1 the harness announces the true length; 2 only a header.

use sonae_proto::ended::EndedHashes;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Hash32, ReplicaId, Tier};
use sonae_proto::limits::FRAME_BYTES_MAX;
use sonae_proto::manifest::{KeyUse, WrappedKey};
use sonae_proto::vector::{Heads, LogHead, Sequences};
use sonae_proto::wire::{
    FRAME_HEADER_BYTES, Fetch, FetchEnd, FetchSnapshot, Frame, FrameError, Hello, KeyDocuments, News,
    PROTOCOL, ProofText, Refusal, RefusalCode, SnapshotName, SnapshotOffer, SnapshotPart, SnapshotWants,
    Welcome, frame_header,
};

use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure,
};

/// The target.
pub struct FrameTarget;

/// Bytes held for each byte of a body: an entry of a map and its node.
const MEMORY_PER_BYTE: usize = 24;

const WORDS: [&str; 9] = [
    "858e8c6b41b0c6a2b21b61d8ffb1bf7f/0",
    "858e8c6b41b0c6a2b21b61d8ffb1bf7f/02",
    "B113200000011",
    "tier2",
    "digest",
    "fork",
    "heads",
    "after",
    "sequence",
];

fn class(error: &FrameError) -> Verdict {
    match error {
        FrameError::Oversized { .. } => "oversized".into(),
        FrameError::Kind { .. } => "kind".into(),
        FrameError::Body { kind, .. } => format!("body of type {kind}"),
        FrameError::Part(_) => "part".into(),
        FrameError::Text => "text".into(),
    }
}

fn header(bytes: &[u8]) -> Option<[u8; FRAME_HEADER_BYTES]> {
    bytes.first_chunk::<FRAME_HEADER_BYTES>().copied()
}

fn decode_header(bytes: [u8; FRAME_HEADER_BYTES], planted: Planted) -> Result<(u8, usize), FrameError> {
    if planted.is("length-limit") {
        let [a, b, c, d, kind] = bytes;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length == FRAME_BYTES_MAX + 1 {
            return Ok((kind, length));
        }
    }
    if planted.is("reserve") {
        let [a, b, c, d, _] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]).min(1 << 30);
        drop(std::hint::black_box(Vec::<u8>::with_capacity(usize::try_from(length).unwrap_or(0))));
    }
    frame_header(bytes)
}

fn decode(kind: u8, body: &[u8], planted: Planted) -> Result<Frame, FrameError> {
    match Frame::from_body(kind, body.to_vec()) {
        Err(FrameError::Kind { .. }) if planted.is("any-kind") => Ok(Frame::Batch(body.to_vec())),
        Err(FrameError::Body { .. }) if planted.is("trailing") => {
            let end = body.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
            Frame::from_body(kind, body.get(..end).unwrap_or_default().to_vec())
        }
        Ok(Frame::Hello(mut hello)) if planted.is("counter") => {
            hello.loss_counter &= 0xFFFF_FFFF;
            Ok(Frame::Hello(hello))
        }
        other => other,
    }
}

/// The number of a frame's type, from `docs/spec/wire.md`.
fn number(frame: &Frame) -> u8 {
    match frame {
        Frame::Hello(_) => 1,
        Frame::Welcome(_) => 2,
        Frame::Batch(_) => 3,
        Frame::Receipt(_) => 4,
        Frame::Refusal(_) => 5,
        Frame::Keys(_) => 6,
        Frame::Fetch(_) => 7,
        Frame::FetchEnd(_) => 8,
        Frame::News(_) => 9,
        Frame::Snapshot(_) => 10,
        Frame::SnapshotPart(_) => 11,
        Frame::SnapshotWants(_) => 12,
        Frame::FetchSnapshot(_) => 13,
        Frame::Proof(_) => 14,
    }
}

fn judge_header(bytes: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let Some(header) = header(bytes) else { return Ok("short".into()) };
    let outcome = measure::call(1024, || decode_header(header, planted))?;
    let [a, b, c, d, _] = header;
    let length = u64::from(u32::from_be_bytes([a, b, c, d]));
    let limit = u64::try_from(FRAME_BYTES_MAX).unwrap_or(u64::MAX);
    hold(outcome.is_ok() == (length <= limit), || {
        "a frame is refused by its header if and only if it announces more than the limit".into()
    })?;
    Ok(outcome.as_ref().map_or_else(class, |_| "header".into()))
}

/// Checks that the words of the frame that matter stand in the text that was read.
fn check(kind: u8, body: &[u8], frame: &Frame) -> Result<Verdict, Broken> {
    hold(number(frame) == kind, || "a frame is of the type that it says".into())?;
    let is_bulk = |frame: &Frame| {
        matches!(frame, Frame::Batch(_) | Frame::Receipt(_) | Frame::Snapshot(_) | Frame::SnapshotPart(_))
    };
    let is_json = !is_bulk(frame);
    hold(!is_json || json::is_one_value(body), || "the body of a control frame is one JSON value".into())?;
    // What is nested too deep is no value to serde, although unknown fields may be.
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    if let (Frame::Hello(hello), Some(value)) = (frame, &parsed) {
        let counter = value.get("loss_counter").and_then(serde_json::Value::as_u64);
        hold(counter == Some(hello.loss_counter), || "the loss counter is the one in the text".into())?;
    }
    // Written again, it may be longer than it was: that is a refusal, not a frame.
    let Ok(bytes) = frame.to_bytes() else { return Ok("accepted, too long to be written again".into()) };
    let again = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let reread = header(&bytes).and_then(|header| frame_header(header).ok());
    hold(reread == Some((kind, again.len())), || "a frame's header says type and length".into())?;
    let reread = Frame::from_body(kind, again.to_vec());
    hold(reread.as_ref().is_ok_and(|reread| reread == frame), || {
        "a frame that is written and read again is the same".into()
    })?;
    hold(is_json || again == body, || "bulk bodies are kept byte for byte".into())?;
    Ok(format!("type {kind}"))
}

fn frames() -> Option<Vec<(&'static str, Frame)>> {
    let school = keys::school().ok()?;
    let identity = IdentityText { device: "device\n".into(), incarnation: "incarnation\n".into() };
    let head = LogHead { sequence: 6, hash: Hash32([5; 32]) };
    let heads: Heads = Tier::ALL.map(|tier| (keys::log(tier), head)).into();
    let nonce = "00112233445566778899aabbccddeeff".to_owned();
    let hello = Hello {
        protocol: PROTOCOL,
        school,
        identity: identity.clone(),
        loss_counter: 2,
        receipted: heads.clone(),
        have: Sequences::from([(keys::log(Tier::Daily), 6)]),
        manifest_version: 7,
        nonce: nonce.clone(),
        software: "sonae-edge 0.1.0".into(),
        ended: EndedHashes::new(),
    };
    let welcome = Welcome {
        protocol: PROTOCOL,
        nonce,
        time_ms: 1_775_000_003_000,
        heads: heads.clone(),
        complete: true,
        identities: vec![identity.clone()],
        manifest_version: 7,
        sites: 2,
        quorum: 2,
        snapshots: None,
        proofs: false,
        ended: EndedHashes::new(),
    };
    let wrapped = |key_use, epoch| WrappedKey { key_use, epoch, file: b"age-encryption.org/v1\n".to_vec() };
    let wrapped_keys = vec![wrapped(KeyUse::Digest, 0), wrapped(KeyUse::Tier(Tier::Archive), 2026)];
    let keys = KeyDocuments { school, manifest: "manifest\n".into(), wrapped_keys };
    let offer = SnapshotOffer { tier: Tier::Safety, root: Hash32([6; 32]), bytes: 9, changes: 6 };
    let part = SnapshotPart { root: Hash32([6; 32]), number: 1, sealed: b"a part".to_vec() };
    let text = "the batch does not continue its log".to_owned();
    // Few mutations make a counter that does not fit 32 bits.
    let many_losses = Hello { loss_counter: 1 << 40, ..hello.clone() };
    let hashes = EndedHashes::from([(ReplicaId::from_bytes([8; 16]), Hash32([7; 32]))]);
    let saying_ended = Hello { ended: hashes.clone(), ..hello.clone() };
    let leaving_out = Welcome { ended: hashes, ..welcome.clone() };
    Some(vec![
        ("hello", Frame::Hello(Box::new(hello))),
        ("hello-losses", Frame::Hello(Box::new(many_losses))),
        ("hello-ended", Frame::Hello(Box::new(saying_ended))),
        ("welcome-ended", Frame::Welcome(Box::new(leaving_out))),
        ("welcome", Frame::Welcome(Box::new(welcome.clone()))),
        ("welcome-snapshots", Frame::Welcome(Box::new(Welcome { snapshots: Some(vec![offer]), ..welcome }))),
        ("batch", Frame::Batch(b"a batch".to_vec())),
        ("receipt", Frame::Receipt(b"a receipt".to_vec())),
        ("refusal", Frame::Refusal(Refusal { code: RefusalCode::Fork, text, heads: heads.clone() })),
        ("keys", Frame::Keys(Box::new(keys))),
        ("fetch", Frame::Fetch(Fetch { log: keys::log(Tier::Safety), after: 3 })),
        ("fetch-end", Frame::FetchEnd(FetchEnd { sequence: 6 })),
        ("news", Frame::News(Box::new(News { heads, identities: vec![identity] }))),
        ("snapshot", Frame::Snapshot("{}\nsignature\n".into())),
        ("snapshot-part", Frame::SnapshotPart(Box::new(part))),
        ("snapshot-wants", Frame::SnapshotWants(SnapshotWants { root: Hash32([6; 32]), parts: vec![0, 2] })),
        (
            "fetch-snapshot",
            Frame::FetchSnapshot(FetchSnapshot { name: SnapshotName::Root(Hash32([6; 32])), has: vec![1] }),
        ),
        ("proof", Frame::Proof(ProofText { document: "proof\n".into() })),
    ])
}

impl Target for FrameTarget {
    fn name(&self) -> &'static str {
        "frame"
    }

    fn executions(&self) -> u64 {
        8_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["length-limit", "reserve", "any-kind", "trailing", "counter"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "type 1",
            "type 2",
            "type 3",
            "type 4",
            "type 5",
            "type 6",
            "type 7",
            "type 8",
            "type 9",
            "type 14",
            "kind",
            "oversized",
            "header",
            "body of type 1",
            "body of type 6",
            "length differs",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        let frames = frames().unwrap_or_default();
        let seeds =
            frames.into_iter().filter_map(|(name, frame)| Some((name, layer(1, &frame.to_bytes().ok()?))));
        let header = ("header", layer(2, &[0, 0x1F, 0xFF, 0xFF, 3]));
        seeds.chain([header]).collect()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 3, random, |_, bytes, random| {
            if random.once_in(12) || bytes.len() <= FRAME_HEADER_BYTES {
                let limit = u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX);
                if random.once_in(3) && bytes.len() >= 4 {
                    let edge = limit + u32::try_from(random.below(3)).unwrap_or(0);
                    bytes.splice(..4, edge.to_be_bytes());
                }
                return mutate::field(bytes, &[0..4, 4..5], Order::Big, random);
            }
            let mut body = bytes.split_off(FRAME_HEADER_BYTES);
            json::text(&mut body, &WORDS, random);
            bytes.extend(body);
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, bytes) = layered(input);
        if number % 3 == 2 {
            return judge_header(bytes, planted);
        }
        let mut bytes = bytes.to_vec();
        let length = u32::try_from(bytes.len().saturating_sub(FRAME_HEADER_BYTES)).unwrap_or(u32::MAX);
        if number % 3 == 1 && bytes.len() >= FRAME_HEADER_BYTES {
            bytes.splice(..4, length.to_be_bytes());
        }
        let seen = judge_header(&bytes, planted)?;
        let Some(Ok((kind, length))) = header(&bytes).map(frame_header) else { return Ok(seen) };
        let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        if body.len() != length {
            return Ok("length differs".into());
        }
        let memory = MEMORY_PER_BYTE * body.len() + 64 * 1024;
        match measure::call(memory, || decode(kind, body, planted))? {
            Ok(frame) => check(kind, body, &frame),
            Err(error) => Ok(class(&error)),
        }
    }
}
