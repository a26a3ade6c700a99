//! Evidence of a restore proof: who may say it, and what it must show. The rules are written again from
//! `docs/spec/keys.md#restore-proof`.

use std::collections::BTreeMap;

use serde_json::Value;
use sonae_proto::digest::{Digest, MERGE_VERSION};
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::proof::{Proof, ProofError, ProofResult};
use sonae_proto::signed::Signed;
use sonae_proto::vector::LogHead;

use super::{MEMORY_PER_BYTE, allowed, class};
use crate::{Broken, Planted, Verdict, hold, keys, measure};

/// Bytes of the longest evidence.
const BYTES_MAX: usize = 147_456;

/// Entries of `heads`, and characters of `cause` and `software`.
const HEADS_MAX: usize = 900;
const CHARS_MAX: usize = 64;

fn decode(text: &str, planted: Planted) -> Result<Signed<Proof>, ProofError> {
    let (key, ours) = (keys::writer().verifying_key(), keys::incarnation());
    let Ok(school) = keys::school() else { return Err(ProofError::Foreign) };
    let without_rules = || Signed::<Proof>::verify(text, &key).map_err(ProofError::from);
    match Proof::verify(text, school, |of| (of == ours).then_some(key)) {
        Err(ProofError::Foreign) if planted.is("stranger") => without_rules(),
        Err(ProofError::Unfit) if planted.is("unfit") => without_rules(),
        other => other,
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text.split('\n').next().unwrap_or_default()).unwrap_or_default()
}

/// Whether it is said by the incarnation of the targets, for its school.
fn is_ours(value: &Value) -> bool {
    let said = |name: &str| value.get(name).and_then(Value::as_str);
    let school = keys::school().map(|school| school.to_string()).ok();
    said("school") == school.as_deref() && said("incarnation") == Some(&keys::incarnation().to_string())
}

/// Whether it shows what it claims, within its limits.
fn is_fit(text: &str, value: &Value) -> bool {
    let said = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let entries = |name: &str| match value.get(name) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    };
    let is_short = |name: &str| said(name).chars().count() <= CHARS_MAX;
    let shows = if said("result") == "proved" {
        said("cause").is_empty() && entries("tiers") == 0 && entries("digests") == Tier::ALL.len()
    } else {
        !said("cause").is_empty() && entries("tiers") <= Tier::ALL.len()
    };
    text.len() <= BYTES_MAX
        && shows
        && is_short("cause")
        && is_short("software")
        && entries("heads") <= HEADS_MAX
}

/// Judges evidence as a node, an export or a proof of one's own takes it.
pub fn judge(text: &str, planted: Planted) -> Result<Verdict, Broken> {
    let outcome = measure::call(2 * MEMORY_PER_BYTE * text.len() + 64 * 1024, || decode(text, planted))?;
    let value = value(text);
    match outcome {
        Ok(signed) => {
            hold(allowed(text, "sonae/proof/v1", &keys::writer()), || {
                "accepted evidence has two lines, its label and a right signature".into()
            })?;
            hold(is_ours(&value), || "accepted evidence is of an incarnation of this school".into())?;
            hold(is_fit(text, &value), || "accepted evidence shows what it claims".into())?;
            hold(signed.text() == text, || "accepted evidence keeps its exact text".into())?;
            let again = signed.body().clone().sign(&keys::writer());
            let Ok(again) = again else { return Ok("proof: too long to be signed again".into()) };
            let reread = decode(again.text(), Planted::NONE);
            hold(reread.is_ok_and(|reread| reread.body() == signed.body()), || {
                "evidence that is signed and verified again is the same".into()
            })?;
            Ok("accepted sonae/proof/v1".into())
        }
        Err(ProofError::Document(error)) => Ok(format!("proof: {}", class(&error))),
        Err(ProofError::Foreign) => {
            hold(!is_ours(&value), || "evidence of our own is not foreign".into())?;
            Ok("proof: foreign".into())
        }
        Err(ProofError::Unfit) => {
            hold(!is_fit(text, &value), || "evidence that shows what it claims is fit".into())?;
            Ok("proof: unfit".into())
        }
    }
}

/// A success, and a failure that came to a comparison.
pub fn written() -> Result<[Signed<Proof>; 2], Broken> {
    let head = LogHead { sequence: 6, hash: Hash32([5; 32]) };
    let proved = Proof {
        school: keys::school()?,
        incarnation: keys::incarnation(),
        number: 7,
        result: ProofResult::Proved,
        cause: String::new(),
        tiers: Vec::new(),
        heads: Tier::ALL.map(|tier| (keys::log(tier), head)).into(),
        digests: Tier::ALL.map(|tier| (tier, Digest::default())).into(),
        merge_version: MERGE_VERSION,
        began_ms: 1_775_000_000_000,
        duration_ms: 4_000,
        bytes: 50_000,
        software: "sonae-edge 0.1.0".into(),
        snapshots: BTreeMap::from([(Tier::Archive, Hash32([6; 32]))]),
    };
    let differs = Proof {
        result: ProofResult::Differs,
        cause: "digest".into(),
        tiers: vec![Tier::Daily],
        snapshots: BTreeMap::new(),
        ..proved.clone()
    };
    let sign = |proof: Proof| proof.sign(&keys::writer()).map_err(|error| Broken(error.to_string()));
    Ok([sign(proved)?, sign(differs)?])
}
