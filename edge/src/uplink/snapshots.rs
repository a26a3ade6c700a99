//! Snapshots on the line: fetched for an empty store, made when own batches have grown, and offered to the cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::snapshot::Snapshot;
use sonae_proto::wire::{FetchSnapshot, Frame, SnapshotName, SnapshotPart};
use sonae_store::Store;
use sonae_store::filling::SnapshotProgress;
use sonae_store::snapshot::{Made, SnapshotFailure};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Purpose;
use super::driver::Driver;

/// Between two snapshots of a tier, unless it has grown severalfold: a busy morning makes one, not forty.
const PAUSE: Duration = Duration::from_secs(600);

/// How many times the last one it must have grown for that.
const GROWN: u64 = 4;

/// What a thread that made a snapshot, or did not, tells.
pub(super) type Outcome = (Tier, Result<Snapshot, SnapshotFailure>);

/// Decides when a snapshot is made, and has it made.
pub(super) struct Maker {
    outcomes: mpsc::UnboundedSender<Outcome>,
    is_busy: bool,
    last: BTreeMap<Tier, Instant>,
    /// Tiers whose last try failed.
    failed: BTreeSet<Tier>,
    /// Something became safe since it was last looked at.
    is_told: bool,
}

impl Maker {
    /// Starts; what is made comes out of the receiver.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Outcome>) {
        let (outcomes, made) = mpsc::unbounded_channel();
        (
            Self { outcomes, is_busy: false, last: BTreeMap::new(), failed: BTreeSet::new(), is_told: false },
            made,
        )
    }

    /// Something became safe: a snapshot may be due as soon as everything is.
    pub fn tell(&mut self) {
        self.is_told = true;
    }

    fn is_due(&self, tier: Tier, store: &Store, own_bytes: u64) -> bool {
        let made = Made::read(store.shelf(), tier);
        let severalfold =
            made.as_ref().is_none_or(|made| made.grown(own_bytes) >= made.bytes.saturating_mul(GROWN));
        let rested = self.last.get(&tier).is_none_or(|at| at.elapsed() >= PAUSE);
        // What has failed would fail again, and costs the same each time.
        let is_outdated = store.is_sealed_to_older_keys(tier);
        let may = rested || (severalfold || is_outdated) && !self.failed.contains(&tier);
        may && (is_outdated || Made::is_due(made.as_ref(), own_bytes))
    }

    fn consider(&mut self, store: &Store) {
        if self.is_busy || !std::mem::take(&mut self.is_told) {
            return;
        }
        let state = store.state();
        let own_bytes = |tier: Tier| state.own_bytes.get(&tier).copied().unwrap_or(0);
        let due =
            |tier: &Tier| store.filling().is_usable(*tier) && self.is_due(*tier, store, own_bytes(*tier));
        let Some(tier) = Tier::ALL.into_iter().find(due) else { return };
        // A snapshot helps whoever rebuilds; room that people need for writing is not spent on it.
        if store.pressure().refused_from().is_some() {
            return;
        }
        self.is_busy = true;
        self.last.insert(tier, Instant::now());
        let (outcomes, store) = (self.outcomes.clone(), store.clone());
        tokio::task::spawn_blocking(move || {
            // The uplink may have ended meanwhile.
            let _ = outcomes.send((tier, store.make_snapshot_blocking(tier)));
        });
    }
}

impl Driver {
    /// Has a snapshot made if one is due and all that is kept here is safe, so that the line is free for it.
    pub(super) fn consider_snapshot(&mut self) {
        if self.purpose == Purpose::Serve && self.engine.is_up() && !self.engine.is_waiting() {
            self.maker.consider(&self.store);
        }
    }

    /// Offers what was made before and has no receipt under the present loss counter: since the last start, or because
    /// the cloud has lost something.
    pub(super) fn resume_snapshots(&mut self) {
        if self.purpose != Purpose::Serve {
            return;
        }
        let (shelf, loss_counter) = (self.store.shelf().clone(), self.store.state().loss_counter);
        for tier in Tier::ALL {
            let made = Made::read(&shelf, tier).filter(|made| !made.is_safe(loss_counter));
            let text = made.and_then(|made| shelf.root_text(made.root));
            let own_key = *self.keys.identity.key();
            let own = |author| (author == self.keys.name()).then_some(own_key);
            let snapshot = text.and_then(|text| Snapshot::verify(&text, self.keys.school, own).ok());
            if let Some(snapshot) = snapshot {
                self.engine.handle_snapshot_made(snapshot);
            }
        }
    }

    /// A thread has made a snapshot, or has not.
    pub(super) fn snapshot_made(&mut self, (tier, outcome): Outcome) {
        self.maker.is_busy = false;
        self.maker.tell();
        match &outcome {
            Ok(_) => self.maker.failed.remove(&tier),
            Err(_) => self.maker.failed.insert(tier),
        };
        match outcome {
            Ok(snapshot) => {
                let bytes = snapshot.root().bytes();
                log::info!(tier:% = tier, records = snapshot.root().records, bytes; "a snapshot was made");
                self.engine.handle_snapshot_made(snapshot);
            }
            Err(SnapshotFailure::Later { .. }) => log::info!(tier:% = tier; "a snapshot has to wait"),
            Err(error) => {
                log::error!(tier:% = tier, error = error.to_string(); "a snapshot could not be made");
                self.shared.note_error(&self.clock, "snapshot_not_made", error.to_string());
            }
        }
    }

    pub(super) async fn fetch_snapshot(&mut self, name: SnapshotName) {
        let shelf = self.store.shelf().clone();
        let has = match name {
            SnapshotName::Root(root) => tokio::task::spawn_blocking(move || shelf.has(root)).await,
            SnapshotName::Tier(_) => Ok(Vec::new()),
        };
        let fetch = FetchSnapshot { name, has: has.unwrap_or_default() };
        if let Some(connection) = &self.connection {
            connection.fetch_snapshot(fetch, self.events.clone());
            self.fetching += 1;
            self.expect_answer();
        }
    }

    /// Keeps the root of what is being fetched and shows how far it is.
    pub(super) async fn keep_snapshot(&mut self, snapshot: Snapshot) {
        let (shelf, root) = (self.store.shelf().clone(), snapshot.root().clone());
        let hash = snapshot.hash();
        let kept = tokio::task::spawn_blocking(move || shelf.put_root(&snapshot).map(|()| shelf.has(hash)));
        let held = match kept.await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => return self.shelf_failed(&error),
            Err(_) => return,
        };
        let is_held = |number: u32| held.contains(&number);
        let here = root.parts.iter().zip(0..).filter(|(_, number)| is_held(*number));
        let here = here.map(|(part, _)| u64::from(part.bytes)).sum();
        let progress = SnapshotProgress { tier: root.tier, here_bytes: here, bytes: root.bytes() };
        self.shared.update(|status| status.snapshot = Some(progress));
    }

    pub(super) async fn keep_snapshot_part(&mut self, part: SnapshotPart) {
        let (shelf, bytes) = (self.store.shelf().clone(), part.sealed.len());
        let kept = tokio::task::spawn_blocking(move || shelf.put_part(&part.sealed)).await;
        if let Ok(Err(error)) = kept {
            self.shelf_failed(&error);
        }
        self.shared.update(|status| {
            if let Some(progress) = &mut status.snapshot {
                progress.here_bytes += u64::try_from(bytes).unwrap_or(0);
            }
        });
    }

    /// The part is missing when the snapshot is loaded, and its tier comes change by change then.
    fn shelf_failed(&self, error: &std::io::Error) {
        log::error!(error = error.to_string(); "a snapshot cannot be kept");
        self.shared.note_error(&self.clock, "snapshot_not_kept", error.to_string());
    }

    pub(super) async fn load_snapshot(&mut self, snapshot: Snapshot) {
        let outcome = self.store.load_snapshot(snapshot.hash()).await;
        self.shared.update(|status| status.snapshot = None);
        self.engine.handle_snapshot_loaded(&snapshot, outcome);
    }

    pub(super) fn send_snapshot(&mut self, root: Hash32, frame: Frame) {
        if let Some(connection) = &self.connection {
            connection.send_snapshot(root, frame, self.events.clone());
            self.under_way += 1;
            self.expect_answer();
        }
    }

    pub(super) fn send_snapshot_part(&mut self, root: Hash32, number: u32) {
        let shelf = self.store.shelf();
        let name = shelf.root(root).and_then(|root| root.parts.get(usize::try_from(number).ok()?).copied());
        match name.and_then(|name| shelf.part(&name)) {
            Some(sealed) => {
                let part = SnapshotPart { root, number, sealed };
                self.send_snapshot(root, Frame::SnapshotPart(Box::new(part)));
            }
            // The shelf has lost it; the next snapshot is made anew.
            None => self.engine.handle_snapshot_lost(root),
        }
    }
}
