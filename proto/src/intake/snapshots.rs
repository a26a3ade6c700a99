//! What a node does with snapshots: takes those whose logs it holds durably, part by part, receipts them whole and
//! serves the newest of each tier.
//!
//! **Invariant**: a snapshot is offered and receipted only when its root and all its parts are on the quorum, and
//! every head that it names is the end of a batch that is durable here.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Hash32, LogName, SchoolCode, Tier};
use crate::limits::SNAPSHOTS_OFFERED_MAX;
use crate::manifest::{Epoch, KeyUse};
use crate::object::RecordKind;
use crate::planted::{Defect, is_planted};
use crate::receipt::SiteId;
use crate::seal::check_recipients;
use crate::snapshot::{Snapshot, SnapshotRoot};
use crate::vector::LogHead;
use crate::wire::{
    FetchSnapshot, Frame, RefusalCode, SnapshotName, SnapshotOffer, SnapshotPart, SnapshotWants,
};

use super::log::Waiter;
use super::quarantine::REVOKED;
use super::{Effect, Intake, Location, Pending, ReplyTo, School};

/// Whole snapshots of one tier that are remembered: the newest, and the one that somebody may be fetching.
const WHOLE_MAX: usize = 2;

/// Forgotten snapshots of which the names are remembered. Others stay at the sites until the next start.
const FORGOTTEN_MAX: usize = 1_024;

/// Authors of which the newest whole snapshot of a tier is remembered besides: each box of a school wants to see its own
/// come back before it prunes, and boxes that are equal make snapshots that are equally new.
const AUTHORS_MAX: usize = 8;

#[derive(Debug)]
struct Known {
    snapshot: Snapshot,
    /// How many came before it.
    came: u64,
    /// Sites that hold the root.
    sites: Vec<SiteId>,
    on_its_way: bool,
    waiters: Vec<Waiter>,
}

impl Known {
    /// Newer is what adds up more changes; of equals what is sealed to newer keys, then what came later.
    fn age(&self) -> (u64, u32, u32, u64) {
        let root = self.snapshot.root();
        let Epoch { year, rotation } = Epoch::of(root.epoch);
        (root.changes(), rotation, year, self.came)
    }
}

#[derive(Debug, Clone)]
struct Part {
    location: Location,
    sites: Vec<SiteId>,
}

/// The snapshots of one school.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    known: BTreeMap<Hash32, Known>,
    parts: BTreeMap<Hash32, Part>,
    /// Whole ones that newer ones have replaced since the start, with their parts.
    forgotten: BTreeMap<Hash32, Vec<Hash32>>,
    /// How many have come.
    came: u64,
    /// Who waits for a part that is on its way, and for which root.
    on_their_way: BTreeMap<Hash32, Vec<(ReplyTo, Hash32)>>,
}

impl Snapshots {
    /// Adds one, unless it is known.
    fn add(&mut self, snapshot: Snapshot) -> &mut Known {
        self.came += 1;
        let came = self.came;
        self.known.entry(snapshot.hash()).or_insert_with(|| Known {
            snapshot,
            came,
            sites: Vec::new(),
            on_its_way: false,
            waiters: Vec::new(),
        })
    }

    fn has_part(&self, hash: Hash32, quorum: usize) -> bool {
        self.parts.get(&hash).is_some_and(|part| part.sites.len() >= quorum)
    }

    fn missing(&self, snapshot: &Snapshot, quorum: usize) -> Vec<u32> {
        let passed = usize::from(is_planted(Defect::SnapshotPartMissing));
        let looked_for = snapshot.root().parts.len().saturating_sub(passed);
        let parts = snapshot.root().parts.iter().take(looked_for).zip(0..);
        parts.filter(|(part, _)| !self.has_part(part.hash, quorum)).map(|(_, number)| number).collect()
    }

    fn is_whole(&self, known: &Known, quorum: usize) -> bool {
        known.sites.len() >= quorum && self.missing(&known.snapshot, quorum).is_empty()
    }

    fn newest(&self, tier: Tier, quorum: usize) -> Option<&Known> {
        let whole = self.known.values().filter(|known| known.snapshot.root().tier == tier);
        let whole = whole.filter(|known| self.is_whole(known, quorum));
        whole.max_by_key(|known| known.age())
    }

    /// Forgets those that somebody made who is revoked, or that hold more of a log than counts: they bring a state, and
    /// nobody could tell what of it the thief made up.
    pub(super) fn forget_uncounted(&mut self, counts: impl Fn(&SnapshotRoot) -> bool) {
        self.known.retain(|_, known| counts(known.snapshot.root()));
    }

    /// Returns roots that newer ones have replaced, and parts that only those name. What `proven` names stays.
    pub(super) fn superseded(&self, proven: &BTreeSet<Hash32>) -> (Vec<Hash32>, Vec<Hash32>) {
        let stays = |root: &Hash32| self.known.contains_key(root) || proven.contains(root);
        let (kept, gone): (Vec<_>, Vec<_>) = self.forgotten.iter().partition(|(root, _)| stays(root));
        let known = self.known.values().flat_map(|known| known.snapshot.root().parts.iter());
        let needed: BTreeSet<Hash32> = known
            .map(|part| part.hash)
            .chain(kept.into_iter().flat_map(|(_, parts)| parts.iter().copied()))
            .chain(self.on_their_way.keys().copied())
            .collect();
        let parts = gone.iter().flat_map(|(_, parts)| parts.iter().copied());
        let parts = parts.filter(|part| !needed.contains(part)).collect();
        (gone.into_iter().map(|(root, _)| *root).collect(), parts)
    }

    /// Learns where a part lies now, if it is known.
    pub(super) fn relocate(&mut self, hash: Hash32, location: &Location) {
        if let Some(part) = self.parts.get_mut(&hash) {
            part.location = location.clone();
        }
    }

    /// Forgets old ones, but for those that evidence names. Who merges objects leaves them out then.
    fn forget_old(&mut self, tier: Tier, quorum: usize, proven: &BTreeSet<Hash32>) {
        let of_tier = self
            .known
            .iter()
            .filter(|(hash, known)| known.snapshot.root().tier == tier && !proven.contains(*hash));
        let (mut whole, mut offered): (Vec<(_, Hash32, bool)>, Vec<_>) = of_tier
            .map(|(hash, known)| (known.age(), *hash, self.is_whole(known, quorum)))
            .partition(|(_, _, is_whole)| *is_whole);
        whole.sort_unstable();
        offered.sort_unstable();
        let mut authors = BTreeSet::new();
        let is_old = |(newer, hash): &(usize, Hash32)| {
            let author = self.known.get(hash).map(|known| known.snapshot.root().author);
            let is_authors_newest = authors.len() < AUTHORS_MAX && author.is_some_and(|a| authors.insert(a));
            *newer >= WHOLE_MAX && !is_authors_newest
        };
        let newest_first = whole.iter().rev().map(|(_, hash, _)| *hash).enumerate();
        let old_whole: Vec<Hash32> = newest_first.filter(is_old).map(|(_, hash)| hash).collect();
        let old_offered = offered.len().saturating_sub(SNAPSHOTS_OFFERED_MAX);
        let old_offered = offered.iter().take(old_offered).map(|(_, hash, _)| *hash);
        let old_offered: Vec<Hash32> = old_offered.collect();
        for hash in old_whole {
            if let Some(known) = self.known.remove(&hash)
                && self.forgotten.len() < FORGOTTEN_MAX
            {
                let parts = known.snapshot.root().parts.iter().map(|part| part.hash).collect();
                self.forgotten.insert(hash, parts);
            }
        }
        for hash in old_offered {
            self.known.remove(&hash);
        }
        let known = &self.known;
        let named = |hash: &Hash32| {
            known.values().any(|known| known.snapshot.root().parts.iter().any(|part| part.hash == *hash))
        };
        self.parts.retain(|hash, _| named(hash));
    }
}

/// What a welcome offers of a school.
pub(super) fn offers(school: &School, quorum: usize) -> Vec<SnapshotOffer> {
    let newest = |tier| school.snapshots.newest(tier, quorum);
    Tier::ALL
        .into_iter()
        .filter_map(newest)
        .map(|known| {
            let root = known.snapshot.root();
            let (bytes, changes) = (root.bytes(), root.changes());
            SnapshotOffer { tier: root.tier, root: known.snapshot.hash(), bytes, changes }
        })
        .collect()
}

impl Intake {
    /// Learns a part that sites hold.
    pub fn load_snapshot_part(
        &mut self,
        school: SchoolCode,
        hash: Hash32,
        location: Location,
        sites: Vec<SiteId>,
    ) {
        let parts = &mut self.schools.entry(school).or_default().snapshots.parts;
        parts.insert(hash, Part { location, sites });
    }

    /// Learns a root that sites hold, after its school's identities, batches and parts. Returns whether it counts.
    pub fn load_snapshot(&mut self, school: SchoolCode, text: &str, sites: Vec<SiteId>) -> bool {
        let Ok(snapshot) = self.verify_snapshot(school, text) else { return false };
        let (tier, quorum) = (snapshot.root().tier, self.config.quorum);
        let school = self.schools.entry(school).or_default();
        let proven = school.proven_roots();
        let known = school.snapshots.add(snapshot);
        known.sites = sites;
        school.snapshots.forget_old(tier, quorum, &proven);
        true
    }

    fn verify_snapshot(&self, code: SchoolCode, text: &str) -> Result<Snapshot, (RefusalCode, String)> {
        let school =
            self.schools.get(&code).ok_or((RefusalCode::Identity, "an unknown school".to_owned()))?;
        let author = Snapshot::peek(text).and_then(|root| school.identities.get(&root.author));
        if author.is_some_and(|identity| school.revocations.is_revoked(identity.replica())) {
            return Err((RefusalCode::Identity, REVOKED.to_owned()));
        }
        let snapshot = Snapshot::verify(text, code, |author| Some(*school.identities.get(&author)?.key()))
            .map_err(|error| (RefusalCode::Signature, error.to_string()))?;
        let root = snapshot.root();
        let manifest = school.manifests.get(&root.manifest);
        if manifest.and_then(|manifest| manifest.key(KeyUse::Tier(root.tier), root.epoch)).is_none() {
            return Err((RefusalCode::Manifest, "no known manifest names the key of a snapshot".into()));
        }
        let is_durable = |(log, head): (&LogName, &LogHead)| {
            school.logs.get(log).is_some_and(|log| log.has_durable(*head, self.config.quorum))
        };
        if root.heads.iter().all(is_durable) || is_planted(Defect::SnapshotAheadTaken) {
            Ok(snapshot)
        } else {
            Err((RefusalCode::Chain, "a snapshot names ends of logs that are not durable here".into()))
        }
    }

    /// A replica offers a snapshot.
    pub fn handle_snapshot(&mut self, to: ReplyTo, text: &str, now_ms: u64) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a snapshot before a hello");
        };
        let (code, waiter) = (connection.school, Waiter { to, loss_counter: connection.loss_counter });
        let snapshot = match self.verify_snapshot(code, text) {
            Ok(snapshot) => snapshot,
            Err((refusal, text)) => return self.refuse(to, code, refusal, &text),
        };
        let quorum = self.config.quorum;
        let (hash, tier) = (snapshot.hash(), snapshot.root().tier);
        let school = self.schools.entry(code).or_default();
        let proven = school.proven_roots();
        let snapshots = &mut school.snapshots;
        let missing = snapshots.missing(&snapshot, quorum);
        let known = snapshots.add(snapshot);
        if !missing.is_empty() {
            snapshots.forget_old(tier, quorum, &proven);
            return self.reply(to, Frame::SnapshotWants(SnapshotWants { root: hash, parts: missing }));
        }
        known.waiters.push(waiter);
        if known.sites.len() >= quorum {
            return self.snapshot_whole(code, hash, now_ms);
        }
        if !std::mem::replace(&mut known.on_its_way, true) {
            let pending = Pending::Snapshot { school: code, root: hash };
            self.store(RecordKind::Snapshot, text.as_bytes().to_vec(), pending);
        }
    }

    /// A part of a snapshot that was offered.
    pub fn handle_snapshot_part(&mut self, to: ReplyTo, part: SnapshotPart) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a part before a hello");
        };
        let (code, quorum) = (connection.school, self.config.quorum);
        let snapshots = &mut self.schools.entry(code).or_default().snapshots;
        let number = usize::try_from(part.number).unwrap_or(usize::MAX);
        let known = snapshots.known.get(&part.root);
        let Some(name) = known.and_then(|known| known.snapshot.root().parts.get(number)).copied() else {
            return self.refuse(
                to,
                code,
                RefusalCode::Unexpected,
                "a part of a snapshot that was not offered",
            );
        };
        if !name.is_of(&part.sealed) {
            return self.refuse(
                to,
                code,
                RefusalCode::Signature,
                "a part is not the one that its root names",
            );
        }
        if let Err(error) = check_recipients(&part.sealed) {
            return self.refuse(to, code, RefusalCode::Recipients, &error.to_string());
        }
        if snapshots.has_part(name.hash, quorum) {
            return self.answer_part(to, code, part.root);
        }
        let waiters = snapshots.on_their_way.entry(name.hash).or_default();
        let is_on_its_way = !waiters.is_empty();
        waiters.push((to, part.root));
        if !is_on_its_way {
            let pending = Pending::SnapshotPart { school: code, hash: name.hash };
            self.store(RecordKind::SnapshotPart, part.sealed, pending);
        }
    }

    fn answer_part(&mut self, to: ReplyTo, code: SchoolCode, root: Hash32) {
        let snapshots = self.schools.get(&code).map(|school| &school.snapshots);
        let known = snapshots.and_then(|snapshots| Some((snapshots, snapshots.known.get(&root)?)));
        let parts = known.map(|(all, known)| all.missing(&known.snapshot, self.config.quorum));
        self.reply(to, Frame::SnapshotWants(SnapshotWants { root, parts: parts.unwrap_or_default() }));
    }

    pub(super) fn snapshot_part_stored(
        &mut self,
        code: SchoolCode,
        hash: Hash32,
        location: &Location,
        sites: &[SiteId],
    ) {
        let quorum = self.config.quorum;
        let snapshots = &mut self.schools.entry(code).or_default().snapshots;
        let waiters = snapshots.on_their_way.remove(&hash).unwrap_or_default();
        let is_durable = sites.len() >= quorum;
        if is_durable {
            snapshots.parts.insert(hash, Part { location: location.clone(), sites: sites.to_vec() });
        }
        for (to, root) in waiters {
            if is_durable {
                self.answer_part(to, code, root);
            } else {
                self.refuse(to, code, RefusalCode::Storage, "fewer sites than the quorum could be written");
            }
        }
    }

    pub(super) fn snapshot_stored(&mut self, code: SchoolCode, root: Hash32, sites: &[SiteId], now_ms: u64) {
        let snapshots = &mut self.schools.entry(code).or_default().snapshots;
        let Some(known) = snapshots.known.get_mut(&root) else { return };
        known.on_its_way = false;
        known.sites = sites.to_vec();
        self.snapshot_whole(code, root, now_ms);
    }

    /// Answers those who wait for a root: with receipts if it is whole.
    fn snapshot_whole(&mut self, code: SchoolCode, root: Hash32, now_ms: u64) {
        let quorum = self.config.quorum;
        let Some(school) = self.schools.get_mut(&code) else { return };
        let Some(known) = school.snapshots.known.get_mut(&root) else { return };
        let waiters = std::mem::take(&mut known.waiters);
        let (tier, author, sites) =
            (known.snapshot.root().tier, known.snapshot.root().author, known.sites.clone());
        let is_whole =
            school.snapshots.known.get(&root).is_some_and(|k| school.snapshots.is_whole(k, quorum));
        let is_safe = is_whole && school.undurable.is_empty();
        let proven = school.proven_roots();
        school.snapshots.forget_old(tier, quorum, &proven);
        let log = LogName { tier, incarnation: author };
        for Waiter { to, loss_counter } in waiters {
            if is_safe {
                let head = LogHead { sequence: 0, hash: root };
                self.send_receipt(to, code, log, head, loss_counter, sites.clone(), now_ms);
            } else {
                self.refuse(to, code, RefusalCode::Storage, "a snapshot is on fewer sites than the quorum");
            }
        }
    }

    /// A replica asks for a snapshot. One that is not whole here gets an empty answer.
    pub fn handle_fetch_snapshot(&mut self, to: ReplyTo, fetch: &FetchSnapshot) {
        let Some(connection) = self.connections.get(&to.connection) else {
            return self.refuse_and_close(to, RefusalCode::Unexpected, "a fetch before a hello");
        };
        let snapshots = self.schools.get(&connection.school).map(|school| &school.snapshots);
        let quorum = self.config.quorum;
        let found = snapshots.and_then(|snapshots| {
            let known = match fetch.name {
                SnapshotName::Root(root) => snapshots.known.get(&root)?,
                SnapshotName::Tier(tier) => snapshots.newest(tier, quorum)?,
            };
            snapshots.is_whole(known, quorum).then_some((snapshots, &known.snapshot))
        });
        let root = found.map_or(Hash32::ZERO, |(_, snapshot)| snapshot.hash());
        let (text, parts) = found.map_or((None, Vec::new()), |(snapshots, snapshot)| {
            let parts = snapshot.root().parts.iter().zip(0..);
            let wanted = parts.filter(|(_, number)| !fetch.has.contains(number));
            let located = wanted.filter_map(|(part, number)| {
                Some((number, part.hash, snapshots.parts.get(&part.hash)?.location.clone()))
            });
            (Some(snapshot.text().to_owned()), located.collect())
        });
        self.effects.push_back(Effect::ServeSnapshot { to, root, text, parts });
    }
}
