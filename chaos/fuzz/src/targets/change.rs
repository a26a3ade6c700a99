//! Change lines.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use sonae_proto::change::{Change, ChangeError, FieldWrite};
use sonae_proto::ids::Incarnation;
use sonae_proto::limits::{CHANGE_BYTES_MAX, CHANGE_FIELDS_MAX, NAME_CHARS_MAX, RECORD_ID_CHARS_MAX};

use crate::random::Random;
use crate::{Broken, Planted, Seed, Target, Verdict, hold, json, measure};

/// The target.
pub struct ChangeTarget;

const LOG: Incarnation = Incarnation::from_bytes([1; 16]);

/// Bytes held for each byte of a line: a list in a list takes two bytes of text and room for four values of 72.
const MEMORY_PER_BYTE: usize = 240;

const WORDS: [&str; 10] = [
    "t",
    "c",
    "f",
    "b",
    "o",
    "w",
    "s",
    "01010101010101010101010101010101:18446744073709551615",
    "02020202020202020202020202020202:7",
    "student",
];

fn class(error: &ChangeError) -> Verdict {
    match error {
        ChangeError::TooLong { .. } => "too long".into(),
        ChangeError::NotJson(_) => "not JSON".into(),
        ChangeError::Key { key, expected } => format!("key {key}: {expected}"),
    }
}

fn decode(line: &[u8], planted: Planted) -> Result<Change, ChangeError> {
    if planted.is("trailing")
        && let Some(Ok(first)) =
            serde_json::Deserializer::from_slice(line).into_iter::<Map<String, Value>>().next()
        && let Ok(first) = serde_json::to_vec(&first)
    {
        return Change::from_line(&first, LOG);
    }
    let change = Change::from_line(line, LOG);
    match change {
        Err(ChangeError::Key { expected: "1 to 256 fields", .. }) if planted.is("fields-limit") => {
            without_one_field(line)
        }
        Err(ChangeError::Key { key: "r", .. }) if planted.is("control") => with_control(line),
        Ok(mut change) => {
            if planted.is("drops-unknown") {
                change.rest = Map::new();
            }
            let mut bases = change.fields.values().flat_map(|write| &write.bases);
            let deep = planted.is("deep-panic") && bases.any(|base| base.sequence == u64::MAX);
            assert!(!deep, "planted");
            Ok(change)
        }
        Err(error) => Err(error),
    }
}

/// Accepts one field more than the limit.
fn without_one_field(line: &[u8]) -> Result<Change, ChangeError> {
    let mut map: Map<String, Value> = serde_json::from_slice(line).map_err(ChangeError::NotJson)?;
    let fields = map.get_mut("f").and_then(Value::as_object_mut);
    let last = fields.and_then(|fields| {
        let name = fields.keys().next_back().cloned()?;
        fields.shift_remove_entry(&name)
    });
    let mut change = Change::from_line(&serde_json::to_vec(&map).map_err(ChangeError::NotJson)?, LOG)?;
    if let Some((name, value)) = last {
        change.fields.insert(name, FieldWrite { value, bases: Vec::new() });
    }
    Ok(change)
}

/// Accepts control characters in the name of a record.
fn with_control(line: &[u8]) -> Result<Change, ChangeError> {
    let mut map: Map<String, Value> = serde_json::from_slice(line).map_err(ChangeError::NotJson)?;
    let record = map.get("r").and_then(Value::as_str).unwrap_or_default().to_owned();
    map.insert("r".into(), Value::from(record.replace(char::is_control, "_")));
    let mut change = Change::from_line(&serde_json::to_vec(&map).map_err(ChangeError::NotJson)?, LOG)?;
    change.record = record;
    Ok(change)
}

fn name_fits(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.'))
}

/// The limits, written again from `docs/spec/batch.md`.
fn check_limits(line: &[u8], change: &Change) -> Result<(), Broken> {
    let record = change.record.chars().count();
    hold(line.len() < CHANGE_BYTES_MAX, || "an accepted line is within its limit".into())?;
    hold((1..=CHANGE_FIELDS_MAX).contains(&change.fields.len()), || {
        "an accepted change has 1 to 256 fields".into()
    })?;
    hold(change.fields.keys().chain([&change.collection]).all(|name| name_fits(name)), || {
        "names of an accepted change are of the alphabet".into()
    })?;
    hold((1..=RECORD_ID_CHARS_MAX).contains(&record) && !change.record.chars().any(char::is_control), || {
        "the record of an accepted change has 1 to 256 characters and none that controls".into()
    })
}

fn check(line: &[u8], change: &Change) -> Result<Verdict, Broken> {
    check_limits(line, change)?;
    let map: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|_| Broken("an accepted line is one JSON object and nothing else".into()))?;
    let mut known: BTreeSet<&str> = ["t", "c", "r", "f", "b", "w", "s", "o"].into();
    known.extend(change.rest.keys().map(String::as_str));
    hold(map.keys().all(|key| known.contains(key.as_str())), || "keys of later versions are kept".into())?;
    let again = match change.to_line(LOG) {
        // A number such as 1e9 is longer when it is written again.
        Err(ChangeError::TooLong { .. }) => return Ok("accepted, too long to be written again".into()),
        other => other.map_err(|error| Broken(format!("an accepted change can be written: {error}")))?,
    };
    let reread = Change::from_line(&again, LOG);
    hold(reread.as_ref().is_ok_and(|reread| reread == change), || {
        "a change that is written and read again is the same".into()
    })?;
    hold(reread.is_ok_and(|reread| reread.to_line(LOG).is_ok_and(|line| line == again)), || {
        "a line that was written is written the same again".into()
    })?;
    Ok("accepted".into())
}

/// Gives a field one base more, which a mutation that knows JSON only seldom puts into the right place.
fn add_base(input: &mut Vec<u8>, random: &mut Random) {
    let Ok(mut map) = serde_json::from_slice::<Map<String, Value>>(input) else { return };
    let field = map.get("f").and_then(Value::as_object).and_then(|fields| fields.keys().next().cloned());
    let bases = map.entry("b").or_insert_with(|| Value::Object(Map::new())).as_object_mut();
    let (Some(field), Some(bases)) = (field, bases) else { return };
    let base = match random.below(3) {
        0 => Value::from(*random.pick(&[0, 1, u64::MAX]).unwrap_or(&0)),
        1 => Value::from(*random.pick(&WORDS).unwrap_or(&"")),
        _ => Value::from(random.bits()),
    };
    if let Some(list) = bases.entry(field).or_insert_with(|| Value::Array(Vec::new())).as_array_mut() {
        list.push(base);
    }
    *input = serde_json::to_vec(&map).unwrap_or_default();
}

impl Target for ChangeTarget {
    fn name(&self) -> &'static str {
        "change"
    }

    fn executions(&self) -> u64 {
        5_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["trailing", "fields-limit", "control", "drops-unknown", "deep-panic"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "accepted",
            "not JSON",
            "key b: a sequence or INCARNATION:SEQUENCE",
            "key b: bases of fields that are written",
            "key f: 1 to 256 fields",
            "key o: INCARNATION:SEQUENCE",
            "key t: [milliseconds, counter]",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        let base = |text: &str| text.parse().ok();
        let mut plain = Change {
            stamp: (1_775_000_000_000, 2).into(),
            collection: "attendance".into(),
            record: "2026-04-08/p1/all".into(),
            fields: [("code".to_owned(), FieldWrite { value: "late".into(), bases: Vec::new() })].into(),
            who: Some("tanaka".into()),
            source: None,
            origin: None,
            rest: Map::new(),
        };
        let write = |change: &Change| change.to_line(LOG).unwrap_or_default();
        let first = write(&plain);
        let bases = ["01010101010101010101010101010101:7", "02020202020202020202020202020202:9"];
        let bases = bases.iter().filter_map(|text| base(text)).collect();
        let value = serde_json::json!({"score": 61.25, "list": [1, -2, null, true], "name": "見本"});
        plain.fields.insert("result".into(), FieldWrite { value, bases });
        plain.source = Some("import:kohmu".into());
        plain.origin = base("03030303030303030303030303030303:4");
        plain.rest.insert("zz".into(), Value::from("later"));
        vec![("plain", first), ("full", write(&plain))]
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        if random.once_in(16) {
            return add_base(input, random);
        }
        json::text(input, &WORDS, random);
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let memory = MEMORY_PER_BYTE * input.len().min(CHANGE_BYTES_MAX) + 64 * 1024;
        match measure::call(memory, || decode(input, planted))? {
            Ok(change) => check(input, &change),
            Err(error) => Ok(class(&error)),
        }
    }
}
