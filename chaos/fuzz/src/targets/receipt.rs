//! Receipts.
//!
//! Layers: 0 as it is; 1 the harness signs with a key of the descriptor; 2 with another key.

use std::collections::BTreeSet;
use std::ops::Range;

use ed25519_dalek::{Signature, Signer, SigningKey};
use sonae_proto::bytes::Reader;
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::ids::{Hash32, Incarnation, LogName, ReceiptKeyId, SchoolCode, Tier};
use sonae_proto::limits::RECEIPT_SITES_MAX;
use sonae_proto::receipt::{Receipt, ReceiptError, SiteId};
use sonae_proto::vector::LogHead;

use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, behind_layer, hold, keys, layer, layered, measure};

/// The target.
pub struct ReceiptTarget;

const COUNT_AT: usize = 118;
const SITES_AT: usize = 119;
const SIGNATURE_BYTES: usize = 64;

fn fields() -> [Range<usize>; 10] {
    [0..16, 16..29, 29..30, 30..46, 46..54, 54..86, 86..94, 94..102, 102..118, 118..119]
}

fn cloud() -> CloudDescriptor {
    CloudDescriptor {
        version: 1,
        hosts: Vec::new(),
        tls_certificates: Vec::new(),
        receipt_keys: vec![ReceiptKey { key: keys::node().verifying_key() }],
    }
}

fn envelope(number: u8, body: &[u8]) -> Vec<u8> {
    let key: SigningKey = match number {
        1 => keys::node(),
        2 => keys::device(),
        _ => return body.to_vec(),
    };
    let mut bytes = body.get(..body.len().saturating_sub(SIGNATURE_BYTES)).unwrap_or_default().to_vec();
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature.to_bytes());
    bytes
}

fn class(error: &ReceiptError) -> Verdict {
    match error {
        ReceiptError::Short(short) => format!("short {}", short.field),
        ReceiptError::Field { field } => format!("field {field}"),
        ReceiptError::Signature => "signature".into(),
    }
}

/// Reads fields without any check, for the planted bugs.
fn loose(bytes: &[u8]) -> Option<Receipt> {
    let mut reader = Reader::new(bytes);
    reader.array::<16>("label").ok()?;
    let school = SchoolCode::from_bytes(reader.array("school").ok()?).ok()?;
    let tier = Tier::from_number(reader.u8("tier").ok()?)?;
    let incarnation = Incarnation::from_bytes(reader.array("incarnation").ok()?);
    let head = LogHead { sequence: reader.u64("sequence").ok()?, hash: Hash32(reader.array("hash").ok()?) };
    let loss_counter = reader.u64("loss counter").ok()?;
    let issued_ms = reader.u64("issued").ok()?;
    reader.array::<16>("key").ok()?;
    let count = usize::from(reader.u8("sites").ok()?);
    let sites: Option<Vec<SiteId>> = (0..count).map(|_| reader.array("site").ok()).collect();
    let log = LogName { tier, incarnation };
    Some(Receipt { school, log, head, loss_counter, issued_ms, sites: sites? })
}

fn decode(bytes: &[u8], planted: Planted) -> Result<Receipt, ReceiptError> {
    let skipped = |error| loose(bytes).ok_or(error);
    match Receipt::verify(bytes, &cloud()) {
        Err(error @ ReceiptError::Signature) if planted.is("signature") => skipped(error),
        Err(error @ ReceiptError::Field { field: "sites" }) if planted.is("same-site-twice") => {
            loose(bytes).filter(|receipt| (1..=RECEIPT_SITES_MAX).contains(&receipt.sites.len())).ok_or(error)
        }
        Err(error @ ReceiptError::Field { field: "sites" }) if planted.is("sites-limit") => {
            loose(bytes).filter(|receipt| receipt.sites.len() == RECEIPT_SITES_MAX + 1).ok_or(error)
        }
        Err(error @ ReceiptError::Field { field: "length" }) if planted.is("trailing") => skipped(error),
        Err(error @ ReceiptError::Field { field: "label" }) if planted.is("label") => skipped(error),
        other => other,
    }
}

/// The rules, written again from `docs/spec/wire.md`.
fn allowed(bytes: &[u8]) -> bool {
    let Some(count) = bytes.get(COUNT_AT).copied().map(usize::from) else { return false };
    let end = SITES_AT + 16 * count;
    let (Some(signed), Some(signature)) = (bytes.get(..end), bytes.get(end..)) else { return false };
    let sites: BTreeSet<&[u8]> = signed.get(SITES_AT..).unwrap_or_default().chunks(16).collect();
    let node = keys::node().verifying_key();
    let part = |range: Range<usize>| signed.get(range).unwrap_or_default();
    (1..=RECEIPT_SITES_MAX).contains(&count)
        && sites.len() == count
        && part(0..16) == b"sonae/receipt/v1"
        && part(16..29).first_chunk::<13>().is_some_and(|code| SchoolCode::from_bytes(*code).is_ok())
        && part(29..30).first().is_some_and(|tier| *tier <= 2)
        && part(102..118) == ReceiptKeyId::of_key(node.as_bytes()).bytes()
        && Signature::from_slice(signature).is_ok_and(|it| node.verify_strict(signed, &it).is_ok())
}

impl Target for ReceiptTarget {
    fn name(&self) -> &'static str {
        "receipt"
    }

    fn executions(&self) -> u64 {
        4_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["signature", "same-site-twice", "sites-limit", "trailing", "label"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["accepted", "signature", "field sites", "field length", "field tier", "field label", "short site"]
    }

    fn seeds(&self) -> Vec<Seed> {
        let Ok(school) = keys::school() else { return Vec::new() };
        let receipt = |sites: u8| Receipt {
            school,
            log: keys::log(Tier::Safety),
            head: LogHead { sequence: 9, hash: Hash32([2; 32]) },
            loss_counter: 3,
            issued_ms: 1_775_000_002_000,
            sites: (0..sites).map(|site| [site; 16]).collect(),
        };
        [("two-sites", 2), ("all-sites", 16)]
            .map(|(name, n)| (name, layer(1, &receipt(n).sign(&keys::node()))))
            .to_vec()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 3, random, |_, body, random| match random.below(6) {
            0 => mutate::bytes(body, random),
            1 => {
                // A site more, the same as another or a new one, and the count that belongs to it.
                let at = SITES_AT.min(body.len());
                let known = body.get(at..at + 16).map(<[u8]>::to_vec).unwrap_or_default();
                let site = if random.once_in(2) { known } else { vec![random.byte(); 16] };
                body.splice(at..at, site);
                if let Some(count) = body.get_mut(COUNT_AT) {
                    *count = count.wrapping_add(1);
                }
            }
            _ => mutate::field(body, &fields(), Order::Big, random),
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let bytes = envelope(number % 3, body);
        let outcome = measure::call(2 * bytes.len().min(1024) + 4096, || decode(&bytes, planted))?;
        hold(outcome.is_ok() == allowed(&bytes), || {
            let said = outcome.as_ref().map_or_else(class, |_| "accepted".into());
            format!("a receipt counts if and only if it follows the rules: {said}")
        })?;
        match outcome {
            Ok(receipt) => {
                hold(receipt.sign(&keys::node()) == bytes, || {
                    "an accepted receipt is what the node would sign".into()
                })?;
                Ok("accepted".into())
            }
            Err(error) => Ok(class(&error)),
        }
    }
}
