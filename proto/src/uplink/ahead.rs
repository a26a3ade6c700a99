//! What lies behind a snapshot is asked for while the snapshot comes: on a long line the logs' ends are there with it,
//! and not a round trip later.
//!
//! **Invariant**: nothing of it is stored before the snapshot is the state of its tier; if that fails, nothing of it is.

use std::collections::BTreeSet;

use crate::batch::Batch;
use crate::ids::LogName;
use crate::wire::Fetch;

use super::{Effect, Uplink};

/// Bytes of batches that are held back at most. What finds no room is asked for again when the snapshot is there.
const HELD_BACK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Logs that were asked for ahead of a snapshot, and what has come of them.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    asked: BTreeSet<LogName>,
    batches: Vec<Batch>,
    bytes: usize,
    is_full: bool,
}

impl Uplink {
    /// Asks for the next log behind the snapshot that is coming.
    pub(super) fn fetch_ahead(&mut self) {
        let Some(root) = self.snapshots.coming() else { return };
        if self.ahead.is_full || self.peers.is_refused(root.tier) {
            return;
        }
        let behind = self.cloud_heads.iter().find_map(|(log, there)| {
            let after = root.heads.get(log).map_or(0, |head| head.sequence);
            let is_wanted = log.tier == root.tier && there.sequence > after;
            (is_wanted && !self.own.contains_key(log) && !self.ahead.asked.contains(log))
                .then_some(Fetch { log: *log, after })
        });
        let Some(fetch) = behind else { return };
        self.ahead.asked.insert(fetch.log);
        self.peers.fetch_ahead(&fetch);
        self.effects.push_back(Effect::Fetch(fetch));
    }

    /// Keeps back a batch that was asked for ahead of a snapshot. Returns it when there is nothing to wait for.
    pub(super) fn hold_back(&mut self, batch: Batch) -> Option<Batch> {
        let log = batch.header().log;
        if self.snapshots.coming().is_none_or(|root| root.tier != log.tier) {
            return Some(batch);
        }
        if !self.ahead.asked.contains(&log) {
            // Nobody has asked for it, and nothing of its tier may be stored now.
            return None;
        }
        self.ahead.bytes += batch.bytes().len();
        self.ahead.is_full |= self.ahead.bytes > HELD_BACK_BYTES_MAX;
        if self.ahead.is_full {
            self.peers.pass_over(log);
        } else {
            self.ahead.batches.push(batch);
        }
        None
    }

    /// The snapshot is the state of its tier: what was held back follows it.
    pub(super) fn release_held_back(&mut self) {
        for batch in std::mem::take(&mut self.ahead).batches {
            self.handle_fetched(batch);
        }
        self.want_peers(&self.cloud_said.clone());
    }

    /// The snapshot does not come to anything: its tier is asked for from its first change.
    pub(super) fn drop_held_back(&mut self) {
        for log in std::mem::take(&mut self.ahead).asked {
            // Its fetch may still be under way.
            self.peers.pass_over(log);
        }
        self.want_peers(&self.cloud_said.clone());
    }
}
