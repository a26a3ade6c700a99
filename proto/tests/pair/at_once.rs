//! The question with the hello: a replica with nothing at all asks for tier 0 before it knows what there is of it.

use sonae_proto::ids::Tier;
use sonae_proto::uplink::{Alarm, Effect};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{SnapshotName, SnapshotOffer, Welcome};

use crate::beginnings::Fresh;
use crate::receipts::{effects, welcome};
use crate::snapshots::snapshot;

const BY_TIER: SnapshotName = SnapshotName::Tier(Tier::Safety);

const AT_ONCE: Effect = Effect::FetchSnapshot(BY_TIER);

/// Goal: a replica with nothing at all asks for tier 0 with its hello, and takes the newest snapshot, also one that has
/// become whole since the welcome was written; what was cut off goes on by its name. Method: the effects in order, over
/// two connections.
#[test]
fn tier_0_is_asked_for_with_the_hello() {
    let mut fresh = Fresh::before();
    fresh.replica.engine.ask_at_once();
    fresh.connect();
    assert_eq!(fresh.effects(), std::slice::from_ref(&AT_ONCE));
    fresh.welcome(fresh.heads.clone(), true);
    assert_eq!(fresh.effects(), [], "it is under way");
    let head = fresh.heads[&fresh.peer.log(Tier::Safety)];
    (fresh.made, fresh.sealed) = snapshot(&fresh.board, &fresh.peer, Tier::Safety, head, 2);
    fresh.replica.engine.handle_snapshot_root(BY_TIER, fresh.made.text());
    assert_eq!(fresh.effects(), [Effect::KeepSnapshot(Box::new(fresh.made.clone()))]);
    fresh.replica.engine.handle_disconnected(5);
    fresh.effects();
    fresh.connect();
    assert_eq!(fresh.effects(), [], "parts of it are held by now");
    fresh.welcome(fresh.heads.clone(), true);
    assert_eq!(fresh.effects(), [Effect::FetchSnapshot(SnapshotName::Root(fresh.made.hash()))]);
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    fresh.end();
    assert_eq!(fresh.effects().last(), Some(&Effect::LoadSnapshot(Box::new(fresh.made.clone()))));
}

/// Goal: on a narrow line nothing stands before the acknowledgements of tier 0: key documents that the cloud lacks are
/// sent when it has come, or does not. Method: a node with an older manifest; whole, given up, a second connection.
#[test]
fn key_documents_wait_for_tier_0() {
    for has_snapshot in [true, false] {
        let mut fresh = Fresh::before();
        fresh.replica.engine.ask_at_once();
        fresh.connect();
        let offers = if has_snapshot { fresh.offers() } else { Vec::new() };
        let older = |fresh: &Fresh| Welcome {
            identities: vec![fresh.peer.identity.clone()],
            snapshots: Some(offers.clone()),
            manifest_version: 0,
            ..welcome(fresh.heads.clone())
        };
        let answer = older(&fresh);
        fresh.replica.engine.handle_welcome(&answer, 100_001);
        let sends = |fresh: &mut Fresh| effects(&mut fresh.replica).contains(&Effect::SendKeys);
        assert!(!sends(&mut fresh), "tier 0 first");
        fresh.replica.engine.handle_disconnected(5);
        fresh.connect();
        fresh.replica.engine.handle_welcome(&answer, 100_002);
        fresh.replica.engine.handle_snapshot_root(BY_TIER, fresh.made.text());
        assert!(!sends(&mut fresh), "nor on the next connection");
        fresh.replica.engine.handle_snapshot_end(BY_TIER);
        assert!(sends(&mut fresh));
    }
}

/// Goal: what comes of a question with the hello is no worse than of another: where there is no snapshot the log comes,
/// and a wrong one is said and not asked for again. Method: both answers.
#[test]
fn asking_with_the_hello_may_fail() {
    for has_snapshot in [false, true] {
        let mut fresh = Fresh::before();
        fresh.replica.engine.ask_at_once();
        fresh.connect();
        fresh.welcome(fresh.heads.clone(), has_snapshot);
        if has_snapshot {
            assert_eq!(fresh.effects(), std::slice::from_ref(&AT_ONCE));
            fresh.replica.engine.handle_snapshot_root(BY_TIER, "no document");
        }
        fresh.replica.engine.handle_snapshot_end(BY_TIER);
        let done = fresh.effects();
        let is_alarm = |effect: &Effect| matches!(effect, Effect::Alarm(Alarm::BadSnapshot { .. }));
        assert_eq!(done.iter().any(is_alarm), has_snapshot, "{done:?}");
        assert_eq!(done.last(), Some(&fresh.asked_for(0)));
        fresh.replica.engine.handle_disconnected(5);
        fresh.effects();
        fresh.connect();
        assert_eq!(fresh.effects().contains(&AT_ONCE), !has_snapshot);
    }
}

/// Goal: the answer to the question with the hello may come late, when its tier has come by itself: it is no wrong answer
/// to what was asked for since. Method: a cloud without a snapshot of tier 0, one of tier 1 under way; found by simulation
/// seed 1795885341321.
#[test]
fn a_late_answer_of_tier_0_is_passed_over() {
    let mut fresh = Fresh::before();
    let head = fresh.heads[&fresh.peer.log(Tier::Daily)];
    let tier_0 = fresh.made.clone();
    (fresh.made, fresh.sealed) = snapshot(&fresh.board, &fresh.peer, Tier::Daily, head, 2);
    fresh.replica.engine.ask_at_once();
    fresh.connect();
    let root = fresh.made.root();
    let offer = SnapshotOffer {
        tier: Tier::Daily,
        root: fresh.made.hash(),
        bytes: root.bytes(),
        changes: root.changes(),
    };
    let identities = vec![fresh.peer.identity.clone()];
    let heads = Heads::from([(fresh.peer.log(Tier::Daily), head)]);
    let answer = Welcome { identities, snapshots: Some(vec![offer]), ..welcome(heads) };
    fresh.replica.engine.handle_welcome(&answer, 100_001);
    assert_eq!(fresh.effects().last(), Some(&Effect::FetchSnapshot(fresh.by_name())));
    fresh.replica.engine.handle_snapshot_root(BY_TIER, tier_0.text());
    fresh.replica.engine.handle_snapshot_end(BY_TIER);
    assert_eq!(fresh.effects(), []);
    fresh.replica.engine.handle_snapshot_root(fresh.by_name(), fresh.made.text());
    assert_eq!(fresh.effects(), [Effect::KeepSnapshot(Box::new(fresh.made.clone()))]);
}
