//! Version vectors: for each log the last sequence, and the hash that proves which history it ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Hash32, LogName};

/// The end of a log as somebody knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Sequence of its last change.
    pub sequence: u64,
    /// Hash of its last batch.
    pub hash: Hash32,
}

impl LogHead {
    /// A log without a batch.
    pub const EMPTY: Self = Self { sequence: 0, hash: Hash32::ZERO };
}

impl Default for LogHead {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Heads of logs, in tier order.
pub type Heads = BTreeMap<LogName, LogHead>;

/// Sequences of logs, in tier order: what a view adds up to.
pub type Sequences = BTreeMap<LogName, u64>;
