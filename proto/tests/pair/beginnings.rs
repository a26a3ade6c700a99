//! A replica that holds nothing begins with a snapshot; what is wrong with one is said, and the logs themselves come in
//! its place.

use sonae_proto::batch::Batch;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::snapshot::Snapshot;
use sonae_proto::uplink::{Alarm, Effect};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Fetch, SnapshotName, SnapshotOffer, SnapshotPart, Welcome};

use crate::board::{Board, Life, school};
use crate::receipts::{effects, welcome};
use crate::replica::Replica;
use crate::snapshots::{part, snapshot};

/// A fresh replica that is offered a snapshot of a peer's tier 0, whose log has grown since.
pub struct Fresh {
    pub board: Board,
    pub peer: Life,
    pub made: Snapshot,
    pub sealed: Vec<Vec<u8>>,
    /// What the log holds behind the snapshot.
    pub behind: Batch,
    pub replica: Replica,
    /// What the cloud has.
    pub heads: Heads,
}

impl Fresh {
    pub fn new() -> Self {
        let mut fresh = Self::before();
        fresh.greet(fresh.heads.clone());
        fresh
    }

    /// Before its first connection.
    pub fn before() -> Self {
        let board = Board::new(1);
        let peer = board.enrol(school(), 20);
        let chain = board.chain(&peer, Tier::Safety, 3);
        let (made, sealed) = snapshot(&board, &peer, Tier::Safety, chain[1].header().head(), 2);
        let replica = Replica::fresh(&board, board.enrol(school(), 10));
        let heads = Heads::from([
            (peer.log(Tier::Safety), chain[2].header().head()),
            (peer.log(Tier::Daily), LogHead { sequence: 1, hash: Hash32([3; 32]) }),
        ]);
        Self { board, peer, made, sealed, behind: chain[2].clone(), replica, heads }
    }

    pub fn greet(&mut self, heads: Heads) {
        self.connect();
        self.welcome(heads, true);
    }

    pub fn connect(&mut self) {
        self.replica.engine.handle_timeout(100_000);
        self.replica.engine.handle_connected();
    }

    pub fn welcome(&mut self, heads: Heads, has_snapshot: bool) {
        let identities = vec![self.peer.identity.clone()];
        let offers = if has_snapshot { self.offers() } else { Vec::new() };
        let answer = Welcome { identities, snapshots: Some(offers), ..welcome(heads) };
        self.replica.engine.handle_welcome(&answer, 100_001);
    }

    pub fn offers(&self) -> Vec<SnapshotOffer> {
        let root = self.made.root();
        let (bytes, changes) = (root.bytes(), root.changes());
        vec![SnapshotOffer { tier: Tier::Safety, root: self.made.hash(), bytes, changes }]
    }

    pub fn effects(&mut self) -> Vec<Effect> {
        let quiet = |effect: &Effect| {
            !matches!(effect, Effect::Dial | Effect::SendHello | Effect::SendKeys | Effect::KeepIdentity(_))
        };
        effects(&mut self.replica).into_iter().filter(quiet).collect()
    }

    pub fn by_name(&self) -> SnapshotName {
        SnapshotName::Root(self.made.hash())
    }

    /// The answer ends.
    pub fn end(&mut self) {
        self.replica.engine.handle_snapshot_end(SnapshotName::Root(self.made.hash()));
    }

    /// The log itself is asked for, from its first change or from behind the snapshot.
    pub fn asked_for(&self, after: u64) -> Effect {
        Effect::Fetch(Fetch { log: self.peer.log(Tier::Safety), after })
    }
}

/// Goal: a tier of which nothing is held comes as a snapshot. What lies behind it is asked for while it comes, and stored
/// when it is there and not before. Method: the right answers, the log's end before the parts; the effects in order.
#[test]
fn a_fresh_replica_begins_with_the_snapshot() {
    let mut fresh = Fresh::new();
    assert_eq!(fresh.effects(), [Effect::FetchSnapshot(SnapshotName::Root(fresh.made.hash()))]);
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    assert_eq!(fresh.effects(), [Effect::KeepSnapshot(Box::new(fresh.made.clone())), fresh.asked_for(4)]);
    fresh.replica.engine.handle_fetched(fresh.behind.clone());
    fresh.replica.engine.handle_fetch_end();
    assert_eq!(fresh.effects(), [], "there is nothing yet that it could follow");
    for number in 0..2 {
        let part = part(&fresh.made, &fresh.sealed, number);
        fresh.replica.engine.handle_snapshot_part(part.clone());
        assert_eq!(fresh.effects(), [Effect::KeepSnapshotPart(Box::new(part))]);
    }
    fresh.end();
    assert_eq!(fresh.effects(), [Effect::LoadSnapshot(Box::new(fresh.made.clone()))]);
    assert!(!fresh.replica.engine.has_all_of_peers());
    fresh.replica.engine.handle_snapshot_loaded(&fresh.made.clone(), Ok(()));
    let daily = Fetch { log: fresh.peer.log(Tier::Daily), after: 0 };
    let behind = Box::new(fresh.behind.clone());
    assert_eq!(fresh.effects(), [Effect::StoreBatch(behind), Effect::Fetch(daily)]);
}

/// Goal: what was asked for ahead of a snapshot neither gets lost nor comes where it does not fit, whenever the line
/// breaks or the snapshot turns out to be of no use. Method: its batch before and after both; a second connection.
#[test]
fn what_was_asked_for_ahead_follows_the_snapshot_or_nothing() {
    for (fails, is_early) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut fresh = Fresh::new();
        fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
        if is_early {
            fresh.replica.engine.handle_fetched(fresh.behind.clone());
        }
        fresh.end();
        fresh.effects();
        let made = fresh.made.clone();
        let outcome = if fails { Err("it does not add up".to_owned()) } else { Ok(()) };
        fresh.replica.engine.handle_snapshot_loaded(&made, outcome);
        if !is_early {
            fresh.replica.engine.handle_fetched(fresh.behind.clone());
        }
        fresh.replica.engine.handle_fetch_end();
        let done = fresh.effects();
        let stores = done.contains(&Effect::StoreBatch(Box::new(fresh.behind.clone())));
        assert_eq!(stores, !fails, "{done:?}");
        assert_eq!(done.contains(&fresh.asked_for(0)), fails, "{done:?}");
        let is_bad = |effect: &Effect| matches!(effect, Effect::Alarm(Alarm::BadPeerBatch { .. }));
        assert!(!done.iter().any(is_bad), "the cloud has done nothing wrong: {done:?}");
    }
    let mut fresh = Fresh::new();
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    fresh.replica.engine.handle_fetched(fresh.behind.clone());
    fresh.replica.engine.handle_disconnected(5);
    fresh.effects();
    fresh.greet(fresh.heads.clone());
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    assert_eq!(fresh.effects().last(), Some(&fresh.asked_for(4)), "the next connection asks anew");
}

/// Goal: a cloud cannot fill the memory of a replica that waits for a snapshot. Method: more than is held back; then the
/// snapshot, and what did not fit is asked for.
#[test]
fn what_is_held_back_is_bounded() {
    let mut fresh = Fresh::new();
    let log = fresh.peer.log(Tier::Safety);
    let (mut batches, mut after) = (Vec::new(), fresh.made.root().heads[&log]);
    for _ in 0..5 {
        let batch = fresh.board.seal_fast(&fresh.peer, Tier::Safety, after, &[7; 600 * 1024]);
        after = batch.header().head();
        batches.push(batch);
    }
    fresh.replica.engine.handle_disconnected(5);
    fresh.effects();
    fresh.greet(Heads::from([(log, after)]));
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    batches.iter().for_each(|batch| fresh.replica.engine.handle_fetched(batch.clone()));
    fresh.end();
    fresh.effects();
    fresh.replica.engine.handle_snapshot_loaded(&fresh.made.clone(), Ok(()));
    fresh.replica.engine.handle_fetch_end();
    let done = fresh.effects();
    let stored = done.iter().filter(|effect| matches!(effect, Effect::StoreBatch(_))).count();
    assert_eq!(stored, 3, "what was held back follows");
    assert_eq!(done.last(), Some(&fresh.asked_for(batches[2].header().last)), "the rest is asked for");
}

/// Goal: whatever is wrong with a snapshot is said, and its tier comes change by change, also on later connections.
/// Method: another root, a forged one, another part, parts that do not add up.
#[test]
fn a_wrong_snapshot_is_said_and_done_without() {
    type Wrong = (&'static str, fn(&mut Fresh));
    let wrongs: [Wrong; 4] = [
        ("not the one that was asked for", |fresh| {
            let head = LogHead { sequence: 4, hash: Hash32([1; 32]) };
            let (other, _) = snapshot(&fresh.board, &fresh.peer, Tier::Safety, head, 2);
            fresh.replica.engine.handle_snapshot_root(fresh.by_name(), other.text());
        }),
        ("does not verify", |fresh| {
            let forged = fresh.made.text().replacen("\"records\":2", "\"records\":3", 1);
            fresh.replica.engine.handle_snapshot_root(fresh.by_name(), &forged);
        }),
        ("not the one that the root names", |fresh| {
            fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
            let part =
                SnapshotPart { sealed: fresh.sealed[1].clone(), ..part(&fresh.made, &fresh.sealed, 0) };
            fresh.replica.engine.handle_snapshot_part(part);
        }),
        ("it does not add up", |fresh| {
            fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
            fresh.end();
            let made = fresh.made.clone();
            fresh.replica.engine.handle_snapshot_loaded(&made, Err("it does not add up".into()));
        }),
    ];
    for (expected, wrong) in wrongs {
        let mut fresh = Fresh::new();
        fresh.effects();
        wrong(&mut fresh);
        let mut done = fresh.effects();
        if done.contains(&fresh.asked_for(4)) {
            // The log itself is asked for when this one has ended.
            fresh.replica.engine.handle_fetch_end();
            done.extend(fresh.effects());
        }
        let said = |effect: &Effect| match effect {
            Effect::Alarm(Alarm::BadSnapshot { tier: Tier::Safety, reason }) => reason.contains(expected),
            _ => false,
        };
        assert!(done.iter().any(said), "{expected}: {done:?}");
        assert_eq!(done.last(), Some(&fresh.asked_for(0)), "{expected}");
        fresh.replica.engine.handle_disconnected(5);
        fresh.effects();
        fresh.greet(fresh.replica.engine.cloud_heads().clone());
        assert_eq!(fresh.effects(), [fresh.asked_for(0)], "{expected}: it is not asked for again");
    }
}

/// Goal: a snapshot whose place a newer one has taken since the welcome is no wrong, and a cloud that never has what it
/// offers holds up nothing. Method: answers without a root; offers of others each time, and one that was gone before.
#[test]
fn a_snapshot_that_is_gone_is_asked_for_anew() {
    let mut fresh = Fresh::new();
    for round in 1..=3_u8 {
        fresh.effects();
        fresh.end();
        assert_eq!(fresh.effects(), [Effect::Disconnect], "nothing is wrong in round {round}");
        fresh.replica.engine.handle_disconnected(5);
        if round == 1 {
            fresh.greet(fresh.heads.clone());
            assert_eq!(fresh.effects(), [fresh.asked_for(0)], "what was gone is not asked for again");
            fresh.replica.engine.handle_disconnected(5);
        }
        let head = LogHead { sequence: 4, hash: Hash32([round; 32]) };
        fresh.made = snapshot(&fresh.board, &fresh.peer, Tier::Safety, head, 2).0;
        fresh.greet(fresh.heads.clone());
        assert_eq!(fresh.effects(), [Effect::FetchSnapshot(SnapshotName::Root(fresh.made.hash()))]);
    }
    fresh.end();
    let done = fresh.effects();
    let is_told = |effect: &Effect| matches!(effect, Effect::Alarm(Alarm::BadSnapshot { .. }));
    assert!(done.iter().any(is_told), "{done:?}");
    assert_eq!(done.last(), Some(&fresh.asked_for(0)), "its tier comes change by change");
}

/// Goal: a cloud that has less of a log than its own snapshot names has lost something, and that is said (P4). Method:
/// the snapshot ends behind the log of the welcome.
#[test]
fn a_snapshot_bears_witness_against_its_cloud() {
    let mut fresh = Fresh::new();
    fresh.replica.engine.handle_disconnected(5);
    fresh.effects();
    let log = fresh.peer.log(Tier::Safety);
    fresh.greet(Heads::from([(log, LogHead { sequence: 2, hash: Hash32([4; 32]) })]));
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    fresh.end();
    fresh.effects();
    let made = fresh.made.clone();
    fresh.replica.engine.handle_snapshot_loaded(&made, Ok(()));
    let done = fresh.effects();
    assert!(
        matches!(done.as_slice(), [Effect::Alarm(Alarm::BadPeerBatch { log: named, .. })] if *named == log)
    );
}

/// Goal: what still comes of a fetch that was given up does no harm to the next. Method: a wrong part, then the rest of
/// its stream, while another fetch is under way.
#[test]
fn the_rest_of_a_fetch_that_was_given_up_is_passed_over() {
    let mut fresh = Fresh::new();
    fresh.effects();
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    let wrong = SnapshotPart { sealed: fresh.sealed[1].clone(), ..part(&fresh.made, &fresh.sealed, 0) };
    fresh.replica.engine.handle_snapshot_part(wrong);
    fresh.replica.engine.handle_fetch_end();
    assert_eq!(fresh.effects().last(), Some(&fresh.asked_for(0)));
    fresh.replica.engine.handle_snapshot_part(part(&fresh.made, &fresh.sealed, 1));
    fresh.end();
    assert_eq!(fresh.effects(), [], "the log is under way already");
}
