//! Identities, manifests and wrapped keys as a node knows them, and whether the sites hold them.
//!
//! **Invariant**: a document counts only under the board's signature.
//! **Invariant**: while a document of a school is known to be below the quorum, no receipt is signed for that
//! school: a rebuild could not verify or open what the receipt calls safe.
//! **Invariant**: of the key documents with one manifest the first that are whole stand; others displace nothing. This node
//! can open none, so it cannot tell good ones from bad.
//! **Invariant**: a wrapped key of a destroyed epoch is neither kept nor passed on, from the moment the order is known.

use crate::destruction::Destroyed;
use crate::identity::{Identity, IdentityText};
use crate::ids::SchoolCode;
use crate::manifest::{Manifest, Wrapping};
use crate::object::RecordKind;
use crate::planted::{Defect, is_planted};
use crate::revocation::Revocations;
use crate::signed::Signed;
use crate::wire::{Frame, KeyDocuments, RefusalCode};

use super::{ConnectionId, Effect, Intake, Pending, ReplyTo, School};

#[derive(Debug)]
pub(super) struct Undurable {
    kind: RecordKind,
    body: Vec<u8>,
    on_its_way: bool,
}

impl Undurable {
    /// Drops wrapped keys of destroyed epochs, so that they are not stored again.
    fn strip(&mut self, destroyed: &Destroyed) {
        if self.kind == RecordKind::Keys
            && let Ok(mut keys) = serde_json::from_slice::<KeyDocuments>(&self.body)
            && destroyed.strip(&mut keys)
            && let Ok(body) = serde_json::to_vec(&keys)
        {
            self.body = body;
            // What is on its way is the body of before.
            self.on_its_way = false;
        }
    }
}

impl School {
    /// Drops what is held of keys that were not known to be destroyed until now.
    fn drop_destroyed(&mut self) {
        let destroyed = &self.destroyed;
        // What is left lacks keys that its manifest names, and counts for no box.
        if self.whole.as_mut().is_some_and(|(_, keys)| destroyed.strip(keys)) {
            self.whole = None;
        }
        self.undurable.iter_mut().for_each(|undurable| undurable.strip(destroyed));
    }
}

impl Intake {
    /// Learns an identity that a site holds. Anything that does not verify is passed over.
    pub fn load_identity(&mut self, text: &IdentityText, school: SchoolCode) -> bool {
        let Ok(identity) = text.verify(&self.config.board, school) else { return false };
        self.schools.entry(school).or_default().identities.insert(identity.name(), identity);
        true
    }

    /// Learns key documents that a site holds.
    pub fn load_keys(&mut self, keys: &KeyDocuments) -> bool {
        self.learn_keys(&mut keys.clone(), false).is_ok()
    }

    /// Learns that an identity or key document, loaded before, is on fewer sites than the quorum. It is
    /// stored again with the first batch or hello of its school, and before any receipt.
    pub fn load_undurable(&mut self, school: SchoolCode, kind: RecordKind, body: Vec<u8>) {
        let school = self.schools.entry(school).or_default();
        let mut undurable = Undurable { kind, body, on_its_way: false };
        undurable.strip(&school.destroyed);
        school.undurable.push(undurable);
    }

    pub(super) fn remember_identity(&mut self, code: SchoolCode, text: &IdentityText, identity: Identity) {
        let body = serde_json::to_vec(text).unwrap_or_default();
        if !is_planted(Defect::IdentityNotStored) {
            self.store_document(code, RecordKind::Identity, body);
        }
        let replica = identity.incarnation.body().replica;
        let school = self.schools.entry(code).or_default();
        school.identities.insert(identity.name(), identity);
        let of_device =
            school.identities.values().filter(|other| other.incarnation.body().replica == replica).count();
        if of_device > 1 {
            self.effects.push_back(Effect::SecondIncarnation {
                school: code,
                replica: replica.to_string(),
                incarnations: of_device,
            });
        }
    }

    /// Key documents from a replica.
    pub fn handle_keys(&mut self, connection: ConnectionId, keys: &KeyDocuments) {
        let Some(known) = self.connections.get(&connection) else {
            return self.effects.push_back(Effect::Close(connection));
        };
        let mut keys = keys.clone();
        let learned = if keys.school == known.school {
            self.learn_keys(&mut keys, false).map_err(|text| (keys.school, RefusalCode::Manifest, text))
        } else {
            Err((known.school, RefusalCode::WrongSchool, "key documents".to_owned()))
        };
        match &learned {
            Ok(true) => self.keep_keys(&keys, Some(connection), None),
            Ok(false) => {}
            Err((school, code, text)) => self.note_refusal(Some(*school), *code, text),
        }
        self.take_ahead(connection, learned.is_err());
    }

    /// Key documents that the board has brought by hand. They are answered with [`Effect::DocumentsStored`].
    ///
    /// # Errors
    /// Why they are not taken, for people.
    pub fn handle_documents(&mut self, to: ReplyTo, keys: &KeyDocuments) -> Result<(), String> {
        let mut keys = keys.clone();
        if self.learn_keys(&mut keys, true)? {
            self.keep_keys(&keys, None, Some(to));
        } else {
            let waiting = self.schools.get(&keys.school).is_some_and(|school| !school.undurable.is_empty());
            self.store_undurable(keys.school);
            self.effects.push_back(Effect::DocumentsStored { to, durable: !waiting });
        }
        Ok(())
    }

    /// Has key documents stored, and tells those of the school that hold older ones.
    fn keep_keys(&mut self, keys: &KeyDocuments, from: Option<ConnectionId>, to: Option<ReplyTo>) {
        let body = serde_json::to_vec(keys).unwrap_or_default();
        let pending =
            Pending::Document { school: keys.school, kind: RecordKind::Keys, body: body.clone(), to };
        self.store(RecordKind::Keys, body, pending);
        let whole = self.schools.get(&keys.school).and_then(|school| school.whole.as_ref());
        let Some((version, _)) = whole.filter(|(_, whole)| whole == keys) else { return };
        let hold_older = self.connections.iter_mut().filter(|(_, connection)| {
            connection.school == keys.school && connection.manifest_version < *version
        });
        for (id, connection) in hold_older {
            connection.manifest_version = *version;
            if Some(*id) != from {
                let frame = Box::new(Frame::Keys(Box::new(keys.clone())));
                self.effects.push_back(Effect::Tell { connection: *id, frame });
            }
        }
    }

    /// Takes key documents, and drops from them what is destroyed. A replica may send an earlier manifest without its
    /// keys; what comes by hand must be whole, unless it is old.
    fn learn_keys(&mut self, keys: &mut KeyDocuments, by_hand: bool) -> Result<bool, String> {
        let signed = Signed::<Manifest>::verify(&keys.manifest, &self.config.board)
            .map_err(|error| error.to_string())?;
        let manifest = signed.body();
        if manifest.school != keys.school || !manifest.is_within_limits() {
            return Err("the manifest is of another school or over its limits".into());
        }
        Destroyed::of(manifest).strip(keys);
        let newest = self.schools.get(&keys.school).map_or(0, |school| school.newest);
        match manifest.wrapping(&keys.wrapped_keys) {
            Wrapping::Strange => {
                return Err("a wrapped key is not named by the manifest, or is there twice".into());
            }
            Wrapping::Partial if by_hand && manifest.version >= newest => {
                return Err("wrapped keys that the manifest names are missing".into());
            }
            Wrapping::Partial | Wrapping::Whole => {}
        }
        let school = self.schools.entry(keys.school).or_default();
        // A board that was set back to an old copy would let a thief in again, and nobody would see it.
        let (mut earlier, mut destroyed) = (Revocations::default(), Destroyed::default());
        let is_earlier = |known: &&Manifest| known.version <= manifest.version;
        for known in school.manifests.values().filter(is_earlier) {
            earlier.learn(known);
            destroyed.learn(known);
        }
        if !earlier.are_in(manifest) || !destroyed.are_in(manifest) {
            let (school, version) = (keys.school, manifest.version);
            self.effects.push_back(Effect::RevocationTakenBack { school, version });
            let what =
                "the manifest takes back a revocation or the destruction of a key that an earlier one said";
            return Err(what.into());
        }
        if school.destroyed.learn(manifest) {
            school.drop_destroyed();
        }
        school.destroyed.strip(keys);
        let is_new = school.manifests.insert(signed.hash(), manifest.clone()).is_none();
        school.newest = school.newest.max(manifest.version);
        // A first sender without keys hides nothing: those who have them are asked, and their set is taken whole.
        let is_newer = school.whole.as_ref().is_none_or(|(version, _)| *version < manifest.version);
        let is_first = is_newer && manifest.wrapping(&keys.wrapped_keys) == Wrapping::Whole;
        if is_first {
            school.whole = Some((manifest.version, keys.clone()));
        }
        if school.revocations.learn(manifest) {
            self.enforce(keys.school);
        }
        Ok(is_new || is_first)
    }

    fn store_document(&mut self, school: SchoolCode, kind: RecordKind, body: Vec<u8>) {
        let pending = Pending::Document { school, kind, body: body.clone(), to: None };
        self.store(kind, body, pending);
    }

    pub(super) fn store_undurable(&mut self, code: SchoolCode) {
        let Some(school) = self.schools.get_mut(&code) else { return };
        let mut again = Vec::new();
        for document in school.undurable.iter_mut().filter(|document| !document.on_its_way) {
            document.on_its_way = true;
            again.push((document.kind, document.body.clone()));
        }
        for (kind, body) in again {
            self.store_document(code, kind, body);
        }
    }

    pub(super) fn document_stored(
        &mut self,
        code: SchoolCode,
        kind: RecordKind,
        body: Vec<u8>,
        durable: bool,
    ) {
        let Some(school) = self.schools.get_mut(&code) else { return };
        let mut stored = Undurable { kind, body, on_its_way: false };
        // Keys may have been destroyed while it was on its way.
        stored.strip(&school.destroyed);
        let is_it = |known: &Undurable| known.kind == kind && known.body == stored.body;
        let known = school.undurable.iter().position(is_it);
        match (known.and_then(|index| school.undurable.get_mut(index)), known) {
            (_, Some(index)) if durable => {
                school.undurable.swap_remove(index);
            }
            (Some(document), _) => document.on_its_way = false,
            (None, _) if !durable => {
                school.undurable.push(stored);
            }
            (None, _) => {}
        }
    }
}
