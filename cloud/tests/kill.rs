//! `kill -9` of the real binary under load, with a ledger outside of it: what has a receipt is there afterwards.
//!
//! The same harness over a node that signs receipts before it stores must find a loss: it can fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::process::Command;

use common::board::{Board, Device, Life, SCHOOL, SchoolKeys};
use common::client::Client;
use common::process::{Daemon, command, write_bundle};
use common::writer::LogWriter;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::receipt::Receipt;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Fetch, Frame, RefusalCode};

/// Batches that the client has in flight, as an uplink has.
const IN_FLIGHT: usize = 8;

/// Rounds of start, load and kill: few in every run, more with `SONAE_KILL_ROUNDS`.
fn rounds() -> u64 {
    std::env::var("SONAE_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8)
}

struct Harness {
    root: tempfile::TempDir,
    board: Board,
    device: Device,
    life: Life,
    keys: SchoolKeys,
    logs: Vec<LogWriter>,
    /// What the node has signed, by a witness that no kill reaches.
    ledger: Heads,
    random: u64,
}

impl Harness {
    fn new(seed: u64) -> Self {
        let board = Board::new();
        let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
        let life = device.life(Beginning::Enrolment, 1);
        let root = tempfile::tempdir().unwrap();
        write_bundle(&board, &root.path().join("bundle"));
        let logs = Tier::ALL.map(|tier| LogWriter::new(&device, &life, &keys, tier)).into();
        Self { root, board, device, life, keys, logs, ledger: Heads::new(), random: seed }
    }

    fn next_random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Receipted batches that the node's heads do not cover.
    fn lost(&self, heads: &Heads) -> Vec<(LogName, LogHead)> {
        let covered = |log: &LogName, wanted: &LogHead| {
            let there = heads.get(log).copied().unwrap_or(LogHead::EMPTY);
            let ours = self.logs.iter().find(|writer| writer.log == *log).unwrap();
            let is_ours = ours.batches.iter().any(|batch| batch.header().head() == there);
            is_ours && there.sequence >= wanted.sequence
        };
        self.ledger
            .iter()
            .filter(|(log, head)| !covered(log, head))
            .map(|(log, head)| (*log, *head))
            .collect()
    }

    fn note(&mut self, receipt: &Receipt) {
        let head = self.ledger.entry(receipt.log).or_insert(LogHead::EMPTY);
        if receipt.head.sequence > head.sequence {
            *head = receipt.head;
        }
    }

    /// Starts, checks, sends, kills at some receipt. Returns what was lost before this round.
    async fn round(&mut self, start: &mut Command) -> Vec<(LogName, LogHead)> {
        let daemon = Daemon::start(start);
        let (client, welcome) =
            Client::greet_with_keys(&self.board, &self.device, &self.life, &self.keys, daemon.address).await;
        assert!(welcome.complete);
        let lost = self.lost(&welcome.heads);
        if !lost.is_empty() {
            return lost;
        }
        let receipts_until_kill = 1 + self.next_random(60);
        let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
        for writer in &mut self.logs {
            (0..40).for_each(|n| {
                writer.write(&n.to_string());
            });
            let there = welcome.heads.get(&writer.log).map_or(0, |head| head.sequence);
            let left = writer.batches.iter().filter(|batch| batch.header().last > there);
            queue.extend(left.map(|batch| batch.bytes().to_vec()));
        }
        let mut in_flight = FuturesUnordered::new();
        let mut receipts = 0;
        while receipts < receipts_until_kill {
            while in_flight.len() < IN_FLIGHT
                && let Some(bytes) = queue.pop_front()
            {
                let client = &client;
                in_flight.push(async move { (client.ask(&Frame::Batch(bytes.clone())).await, bytes) });
            }
            match in_flight.next().await {
                Some((Some(Frame::Receipt(bytes)), _)) => {
                    self.note(&Receipt::verify(&bytes, self.board.descriptor.body()).unwrap());
                    receipts += 1;
                }
                // The keys are still on their way.
                Some((Some(Frame::Refusal(refusal)), bytes)) if refusal.code == RefusalCode::Manifest => {
                    queue.push_front(bytes);
                }
                other => panic!("{other:?}"),
            }
        }
        daemon.kill();
        Vec::new()
    }

    /// Every receipted batch comes back, byte for byte.
    async fn read_back(&self, start: &mut Command) {
        let daemon = Daemon::start(start);
        let (client, welcome) = Client::greet(&self.board, &self.device, &self.life, daemon.address).await;
        assert_eq!(self.lost(&welcome.heads), []);
        for writer in &self.logs {
            let (batches, _) = client.fetch(Fetch { log: writer.log, after: 0 }).await;
            let wanted = self.ledger.get(&writer.log).map_or(0, |head| head.sequence);
            let served: BTreeMap<usize, &Vec<u8>> = batches.iter().enumerate().collect();
            for (number, batch) in writer.batches.iter().enumerate() {
                if batch.header().last <= wanted {
                    assert_eq!(served.get(&number).map(|bytes| bytes.as_slice()), Some(batch.bytes()));
                }
            }
        }
        drop(client);
        assert!(daemon.terminate().success());
    }
}

/// Goal: nothing with a receipt is lost by `kill -9`. Method: kill at a seeded random receipt, start over the same
/// sites, compare heads with the ledger; at the end read everything back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_receipted_batch_is_lost_by_a_kill() {
    let mut harness = Harness::new(0x5EED);
    let mut start = command(harness.root.path());
    for round in 0..rounds() {
        let lost = harness.round(&mut start).await;
        assert_eq!(lost, [], "round {round}");
    }
    assert!(harness.ledger.values().any(|head| head.sequence > 0));
    harness.read_back(&mut start).await;
}

/// Goal: the harness above can fail. Method: the same against a node that signs before it stores.
#[cfg(feature = "planted")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_signs_before_it_stores_is_caught() {
    let mut harness = Harness::new(0x5EED);
    let mut start = command(harness.root.path());
    start.env("SONAE_TEST_PLANT", "receipt_before_store");
    for _ in 0..rounds() {
        if !harness.round(&mut start).await.is_empty() {
            return;
        }
    }
    panic!("receipts were signed before anything was stored, and the harness saw no loss");
}
