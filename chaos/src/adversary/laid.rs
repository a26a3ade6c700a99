//! A box under attack and snapshots: it fetches them, keeps their parts, and lays whole ones under tiers, as
//! `edge/src/uplink/snapshots.rs` and the keeper of `edge/store` do.
//!
//! **Invariant**: a snapshot is laid whole and added up, and only where nothing of its tier is held.

use sonae_proto::ids::LogName;
use sonae_proto::snapshot::{Record, Snapshot};
use sonae_proto::vector::LogHead;
use sonae_proto::wire::{FetchSnapshot, Frame, SnapshotName, SnapshotPart};

use super::appliance::Appliance;
use super::history::digest_key;
use super::proxy::{Proxy, decode};

impl Appliance<'_> {
    /// Where the batches of a log begin.
    pub fn base(&self, log: LogName) -> LogHead {
        let laid = self.laid.get(&log.tier);
        laid.and_then(|(_, root)| root.heads.get(&log).copied()).unwrap_or(LogHead::EMPTY)
    }

    pub(super) fn fetch_snapshot(
        &mut self,
        proxy: &mut Proxy<'_>,
        name: SnapshotName,
    ) -> Result<(), &'static str> {
        let has = match name {
            SnapshotName::Root(root) => self.shelf.has(root),
            SnapshotName::Tier(_) => Vec::new(),
        };
        let (frames, is_cut) = proxy.fetch_snapshot(&FetchSnapshot { name, has });
        for bytes in frames {
            match decode(&bytes) {
                Some(Frame::Snapshot(text)) => self.engine.handle_snapshot_root(name, &text),
                Some(Frame::SnapshotPart(part)) => self.engine.handle_snapshot_part(*part),
                Some(Frame::FetchEnd(_)) => {
                    self.engine.handle_snapshot_end(name);
                    return Ok(());
                }
                Some(_) => return Err("a frame out of turn"),
                None => return Err("a frame without meaning"),
            }
        }
        self.is_cut = is_cut;
        Err("a fetch of a snapshot did not end")
    }

    pub(super) fn keep_part(&mut self, part: SnapshotPart) {
        let root = self.shelf.root(part.root);
        let name = root.and_then(|root| root.parts.get(usize::try_from(part.number).ok()?).copied());
        self.kept_unnamed |= !name.is_some_and(|name| name.is_of(&part.sealed));
        self.shelf.put_part(part.sealed);
    }

    pub(super) fn load_snapshot(&mut self, snapshot: &Snapshot) {
        let outcome = self.lay(snapshot).map_err(str::to_owned);
        self.engine.handle_snapshot_loaded(snapshot, outcome);
    }

    fn lay(&mut self, snapshot: &Snapshot) -> Result<(), &'static str> {
        let (tier, hash) = (snapshot.root().tier, snapshot.hash());
        if self.fold.sequences.iter().any(|(log, sequence)| log.tier == tier && *sequence > 0) {
            return Err("cannot be taken while its tier is held");
        }
        let school = &self.history.board.school;
        let (root, records, sum) = self.shelf.read_with(hash, digest_key(), |root, sealed| {
            school.open_payload((root.tier, root.epoch), sealed).ok()
        })?;
        for Record { collection, record, state } in records {
            let stamps = state.fields.values().flat_map(|field| &field.heads).map(|head| head.stamp);
            self.fold.highest_stamp = stamps.fold(self.fold.highest_stamp, Ord::max);
            self.records.records.insert((tier, collection, record), state);
        }
        self.fold.sequences.extend(root.heads.iter().map(|(log, head)| (*log, head.sequence)));
        self.fold.digests.insert(tier, sum.digest());
        self.laid.insert(tier, (hash, root));
        Ok(())
    }
}
