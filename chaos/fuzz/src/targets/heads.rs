//! Heads and vectors as JSON: what stands in `heads.json`, in a hello and in a welcome; and the text forms of all
//! names in them.
//!
//! Layers: 0 heads; 1 sequences; 2 one name as text.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sonae_proto::ids::{ChangeId, Hash32, Incarnation, LogName, SchoolCode, Tier};
use sonae_proto::vector::{Heads, LogHead, Sequences};

use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure, mutate,
};

/// The target.
pub struct HeadsTarget;

const WORDS: [&str; 7] = [
    "858e8c6b41b0c6a2b21b61d8ffb1bf7f/0",
    "858e8c6b41b0c6a2b21b61d8ffb1bf7f/2",
    "858e8c6b41b0c6a2b21b61d8ffb1bf7f:12",
    "sequence",
    "hash",
    "B113200000011",
    "2",
];

fn parse<T: DeserializeOwned>(text: &[u8], planted: Planted) -> Result<T, serde_json::Error> {
    if planted.is("trailing")
        && let Some(first) = serde_json::Deserializer::from_slice(text).into_iter().next()
    {
        return first;
    }
    serde_json::from_slice(text)
}

fn judge_map<T>(text: &[u8], planted: Planted) -> Result<Verdict, Broken>
where
    T: DeserializeOwned + Serialize + PartialEq,
{
    let outcome = measure::call(24 * text.len() + 16 * 1024, || parse::<T>(text, planted))?;
    let Ok(value) = outcome else { return Ok("refused".into()) };
    hold(json::is_one_value(text), || "accepted heads are one JSON value".into())?;
    let as_json = serde_json::from_slice::<serde_json::Value>(text).unwrap_or_default();
    let again = serde_json::to_value(&value).map_err(|error| Broken(error.to_string()))?;
    // Names have one form each: the keys that were read are the keys that are written.
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> =
            value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    };
    // What is nested too deep is no value to serde, although unknown fields may be.
    hold(as_json.is_null() || keys(&as_json) == keys(&again), || "names of logs have one text form".into())?;
    let reread = serde_json::from_value::<T>(again);
    hold(reread.is_ok_and(|reread| reread == value), || {
        "heads that are written and read are the same".into()
    })?;
    Ok("accepted".into())
}

fn judge_name<T: FromStr + Display + PartialEq>(text: &str, planted: Planted) -> Result<bool, Broken> {
    let outcome = measure::call(4096 + 8 * text.len(), || {
        let text = if planted.is("upper-case") { text.to_lowercase() } else { text.to_owned() };
        text.parse::<T>().ok()
    })?;
    let Some(name) = outcome else { return Ok(false) };
    hold(name.to_string() == text, || "a name that is read is written the same".into())?;
    Ok(true)
}

fn judge_names(text: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let Ok(text) = std::str::from_utf8(text) else { return Ok("not text".into()) };
    let accepted = [
        judge_name::<LogName>(text, planted)?,
        judge_name::<ChangeId>(text, planted)?,
        judge_name::<Hash32>(text, planted)?,
        judge_name::<Incarnation>(text, planted)?,
        judge_name::<Tier>(text, planted)?,
        judge_name::<SchoolCode>(text, planted)?,
    ];
    Ok(match accepted.iter().position(|accepted| *accepted) {
        Some(at) => format!("name {at}"),
        None => "no name".into(),
    })
}

impl Target for HeadsTarget {
    fn name(&self) -> &'static str {
        "heads"
    }

    fn executions(&self) -> u64 {
        10_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["trailing", "upper-case"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["accepted", "refused", "name 0", "name 1", "name 2", "name 3", "name 4", "name 5", "no name"]
    }

    fn seeds(&self) -> Vec<Seed> {
        let head = LogHead { sequence: 6, hash: Hash32([5; 32]) };
        let heads: Heads = Tier::ALL.map(|tier| (keys::log(tier), head)).into();
        let sequences: Sequences = Tier::ALL.map(|tier| (keys::log(tier), 6)).into();
        let change = ChangeId { incarnation: keys::incarnation(), sequence: 12 };
        let log = keys::log(Tier::Daily);
        let name = |text: String| layer(2, text.as_bytes());
        vec![
            ("heads", layer(0, &serde_json::to_vec(&heads).unwrap_or_default())),
            ("sequences", layer(1, &serde_json::to_vec(&sequences).unwrap_or_default())),
            ("log", name(log.to_string())),
            ("change", name(change.to_string())),
            ("hash", name(head.hash.to_string())),
            ("incarnation", name(log.incarnation.to_string())),
            ("tier", name(Tier::Archive.to_string())),
            ("school", name(keys::school().map(|school| school.to_string()).unwrap_or_default())),
        ]
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 3, random, |number, body, random| {
            if number < 2 {
                return json::text(body, &WORDS, random);
            }
            // A name is changed as the JSON text that it would be, or as bytes.
            let text = String::from_utf8_lossy(body).into_owned();
            let mut quoted = serde_json::Value::from(text).to_string().into_bytes();
            json::text(&mut quoted, &WORDS, random);
            match serde_json::from_slice::<String>(&quoted) {
                Ok(text) => *body = text.into_bytes(),
                Err(_) => mutate::bytes(body, random),
            }
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        match number % 3 {
            0 => judge_map::<Heads>(body, planted),
            1 => judge_map::<Sequences>(body, planted),
            _ => judge_names(body, planted),
        }
    }
}
