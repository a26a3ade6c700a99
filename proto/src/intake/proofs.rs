//! Evidence of restore proofs as a node knows it: the last one of each incarnation, and the last that succeeded.
//!
//! **Invariant**: evidence is taken from the device that it is of, under the key of the incarnation that signed it.
//! **Invariant**: it is returned to the replica only when it is durable at the quorum. It never holds up a receipt.

use std::collections::BTreeMap;

use crate::ids::{Incarnation, SchoolCode};
use crate::object::RecordKind;
use crate::proof::{Proof, ProofError, ProofResult};
use crate::signed::Signed;
use crate::wire::{Frame, ProofText, RefusalCode};

use super::{Intake, Pending, ReplyTo, School};

/// The evidence of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs {
    /// The last.
    pub last: Signed<Proof>,
    /// The last that succeeded.
    pub proved: Option<Signed<Proof>>,
}

/// Takes evidence in the order in which it was stored.
fn remember(known: &mut BTreeMap<Incarnation, Proofs>, proof: Signed<Proof>) {
    let (incarnation, is_proved) = (proof.body().incarnation, proof.body().result == ProofResult::Proved);
    let proved = match known.remove(&incarnation) {
        _ if is_proved => Some(proof.clone()),
        before => before.and_then(|before| before.proved),
    };
    known.insert(incarnation, Proofs { last: proof, proved });
}

impl School {
    fn verify_proof(&self, text: &str, code: SchoolCode) -> Result<Signed<Proof>, ProofError> {
        Proof::verify(text, code, |of| self.identities.get(&of).map(|identity| *identity.key()))
    }
}

impl Intake {
    /// Learns evidence that a site holds; the identities of its school come before it. Returns whose it is.
    pub fn load_proof(&mut self, text: &str) -> Option<SchoolCode> {
        self.schools.iter_mut().find_map(|(code, school)| {
            let proof = school.verify_proof(text, *code).ok()?;
            remember(&mut school.proofs, proof);
            Some(*code)
        })
    }

    /// Evidence on a stream of a greeted connection.
    pub fn handle_proof(&mut self, to: ReplyTo, text: &ProofText) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "evidence before a hello");
        };
        let (code, greeted) = (connection.school, connection.incarnation);
        let Some(school) = self.schools.get(&code) else { return };
        let proof = match school.verify_proof(&text.document, code) {
            Ok(proof) => proof,
            Err(error) => return self.refuse(to, code, RefusalCode::Signature, &error.to_string()),
        };
        let device_of =
            |of: Incarnation| school.identities.get(&of).map(|identity| identity.incarnation.body().replica);
        if device_of(proof.body().incarnation) != device_of(greeted) {
            return self.refuse(to, code, RefusalCode::Identity, "evidence of another device");
        }
        if school.proofs.get(&proof.body().incarnation).is_some_and(|known| known.last == proof) {
            return self.reply(to, Frame::Proof(text.clone()));
        }
        let body = text.document.clone().into_bytes();
        self.store(RecordKind::Proof, body, Pending::Proof { school: code, to, proof: Box::new(proof) });
    }

    pub(super) fn proof_stored(
        &mut self,
        code: SchoolCode,
        to: ReplyTo,
        proof: Signed<Proof>,
        durable: bool,
    ) {
        if !durable {
            let text = "fewer sites than the quorum could be written";
            return self.refuse(to, code, RefusalCode::Storage, text);
        }
        let text = ProofText { document: proof.text().to_owned() };
        if let Some(school) = self.schools.get_mut(&code) {
            remember(&mut school.proofs, proof);
        }
        self.reply(to, Frame::Proof(text));
    }
}
