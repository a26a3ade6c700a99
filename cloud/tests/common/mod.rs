//! What the tests of the cloud share: a board in memory, a client, a log that is written, processes that are
//! killed when their test ends, stores that fail.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "helpers of tests")]

pub mod board;
pub mod client;
pub mod fault_store;
pub mod process;
pub mod writer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sonae_cloud::clock::Clock;
use sonae_cloud::compaction::Rules;
use sonae_cloud::identity::NodeIdentity;
use sonae_cloud::node::{Node, Options};
use sonae_cloud::status::Status;

use board::Board;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns options for a node on a port of its own.
pub fn options(data: &Path, sites: &[PathBuf], quorum: usize) -> Options {
    Options {
        data: data.to_owned(),
        sites: sites.to_vec(),
        quorum,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        listen_tcp: None,
        clock: Clock::default(),
        status_file: true,
        compaction: Rules::default(),
    }
}

/// Two directories for sites in a directory.
pub fn two_sites(root: &Path) -> Vec<PathBuf> {
    vec![root.join("a"), root.join("b")]
}

/// Starts a node of `board` on two sites, both of which make a receipt.
pub async fn start(board: &Board, root: &Path) -> Node {
    let identity = NodeIdentity::of_bundle(&board.bundle()).unwrap();
    Node::start(identity, &options(&root.join("data"), &two_sites(root), 2)).await.unwrap()
}

/// Waits until the node's status is as wanted.
pub async fn until(node: &Node, wanted: impl Fn(&Status) -> bool) {
    let watch = async {
        while !wanted(&node.status()) {
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, watch).await;
    assert!(seen.is_ok(), "the status never was as wanted: {:?}", node.status());
}
