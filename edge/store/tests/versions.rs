//! A data directory in which a later version has written, opened by this one: an update that is taken back.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sonae_journal::{FrameKind, Journal, Options as JournalOptions, RealDisk};
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_store::testing::{Board, open_store, opening};
use sonae_store::{Action, Clock, Edit, Options, Store, StoreError, enrolment};

fn write(store: &Store, collection: &str, record: &str) {
    let edits = vec![Edit {
        collection: collection.into(),
        record: record.into(),
        fields: BTreeMap::from([("grade".into(), "P1".into())]),
        seen: None,
    }];
    store.write_blocking(Action { who: Some("tester".into()), source: None, edits }).unwrap();
}

/// A replica with a change, in whose journal a later version has written a frame of a kind.
fn with_frame(data: &Path, kind: u8) -> ReplicaBundle {
    let bundle = Board::default().bundle();
    drop(enrolment::enrol(data, &bundle, Beginning::Enrolment, 1).unwrap());
    let opened = open_store(data, &bundle, Clock::system());
    write(&opened.store, "student", "p1");
    opened.close();
    let (mut journal, _) =
        Journal::open(Arc::new(RealDisk), &data.join("journal"), JournalOptions::default()).unwrap();
    journal.commit(&[(FrameKind(kind), b"{\"later\":[1]}")]).unwrap();
    bundle
}

/// Goal: an earlier version goes on where a later one has written what it does not need. Method: such a frame; write,
/// close, open again, with the view and without.
#[test]
fn what_is_not_needed_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bundle = with_frame(&data, 200);
    let opened = open_store(&data, &bundle, Clock::system());
    write(&opened.store, "student", "p2");
    let digests = opened.store.state().digests.clone();
    opened.close();
    for view in [true, false] {
        if !view {
            std::fs::remove_dir_all(data.join("view")).unwrap();
        }
        let opened = open_store(&data, &bundle, Clock::system());
        assert_eq!(opened.store.state().digests, digests, "view {view}");
        opened.close();
    }
}

/// Goal: where it is needed nothing is opened, changed or repaired, and people are told what to do. Method: such a frame;
/// open twice; the files stay as they are.
#[test]
fn what_is_needed_is_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bundle = with_frame(&data, 90);
    let journal = || {
        let files = std::fs::read_dir(data.join("journal")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = journal();
    for _ in 0..2 {
        let open = opening(&data, &bundle, Clock::system(), Arc::new(RealDisk), Options::default());
        let error = Store::open(open).unwrap_err();
        assert!(matches!(error, StoreError::LaterVersion { kind: 90 }), "{error}");
        assert!(!error.is_damage(), "it is no case for a repair");
        assert!(error.to_string().contains("install that version again"), "{error}");
    }
    assert!(journal() == before);
}
