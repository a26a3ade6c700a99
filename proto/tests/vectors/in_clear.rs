//! P3: the spec lists every field that is in clear. What the vectors show of each format in clear is looked up there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

/// Kinds of vectors whose bytes the cloud, the line or a courier see. What is sealed in them is no JSON.
const IN_CLEAR: [&str; 8] =
    ["document", "identity", "proof", "frame", "object", "merged", "courier", "snapshot"];

/// Names that JSON objects in these bytes have, those in documents inside texts too. Names of logs, tiers and
/// devices are values.
fn names(bytes: &[u8], found: &mut BTreeSet<String>) {
    for at in (0..bytes.len()).filter(|at| bytes[*at] == b'{') {
        let mut objects = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Value>();
        if let Some(Ok(object @ Value::Object(_))) = objects.next() {
            names_of(&object, found);
        }
    }
}

fn names_of(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_device = name.parse::<sonae_proto::ids::ReplicaId>().is_ok();
                let is_value =
                    is_device || name.contains('/') || name.bytes().all(|byte| byte.is_ascii_digit());
                if !is_value {
                    found.insert(name.clone());
                }
                names_of(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names_of(value, found)),
        Value::String(text) => names(text.as_bytes(), found),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Goal: no field is in clear that the spec does not name. Method: all names in all vectors of formats that are in clear,
/// looked up in the pages; a name that is in none is not found.
#[test]
fn every_field_in_clear_is_in_the_spec() {
    let mut found = BTreeSet::new();
    for (_, vector) in super::read_all() {
        if vector.get("expect") == "ok" && IN_CLEAR.contains(&vector.get("kind")) {
            vector.sections.keys().for_each(|section| names(&vector.section(section), &mut found));
        }
    }
    for known in ["receipted", "held_ms", "wrapped_keys", "merge_version", "ended"] {
        assert!(found.contains(known), "the vectors do not show {known}");
    }
    let spec = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/spec");
    let pages = std::fs::read_dir(spec).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()));
    let pages: String = pages.map(Result::unwrap).collect();
    let is_named =
        |name: &str| pages.contains(&format!("`{name}`")) || pages.contains(&format!("\"{name}\""));
    assert!(!is_named("plain_text"));
    let missing: Vec<_> = found.iter().filter(|name| !is_named(name)).collect();
    assert!(missing.is_empty(), "in clear and in no page of docs/spec: {missing:?}");
}
