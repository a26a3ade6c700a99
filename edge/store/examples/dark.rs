//! Ninety days without a line (P9): how large a replica's data directory grows.
//!
//! A year's roster of 600 pupils and 1,000 changes on each day, 700 of them in the fifty minutes of the morning, on a
//! real disk under a told clock. `cargo run --release -p sonae-store --example dark --features testing -- [DAYS]`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sonae_proto::identity::Beginning;
use sonae_store::testing::{Board, open_store};
use sonae_store::{Action, Clock, Edit, enrolment};

const DAY_MS: u64 = 86_400_000;
/// 2026-04-08, a Wednesday, at eight in Japan.
const FIRST_MORNING_MS: u64 = 1_775_602_800_000;
const PUPILS: u64 = 600;

fn edit(collection: &str, record: String, field: &str, value: serde_json::Value) -> Action {
    let fields = BTreeMap::from([(field.to_owned(), value)]);
    let edit = Edit { collection: collection.to_owned(), record, fields, seen: None };
    Action { who: Some("tanaka".into()), source: None, edits: vec![edit] }
}

fn pupil(number: u64) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", number.wrapping_mul(2_654_435_761), number)
}

fn bytes(path: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        sum += match entry.file_type().unwrap().is_dir() {
            true => bytes(&entry.path()),
            // What it takes of the disk, holes not counted.
            false => std::os::unix::fs::MetadataExt::blocks(&entry.metadata().unwrap()) * 512,
        };
    }
    sum
}

fn main() {
    let days: u64 = std::env::args().nth(1).map_or(90, |days| days.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bundle = Board::default().bundle();
    let now = Arc::new(AtomicU64::new(FIRST_MORNING_MS));
    let told = Arc::clone(&now);
    let clock = Clock::told(move || told.load(Ordering::Relaxed));
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, clock.now_ms()).unwrap());
    let opened = open_store(&data, &bundle, clock);
    for number in 0..PUPILS {
        let name = serde_json::json!(format!("架空{number}"));
        opened.store.write_blocking(edit("student", pupil(number), "family_name", name)).unwrap();
    }
    for day in 0..days {
        for change in 0..1_000 {
            let morning = change < 700;
            // 4.3 s apart in the morning, then 84 s.
            let at_ms = if morning { change * 4_286 } else { 3_000_000 + (change - 700) * 84_000 };
            now.store(FIRST_MORNING_MS + day * DAY_MS + at_ms, Ordering::Relaxed);
            let code = ["late", "absent_sick", "present", "left_early"]
                [usize::try_from((change + change / PUPILS) % 4).unwrap()];
            let record = format!("day{day:03}/{}/day", pupil((change * 7 + day) % PUPILS));
            opened.store.write_blocking(edit("attendance", record, "code", code.into())).unwrap();
        }
    }
    let state = opened.store.state();
    let unsafe_changes: u64 = state.unsafe_by_tier.values().sum();
    opened.close();
    let part = |name: &str| bytes(&data.join(name));
    let report = serde_json::json!({
        "days": days, "changes": PUPILS + days * 1_000, "unsafe": unsafe_changes,
        "bytes": bytes(&data), "journal": part("journal"), "batches": part("batches"), "view": part("view"),
    });
    std::io::Write::write_all(&mut std::io::stdout(), format!("{report}\n").as_bytes()).unwrap();
    assert!(days > 90 || bytes(&data) < 100_000_000, "P9 is broken: ninety days are to stay under 100 MB");
}
