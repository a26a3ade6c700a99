//! A school whose first year can be opened by nobody any more: its keys are destroyed, and what still stands of it lies in
//! snapshots under the keys of the second. With everything that makes merging hard: disputes, replacements that came
//! before what they replaced, changes that were issued again, an erased pupil, and two boxes none of which has seen all.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sonae_proto::destruction::{Destroyed, DestroyedKey};
use sonae_proto::digest::{DigestKey, MERGE_VERSION};
use sonae_proto::erasure::{Place, tombstone};
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::manifest::{KeyUse, Manifest};
use sonae_proto::object::{RecordKind, append, records};
use sonae_proto::record::RecordState;
use sonae_proto::snapshot::{PartName, Record, Snapshot, SnapshotRoot, Sum, seal_part};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::view::{Fold, MemoryRecords, REISSUED};

use crate::scene::Scene;

/// What the board has destroyed.
pub const DESTROYED: [(KeyUse, u32); 2] =
    [(KeyUse::Tier(Tier::Safety), 2026), (KeyUse::Tier(Tier::Daily), 2026)];

/// The object with the documents, those with batches, and then one for each snapshot: its parts and its root.
pub const SNAPSHOTS_FROM: usize = 2;

/// Records of a part, few, so that there are several parts.
const PART_RECORDS: usize = 2;

pub struct Made {
    pub snapshot: Snapshot,
    pub parts: Vec<Vec<u8>>,
}

pub struct Year {
    pub scene: Scene,
    /// All lines, as their writers wrote them.
    lines: Vec<(LogName, u64, String)>,
    pub snapshots: Vec<Made>,
    /// Whether roots name parts by SHA-256 too.
    sha256: bool,
}

fn digest_key() -> DigestKey {
    DigestKey::from_secret("of a test")
}

/// A line of a change; the bases are of its only field.
fn line(at: u64, collection: &str, record: &str, field: &str, value: &Value, bases: &[Value]) -> String {
    let mut line = json!({"t": [1_775_000_000_000_u64 + at, 0], "c": collection, "r": record, "f": {field: value}, "w": "tanaka"});
    if !bases.is_empty() {
        line["b"] = json!({field: bases});
    }
    line.to_string()
}

/// The same under the name of another change.
pub fn again(line: &str, name: &str) -> String {
    let mut line: Value = serde_json::from_str(line).unwrap();
    line["o"] = name.into();
    line.to_string()
}

impl Year {
    /// Everything but the last snapshot of tier 1, that of the box which has seen less.
    pub fn without_the_second_box() -> Self {
        let mut year = Self::written(true);
        year.snapshots.pop();
        year.put();
        year
    }

    pub fn new() -> Self {
        Self::of(true)
    }

    /// With roots as they are, or as they were before they named parts by SHA-256.
    pub fn of(sha256: bool) -> Self {
        let mut year = Self::written(sha256);
        year.put();
        year
    }

    /// Nothing yet.
    pub fn empty() -> Self {
        Self::nothing(true)
    }

    fn written(sha256: bool) -> Self {
        let mut year = Self::nothing(sha256);
        year.safety();
        year.daily();
        year
    }

    fn nothing(sha256: bool) -> Self {
        let tiers = [Tier::Safety, Tier::Daily].map(KeyUse::Tier);
        let uses = tiers.into_iter().flat_map(|tier| [(tier, 2026), (tier, 2027)]);
        let scene = Scene::bare(&[(KeyUse::Digest, 0)].into_iter().chain(uses).collect::<Vec<_>>());
        Self { scene, lines: Vec::new(), snapshots: Vec::new(), sha256 }
    }

    fn safety(&mut self) {
        let [a, b] = [0, 1].map(|life: usize| self.scene.lives[life].name);
        let name = |life, number: u64| json!(format!("{life}:{number}"));
        let stone = tombstone(&digest_key(), "student", Place::Part(0), "p9");
        let carried_name = format!("{}:1", "0f".repeat(16));
        let carried = line(5, "student", "p2", "family_name", &json!("架空"), &[]);
        let carried = again(&carried, &carried_name);
        self.write(
            0,
            Tier::Safety,
            2026,
            &[
                line(1, "student", "p1", "family_name", &json!("見本"), &[]),
                line(2, "student", "p1", "given_name", &json!("花子"), &[]),
                line(3, "guardian_contact", "p1/1", "phone", &json!("03-0000-0000"), &[]),
                line(4, "student", "p9", "family_name", &json!("消去"), &[]),
            ],
        );
        self.write(
            1,
            Tier::Safety,
            2026,
            &[
                line(6, "student", "p1", "given_name", &json!("はな"), &[name(a, 2)]),
                again(
                    &line(3, "guardian_contact", "p1/1", "phone", &json!("03-0000-0000"), &[]),
                    &format!("{a}:3"),
                ),
                carried.clone(),
            ],
        );
        self.write(
            0,
            Tier::Safety,
            2026,
            &[
                line(7, "student", "p1", "given_name", &json!("華子"), &[json!(2)]),
                line(8, "student", "p2", "family_name", &json!("架空二"), &[json!(carried_name)]),
                // What it replaces is not there yet when the snapshot is made.
                line(8, "student", "p1", "note", &json!("新しい"), &[name(b, 4)]),
                line(9, "erased.safety", &stone, "at", &json!(1_775_000_000_009_u64), &[]),
            ],
        );
        // Seen by the snapshot although it can be opened: it must not come back.
        self.write(0, Tier::Safety, 2027, &[line(10, "student", "p1", "seat", &json!(1), &[])]);
        self.write(0, Tier::Safety, 2027, &[line(11, "student", "p1", "seat", &json!(2), &[json!(9)])]);
        let early = self.made(0, Tier::Safety, 2027, [8, 3]);
        let made = self.made(0, Tier::Safety, 2027, [10, 3]);
        self.snapshots.extend([early, made]);
        self.write(
            1,
            Tier::Safety,
            2027,
            &[
                line(12, "student", "p1", "note", &json!("古い"), &[]),
                // It has not seen the second name.
                line(13, "student", "p1", "seat", &json!(3), &[name(a, 9)]),
            ],
        );
        self.write(
            0,
            Tier::Safety,
            2027,
            &[
                // Of what stands in the snapshot only.
                line(14, "guardian_contact", "p1/1", "phone", &json!("03-0000-0001"), &[json!(3)]),
                // Carried over by another box too, and replaced by then.
                carried,
                again(&line(2, "student", "p1", "given_name", &json!("花子"), &[]), &format!("{a}:2")),
                line(15, "student", "p3", "family_name", &json!("後日"), &[]),
            ],
        );
    }

    fn daily(&mut self) {
        let stone = tombstone(&digest_key(), "attendance", Place::Part(1), "p9");
        let day = |n: u64, pupil: &str, code: &str, bases: &[Value]| {
            line(20 + n, "attendance", &format!("2026-04-{n:02}/{pupil}/day"), "code", &json!(code), bases)
        };
        let a = self.scene.lives[0].name;
        self.write(0, Tier::Daily, 2026, &[day(8, "p1", "late", &[]), day(9, "p1", "present", &[])]);
        self.write(1, Tier::Daily, 2026, &[day(10, "p1", "present", &[]), day(11, "p1", "late", &[])]);
        self.write(0, Tier::Daily, 2026, &[day(8, "p1", "present", &[json!(1)])]);
        // The erased pupil's day can be opened, and must not come back.
        self.write(
            0,
            Tier::Daily,
            2027,
            &[
                day(12, "p9", "late", &[]),
                day(13, "p1", "late", &[]),
                line(35, "erased.daily", &stone, "at", &json!(1_775_000_000_035_u64), &[]),
            ],
        );
        // Neither box has seen all of the other, and this is sealed to the destroyed key as well.
        self.write(1, Tier::Daily, 2026, &[day(9, "p1", "absent_sick", &[json!(format!("{a}:2"))])]);
        let first = self.made(0, Tier::Daily, 2027, [6, 2]);
        let second = self.made(1, Tier::Daily, 2027, [2, 3]);
        self.snapshots.extend([first, second]);
        self.write(1, Tier::Daily, 2027, &[day(14, "p1", "late", &[]), day(10, "p1", "late", &[json!(1)])]);
    }

    fn log(&self, life: usize, tier: Tier) -> LogName {
        LogName { tier, incarnation: self.scene.lives[life].name }
    }

    /// Writes a batch.
    pub fn write(&mut self, life: usize, tier: Tier, epoch: u32, lines: &[String]) {
        let log = self.log(life, tier);
        let of_log = self.scene.batches.iter().rfind(|batch| batch.header().log == log);
        let after = of_log.map_or(LogHead::EMPTY, |batch| batch.header().head());
        self.scene.batches.push(self.scene.seal(life, tier, epoch, after, &(lines.join("\n") + "\n")));
        let numbered = lines.iter().zip(after.sequence + 1..);
        self.lines.extend(numbered.map(|(line, sequence)| (log, sequence, line.clone())));
    }

    /// The last sequences of the batches of a log.
    pub fn ends(&self, life: usize, tier: Tier) -> Vec<u64> {
        let log = self.log(life, tier);
        let of_log = self.scene.batches.iter().filter(|batch| batch.header().log == log);
        of_log.map(|batch| batch.header().last).collect()
    }

    /// The names of the changes whose values stand in a field for a writer who has seen these lines (life, place from 0, line).
    pub fn heads_of(
        &self,
        tier: Tier,
        lines: &[(usize, usize, String)],
        (collection, record): (&str, &str),
        field: &str,
    ) -> Vec<String> {
        let (mut fold, mut records) = (Fold::new(digest_key()), MemoryRecords::default());
        for (life, place, line) in lines {
            let sequence = u64::try_from(*place).unwrap() + 1;
            fold.apply(&mut records, self.log(*life, tier), sequence, line.as_bytes()).unwrap();
        }
        let state =
            records.records.remove(&(tier, collection.to_owned(), record.to_owned())).unwrap_or_default();
        let field = state.fields.get(field).map(|field| field.bases()).unwrap_or_default();
        field.iter().map(ToString::to_string).collect()
    }

    /// What lines add up to.
    fn fold(&self, is_meant: impl Fn(LogName, u64) -> bool) -> MemoryRecords {
        let (mut fold, mut records) = (Fold::new(digest_key()), MemoryRecords::default());
        for (log, sequence, line) in self.lines.iter().filter(|(log, sequence, _)| is_meant(*log, *sequence))
        {
            fold.apply(&mut records, *log, *sequence, line.as_bytes()).unwrap();
        }
        records
    }

    /// A snapshot of a tier by one life, at these sequences of both lives' logs.
    pub fn made(&self, author: usize, tier: Tier, epoch: u32, sequences: [u64; 2]) -> Made {
        let head = |life: usize| {
            let log = self.log(life, tier);
            let mut heads =
                self.scene.batches.iter().map(|batch| (batch.header().log, batch.header().head()));
            heads.find(|(of, head)| *of == log && head.sequence == sequences[life]).unwrap()
        };
        let heads = Heads::from([head(0), head(1)]);
        let state = self.fold(|log, sequence| heads.get(&log).is_some_and(|head| sequence <= head.sequence));
        let records = state.records.into_iter().map(|((_, collection, record), state)| Record {
            collection,
            record,
            state,
        });
        let mut records: Vec<Record> = records.collect();
        records.sort_by_key(|record| format!("{}\0{}", record.collection, record.record));
        let mut sum = Sum::new(digest_key());
        records.iter().for_each(|record| sum.add(record));
        let to = self.scene.recipient(tier, epoch);
        let seal = |records: &[Record]| {
            let lines: Vec<u8> = records.iter().flat_map(|record| record.to_line().unwrap()).collect();
            seal_part(&lines, &to).unwrap()
        };
        let parts: Vec<Vec<u8>> = records.chunks(PART_RECORDS).map(seal).collect();
        let name = |part: &Vec<u8>| {
            let name = PartName::of(part);
            PartName { sha256: name.sha256.filter(|_| self.sha256), ..name }
        };
        let root = SnapshotRoot {
            school: self.scene.documents.school,
            tier,
            author: self.scene.lives[author].name,
            epoch,
            manifest: self.scene.keys.hash(),
            merge_version: MERGE_VERSION,
            heads,
            digest: sum.digest(),
            records: u64::try_from(records.len()).unwrap(),
            parts: parts.iter().map(name).collect(),
        };
        Made { snapshot: Snapshot::sign(root, &self.scene.lives[author].key).unwrap(), parts }
    }

    /// Puts everything into objects.
    pub fn put(&mut self) {
        let identity = |life: usize| serde_json::to_vec(&self.scene.lives[life].text).unwrap();
        let keys = serde_json::to_vec(&self.scene.documents).unwrap();
        let documents = vec![
            (RecordKind::Keys, keys),
            (RecordKind::Identity, identity(0)),
            (RecordKind::Identity, identity(1)),
        ];
        let batches =
            self.scene.batches.iter().map(|batch| (RecordKind::Batch, batch.bytes().to_vec())).collect();
        let snapshots = self.snapshots.iter().map(|made| {
            let parts = made.parts.iter().map(|part| (RecordKind::SnapshotPart, part.clone()));
            parts.chain([(RecordKind::Snapshot, made.snapshot.text().as_bytes().to_vec())]).collect()
        });
        let objects: Vec<Vec<(RecordKind, Vec<u8>)>> =
            [documents, batches].into_iter().chain(snapshots).collect();
        let object = |records: &Vec<(RecordKind, Vec<u8>)>| {
            let mut object = Vec::new();
            for (kind, body) in records {
                append(&mut object, *kind, body);
            }
            object
        };
        self.scene.objects = objects.iter().map(object).collect();
    }

    /// Writes the objects to a directory as a site, and the board's order that destroys the keys of the first year.
    pub fn fill(&self, site: &Path) {
        self.scene.fill(site);
        self.scene.destroy(site, &DESTROYED);
    }

    /// Removes what is wrapped of the destroyed keys from a site, as a node does in the end.
    pub fn scrub(&self, site: &Path) {
        self.strip(site, &DESTROYED);
    }

    /// Removes wrapped keys from a site.
    pub fn strip(&self, site: &Path, keys: &[(KeyUse, u32)]) {
        let of = |(key_use, epoch): &(KeyUse, u32)| DestroyedKey {
            key_use: *key_use,
            epoch: *epoch,
            destroyed_ms: 1,
        };
        let destroyed = keys.iter().map(of).collect();
        let manifest = Manifest { destroyed, ..self.scene.keys.body().clone() };
        let destroyed = Destroyed::of(&manifest);
        for entry in fs::read_dir(Scene::object(site, 0).parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            let (before, mut after) = (fs::read(&path).unwrap(), Vec::new());
            for record in records(&before).0 {
                let stripped = destroyed.strip_json(record.body);
                append(&mut after, record.kind.unwrap(), stripped.as_deref().unwrap_or(record.body));
            }
            fs::write(&path, after).unwrap();
        }
    }

    /// Replaces the object of a snapshot at a site, without some of its parts.
    pub fn drop_parts(&self, site: &Path, snapshot: usize, numbers: &[usize]) {
        let made = &self.snapshots[snapshot];
        let mut object = Vec::new();
        for (_, part) in made.parts.iter().enumerate().filter(|(number, _)| !numbers.contains(number)) {
            append(&mut object, RecordKind::SnapshotPart, part);
        }
        append(&mut object, RecordKind::Snapshot, made.snapshot.text().as_bytes());
        fs::write(Scene::object(site, SNAPSHOTS_FROM + snapshot), object).unwrap();
    }

    /// What the product makes of all lines, as the page writes it.
    pub fn records(&self) -> BTreeMap<(String, String), Value> {
        let all = self.fold(|_, _| true).records;
        let shown = all.into_iter().filter(|((_, collection, _), _)| collection != REISSUED);
        shown.map(|((_, collection, record), state)| ((collection, record), as_by_hand(&state))).collect()
    }
}

/// The fields of a record as the page writes them: all heads, the latest first.
fn as_by_hand(state: &RecordState) -> Value {
    let fields = state.fields.iter().filter(|(_, field)| !field.heads.is_empty()).map(|(name, field)| {
        let mut heads: Vec<_> = field.heads.iter().collect();
        heads.sort_by_key(|head| (head.stamp, head.id));
        let values: Vec<&Value> = heads.into_iter().rev().map(|head| &head.value).collect();
        let value = if let [value] = values[..] { value.clone() } else { json!({"disputed": values}) };
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}
