//! Vectors of objects of the cloud, written and merged.

use data_encoding::HEXLOWER;
use sonae_proto::object::{self, RecordKind};

use super::file::Vector;
use super::make::{Made, Named, named};

impl Made {
    pub fn objects(&self) -> Vec<Named> {
        let mut bytes = Vec::new();
        object::append(&mut bytes, RecordKind::Batch, self.batch.bytes());
        let identity = serde_json::to_vec(&self.identity).unwrap();
        object::append(&mut bytes, RecordKind::Identity, &identity);
        object::append(&mut bytes, RecordKind::Batch, self.second.bytes());
        let vector = |expect: &str, records: usize, comment, bytes: &[u8]| {
            Vector::new("object", expect, comment).field("records", records).bytes("body", bytes)
        };
        let second = 4 + object::RECORD_OVERHEAD_BYTES + self.batch.bytes().len();
        let mut flipped = bytes.clone();
        flipped[second + 10] ^= 1;
        let mut magic = bytes.clone();
        magic[0] ^= 1;
        let cut = &bytes[..bytes.len() - 1];
        let third = second + object::RECORD_OVERHEAD_BYTES + identity.len();
        vec![
            named("object-good", vector("ok", 3, "batch, identity, batch", &bytes)),
            named(
                "object-flipped",
                vector(&format!("damage {second}"), 1, "a bit of the identity", &flipped),
            ),
            named("object-cut", vector(&format!("damage {third}"), 2, "the last byte is missing", cut)),
            named("object-magic", vector("damage 0", 0, "another file", &magic)),
        ]
    }

    pub fn merged(&self) -> Vec<Named> {
        let inputs =
            ["objects/01KH0000000000000000000000/00000000", "objects/01KH0000000000000000000000/00000001"];
        let inputs = inputs.map(str::to_owned).to_vec();
        let batches = [&self.batch, &self.second].map(|batch| (RecordKind::Batch.number(), batch.bytes()));
        let merge = |sections| object::merge(inputs.clone(), sections, batches);
        let (hash, good) = merge(vec![(0, 1), (1, 1)]);
        let mut altered = good.clone();
        // The last byte is one of a check: of the name it says nothing, of the content it does.
        *altered.last_mut().unwrap() ^= 1;
        let vector = |expect, hash: &[u8], comment, bytes: &[u8]| {
            Vector::new("merged", expect, comment).field("name", HEXLOWER.encode(hash)).bytes("body", bytes)
        };
        let (counted, too_many) = merge(vec![(0, 1), (1, 2)]);
        let (nowhere, no_input) = merge(vec![(0, 1), (2, 1)]);
        vec![
            named("merged-good", vector("ok", &hash.0, "two objects of a batch each", &good)),
            named("merged-name", vector("name", &[7; 32], "it lies under another name", &good)),
            named("merged-altered", vector("content", &hash.0, "a bit behind the first record", &altered)),
            named("merged-count", vector("content", &counted.0, "sections that count too much", &too_many)),
            named("merged-section", vector("inputs", &nowhere.0, "a section of no input", &no_input)),
        ]
    }
}
