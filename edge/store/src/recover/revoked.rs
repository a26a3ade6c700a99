//! What of the held batches of revoked devices counts, for whoever applies them at a start.

use std::collections::BTreeMap;

use sonae_proto::batch::BatchHeader;
use sonae_proto::ids::{Incarnation, LogName, ReplicaId};
use sonae_proto::revocation::Revocations;
use sonae_proto::vector::{Heads, Sequences};

use super::replay::Replay;
use crate::frame::StoredIdentity;
use crate::identity::ReplicaKeys;
use crate::keeper::apply_batch;
use crate::keyring::Keyring;
use crate::store::StoreError;
use crate::view::Staged;

/// Up to where logs of revoked devices count. What is held behind that is kept and not applied.
pub(super) struct Revoked {
    revocations: Revocations,
    replicas: BTreeMap<Incarnation, ReplicaId>,
    /// What a snapshot has brought cannot be taken apart.
    bases: Heads,
}

impl Revoked {
    pub fn of(
        identities: &BTreeMap<Incarnation, StoredIdentity>,
        keyring: &Keyring,
        keys: &ReplicaKeys,
        bases: &Heads,
    ) -> Self {
        let revocations = keyring.revocations();
        let is_any = revocations.devices().next().is_some();
        let verified = identities
            .iter()
            .filter(|_| is_any)
            .filter_map(|(name, text)| Some((*name, text.verify(&keys.board, keys.school).ok()?.replica())));
        Self { replicas: verified.collect(), revocations, bases: bases.clone() }
    }

    /// Whether a log is of a revoked device.
    pub fn concerns(&self, log: LogName) -> bool {
        self.replicas.get(&log.incarnation).is_some_and(|replica| self.revocations.is_revoked(*replica))
    }

    pub fn counts(&self, header: &BatchHeader) -> bool {
        let replica = self.replicas.get(&header.log.incarnation);
        replica.is_none_or(|replica| self.revocations.standing(*replica, header).counts())
    }

    pub fn is_too_much(&self, applied: &Sequences) -> bool {
        applied.iter().any(|(log, sequence)| {
            let replica = self.replicas.get(&log.incarnation);
            let accepted = replica.and_then(|replica| self.revocations.accepted(*replica, *log));
            let base = self.bases.get(log).map_or(0, |base| base.sequence);
            accepted.is_some_and(|accepted| accepted.sequence.max(base) < *sequence)
        })
    }
}

impl Replay<'_> {
    /// Applies held batches of revoked devices that did not count when they were passed over, and do by now.
    pub(super) fn accepted_since(&mut self, staged: &mut Staged<'_>) -> Result<(), StoreError> {
        let logs: Vec<LogName> = self.index.logs().filter(|log| self.revoked.concerns(*log)).collect();
        for log in logs {
            let headers: Vec<BatchHeader> = self.index.headers(log).collect();
            for header in headers.iter().take_while(|header| self.revoked.counts(header)) {
                if header.first != self.fold.applied(log) + 1 {
                    continue;
                }
                let Some(batch) = self.index.read(self.journal, log, header.first)? else { break };
                self.replayed += apply_batch(&mut self.fold, staged, self.keyring, &batch)?.changed;
            }
        }
        Ok(())
    }
}
