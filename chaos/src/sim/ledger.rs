//! The outside witness. It sees what boxes were answered, what left them and what lies on the disks of the sites,
//! and trusts neither engine nor journal.
//!
//! Invariants that it checks: what a box acknowledged is a prefix of what it recovers; what left a box is sent
//! again byte for byte; a loss counter never falls; what is called safe was at the quorum, and is at some site
//! unless the loss could not be known; a receipt is signed only for what is at the quorum at that moment.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::identity::{IdentityText, IncarnationCertificate};
use sonae_proto::ids::{Hash32, Incarnation, LogName};
use sonae_proto::object::{self, RecordKind};
use sonae_proto::vector::LogHead;

use super::rot::Salvaged;
use super::store::Held;

/// A record that is no batch, as it lies at the sites.
#[derive(Debug)]
struct Document {
    /// The incarnation whose identity it is.
    names: Option<Incarnation>,
    sites: BTreeSet<usize>,
}

fn named_by(body: &[u8]) -> Option<Incarnation> {
    let identity: IdentityText = serde_json::from_slice(body).ok()?;
    let certificate: IncarnationCertificate =
        serde_json::from_str(identity.incarnation.lines().next()?).ok()?;
    Some(certificate.incarnation())
}

/// What is known of one disk of a box, from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct BoxLedger {
    /// Every line that was handed to the journal, by log.
    attempted: BTreeMap<LogName, Vec<Vec<u8>>>,
    /// How many of them were acknowledged.
    acknowledged: BTreeMap<LogName, usize>,
    /// The hash of each batch that left the box, by its place.
    sent: BTreeMap<(LogName, u64), Hash32>,
    loss_counter: u64,
    /// The latest time that its clock has shown.
    pub told_ms_max: u64,
}

impl BoxLedger {
    /// Lines are handed to the journal, to follow what is acknowledged.
    pub fn attempt(&mut self, log: LogName, line: Vec<u8>) {
        let acknowledged = self.acknowledged.get(&log).copied().unwrap_or(0);
        let lines = self.attempted.entry(log).or_default();
        lines.truncate(acknowledged);
        lines.push(line);
    }

    /// The last attempt was acknowledged.
    pub fn acknowledge(&mut self, log: LogName) {
        *self.acknowledged.entry(log).or_default() += 1;
    }

    /// How many changes were acknowledged.
    pub fn acknowledgements(&self) -> usize {
        self.acknowledged.values().sum()
    }

    /// A batch leaves the box.
    pub fn leave(&mut self, header: &BatchHeader) -> Result<(), String> {
        let was = *self.sent.entry((header.log, header.first)).or_insert_with(|| header.hash());
        if was == header.hash() {
            return Ok(());
        }
        Err(format!("batch {} of log {} was sent before with other bytes", header.first, header.log))
    }

    /// The engine was told that a raised loss counter is durable.
    pub fn raise(&mut self, counter: u64) {
        self.loss_counter = self.loss_counter.max(counter);
    }

    /// Compares with what the box recovered. That counts as acknowledged from now on: it will be shown.
    pub fn recovered(&mut self, held: &Held) -> Result<(), String> {
        if held.loss_counter < self.loss_counter {
            return Err(format!("the loss counter fell to {}", held.loss_counter));
        }
        let logs: BTreeSet<LogName> = self.attempted.keys().chain(held.lines.keys()).copied().collect();
        for log in logs {
            let lines = held.lines.get(&log).map(Vec::as_slice).unwrap_or_default();
            let attempted = self.attempted.entry(log).or_default();
            let acknowledged = self.acknowledged.entry(log).or_default();
            if lines.len() < *acknowledged {
                let count = lines.len();
                return Err(format!("log {log}: {acknowledged} acknowledged, {count} recovered"));
            }
            if attempted.get(..lines.len()) != Some(lines) {
                return Err(format!("log {log}: what was recovered is not what was written"));
            }
            attempted.truncate(lines.len());
            *acknowledged = lines.len();
        }
        Ok(())
    }
}

impl BoxLedger {
    /// Compares what can be read of a rotten disk with what was written to it.
    pub fn salvaged(&self, salvaged: &Salvaged) -> Result<(), String> {
        for (log, lines) in salvaged {
            let attempted = self.attempted.get(log).map(Vec::as_slice).unwrap_or_default();
            for (line, attempted) in (1..).zip(attempted).filter_map(|(at, was)| Some((lines.get(&at)?, was)))
            {
                if line != attempted {
                    return Err(format!("log {log}: what a rotten disk shows is not what was written"));
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Seen {
    header: BatchHeader,
    sites: BTreeSet<usize>,
    was_at_quorum: bool,
}

/// Every batch and document that was ever on the disk of a site.
#[derive(Debug)]
pub(crate) struct Ledger {
    quorum: usize,
    seen: BTreeMap<Hash32, Seen>,
    /// Sites that hold a document.
    documents: BTreeMap<Vec<u8>, Document>,
    /// Heads that were called safe, less what sites have lost since.
    promised: BTreeMap<LogName, LogHead>,
    /// Batches that, with all before them, were at the quorum at some time.
    durable: BTreeSet<Hash32>,
    /// How often sites have lost something.
    pub losses: u64,
    /// Batches that, with all before them, were at some site when so many losses had happened.
    held: BTreeMap<Hash32, u64>,
}

impl Ledger {
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            seen: BTreeMap::new(),
            documents: BTreeMap::new(),
            promised: BTreeMap::new(),
            durable: BTreeSet::new(),
            losses: 0,
            held: BTreeMap::new(),
        }
    }

    /// An object is on the stable storage of a site.
    pub fn written(&mut self, object: &[u8], site: usize) {
        for record in object::records(object).0 {
            if record.kind == Some(RecordKind::Batch)
                && let Ok(batch) = Batch::from_bytes(record.body.to_vec())
            {
                let header = *batch.header();
                let fresh = || Seen { header, sites: BTreeSet::new(), was_at_quorum: false };
                let seen = self.seen.entry(header.hash()).or_insert_with(fresh);
                seen.sites.insert(site);
                seen.was_at_quorum |= seen.sites.len() >= self.quorum;
            } else if record.kind.is_some() {
                let fresh = || Document { names: named_by(record.body), sites: BTreeSet::new() };
                self.documents.entry(record.body.to_vec()).or_insert_with(fresh).sites.insert(site);
            }
        }
    }

    /// A site has lost something: only `left` is on it.
    pub fn lost<'a>(&mut self, site: usize, left: impl Iterator<Item = &'a Vec<u8>>) {
        self.losses += 1;
        for seen in self.seen.values_mut() {
            seen.sites.remove(&site);
        }
        for document in self.documents.values_mut() {
            document.sites.remove(&site);
        }
        left.for_each(|object| self.written(object, site));
        let (promised, named) = (std::mem::take(&mut self.promised), self.named());
        let left = |log: &LogName, head| {
            // A writer who is gone does not say again who he was, and nobody believes batches of nobody.
            if named.contains(&log.incarnation) { self.still_held(head) } else { LogHead::EMPTY }
        };
        self.promised = promised.into_iter().map(|(log, head)| (log, left(&log, head))).collect();
    }

    /// A node has deleted something of a site: no loss that would excuse anything.
    pub fn deleted<'a>(&mut self, site: usize, left: impl Iterator<Item = &'a Vec<u8>>) {
        let losses = self.losses;
        self.lost(site, left);
        self.losses = losses;
    }

    /// Incarnations whose identities some site holds.
    pub fn named(&self) -> BTreeSet<Incarnation> {
        let held = self.documents.values().filter(|document| !document.sites.is_empty());
        held.filter_map(|document| document.names).collect()
    }

    /// The end of the part of a history that sites hold without a gap.
    fn still_held(&self, head: LogHead) -> LogHead {
        let (mut next, mut end) = (head, head);
        while let Some(seen) = self.seen.get(&next.hash) {
            let before = LogHead { sequence: seen.header.first - 1, hash: seen.header.previous };
            if seen.sites.is_empty() {
                end = before;
            }
            next = before;
        }
        end
    }

    fn lies_at(seen: &Seen, sites: &BTreeSet<usize>) -> bool {
        !seen.sites.is_disjoint(sites)
    }

    /// Whether some sites hold a history without a gap.
    pub fn is_whole_at(&self, log: LogName, head: LogHead, sites: &BTreeSet<usize>) -> bool {
        self.walk(log, head, |seen| Self::lies_at(seen, sites), "is not there").is_ok()
    }

    /// Logs of which some sites hold two batches for one place.
    pub fn rivals_at(&self, sites: &BTreeSet<usize>) -> BTreeSet<LogName> {
        let mut places = BTreeSet::new();
        let there = self.seen.values().filter(|seen| Self::lies_at(seen, sites));
        let place = |seen: &Seen| (seen.header.log, seen.header.first, seen.header.previous);
        there.filter(|seen| !places.insert(place(seen))).map(|seen| seen.header.log).collect()
    }

    /// Logs of which some sites hold a batch without the one before it.
    pub fn holes_at(&self, sites: &BTreeSet<usize>) -> BTreeSet<LogName> {
        let is_there = |hash: &Hash32| self.seen.get(hash).is_some_and(|seen| Self::lies_at(seen, sites));
        let there = self.seen.values().filter(|seen| Self::lies_at(seen, sites));
        let headers = there.map(|seen| &seen.header);
        headers
            .filter(|header| header.previous != Hash32::ZERO && !is_there(&header.previous))
            .map(|header| header.log)
            .collect()
    }

    /// Incarnations whose identities some of these sites hold.
    pub fn named_at(&self, sites: &BTreeSet<usize>) -> BTreeSet<Incarnation> {
        let held = self.documents.values().filter(|document| !document.sites.is_disjoint(sites));
        held.filter_map(|document| document.names).collect()
    }

    fn walk(
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

    /// Whether a batch is at the quorum now.
    pub fn is_at_quorum(&self, hash: Hash32) -> bool {
        self.seen.get(&hash).is_some_and(|seen| seen.sites.len() >= self.quorum)
    }

    /// Whether a document, a root or a part is at the quorum now.
    pub fn is_document_at_quorum(&self, body: &[u8]) -> bool {
        self.documents.get(body).is_some_and(|document| document.sites.len() >= self.quorum)
    }

    /// A replica calls a log safe.
    pub fn called_safe(&mut self, log: LogName, head: LogHead) -> Result<(), String> {
        if self.durable.contains(&head.hash) {
            return Ok(());
        }
        self.walk(log, head, |seen| seen.was_at_quorum, "of it was never at the quorum")?;
        self.durable.insert(head.hash);
        Ok(())
    }

    /// A receipt has moved what a replica calls safe.
    pub fn promise(&mut self, log: LogName, head: LogHead) {
        let head = self.still_held(head);
        let promised = self.promised.entry(log).or_insert(LogHead::EMPTY);
        if head.sequence > promised.sequence {
            *promised = head;
        }
    }

    /// What every replica must have in the end.
    pub const fn promised(&self) -> &BTreeMap<LogName, LogHead> {
        &self.promised
    }

    /// A replica that knows of all losses calls a log safe.
    pub fn is_held(&mut self, log: LogName, head: LogHead) -> Result<(), String> {
        if self.held.get(&head.hash) == Some(&self.losses) {
            return Ok(());
        }
        self.walk(log, head, |seen| !seen.sites.is_empty(), "of it is on no site any more")?;
        self.held.insert(head.hash, self.losses);
        Ok(())
    }

    /// A receipt is signed.
    pub fn signed(&self, log: LogName, head: LogHead, identity: Option<&[u8]>) -> Result<(), String> {
        self.walk(log, head, |seen| seen.sites.len() >= self.quorum, "of it is not at the quorum")?;
        let known =
            identity.and_then(|body| self.documents.get(body)).map_or(0, |document| document.sites.len());
        if known < self.quorum {
            return Err(format!("{log} is receipted, but who writes it is known to {known} site(s) only"));
        }
        Ok(())
    }
}
