//! One log, two histories: refused, told, and nothing of either is overwritten.

use sonae_proto::ids::Tier;
use sonae_proto::uplink::{Alarm, BatchReply, Effect};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Refusal, RefusalCode};

use crate::board::Board;
use crate::desk::Desk;
use crate::receipts::{effects, up, welcome};
use crate::world::{Shape, World};

/// Goal: the same sequence with another hash is refused as a fork, before and after the first is durable, and
/// what is stored stays. Method: two sealings of one line (age makes them differ).
#[test]
fn another_history_is_refused() {
    let (mut desk, life) = Desk::ready();
    let lines = [b"{}".to_vec()];
    let one = desk.board.seal(&life, Tier::Safety, LogHead::EMPTY, &lines);
    let other = desk.board.seal(&life, Tier::Safety, LogHead::EMPTY, &lines);
    assert_ne!(one.header().hash(), other.header().hash());
    let first = desk.offer(1, &one);
    let early = desk.offer(1, &other);
    assert_eq!(desk.refusal(early), Some(RefusalCode::Fork));
    desk.store_all(2);
    assert!(desk.receipt(first).is_some());
    let late = desk.offer(1, &other);
    assert_eq!(desk.refusal(late), Some(RefusalCode::Fork));
    let next = desk.board.seal(&life, Tier::Safety, other.header().head(), &lines);
    let wrong = desk.offer(1, &next);
    assert_eq!(desk.refusal(wrong), Some(RefusalCode::Chain));
    assert!(desk.stores.is_empty());
    assert_eq!(desk.greet(2, &life, 0).heads[&life.log(Tier::Safety)], one.header().head());
}

/// Goal: batches that wait for their turn do not displace each other. Method: two different second batches; the
/// first batch decides which one fits, the other is answered too.
#[test]
fn waiting_batches_of_two_histories_are_both_answered() {
    let (mut desk, life) = Desk::ready();
    let chain = desk.board.chain(&life, Tier::Safety, 2);
    let misfit = desk.board.seal(
        &life,
        Tier::Safety,
        LogHead { sequence: 2, hash: chain[1].header().hash() },
        &[b"{}".to_vec()],
    );
    let waits = desk.offer(1, &misfit);
    let clash = desk.offer(1, &chain[1]);
    assert_eq!(desk.refusal(clash), Some(RefusalCode::Fork));
    let first = desk.offer(1, &chain[0]);
    assert_eq!(desk.refusal(waits), Some(RefusalCode::Chain));
    desk.store_all(2);
    assert!(desk.receipt(first).is_some());
}

/// Goal: a data directory that was restored from an old copy is noticed; nothing in the cloud is overwritten and
/// nothing of that log is sent. Method: copy the disk, go on, restore the copy, write something else.
#[test]
fn an_old_copy_of_a_data_directory_is_noticed() {
    let mut world = World::new(Shape::calm(1, 2, 2));
    let log = world.replicas[0].life.log(Tier::Safety);
    world.write(0, Tier::Safety, "r1");
    world.seal(0, 10);
    world.converge(20_000);
    let copy = world.replicas[0].disk.clone();
    for _ in 0..3 {
        world.write(0, Tier::Safety, "r1");
        world.seal(0, 10);
    }
    world.converge(20_000);
    let before = world.node.as_ref().unwrap().intake.overview();
    world.start_replica(0, copy);
    world.run_for(10_000);
    let elsewhere = Alarm::OwnLogElsewhere { log, here: 1, there: 4 };
    assert_eq!(world.alarms(0, |alarm| *alarm == elsewhere), 1);
    world.write(0, Tier::Safety, "r1");
    world.seal(0, 10);
    world.write(0, Tier::Daily, "r1");
    world.seal(0, 10);
    world.run_for(60_000);
    let safe = world.replicas[0].engine.receipted();
    assert_eq!(safe[&log].sequence, 1, "the rest of the old copy is not called safe");
    assert_eq!(safe.get(&world.replicas[0].life.log(Tier::Daily)), None, "nothing moves before the renewal");
    let after = world.node.as_ref().unwrap().intake.overview();
    assert_eq!(after[0].heads[&log], before[0].heads[&log]);
    assert_eq!(world.alarms(0, |alarm| matches!(alarm, Alarm::Refused(_))), 0, "it was not even tried");
    assert_eq!(world.replicas[0].renewals, 1);
}

/// Goal: the same sequence with another hash at the cloud is another history too. Method: a welcome with a
/// changed hash, twice; one alarm.
#[test]
fn another_hash_of_the_own_head_is_noticed() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 2, welcome(Heads::new()));
    effects(&mut replica);
    let log = chain[0].header().log;
    let other = board.chain(&replica.life, Tier::Safety, 1);
    for alarms in [1, 0] {
        replica.engine.handle_disconnected(1);
        assert_eq!(replica.engine.poll_timeout().is_some(), alarms == 1, "it dials no more");
        replica.engine.handle_connected();
        let heads = Heads::from([(log, other[0].header().head())]);
        replica.engine.handle_welcome(&welcome(heads), 1);
        let effects = effects(&mut replica);
        let elsewhere = Effect::Alarm(Alarm::OwnLogElsewhere { log, here: 4, there: 2 });
        assert_eq!(effects.iter().filter(|effect| **effect == elsewhere).count(), alarms);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::SendBatch { .. })));
    }
}

/// Goal: a clone that runs at the same time is noticed at the first batch, without a new greeting. Method: the
/// cloud refuses a batch as a fork; a second refusal asks for nothing more.
#[test]
fn a_refused_fork_asks_for_a_new_incarnation() {
    let board = Board::new(1);
    let (mut replica, chain) = up(&board, 2, welcome(Heads::new()));
    let log = chain[0].header().log;
    effects(&mut replica);
    for renewals in [1, 0] {
        let refusal =
            Refusal { code: RefusalCode::Fork, text: "another history".into(), heads: Heads::new() };
        replica.engine.handle_batch_reply(log, BatchReply::Refusal(refusal), 1);
        let effects = effects(&mut replica);
        let expected: &[Effect] = if renewals == 1 { &[Effect::Renew, Effect::Disconnect] } else { &[] };
        assert_eq!(effects.get(1..).unwrap_or_default(), expected, "after the alarm");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::SendBatch { .. })));
    }
}
