//! What lies at each site, read from its folder: the outside witness of "safe".

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sonae_proto::batch::Batch;
use sonae_proto::object::{self, RecordKind};

/// First and last sequence of each batch, by log.
type Logs = BTreeMap<String, BTreeSet<(u64, u64)>>;

/// The files of objects under a folder, the oldest first. What is still being written has `#` in its name.
pub(crate) fn objects(site: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![site.join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().to_string_lossy().contains('#') {
                found.push(entry.path());
            }
        }
    }
    // Names are made of the time of a start and a counter.
    found.sort();
    Ok(found)
}

fn logs(site: &Path) -> Result<Logs> {
    let mut logs = Logs::new();
    for path in objects(site)? {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for record in object::records(&bytes).0 {
            if record.kind == Some(RecordKind::Batch)
                && let Ok(batch) = Batch::from_bytes(record.body.to_vec())
            {
                let header = batch.header();
                logs.entry(header.log.to_string()).or_default().insert((header.first, header.last));
            }
        }
    }
    Ok(logs)
}

/// Up to which sequence a log is there without a gap.
fn whole(batches: &BTreeSet<(u64, u64)>) -> u64 {
    batches.iter().fold(0, |end, (first, last)| if *first <= end + 1 { end.max(*last) } else { end })
}

/// What the quorum of the sites holds without a gap: log to sequence.
///
/// # Errors
/// When a site cannot be read.
pub(crate) fn at_quorum(sites: &[PathBuf], quorum: usize) -> Result<BTreeMap<String, u64>> {
    let mut by_log: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for site in sites {
        for (log, batches) in logs(site)? {
            by_log.entry(log).or_default().push(whole(&batches));
        }
    }
    let of = |mut ends: Vec<u64>| {
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(quorum.saturating_sub(1)).copied().unwrap_or(0)
    };
    Ok(by_log.into_iter().map(|(log, ends)| (log, of(ends))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a gap ends what counts. Method: with and without one, overlapping too.
    #[test]
    fn a_gap_ends_what_counts() {
        assert_eq!(whole(&BTreeSet::from([(1, 2), (2, 5), (6, 6), (8, 9)])), 6);
        assert_eq!(whole(&BTreeSet::from([(2, 3)])), 0);
    }
}
