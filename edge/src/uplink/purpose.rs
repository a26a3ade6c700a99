//! What an uplink is for: to serve a replica, or to read back for a restore proof what the cloud holds.
//!
//! **Invariant**: a proof takes nothing beyond its heads and tells the cloud nothing but its hello: no batches, no
//! snapshots, no keys, no losses, no evidence.

use sonae_proto::uplink::Effect;
use sonae_proto::vector::Heads;
use sonae_proto::wire::{ProofText, SnapshotOffer};

use super::driver::Driver;

/// What an uplink is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// It sends what is sealed and fetches all that others wrote.
    Serve,
    /// It fetches all logs, own ones too, or snapshots in place of their beginnings.
    Prove {
        /// Up to these heads.
        until: Heads,
        /// The snapshots that may come: this box knows them, and none leads past the heads.
        snapshots: Vec<SnapshotOffer>,
    },
}

impl Purpose {
    /// Returns what of the cloud's heads is to be fetched. A head that the cloud has passed counts as reached.
    pub(super) fn wanted(&self, there: &Heads) -> Heads {
        match self {
            Self::Serve => there.clone(),
            Self::Prove { until, .. } => until
                .iter()
                .filter_map(|(log, until)| {
                    let there = there.get(log)?;
                    Some((*log, if there.sequence >= until.sequence { *until } else { *there }))
                })
                .collect(),
        }
    }

    /// Returns which of the snapshots that the cloud offers count: for a proof it is asked for those that the box names.
    pub(super) fn offered(&self, there: Option<Vec<SnapshotOffer>>) -> Option<Vec<SnapshotOffer>> {
        match self {
            Self::Serve => there,
            Self::Prove { snapshots, .. } => there.map(|_| snapshots.clone()),
        }
    }

    /// Whether a fetched batch that ends so is to be taken.
    pub(super) fn takes(&self, log: sonae_proto::ids::LogName, last: u64) -> bool {
        match self {
            Self::Serve => true,
            Self::Prove { until, .. } => until.get(&log).is_some_and(|until| last <= until.sequence),
        }
    }

    /// Whether what others write meanwhile matters.
    pub(super) const fn hears_news(&self) -> bool {
        matches!(self, Self::Serve)
    }

    /// Whether an effect may be done.
    pub(super) const fn allows(&self, effect: &Effect) -> bool {
        let speaks = matches!(
            effect,
            Effect::SendKeys
                | Effect::SendBatch { .. }
                | Effect::SendSnapshot(_)
                | Effect::SendSnapshotPart { .. }
                | Effect::SnapshotSafe { .. }
                | Effect::KeepShown(_)
                | Effect::KeepLoss { .. }
                | Effect::KeepReceipt { .. }
                | Effect::Renew
        );
        !speaks || matches!(self, Self::Serve)
    }

    /// Returns what the hello calls the software.
    pub(super) const fn software(&self) -> &'static str {
        match self {
            Self::Serve => concat!("sonae-edge ", env!("CARGO_PKG_VERSION")),
            Self::Prove { .. } => concat!("sonae-edge ", env!("CARGO_PKG_VERSION"), " restore proof"),
        }
    }
}

impl Driver {
    /// Sends the evidence that the cloud does not hold yet, if it takes any and none is under way.
    pub(super) fn publish(&mut self) {
        if !self.takes_proofs || self.publishing || self.purpose != Purpose::Serve {
            return;
        }
        let document = self.proofs.unpublished().borrow().clone();
        if let (Some(document), Some(connection)) = (document, &self.connection) {
            connection.publish(ProofText { document }, self.events.clone());
            self.publishing = true;
        }
    }

    /// The cloud has answered evidence: it holds it, or says why not. That is tried again on the next connection.
    pub(super) fn published(&mut self, outcome: Result<ProofText, String>) {
        self.publishing = false;
        match outcome {
            // There is a later one by now.
            Ok(proof) if self.proofs.unpublished().borrow().as_ref() != Some(&proof.document) => {
                self.publish()
            }
            Ok(proof) => {
                let proofs = self.proofs.clone();
                // It keeps a file, which may wait for the disk.
                tokio::task::spawn_blocking(move || proofs.published(&proof.document));
            }
            Err(reason) => log::warn!(reason; "the cloud has not taken the evidence of a restore proof"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::ids::{Hash32, Incarnation, LogName, Tier};
    use sonae_proto::vector::LogHead;

    fn log(byte: u8) -> LogName {
        LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([byte; 16]) }
    }

    fn head(sequence: u64, byte: u8) -> LogHead {
        LogHead { sequence, hash: Hash32([byte; 32]) }
    }

    /// Goal: a proof fetches up to its heads, no further, and no log that it does not name. Method: a cloud that is
    /// ahead, behind, without a log, and with one more.
    #[test]
    fn a_proof_stops_at_its_heads() {
        let until = Heads::from([(log(1), head(5, 1)), (log(2), head(5, 2)), (log(3), head(5, 3))]);
        let prove = Purpose::Prove { until, snapshots: Vec::new() };
        let there = Heads::from([(log(1), head(9, 9)), (log(2), head(4, 8)), (log(4), head(7, 7))]);
        let wanted = Heads::from([(log(1), head(5, 1)), (log(2), head(4, 8))]);
        assert_eq!(prove.wanted(&there), wanted);
        assert_eq!(Purpose::Serve.wanted(&there), there);
        let offer =
            |byte| SnapshotOffer { tier: Tier::Daily, root: Hash32([byte; 32]), bytes: 1, changes: 1 };
        assert_eq!(
            prove.offered(Some(vec![offer(1)])),
            Some(Vec::new()),
            "a stranger's may lead past the heads"
        );
        let through = Purpose::Prove { until: Heads::new(), snapshots: vec![offer(2)] };
        assert_eq!(through.offered(Some(vec![offer(1)])), Some(vec![offer(2)]));
        assert_eq!((through.offered(None), Purpose::Serve.offered(Some(vec![]))), (None, Some(vec![])));
        assert!(prove.takes(log(1), 5) && !prove.takes(log(1), 6) && !prove.takes(log(4), 1));
    }

    /// Goal: a proof changes nothing at the cloud. Method: every effect that speaks or keeps, and those that read.
    #[test]
    fn a_proof_only_reads() {
        let prove = Purpose::Prove { until: Heads::new(), snapshots: Vec::new() };
        let loss = Effect::KeepLoss { loss_counter: 1, receipted: Heads::new() };
        let batch = Effect::SendBatch { log: log(1), first: 1 };
        let part = Effect::SendSnapshotPart { root: Hash32([1; 32]), number: 0 };
        for effect in [Effect::SendKeys, Effect::Renew, loss, batch, part] {
            assert!(!prove.allows(&effect) && Purpose::Serve.allows(&effect), "{effect:?}");
        }
        assert!(prove.allows(&Effect::Dial) && prove.allows(&Effect::SendHello));
    }
}
