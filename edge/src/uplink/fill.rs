//! A rebuild on a box that serves already: opens each tier to people when it is whole, says how fast it comes, and ends
//! the rebuild.
//!
//! **Invariant**: a tier is opened only when everything is durable here that a node has named of it which could read enough
//! of its sites to know all.

use std::collections::BTreeMap;

use sonae_proto::ids::Tier;
use sonae_proto::wire::SnapshotOffer;
use sonae_store::filling::Offered;

use super::Purpose;
use super::driver::Driver;

/// Milliseconds of fetching before a speed is told.
const MEASURED_MS_MIN: u64 = 1_000;

/// What is remembered while a store is being filled.
#[derive(Debug, Default)]
pub(super) struct Fill {
    /// The steady time at which the present connection was welcomed, and what had come over it by then.
    since: Option<(u64, u64)>,
    /// It was said why a tier never becomes whole.
    is_told: bool,
}

impl Driver {
    fn is_filling(&self) -> bool {
        self.purpose == Purpose::Serve && self.store.filling().is_filling()
    }

    /// A welcome offers these snapshots: from here on it is known how much is to come.
    pub(super) fn fill_welcomed(&mut self, offers: Option<&[SnapshotOffer]>) {
        if !self.is_filling() {
            return;
        }
        let received = self.connection.as_ref().map_or(0, |connection| connection.bytes().1);
        self.fill.since = Some((self.engine_ms(), received));
        let offers = offers.unwrap_or_default().iter();
        let snapshots: BTreeMap<Tier, Offered> = offers
            .map(|offer| (offer.tier, Offered { bytes: offer.bytes, changes: offer.changes }))
            .collect();
        self.shared.update(|status| {
            status.coming.is_named = true;
            status.coming.snapshots = snapshots;
        });
    }

    /// Opens tiers that have become whole. All that the engine asked for must have been done.
    pub(super) async fn fill(&mut self) {
        if !self.is_filling() {
            return;
        }
        self.tell_speed();
        for tier in self.store.filling().waiting() {
            if self.engine.has_tier_of_peers(tier) {
                self.open_tier(tier).await;
            }
        }
        if self.store.filling().waiting().is_empty() {
            return self.end_filling().await;
        }
        if let Some(log) = self.engine.parted().filter(|_| !self.fill.is_told) {
            self.fill.is_told = true;
            let text = format!(
                "the cloud has lost what was fetched of log {log} and has another branch of it now, so this rebuild never \
                 ends. What is usable stays so: wait until nothing is unsafe, then rebuild into an empty directory"
            );
            log::error!(text = text.as_str(); "a rebuild cannot end");
            self.shared.note_error(&self.clock, "rebuild_parted", text);
        }
    }

    async fn open_tier(&self, tier: Tier) {
        let filling = self.store.filling().clone();
        // It flushes a file.
        match tokio::task::spawn_blocking(move || filling.fill(tier)).await {
            Ok(Ok(())) => log::info!(tier:% = tier; "a tier is usable"),
            Ok(Err(error)) => self.not_noted(&error),
            Err(error) => log::error!(error = error.to_string(); "a tier could not be opened"),
        }
    }

    /// Everything is here: says whether it is what an outside witness names, and forgets that anything was filled.
    async fn end_filling(&mut self) {
        let filling = self.store.filling().clone();
        let mut missing = Vec::new();
        for (log, head) in filling.expected().unwrap_or_default() {
            if !self.store.has_head(log, head).await {
                missing.push(log.to_string());
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "the rebuild has ended and is INCOMPLETE: the cloud lacks changes that the given heads name, of {}. Ask \
                 whoever runs the cloud, and look for the box or stick that has them",
                missing.join(", ")
            );
            self.shared.note_error(&self.clock, "rebuild_incomplete", text);
        }
        let completeness = match (filling.expected(), missing.is_empty()) {
            (None, _) => "unverified",
            (Some(_), true) => "verified",
            (Some(_), false) => "incomplete",
        };
        match tokio::task::spawn_blocking(move || filling.end()).await {
            Ok(Ok(())) => log::info!(completeness; "the rebuild has ended"),
            Ok(Err(error)) => self.not_noted(&error),
            Err(error) => log::error!(error = error.to_string(); "the end of a rebuild could not be noted"),
        }
    }

    fn not_noted(&self, error: &std::io::Error) {
        log::error!(error = error.to_string(); "how far a rebuild is cannot be noted");
        self.shared.note_error(&self.clock, "rebuild_not_noted", error.to_string());
    }

    /// Tells how fast the present connection has been since its welcome.
    fn tell_speed(&mut self) {
        let Some(connection) = &self.connection else {
            self.fill.since = None;
            return self.shared.update(|status| status.coming.bytes_per_second = None);
        };
        let Some((since_ms, before)) = self.fill.since else { return };
        let (passed_ms, received) = (self.engine_ms().saturating_sub(since_ms), connection.bytes().1);
        if passed_ms >= MEASURED_MS_MIN {
            let speed = received.saturating_sub(before).saturating_mul(1_000) / passed_ms;
            self.shared.update(|status| status.coming.bytes_per_second = Some(speed));
        }
    }
}
