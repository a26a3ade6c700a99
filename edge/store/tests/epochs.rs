//! School years through a store: which key seals, that nothing waits for a missing one, that a rebuild opens all.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_store::testing::{Board, open_store};
use sonae_store::{Action, Clock, Edit, Store, enrolment};

/// The first day of a school year in Japan, 2026 to 2029, milliseconds since 1970 UTC.
const APRILS: [(u32, u64); 4] = [
    (2026, 1_774_969_200_000),
    (2027, 1_806_505_200_000),
    (2028, 1_838_127_600_000),
    (2029, 1_869_663_600_000),
];

fn write(store: &Store, number: usize) {
    let edits = vec![Edit {
        collection: "student".into(),
        record: format!("p{number}"),
        fields: BTreeMap::from([("grade".into(), "P1".into())]),
        seen: None,
    }];
    store.write_blocking(Action { who: Some("tester".into()), source: None, edits }).unwrap();
}

async fn epochs(store: &Store) -> Vec<u32> {
    let held = store.held().await.unwrap();
    held.iter()
        .filter(|(log, _)| log.tier == Tier::Safety)
        .flat_map(|(_, batches)| batches)
        .map(|b| b.epoch)
        .collect()
}

/// Goal: each school year is sealed to its own key; one without keys to the last that there are, and the status says so
/// in time; a view that is made again opens all of them. Method: keys for 2025 to 2027; write on the first day of four
/// years, in the last minute of one, and in 1970; delete the view and open.
#[test]
fn three_school_years() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bundle = Board::default().bundle();
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let now = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&now);
    let clock = Clock::told(move || told.load(Ordering::SeqCst));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let opened = open_store(&data, &bundle, clock.clone());
    let moments = [
        (APRILS[0].1, 2026),
        (APRILS[1].1 - 60_000, 2026),
        (APRILS[1].1, 2027),
        (APRILS[2].1, 2027),
        (APRILS[3].1, 2027),
        (0, 2025),
    ];
    for (number, (moment, _)) in moments.iter().enumerate() {
        now.store(*moment, Ordering::SeqCst);
        write(&opened.store, number);
        runtime.block_on(opened.store.seal_now());
    }
    let expected: Vec<u32> = moments.iter().map(|(_, epoch)| *epoch).collect();
    assert_eq!(runtime.block_on(epochs(&opened.store)), expected);
    let digests = opened.store.state().digests;
    opened.close();

    std::fs::remove_dir_all(data.join("view")).unwrap();
    let opened = open_store(&data, &bundle, clock);
    assert!(opened.store.state().view_rebuilt);
    assert_eq!(opened.store.state().digests, digests);
    assert_eq!(opened.store.records(Tier::Safety, "student", "").unwrap().len(), moments.len());
    let years = |moment| sonae_store::keyring::KeyYears::of(&opened.store.documents(), moment);
    for (moment, this, are_due) in [
        (APRILS[1].1, 2027, false),
        (APRILS[2].1 - 59 * 86_400_000, 2027, true),
        (APRILS[2].1, 2028, true),
        (0, 1969, false),
    ] {
        let years = years(moment);
        assert_eq!((years.this, years.last, years.are_due), (this, 2027, are_due));
    }
    opened.close();
}
