//! Vectors of couriers' bundles: a whole one of each direction, and one for each reason to stop reading.

use sonae_proto::courier::{
    CloudOpening, CourierError, Decoder, Encoder, End, FORMAT, MAGIC, Opening, Origin, Record, ReplicaOpening,
};
use sonae_proto::vector::{Heads, Sequences};
use sonae_proto::wire::KeyDocuments;

use super::file::Vector;
use super::make::{Made, Named};

/// Reads a bundle; the class of the failure, and how many records came before it.
pub fn read(bytes: &[u8]) -> (usize, Result<(), String>) {
    let class = |error: &CourierError| match error {
        CourierError::Magic => "magic".to_owned(),
        CourierError::Format { .. } => "format".to_owned(),
        CourierError::Damaged { offset } => format!("damaged {offset}"),
        CourierError::Cut { offset } => format!("cut {offset}"),
        CourierError::Order { offset } => format!("order {offset}"),
        CourierError::Count { .. } => "count".to_owned(),
    };
    let (mut decoder, mut records) = (Decoder::default(), 0);
    decoder.feed(bytes);
    loop {
        match decoder.poll() {
            Ok(Some(_)) => records += 1,
            Ok(None) => return (records, decoder.finish().map(|_| ()).map_err(|error| class(&error))),
            Err(error) => return (records, Err(class(&error))),
        }
    }
}

impl Made {
    fn opening(&self, from: Origin) -> Opening {
        Opening {
            format: FORMAT.to_owned(),
            school: self.school,
            made_ms: 1_775_000_004_000,
            software: "sonae-edge 0.1.0".into(),
            from,
        }
    }

    pub fn couriers(&self) -> Vec<Named> {
        let heads = Heads::from([(self.log, self.batch.header().head())]);
        let from = Origin::Replica(Box::new(ReplicaOpening {
            identity: self.identity.clone(),
            loss_counter: 2,
            receipted: heads.clone(),
            have: Sequences::from([(self.log, 6)]),
            manifest_version: 7,
        }));
        let opening = self.opening(from);
        let keys = KeyDocuments {
            school: self.school,
            manifest: self.manifest.text().to_owned(),
            wrapped_keys: vec![],
        };
        let write = |opening: &Opening, records: &[Record], end: Option<End>| {
            let (mut encoder, mut bytes) = Encoder::start(opening).unwrap();
            for record in records {
                bytes.extend(encoder.record(record).unwrap());
            }
            bytes.extend(match end {
                Some(end) => encoder.record(&Record::End(end)).unwrap(),
                None => encoder.finish().0,
            });
            bytes
        };
        let records = [
            Record::Keys(Box::new(keys)),
            Record::Identity(Box::new(self.identity.clone())),
            Record::Batch(self.batch.bytes().to_vec()),
            Record::Batch(self.second.bytes().to_vec()),
        ];
        let good = write(&opening, &records, None);
        let to = self.log.incarnation;
        let cloud = Origin::Cloud(CloudOpening { to, heads, complete: true });
        let receipt = [Record::Receipt(self.receipt.sign(&self.node)), Record::Unknown(200)];
        let answer = write(&self.opening(cloud), &receipt, None);
        let start = Encoder::start(&opening).unwrap().1.len();
        let mut flipped = good.clone();
        flipped[start + 20] ^= 1;
        let mut large = good[..start].to_vec();
        large.extend([1, 0, 0x20, 0, 1]);
        let headless = [MAGIC.as_slice(), &good[start..]].concat();
        let behind = [good.as_slice(), b"\x01"].concat();
        let lacking = write(&opening, &records[..2], Some(End { records: 5, batches: 2 }));
        let later = Opening { format: "sonae/courier/v2".into(), ..opening };
        let vector = |expect: &str, comment: &str, bytes: &[u8]| {
            let records = read(bytes).0;
            Vector::new("courier", expect, comment).field("records", records).bytes("body", bytes)
        };
        let end = good.len() - usize::try_from(read_offset(&good[..good.len() - 1])).unwrap();
        let cut = good.len() - end - 100;
        let whole = read_offset(&good[..cut]);
        [
            ("courier-good", vector("ok", "opening, keys, identity, two batches, end", &good)),
            ("courier-answer", vector("ok", "opening of the cloud, receipt, a later kind, end", &answer)),
            ("courier-cut", vector(&format!("cut {whole}"), "cut in the last batch", &good[..cut])),
            ("courier-flipped", vector(&format!("damaged {start}"), "a bit of the key documents", &flipped)),
            ("courier-oversized", vector(&format!("damaged {start}"), "a length of 2 MiB and one", &large)),
            ("courier-headless", vector("order 4", "no opening", &headless)),
            ("courier-behind", vector(&format!("order {}", good.len()), "a byte behind the end", &behind)),
            ("courier-lacking", vector("count", "two records less than the end names", &lacking)),
            ("courier-format", vector("format", "a later version", &write(&later, &[], None))),
            ("courier-magic", vector("magic", "another file", b"PK\x03\x04 is a zip")),
        ]
        .map(|(name, vector)| (name.to_owned(), vector))
        .to_vec()
    }
}

/// Where the whole part of a cut bundle ends.
fn read_offset(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    while decoder.poll().unwrap().is_some() {}
    match decoder.finish() {
        Err(CourierError::Cut { offset }) => offset,
        other => panic!("not cut: {other:?}"),
    }
}
