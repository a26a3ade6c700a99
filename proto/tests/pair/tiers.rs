//! Each tier by itself: when everything is here that the cloud has named of it.

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::snapshot::Snapshot;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{News, SnapshotName, SnapshotOffer, Welcome};

use crate::board::{Board, school};
use crate::receipts::{effects, welcome};
use crate::replica::Replica;
use crate::snapshots::{part, snapshot};

fn offer(made: &Snapshot) -> SnapshotOffer {
    let (root, bytes) = (made.hash(), made.root().bytes());
    SnapshotOffer { tier: made.root().tier, root, bytes, changes: made.root().changes() }
}

/// Goal: a tier is whole when its snapshot is laid and the tail behind it has come, whatever is still coming of others; not
/// before the cloud has named what there is, not by the word of a node that cannot read enough of its sites, and not while
/// the line is down. Method: a fresh replica, a peer with tier 0 (snapshot and tail) and tier 1 (a batch); each step.
#[test]
fn a_tier_is_whole_when_all_of_it_is_here() {
    let board = Board::new(1);
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 3);
    let daily = LogHead { sequence: 1, hash: Hash32([3; 32]) };
    let (made, sealed) = snapshot(&board, &peer, Tier::Safety, chain[1].header().head(), 1);
    let mut replica = Replica::fresh(&board, board.enrol(school(), 10));
    let whole = |replica: &Replica| Tier::ALL.map(|tier| replica.engine.has_tier_of_peers(tier));
    assert_eq!(whole(&replica), [false; 3], "nobody has said what there is");
    let heads =
        Heads::from([(peer.log(Tier::Safety), chain[2].header().head()), (peer.log(Tier::Daily), daily)]);
    let mut answer = Welcome {
        identities: vec![peer.identity.clone()],
        snapshots: Some(vec![offer(&made)]),
        ..welcome(heads.clone())
    };
    for complete in [false, true] {
        replica.engine.handle_disconnected(100_000);
        replica.engine.handle_timeout(900_000);
        replica.engine.handle_connected();
        assert_eq!(whole(&replica), [false; 3]);
        answer.complete = complete;
        replica.engine.handle_welcome(&answer, 900_001);
        // Of tier 2 there is nothing.
        assert_eq!(whole(&replica), [false, false, complete], "complete: {complete}");
    }
    effects(&mut replica);
    replica.engine.handle_snapshot_root(SnapshotName::Root(made.hash()), made.text());
    replica.engine.handle_snapshot_part(part(&made, &sealed, 0));
    replica.engine.handle_snapshot_end(SnapshotName::Root(made.hash()));
    effects(&mut replica);
    assert_eq!(whole(&replica), [false, false, true], "it is not laid yet");
    replica.engine.handle_snapshot_loaded(&made, Ok(()));
    assert_eq!(whole(&replica), [false, false, true], "the tail is missing");
    replica.engine.handle_fetched(chain[2].clone());
    replica.engine.handle_fetch_end();
    assert_eq!(whole(&replica), [true, false, true], "tier 1 is still to come");
    let later = LogHead { sequence: 9, hash: Hash32([4; 32]) };
    let news = News { heads: Heads::from([(peer.log(Tier::Archive), later)]), identities: Vec::new() };
    replica.engine.handle_news(&news, 900_002);
    assert_eq!(whole(&replica), [true, false, false], "somebody goes on writing");
    replica.engine.handle_disconnected(900_003);
    assert_eq!(whole(&replica), [false; 3], "who knows what has been written since");
}
