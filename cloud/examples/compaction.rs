//! Measures what merging does to a site of many small objects: how many there are, and how long a start reads them,
//! before, while both are there, and after. Prints JSON.
//!
//! `cargo run --release -p sonae-cloud --example compaction -- [OBJECTS] [DIR]`: 20,000 objects at two sites if not told,
//! about what a school's year of live traffic makes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a program for whoever develops: a panic is the report"
)]
#![allow(dead_code, missing_docs, reason = "it uses parts of what the tests share")]

#[path = "../tests/common/board.rs"]
mod board;
#[path = "../tests/common/writer.rs"]
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use board::{Board, SCHOOL};
use ed25519_dalek::SigningKey;
use sonae_cloud::compaction::{Compactor, Judge, Pass, Rules};
use sonae_cloud::load::load;
use sonae_cloud::object_name::ObjectName;
use sonae_cloud::site::{Site, open_all};
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::intake::{Config, Intake};
use sonae_proto::object::{RecordKind, append};
use ulid::Ulid;
use writer::LogWriter;

/// Bytes of the text in a batch: what a few entries of attendance seal to.
const TEXT_BYTES: usize = 600;

struct Measure {
    board: Board,
    sites: [PathBuf; 2],
    objects: u64,
}

impl Measure {
    /// Writes the objects without a flush of each: what is measured begins afterwards.
    fn make(root: &Path, objects: u64) -> Self {
        let board = Board::new();
        let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
        let life = device.life(Beginning::Enrolment, 1);
        let sites = ["a", "b"].map(|name| root.join(name));
        let boot = Ulid::from_parts(1_764_000_000_000, 7);
        sites.iter().for_each(|site| fs::create_dir_all(site.join(format!("objects/{boot}"))).unwrap());
        let mut log = LogWriter::new(&device, &life, &keys, Tier::Daily);
        let payload = log.payload(&"x9".repeat(TEXT_BYTES / 2));
        for counter in 0..objects {
            let mut object = Vec::new();
            if counter == 0 {
                append(&mut object, RecordKind::Identity, &serde_json::to_vec(&life.text).unwrap());
                append(&mut object, RecordKind::Keys, &serde_json::to_vec(&keys.documents()).unwrap());
            } else {
                let batch = log.sign(&log.next_place(), &payload);
                append(&mut object, RecordKind::Batch, batch.bytes());
                log.batches = vec![batch];
            }
            let name = ObjectName { boot, counter }.to_string();
            sites.iter().for_each(|site| fs::write(site.join(&name), &object).unwrap());
        }
        Self { board, sites, objects }
    }

    fn open(&self) -> Vec<Site> {
        open_all(&self.sites, 2).unwrap().0
    }

    /// What a start does before it serves.
    async fn start(&self, after: &str) -> serde_json::Value {
        let sites = self.open();
        let listed = sites[0].list().await.unwrap();
        let began = Instant::now();
        let loaded = load(&sites).await;
        let board = self.board.root.verifying_key();
        let receipt_key = SigningKey::from_bytes(&[8; 32]);
        let mut intake =
            Intake::new(Config { board, receipt_key, sites: 2, quorum: 2, receipt_before_store: false });
        let fed = loaded.index.feed(&mut intake, &board, 2);
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!(u64::try_from(fed.batches).unwrap(), self.objects - 1, "{after}");
        serde_json::json!({
            "after": after,
            "objects": listed.len(),
            "bytes": listed.iter().map(|(_, bytes)| bytes).sum::<u64>(),
            "start_seconds": (seconds * 100.0).round() / 100.0,
        })
    }
}

async fn pass(compactor: &mut Compactor) -> (Pass, f64) {
    let began = Instant::now();
    let done = compactor.pass(Duration::from_hours(1), &Judge::default()).await.unwrap();
    (done, (began.elapsed().as_secs_f64() * 100.0).round() / 100.0)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let objects = arguments.next().map_or(20_000, |text| text.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let root = arguments.next().map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    eprintln!("writing {objects} objects");
    let measure = Measure::make(&root, objects);
    let before = measure.start("written").await;
    let rules = Rules { superseded: Duration::ZERO, ..Rules::default() };
    let mut compactor = Compactor::new(Arc::new(measure.open()), 2, rules, &root);
    let (made, merge_seconds) = pass(&mut compactor).await;
    drop(compactor);
    let both = measure.start("merged").await;
    let mut compactor = Compactor::new(Arc::new(measure.open()), 2, rules, &root);
    let (gone, delete_seconds) = pass(&mut compactor).await;
    drop(compactor);
    let after = measure.start("deleted").await;
    let report = serde_json::json!({
        "starts": [before, both, after],
        "made": made.made,
        "merge_seconds": merge_seconds,
        "deleted": gone.deleted,
        "delete_seconds": delete_seconds,
    });
    let text = serde_json::to_string_pretty(&report).unwrap();
    std::io::Write::write_all(&mut std::io::stdout().lock(), format!("{text}\n").as_bytes()).unwrap();
}
