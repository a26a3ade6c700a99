//! A log as a replica writes it: real sealed, signed, chained batches.

use sonae_proto::batch::{Batch, Place};
use sonae_proto::ids::{LogName, SchoolCode, Tier};
use sonae_proto::seal::{encrypt, seal_lines};
use sonae_proto::vector::LogHead;

use super::board::{Device, EPOCH, Life, SchoolKeys};

pub struct LogWriter {
    pub log: LogName,
    pub place: Place,
    key: ed25519_dalek::SigningKey,
    recipient: String,
    pub batches: Vec<Batch>,
}

impl LogWriter {
    pub fn new(device: &Device, life: &Life, keys: &SchoolKeys, tier: Tier) -> Self {
        let log = LogName { tier, incarnation: life.name };
        let place = Place {
            school: device.school,
            log,
            after: LogHead::EMPTY,
            last: 1,
            epoch: EPOCH,
            manifest: keys.manifest.hash(),
        };
        Self { log, place, key: life.key.clone(), recipient: keys.open.recipient(), batches: Vec::new() }
    }

    pub fn head(&self) -> LogHead {
        self.batches.last().map_or(LogHead::EMPTY, |batch| batch.header().head())
    }

    /// Where the next batch of one change goes.
    pub fn next_place(&self) -> Place {
        let after = self.head();
        Place { after, last: after.sequence + 1, ..self.place }
    }

    pub fn payload(&self, text: &str) -> Vec<u8> {
        seal_lines(format!("{{\"text\":\"{text}\"}}\n").as_bytes(), 3, &self.recipient).unwrap()
    }

    /// Signs a batch at a place without adding it to the log.
    pub fn sign(&self, place: &Place, payload: &[u8]) -> Batch {
        Batch::sign(place, payload, &self.key).unwrap()
    }

    /// Adds the next batch.
    pub fn write(&mut self, text: &str) -> Batch {
        let batch = self.sign(&self.next_place(), &self.payload(text));
        self.batches.push(batch.clone());
        batch
    }

    /// A payload that a second, unknown recipient could open.
    pub fn payload_for_two(&self, other: &str) -> Vec<u8> {
        encrypt(b"x", [self.recipient.as_str(), other]).unwrap()
    }

    /// The next place, in another school.
    pub fn place_in(&self, school: SchoolCode) -> Place {
        Place { school, ..self.next_place() }
    }
}
