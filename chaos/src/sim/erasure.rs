//! Erasure: somebody writes tombstones for a record at a box, while others, who have not heard of it, write to it.
//!
//! **Invariants** that it checks, against what the second witness knows of tombstones: nothing of an erased record stands in
//! a view from the moment on in which its tombstone is applied, whatever came before it or comes later, from wherever; no
//! box that knows of a tombstone writes to the record, or writes to it again what an ended life has left.
//!
//! Left out: keys are neither rotated nor destroyed, and the journal keeps its plain text; `edge/store/tests/erasure.rs`
//! and `chaos/tests/erasure.rs` show those.

use std::collections::BTreeMap;

use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::digest::DigestKey;
use sonae_proto::erasure::{Place, tombstone, tombstones};
use sonae_proto::ids::{LogName, Tier};

use super::board::EPOCH;
use super::later;
use super::model::ERASED_FIELD;
use super::replica::{Draft, Replica, collection};
use super::world::World;

impl Replica {
    /// Whether a record was erased, as the product knows it.
    pub fn is_erased(&self, tier: Tier, collection: &str, record: &str) -> bool {
        self.fold.is_erased(&self.records, tier, collection, record).unwrap_or(false)
    }

    /// The id under which people know a record: once it is erased, a new one takes its place.
    pub fn present(&self, tier: Tier, collection: &str, number: usize) -> String {
        let mut record = format!("r{number}");
        while self.is_erased(tier, collection, &record) {
            record.push('x');
        }
        record
    }

    /// Makes the tombstone of a record.
    fn stone(
        &mut self,
        key: &DigestKey,
        log: LogName,
        told_ms: u64,
        record: [&str; 2],
        place: Place,
    ) -> anyhow::Result<Draft> {
        let field = |value: serde_json::Value| FieldWrite { value, bases: Vec::new() };
        let stamp = self.next_stamp(told_ms);
        let change = Change {
            stamp,
            collection: tombstones(log.tier).into(),
            record: tombstone(key, record[0], place, record[1]),
            fields: BTreeMap::from([
                ("epoch".into(), field(EPOCH.into())),
                // For the second witness; the product writes nothing that says whom it erased.
                (ERASED_FIELD.into(), field(record.to_vec().into())),
            ]),
            who: Some("tanaka".into()),
            source: None,
            origin: None,
            rest: serde_json::Map::new(),
        };
        Ok(Draft { log, stamp, line: change.to_line(log.incarnation)? })
    }
}

impl World {
    /// A person erases a record, in every collection that has one of this name.
    pub fn erase(&mut self, slot: usize, tier: Tier, number: usize) {
        if self.is_rebuilding(slot) {
            return;
        }
        for collection in [collection(tier), later::COLLECTION] {
            let told = self.told(slot);
            let place = self.random.pick(&[Place::Whole, Place::Part(0)]);
            let key = self.board.digest_key();
            let log = self.slots[slot].life.log(tier);
            let book = &mut self.slots[slot].book;
            book.told_ms_max = book.told_ms_max.max(told);
            let Some(replica) = &mut self.slots[slot].replica else { return };
            let record = replica.present(tier, collection, number);
            match replica.stone(&key, log, told, [collection, &record], place) {
                Ok(draft) => {
                    self.note(format_args!("box {slot} erases {record} of {collection}"));
                    self.tally.counts.erasures += u64::from(self.keep_change(slot, draft));
                }
                Err(error) => return self.violate(format!("box {slot} cannot erase: {error:#}")),
            }
        }
    }

    /// A box is about to keep a change of its own.
    pub fn check_not_erased(&mut self, slot: usize, log: LogName, line: &[u8]) {
        let Ok(change) = Change::from_line(line, log.incarnation) else { return };
        let model = self.slots[slot].replica.as_ref().map(|replica| &replica.model);
        if model.is_some_and(|model| model.is_erased(log.tier, &change.collection, &change.record)) {
            let record = change.record;
            self.violate(format!("box {slot} writes to {record} although it knows that it was erased"));
        }
    }

    /// Looks through all views for records that were erased.
    pub fn check_erased(&mut self) {
        for slot in 0..self.slots.len() {
            let checked =
                self.slots[slot].replica.as_ref().map(|replica| replica.model.check_erased(&replica.records));
            if let Some(Err(text)) = checked {
                self.violate(format!("box {slot}: {text}"));
            }
        }
    }
}
