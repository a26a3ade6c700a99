//! A peer that is revoked after its batches were applied: the next start takes back what does not count, keeps it, and
//! applies it when the board accepts it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::revocation::Revocation;
use sonae_proto::vector::{Heads, LogHead};
use sonae_store::identity::ReplicaKeys;
use sonae_store::testing::{Board, open_store};
use sonae_store::{Action, Clock, Edit, Opened, Store, enrolment};
use tokio::runtime::Runtime;

fn write(store: &Store, number: usize) {
    let edits = vec![Edit {
        collection: "student".into(),
        record: format!("p{number}"),
        fields: BTreeMap::from([("grade".into(), "P1".into())]),
        seen: None,
    }];
    store.write_blocking(Action { who: Some("tester".into()), source: None, edits }).unwrap();
}

fn replica(board: &Board, data: &Path) -> ReplicaBundle {
    let bundle = board.bundle();
    drop(enrolment::enrol(data, &bundle, Beginning::Enrolment, 1).unwrap());
    bundle
}

struct Scene {
    dir: tempfile::TempDir,
    runtime: Runtime,
    board: Board,
    stays: ReplicaBundle,
    thief: ReplicaKeys,
    log: LogName,
    batches: Vec<Batch>,
}

impl Scene {
    /// A peer with three batches of one change each.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let board = Board::default();
        let data = dir.path().join("thief");
        let bundle = replica(&board, &data);
        let opened = open_store(&data, &bundle, Clock::system());
        for number in 0..3 {
            write(&opened.store, number);
            runtime.block_on(opened.store.seal_now());
        }
        let thief = ReplicaKeys::load(&data, &bundle).unwrap();
        let log = LogName { tier: Tier::Safety, incarnation: thief.name() };
        let held = runtime.block_on(opened.store.held()).unwrap();
        let read = |header: &BatchHeader| {
            let bytes = runtime.block_on(opened.store.batch(log, header.first)).unwrap();
            Batch::from_bytes(bytes).unwrap()
        };
        let batches: Vec<Batch> = held[&log].iter().map(read).collect();
        assert_eq!(batches.len(), 3);
        opened.close();
        let stays = replica(&board, &dir.path().join("stays"));
        Self { dir, runtime, board, stays, thief, log, batches }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("stays")
    }

    fn open(&self) -> Opened {
        open_store(&self.data(), &self.stays, Clock::system())
    }

    fn head(&self, count: usize) -> LogHead {
        self.batches[count - 1].header().head()
    }

    /// The board accepts so many batches of the thief.
    fn say(&self, opened: &Opened, version: u64, count: usize) {
        let accepted = Heads::from([(self.log, self.head(count))]);
        let replica = self.thief.identity.device.body().replica();
        let word = Revocation { replica, revoked_ms: 1, accepted, dropped: Heads::new() };
        opened.store.keep_documents(self.board.revoking(&self.stays, version, vec![word]));
        self.settle(opened);
    }

    /// Documents and identities become durable with the commit after the one in which they came.
    fn settle(&self, opened: &Opened) {
        for _ in 0..2 {
            self.runtime.block_on(opened.store.seal_now());
        }
    }

    fn pupils(&self, opened: &Opened) -> usize {
        opened.store.records(Tier::Safety, "student", "").unwrap().len()
    }
}

/// Goal: after the next start, and after one without a view, a box shows what counts and no more, tells its engine so,
/// and has lost nothing: what the board accepts later is applied without being fetched whole again. Method: apply three
/// batches, revoke at the first, accept the second while running and the third before a start; compare digests.
#[test]
fn what_does_not_count_is_taken_back() {
    let scene = Scene::new();
    let opened = scene.open();
    opened.store.keep_identity(scene.thief.identity.text());
    scene.settle(&opened);
    let mut digests = vec![opened.store.state().digests];
    for batch in &scene.batches {
        scene.runtime.block_on(opened.store.store_batch(batch.clone())).unwrap();
        digests.push(opened.store.state().digests);
    }
    opened.close();
    let opened = scene.open();
    scene.say(&opened, 2, 1);
    assert_eq!(scene.pupils(&opened), 3, "a running box does not take back");
    opened.close();

    for without_view in [false, true] {
        if without_view {
            std::fs::remove_dir_all(scene.data().join("view")).unwrap();
        }
        let opened = scene.open();
        assert_eq!((scene.pupils(&opened), &opened.store.state().digests), (1, &digests[1]));
        assert_eq!(opened.store.state().vector[&scene.log], 1);
        assert_eq!(opened.evidence.peers[&scene.log], scene.head(1));
        let held = scene.runtime.block_on(opened.store.held()).unwrap();
        assert_eq!(held[&scene.log].len(), 3, "nothing is lost");
        // Proofs and snapshots go on with what counts.
        let mark = scene.runtime.block_on(opened.store.mark()).unwrap();
        assert_eq!(mark.heads[&scene.log], scene.head(1));
        let made = opened.store.make_snapshot_blocking(scene.log.tier).unwrap();
        assert_eq!(made.root().heads[&scene.log], scene.head(1));
        opened.close();
    }

    let opened = scene.open();
    scene.say(&opened, 3, 2);
    for _ in 0..2 {
        scene.runtime.block_on(opened.store.store_batch(scene.batches[1].clone())).unwrap();
        assert_eq!((scene.pupils(&opened), &opened.store.state().digests), (2, &digests[2]));
    }
    scene.say(&opened, 4, 3);
    opened.close();
    let opened = scene.open();
    assert_eq!((scene.pupils(&opened), &opened.store.state().digests), (3, &digests[3]));
    assert_eq!(opened.evidence.peers[&scene.log], scene.head(3));
    opened.close();
}
