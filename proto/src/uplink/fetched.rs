//! What comes of a fetch: batches of peers, its end, and what could not be stored.

use crate::batch::{Batch, BatchHeader};

use super::{Alarm, Effect, Fetched, Uplink};

impl Uplink {
    /// A batch of a peer has come. It is stored only if it verifies and continues what is held.
    pub fn handle_fetched(&mut self, batch: Batch) {
        let Some(batch) = self.hold_back(batch) else { return };
        let log = batch.header().log;
        let fetched = if self.own.contains_key(&log) {
            Fetched::Bad("it is this replica's own log".to_owned())
        } else {
            self.peers.receive(&batch, self.school)
        };
        match fetched {
            Fetched::Store => {
                self.has_arrived = true;
                self.effects.extend(self.peers.contradicts(batch.header()).map(Effect::Alarm));
                self.effects.push_back(Effect::StoreBatch(Box::new(batch)));
            }
            // The cloud has it, and does not know yet that it does not count.
            Fetched::Known | Fetched::Quarantined => {}
            Fetched::Bad(reason) => {
                self.effects.push_back(Effect::Alarm(Alarm::BadPeerBatch { log, reason }));
            }
        }
    }

    /// A fetch has ended, whole or not.
    pub fn handle_fetch_end(&mut self) {
        self.peers.end_fetch(&self.cloud_heads);
        self.fetch_next();
    }

    /// A peer's batch could not be stored: it and what follows it are asked for again on the next connection, or when
    /// [`Self::handle_room`] says that there is room.
    pub fn handle_store_failed(&mut self, header: &BatchHeader) {
        self.peers.take_back(header);
    }
}
