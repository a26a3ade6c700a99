//! Batches of others that the cloud lacks are brought to it, after a wait, and make nothing safe.

use sonae_proto::batch::Batch;
use sonae_proto::ids::Tier;
use sonae_proto::intake::ConnectionId;
use sonae_proto::receipt::Receipt;
use sonae_proto::uplink::{Alarm, BatchReply, CarriedBatch, Effect, RELAY_MS};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{Frame, News, Refusal, RefusalCode};

use crate::board::{Board, Life, school, site};
use crate::desk::Desk;
use crate::receipts::{effects, up, welcome};
use crate::replica::Replica;

/// A replica on the line that a neighbour, whose identity the cloud has or has not, has given three batches.
fn given(board: &Board, known_there: bool) -> (Replica, Life, Vec<Batch>) {
    let peer = board.enrol(school(), 20);
    let chain = board.chain(&peer, Tier::Safety, 3);
    let mut answer = welcome(Heads::new());
    answer.identities.extend(known_there.then(|| peer.identity.clone()));
    let (mut replica, _) = up(board, 0, welcome(Heads::new()));
    replica.engine.set_relay();
    replica.engine.handle_welcome(&answer, 1);
    replica.engine.handle_carried_identities(std::slice::from_ref(&peer.identity));
    for batch in &chain {
        assert_eq!(replica.engine.handle_carried_batch(batch.clone()), CarriedBatch::Taken);
    }
    replica.engine.handle_relay(10);
    effects(&mut replica);
    (replica, peer, chain)
}

fn receipt(board: &Board, batch: &Batch) -> BatchReply {
    let (log, head) = (batch.header().log, batch.header().head());
    let sites = vec![site(0), site(1)];
    let receipt = Receipt { school: school(), log, head, loss_counter: 0, issued_ms: 9, sites };
    BatchReply::Receipt(receipt.sign(&board.receipt_key))
}

/// Goal: what a neighbour left is sent in order, one at a time, after a wait, and nothing of it is called safe. Method:
/// the wait, then a receipt for each.
#[test]
fn what_is_left_of_others_is_brought() {
    let board = Board::new(1);
    let (mut replica, peer, chain) = given(&board, true);
    let log = peer.log(Tier::Safety);
    let due = replica.engine.poll_timeout().unwrap();
    assert!((10 + RELAY_MS..10 + 2 * RELAY_MS).contains(&due), "{due}");
    replica.engine.handle_timeout(due - 1);
    assert_eq!(effects(&mut replica), []);
    replica.engine.handle_timeout(due);
    for batch in &chain {
        let first = batch.header().first;
        assert_eq!(effects(&mut replica), [Effect::SendBatch { log, first }]);
        replica.engine.handle_batch_reply(log, receipt(&board, batch), due + 1);
    }
    assert_eq!(effects(&mut replica), []);
    assert_eq!(replica.engine.poll_timeout(), None, "nothing wakes it any more");
    assert!(replica.engine.receipted().is_empty(), "a copy of another's is not safe here");
    assert_eq!(replica.engine.cloud_heads()[&log], chain[2].header().head());
}

/// Goal: a cloud that has another history of a peer's log than this replica is told of, although it names less than is
/// held here. Method: what it lacks is brought and does not continue what it has; once for each log.
#[test]
fn another_history_than_is_held_is_told() {
    let board = Board::new(1);
    for code in [RefusalCode::Chain, RefusalCode::Fork] {
        let (mut replica, peer, _) = given(&board, true);
        let log = peer.log(Tier::Safety);
        let due = replica.engine.poll_timeout().unwrap();
        replica.engine.handle_timeout(due);
        effects(&mut replica);
        for times in [1, 0] {
            let refusal = Refusal { code, text: "it does not continue its log".into(), heads: Heads::new() };
            replica.engine.handle_batch_reply(log, BatchReply::Refusal(refusal), due);
            let told = effects(&mut replica);
            let is_told = |effect: &&Effect| matches!(effect, Effect::Alarm(Alarm::BadPeerBatch { log: named, .. }) if *named == log);
            assert_eq!(told.iter().filter(is_told).count(), times, "{told:?}");
        }
    }
}

/// Goal: the writer's own sending makes it unneeded. Method: news of all of it before the wait is over.
#[test]
fn a_writer_that_is_there_sends_its_own() {
    let board = Board::new(1);
    let (mut replica, peer, chain) = given(&board, true);
    let heads = Heads::from([(peer.log(Tier::Safety), chain[2].header().head())]);
    replica.engine.handle_news(&News { heads, identities: vec![] }, 20);
    assert_eq!(effects(&mut replica), []);
    assert_eq!(replica.engine.poll_timeout(), None);
}

/// Goal: a receipt that news of the same batch have overtaken is no refusal, and neither is a refusal that may pass; the
/// log goes on. Method: both, while a batch is on its way; found by simulation seeds 1797500304 and 1797500460.
#[test]
fn what_passes_does_not_end_it() {
    let board = Board::new(1);
    let (mut replica, peer, chain) = given(&board, true);
    let log = peer.log(Tier::Safety);
    let due = replica.engine.poll_timeout().unwrap();
    replica.engine.handle_timeout(due);
    assert_eq!(effects(&mut replica), [Effect::SendBatch { log, first: chain[0].header().first }]);
    let heads = Heads::from([(log, chain[0].header().head())]);
    replica.engine.handle_news(&News { heads, identities: vec![] }, due);
    replica.engine.handle_batch_reply(log, receipt(&board, &chain[0]), due);
    let second = Effect::SendBatch { log, first: chain[1].header().first };
    assert_eq!(effects(&mut replica), std::slice::from_ref(&second));
    let storage = Refusal { code: RefusalCode::Storage, text: "no quorum".into(), heads: Heads::new() };
    replica.engine.handle_batch_reply(log, BatchReply::Refusal(storage), due);
    assert_eq!(effects(&mut replica), []);
    let again = replica.engine.poll_timeout().unwrap();
    assert!(again >= due + RELAY_MS, "not at once");
    replica.engine.handle_timeout(again);
    assert_eq!(effects(&mut replica), [second]);
}

/// Goal: what a neighbour left is brought as soon as the cloud knows who wrote it, also on a line that stood before. Method:
/// the writer greets a node, under which nothing of it ever moves; what that tells the others of the school, and what one
/// of them does with it; found by simulation seed 1797504275.
#[test]
fn who_greets_later_is_told_to_all() {
    let (mut desk, other) = Desk::ready();
    let (mut replica, peer, chain) = given(&desk.board, false);
    assert_eq!(replica.engine.poll_timeout(), None, "nobody would take it");
    desk.told.clear();
    desk.greet(2, &peer, 0);
    let told = desk.told.iter().find_map(|(connection, frame)| match frame {
        Frame::News(news) if *connection == ConnectionId(1) => Some(news.clone()),
        _ => None,
    });
    let news = told.unwrap_or_else(|| panic!("{} is not told", other.name));
    assert_eq!((&news.heads, &news.identities), (&Heads::new(), &vec![peer.identity.clone()]));
    replica.engine.handle_news(&news, 20);
    effects(&mut replica);
    let due = replica.engine.poll_timeout().unwrap();
    replica.engine.handle_timeout(due);
    let (log, first) = (peer.log(Tier::Safety), chain[0].header().first);
    assert_eq!(effects(&mut replica), [Effect::SendBatch { log, first }]);
    desk.told.clear();
    desk.greet(3, &peer, 0);
    let again = desk.told.iter().any(|(_, frame)| matches!(frame, Frame::News(_)));
    assert!(!again, "it is no news any more");
}

/// Goal: what a snapshot stands for here cannot be brought, and the line stays. Method: the shell has no such batch; found
/// by simulation seed 1797500012.
#[test]
fn what_is_not_here_is_left() {
    let board = Board::new(1);
    let (mut replica, peer, _) = given(&board, true);
    let log = peer.log(Tier::Safety);
    let due = replica.engine.poll_timeout().unwrap();
    replica.engine.handle_timeout(due);
    assert_eq!(effects(&mut replica), [Effect::SendBatch { log, first: 1 }]);
    replica.engine.handle_batch_missing(log, due);
    assert_eq!(effects(&mut replica), []);
    assert_eq!(replica.engine.poll_timeout(), None);
}

/// Goal: what the cloud cannot take is not sent again and again. Method: a writer that it does not know; refusals, one of
/// them for a manifest that is nowhere any more; a receipt of another log.
#[test]
fn what_is_refused_is_left() {
    let board = Board::new(1);
    let (replica, ..) = given(&board, false);
    assert_eq!(replica.engine.poll_timeout(), None);
    let refused = |code| BatchReply::Refusal(Refusal { code, text: "no".into(), heads: Heads::new() });
    let stranger = board.chain(&board.enrol(school(), 21), Tier::Safety, 1);
    let refusals = [RefusalCode::Identity, RefusalCode::Manifest].map(refused);
    for reply in refusals.into_iter().chain([receipt(&board, &stranger[0])]) {
        let (mut replica, peer, _) = given(&board, true);
        let log = peer.log(Tier::Safety);
        let due = replica.engine.poll_timeout().unwrap();
        replica.engine.handle_timeout(due);
        assert_eq!(effects(&mut replica), [Effect::SendBatch { log, first: 1 }]);
        replica.engine.handle_batch_reply(log, reply, due + 1);
        assert_eq!(effects(&mut replica), []);
        assert_eq!(replica.engine.poll_timeout(), None);
    }
}
