//! What a greeting leaves out of incarnations that have ended, and how the answer is completed.
//!
//! **Invariant**: a completed welcome names what the node would have named without the hashes. What the node has not
//! shown to hold stays unnamed, as what it lost does.
//! **Invariant**: it is completed with what was hashed for that very hello: what has come by another way since does not
//! pass for the cloud's.

use std::borrow::Cow;

use super::Uplink;
use crate::ended::Ended;
use crate::identity::IdentityText;
use crate::vector::{Heads, LogHead};
use crate::wire::{Hello, Welcome};

/// What the last hello left out.
#[derive(Debug)]
pub(super) struct LeftOut {
    nonce: String,
    own: IdentityText,
    ended: Ended,
}

impl Uplink {
    /// Says ended incarnations as hashes in a hello that is about to be sent, and leaves them out of what it has.
    pub fn say_ended(&mut self, hello: &mut Hello) {
        let own = self.own_identity.take().filter(|own| own.has_text(&hello.identity));
        let own = own.or_else(|| hello.identity.verify(&self.board, self.school).ok());
        let held = self.own.iter().map(|(log, own)| (*log, own.held()));
        let mut heads: Heads = held.filter(|(_, head)| *head != LogHead::EMPTY).collect();
        heads.extend(self.peers.heads());
        let ended = Ended::of(self.peers.known().chain(&own), &heads, self.peers.revocations());
        hello.ended = ended.hashes();
        let incarnations = ended.incarnations();
        hello.have.retain(|log, _| !incarnations.contains(&log.incarnation));
        self.own_identity = own;
        self.left_out = Some(LeftOut { nonce: hello.nonce.clone(), own: hello.identity.clone(), ended });
    }

    /// Whether a welcome answers another hello than the last one.
    pub(super) fn answers_another(&self, welcome: &Welcome) -> bool {
        self.left_out.as_ref().is_some_and(|said| said.nonce != welcome.nonce)
    }

    /// Adds to a welcome what it leaves out of ended incarnations because the hello said that it is held here.
    #[must_use]
    pub fn complete<'a>(&self, welcome: &'a Welcome) -> Cow<'a, Welcome> {
        let Some(said) = self.left_out.as_ref().filter(|_| !welcome.ended.is_empty()) else {
            return Cow::Borrowed(welcome);
        };
        let ended = said.ended.proven_by(&welcome.ended, &said.nonce);
        let mut whole = welcome.clone();
        // What it does name stands: two words on one log are for those who compare heads to notice.
        for (log, head) in ended.heads() {
            whole.heads.entry(log).or_insert(head);
        }
        let incarnations = ended.incarnations();
        let known = self.peers.known().filter(|identity| incarnations.contains(&identity.name()));
        whole.identities.extend(known.map(crate::identity::Identity::text));
        // Behind a clock that went back the present incarnation may pass for one that has ended.
        let is_own = |incarnation| incarnations.contains(incarnation);
        if self.own.keys().map(|log| &log.incarnation).any(is_own) && !whole.identities.contains(&said.own) {
            whole.identities.push(said.own.clone());
        }
        whole.ended.clear();
        Cow::Owned(whole)
    }
}
