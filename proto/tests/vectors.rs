//! The formats, pinned: every vector of `proto/tests/vectors/` decodes, or fails, as it says, for ever.
//!
//! Two promises are tested apart: what exists keeps decoding, and what is written today is what was pinned.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sonae_proto::batch::{Batch, BatchError};
use sonae_proto::change::{Change, ChangeError};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::digest::DigestKey;
use sonae_proto::identity::{DeviceCertificate, IdentityError, IdentityText, IncarnationCertificate};
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::manifest::Manifest;
use sonae_proto::object;
use sonae_proto::proof::{Proof, ProofError};
use sonae_proto::receipt::{Receipt, ReceiptError};
use sonae_proto::seal::{OpenKey, SealError, check_recipients, encrypt, open_lines, seal_lines};
use sonae_proto::signed::{Document, DocumentError, Signed, public_key_hex};
use sonae_proto::view::{Fold, MemoryRecords};
use sonae_proto::wire::{FRAME_HEADER_BYTES, Frame, FrameError, frame_header};

#[path = "vectors/courier.rs"]
mod courier;
#[path = "vectors/file.rs"]
mod file;
#[path = "vectors/in_clear.rs"]
mod in_clear;
#[path = "vectors/lines.rs"]
mod lines;
#[path = "vectors/make.rs"]
mod make;
#[path = "vectors/manifest.rs"]
mod manifest;
#[path = "vectors/objects.rs"]
mod objects;
#[path = "vectors/proof.rs"]
mod proof;
#[path = "vectors/snapshot.rs"]
mod snapshot;

use file::Vector;
use make::Made;

/// Set to anything: vectors that are missing are written. Those that exist are never touched.
const BLESS: &str = "SONAE_BLESS_VECTORS";

const LINES: &str = "{\"t\":[1775000000000,0],\"c\":\"student\",\"r\":\"p1\",\"f\":{\"name\":\"見本 花子\"}}\n\
    {\"t\":[1775000000001,0],\"c\":\"guardian_contact\",\"r\":\"p1/1\",\"f\":{\"phone\":\"03-0000-0000\"},\"w\":\"tanaka\"}\n\
    {\"t\":[1775000000002,0],\"c\":\"student\",\"r\":\"p1\",\"f\":{\"name\":\"見本 華子\"},\"b\":{\"name\":[1]},\"w\":\"tanaka\"}\n";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read_all() -> BTreeMap<String, Vector> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            all.insert(name, Vector::from_file(&std::fs::read_to_string(path).unwrap()));
        }
    }
    all
}

/// The vectors that hold age files: made once, because age draws its own entropy.
fn payloads() -> Vec<(&'static str, Vector)> {
    let (key, other) = (OpenKey::generate(), OpenKey::generate());
    let (to, to_other) = (key.recipient(), other.recipient());
    let vector = |expect, comment, payload: &[u8]| {
        Vector::new("payload", expect, comment)
            .field("identity", key.secret().as_str())
            .field("recipient", key.recipient())
            .bytes("body", payload)
    };
    let good = seal_lines(LINES.as_bytes(), 3, &to).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let bomb = zstd::bulk::compress(&vec![0; 2 * 1024 * 1024], 3).unwrap();
    let encrypt_to = |content: &[u8], to: &[&str]| encrypt(content, to.iter().copied()).unwrap();
    vec![
        ("payload-good", vector("ok", "three changes", &good).text("lines", LINES)),
        ("payload-flipped", vector("open", "one bit flipped", &flipped)),
        (
            "payload-other-key",
            vector("open", "sealed to another key", &seal_lines(b"{}\n", 3, &to_other).unwrap()),
        ),
        ("payload-not-zstd", vector("malformed", "no compression", &encrypt_to(b"{}\n", &[&to]))),
        ("payload-bomb", vector("too_large", "2 MiB of zeros in 100 bytes", &encrypt_to(&bomb, &[&to]))),
        (
            "payload-two-recipients",
            vector("malformed", "to a second reader as well", &encrypt_to(b"x", &[&to, &to_other])),
        ),
    ]
}

fn made() -> Made {
    let all = read_all();
    let good = all
        .get("payload-good")
        .unwrap_or_else(|| panic!("payload-good.txt is missing; see README.md beside it"));
    Made::new(&good.section("body"), good.get("recipient"))
}

/// Goal: what this version writes is what was pinned. Method: make every vector again from its seeds and compare
/// the file; with `SONAE_BLESS_VECTORS` set, write those that are missing, and fail so that nobody forgets it.
#[test]
fn encoders_write_the_pinned_bytes() {
    let bless = std::env::var_os(BLESS).is_some();
    let mut written = Vec::new();
    let mut write = |name: &str, vector: &Vector| {
        std::fs::write(directory().join(name).with_extension("txt"), vector.to_file()).unwrap();
        written.push(name.to_owned());
    };
    if bless {
        let known = read_all();
        payloads().iter().filter(|(name, _)| !known.contains_key(*name)).for_each(|(n, v)| write(n, v));
    }
    let known = read_all();
    for (name, vector) in made().all() {
        match known.get(&name) {
            Some(pinned) => assert_eq!(*pinned, vector, "vector {name}"),
            None if bless => write(&name, &vector),
            None => panic!("vector {name} is missing; see proto/tests/vectors/README.md"),
        }
    }
    assert!(!bless, "written: {written:?}; read them, then run again without {BLESS}");
}

/// Goal: whatever was written by any version decodes, and what was refused stays refused, for its reason.
/// Method: every file of the directory; its `expect` is the outcome.
#[test]
fn vectors_decode_as_they_say() {
    let all = read_all();
    assert!(all.len() >= 60, "only {} vectors", all.len());
    for (name, vector) in all {
        let outcome = match vector.get("kind") {
            "change" => change(&vector),
            "batch" => batch(&vector),
            "payload" => payload(&vector),
            "document" => document(&vector),
            "identity" => identity(&vector),
            "proof" => proof_of(&vector),
            "receipt" => receipt(&vector),
            "frame" => frame(&vector),
            "object" => object_of(&vector),
            "merged" => merged_of(&vector),
            "courier" => courier_of(&vector),
            "digest" => digest(&vector),
            "snapshot" => snapshot::read(&vector),
            kind => panic!("vector {name} is of kind '{kind}'"),
        };
        let outcome = outcome.map_or_else(|class| class, |()| "ok".to_owned());
        assert_eq!(outcome, vector.get("expect"), "vector {name}: {}", vector.get("comment"));
    }
}

type Outcome = Result<(), String>;

fn change(vector: &Vector) -> Outcome {
    let log = vector.get("log").parse().unwrap();
    let line = vector.section("body");
    let change = Change::from_line(&line, log).map_err(|error| match error {
        ChangeError::TooLong { .. } => "too_long".to_owned(),
        ChangeError::NotJson(_) => "not_json".to_owned(),
        ChangeError::Key { key, .. } => format!("key {key}"),
    })?;
    assert_eq!(change.to_line(log).unwrap(), line, "it is written as it was read");
    Ok(())
}

fn batch_class(error: &BatchError) -> String {
    match error {
        BatchError::Short(_) => "short".to_owned(),
        BatchError::Field { field } => format!("field {field}"),
        BatchError::Payload { .. } => "payload".to_owned(),
        BatchError::Signature { .. } => "signature".to_owned(),
        BatchError::Recipients(_) => "recipients".to_owned(),
    }
}

fn batch(vector: &Vector) -> Outcome {
    let key = public_key_hex::parse(vector.get("key")).unwrap();
    let batch = Batch::from_bytes(vector.section("body")).map_err(|error| batch_class(&error))?;
    batch.verify(&key).map_err(|error| batch_class(&error))?;
    let header = batch.header();
    assert_eq!(header.log.to_string(), vector.get("log"));
    assert_eq!(format!("{}..{}", header.first, header.last), vector.get("sequences"));
    assert_eq!(header.hash().to_string(), vector.get("hash"));
    Ok(())
}

fn payload(vector: &Vector) -> Outcome {
    let class = |error: SealError| match error {
        SealError::Open => "open",
        SealError::Malformed { .. } => "malformed",
        SealError::TooLarge { .. } => "too_large",
        SealError::Key { .. } | SealError::Compress(_) | SealError::Encrypt(_) => "other",
    };
    let body = vector.section("body");
    check_recipients(&body).map_err(class)?;
    let lines = open_lines(&body, &OpenKey::parse(vector.get("identity")).unwrap()).map_err(class)?;
    assert_eq!(String::from_utf8_lossy(&lines), vector.section_text("lines"));
    Ok(())
}

fn document_class(error: &DocumentError) -> String {
    match error {
        DocumentError::Malformed { .. } => "malformed",
        DocumentError::Fields { .. } => "fields",
        DocumentError::Signature { .. } => "signature",
    }
    .to_owned()
}

fn document(vector: &Vector) -> Outcome {
    fn check<T: Document + PartialEq + std::fmt::Debug + Clone>(vector: &Vector) -> Outcome {
        let key = public_key_hex::parse(vector.get("key")).unwrap();
        let text = vector.section_text("body");
        let signed = Signed::<T>::verify(&text, &key).map_err(|error| document_class(&error))?;
        assert_eq!(signed.text(), text);
        Ok(())
    }
    match vector.get("type") {
        "device" => check::<DeviceCertificate>(vector),
        "incarnation" => check::<IncarnationCertificate>(vector),
        "manifest" => check::<Manifest>(vector),
        "descriptor" => check::<CloudDescriptor>(vector),
        other => panic!("a document of type '{other}'"),
    }
}

fn identity(vector: &Vector) -> Outcome {
    let text = IdentityText {
        device: vector.section_text("device"),
        incarnation: vector.section_text("incarnation"),
    };
    let key = public_key_hex::parse(vector.get("key")).unwrap();
    match text.verify(&key, vector.get("school").parse().unwrap()) {
        Ok(_) => Ok(()),
        Err(IdentityError::Document(_)) => Err("document".to_owned()),
        Err(IdentityError::Foreign { .. }) => Err("foreign".to_owned()),
    }
}

fn proof_of(vector: &Vector) -> Outcome {
    let key = public_key_hex::parse(vector.get("key")).unwrap();
    let text = vector.section_text("body");
    let signed = Proof::verify(&text, vector.get("school").parse().unwrap(), |_| Some(key));
    let signed = signed.map_err(|error| match error {
        ProofError::Document(_) => "document".to_owned(),
        ProofError::Foreign => "foreign".to_owned(),
        ProofError::Unfit => "unfit".to_owned(),
    })?;
    assert_eq!(signed.text(), text);
    Ok(())
}

fn receipt(vector: &Vector) -> Outcome {
    let key = public_key_hex::parse(vector.get("key")).unwrap();
    let cloud = CloudDescriptor {
        version: 1,
        hosts: vec![],
        tls_certificates: vec![],
        receipt_keys: vec![ReceiptKey { key }],
    };
    let receipt = Receipt::verify(&vector.section("body"), &cloud).map_err(|error| match error {
        ReceiptError::Short(_) => "short".to_owned(),
        ReceiptError::Field { field } => format!("field {field}"),
        ReceiptError::Signature => "signature".to_owned(),
    })?;
    assert_eq!(receipt.log.to_string(), vector.get("log"));
    assert_eq!(receipt.head.sequence.to_string(), vector.get("sequence"));
    assert_eq!(receipt.loss_counter.to_string(), vector.get("loss_counter"));
    Ok(())
}

fn frame(vector: &Vector) -> Outcome {
    let class = |error: FrameError| match error {
        FrameError::Oversized { .. } => "oversized".to_owned(),
        FrameError::Kind { .. } => "kind".to_owned(),
        FrameError::Body { .. } => "body".to_owned(),
        FrameError::Part(_) => "part".to_owned(),
        FrameError::Text => "text".to_owned(),
    };
    let bytes = vector.section("body");
    let header = *bytes.first_chunk::<FRAME_HEADER_BYTES>().unwrap();
    let (kind, length) = frame_header(header).map_err(class)?;
    assert_eq!(bytes.len(), FRAME_HEADER_BYTES + length);
    let frame = Frame::from_body(kind, bytes[FRAME_HEADER_BYTES..].to_vec()).map_err(class)?;
    assert_eq!(frame.to_bytes().unwrap(), bytes);
    Ok(())
}

fn object_of(vector: &Vector) -> Outcome {
    let bytes = vector.section("body");
    let (records, damage) = object::records(&bytes);
    assert_eq!(records.len().to_string(), vector.get("records"));
    damage.map_or(Ok(()), |damage| Err(format!("damage {}", damage.offset)))
}

fn merged_of(vector: &Vector) -> Outcome {
    let bytes = vector.section("body");
    let (said, name) = object::Inputs::of(&bytes).ok_or("inputs")?;
    if HEXLOWER.encode(&name.0) != vector.get("name") {
        return Err("name".to_owned());
    }
    if said.is_true_of(&bytes) { Ok(()) } else { Err("content".to_owned()) }
}

fn courier_of(vector: &Vector) -> Outcome {
    let (records, outcome) = courier::read(&vector.section("body"));
    assert_eq!(records.to_string(), vector.get("records"));
    outcome
}

fn digest(vector: &Vector) -> Outcome {
    let mut fold = Fold::new(DigestKey::from_secret(vector.get("secret")));
    let mut records = MemoryRecords::default();
    for row in vector.section_text("body").lines() {
        let (log, line) = row.split_once(' ').unwrap();
        let log: LogName = log.parse().unwrap();
        fold.apply(&mut records, log, fold.applied(log) + 1, line.as_bytes()).unwrap();
    }
    assert_eq!(fold.digests[&Tier::Safety].to_string(), vector.get("digest"));
    Ok(())
}
