//! The outside witness: it sees the disks of the sites and what replicas say, and trusts neither engine.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::ids::{Hash32, LogName};
use sonae_proto::vector::LogHead;

#[derive(Debug)]
struct Seen {
    header: BatchHeader,
    sites: BTreeSet<usize>,
    was_at_quorum: bool,
}

/// Every batch that was ever on the disk of a site.
#[derive(Debug)]
pub struct Ledger {
    quorum: usize,
    seen: BTreeMap<Hash32, Seen>,
}

impl Ledger {
    pub fn new(quorum: usize) -> Self {
        Self { quorum, seen: BTreeMap::new() }
    }

    /// A batch is on the stable storage of a site.
    pub fn written(&mut self, batch: &Batch, site: usize) {
        let header = *batch.header();
        let fresh = || Seen { header, sites: BTreeSet::new(), was_at_quorum: false };
        let seen = self.seen.entry(header.hash()).or_insert_with(fresh);
        seen.sites.insert(site);
        seen.was_at_quorum |= seen.sites.len() >= self.quorum;
    }

    /// A site has lost its tail: only `left` is on it.
    pub fn lost(&mut self, site: usize, left: &BTreeSet<Hash32>) {
        for (hash, seen) in &mut self.seen {
            if !left.contains(hash) {
                seen.sites.remove(&site);
            }
        }
    }

    fn check(
        &self,
        log: LogName,
        head: LogHead,
        fits: impl Fn(&Seen) -> bool,
        what: &str,
    ) -> Result<(), String> {
        let mut next = head.hash;
        while next != Hash32::ZERO {
            let seen = self.seen.get(&next).filter(|seen| seen.header.log == log && fits(seen));
            let Some(seen) = seen else {
                return Err(format!("{log} is called safe up to {}, but a batch {what}", head.sequence));
            };
            next = seen.header.previous;
        }
        Ok(())
    }

    /// The head and all before it were at the quorum at some time.
    pub fn was_durable(&self, log: LogName, head: LogHead) -> Result<(), String> {
        self.check(log, head, |seen| seen.was_at_quorum, "of it was never at the quorum")
    }

    /// The head and all before it are at the quorum now.
    pub fn is_durable(&self, log: LogName, head: LogHead) -> Result<(), String> {
        self.check(log, head, |seen| seen.sites.len() >= self.quorum, "of it is not at the quorum")
    }

    /// The head and all before it are on some site now.
    pub fn is_held(&self, log: LogName, head: LogHead) -> Result<(), String> {
        self.check(log, head, |seen| !seen.sites.is_empty(), "of it is on no site any more")
    }
}
