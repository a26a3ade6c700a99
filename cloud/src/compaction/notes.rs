//! For how long the node has run since a merged object was read back at every site: `DATA/compaction.json`.
//!
//! **Invariant**: a note that is lost, damaged, or of other sites counts as nothing: the time begins again. So no clock
//! and no copy of a data directory hastens a deletion.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

const FORMAT: &str = "sonae/compaction/v1";

/// Bytes of the file that are read.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    format: String,
    /// Ids of the sites, in hexadecimal.
    sites: Vec<String>,
    /// Name of a merged object to milliseconds of running.
    aged_ms: BTreeMap<String, u64>,
}

/// The notes of one node.
#[derive(Debug)]
pub struct Notes {
    path: PathBuf,
    file: File,
}

impl Notes {
    /// Reads the notes of a data directory about these sites.
    #[must_use]
    pub fn open(data: &Path, mut sites: Vec<String>) -> Self {
        sites.sort();
        let path = data.join("compaction.json");
        let mut text = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
        let known: Option<File> = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
        let file = known
            .filter(|file| file.format == FORMAT && file.sites == sites)
            .unwrap_or_else(|| File { format: FORMAT.to_owned(), sites, aged_ms: BTreeMap::new() });
        Self { path, file }
    }

    /// Lets what waits age by a time of running, and begins anew with what waits for the first time. What does not wait
    /// any more is forgotten.
    pub fn age(&mut self, waiting: impl IntoIterator<Item = String>, elapsed: Duration) {
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let before = std::mem::take(&mut self.file.aged_ms);
        for name in waiting {
            let aged = before.get(&name).map_or(0, |aged| aged.saturating_add(elapsed));
            self.file.aged_ms.insert(name, aged);
        }
        if self.file.aged_ms != before {
            self.save();
        }
    }

    /// Returns for how long the node has run since.
    #[must_use]
    pub fn aged(&self, name: &str) -> Duration {
        Duration::from_millis(self.file.aged_ms.get(name).copied().unwrap_or(0))
    }

    /// A file that cannot be written costs the time that it would have remembered.
    fn save(&self) {
        let staged = self.path.with_extension("json.new");
        let write = serde_json::to_vec(&self.file)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&staged, text))
            .and_then(|()| std::fs::rename(&staged, &self.path));
        if let Err(error) = write {
            log::warn!(error:% = error; "for how long merged objects have stood cannot be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only running time under a note that was there counts. Method: age, open again, with other sites, damaged.
    #[test]
    fn only_what_was_noted_counts() {
        let directory = tempfile::tempdir().unwrap();
        let day = Duration::from_hours(24);
        let open =
            |sites: &[&str]| Notes::open(directory.path(), sites.iter().map(ToString::to_string).collect());
        let mut notes = open(&["a", "b"]);
        notes.age(["x".to_owned()], day);
        assert_eq!(notes.aged("x"), Duration::ZERO, "it waits only from now on");
        notes.age(["x".to_owned(), "y".to_owned()], day);
        assert_eq!((notes.aged("x"), notes.aged("y")), (day, Duration::ZERO));
        assert_eq!(open(&["b", "a"]).aged("x"), day);
        assert_eq!(open(&["a"]).aged("x"), Duration::ZERO);
        notes.age(["y".to_owned()], day);
        notes.age(["x".to_owned()], day);
        assert_eq!(notes.aged("x"), Duration::ZERO, "it did not wait all the time");
        std::fs::write(directory.path().join("compaction.json"), "{").unwrap();
        assert_eq!(open(&["a", "b"]).aged("x"), Duration::ZERO);
    }
}
