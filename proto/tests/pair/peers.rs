//! Logs of other replicas: fetched in tier order, verified, merged to the same state; anything else is refused
//! aloud and not stored.

use sonae_proto::batch::{Batch, PREFIX_BYTES};
use sonae_proto::ids::Tier;
use sonae_proto::uplink::{Alarm, Effect, STALL_MS};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Fetch, News, Welcome};

use crate::board::{Board, Life, school};
use crate::receipts::{effects, up, welcome};
use crate::replica::Replica;
use crate::world::{Shape, World};

/// Goal: two replicas that write at the same time end with equal digests, everything safe. Method: concurrent
/// writes to the same records in all tiers, a line that reorders and doubles.
#[test]
fn two_replicas_end_with_one_state() {
    let shape = Shape { seed: 5, duplicate_one_in: 3, delay_ms_max: 300, ..Shape::calm(2, 3, 2) };
    let mut world = World::new(shape);
    for round in 0..12 {
        for replica in [0, 1] {
            for tier in Tier::ALL {
                world.write(replica, tier, ["r1", "r2"][round % 2]);
            }
            world.seal(replica, 3);
        }
        world.run_for(150);
    }
    world.converge(120_000);
    let disputed = world.replicas[0].records.records.values().flat_map(|record| record.disputed()).count();
    assert!(disputed > 0, "the writes were concurrent");
    assert_eq!(world.replicas[0].records, world.replicas[1].records);
}

/// Goal: a fresh replica fetches everything, tier 0 first. Method: a filled cloud, then a second replica; watch
/// the order in which batches are stored.
#[test]
fn a_fresh_replica_fetches_in_tier_order() {
    let mut world = World::new(Shape::calm(2, 2, 2));
    world.cut(1);
    for _ in 0..5 {
        for tier in [Tier::Archive, Tier::Daily, Tier::Safety] {
            world.write(0, tier, "r1");
        }
        world.seal(0, 2);
    }
    world.run_for(30_000);
    assert!(world.replicas[0].all_safe());
    world.heal(1);
    world.converge(120_000);
    let tiers: Vec<_> = world.replicas[1].disk.peers.iter().map(|batch| batch.header().log.tier).collect();
    assert_eq!(tiers.len(), 15);
    assert!(tiers.is_sorted(), "{tiers:?}");
}

/// A replica that knows a peer and is told that the cloud has more of its tier 0 log.
fn fetching(board: &Board, peer: &Life, head: LogHead) -> Replica {
    let (mut replica, _) = up(board, 0, welcome(Heads::new()));
    effects(&mut replica);
    let heads = Heads::from([(peer.log(Tier::Safety), head)]);
    replica.engine.handle_news(&News { heads, identities: vec![peer.identity.clone()] }, 2);
    let asked = effects(&mut replica);
    assert!(matches!(asked.as_slice(), [Effect::KeepIdentity(_), Effect::Fetch(Fetch { after: 0, .. })]));
    replica
}

fn assert_refused(replica: &mut Replica, batch: Batch, expected: &str) {
    let (log, before) = (batch.header().log, replica.engine.peer_heads().clone());
    replica.engine.handle_fetched(batch);
    match effects(replica).as_slice() {
        [Effect::Alarm(Alarm::BadPeerBatch { log: named, reason })] => {
            assert_eq!(*named, log);
            assert!(reason.contains(expected), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(*replica.engine.peer_heads(), before);
}

/// Goal: what the cloud serves counts only if it verifies and continues its log. Method: a bad signature, a gap, a
/// second history, an unknown incarnation, another school, the own log; then the right batch still counts.
#[test]
fn bad_peer_batches_are_refused_aloud() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 2);
    let mut replica = fetching(&board, &peer, chain[1].header().head());

    let mut bytes = chain[0].bytes().to_vec();
    bytes[PREFIX_BYTES - 1] ^= 1;
    assert_refused(&mut replica, Batch::from_bytes(bytes).unwrap(), "not signed by its incarnation");
    assert_refused(&mut replica, chain[1].clone(), "does not continue");
    let stranger = board.enrol(school(), 30);
    assert_refused(&mut replica, board.chain(&stranger, Tier::Safety, 1).remove(0), "not known");
    let moved = Life { school: "B113200000022".parse().unwrap(), ..peer.clone() };
    assert_refused(&mut replica, board.chain(&moved, Tier::Safety, 1).remove(0), "another school");
    let own = replica.life.clone();
    assert_refused(&mut replica, board.chain(&own, Tier::Safety, 1).remove(0), "own log");

    replica.engine.handle_fetched(chain[0].clone());
    assert!(matches!(effects(&mut replica).as_slice(), [Effect::StoreBatch(_)]));
    replica.engine.handle_fetched(chain[0].clone());
    assert_eq!(effects(&mut replica), [], "the same again is no news");
    assert_refused(&mut replica, board.chain(&peer, Tier::Safety, 1).remove(0), "does not continue");
}

/// Goal: a cloud that shows another history of a peer's log, of the same length, is noticed. Method: a welcome
/// with another hash, twice; one alarm.
#[test]
fn another_history_of_a_peer_is_noticed() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 1);
    let mut replica = fetching(&board, &peer, chain[0].header().head());
    replica.engine.handle_fetched(chain[0].clone());
    replica.engine.handle_fetch_end();
    assert!(replica.engine.has_all_of_peers());
    let other = board.chain(&peer, Tier::Safety, 1)[0].header().head();
    effects(&mut replica);
    for alarms in [1, 0] {
        replica.engine.handle_welcome(&welcome(Heads::from([(peer.log(Tier::Safety), other)])), 3);
        let told = effects(&mut replica);
        assert_eq!(told.len(), alarms, "{told:?}");
        assert!(!replica.engine.has_all_of_peers());
    }
}

/// Goal: a replica knows when what the cloud has of a peer can never come here, and takes neither a gap nor a cloud that
/// cannot read its sites for that. Method: hold a batch; show another of the same length, then a longer log: served with
/// a gap, along another branch, and along the one that is held.
#[test]
fn a_branch_that_never_comes_is_known() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let log = peer.log(Tier::Safety);
    let (chain, other) = (board.chain(&peer, Tier::Safety, 3), board.chain(&peer, Tier::Safety, 3));
    let mut replica = fetching(&board, &peer, chain[0].header().head());
    replica.engine.handle_fetched(chain[0].clone());
    replica.engine.handle_fetch_end();
    assert_eq!(replica.engine.parted(), None);
    let shows = |head| welcome(Heads::from([(log, head)]));
    let blind = Welcome { complete: false, ..shows(other[0].header().head()) };
    for (shown, parted) in [(blind, None), (shows(other[0].header().head()), Some(log))] {
        replica.engine.handle_welcome(&shown, 3);
        assert_eq!(replica.engine.parted(), parted);
    }
    replica.engine.handle_welcome(&shows(other[2].header().head()), 4);
    assert_eq!(replica.engine.parted(), None, "nothing of it was seen yet");
    replica.engine.handle_fetched(other[2].clone());
    assert_eq!(replica.engine.parted(), None, "a gap says nothing");
    replica.engine.handle_fetched(other[1].clone());
    assert_eq!(replica.engine.parted(), Some(log));
    assert!(!replica.engine.has_all_of_peers());
    replica.engine.handle_disconnected(5);
    assert_eq!(replica.engine.parted(), None, "without a line nothing can be told");
    replica.engine.handle_welcome(&shows(chain[2].header().head()), 6);
    for batch in &chain[1..] {
        replica.engine.handle_fetched(batch.clone());
    }
    replica.engine.handle_fetch_end();
    assert_eq!(replica.engine.parted(), None, "the cloud has the branch that is held again");
    assert!(replica.engine.has_all_of_peers());
}

/// Goal: a cloud that says it has more of a peer and does not serve it is told of every five minutes, and dialled anew;
/// whatever comes begins the watch anew; what has come is waited for no more. Method: time; a batch after the alarm, then the rest.
#[test]
fn a_cloud_that_does_not_serve_is_told() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 2);
    let (log, there) = (peer.log(Tier::Safety), chain[1].header().head());
    let shown = welcome(Heads::from([(log, there)]));
    let mut replica = fetching(&board, &peer, there);
    let since_ms = replica.engine.poll_timeout().unwrap() - STALL_MS;
    replica.engine.handle_fetch_end();
    effects(&mut replica);
    replica.engine.handle_timeout(since_ms + STALL_MS - 1);
    assert_eq!(effects(&mut replica), []);
    replica.engine.handle_timeout(since_ms + STALL_MS);
    let alarm = Alarm::NotServed { log, here: 0, there: there.sequence, since_ms };
    assert_eq!(effects(&mut replica), [Effect::Alarm(alarm), Effect::Disconnect]);
    let mut now_ms = since_ms + STALL_MS;
    replica.engine.handle_disconnected(now_ms);
    replica.engine.handle_welcome(&shown, now_ms);
    assert_eq!(replica.engine.poll_timeout(), Some(now_ms + STALL_MS));
    replica.engine.handle_fetched(chain[0].clone());
    now_ms += 1_000;
    replica.engine.handle_welcome(&shown, now_ms);
    assert_eq!(replica.engine.poll_timeout(), Some(now_ms + STALL_MS), "something has come");
    replica.engine.handle_fetched(chain[1].clone());
    replica.engine.handle_fetch_end();
    effects(&mut replica);
    replica.engine.handle_timeout(now_ms + STALL_MS);
    assert_eq!((effects(&mut replica), replica.engine.poll_timeout()), (vec![], None), "all is here");
}

/// Goal: a fetch that ended early is continued, one that brought nothing is not repeated at once. Method: a
/// fetch of two batches that ends after one, then one that brings none.
#[test]
fn a_short_fetch_is_continued() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 2);
    let mut replica = fetching(&board, &peer, chain[1].header().head());
    replica.engine.handle_fetched(chain[0].clone());
    effects(&mut replica);
    replica.engine.handle_fetch_end();
    let log = peer.log(Tier::Safety);
    assert_eq!(effects(&mut replica), [Effect::Fetch(Fetch { log, after: 2 })]);
    replica.engine.handle_fetch_end();
    assert_eq!(effects(&mut replica), []);
    assert!(!replica.engine.has_all_of_peers());
}

/// Goal: a cloud that lost a tail of a dead peer's log cannot keep a replica that has it from being complete.
/// Method: hold two batches, be welcomed with the head of the first.
#[test]
fn a_replica_that_has_more_than_the_cloud_is_complete() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 2);
    let mut replica = fetching(&board, &peer, chain[1].header().head());
    for batch in chain.clone() {
        replica.engine.handle_fetched(batch);
    }
    replica.engine.handle_fetch_end();
    let heads = Heads::from([(peer.log(Tier::Safety), chain[0].header().head())]);
    replica.engine.handle_welcome(&welcome(heads), 3);
    assert!(replica.engine.has_all_of_peers());
}

/// Goal: a batch that the disk refused is asked for again. Method: the first of two fails to be stored; the next
/// connection fetches from before it, and until then the replica does not say that it has all.
#[test]
fn a_batch_that_was_not_stored_is_fetched_again() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 2);
    let log = peer.log(Tier::Safety);
    let head = chain[1].header().head();
    let mut replica = fetching(&board, &peer, head);
    for batch in chain.clone() {
        replica.engine.handle_fetched(batch);
    }
    replica.engine.handle_store_failed(chain[0].header());
    replica.engine.handle_store_failed(chain[1].header());
    replica.engine.handle_fetch_end();
    assert!(!replica.engine.has_all_of_peers());
    replica.engine.handle_disconnected(5);
    replica.engine.handle_timeout(u64::MAX);
    replica.engine.handle_connected();
    effects(&mut replica);
    replica.engine.handle_welcome(&welcome(Heads::from([(log, head)])), 6);
    assert!(effects(&mut replica).contains(&Effect::Fetch(Fetch { log, after: 0 })));
}

/// Goal: a cloud that takes back what it said it has of a peer's log is told, once, and nothing that is here goes.
/// Method: hold two batches, be welcomed with the head of the first, twice; an answer of too few sites says nothing.
#[test]
fn a_cloud_that_takes_back_a_peers_log_is_told() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 2);
    let log = peer.log(Tier::Safety);
    let mut replica = fetching(&board, &peer, chain[1].header().head());
    chain.iter().for_each(|batch| replica.engine.handle_fetched(batch.clone()));
    replica.engine.handle_fetch_end();
    effects(&mut replica);
    let before = replica.engine.peer_heads().clone();
    let shorter = welcome(Heads::from([(log, chain[0].header().head())]));
    let mut incomplete = shorter.clone();
    incomplete.complete = false;
    replica.engine.handle_welcome(&incomplete, 3);
    assert_eq!(effects(&mut replica), [Effect::Alarm(Alarm::Incomplete)]);
    let alarm = Effect::Alarm(Alarm::CloudLostPeer { log, had: 4, has: 2 });
    for expected in [vec![alarm], vec![]] {
        replica.engine.handle_welcome(&shorter, 4);
        assert_eq!(effects(&mut replica), expected);
    }
    assert_eq!(*replica.engine.peer_heads(), before);
}

/// Goal: a cloud that has shown one history of a peer's log and then serves another is told, also where nothing of it
/// is held yet. Method: the head of one branch, then the batches of the other, longer one.
#[test]
fn another_history_than_was_shown_is_told() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let (one, other) = (board.chain(&peer, Tier::Safety, 1), board.chain(&peer, Tier::Safety, 2));
    let log = peer.log(Tier::Safety);
    let mut replica = fetching(&board, &peer, one[0].header().head());
    replica.engine.handle_fetched(other[0].clone());
    let told = effects(&mut replica);
    assert!(
        matches!(told.as_slice(), [Effect::Alarm(Alarm::BadPeerBatch { log: named, .. }), Effect::StoreBatch(_)] if *named == log),
        "{told:?}"
    );
}

/// Goal: what a full disk refuses is not asked for again and again, alarms nobody, hides nothing, and comes when there
/// is room; tier 0 comes meanwhile. Method: the first of three batches of tier 1 is refused, the rest of its fetch
/// arrives; news of tier 0; then room.
#[test]
fn what_a_full_disk_refused_comes_later() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Daily, 3);
    let log = peer.log(Tier::Daily);
    let (mut replica, _) = up(&board, 0, welcome(Heads::new()));
    effects(&mut replica);
    let heads = Heads::from([(log, chain[2].header().head())]);
    replica.engine.handle_news(&News { heads, identities: vec![peer.identity.clone()] }, 2);
    assert!(effects(&mut replica).contains(&Effect::Fetch(Fetch { log, after: 0 })));
    replica.engine.handle_fetched(chain[0].clone());
    effects(&mut replica);
    replica.engine.handle_store_failed(chain[0].header());
    replica.engine.handle_room(Some(Tier::Daily));
    replica.engine.handle_fetched(chain[1].clone());
    replica.engine.handle_fetched(chain[2].clone());
    replica.engine.handle_fetch_end();
    assert_eq!(effects(&mut replica), []);
    assert!(!replica.engine.has_all_of_peers());
    let urgent = board.chain(&peer, Tier::Safety, 1);
    let tier_0 = peer.log(Tier::Safety);
    let heads = Heads::from([(tier_0, urgent[0].header().head())]);
    replica.engine.handle_news(&News { heads, identities: vec![] }, 3);
    assert_eq!(effects(&mut replica), [Effect::Fetch(Fetch { log: tier_0, after: 0 })]);
    replica.engine.handle_fetched(urgent[0].clone());
    replica.engine.handle_fetch_end();
    assert!(matches!(effects(&mut replica)[..], [Effect::StoreBatch(_)]), "tier 1 is not asked for");
    replica.engine.handle_room(None);
    assert_eq!(effects(&mut replica), [Effect::Fetch(Fetch { log, after: 0 })]);
    for batch in chain {
        replica.engine.handle_fetched(batch);
    }
    replica.engine.handle_fetch_end();
    assert_eq!(effects(&mut replica).len(), 3);
    assert!(replica.engine.has_all_of_peers());
}
