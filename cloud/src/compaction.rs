//! Compaction: many small objects become a few large ones, and what those stand for is deleted later. Decision:
//! `docs/decisions/0028-the-cloud-merges-and-forgets-on-purpose.md`.
//!
//! **Invariant**: an object is deleted only after a merged one that holds everything of it was read back whole at every
//! site that the node was given, just now and at least [`Rules::superseded`] of running time ago.
//! **Invariant**: while a site cannot be used or listed nothing is merged and nothing is deleted.
//! **Invariant**: it may be cut off at any step, and any number of nodes may do it at once: names are hashes, and each
//! deletion is judged by what lies at the sites at that moment.
//! **Invariant**: damaged objects, and copies that differ, are left where they are.

mod destruction;
mod fate;
mod merge;
mod notes;
mod plan;
mod rewrite;
mod status;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sonae_proto::planted::{Defect, is_planted};

use crate::contents::read;
use crate::limits::{COMPACTION_INTERVAL, MERGE_BYTES_MAX, MERGE_INPUTS, SUPERSEDED_DAYS_MIN};
use crate::object_name::StoredName;
use crate::site::{Site, TransferError};
pub use destruction::DestructionStatus;
pub use fate::{Fate, Judge, Rewrite};
use merge::{Held, merge};
pub use merge::{Places, places};
use notes::Notes;
use plan::{Candidate, groups};
pub use status::CompactionStatus;
pub use task::Task;

/// When objects are merged, and when what they were made of goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Objects of about one size that are enough to be merged.
    pub inputs_min: usize,
    /// Bytes of objects that become one.
    pub bytes_max: u64,
    /// For how long a node has run since a merged object was read back at every site, before its inputs go.
    pub superseded: Duration,
    /// How often it looks.
    pub interval: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            inputs_min: MERGE_INPUTS,
            bytes_max: MERGE_BYTES_MAX,
            superseded: Duration::from_hours(24 * SUPERSEDED_DAYS_MIN),
            interval: COMPACTION_INTERVAL,
        }
    }
}

/// Why nothing is done now. It is tried again by itself.
#[derive(Debug, thiserror::Error)]
pub enum Waits {
    /// A site that the node was given is not open.
    #[error(
        "{usable} of {named} sites can be used; nothing is merged or deleted until the node was started with all"
    )]
    Sites {
        /// Sites that are open.
        usable: usize,
        /// Sites that were named.
        named: usize,
    },
    /// A site does not give an object.
    #[error("site {site} does not give an object that it lists; it is read again by itself")]
    Reading {
        /// Which.
        site: String,
        /// What it said.
        #[source]
        source: TransferError,
    },
    /// A site does not say what it holds.
    #[error("site {site} cannot be listed; nothing is merged or deleted until it answers")]
    Listing {
        /// Which.
        site: String,
        /// What it said.
        #[source]
        source: TransferError,
    },
}

/// What one pass did and found.
#[derive(Debug, Default)]
pub struct Pass {
    /// Objects at the sites when it began.
    pub objects: usize,
    /// Of these, merged ones.
    pub merged: usize,
    /// Objects at each site.
    pub held: Vec<usize>,
    /// Objects for which merged ones stand and which have not gone yet.
    pub superseded: usize,
    /// For how long the node has run since the oldest of them was read back in its merged form.
    pub oldest: Duration,
    /// Merged objects that were made.
    pub made: usize,
    /// Records that were left out of them.
    pub left_out: usize,
    /// Copies that were deleted.
    pub deleted: usize,
    /// Copies of merged objects that a site had lost and has again.
    pub healed: usize,
    /// Objects that are left alone, because they are damaged or their copies differ.
    pub left_alone: usize,
    /// Where records of merged objects lie that were read back for the first time.
    pub places: Vec<Places>,
}

/// What is known of a merged object.
#[derive(Debug)]
struct Output {
    inputs: Vec<StoredName>,
    /// Whether it was read back whole at every site.
    stands: bool,
}

type Listing = BTreeMap<StoredName, (u64, Vec<usize>)>;

/// Merges and deletes, a pass at a time.
#[derive(Debug)]
pub struct Compactor {
    sites: Arc<Vec<Site>>,
    named: usize,
    rules: Rules,
    notes: Notes,
    outputs: BTreeMap<StoredName, Output>,
    /// Merged objects and what they do not stand for, though they say so: those hold more, and are merged again.
    refused: BTreeSet<(StoredName, StoredName)>,
    left_alone: BTreeSet<StoredName>,
}

impl Compactor {
    /// Takes the open sites of a node that was given `named` of them.
    #[must_use]
    pub fn new(sites: Arc<Vec<Site>>, named: usize, rules: Rules, data: &Path) -> Self {
        let notes = Notes::open(data, sites.iter().map(Site::id_text).collect());
        let (outputs, refused, left_alone) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { sites, named, rules, notes, outputs, refused, left_alone }
    }

    /// Does what there is to do now. `elapsed` is for how long the node has run since the pass before, by a clock that
    /// does not jump.
    ///
    /// # Errors
    /// [`Waits`].
    ///
    /// # Durability
    /// Merged objects that the result tells of are on stable storage at every site.
    pub async fn pass(&mut self, elapsed: Duration, judge: &Judge) -> Result<Pass, Waits> {
        let listing = self.list().await?;
        let held = |site: usize| listing.values().filter(|(_, holders)| holders.contains(&site)).count();
        let held = (0..self.sites.len()).map(held).collect();
        let mut pass = Pass { objects: listing.len(), held, ..Pass::default() };
        self.examine_listed(&listing, &mut pass).await;
        let waiting = self.waiting(&listing);
        self.notes.age(waiting.keys().map(ToString::to_string), elapsed);
        pass.superseded = waiting.values().flatten().collect::<BTreeSet<_>>().len();
        for (output, inputs) in &waiting {
            let aged = self.notes.aged(&output.to_string());
            pass.oldest = pass.oldest.max(aged);
            // A site that has just lost a merged object may lose it again: inputs stay until all had it by themselves.
            if aged >= self.rules.superseded && pass.healed == 0 {
                pass.deleted += self.delete_inputs(*output, inputs, judge).await;
            }
        }
        for group in groups(self.candidates(&listing), &self.rules) {
            self.merge_group(&group, &listing, judge, &mut pass).await;
        }
        pass.left_alone = self.left_alone.iter().filter(|name| listing.contains_key(name)).count()
            + self.outputs.values().filter(|output| !output.stands).count();
        Ok(pass)
    }

    async fn list(&self) -> Result<Listing, Waits> {
        if self.sites.len() < self.named {
            return Err(Waits::Sites { usable: self.sites.len(), named: self.named });
        }
        let mut listing = Listing::new();
        for (number, (site, listed)) in
            self.sites.iter().zip(join_all(self.sites.iter().map(Site::list)).await).enumerate()
        {
            let listed = listed.map_err(|source| Waits::Listing { site: site.label().to_owned(), source })?;
            for (name, bytes) in listed {
                let known = listing.entry(name).or_default();
                known.0 = known.0.max(bytes);
                known.1.push(number);
            }
        }
        Ok(listing)
    }

    /// Reads the merged objects that are not known to stand, and forgets those that are gone.
    async fn examine_listed(&mut self, listing: &Listing, pass: &mut Pass) {
        self.outputs.retain(|name, _| listing.contains_key(name));
        for name in listing.keys().filter(|name| name.written().is_none()) {
            pass.merged += 1;
            if !self.outputs.get(name).is_some_and(|output| output.stands) {
                self.examine(*name, pass).await;
            }
        }
    }

    /// Reads a merged object back at every site. Those that lack it get it. Returns its bytes if it stands.
    async fn examine(&mut self, name: StoredName, pass: &mut Pass) -> Option<Bytes> {
        let copies = join_all(self.sites.iter().map(|site| site.get(name))).await;
        let whole = copies.iter().flatten().find(|copy| read(name, copy).damage.is_none())?.clone();
        let mut stands = true;
        for (site, copy) in self.sites.iter().zip(copies) {
            let is_there = is_planted(Defect::InputDeletedEarly)
                || match copy {
                    Ok(copy) => copy == whole,
                    Err(error) if error.is_missing() => {
                        pass.healed += 1;
                        self.put_and_read_back(site, name, &whole).await
                    }
                    Err(_) => false,
                };
            if !is_there {
                log::warn!(site = site.label(), object:% = name; "a merged object does not come back from a site");
            }
            stands &= is_there;
        }
        let contents = read(name, &whole);
        let is_new = !self.outputs.get(&name).is_some_and(|known| known.stands);
        if stands && is_new {
            pass.places.push(places(name, &contents));
        }
        self.outputs.insert(name, Output { inputs: contents.inputs, stands });
        stands.then_some(whole)
    }

    async fn put_and_read_back(&self, site: &Site, name: StoredName, whole: &Bytes) -> bool {
        if let Err(error) = site.put(name, whole.clone()).await {
            log::warn!(site = site.label(), object:% = name, error:% = error; "a merged object was not stored");
            return false;
        }
        site.get(name).await.is_ok_and(|copy| copy == *whole)
    }

    /// Merged objects that stand, with what lies at the sites and has to go.
    fn waiting(&self, listing: &Listing) -> BTreeMap<StoredName, Vec<StoredName>> {
        let standing = self.outputs.iter().filter(|(_, output)| output.stands);
        let waiting = standing.map(|(name, output)| {
            let there = |input: &&StoredName| {
                listing.contains_key(input) && !self.refused.contains(&(*name, **input))
            };
            (*name, output.inputs.iter().filter(there).copied().collect::<Vec<_>>())
        });
        waiting.filter(|(_, inputs)| !inputs.is_empty()).collect()
    }

    /// Deletes what a merged object stands for, wherever that holds no more than it. Returns how many copies went.
    async fn delete_inputs(&mut self, output: StoredName, inputs: &[StoredName], judge: &Judge) -> usize {
        let mut seen = Pass::default();
        let Some(whole) = self.examine(output, &mut seen).await else { return 0 };
        if seen.healed > 0 {
            return 0;
        }
        let held = Held::of(&read(output, &whole));
        let mut deleted = 0;
        for input in inputs {
            for site in self.sites.iter() {
                let Ok(copy) = site.get(*input).await else { continue };
                let contents = read(*input, &copy);
                if contents.damage.is_some() {
                    self.left_alone.insert(*input);
                } else if held.holds(&contents, judge) {
                    match site.delete(input).await {
                        Ok(()) => deleted += 1,
                        Err(error) => log::warn!(
                            site = site.label(), object:% = input, error:% = error;
                            "a superseded object was not deleted"
                        ),
                    }
                } else {
                    log::warn!(site = site.label(), object:% = input; "an object holds more than what stands for it");
                    self.refused.insert((output, *input));
                }
            }
        }
        deleted
    }

    fn candidates(&self, listing: &Listing) -> Vec<Candidate> {
        let claims = self.outputs.iter().flat_map(|(name, output)| {
            output.inputs.iter().filter(|input| !self.refused.contains(&(*name, **input)))
        });
        let superseded: BTreeSet<&StoredName> = claims.collect();
        let is_free = |name: &StoredName| {
            !superseded.contains(name)
                && !self.left_alone.contains(name)
                && self.outputs.get(name).is_none_or(|output| output.stands)
        };
        let candidate = |(name, (bytes, _)): (&StoredName, &(u64, Vec<usize>))| {
            let inputs = 1 + self.outputs.get(name).map_or(0, |output| output.inputs.len());
            Candidate { name: *name, bytes: *bytes, inputs }
        };
        listing.iter().filter(|(name, _)| is_free(name)).map(candidate).collect()
    }

    async fn merge_group(&mut self, group: &[StoredName], listing: &Listing, judge: &Judge, pass: &mut Pass) {
        let mut inputs = Vec::new();
        for name in group {
            let holders = listing.get(name).map(|(_, holders)| holders.as_slice()).unwrap_or_default();
            match self.whole(*name, holders).await {
                Ok(Some(bytes)) => inputs.push((*name, bytes)),
                Ok(None) => drop(self.left_alone.insert(*name)),
                // A site that does not answer now may do so in the next pass.
                Err(_) => return,
            }
        }
        if inputs.len() > 1 {
            self.merge_into_one(inputs, judge, pass).await;
        }
    }

    /// Merges objects, and reads the result back from every site. Returns its name if it stands.
    async fn merge_into_one(
        &mut self,
        inputs: Vec<(StoredName, Bytes)>,
        judge: &Judge,
        pass: &mut Pass,
    ) -> Option<StoredName> {
        let (name, object, left_out) = merge(&inputs, judge)?;
        drop(inputs);
        let mut is_stored = true;
        for site in self.sites.iter() {
            if let Err(error) = site.put(name, object.clone()).await {
                log::warn!(site = site.label(), object:% = name, error:% = error; "a merged object was not stored");
                is_stored = false;
            }
        }
        // What can be read back may not have reached the disk. The next pass looks at it again.
        if !is_stored {
            return None;
        }
        self.examine(name, pass).await?;
        pass.made += 1;
        pass.left_out += left_out;
        Some(name)
    }

    /// Reads an object that is to be merged. `None` if it is whole at no site, or if its copies differ.
    async fn whole(&self, name: StoredName, holders: &[usize]) -> Result<Option<Bytes>, TransferError> {
        let mut whole: Option<Bytes> = None;
        for site in holders.iter().filter_map(|number| self.sites.get(*number)) {
            let copy = match site.get(name).await {
                Ok(copy) => copy,
                Err(error) if error.is_missing() => continue,
                Err(error) => return Err(error),
            };
            if read(name, &copy).damage.is_some() {
                continue;
            }
            if whole.as_ref().is_some_and(|whole| *whole != copy) {
                return Ok(None);
            }
            whole = Some(copy);
        }
        Ok(whole)
    }
}
