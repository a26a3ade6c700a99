//! Snapshots: the lines of an opened part, and the root.
//!
//! Layers: 0 the lines of a part; 1 the text of a root as it is; 2 its line, which the harness signs.

use ed25519_dalek::Signer;
use serde_json::{Map, Value};
use sonae_proto::clock::Stamp;
use sonae_proto::digest::{Digest, MERGE_VERSION};
use sonae_proto::ids::{ChangeId, Hash32, Tier};
use sonae_proto::limits::{
    BATCH_BYTES_MAX, NAME_CHARS_MAX, RECORD_ID_CHARS_MAX, SNAPSHOT_HEADS_MAX, SNAPSHOT_PARTS_MAX,
};
use sonae_proto::record::{FieldState, Head, Mirrored, RecordState};
use sonae_proto::snapshot::{
    PartName, Record, RecordError, Snapshot, SnapshotError, SnapshotRoot, read_part,
};
use sonae_proto::vector::{Heads, LogHead};

use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure,
};

/// The target.
pub struct SnapshotTarget;

const LAYERS: u8 = 3;

/// Bytes held for each byte of an input: a head names its change, its stamp and who wrote it.
const MEMORY_PER_BYTE: usize = 160;

const WORDS: [&str; 8] = [
    "a\u{0}b",
    "~reissued",
    "01010101010101010101010101010101:7",
    "sonae/snapshot/v1",
    "B113200000022",
    "f",
    "x",
    "m",
];

fn record_class(error: &RecordError) -> Verdict {
    match error {
        RecordError::Line(_) => "line",
        RecordError::TooLong { .. } => "too long",
        RecordError::Reference => "reference",
        RecordError::Name => "name",
        RecordError::Seal(_) => "seal",
    }
    .into()
}

fn decode_part(lines: &[u8], planted: Planted) -> Result<Vec<Record>, RecordError> {
    match read_part(lines) {
        Err(RecordError::Reference) if planted.is("reference") => Ok(Vec::new()),
        Err(RecordError::Name) if planted.is("name") => Ok(Vec::new()),
        Ok(records) if planted.is("first-only") => Ok(records.into_iter().take(1).collect()),
        other => other,
    }
}

/// A line as the spec has it; keys of later versions are passed over, however deep.
#[derive(serde::Deserialize)]
struct Shape {
    c: String,
    r: String,
    b: Vec<Value>,
    f: Map<String, Value>,
    #[serde(default)]
    x: Map<String, Value>,
    #[serde(default)]
    m: Map<String, Value>,
}

/// The rules about a line, written again from `docs/spec/snapshot.md#parts`.
fn line_allowed(line: &[u8]) -> bool {
    let Ok(Shape { c, r, b, f, x, m }) = serde_json::from_slice::<Shape>(line) else { return false };
    let names_change = |head: &Value| {
        let place = head.get(0).and_then(Value::as_u64).and_then(|place| usize::try_from(place).ok());
        place.is_some_and(|place| place < b.len())
    };
    let mut heads = f.values().flat_map(|heads| heads.as_array().into_iter().flatten());
    heads.all(names_change)
        && x.keys().chain(m.keys()).all(|name| f.contains_key(name))
        && c.len() <= NAME_CHARS_MAX
        && !c.contains('\0')
        && r.chars().count() <= RECORD_ID_CHARS_MAX
}

fn judge_part(body: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let memory = MEMORY_PER_BYTE * body.len() + 64 * 1024;
    let records = match measure::call(memory, || decode_part(body, planted))? {
        Ok(records) => records,
        Err(error) => return Ok(record_class(&error)),
    };
    let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    hold(lines.len() == records.len(), || "each line of an accepted part is a record".into())?;
    hold(lines.into_iter().all(line_allowed), || {
        "an accepted line refers to changes and fields that it names, within its limits".into()
    })?;
    let written: Result<Vec<Vec<u8>>, _> = records.iter().map(Record::to_line).collect();
    let again = match written {
        // A number such as 1e9 is longer when it is written again.
        Err(RecordError::TooLong { .. }) => return Ok("accepted, too long to be written again".into()),
        other => {
            other.map_err(|error| Broken(format!("an accepted record can be written: {error}")))?.concat()
        }
    };
    let reread = read_part(&again);
    hold(reread.is_ok_and(|reread| reread == records), || {
        "a record that is written and read again is the same".into()
    })?;
    Ok("accepted part".into())
}

fn root_allowed(text: &str) -> bool {
    let line = text.split('\n').next().unwrap_or_default();
    let Ok(map) = serde_json::from_str::<Map<String, Value>>(line) else { return false };
    let list = |key: &str| map.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(heads) = map.get("heads").and_then(Value::as_object) else { return false };
    let tier = map.get("tier").and_then(Value::as_str).unwrap_or("none");
    let of_tier = |log: &String| log.ends_with(&format!("/{tier}"));
    let ends =
        |head: &Value| head.get("sequence").and_then(Value::as_u64).is_some_and(|sequence| sequence > 0);
    let fits = |part: &Value| {
        let bytes = part.get("bytes").and_then(Value::as_u64);
        bytes.is_some_and(|bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes <= BATCH_BYTES_MAX))
    };
    (1..=SNAPSHOT_HEADS_MAX).contains(&heads.len())
        && heads.keys().all(of_tier)
        && heads.values().all(ends)
        && list("parts").len() <= SNAPSHOT_PARTS_MAX
        && list("parts").iter().all(fits)
        && list("parts").is_empty() == (map.get("records").and_then(Value::as_u64) == Some(0))
        && map.get("school").and_then(Value::as_str) == Some("B113200000011")
}

fn judge_root(text: &str, planted: Planted) -> Result<Verdict, Broken> {
    let (school, writer) = (keys::school()?, keys::writer().verifying_key());
    let key_of = |author| (author == keys::incarnation()).then_some(writer);
    let memory = MEMORY_PER_BYTE * text.len() + 128 * 1024;
    let outcome = measure::call(memory, || match Snapshot::verify(text, school, key_of) {
        Err(SnapshotError::Limits) if planted.is("limits") => Ok(None),
        Err(SnapshotError::Author { .. }) if planted.is("author") => Ok(None),
        other => other.map(Some),
    })?;
    let snapshot = match outcome {
        Ok(snapshot) => snapshot,
        Err(SnapshotError::Document(_)) => return Ok("root: document".into()),
        Err(SnapshotError::Author { .. }) => return Ok("root: author".into()),
        Err(SnapshotError::Limits) => return Ok("root: limits".into()),
    };
    hold(root_allowed(text), || "an accepted root is of this school and within its limits".into())?;
    let is_by_writer =
        snapshot.as_ref().is_some_and(|snapshot| snapshot.root().author == keys::incarnation());
    hold(is_by_writer, || "an accepted root is by an incarnation of the school".into())?;
    let again = snapshot.map(|snapshot| (snapshot.root().clone(), snapshot.hash()));
    let Some((root, hash)) = again else { return Ok("accepted root".into()) };
    hold(hash.0 == *blake3::hash(text.as_bytes()).as_bytes(), || "a root is named by its text".into())?;
    hold(Snapshot::peek(text).is_some_and(|peeked| peeked == root), || {
        "what is only looked at is what is verified".into()
    })?;
    let signed = Snapshot::sign(root.clone(), &keys::writer());
    hold(signed.is_ok_and(|signed| *signed.root() == root), || {
        "a root that is signed again is the same".into()
    })?;
    Ok("accepted root".into())
}

fn signed(line: &str) -> String {
    let signature = keys::writer().sign(line.as_bytes()).to_bytes();
    format!("{line}\n{}\n", data_encoding::BASE64.encode(&signature))
}

fn id(byte: char, sequence: u64) -> Option<ChangeId> {
    format!("{}:{sequence}", byte.to_string().repeat(32)).parse().ok()
}

fn records() -> Option<Vec<Record>> {
    let head = |byte, sequence, value: &str, source: Option<&str>| {
        Some(Head {
            id: id(byte, sequence)?,
            stamp: Stamp::from((1_775_000_000_000, 2)),
            value: value.into(),
            who: Some("tanaka".into()),
            source: source.map(ToOwned::to_owned),
        })
    };
    let mut plain = RecordState::default();
    let heads = vec![head('1', 7, "late", None)?];
    plain.fields.insert("code".into(), FieldState { heads, ..FieldState::default() });
    let mut full = RecordState::default();
    let heads = vec![head('1', 7, "見本", Some("kohmu"))?, head('2', 9, "例", None)?];
    let said = Mirrored { id: id('3', 1)?, stamp: Stamp::from((1, 0)), value: "先".into() };
    let mirrored = [("kohmu".to_owned(), said)].into();
    full.fields.insert("name".into(), FieldState { heads, replaced_early: vec![id('4', 2)?], mirrored });
    let record =
        |collection: &str, state| Record { collection: collection.into(), record: "p1".into(), state };
    Some(vec![record("attendance", plain), record("student", full)])
}

fn root(sha256: Option<Hash32>) -> Option<SnapshotRoot> {
    Some(SnapshotRoot {
        school: keys::school().ok()?,
        tier: Tier::Daily,
        author: keys::incarnation(),
        epoch: 2026,
        manifest: Hash32([5; 32]),
        merge_version: MERGE_VERSION,
        heads: Heads::from([(keys::log(Tier::Daily), LogHead { sequence: 9, hash: Hash32([6; 32]) })]),
        digest: Digest::default(),
        records: 2,
        parts: vec![PartName { bytes: 4_096, hash: Hash32([7; 32]), sha256 }],
    })
}

fn written() -> Option<Vec<Seed>> {
    let lines: Result<Vec<Vec<u8>>, _> = records()?.iter().map(Record::to_line).collect();
    let lines = lines.ok()?;
    let sign = |root| Snapshot::sign(root, &keys::writer()).ok();
    let (snapshot, twice) = (sign(root(None)?)?, sign(root(Some(Hash32([8; 32])))?)?);
    let line = |snapshot: &Snapshot| snapshot.text().split('\n').next().unwrap_or_default().to_owned();
    Some(vec![
        ("part", layer(0, &lines.concat())),
        ("record", layer(0, lines.last()?)),
        ("root-text", layer(1, snapshot.text().as_bytes())),
        ("root", layer(2, line(&snapshot).as_bytes())),
        ("root-sha256", layer(2, line(&twice).as_bytes())),
    ])
}

impl Target for SnapshotTarget {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn executions(&self) -> u64 {
        4_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["reference", "name", "first-only", "limits", "author"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "accepted part",
            "line",
            "reference",
            "name",
            "accepted root",
            "root: document",
            "root: author",
            "root: limits",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        written().unwrap_or_default()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, LAYERS, random, |_, body, random| {
            // The lines are changed each by itself, so that JSON stays JSON.
            let mut lines: Vec<Vec<u8>> = body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let at = random.below(lines.len());
            if let Some(line) = lines.get_mut(at) {
                json::text(line, &WORDS, random);
            }
            *body = lines.join(&b'\n');
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        if number % LAYERS == 0 {
            return judge_part(body, planted);
        }
        let Ok(text) = std::str::from_utf8(body) else { return Ok("not text".into()) };
        if number % LAYERS == 1 { judge_root(text, planted) } else { judge_root(&signed(text), planted) }
    }
}
