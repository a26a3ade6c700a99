//! Batches that are ahead of the key documents by which they were sealed. Documents travel on the control stream, and
//! on a line with losses a batch on a stream of its own overtakes them; it waits for them instead of being refused.
//!
//! **Invariant**: of one connection no more batches wait than a replica has under way, and no more bytes than one
//! frame may have: whoever asked may have gone, and with it the shell's bound on what waits for an answer.

use crate::limits::{BATCHES_IN_FLIGHT_MAX, FRAME_BYTES_MAX};

use super::{ConnectionId, Intake, ReplyTo};

/// What is ahead on one connection.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The version of the manifest that the replica has said it holds: it sends that if it is newer than the node's.
    manifest_version: u64,
    /// Documents came that mean nothing here; the right ones may never come.
    is_given_up: bool,
    /// With the time at which each came.
    batches: Vec<(ReplyTo, Vec<u8>, u64)>,
}

impl Ahead {
    pub fn of(manifest_version: u64) -> Self {
        Self { manifest_version, is_given_up: false, batches: Vec::new() }
    }
}

impl Intake {
    /// Whether newer key documents are on their way on a connection, and there is room for a batch of so many bytes.
    pub(super) fn awaits_keys(&self, connection: ConnectionId, bytes: usize) -> bool {
        let Some(known) = self.connections.get(&connection).filter(|known| !known.is_carried) else {
            return false;
        };
        let newest = self.schools.get(&known.school).map_or(0, |school| school.newest);
        let is_ahead = newest < known.ahead.manifest_version;
        let batches = &known.ahead.batches;
        let held: usize = batches.iter().map(|(_, bytes, _)| bytes.len()).sum();
        let has_room = batches.len() < BATCHES_IN_FLIGHT_MAX && held.saturating_add(bytes) <= FRAME_BYTES_MAX;
        is_ahead && !known.ahead.is_given_up && has_room
    }

    /// Holds a batch until the documents come. If they never do, the shell gives up on its stream.
    pub(super) fn hold_ahead(&mut self, to: ReplyTo, bytes: Vec<u8>, now_ms: u64) {
        if let Some(known) = self.connections.get_mut(&to.connection) {
            known.ahead.batches.push((to, bytes, now_ms));
        }
    }

    /// Documents have come: what waited for them goes on, or is refused now.
    pub(super) fn take_ahead(&mut self, connection: ConnectionId, is_given_up: bool) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        known.ahead.is_given_up |= is_given_up;
        for (to, bytes, now_ms) in std::mem::take(&mut known.ahead.batches) {
            self.handle_batch(to, bytes, now_ms);
        }
    }
}
