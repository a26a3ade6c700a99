//! Snapshots at the node: served from its sites, and by a node that lies, old ones and with parts left out.
//!
//! **Invariant** that it checks: a receipt for a snapshot is signed only when its root, all its parts and everything that
//! it names are at the quorum at that very moment.

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::intake::{Location, ReplyTo};
use sonae_proto::receipt::Receipt;
use sonae_proto::wire::{FetchEnd, FetchSnapshot, Frame, SnapshotName, SnapshotOffer, SnapshotPart, Welcome};

use super::node;
use super::world::World;

impl World {
    /// A box asks for a snapshot. A node that lies may serve any that it ever had, whatever it has lost since.
    pub fn node_reads_fetch(&mut self, to: ReplyTo, fetch: &FetchSnapshot) {
        let old = match fetch.name {
            _ if !self.node_lies => None,
            SnapshotName::Root(root) => {
                self.witnessed.get(&root).filter(|known| known.is_receipted).map(|_| root)
            }
            SnapshotName::Tier(tier) => self.old_one(tier),
        };
        match old {
            Some(root) => self.serve_old(to, root),
            None => {
                if let Some(node) = &mut self.node {
                    node.intake.handle_fetch_snapshot(to, fetch);
                }
            }
        }
    }

    /// A snapshot of a tier that had its receipt once, in half of the cases.
    fn old_one(&mut self, tier: Tier) -> Option<Hash32> {
        let of_tier = self.witnessed.iter().filter(|(_, known)| known.snapshot.root().tier == tier);
        let roots: Vec<Hash32> =
            of_tier.filter(|(_, known)| known.is_receipted).map(|(root, _)| *root).collect();
        if roots.is_empty() || self.random.one_in(2) {
            return None;
        }
        Some(self.random.pick(&roots))
    }

    fn serve_old(&mut self, to: ReplyTo, root: Hash32) {
        let Some(known) = self.witnessed.get(&root) else { return };
        let (text, parts) = (known.snapshot.text().to_owned(), known.parts.clone());
        self.tell(to.connection, to.stream, &Frame::Snapshot(text));
        for (sealed, number) in parts.into_iter().zip(0..) {
            self.serve_part(to, root, number, sealed);
        }
        self.tell(to.connection, to.stream, &Frame::FetchEnd(FetchEnd { sequence: 0 }));
    }

    fn serve_part(&mut self, to: ReplyTo, root: Hash32, number: u32, sealed: Vec<u8>) {
        if !(self.node_lies && self.random.one_in(6)) {
            let part = SnapshotPart { root, number, sealed };
            self.tell(to.connection, to.stream, &Frame::SnapshotPart(Box::new(part)));
        }
    }

    /// What an honest node serves, until a part cannot be read.
    pub fn serve_snapshot(
        &mut self,
        to: ReplyTo,
        root: Hash32,
        text: Option<String>,
        parts: Vec<(u32, Hash32, Location)>,
    ) {
        if let Some(text) = text {
            self.tell(to.connection, to.stream, &Frame::Snapshot(text));
        }
        for (number, _, location) in parts {
            let Some(sealed) = node::read(&self.sites, &location) else { break };
            self.serve_part(to, root, number, sealed);
        }
        self.tell(to.connection, to.stream, &Frame::FetchEnd(FetchEnd { sequence: 0 }));
    }

    /// A node that lies offers old snapshots.
    pub fn lie_in_welcome(&mut self, welcome: &mut Welcome) {
        let Some(offers) = welcome.snapshots.as_mut().filter(|_| self.node_lies) else { return };
        for tier in Tier::ALL {
            if let Some(root) = self.old_one(tier)
                && let Some(known) = self.witnessed.get(&root)
            {
                let (bytes, changes) = (known.snapshot.root().bytes(), known.snapshot.root().changes());
                offers.retain(|offer| offer.tier != tier);
                offers.push(SnapshotOffer { tier, root, bytes, changes });
            }
        }
    }

    /// A receipt for a snapshot is signed.
    pub fn check_snapshot_receipt(&mut self, receipt: &Receipt) {
        let root = receipt.head.hash;
        let Some(known) = self.witnessed.get_mut(&root) else {
            return self.violate("the node signs a snapshot that nobody made".into());
        };
        known.is_receipted = true;
        let texts = std::iter::once(known.snapshot.text().as_bytes());
        let mut bodies = texts.chain(known.parts.iter().map(Vec::as_slice));
        let whole = match bodies.position(|body| !self.ledger.is_document_at_quorum(body)) {
            Some(0) => Err("a snapshot is receipted, but its root is not at the quorum".to_owned()),
            Some(number) => {
                Err(format!("a snapshot is receipted, but its part {number} is not at the quorum"))
            }
            None => Ok(()),
        };
        let heads = known.snapshot.root().heads.clone();
        self.hold(whole);
        for (log, head) in heads {
            let identity = self.identities.get(&log.incarnation).map(Vec::as_slice);
            let signed = self.ledger.signed(log, head, identity);
            self.hold(signed);
        }
    }
}
