//! Destroyed keys leave the sites: at once, and with a signed word when the last copy has gone.
//!
//! **Invariant**: the word is signed only after every copy of every object at every site was read and held none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sonae_proto::destruction::{Destroyed, DestructionCertificate};
use sonae_proto::ids::SchoolCode;
use sonae_proto::signed::Signed;

use super::{Compactor, Judge, Pass, Rewrite};
use crate::clock::now_ms;

/// All destroyed keys that a node knows.
pub(super) type Orders = BTreeMap<SchoolCode, Destroyed>;

/// Destroyed keys in `status.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestructionStatus {
    /// Why copies of destroyed keys may be left at the sites; absent when there is none, or nothing was ordered.
    pub waits_for: Option<String>,
    /// For each school whose board has destroyed keys the node's signed word that no copy is left. It is made anew at each
    /// start.
    pub certificates: BTreeMap<SchoolCode, String>,
}

/// Returns what replaces key documents under these orders.
pub(super) fn rewriting(orders: &Orders) -> Option<Rewrite> {
    if orders.is_empty() {
        return None;
    }
    let orders = orders.clone();
    Some(Arc::new(move |documents| {
        let school = serde_json::from_slice::<OfSchool>(documents).ok()?.school;
        orders.get(&school)?.strip_json(documents)
    }))
}

#[derive(Deserialize)]
struct OfSchool {
    school: SchoolCode,
}

/// Takes destroyed keys out of every object, reads everything once more, and signs for it. Returns what was done, and what
/// is to be said.
pub(super) async fn carry_out(
    compactor: &mut Compactor,
    orders: &Orders,
    judge: &Judge,
    key: &SigningKey,
) -> (Pass, DestructionStatus) {
    let waits = |text: String| DestructionStatus { waits_for: Some(text), ..DestructionStatus::default() };
    let pass = match compactor.rewrite(judge).await {
        Ok(pass) => pass,
        Err(error) => return (Pass::default(), waits(error.to_string())),
    };
    let status = match compactor.residue(judge).await {
        Ok(0) => DestructionStatus { waits_for: None, certificates: certify(compactor, orders, key) },
        Ok(left) => waits(format!(
            "{left} copies of objects still hold destroyed keys, or are damaged, so that nobody can tell; look at the \
             sites' status, and remove damaged objects of which other sites have good copies"
        )),
        Err(error) => waits(error.to_string()),
    };
    (pass, status)
}

fn certify(compactor: &Compactor, orders: &Orders, key: &SigningKey) -> BTreeMap<SchoolCode, String> {
    let of = |(school, destroyed): (&SchoolCode, &Destroyed)| {
        let certificate = DestructionCertificate {
            school: *school,
            keys: destroyed.keys(),
            sites: compactor.site_ids(),
            issued_ms: now_ms(),
        };
        Some((*school, Signed::sign(certificate, key).ok()?.text().to_owned()))
    };
    orders.iter().filter_map(of).collect()
}
