//! What the driver says: hellos and other control frames, and batches on streams of their own.

use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::LogName;
use sonae_proto::wire::{Frame, Hello, PROTOCOL};
use sonae_trust::entropy::{Entropy, SystemEntropy};

use super::Purpose;
use super::driver::Driver;

impl Driver {
    pub(super) fn send_hello(&mut self) {
        let mut nonce = [0; 16];
        let random = SystemEntropy.fill(&mut nonce);
        if random.is_err() {
            return self.hang_up();
        }
        let state = self.store.state();
        let mut hello = Hello {
            protocol: PROTOCOL,
            school: self.keys.school,
            identity: self.keys.identity.text(),
            loss_counter: self.engine.loss_counter(),
            receipted: self.engine.receipted(),
            have: state.vector,
            manifest_version: self.engine.manifest_version(),
            nonce: data_encoding::HEXLOWER.encode(&nonce),
            software: self.purpose.software().to_owned(),
            ended: EndedHashes::new(),
        };
        // A proof is to see all that the cloud names.
        if self.purpose == Purpose::Serve {
            self.engine.say_ended(&mut hello);
        }
        self.tell(vec![Frame::Hello(Box::new(hello))]);
    }

    /// The bundle's own may be news to the cloud. Batches may have been sealed under any of them.
    pub(super) async fn send_keys(&mut self) {
        let present = self.newest_documents.clone().unwrap_or_else(|| self.store.documents());
        let all = self.store.all_documents(&self.bundled_documents, present).await;
        // However many there are, they take one place: a box that hung up for their number would never send a batch.
        self.tell(all.into_iter().map(|documents| Frame::Keys(Box::new(documents))).collect());
    }

    fn tell(&mut self, frames: Vec<Frame>) {
        let sent = self.connection.as_ref().is_some_and(|connection| connection.tell(frames));
        if !sent {
            self.hang_up();
        }
    }

    pub(super) fn send_batch(&mut self, log: LogName, first: u64) {
        if let Some(connection) = &self.connection {
            connection.send_batch(log, first, self.store.clone(), self.events.clone());
            self.under_way += 1;
            self.expect_answer();
        }
    }

    /// A batch that was to be sent is not here.
    pub(super) fn missing(&mut self, log: LogName, now_ms: u64) {
        if self.keys.name() == log.incarnation {
            log::error!(log = log.to_string(); "a sealed batch cannot be read");
            return self.hang_up();
        }
        self.under_way = self.under_way.saturating_sub(1);
        self.engine.handle_batch_missing(log, now_ms);
    }
}
