//! Vectors of snapshots: roots, the lines of parts, and the frames that carry them.

use sonae_proto::digest::Digest;
use sonae_proto::ids::{Hash32, Incarnation, Tier};
use sonae_proto::signed::public_key_hex;
use sonae_proto::snapshot::{PartName, Snapshot, SnapshotError, SnapshotRoot};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{
    FetchSnapshot, Frame, SnapshotName, SnapshotOffer, SnapshotPart, SnapshotWants, Welcome,
};

use super::file::Vector;
use super::make::{Made, Named, hex};

impl Made {
    fn root_of_snapshot(&self) -> SnapshotRoot {
        SnapshotRoot {
            school: self.school,
            tier: self.log.tier,
            author: self.log.incarnation,
            epoch: 2026,
            manifest: self.manifest.hash(),
            merge_version: 1,
            heads: Heads::from([(self.log, self.second.header().head())]),
            digest: Digest::default(),
            records: 3,
            // As it was first written; `snapshot-sha256` is as it is now.
            parts: vec![PartName { sha256: None, ..PartName::of(self.batch.payload()) }],
        }
    }

    pub fn snapshots(&self) -> Vec<Named> {
        let root = self.root_of_snapshot();
        let sign = |root| Snapshot::sign(root, &self.writer).unwrap();
        let good = sign(root.clone());
        let vector = |expect, comment, text: &str| {
            Vector::new("snapshot", expect, comment)
                .field("key", hex(&self.writer))
                .field("school", self.school)
                .text("body", text)
        };
        let named = |name: &str, vector| (name.to_owned(), vector);
        let changed = good.text().replacen("\"records\":3", "\"records\":4", 1);
        let stranger = sign(SnapshotRoot { author: Incarnation::from_bytes([9; 16]), ..root.clone() });
        let other = sign(SnapshotRoot { school: "B113200000022".parse().unwrap(), ..root.clone() });
        let named_twice = sign(SnapshotRoot { parts: vec![PartName::of(self.batch.payload())], ..root });
        let read = |comment, snapshot: &Snapshot| {
            vector("ok", comment, snapshot.text())
                .field("hash", snapshot.hash())
                .field("changes", snapshot.root().changes())
                .field("bytes", snapshot.root().bytes())
        };
        let mut all = vec![
            named("snapshot-good", read("one part, two batches", &good)),
            named("snapshot-sha256", read("its part by SHA-256 as well", &named_twice)),
            named("snapshot-changed", vector("document", "one number changed after signing", &changed)),
            named(
                "snapshot-author",
                vector("author", "by an incarnation that nobody knows", stranger.text()),
            ),
            named("snapshot-school", vector("limits", "of another school", other.text())),
        ];
        all.extend(self.frames_of(&good));
        all
    }

    fn frames_of(&self, good: &Snapshot) -> Vec<Named> {
        let root = good.hash();
        let offer = SnapshotOffer { tier: self.log.tier, root, bytes: good.root().bytes(), changes: 6 };
        let welcome = Welcome { snapshots: Some(vec![offer]), ..self.welcome() };
        let sealed = self.batch.payload().to_vec();
        let part = SnapshotPart { root, number: 0, sealed };
        [
            ("welcome-snapshots", Frame::Welcome(Box::new(welcome))),
            ("snapshot", Frame::Snapshot(good.text().to_owned())),
            ("snapshot-part", Frame::SnapshotPart(Box::new(part))),
            ("snapshot-wants", Frame::SnapshotWants(SnapshotWants { root, parts: vec![0] })),
            (
                "fetch-snapshot",
                Frame::FetchSnapshot(FetchSnapshot {
                    name: SnapshotName::Root(Hash32([6; 32])),
                    has: vec![1, 2],
                }),
            ),
            (
                "fetch-snapshot-tier",
                Frame::FetchSnapshot(FetchSnapshot { name: SnapshotName::Tier(Tier::Safety), has: vec![] }),
            ),
        ]
        .into_iter()
        .map(|(name, frame)| {
            let vector = Vector::new("frame", "ok", "a frame of snapshots");
            (format!("frame-{name}"), vector.bytes("body", &frame.to_bytes().unwrap()))
        })
        .collect()
    }
}

pub fn read(vector: &Vector) -> Result<(), String> {
    let key = public_key_hex::parse(vector.get("key")).unwrap();
    let author = Incarnation::of_key(key.as_bytes());
    let key_of = |name| (name == author).then_some(key);
    let school = vector.get("school").parse().unwrap();
    let snapshot =
        Snapshot::verify(&vector.section_text("body"), school, key_of).map_err(|error| match error {
            SnapshotError::Document(_) => "document".to_owned(),
            SnapshotError::Author { .. } => "author".to_owned(),
            SnapshotError::Limits => "limits".to_owned(),
        })?;
    assert_eq!(snapshot.hash().to_string(), vector.get("hash"));
    assert_eq!(snapshot.root().changes().to_string(), vector.get("changes"));
    assert_eq!(snapshot.root().bytes().to_string(), vector.get("bytes"));
    Ok(())
}
