//! Seeded runs of random actions against the outside ledger; then everything heals and must converge.

use sonae_proto::ids::Tier;

use crate::node::Site;
use crate::random::Random;
use crate::world::{Shape, World};

const SEEDS: u64 = 200;

fn shape(seed: u64, sabotage: bool) -> Shape {
    let mut random = Random::new(seed ^ 0x5EED);
    let (sites, quorum) = [(1, 1), (2, 2), (3, 2)][random.index(3)];
    Shape {
        seed,
        replicas: 1 + u8::try_from(random.below(2)).unwrap(),
        sites,
        quorum,
        delay_ms_max: [20, 300, 2_000][random.index(3)],
        duplicate_one_in: [0, 4][random.index(2)],
        drop_one_in: [0, 25][random.index(2)],
        sabotage,
    }
}

fn act(world: &mut World) {
    let replica = world.random.index(world.replicas.len());
    match world.random.below(20) {
        0..=5 => {
            let tier = Tier::ALL[world.random.index(3)];
            let record = ["r1", "r2", "r3"][world.random.index(3)];
            world.write(replica, tier, record);
            return;
        }
        6..=9 => {
            let changes_max = 1 + world.random.index(3);
            world.seal(replica, changes_max);
        }
        10 => world.cut(replica),
        11 | 12 => world.heal(replica),
        13 => world.crash_node(),
        14 => {
            world.crash_node();
            if world.random.one_in(3) {
                let objects = 1 + world.random.index(4);
                world.lose_tails(objects);
            }
        }
        15 | 16 => {
            let heal = world.random.one_in(2);
            world.boot_node(heal);
        }
        17 => {
            let site = world.random.index(world.sites.len());
            world.sites[site].is_down = !world.sites[site].is_down;
        }
        18 => world.restart_replica(replica),
        _ => {}
    }
    let ms = world.random.below(world.shape.delay_ms_max * 4);
    world.run_for(ms);
}

fn run(shape: Shape) -> World {
    let mut world = World::new(shape);
    for _ in 0..60 {
        act(&mut world);
        if world.violation.is_some() {
            break;
        }
    }
    world
}

/// Prints what made a run when its test fails.
struct Explain(Shape);

impl Drop for Explain {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed run: {:?}", self.0);
        }
    }
}

/// Goal: "safe" is never more than what the sites hold, and after healing all is safe and equal everywhere.
/// Method: 200 seeds of writes, cuts, crashes, lost tails and dead sites; the ledger is asked after each step.
#[test]
fn safe_is_true_and_all_converges() {
    let mut losses = 0;
    for seed in 0..SEEDS {
        let explain = Explain(shape(seed, false));
        let mut world = run(explain.0);
        world.sites.iter_mut().for_each(|site| site.is_down = false);
        for number in 0..world.replicas.len() {
            world.heal(number);
            world.seal(number, 10);
        }
        world.crash_node();
        world.boot_node(true);
        world.shape.drop_one_in = 0;
        world.converge(600_000);
        losses += world.replicas.iter().map(|replica| replica.disk.loss_counter).sum::<u64>();
    }
    println!("{losses} noticed losses in {SEEDS} runs");
    assert!(losses > 0, "the runs contain noticed losses");
}

/// Goal: the oracle can fail. Method: the same runs with receipts that are signed before anything is stored.
#[test]
fn a_receipt_before_the_store_is_caught() {
    let caught = (0..SEEDS).filter(|seed| run(shape(*seed, true)).violation.is_some()).count();
    println!("caught on {caught} of {SEEDS} seeds");
    assert!(caught > 0);
}

/// Goal: a run is a function of its seed. Method: one seed twice; equal times, choices, counts and object names.
#[test]
fn the_same_seed_makes_the_same_run() {
    let mark = |mut world: World| {
        let kept: Vec<_> =
            world.replicas.iter().map(|replica| replica.fold.sequences.values().sum::<u64>()).collect();
        let names = |site: &Site| site.objects.keys().cloned().collect::<Vec<_>>();
        let written: Vec<_> = world.sites.iter().map(names).collect();
        (world.now, world.random.next(), kept, written)
    };
    for seed in [3, 17, 42] {
        assert_eq!(mark(run(shape(seed, false))), mark(run(shape(seed, false))));
    }
}
