//! What people were answered, from outside: every write to every record, in order, and which of them bind.
//!
//! A write binds when it was answered as kept; it no longer binds when the promise ends: the box was lost before the
//! write was safe, or its disk lied or rotted. What stands afterwards must be the last binding write, or a later one.

use std::collections::BTreeMap;

/// One write of a record.
#[derive(Debug, Clone)]
struct Attempt {
    value: String,
    /// Log and sequence, if it was answered and still binds.
    kept: Option<(String, u64)>,
}

/// Everything that people at one box have written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<String, Vec<Attempt>>,
    /// Answers.
    pub acknowledged: u64,
    /// The highest sequence answered in each log that binds.
    sequences: BTreeMap<String, u64>,
}

impl Ledger {
    /// A write was answered as kept.
    pub fn kept(&mut self, path: &str, value: &str, log: String, sequence: u64) {
        let highest = self.sequences.entry(log.clone()).or_default();
        *highest = (*highest).max(sequence);
        self.attempt(path, value, Some((log, sequence)));
        self.acknowledged += 1;
    }

    /// A write was not answered: it may have been kept, or not.
    pub fn unanswered(&mut self, path: &str, value: &str) {
        self.attempt(path, value, None);
    }

    fn attempt(&mut self, path: &str, value: &str, kept: Option<(String, u64)>) {
        self.records.entry(path.to_owned()).or_default().push(Attempt { value: value.to_owned(), kept });
    }

    /// Whether it is known what a record holds: nobody waits for an answer about it.
    pub fn is_known(&self, path: &str) -> bool {
        self.records.get(path).and_then(|attempts| attempts.last()).is_none_or(|last| last.kept.is_some())
    }

    /// Ends the promise for what was kept and is beyond what was called safe.
    pub fn release(&mut self, safe: &BTreeMap<String, u64>) {
        let is_safe = |log: &String, sequence: u64| safe.get(log).is_some_and(|safe| *safe >= sequence);
        for attempt in self.records.values_mut().flatten() {
            attempt.kept = attempt.kept.take().filter(|(log, sequence)| is_safe(log, *sequence));
        }
        for (log, sequence) in &mut self.sequences {
            *sequence = (*sequence).min(safe.get(log).copied().unwrap_or(0));
        }
    }

    /// The records that are spoken of.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.records.keys()
    }

    /// The highest sequence of a log that binds.
    pub fn sequence(&self, log: &str) -> u64 {
        self.sequences.get(log).copied().unwrap_or(0)
    }

    /// Compares with what is found. Returns what is wrong with the first record that is not as it must be.
    pub fn judge(&self, found: &BTreeMap<String, String>) -> Result<(), String> {
        for (path, attempts) in &self.records {
            let binding = attempts.iter().rposition(|attempt| attempt.kept.is_some());
            let is = found.get(path);
            let stands = attempts.iter().rposition(|attempt| Some(&attempt.value) == is);
            if stands < binding || (is.is_some() && stands.is_none()) {
                let kept = binding.and_then(|at| attempts.get(at));
                let is = is.map_or("nothing", String::as_str);
                return Err(format!("{path} holds {is} instead of {kept:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("a".to_owned(), value.to_owned())])
    }

    /// Goal: a loss, an old value and an invented one are seen; what was under way may stand. Method: one record.
    #[test]
    fn losses_and_inventions_are_seen() {
        let mut ledger = Ledger::default();
        ledger.kept("a", "1", "log".into(), 1);
        ledger.kept("a", "2", "log".into(), 2);
        assert!(ledger.is_known("a"));
        ledger.unanswered("a", "3");
        assert!(!ledger.is_known("a"));
        for wrong in ["1", "4"] {
            assert!(ledger.judge(&found(wrong)).is_err(), "{wrong}");
        }
        assert!(ledger.judge(&BTreeMap::new()).is_err());
        for right in ["2", "3"] {
            assert_eq!(ledger.judge(&found(right)), Ok(()), "{right}");
        }
    }

    /// Goal: with the box what was not safe may go, and nothing else. Method: release, with one write safe, with none.
    #[test]
    fn what_was_safe_binds_for_ever() {
        let mut ledger = Ledger::default();
        ledger.kept("a", "1", "log".into(), 1);
        ledger.kept("a", "2", "log".into(), 2);
        ledger.release(&BTreeMap::from([("log".to_owned(), 1)]));
        assert_eq!(ledger.sequence("log"), 1);
        assert_eq!(ledger.judge(&found("1")), Ok(()));
        assert_eq!(ledger.judge(&found("2")), Ok(()));
        assert!(ledger.judge(&BTreeMap::new()).is_err());
        ledger.release(&BTreeMap::new());
        assert_eq!(ledger.judge(&BTreeMap::new()), Ok(()));
    }
}
