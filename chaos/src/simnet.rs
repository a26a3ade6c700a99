//! Real quinn, the real drivers of edge and cloud and the real store, in simulated time on a simulated network. A
//! seed decides everything; the same seed sends the same datagrams, byte for byte.
//!
//! Real are the uplink of a box with its dialling, its watch over a silent line and its standby, its store on a
//! simulated disk, TLS, age, and the whole node of the cloud. Simulated are time, the network with its routers, the
//! disks, and where entropy comes from: each seed runs in a process of its own into which `entropy.c` is loaded,
//! because ring and age can be told in no other way.
//!
//! A run does the script that its seed draws, with a witness that looks ten times a second ([`oracle`]), then mends
//! everything and demands that all becomes safe, equal and complete.
//!
//! Left out: TCP, which is as if it were blocked; names, since hosts are addresses; snapshots and restore proofs,
//! whose work is done on threads; crashes of a node in the middle of something.

mod alone;
pub mod command;
mod keepers;
mod link;
mod logs;
mod net;
mod node;
mod options;
mod oracle;
pub mod planted;
mod replica;
pub mod report;
mod sites;
mod socket;
mod time;
mod world;

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use alone::Ring;
use options::Options;
pub use oracle::Measured;
use planted::Planted;
use world::World;

use crate::sim::planted::cpu_seconds;

/// What came of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What the witness has against it.
    pub violation: Option<String>,
    /// BLAKE3 of its trace, every datagram with its bytes and all that was logged, in hexadecimal.
    pub digest: String,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Simulated milliseconds to the end after everything was mended.
    pub settle_ms: u64,
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Promises in seconds that were put to the test.
    pub measured: Vec<Measured>,
    /// Seconds of the processor.
    pub cpu_seconds: f64,
}

/// Runs a seed in this process, which must have been started by [`Ring`].
///
/// # Errors
/// When the world cannot be made, which no seed can cause, or when entropy is not told.
pub fn run_here(seed: u64, planted: Option<Planted>, dir: &Path, keep_trace: bool) -> Result<Outcome> {
    alone::check()?;
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    sonae_proto::planted::plant(Planted::of_proto(planted));
    logs::listen();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(keepers::turn)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(Options::of_seed(seed), planted, dir, keep_trace))
}

async fn run(options: Options, planted: Option<Planted>, dir: &Path, keep_trace: bool) -> Result<Outcome> {
    let script = options.script.clone();
    let mut world = World::start(options, dir, planted, keep_trace).await?;
    for step in script {
        if !world.is_well() {
            break;
        }
        world.step(step).await?;
    }
    let settle_ms = world.settle().await;
    let (digest, trace) = world.net.finish();
    Ok(Outcome {
        digest,
        trace,
        simulated_ms: world.time.since_ms(),
        settle_ms,
        datagrams: world.net.sent().unwrap_or(u64::MAX),
        cpu_seconds: cpu_seconds(),
        acknowledged: world.oracle.acknowledgements(),
        measured: world.oracle.measured,
        violation: world.oracle.violation,
    })
}
