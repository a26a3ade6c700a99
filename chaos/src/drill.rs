//! Drills: the same questions a board would ask, with an outside ledger of what was answered.

pub mod canary;
pub mod full_disk;
pub mod kill_cloud;
pub mod kill_edge;
pub mod power_cut;

use std::collections::BTreeMap;

/// What was answered as kept: path of the resource to the value that was last acknowledged, and the highest
/// acknowledged sequence of each log.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Last acknowledged value of each resource.
    pub values: BTreeMap<String, String>,
    /// Highest acknowledged sequence of each log.
    pub sequences: BTreeMap<String, u64>,
    /// Acknowledgements.
    pub acknowledged: u64,
}

impl Ledger {
    /// Notes an acknowledgement.
    pub fn note(&mut self, path: String, value: String, log: String, sequence: u64) {
        self.values.insert(path, value);
        let highest = self.sequences.entry(log).or_default();
        *highest = (*highest).max(sequence);
        self.acknowledged += 1;
    }

    /// Takes over what was under way and turned out to have been kept, so that later rounds expect it.
    pub fn settle(&mut self, found: impl Fn(&str) -> Option<String>, under_way: BTreeMap<String, String>) {
        for (path, value) in under_way {
            if found(&path).as_ref() == Some(&value) {
                self.values.insert(path, value);
            }
        }
    }

    /// Returns the paths whose acknowledged value is not there. A value that was written and not acknowledged
    /// may stand in its place, so the caller passes what it had under way.
    pub fn lost(
        &self,
        mut found: impl FnMut(&str) -> Option<String>,
        under_way: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let is_lost = |path: &&String| {
            let value = found(path);
            value.as_ref() != self.values.get(*path)
                && (value.is_none() || value.as_ref() != under_way.get(*path))
        };
        self.values.keys().filter(is_lost).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the ledger sees a loss. Method: an acknowledged value that is not there, one that is old, one that
    /// was overtaken by a write under way.
    #[test]
    fn losses_are_seen() {
        let mut ledger = Ledger::default();
        for path in ["a", "b", "c"] {
            ledger.note(path.into(), "new".into(), "log".into(), 1);
        }
        let under_way = BTreeMap::from([("c".to_owned(), "newest".to_owned())]);
        let found = |path: &str| match path {
            "a" => Some("old".to_owned()),
            "c" => Some("newest".to_owned()),
            _ => None,
        };
        assert_eq!(ledger.lost(found, &under_way), ["a", "b"]);
        ledger.settle(found, under_way);
        assert_eq!(ledger.lost(found, &BTreeMap::new()), ["a", "b"]);
    }
}
