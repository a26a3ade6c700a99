//! Marks of a restore proof: heads and digests of one moment, while people write.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use sonae_proto::batch::Batch;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::seal::open_lines;
use sonae_proto::view::{Fold, MemoryRecords};
use sonae_store::identity::board_key;
use sonae_store::keyring::Keyring;
use sonae_store::testing::{Board, open_store};
use sonae_store::{Action, Clock, Edit, Mark, Store, enrolment};

fn edit(collection: &str, record: &str, field: &str, value: &str) -> Action {
    Action {
        who: Some("tester".into()),
        source: None,
        edits: vec![Edit {
            collection: collection.into(),
            record: record.into(),
            fields: BTreeMap::from([(field.into(), value.into())]),
            seen: None,
        }],
    }
}

/// Adds up the sealed batches up to a mark's heads, from their bytes alone.
async fn folded(store: &Store, bundle: &ReplicaBundle, mark: &Mark) -> Fold {
    let board = board_key(bundle).unwrap();
    let keyring = Keyring::open(&board, &Keyring::documents_of(bundle), &bundle.device_age_key).unwrap();
    let (mut fold, mut records) = (Fold::new(keyring.digest_key().unwrap()), MemoryRecords::default());
    for (log, headers) in store.held().await.unwrap() {
        let until = mark.heads.get(&log).map_or(0, |head| head.sequence);
        for header in headers.iter().filter(|header| header.last <= until) {
            let batch = Batch::from_bytes(store.batch(log, header.first).await.unwrap()).unwrap();
            let lines =
                open_lines(batch.payload(), keyring.opening(log.tier, header.epoch).unwrap()).unwrap();
            let lines = lines.split(|byte| *byte == b'\n');
            for (sequence, line) in (header.first..=header.last).zip(lines) {
                fold.apply(&mut records, log, sequence, line).unwrap();
            }
        }
        let last = headers.iter().rfind(|header| header.last <= until).map(|header| header.head());
        assert_eq!(last, mark.heads.get(&log).copied(), "the head is that of a batch that is held");
    }
    fold
}

/// Goal: a mark's digests are what the batches up to its heads add up to, nothing more and nothing less, whatever is
/// written meanwhile. Method: three writers in two tiers; marks all the while; fold the batches of each anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mark_is_what_its_batches_add_up_to() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bundle = Board::default().bundle();
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let opened = open_store(&data, &bundle, Clock::system());
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (store, stop) = (opened.store.clone(), std::sync::Arc::clone(&stop));
            std::thread::spawn(move || {
                for number in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return number;
                    }
                    let (tier_0, value) = (number % 3 == 0, number.to_string());
                    let (collection, record, field) = if tier_0 {
                        ("student", format!("p{writer}"), "grade")
                    } else {
                        ("attendance", format!("2026-04-08/p{}/all", number % 7), "code")
                    };
                    store.write_blocking(edit(collection, &record, field, &value)).unwrap();
                }
                0
            })
        })
        .collect();
    let mut marks = Vec::new();
    while marks.len() < 12 {
        let mark = opened.store.mark().await.unwrap();
        if marks.last().is_none_or(|last: &Mark| last.heads != mark.heads) {
            marks.push(mark);
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writers.into_iter().all(|writer| writer.join().unwrap() > 0));
    opened.store.seal_now().await;
    for mark in &marks {
        assert_eq!(folded(&opened.store, &bundle, mark).await.digests, mark.digests);
    }
    assert!(marks.windows(2).all(|pair| pair[0].digests != pair[1].digests));
    opened.close();
}
