//! What is said of compaction to people and scripts.

use serde::{Deserialize, Serialize};

use super::Pass;
use crate::clock::now_ms;

/// Compaction in `status.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionStatus {
    /// When the last pass ended, milliseconds since 1970 UTC; absent before the first.
    pub passed_ms: Option<u64>,
    /// Why nothing is merged or deleted at present; absent when nothing stands in the way.
    pub waits_for: Option<String>,
    /// Objects at the sites, each counted once, when the last pass began.
    pub objects: u64,
    /// Of these, merged ones.
    pub merged: u64,
    /// Of these, superseded ones that have not gone yet.
    pub superseded: u64,
    /// Hours for which the node has run since the oldest of them was read back in its merged form.
    pub oldest_hours: u64,
    /// Hours after which they go.
    pub delete_after_hours: u64,
    /// Objects that are damaged or whose copies differ: they are left as they are.
    pub left_alone: u64,
    /// Merged objects that were made since the start.
    pub made: u64,
    /// Records of superseded snapshots that were left out of them.
    pub left_out: u64,
    /// Copies of superseded objects that were deleted since the start.
    pub deleted: u64,
}

impl CompactionStatus {
    /// Adds what was merged and deleted out of turn.
    pub fn add(&mut self, pass: &Pass) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.made += count(pass.made);
        self.left_out += count(pass.left_out);
        self.deleted += count(pass.deleted);
    }

    /// Says what a pass found, and adds what it did.
    pub fn note(&mut self, pass: &Pass) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.passed_ms = Some(now_ms());
        self.waits_for = None;
        self.objects = count(pass.objects);
        self.merged = count(pass.merged);
        self.superseded = count(pass.superseded);
        self.oldest_hours = pass.oldest.as_secs() / 3_600;
        self.left_alone = count(pass.left_alone);
        self.add(pass);
    }
}
