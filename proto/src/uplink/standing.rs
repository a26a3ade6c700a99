//! How replication stands, for status pages and for the shell. Reads only.

use crate::ids::{LogName, ReplicaId, Tier};
use crate::vector::Heads;

use super::{Line, Uplink};

impl Uplink {
    /// Returns the receipted heads of own logs: what is safe.
    #[must_use]
    pub fn receipted(&self) -> Heads {
        self.own.iter().filter_map(|(log, own)| Some((*log, own.receipted()?))).collect()
    }

    /// Returns the version of the manifest that is held.
    #[must_use]
    pub fn manifest_version(&self) -> u64 {
        self.manifest_version
    }

    /// Returns the loss counter.
    #[must_use]
    pub fn loss_counter(&self) -> u64 {
        self.loss_counter
    }

    /// Whether the cloud has been greeted and has answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.line == Line::Up
    }

    /// Whether the cloud could read enough of its sites to say what it has, when it was greeted last.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether a new incarnation has been asked for.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        self.renewing
    }

    /// Returns the devices that the board has revoked, as far as is known here.
    pub fn revoked_devices(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.peers.revocations().devices()
    }

    /// Returns when the cloud was last heard of.
    #[must_use]
    pub fn last_contact_ms(&self) -> Option<u64> {
        self.last_contact_ms
    }

    /// Returns since when no receipt has come although the line is up, once people have been told so.
    #[must_use]
    pub fn stalled_since_ms(&self) -> Option<u64> {
        self.stall.told_since_ms().filter(|_| self.is_up())
    }

    /// Returns the heads that the cloud has said it has.
    #[must_use]
    pub fn cloud_heads(&self) -> &Heads {
        &self.cloud_heads
    }

    /// Returns the heads of peers' logs that are verified here.
    #[must_use]
    pub fn peer_heads(&self) -> &Heads {
        self.peers.heads()
    }

    /// Whether something of others is being fetched, or is to be.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.line == Line::Up && (!self.peers.is_idle() || self.snapshots.is_fetching())
    }

    /// Whether everything that the cloud has of others is here.
    #[must_use]
    pub fn has_all_of_peers(&self) -> bool {
        self.line == Line::Up
            && !self.peers.is_fetching()
            && !self.snapshots.is_fetching()
            && Tier::ALL.into_iter().all(|tier| self.holds_tier(tier))
    }

    /// Whether everything that the cloud has of others in a tier is here, if it could read enough of its sites to know
    /// that it has named all of it. What else is still being fetched does not matter.
    #[must_use]
    pub fn has_tier_of_peers(&self, tier: Tier) -> bool {
        self.line == Line::Up && self.is_complete && self.holds_tier(tier)
    }

    fn holds_tier(&self, tier: Tier) -> bool {
        let mut others =
            self.cloud_heads.iter().filter(|(log, _)| log.tier == tier && !self.own.contains_key(log));
        others.all(|(log, there)| self.peers.has(*log, *there))
    }

    /// Returns a log of another of which the cloud has another branch than is held here, if it could read enough of its
    /// sites to say so. What it has of that log never comes into this store: whoever waits until everything is here
    /// ([`Self::has_all_of_peers`]) has to begin with an empty one.
    #[must_use]
    pub fn parted(&self) -> Option<LogName> {
        let others = self.cloud_heads.iter().filter(|(log, _)| !self.own.contains_key(log));
        let is_sure = self.line == Line::Up && self.is_complete;
        others
            .filter(|_| is_sure)
            .find(|(log, there)| self.peers.is_parted(**log, **there))
            .map(|(log, _)| *log)
    }
}
