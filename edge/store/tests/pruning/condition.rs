//! The condition, as somebody outside knows it, against many histories.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::proof::ProofResult;
use sonae_proto::vector::Heads;
use sonae_store::retention::Retention;
use sonae_store::{Opened, Store};

use crate::scene::{DAY_MS, Scene, essence, receipts, settle, write};

/// What is known from outside of one snapshot.
#[derive(Debug, Clone, Default)]
struct Known {
    heads: Heads,
    /// The loss counter and the time that the box had run when its receipt came.
    safe: Option<(u64, u64)>,
    read_back: bool,
    proved: bool,
}

/// A small generator, so that a seed means the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct History {
    scene: Scene,
    opened: Option<Opened>,
    retention: Retention,
    random: Random,
    snapshots: BTreeMap<Hash32, Known>,
    newest: Option<Hash32>,
    loss_counter: u64,
    /// Milliseconds for which the box has run, as somebody with a watch knows it.
    ran_ms: u64,
    /// Whether the last proof succeeded, and is young by that watch.
    proved_at: Option<u64>,
    written: usize,
    pruned: Heads,
    prunes: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let scene = Scene::new();
        let opened = scene.open();
        Self {
            opened: Some(opened),
            scene,
            retention: Retention::default(),
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            snapshots: BTreeMap::new(),
            newest: None,
            loss_counter: 0,
            ran_ms: 0,
            proved_at: None,
            written: 0,
            pruned: Heads::new(),
            prunes: 0,
        }
    }

    fn store(&self) -> Store {
        self.opened.as_ref().unwrap().store.clone()
    }

    fn run(&mut self, ms: u64) {
        self.scene.run(ms);
        self.ran_ms += ms;
    }

    fn prove(&mut self) {
        let result = if self.random.below(6) == 0 { ProofResult::Incomplete } else { ProofResult::Proved };
        let (published, through) = (self.random.below(6) != 0, self.random.below(2) == 0);
        let snapshots = if through { self.store().own_snapshots() } else { BTreeMap::new() };
        self.scene.prove(&self.store(), result, snapshots.clone(), published);
        let succeeded = result == ProofResult::Proved;
        self.proved_at = succeeded.then_some(self.ran_ms);
        let vector = self.store().state().vector;
        let counter = self.loss_counter;
        let is_safe = |known: &Known| known.safe.is_some_and(|(under, _)| under == counter);
        let safe = self.snapshots.iter_mut().filter(|(_, known)| is_safe(known));
        for (root, known) in safe.filter(|_| succeeded && published) {
            match snapshots.get(&Tier::Daily) {
                Some(through) => known.read_back |= through == root,
                None => {
                    known.proved |= known.heads.iter().all(|(log, head)| vector[log] >= head.sequence);
                }
            }
        }
        self.retention.look(&self.store(), &self.scene.proofs);
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0..=2 => {
                let n = self.written;
                write(&self.store(), n..n + 30, "present");
                self.written += 30;
            }
            3 => receipts(&self.store()),
            4..=5 if self.written > 0 => {
                let snapshot = self.store().make_snapshot_blocking(Tier::Daily).unwrap();
                let heads = snapshot.root().heads.clone();
                let new = Known { heads, ..Known::default() };
                self.snapshots.entry(snapshot.hash()).or_insert(new);
                self.newest = Some(snapshot.hash());
            }
            6..=8 => {
                // The engine offers only what is safe up to its heads.
                receipts(&self.store());
                if let Some(root) = self.newest {
                    self.store().snapshot_safe(Tier::Daily, root);
                    settle(&self.store());
                    let known = self.snapshots.get_mut(&root).unwrap();
                    let first = known.safe.is_none_or(|(counter, _)| counter < self.loss_counter);
                    if first {
                        let safe = Some((self.loss_counter, self.ran_ms));
                        *known = Known { safe, heads: known.heads.clone(), ..Known::default() };
                    }
                }
            }
            9..=15 => self.prove(),
            16..=20 => {
                for _ in 0..self.random.below(10) {
                    self.run(DAY_MS * 2);
                    self.retention.look(&self.store(), &self.scene.proofs);
                }
            }
            21 => {
                let jumps = [0, 60_000, 1_780_000_000_000, 40_000_000_000_000];
                let to = jumps[self.random.below(4) as usize];
                self.scene.wall.store(to, Ordering::Relaxed);
            }
            22 if self.random.below(3) == 0 => {
                self.loss_counter += 1;
                let lost = Heads::new();
                crate::scene::block_on(self.store().keep_loss(self.loss_counter, lost)).unwrap();
            }
            23 => {
                self.opened.take().unwrap().close();
                self.opened = Some(self.scene.open());
                self.retention = Retention::default();
            }
            _ => {}
        }
        self.retention.look(&self.store(), &self.scene.proofs);
    }

    /// Whether what was pruned was allowed to be.
    fn check(&mut self, what: &str) {
        let state = self.store().state();
        let now = state.pruned;
        if now == self.pruned {
            return;
        }
        let known = &self.snapshots[&state.foundations[&Tier::Daily]];
        assert_eq!(now, known.heads, "{what}");
        let (counter, safe_ms) = known.safe.unwrap_or_else(|| panic!("{what}: no receipt"));
        assert_eq!(counter, self.loss_counter, "{what}: the receipt is of before a loss");
        assert!(
            self.ran_ms >= safe_ms + 30 * DAY_MS,
            "{what}: {} ms after the receipt",
            self.ran_ms - safe_ms
        );
        assert!(known.read_back && known.proved, "{what}: {known:?}");
        assert!(self.proved_at.is_some(), "{what}: the last proof failed");
        (self.pruned, self.prunes) = (now, self.prunes + 1);
    }
}

/// Goal: nothing is pruned unless all of it holds, whatever clocks, losses, failures and restarts come between; and
/// pruning does happen. Method: histories by seed against a model with a watch of its own; the state must stay the fold
/// of what was written.
#[test]
fn nothing_is_pruned_too_early() {
    let mut prunes = 0;
    for seed in 0..6 {
        let mut history = History::new(seed);
        for number in 0..80 {
            history.step();
            history.check(&format!("seed {seed}, step {number}"));
        }
        let before = essence(&history.store());
        history.opened.take().unwrap().close();
        std::fs::remove_dir_all(history.scene.data.join("view")).unwrap();
        let opened = history.scene.open();
        assert_eq!(essence(&opened.store), before, "seed {seed}");
        opened.close();
        prunes += history.prunes;
    }
    assert!(prunes > 3, "{prunes} prunes: the histories show too little");
}
