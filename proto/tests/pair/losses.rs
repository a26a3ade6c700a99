//! The line and the cloud fail; "safe" follows what the sites hold.

use sonae_proto::ids::{LogName, Tier};
use sonae_proto::receipt::Receipt;
use sonae_proto::uplink::{Alarm, CarriedReceipt};
use sonae_proto::vector::Heads;

use crate::board::{school, site};
use crate::world::{Shape, World};

fn write_all_tiers(world: &mut World, replica: usize) {
    for tier in Tier::ALL {
        world.write(replica, tier, "r1");
    }
    world.seal(replica, 10);
}

/// Goal: receipts move "safe" to what is kept. Method: writes in all tiers on a calm line.
#[test]
fn receipts_move_safe() {
    let mut world = World::new(Shape::calm(1, 2, 2));
    write_all_tiers(&mut world, 0);
    assert!(!world.replicas[0].all_safe());
    world.converge(20_000);
    assert_eq!(world.replicas[0].engine.receipted().len(), 3);
    assert_eq!(world.alarms(0, |_| true), 0);
}

/// Goal: a cut line stops "safe" and nothing else; afterwards all of it becomes safe. Method: write, cut, write
/// for a long time, heal.
#[test]
fn a_cut_line_comes_back() {
    let mut world = World::new(Shape::calm(1, 2, 2));
    write_all_tiers(&mut world, 0);
    world.converge(20_000);
    let safe = world.replicas[0].engine.receipted();
    world.cut(0);
    for _ in 0..30 {
        write_all_tiers(&mut world, 0);
        world.run_for(5_000);
    }
    assert_eq!(world.replicas[0].engine.receipted(), safe);
    world.heal(0);
    world.converge(120_000);
    assert_eq!(world.alarms(0, |_| true), 0);
}

/// Goal: a node that starts again from its sites has the same heads. Method: crash and boot; compare heads,
/// alarms, and what a further write does.
#[test]
fn a_node_starts_again_from_its_sites() {
    let mut world = World::new(Shape::calm(2, 2, 2));
    write_all_tiers(&mut world, 0);
    write_all_tiers(&mut world, 1);
    world.converge(60_000);
    let before = world.node.as_ref().unwrap().intake.overview();
    world.crash_node();
    world.boot_node(false);
    assert_eq!(world.node.as_ref().unwrap().intake.overview(), before);
    write_all_tiers(&mut world, 0);
    world.converge(60_000);
    assert_eq!(world.alarms(0, |_| true) + world.alarms(1, |_| true), 0);
}

/// Goal: a cloud that lost receipted data is noticed by the replica: counter raised, "safe" lowered, all sent
/// again. Method: both sites lose their last two objects; watch "safe" go down and come back.
#[test]
fn a_lost_tail_is_noticed_and_sent_again() {
    let mut world = World::new(Shape::calm(1, 2, 2));
    for _ in 0..4 {
        world.write(0, Tier::Safety, "r1");
        world.seal(0, 10);
        world.converge(20_000);
    }
    world.crash_node();
    world.lose_tails(2);
    world.boot_node(false);
    let log = world.replicas[0].life.log(Tier::Safety);
    let mut lowest = u64::MAX;
    while lowest > 2 {
        world.run_for(1);
        lowest = lowest.min(world.replicas[0].engine.receipted()[&log].sequence);
        assert!(world.now < 200_000, "the loss is noticed");
    }
    assert_eq!(world.alarms(0, |alarm| *alarm == Alarm::CloudLost { log, had: 4, has: 2 }), 1);
    assert_eq!(world.replicas[0].disk.loss_counter, 1);
    world.converge(60_000);
    assert_eq!(world.replicas[0].engine.receipted()[&log].sequence, 4);
}

/// Goal: a loss that was noticed just before a power cut is noticed again. Method: restart the replica on the
/// disk of before the welcome.
#[test]
fn a_loss_survives_a_crash_of_the_replica() {
    let mut world = World::new(Shape::calm(1, 2, 2));
    write_all_tiers(&mut world, 0);
    world.converge(20_000);
    let disk = world.replicas[0].disk.clone();
    world.crash_node();
    world.lose_tails(3);
    world.boot_node(false);
    while world.replicas[0].engine.loss_counter() == 0 {
        world.run_for(1);
        assert!(world.now < 200_000);
    }
    world.start_replica(0, disk);
    assert_eq!(world.replicas[0].engine.loss_counter(), 0);
    world.converge(60_000);
    assert_eq!(world.replicas[0].disk.loss_counter, 1);
}

/// Goal: receipts that a process forgot do not call safe again what the cloud has lost since. Method: both crash, the
/// replica without its lazily kept receipts, the cloud without the batches; the old receipts come by a courier between
/// the welcome and the first new one, in half of the runs after one more restart, without a line. Without a loss the
/// counter stays.
#[test]
fn forgotten_receipts_are_outdated_by_a_loss() {
    for (is_lost, restarts) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut world = World::new(Shape::calm(1, 2, 2));
        write_all_tiers(&mut world, 0);
        world.converge(20_000);
        let safe = world.replicas[0].engine.receipted();
        let mut disk = world.replicas[0].disk.clone();
        disk.receipted.clear();
        world.crash_node();
        world.lose_tails(if is_lost { 3 } else { 0 });
        world.boot_node(false);
        world.start_replica(0, disk);
        while !world.replicas[0].engine.is_up() {
            world.run_for(1);
            assert!(world.now < 200_000);
        }
        if restarts {
            world.cut(0);
            let disk = world.replicas[0].disk.clone();
            world.start_replica(0, disk);
        }
        for (log, head) in &safe {
            let (school, sites) = (school(), vec![site(0), site(1)]);
            let receipt = Receipt { school, log: *log, head: *head, loss_counter: 0, issued_ms: 9, sites };
            let bytes = receipt.sign(&world.board.receipt_key);
            let taken = world.replicas[0].engine.handle_carried_receipt(bytes, world.now);
            let expected = if is_lost { CarriedReceipt::Outdated } else { CarriedReceipt::Moved };
            assert_eq!(taken, expected);
        }
        world.heal(0);
        world.converge(60_000);
        assert_eq!(world.replicas[0].engine.receipted(), safe);
        assert_eq!(world.replicas[0].disk.loss_counter, 0, "nothing that was known here is lost");
        assert_eq!(world.alarms(0, |_| true), 0);
    }
}

/// A replica with four safe batches of which it has pruned some.
fn pruned(up_to: usize) -> (World, LogName) {
    let mut world = World::new(Shape::calm(1, 2, 2));
    for _ in 0..4 {
        world.write(0, Tier::Safety, "r1");
        world.seal(0, 10);
        world.converge(20_000);
    }
    let log = world.replicas[0].life.log(Tier::Safety);
    let base = world.replicas[0].disk.sealed[&log][up_to - 1].header().head();
    world.replicas[0].engine.handle_pruned(&Heads::from([(log, base)]));
    (world, log)
}

impl World {
    /// Every site loses its last objects.
    fn lose(&mut self, objects: usize) {
        self.crash_node();
        self.lose_tails(objects);
        self.boot_node(false);
    }
}

/// Goal: a cloud that lost what was pruned and comes back with it leaves nothing unsafe for good: what cannot be sent
/// again gets no receipt. Method: all is lost, that is noticed, and all is there again; with a batch behind what was
/// pruned, whose receipt covers the rest, and without; found by simulation seed 1796000049.
#[test]
fn a_cloud_that_comes_back_leaves_nothing_unsafe() {
    for up_to in [3, 4] {
        let (mut world, log) = pruned(up_to);
        let image = world.sites.clone();
        world.lose(4);
        while world.replicas[0].disk.loss_counter == 0 {
            world.run_for(1);
            assert!(world.now < 200_000, "the loss is noticed");
        }
        world.crash_node();
        world.sites = image;
        world.boot_node(false);
        world.run_for(60_000);
        let replica = &world.replicas[0];
        let safe = replica.engine.receipted().get(&log).map_or(0, |head| head.sequence);
        assert_eq!((replica.renewals, safe), if up_to == 4 { (1, 0) } else { (0, 4) });
    }
}

/// Goal: a loss behind what was pruned is filled as ever. Method: the cloud ends exactly where pruning ended.
#[test]
fn a_loss_behind_what_was_pruned_is_sent_again() {
    let (mut world, log) = pruned(3);
    world.lose(1);
    while world.alarms(0, |alarm| matches!(alarm, Alarm::CloudLost { .. })) == 0 {
        world.run_for(1);
        assert!(world.now < 200_000, "the loss is noticed");
    }
    world.converge(60_000);
    assert_eq!(world.alarms(0, |alarm| *alarm == Alarm::CloudLost { log, had: 4, has: 3 }), 1);
    assert_eq!(world.alarms(0, |alarm| matches!(alarm, Alarm::Unfillable { .. })), 0);
    assert_eq!((world.replicas[0].renewals, world.replicas[0].engine.receipted()[&log].sequence), (0, 4));
}

/// Goal: a loss of what was pruned lowers "safe" durably first, is told as what it is, and ends in a new incarnation;
/// nothing that was pruned is asked for. Method: a cloud that ends below it, and one that has nothing at all.
#[test]
fn a_loss_of_what_was_pruned_is_told() {
    for (lost, has) in [(2, 2), (4, 0)] {
        let (mut world, log) = pruned(3);
        world.lose(lost);
        while world.replicas[0].renewals == 0 {
            world.run_for(1);
            assert!(world.now < 200_000, "a new incarnation is asked for");
        }
        assert_eq!(world.alarms(0, |alarm| *alarm == Alarm::CloudLost { log, had: 4, has }), 1);
        assert_eq!(world.alarms(0, |alarm| *alarm == Alarm::Unfillable { log, has, pruned: 3 }), 1);
        assert_eq!(world.replicas[0].disk.loss_counter, 1, "kept before");
        let safe = world.replicas[0].engine.receipted();
        assert_eq!(safe.get(&log), None, "nobody can tell whether what it has is a point of this history");
        world.run_for(60_000);
        let overview = world.node.as_ref().unwrap().intake.overview();
        assert!(!format!("{overview:?}").contains("sequence: 4"), "nothing is sent behind the gap");
        assert_eq!(world.replicas[0].renewals, 1);
    }
}
