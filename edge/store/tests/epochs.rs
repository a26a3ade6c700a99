//! School years through a store: which key seals, that nothing waits for a missing one, that a rebuild opens all.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sonae_proto::batch::Batch;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::manifest::KeyUse;
use sonae_proto::wire::KeyDocuments;
use sonae_store::identity::ReplicaKeys;
use sonae_store::keyring::Keyring;
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

/// Goal: whoever lost everything can be given the manifest of every batch, also of one that stood only for a while between
/// two others. Method: seal under the bundle's manifest, a rotation and what follows it; restart; then the names in headers.
#[test]
fn every_batch_has_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let (data, board) = (dir.path().join("data"), Board::default());
    let bundle = board.bundle();
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let opened = open_store(&data, &bundle, Clock::system());
    for (number, version) in (0..).zip(1..=4) {
        if version > 1 {
            opened.store.keep_documents(board.rotating(&bundle, version, &[]));
        }
        write(&opened.store, number);
        runtime.block_on(opened.store.mark()).unwrap();
    }
    opened.close();
    let opened = open_store(&data, &bundle, Clock::system());
    let bundled = Keyring::documents_of(&bundle);
    let all = runtime.block_on(opened.store.all_documents(&bundled, opened.store.documents()));
    let hash = |documents: &KeyDocuments| Hash32(*blake3::hash(documents.manifest.as_bytes()).as_bytes());
    let offered: Vec<Hash32> = all.iter().map(hash).collect();
    let held = runtime.block_on(opened.store.held()).unwrap();
    let named: BTreeSet<Hash32> = held.values().flatten().map(|header| header.manifest).collect();
    assert_eq!(named.len(), 4);
    assert!(named.iter().all(|hash| offered.contains(hash)));
    assert_eq!((offered.len(), hash(&bundled)), (4, offered[0]), "each once, in order");
    opened.close();
}

/// A peer's identity and batches of one change each.
struct Peer {
    keys: ReplicaKeys,
    batches: Vec<Batch>,
}

impl Peer {
    fn new(board: &Board, data: &std::path::Path, clock: Clock, runtime: &tokio::runtime::Runtime) -> Self {
        let bundle = board.bundle();
        drop(enrolment::enrol(data, &bundle, Beginning::Enrolment, 1).unwrap());
        let opened = open_store(data, &bundle, clock);
        let keys = ReplicaKeys::load(data, &bundle).unwrap();
        let log = LogName { tier: Tier::Safety, incarnation: keys.name() };
        let mut batches = Vec::new();
        for number in 0..3 {
            write(&opened.store, 100 + number);
            runtime.block_on(opened.store.seal_now());
            let bytes = runtime.block_on(opened.store.batch(log, number as u64 + 1)).unwrap();
            batches.push(Batch::from_bytes(bytes).unwrap());
        }
        opened.close();
        Self { keys, batches }
    }
}

/// Sets of wrapped keys that somebody made of a genuine one, whose manifest is signed.
fn made_up(whole: &KeyDocuments, held: &ReplicaBundle) -> Vec<KeyDocuments> {
    let with = |wrapped_keys| KeyDocuments { wrapped_keys, ..whole.clone() };
    let all = &whole.wrapped_keys;
    let digest = all.iter().filter(|key| key.key_use == KeyUse::Digest);
    let mut garbage = all.clone();
    garbage.last_mut().unwrap().file = b"nobody can open this".to_vec();
    let mut changed = all.clone();
    changed.last_mut().unwrap().file.clone_from(&held.wrapped_keys[0].file);
    let padded = [all.as_slice(), &all[..1]].concat();
    vec![with(digest.cloned().collect()), with(Vec::new()), with(garbage), with(changed), with(padded)]
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Goal: a genuine newer manifest with a part of its keys, or with others, leaves the keys that are here in force, also over
/// a cut; the whole set of that version is taken afterwards. Method: such sets, each followed by a copy of the directory as
/// a cut leaves it, and a peer's batch in both; then the whole set.
#[test]
fn a_part_of_the_keys_takes_the_place_of_none() {
    let dir = tempfile::tempdir().unwrap();
    let (data, board) = (dir.path().join("data"), Board::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock = Clock::told(|| APRILS[0].1);
    let peer = Peer::new(&board, &dir.path().join("peer"), clock.clone(), &runtime);
    let bundle = board.bundle();
    drop(enrolment::enrol(&data, &bundle, Beginning::Enrolment, 1).unwrap());
    let opened = open_store(&data, &bundle, clock.clone());
    opened.store.keep_identity(peer.keys.identity.text());
    let take = |store: &Store, batch: &Batch| runtime.block_on(store.store_batch(batch.clone()));
    let pupils = |store: &Store| store.records(Tier::Safety, "student", "").unwrap().len();

    let whole = board.rotating(&bundle, 2, &[]);
    for (number, set) in made_up(&whole, &bundle).into_iter().enumerate() {
        assert!(runtime.block_on(opened.store.check_documents(&set)).is_err(), "{number}");
        opened.store.keep_documents(set);
        write(&opened.store, number);
        runtime.block_on(opened.store.mark()).unwrap();
        assert_eq!(opened.store.documents(), Keyring::documents_of(&bundle), "{number}");
        let cut = dir.path().join(format!("cut-{number}"));
        copy_dir(&data, &cut);
        let again = open_store(&cut, &bundle, clock.clone());
        assert_eq!(pupils(&again.store), number + 1);
        take(&again.store, &peer.batches[0]).unwrap();
        assert_eq!(pupils(&again.store), number + 2);
        again.close();
    }
    take(&opened.store, &peer.batches[0]).unwrap();
    assert_eq!(runtime.block_on(epochs(&opened.store)), [2026; 6], "sealed to the keys that are here");

    runtime.block_on(opened.store.check_documents(&whole)).unwrap();
    opened.store.keep_documents(whole.clone());
    write(&opened.store, 5);
    runtime.block_on(opened.store.mark()).unwrap();
    assert_eq!(opened.store.documents(), whole);
    take(&opened.store, &peer.batches[1]).unwrap();
    let (cut, before) = (dir.path().join("cut"), opened.store.state().digests);
    copy_dir(&data, &cut);
    opened.close();
    let opened = open_store(&cut, &bundle, clock);
    assert_eq!((opened.store.documents(), pupils(&opened.store)), (whole, 8));
    assert_eq!(opened.store.state().digests, before);
    assert!(runtime.block_on(epochs(&opened.store)).contains(&2_026_001));
    take(&opened.store, &peer.batches[2]).unwrap();
    opened.close();
}
