//! The search after canaries: names and numbers that are in the school's data must be found nowhere in the
//! cloud and in no packet. A control that contains them proves that the search can find.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::line::Line;
use crate::town::Town;

/// What a search over a town found.
#[derive(Debug, Clone, Serialize)]
pub struct Search {
    /// Byte strings that were looked for.
    pub canaries: usize,
    /// Found in the cloud's folders and in captured packets. Must be none.
    pub hits: usize,
    /// Found in the plain files of the generated school. Must not be none.
    pub control_hits: usize,
    /// Found in the same packets with every canary put in. Must be all.
    pub control_packet_hits: usize,
    /// Bytes of the cloud's folders.
    pub stored_bytes: u64,
    /// Bytes of captured packets.
    pub captured_bytes: usize,
}

impl Search {
    /// Returns why P3 is not shown to hold; empty when it is.
    #[must_use]
    pub fn objections(&self) -> Vec<&'static str> {
        let checks = [
            (self.hits == 0, "plaintext was found outside the box"),
            (self.control_hits > 0, "the search finds nothing even in plain files, so it proves nothing"),
            (
                self.control_packet_hits == self.canaries,
                "the search misses canaries in a packet, so it proves nothing",
            ),
            (self.stored_bytes > 0 && self.captured_bytes > 0, "there was nothing to search"),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, why)| why).collect()
    }
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct Canaries {
    needles: Vec<Vec<u8>>,
}

impl Canaries {
    /// Takes the canaries out of a generated school's `summary.json`, and adds texts of the caller's own.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(summary: &Path, more: &[&str]) -> Result<Self> {
        let summary: Value = serde_json::from_slice(&std::fs::read(summary)?)?;
        let canaries = summary.get("canaries").context("the summary names no canaries")?;
        let mut texts: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
        collect(canaries, &mut texts);
        let mut needles = Vec::new();
        for text in texts.iter().filter(|text| text.chars().count() >= 2) {
            needles.push(text.as_bytes().to_vec());
            needles.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            if digits.len() >= 9 {
                needles.push(digits.into_bytes());
            }
        }
        if needles.is_empty() {
            bail!("there are no canaries to look for");
        }
        Ok(Self { needles })
    }

    /// Returns how many byte strings are looked for.
    #[must_use]
    pub fn count(&self) -> usize {
        self.needles.len()
    }

    /// Searches the cloud's folders and all packets of the line, and the controls.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn search(&self, town: &Town, line: &Line, plain: &Path) -> Result<Search> {
        let (mut hits, mut stored_bytes) = (0, 0);
        for dir in town.cloud_dirs() {
            let below = self.hits_below(&dir)?;
            hits += below.0;
            stored_bytes += below.1;
        }
        let mut packets = line.capture();
        let captured_bytes = packets.len();
        hits += self.hits(&packets);
        packets.extend(self.needles.iter().flatten());
        Ok(Search {
            canaries: self.count(),
            hits,
            control_hits: self.hits_below(plain)?.0,
            control_packet_hits: self.hits(&packets),
            stored_bytes,
            captured_bytes,
        })
    }

    /// Counts the canaries in some bytes.
    #[must_use]
    pub fn hits(&self, haystack: &[u8]) -> usize {
        self.needles.iter().filter(|needle| contains(haystack, needle)).count()
    }

    /// Counts the canaries in all files below a folder. Returns hits and bytes searched.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn hits_below(&self, dir: &Path) -> Result<(usize, u64)> {
        let (mut hits, mut bytes) = (0, 0);
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let below = self.hits_below(&entry.path())?;
                hits += below.0;
                bytes += below.1;
            } else if entry.file_type()?.is_file() {
                let content = std::fs::read(entry.path())?;
                hits += self.hits(&content);
                bytes += u64::try_from(content.len()).unwrap_or(0);
            }
        }
        Ok((hits, bytes))
    }
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => fields.values().for_each(|item| collect(item, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let Some(candidate) = rest.get(at..) else { return false };
        if candidate.starts_with(needle) {
            return true;
        }
        rest = candidate.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the search finds, also across repeated beginnings, and does not invent. Method: small haystacks.
    #[test]
    fn the_search_finds() {
        assert!(contains(b"aaab", b"aab"));
        assert!(!contains(b"aaab", b"aac"));
        assert!(!contains(b"", b"a"));
    }
}
