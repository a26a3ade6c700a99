//! Mutations of JSON that know its grammar, so that they get past the parser: values, keys, numbers, texts,
//! repetition, depth. What only shows in the text itself (doubled keys, bytes behind the end) is done there.

use serde_json::{Map, Value};

use crate::mutate::{self, INPUT_BYTES_MAX};
use crate::random::Random;

/// Texts at which decoders go wrong.
const TEXTS: [&str; 14] = [
    "",
    " ",
    "0",
    "+1",
    "007",
    "true",
    "\u{0}",
    "a\tb",
    "あ",
    "\u{feff}x",
    "A",
    "-1",
    "0x1",
    "18446744073709551616",
];

/// Changes one thing in a JSON text; what is no JSON is changed as bytes. `words` are of the format.
pub fn text(input: &mut Vec<u8>, words: &[&str], random: &mut Random) {
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else {
        return mutate::bytes(input, random);
    };
    match random.below(16) {
        0 => return mutate::bytes(input, random),
        1 => return double_key(input, random),
        2 => {
            let tail: &[u8] =
                random.pick(&[&b" "[..], b"\n", b"{}", b"x", b"\0", b","]).copied().unwrap_or(b"");
            return input.extend_from_slice(tail);
        }
        _ => {}
    }
    let nodes = count(&value);
    let mut at = random.below(nodes);
    visit(&mut value, &mut at, &mut |node| change(node, words, random));
    if let Ok(text) = serde_json::to_vec(&value)
        && text.len() <= INPUT_BYTES_MAX
    {
        *input = text;
    }
}

/// Whether a text is one JSON value and nothing else, however deep.
#[must_use]
pub fn is_one_value(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn visit(value: &mut Value, at: &mut usize, act: &mut dyn FnMut(&mut Value)) -> bool {
    if *at == 0 {
        act(value);
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| visit(item, at, act)),
        Value::Object(map) => map.values_mut().any(|item| visit(item, at, act)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn change(node: &mut Value, words: &[&str], random: &mut Random) {
    if random.once_in(5) {
        *node = any(words, random);
        return;
    }
    match node {
        Value::Object(map) => change_map(map, words, random),
        Value::Array(items) => change_list(items, words, random),
        Value::String(text) => change_text(text, words, random),
        Value::Number(number) => {
            let near = match (number.as_u64(), random.below(3)) {
                (Some(old), 0) => Value::from(old.wrapping_add(1)),
                (Some(old), 1) => Value::from(old.wrapping_sub(1)),
                _ => any_number(random),
            };
            *node = near;
        }
        Value::Null | Value::Bool(_) => *node = any(words, random),
    }
}

fn any_number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::from(u64::MAX),
        1 => Value::from(i64::MIN),
        2 => Value::from(0),
        3 => Value::from(-1),
        4 => Value::from(1.5),
        5 => Value::from(random.bits()),
        _ => Value::from(f64::from_bits(random.bits())),
    }
}

fn any(words: &[&str], random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => Value::Bool(random.once_in(2)),
        2 | 3 => any_number(random),
        4 => Value::Array(Vec::new()),
        5 => Value::Object(Map::new()),
        6 => {
            let depth = [3, 40, 126, 127, 128, 140].get(random.below(6)).copied().unwrap_or(3);
            (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
        }
        7 => Value::from(
            "x".repeat([63, 64, 65, 255, 256, 257, 4096].get(random.below(7)).copied().unwrap_or(1)),
        ),
        _ => Value::from(word(words, random)),
    }
}

fn word(words: &[&str], random: &mut Random) -> String {
    let list: &[&str] = if random.once_in(2) || words.is_empty() { &TEXTS } else { words };
    random.pick(list).copied().unwrap_or_default().to_owned()
}

fn change_map(map: &mut Map<String, Value>, words: &[&str], random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let key = random.pick(&keys).cloned().unwrap_or_default();
    match random.below(6) {
        0 => drop(map.shift_remove(&key)),
        1 => {
            let value = any(words, random);
            map.insert(word(words, random), value);
        }
        2 => {
            if let Some(value) = map.shift_remove(&key) {
                let mut renamed = key;
                change_text(&mut renamed, words, random);
                map.insert(renamed, value);
            }
        }
        3 => {
            if let Some(value) = map.get(&key).cloned() {
                map.insert(word(words, random), value);
            }
        }
        4 => {
            let value = map.get(&key).cloned().unwrap_or_default();
            let more = [2, 17, 255, 256, 257].get(random.below(5)).copied().unwrap_or(2);
            if value.to_string().len() * more < INPUT_BYTES_MAX / 2 {
                map.extend((map.len()..more).map(|n| (format!("k{n}"), value.clone())));
            }
        }
        _ => {
            map.insert(format!("x{}", random.below(100)), any(words, random));
        }
    }
}

fn change_list(items: &mut Vec<Value>, words: &[&str], random: &mut Random) {
    let at = random.below(items.len());
    match random.below(4) {
        0 if !items.is_empty() => drop(items.remove(at)),
        1 => {
            let copy = items.get(at).cloned().unwrap_or_default();
            items.insert(at.min(items.len()), copy);
        }
        2 => {
            let copy = items.get(at).cloned().unwrap_or_default();
            let more = [16, 64, 65, 257].get(random.below(4)).copied().unwrap_or(2);
            if copy.to_string().len() * more < INPUT_BYTES_MAX / 2 {
                items.extend((items.len()..more).map(|_| copy.clone()));
            }
        }
        _ => items.push(any(words, random)),
    }
}

fn change_text(text: &mut String, words: &[&str], random: &mut Random) {
    let mut chars: Vec<char> = text.chars().collect();
    let at = random.below(chars.len());
    match random.below(8) {
        0 => *text = word(words, random),
        1 => text.push(char::from(b' ' + random.byte() % 95)),
        2 => drop(text.pop()),
        3 => *text = text.to_uppercase(),
        4 => text.insert(0, if random.once_in(2) { '0' } else { '+' }),
        5 => {
            chars.insert(
                at,
                random
                    .pick(&['0', '+', '-', ' ', '/', ':', '\n', '\u{7f}', 'é', 'f'])
                    .copied()
                    .unwrap_or('0'),
            );
            *text = chars.into_iter().collect();
        }
        6 => {
            if let Some(found) = chars.get_mut(at) {
                *found = random.pick(&['0', '9', 'a', 'z', 'Z', '_', '\u{1}']).copied().unwrap_or('0');
            }
            *text = chars.into_iter().collect();
        }
        _ => *text = text.repeat(2 + random.below(8)),
    }
}

/// Repeats some key of the text with another value, which no parsed value can hold.
fn double_key(input: &mut Vec<u8>, random: &mut Random) {
    let colons: Vec<usize> =
        input.windows(2).enumerate().filter(|(_, pair)| *pair == b"\":").map(|(at, _)| at).collect();
    let Some(end) = random.pick(&colons).copied() else { return };
    let before = input.get(..end).unwrap_or_default();
    let Some(start) = before.iter().rposition(|byte| *byte == b'"') else { return };
    let mut doubled = input.get(start..=end).unwrap_or_default().to_vec();
    doubled.extend_from_slice(if random.once_in(2) { b":1," } else { b":\"x\"," });
    input.splice(start..start, doubled);
}
