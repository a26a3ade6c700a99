//! What a node does with batches: verifies them with public keys, has them stored, receipts them, serves them.
//!
//! **Invariant**: a receipt is sent only from [`Intake::handle_stored`], or for what was found durable.

use crate::batch::{Batch, BatchError};
use crate::identity::{Identity, IdentityText};
use crate::ids::{Incarnation, LogName, SchoolCode};
use crate::manifest::KeyUse;
use crate::object::RecordKind;
use crate::receipt::{Receipt, SiteId};
use crate::vector::{Heads, LogHead};
use crate::wire::{Fetch, Frame, News, RefusalCode};

use super::log::Offer;
use super::{Effect, Intake, Location, Pending, ReplyTo, Ticket};

impl Intake {
    /// A batch on a stream of a greeted connection.
    pub fn handle_batch(&mut self, to: ReplyTo, bytes: Vec<u8>, now_ms: u64) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a batch before a hello");
        };
        let (code, loss_counter) = (connection.school, connection.loss_counter);
        let copy = self.awaits_keys(to.connection, bytes.len()).then(|| bytes.clone());
        let batch = match self.verify_batch(code, bytes) {
            Ok(batch) => batch,
            Err((RefusalCode::Manifest, _)) if copy.is_some() => {
                return self.hold_ahead(to, copy.unwrap_or_default(), now_ms);
            }
            Err((code_of_refusal, text)) => return self.refuse(to, code, code_of_refusal, &text),
        };
        let (name, head) = (batch.header().log, batch.header().head());
        self.store_undurable(code);
        let school = self.schools.entry(code).or_default();
        if !school.standing(batch.header()).counts() {
            return self.quarantine(to, code, &batch);
        }
        // Also for one that is on its way: a batch that an earlier node stored may be known before its identity is.
        let on_their_way =
            |pending: &Pending| matches!(pending, Pending::Document { school, .. } if *school == code);
        let school_waits_for_documents =
            !school.undurable.is_empty() || self.pending.values().any(on_their_way);
        let key_use = KeyUse::Tier(name.tier);
        let is_unreadable = school.destroyed.contains(key_use, batch.header().epoch);
        let log = school.logs.entry(name).or_default();
        // What is held keeps its place in the chain. A receipt for more of it would call safe what nobody can open.
        if is_unreadable && !log.knows(batch.header()) {
            let text =
                format!("the key {key_use} of {} was destroyed: nobody can open it", batch.header().epoch);
            return self.refuse(to, code, RefusalCode::Recipients, &text);
        }
        match log.offer(&batch, to, loss_counter, self.config.quorum) {
            Offer::Durable(_) if school_waits_for_documents => {
                self.refuse(to, code, RefusalCode::Storage, "documents of the school are not durable yet");
            }
            Offer::Durable(sites) => self.send_receipt(to, code, name, head, loss_counter, sites, now_ms),
            Offer::Wait => {}
            Offer::Refuse(code_of_refusal) => {
                self.refuse(to, code, code_of_refusal, "the batch does not continue its log");
            }
            Offer::Store { ready, misfits } => {
                for misfit in misfits {
                    self.refuse(misfit, code, RefusalCode::Chain, "another batch took its place in the log");
                }
                if self.config.receipt_before_store {
                    self.send_receipt(to, code, name, head, loss_counter, vec![[0xEE; 16]], now_ms);
                }
                for batch in ready {
                    let head = batch.header().head();
                    let pending = Pending::Batch { school: code, log: name, head };
                    self.store(RecordKind::Batch, batch.bytes().to_vec(), pending);
                }
            }
        }
    }

    fn verify_batch(&self, code: SchoolCode, bytes: Vec<u8>) -> Result<Batch, (RefusalCode, String)> {
        let refuse = |code, error: &BatchError| Err((code, error.to_string()));
        let batch = match Batch::from_bytes(bytes) {
            Ok(batch) => batch,
            Err(error) => return refuse(RefusalCode::Malformed, &error),
        };
        let header = batch.header();
        if header.school != code {
            return Err((RefusalCode::WrongSchool, format!("a batch of school {}", header.school)));
        }
        let school = self.schools.get(&code);
        let Some(identity) = school.and_then(|s| s.identities.get(&header.log.incarnation)) else {
            return Err((RefusalCode::Identity, "a batch of an unknown incarnation".into()));
        };
        match batch.verify(identity.key()) {
            Err(error @ BatchError::Recipients(_)) => return refuse(RefusalCode::Recipients, &error),
            Err(error) => return refuse(RefusalCode::Signature, &error),
            Ok(()) => {}
        }
        let manifest = school.and_then(|s| s.manifests.get(&header.manifest));
        if manifest.and_then(|m| m.key(KeyUse::Tier(header.log.tier), header.epoch)).is_none() {
            let text =
                format!("no known manifest names the key of tier {} epoch {}", header.log.tier, header.epoch);
            return Err((RefusalCode::Manifest, text));
        }
        Ok(batch)
    }

    /// A record is durable on `sites`, or on fewer than the quorum.
    pub fn handle_stored(&mut self, ticket: Ticket, location: &Location, sites: &[SiteId], now_ms: u64) {
        let quorum = self.config.quorum;
        let (code, name, head) = match self.pending.remove(&ticket) {
            Some(Pending::Batch { school, log, head }) => (school, log, head),
            Some(Pending::Quarantined { school, header, to }) => {
                return self.quarantine_stored(school, header, to, location, sites);
            }
            Some(Pending::Document { school, kind, body, to }) => {
                let durable = sites.len() >= quorum;
                self.effects.extend(to.map(|to| Effect::DocumentsStored { to, durable }));
                return self.document_stored(school, kind, body, durable);
            }
            Some(Pending::Snapshot { school, root }) => {
                return self.snapshot_stored(school, root, sites, now_ms);
            }
            Some(Pending::SnapshotPart { school, hash }) => {
                return self.snapshot_part_stored(school, hash, location, sites);
            }
            Some(Pending::Proof { school, to, proof }) => {
                return self.proof_stored(school, to, *proof, sites.len() >= quorum);
            }
            None => return,
        };
        let Some(school) = self.schools.get_mut(&code) else { return };
        // Records are stored in order, so a document that this batch needs has been reported before it.
        let sites = if school.undurable.is_empty() { sites } else { &[] };
        let on_its_way = school.logs.get(&name).and_then(|log| log.on_its_way(head));
        if let Some(header) = on_its_way.filter(|header| !school.standing(header).counts()) {
            return self.revoked_meanwhile(code, header, location, sites);
        }
        let Some(log) = school.logs.get_mut(&name) else { return };
        let outcome = log.stored(head, location, sites, quorum);
        for waiter in outcome.durable {
            self.send_receipt(waiter.to, code, name, waiter.head, waiter.loss_counter, waiter.sites, now_ms);
        }
        for waiter in outcome.failed {
            self.refuse(waiter, code, RefusalCode::Storage, "fewer sites than the quorum could be written");
        }
        if let Some(head) = outcome.moved {
            self.spread_news(code, name.incarnation, &Heads::from([(name, head)]));
        }
    }

    /// Tells the other replicas of a school what has moved, and who writes it.
    pub(super) fn spread_news(&mut self, code: SchoolCode, incarnation: Incarnation, heads: &Heads) {
        let Some(school) = self.schools.get(&code) else { return };
        let identities: Vec<IdentityText> =
            school.identities.get(&incarnation).map(Identity::text).into_iter().collect();
        let others = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.school == code && connection.incarnation != incarnation);
        for (connection, _) in others {
            let news = News { heads: heads.clone(), identities: identities.clone() };
            let frame = Box::new(Frame::News(Box::new(news)));
            self.effects.push_back(Effect::Tell { connection: *connection, frame });
        }
    }

    /// A replica asks for a log.
    pub fn handle_fetch(&mut self, to: ReplyTo, fetch: &Fetch) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a fetch before a hello");
        };
        let batches = self
            .schools
            .get(&connection.school)
            .and_then(|school| school.logs.get(&fetch.log))
            .map(|log| log.after(fetch.after))
            .unwrap_or_default();
        self.effects.push_back(Effect::Serve { to, batches, log: fetch.log });
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one receipt and where it goes")]
    pub(super) fn send_receipt(
        &mut self,
        to: ReplyTo,
        school: SchoolCode,
        log: LogName,
        head: LogHead,
        loss_counter: u64,
        sites: Vec<SiteId>,
        now_ms: u64,
    ) {
        let receipt = Receipt { school, log, head, loss_counter, issued_ms: now_ms, sites };
        self.reply(to, Frame::Receipt(receipt.sign(&self.config.receipt_key)));
    }
}
