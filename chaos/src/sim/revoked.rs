//! Revoked devices: the board says so, a thief goes on writing with a clock set back and has it carried by hand, and
//! the board decides later.
//!
//! **Invariants** that it checks: a node that knows of a revocation greets the device over no line and signs no receipt
//! behind what is accepted; a box that knows stores nothing behind it; what a courier is told to be in quarantine is at
//! the quorum.

use sonae_proto::batch::BatchHeader;
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::{Hash32, Incarnation, LogName, Tier};
use sonae_proto::intake::{ConnectionId, ReplyTo};
use sonae_proto::revocation::Revocation;
use sonae_proto::uplink::KeysOutcome;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Hello, KeyDocuments, PROTOCOL};

use super::options::LanKind;
use super::world::World;

/// Devices that a run may revoke at most.
const REVOKED_MAX: usize = 2;

/// What the clock of a thief shows, milliseconds since 1970.
const THIEF_CLOCK_MS: u64 = 3_600_000;

/// What the board has said of a device.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    /// Version of the manifest that said it first.
    pub since: u64,
    pub accepted: Heads,
}

impl World {
    /// Whether the box in a slot has been revoked.
    pub fn is_revoked(&self, slot: usize) -> bool {
        self.revoked.contains_key(&self.slots[slot].life.device)
    }

    fn word_on(&self, incarnation: Incarnation) -> Option<&Word> {
        self.revoked.get(self.devices.get(&incarnation)?)
    }

    /// Up to where a log counts, for what everybody must have in the end.
    pub fn counted(&self, log: LogName, sequence: u64) -> u64 {
        let word = self.word_on(log.incarnation);
        word.map_or(sequence, |word| sequence.min(word.accepted.get(&log).map_or(0, |head| head.sequence)))
    }

    /// The same as a box knows it that holds manifests up to a version.
    pub fn counted_at(&self, version: u64, log: LogName, sequence: u64) -> u64 {
        let Some(device) = self.devices.get(&log.incarnation) else { return sequence };
        let accepted = self.board.revocations_at(version).accepted(self.board.replica(*device), log);
        accepted.map_or(sequence, |head| sequence.min(head.sequence))
    }

    /// The board revokes the device in a slot. It accepts what is known outside of it.
    pub fn revoke(&mut self, slot: usize) {
        let life = self.slots[slot].life.clone();
        let others = (0..self.slots.len()).filter(|other| *other != slot && !self.is_revoked(*other));
        let is_clear = self.slots[slot].ended.is_empty()
            && !self.contested.contains(&life.name)
            && others.clone().all(|other| self.slots[other].life.device != life.device);
        if !is_clear || others.count() == 0 || self.revoked.len() >= REVOKED_MAX || self.is_revoked(slot) {
            return;
        }
        let mut accepted = Heads::new();
        let node = self.node.as_ref().map(|node| node.intake.overview()).unwrap_or_default();
        let of_node = node.into_iter().flat_map(|school| school.heads);
        let of_boxes = self.slots.iter().filter_map(|other| other.replica.as_ref());
        let of_boxes = of_boxes.flat_map(|replica| replica.engine.peer_heads().clone());
        for (log, head) in of_node.chain(of_boxes) {
            let is_of_device = self.devices.get(&log.incarnation) == Some(&life.device);
            let known = accepted.get(&log).map_or(0, |known: &LogHead| known.sequence);
            if is_of_device && head.sequence > known {
                accepted.insert(log, head);
            }
        }
        let since = self.board.version() + 1;
        self.revoked.insert(life.device, Word { since, accepted });
        self.say();
    }

    /// What waits of a revoked device at the node counts from now on.
    pub fn accept(&mut self) {
        let Some(node) = &self.node else { return };
        let waiting = node.intake.overview().into_iter().flat_map(|school| school.quarantined).next();
        let Some(waiting) = waiting else { return };
        let device = self.devices.get(&waiting.log.incarnation).copied();
        let Some(word) = device.and_then(|device| self.revoked.get_mut(&device)) else { return };
        // As the board's own tool: what it has accepted only grows.
        if word.accepted.get(&waiting.log).is_none_or(|known| known.sequence < waiting.head.sequence) {
            word.accepted.insert(waiting.log, waiting.head);
            self.say();
        }
    }

    fn say(&mut self) {
        let entry = |(device, word): (&u8, &Word)| Revocation {
            replica: self.board.replica(*device),
            revoked_ms: 1,
            accepted: word.accepted.clone(),
            dropped: Heads::new(),
        };
        let entries = self.revoked.iter().map(entry).collect();
        if let Err(error) = self.board.say(entries) {
            return self.violate(format!("the board cannot sign: {error}"));
        }
        self.words_due = true;
        self.bring_words();
        if self.options.lan == LanKind::Alone {
            self.bring_words_by_hand();
        }
    }

    /// Somebody brings the board's newest word to one box.
    pub fn bring_words_by_hand(&mut self) {
        let keys = self.board.documents_at(self.board.version());
        let slot = (0..self.slots.len()).find(|slot| self.is_on_lan(*slot) && !self.is_revoked(*slot));
        if let Some(slot) = slot {
            self.box_reads_keys(slot, &keys);
            self.drain_box(slot);
        }
    }

    /// Somebody brings the board's newest word to the node, as soon as one runs.
    pub fn bring_words(&mut self) {
        let to = ReplyTo { connection: ConnectionId(self.number()), stream: 0 };
        let keys = self.board.documents_at(self.board.version());
        let Some(node) = self.node.as_mut().filter(|_| self.words_due) else { return };
        self.words_due = false;
        if let Err(text) = node.intake.handle_documents(to, &keys) {
            self.violate(format!("the node does not take the board's word: {text}"));
        }
        self.drain_node();
    }

    /// A thief sets the clock of a revoked box back, writes, and has everything of it carried to all others.
    pub fn carry_stolen(&mut self, slot: usize) {
        let Some(slot) = std::iter::once(slot).chain(0..self.slots.len()).find(|slot| self.is_revoked(*slot))
        else {
            return;
        };
        self.slots[slot].clock = (THIEF_CLOCK_MS, self.now);
        self.write(slot, Tier::Safety, 0);
        self.seal(slot, 1);
        let Some(replica) = &self.slots[slot].replica else { return };
        let batches: Vec<_> = replica.store.held.sealed.values().flatten().cloned().collect();
        let hello = Hello {
            protocol: PROTOCOL,
            school: self.board.school,
            identity: self.slots[slot].life.identity.clone(),
            loss_counter: replica.engine.loss_counter(),
            receipted: Heads::new(),
            have: replica.fold.sequences.clone(),
            manifest_version: 1,
            nonce: String::new(),
            software: "sim".into(),
            ended: EndedHashes::new(),
        };
        let (connection, now) = (ConnectionId(self.number()), self.now);
        let old = self.board.documents();
        if let Some(node) = &mut self.node {
            node.intake.handle_carried_hello(ReplyTo { connection, stream: 0 }, &hello, now);
            node.intake.handle_keys(connection, &old);
        }
        for (batch, stream) in batches.iter().zip(1..) {
            self.carried.insert((connection.0, stream), batch.header().hash());
            if let Some(node) = &mut self.node {
                node.intake.handle_batch(ReplyTo { connection, stream }, batch.bytes().to_vec(), now);
            }
            self.drain_node();
        }
        for other in 0..self.slots.len() {
            if other != slot && !self.is_revoked(other) {
                for batch in &batches {
                    if let Some(replica) = &mut self.slots[other].replica {
                        replica.engine.handle_carried_batch(batch.clone());
                    }
                    self.drain_box(other);
                }
            }
        }
    }

    /// A box reads key documents.
    pub fn box_reads_keys(&mut self, slot: usize, keys: &KeyDocuments) {
        let Some(replica) = &mut self.slots[slot].replica else { return };
        if let KeysOutcome::Refused(text) = replica.engine.handle_keys(keys) {
            self.violate(format!("box {slot} refuses the board's key documents: {text}"));
        }
    }

    // The oracle.

    fn node_knows(&self, device: u8) -> bool {
        let replica = self.board.replica(device);
        let overview = self.node.as_ref().map(|node| node.intake.overview()).unwrap_or_default();
        overview.iter().any(|school| school.revoked.contains(&replica))
    }

    /// A node welcomes somebody.
    pub fn check_welcome(&mut self, connection: u64) {
        let Some(line) = self.connections.get(&connection) else { return };
        let key = line.tls_key;
        let mut revoked = self.revoked.keys().copied();
        let found = revoked.find(|device| self.board.tls_key(*device) == key);
        if let Some(device) = found.filter(|device| self.node_knows(*device)) {
            self.violate(format!("the node welcomes device {device}, which is revoked"));
        }
    }

    /// A node signs a receipt.
    pub fn check_receipted(&mut self, log: LogName, head: LogHead) {
        let Some(device) = self.devices.get(&log.incarnation).copied() else { return };
        if head.sequence > self.counted(log, head.sequence) && self.node_knows(device) {
            let sequence = head.sequence;
            self.violate(format!("the node signs {log} up to {sequence}, which the board does not accept"));
        }
    }

    /// A box stores a batch of a peer.
    pub fn check_stored(&mut self, slot: usize, header: &BatchHeader) {
        self.check_begun(slot, header.log, header.head());
    }

    /// A box holds a log up to a head from now on.
    pub fn check_begun(&mut self, slot: usize, log: LogName, head: LogHead) {
        let (last, words) = (head.sequence, self.slots[slot].words);
        let knows = self.word_on(log.incarnation).is_some_and(|word| word.since <= words);
        if knows && last > self.counted(log, last) {
            self.violate(format!("box {slot} stores {log} up to {last}, which the board does not accept"));
        }
    }

    /// A courier is told that a batch is in quarantine.
    pub fn check_quarantined(&mut self, to: ReplyTo) {
        let hash: Option<Hash32> = self.carried.get(&(to.connection.0, to.stream)).copied();
        if !hash.is_some_and(|hash| self.ledger.is_at_quorum(hash)) {
            self.violate("a batch is said to be in quarantine and is not at the quorum".into());
        }
    }
}
