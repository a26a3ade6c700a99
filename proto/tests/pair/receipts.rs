//! What a replica believes: only receipts of its own school, log, hash and loss counter under a known key.

use ed25519_dalek::SigningKey;
use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::receipt::Receipt;
use sonae_proto::uplink::{
    Alarm, BatchReply, CarriedReceipt, DIAL_MS_MAX, Effect, REFUSED_MS_MAX, STALL_MS, Shown,
};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{PROTOCOL, Refusal, RefusalCode, Welcome};

use crate::board::{Board, school, site};
use crate::replica::{Disk, Replica};

pub fn welcome(heads: Heads) -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        nonce: String::new(),
        time_ms: 0,
        heads,
        complete: true,
        identities: vec![],
        manifest_version: 1,
        sites: 2,
        quorum: 2,
        snapshots: None,
        proofs: false,
        ended: EndedHashes::new(),
    }
}

pub fn effects(replica: &mut Replica) -> Vec<Effect> {
    std::iter::from_fn(|| replica.engine.poll_effect()).collect()
}

/// A replica with `count` sealed batches of tier 0 that has been welcomed with `answer`.
pub fn up(board: &Board, count: usize, answer: Welcome) -> (Replica, Vec<Batch>) {
    let life = board.enrol(school(), 10);
    let chain = board.chain(&life, Tier::Safety, count);
    let mut replica = Replica::new(board, life, Disk::default(), 1);
    replica.disk.sealed.insert(replica.life.log(Tier::Safety), chain.clone());
    for batch in &chain {
        replica.engine.handle_sealed(batch.header(), 0);
    }
    replica.engine.handle_timeout(0);
    replica.engine.handle_connected();
    replica.engine.handle_welcome(&answer, 1);
    (replica, chain)
}

fn receipt_for(batch: &Batch) -> Receipt {
    let (log, head) = (batch.header().log, batch.header().head());
    Receipt { school: school(), log, head, loss_counter: 0, issued_ms: 9, sites: vec![site(0), site(1)] }
}

/// Goal: a welcome that was written before a receipt says nothing of what that receipt is for. Method: a courier brings
/// the receipt between hello and welcome; then the same welcome again, as the answer to the next hello.
#[test]
fn a_receipt_that_overtakes_the_welcome_is_no_loss() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 2, welcome(Heads::new()));
    let (log, first) = (chain[0].header().log, chain[0].header().head());
    let before = Heads::from([(log, first)]);
    let receipt = |number: usize| {
        // Long after the last welcome.
        Receipt { issued_ms: 1_000_000, ..receipt_for(&chain[number]) }.sign(&board.receipt_key)
    };
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(receipt(0)), 10);
    replica.engine.handle_disconnected(20);
    replica.engine.handle_timeout(20 + REFUSED_MS_MAX);
    replica.engine.handle_connected();
    assert_eq!(replica.engine.handle_carried_receipt(receipt(1), 30), CarriedReceipt::Moved);
    replica.engine.handle_welcome(&welcome(before.clone()), 40 + REFUSED_MS_MAX);
    let is_loss = |effect: &Effect| matches!(effect, Effect::Alarm(_) | Effect::KeepLoss { .. });
    assert!(!effects(&mut replica).iter().any(is_loss));
    assert_eq!(replica.engine.receipted()[&log], chain[1].header().head());
    // The next hello names it: now it is one.
    replica.engine.handle_disconnected(50 + REFUSED_MS_MAX);
    replica.engine.handle_timeout(50 + 2 * REFUSED_MS_MAX);
    replica.engine.handle_connected();
    replica.engine.handle_welcome(&welcome(before), 60 + 2 * REFUSED_MS_MAX);
    assert!(effects(&mut replica).iter().any(is_loss));
}

/// Goal: a courier may come right after the line has gone: of what was sealed since the cloud has said nothing. What it was
/// to name and did not has to wait. Method: a batch before and one after the greeting, receipts of a moment later by hand;
/// one that counted already.
#[test]
fn what_was_sealed_since_has_not_been_denied() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 1, Welcome { time_ms: 100_000, ..welcome(Heads::new()) });
    let life = replica.life.clone();
    let later = board.chain(&life, Tier::Daily, 1);
    replica.engine.handle_sealed(later[0].header(), 5);
    replica.engine.handle_disconnected(10);
    effects(&mut replica);
    let receipt =
        |batch: &Batch| Receipt { issued_ms: 100_001, ..receipt_for(batch) }.sign(&board.receipt_key);
    assert_eq!(replica.engine.handle_carried_receipt(receipt(&later[0]), 11), CarriedReceipt::Moved);
    assert_eq!(replica.engine.handle_carried_receipt(receipt(&later[0]), 12), CarriedReceipt::Known);
    assert_eq!(replica.engine.handle_carried_receipt(receipt(&chain[0]), 13), CarriedReceipt::Outdated);
}

/// Goal: on the line a receipt is compared with the clock of the node that signs there, not with that of the one which
/// said that it has less. Method: a complete welcome of a node whose clock is ahead, an incomplete one of another; a
/// receipt of before that, and one of after.
#[test]
fn each_node_has_its_own_clock() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 1, Welcome { time_ms: 100_000, ..welcome(Heads::new()) });
    let log = chain[0].header().log;
    replica.engine.handle_disconnected(10);
    replica.engine.handle_timeout(10 + REFUSED_MS_MAX);
    replica.engine.handle_connected();
    let other = Welcome { time_ms: 50_000, complete: false, ..welcome(Heads::new()) };
    replica.engine.handle_welcome(&other, 20 + REFUSED_MS_MAX);
    for (issued_ms, counts) in [(49_000, false), (50_100, true)] {
        let receipt = Receipt { issued_ms, ..receipt_for(&chain[0]) }.sign(&board.receipt_key);
        replica.engine.handle_batch_reply(log, BatchReply::Receipt(receipt), 30 + REFUSED_MS_MAX);
        assert_eq!(replica.engine.receipted().contains_key(&log), counts, "{issued_ms}");
    }
}

/// Goal: an old receipt that a courier brings between hello and welcome does not call safe what the cloud may have lost
/// while the process was down. Method: a start with two batches of before, of which the cloud has one.
#[test]
fn an_old_receipt_does_not_overtake_the_welcome() {
    let board = Board::new(1);
    let life = board.enrol(school(), 10);
    let chain = board.chain(&life, Tier::Safety, 2);
    let log = life.log(Tier::Safety);
    let disk = Disk { sealed: [(log, chain.clone())].into(), ..Disk::default() };
    let mut replica = Replica::new(&board, life, disk, 1);
    replica.engine.handle_timeout(0);
    replica.engine.handle_connected();
    let old = receipt_for(&chain[1]).sign(&board.receipt_key);
    assert_eq!(replica.engine.handle_carried_receipt(old.clone(), 1), CarriedReceipt::Moved);
    effects(&mut replica);
    let first = Heads::from([(log, chain[0].header().head())]);
    let answer = Welcome { time_ms: 100, ..welcome(first.clone()) };
    replica.engine.handle_welcome(&answer, 2);
    let kept = Effect::KeepLoss { loss_counter: 1, receipted: first.clone() };
    let told = effects(&mut replica);
    assert!(told.contains(&kept), "{told:?}");
    replica.engine.handle_loss_kept();
    assert_eq!(replica.engine.handle_carried_receipt(old, 3), CarriedReceipt::Outdated);
    assert_eq!(replica.engine.receipted(), first);
}

/// Goal: every receipt that is not exactly for a held batch is ignored, the right one counts. Method: change one
/// field at a time, then sign with a strange key, then send the right one.
#[test]
fn wrong_receipts_move_nothing() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 2, welcome(Heads::new()));
    effects(&mut replica);
    let right = receipt_for(&chain[0]);
    let log = right.log;
    let wrong = [
        Receipt { school: "B113200000022".parse().unwrap(), ..right.clone() },
        Receipt { head: LogHead { hash: Hash32([7; 32]), ..right.head }, ..right.clone() },
        Receipt { head: LogHead { sequence: 4, ..right.head }, ..right.clone() },
        Receipt { log: replica.life.log(Tier::Daily), ..right.clone() },
        Receipt { log: board.enrol(school(), 11).log(Tier::Safety), ..right.clone() },
        Receipt { loss_counter: 1, ..right.clone() },
    ];
    let mut texts: Vec<_> = wrong.iter().map(|receipt| receipt.sign(&board.receipt_key)).collect();
    texts.push(right.sign(&SigningKey::from_bytes(&[99; 32])));
    texts.push(right.sign(&board.receipt_key)[1..].to_vec());
    for bytes in texts {
        replica.engine.handle_batch_reply(log, BatchReply::Receipt(bytes), 10);
        assert_eq!(replica.engine.receipted(), Heads::new());
    }
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(right.sign(&board.receipt_key)), 10);
    assert_eq!(replica.engine.receipted(), Heads::from([(log, right.head)]));
    assert!(matches!(effects(&mut replica).as_slice(), [Effect::KeepReceipt { .. }]));
}

/// Goal: after a loss was noticed, a late receipt of before never raises "safe" again. Method: two receipted
/// batches, a welcome without the second, then its old receipt again, before and after the counter is kept.
#[test]
fn a_late_receipt_of_before_a_loss_is_ignored() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 2, welcome(Heads::new()));
    let log = chain[0].header().log;
    let old: Vec<_> = chain.iter().map(|batch| receipt_for(batch).sign(&board.receipt_key)).collect();
    for bytes in &old {
        replica.engine.handle_batch_reply(log, BatchReply::Receipt(bytes.clone()), 10);
    }
    assert_eq!(replica.engine.receipted()[&log], chain[1].header().head());
    replica.engine.handle_disconnected(11);
    replica.engine.handle_connected();
    effects(&mut replica);
    let left = Heads::from([(log, chain[0].header().head())]);
    replica.engine.handle_welcome(&welcome(left.clone()), 12);
    let told = effects(&mut replica);
    let shown = Shown { at_ms: 0, heads: left.clone(), held: [(log, 4)].into() };
    let expected = [
        Effect::KeepShown(Box::new(shown)),
        Effect::Alarm(Alarm::CloudLost { log, had: 4, has: 2 }),
        Effect::KeepLoss { loss_counter: 1, receipted: left.clone() },
    ];
    assert_eq!(told, expected, "nothing is sent before the counter is kept");
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(old[1].clone()), 13);
    assert_eq!(replica.engine.receipted(), left);
    replica.engine.handle_loss_kept();
    assert_eq!(effects(&mut replica), [Effect::Disconnect]);
    replica.engine.handle_disconnected(14);
    replica.engine.handle_connected();
    replica.engine.handle_welcome(&welcome(left.clone()), 15);
    let sent = effects(&mut replica);
    assert!(sent.contains(&Effect::SendBatch { log, first: 3 }), "{sent:?}");
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(old[1].clone()), 16);
    assert_eq!(replica.engine.receipted(), left);
    let new = Receipt { loss_counter: 1, ..receipt_for(&chain[1]) }.sign(&board.receipt_key);
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(new), 17);
    assert_eq!(replica.engine.receipted()[&log], chain[1].header().head());
}

/// Goal: a cloud that could not read enough sites is no proof of a loss. Method: a welcome without the head that
/// says it is incomplete.
#[test]
fn an_incomplete_answer_lowers_nothing() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 1, welcome(Heads::new()));
    let log = chain[0].header().log;
    let bytes = receipt_for(&chain[0]).sign(&board.receipt_key);
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(bytes), 10);
    effects(&mut replica);
    let unread = Welcome { complete: false, ..welcome(Heads::new()) };
    replica.engine.handle_welcome(&unread, 11);
    assert_eq!(effects(&mut replica), [Effect::Alarm(Alarm::Incomplete)]);
    assert_eq!((replica.engine.receipted().len(), replica.engine.loss_counter()), (1, 0));
}

/// Goal: a refusal that may pass is retried, ever more slowly, until a receipt comes; one that cannot pass stops
/// that log and no other. Method: storage and chain refusals in a row, then a refused signature in one of two logs.
#[test]
fn refusals_are_retried_or_stop_their_log() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 1, welcome(Heads::new()));
    let log = chain[0].header().log;
    let refusal = |code| BatchReply::Refusal(Refusal { code, text: String::new(), heads: Heads::new() });
    let mut waits = Vec::new();
    for _ in 0..8 {
        let code = if waits.len() % 2 == 0 { RefusalCode::Storage } else { RefusalCode::Chain };
        replica.engine.handle_batch_reply(log, refusal(code), 100);
        assert!(effects(&mut replica).contains(&Effect::Disconnect));
        replica.engine.handle_disconnected(100);
        waits.push(replica.engine.poll_timeout().unwrap() - 100);
        replica.engine.handle_timeout(u64::MAX);
        replica.engine.handle_connected();
        replica.engine.handle_welcome(&welcome(Heads::new()), 100);
        assert!(effects(&mut replica).contains(&Effect::SendBatch { log, first: 1 }));
    }
    let [storage, chain] = [waits[6], waits[7]];
    assert!(waits[0] <= 1_000 && (REFUSED_MS_MAX / 2..=REFUSED_MS_MAX).contains(&storage), "{waits:?}");
    assert!((DIAL_MS_MAX / 2..=DIAL_MS_MAX).contains(&chain), "{waits:?}");
    replica.engine.handle_batch_reply(log, refusal(RefusalCode::Signature), 100);
    assert!(!effects(&mut replica).contains(&Effect::Disconnect));
    replica.engine.handle_disconnected(100);
    replica.engine.handle_connected();
    replica.write(Tier::Daily, "p", 1, 5);
    replica.seal(&board, 1, 100);
    replica.engine.handle_welcome(&welcome(Heads::new()), 101);
    let daily = replica.life.log(Tier::Daily);
    let sent: Vec<_> = effects(&mut replica)
        .into_iter()
        .filter(|effect| matches!(effect, Effect::SendBatch { .. }))
        .collect();
    assert_eq!(sent, [Effect::SendBatch { log: daily, first: 1 }]);
}

/// Goal: while the cloud cannot store, a backlog does not travel over and over: one batch asks whether it can again, and
/// the rest follows its receipt; a log that alone is refused keeps the others from nothing. Method: a backlog in two tiers,
/// storage refusals of both, a receipt.
#[test]
fn a_backlog_waits_until_the_cloud_can_store() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 3, welcome(Heads::new()));
    replica.write(Tier::Daily, "p", 1, 5);
    replica.seal(&board, 1, 100);
    let [log, daily] = [Tier::Safety, Tier::Daily].map(|tier| replica.life.log(tier));
    let sent = |replica: &mut Replica| -> Vec<(LogName, u64)> {
        let sends =
            |effect| if let Effect::SendBatch { log, first } = effect { Some((log, first)) } else { None };
        effects(replica).into_iter().filter_map(sends).collect()
    };
    sent(&mut replica);
    let refusal = Refusal { code: RefusalCode::Storage, text: String::new(), heads: Heads::new() };
    replica.engine.handle_batch_reply(log, BatchReply::Refusal(refusal.clone()), 100);
    replica.engine.handle_disconnected(100);
    replica.engine.handle_timeout(u64::MAX);
    // A dial that fails behind that is the line's affair.
    for _ in 0..8 {
        replica.engine.handle_disconnected(100);
        assert!(replica.engine.poll_timeout().unwrap() - 100 <= DIAL_MS_MAX);
        replica.engine.handle_timeout(u64::MAX);
    }
    let greet = |replica: &mut Replica| {
        replica.engine.handle_connected();
        replica.engine.handle_welcome(&welcome(Heads::new()), 101);
        sent(replica)
    };
    assert_eq!(greet(&mut replica), [(daily, 1)], "it may be the first log alone");
    replica.engine.handle_batch_reply(daily, BatchReply::Refusal(refusal), 101);
    replica.engine.handle_disconnected(101);
    replica.engine.handle_timeout(u64::MAX);
    assert_eq!(greet(&mut replica), [(log, 1)]);
    let bytes = receipt_for(&chain[0]).sign(&board.receipt_key);
    replica.engine.handle_batch_reply(log, BatchReply::Receipt(bytes), 102);
    let [second, third] = [1, 2].map(|place| chain[place].header().first);
    assert_eq!(sent(&mut replica), [(log, second), (log, third), (daily, 1)]);
}

/// Goal: a box whose hello is refused does not hammer the cloud; a welcome ends that. Method: connections that are
/// closed before the welcome, then one that is welcomed.
#[test]
fn refused_hellos_are_repeated_ever_more_slowly() {
    let board = Board::new(1);
    let (mut replica, _) = up(&board, 0, welcome(Heads::new()));
    let lose = |replica: &mut Replica| {
        replica.engine.handle_disconnected(100);
        let wait = replica.engine.poll_timeout().unwrap() - 100;
        replica.engine.handle_timeout(u64::MAX);
        replica.engine.handle_connected();
        wait
    };
    let waits: Vec<_> = (0..8).map(|_| lose(&mut replica)).collect();
    assert!(waits[0] <= 500 && waits[7] >= DIAL_MS_MAX / 2, "{waits:?}");
    replica.engine.handle_welcome(&welcome(Heads::new()), 101);
    assert!(lose(&mut replica) <= 500);
}

/// Goal: a cloud that answers and never receipts is told of after five minutes, once, and dialled anew; a receipt
/// begins the watch anew. Method: wait, then a receipt for the first of two batches, then wait again.
#[test]
fn a_cloud_without_receipts_is_a_stall() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 2, welcome(Heads::new()));
    effects(&mut replica);
    assert_eq!(replica.engine.poll_timeout(), Some(1 + STALL_MS));
    replica.engine.handle_timeout(STALL_MS);
    assert_eq!(effects(&mut replica), []);
    replica.engine.handle_timeout(1 + STALL_MS);
    let told = [Effect::Alarm(Alarm::Stalled { since_ms: 1 }), Effect::Disconnect];
    assert_eq!(effects(&mut replica), told);
    assert_eq!(replica.engine.poll_timeout(), None);
    let receipt = receipt_for(&chain[0]).sign(&board.receipt_key);
    replica.engine.handle_batch_reply(chain[0].header().log, BatchReply::Receipt(receipt), 2 * STALL_MS);
    assert_eq!(replica.engine.poll_timeout(), Some(3 * STALL_MS));
    let receipt = receipt_for(&chain[1]).sign(&board.receipt_key);
    replica.engine.handle_batch_reply(chain[0].header().log, BatchReply::Receipt(receipt), 2 * STALL_MS + 1);
    assert_eq!(replica.engine.poll_timeout(), None, "nothing waits");
}

/// Goal: a clock that jumps back by decades while the line is down does not stop the dialling. Method: lose the
/// line in the present, wake up in 1970. Found by the simulation, seed 16.
#[test]
fn a_clock_that_jumps_back_does_not_stop_the_dialling() {
    let board = Board::new(1);
    let (mut replica, _) = up(&board, 0, welcome(Heads::new()));
    effects(&mut replica);
    replica.engine.handle_disconnected(1_764_000_000_000);
    replica.engine.handle_timeout(5);
    assert_eq!(effects(&mut replica), [Effect::Dial]);
}
