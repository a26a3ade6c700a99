//! Erasing a pupil: gone from the view, for good, and from the bytes that lie in journal and view.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sonae_proto::batch::Batch;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Incarnation, LogName, Tier};
use sonae_proto::reissue::reissue;
use sonae_store::erasure::WaitsFor;
use sonae_store::testing::{Board, open_store};
use sonae_store::{Action, Clock, Edit, Opened, Store, WriteError, enrolment};

const PUPIL: &str = "5f0d7c1e-erase-me";
const OTHER: &str = "9a0d7c1e-stays";
const CANARY: &str = "消去太郎";

struct Scene {
    _dir: tempfile::TempDir,
    data: [PathBuf; 2],
    bundles: Vec<ReplicaBundle>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let board = Board::default();
        let data = ["first", "second"].map(|name| dir.path().join(name));
        let bundles = board.bundles(2);
        for (data, bundle) in data.iter().zip(&bundles) {
            drop(enrolment::enrol(data, bundle, Beginning::Enrolment, 1).unwrap());
        }
        Self { _dir: dir, data, bundles }
    }

    fn open(&self, replica: usize) -> Opened {
        open_store(&self.data[replica], &self.bundles[replica], Clock::system())
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn edit(collection: &str, record: String, field: &str, value: &str) -> Edit {
    let fields = BTreeMap::from([(field.to_owned(), value.into())]);
    Edit { collection: collection.into(), record, fields, seen: None }
}

fn about(pupil: &str, name: &str) -> Vec<Edit> {
    vec![
        edit("student", pupil.into(), "family_name", name),
        edit("enrollment", format!("class-1/{pupil}"), "student_id", pupil),
        edit("guardian_contact", format!("{pupil}/1"), "name", name),
        edit("attendance", format!("2026-04-08/{pupil}/day"), "reason_text", name),
        edit("event", format!("event-of-{name}"), "student", pupil),
    ]
}

fn write(store: &Store, source: Option<&str>, edits: Vec<Edit>) -> Result<sonae_store::Kept, WriteError> {
    store.write_blocking(Action { who: None, source: source.map(str::to_owned), edits })
}

fn count(store: &Store, pupil: &str) -> usize {
    store.of_pupil(pupil).unwrap().iter().filter(|record| !record.stays).count()
}

/// Carries all batches of one store to another.
fn carry(from: &Store, to: &Store) {
    block_on(from.seal_now());
    let held = block_on(from.held()).unwrap();
    let firsts = held.into_iter().flat_map(|(log, headers)| headers.into_iter().map(move |h| (log, h.first)));
    let read =
        |(log, first): (LogName, u64)| Batch::from_bytes(block_on(from.batch(log, first)).unwrap()).unwrap();
    let batches: Vec<Batch> = firsts.map(read).collect();
    block_on(to.store_batches(&batches)).unwrap();
}

fn digests(store: &Store) -> String {
    format!("{:?}", store.state().digests)
}

fn hits(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(hits(&path, needle));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle)) {
            found.push(path);
        }
    }
    found
}

/// Waits, for as long as a busy machine may take, until the keeper is idle and has overwritten what was erased.
fn scrubbed(store: &Store) {
    let until = Instant::now() + Duration::from_secs(60);
    while store.state().scrub_due {
        assert!(Instant::now() < until, "journal and view were never overwritten");
        std::thread::yield_now();
    }
}

/// Goal: an erased pupil is gone here and on another replica whatever came first there, stays gone over restarts and
/// when the view is made anew, nothing can be written to him, an import passes him over, and others stay. Method: two
/// replicas that write concurrently; the second hears of the erasure after it has written.
#[test]
fn a_pupil_is_erased_for_good_everywhere() {
    let scene = Scene::new();
    let (first, second) = (scene.open(0), scene.open(1));
    write(&first.store, Some("oneroster"), [about(PUPIL, CANARY), about(OTHER, "見本")].concat()).unwrap();
    carry(&first.store, &second.store);
    // Concurrent, so a conflict that nobody has decided.
    write(&first.store, None, vec![edit("student", PUPIL.into(), "family_name", "消去次郎")]).unwrap();
    write(&second.store, None, vec![edit("student", PUPIL.into(), "family_name", "消去三郎")]).unwrap();
    carry(&first.store, &second.store);
    assert_eq!((count(&first.store, PUPIL), second.store.state().disputed), (5, 1));

    let kept = first.store.erase_blocking(PUPIL, Some("kyoto".into())).unwrap();
    assert!(kept.changes >= 11, "{kept:?}");
    assert_eq!((count(&first.store, PUPIL), count(&first.store, OTHER)), (0, 5));
    assert_eq!(first.store.erase_blocking(PUPIL, None).unwrap().changes, 0, "twice does nothing");
    let refused = write(&first.store, None, vec![edit("student", PUPIL.into(), "family_name", "x")]);
    assert!(matches!(refused, Err(WriteError::Erased)));
    let tomorrow = edit("attendance", format!("2026-04-09/{PUPIL}/day"), "code", "late");
    let again = [about(PUPIL, CANARY), vec![tomorrow], about(OTHER, "見本次")].concat();
    let kept = write(&first.store, Some("oneroster"), again).unwrap();
    assert_eq!((kept.erased, count(&first.store, PUPIL)), (6, 0), "{kept:?}");

    carry(&first.store, &second.store);
    carry(&second.store, &first.store);
    assert_eq!(second.store.state().disputed, 0);
    assert_eq!(digests(&first.store), digests(&second.store));
    let known = BTreeSet::from([PUPIL.to_owned(), OTHER.to_owned()]);
    let erased = second.store.erased_blocking("student", &known).unwrap();
    assert_eq!(erased, BTreeSet::from([PUPIL.to_owned()]));

    let digest = digests(&first.store);
    first.close();
    second.close();
    for gone in [false, true] {
        for (replica, data) in scene.data.iter().enumerate() {
            if gone {
                fs::remove_dir_all(data.join("view")).unwrap();
            }
            let opened = scene.open(replica);
            assert_eq!((digests(&opened.store), count(&opened.store, PUPIL)), (digest.clone(), 0), "{gone}");
            opened.close();
        }
    }
}

/// Goal: what was erased is not found in journal and view any more when the status says that nothing waits for that; the
/// sealed batches stay, and the status says what they wait for. Method: search all files for the name and the id, before
/// and after, and once more after a restart.
#[test]
fn plain_text_is_overwritten() {
    let scene = Scene::new();
    let opened = scene.open(0);
    write(&opened.store, None, [about(PUPIL, CANARY), about(OTHER, "見本")].concat()).unwrap();
    opened.close();
    let (data, opened) = (&scene.data[0], scene.open(0));
    for place in ["journal", "view"] {
        assert!(!hits(&data.join(place), CANARY.as_bytes()).is_empty(), "{place}");
    }
    assert!(opened.store.erasures().is_empty());
    opened.store.erase_blocking(PUPIL, None).unwrap();
    let waits = |store: &Store| store.erasures().iter().map(|of| (of.tier, of.waits_for)).collect::<Vec<_>>();
    assert_eq!(waits(&opened.store)[0], (Tier::Safety, Some(WaitsFor::Scrub)));
    scrubbed(&opened.store);
    for needle in [CANARY, PUPIL] {
        assert_eq!(hits(data, needle.as_bytes()), Vec::<PathBuf>::new(), "{needle}");
    }
    assert!(!hits(data, OTHER.as_bytes()).is_empty(), "the search finds what is there");
    assert_eq!(count(&opened.store, OTHER), 5);
    assert!(waits(&opened.store).iter().all(|(_, waits)| *waits == Some(WaitsFor::Rotation)));
    write(&opened.store, None, vec![edit("student", OTHER.into(), "family_name", "見本次")]).unwrap();
    opened.close();
    let opened = scene.open(0);
    assert!(!opened.store.state().scrub_due && !opened.store.state().view_rebuilt);
    assert_eq!(count(&opened.store, OTHER), 5);
    opened.close();
    assert_eq!(hits(data, CANARY.as_bytes()), Vec::<PathBuf>::new());
}

/// Goal: what another branch had written about an erased pupil is not written again under a key that stays. Method:
/// changes of a branch, one of the pupil and one of another, are carried over as a renewal does.
#[test]
fn nothing_of_the_pupil_is_issued_again() {
    let scene = Scene::new();
    let opened = scene.open(0);
    write(&opened.store, None, about(OTHER, "見本")).unwrap();
    opened.store.erase_blocking(PUPIL, None).unwrap();
    scrubbed(&opened.store);
    let line = |record: String| {
        let line =
            serde_json::json!({"t": [1, 0], "c": "attendance", "r": record, "f": {"reason_text": CANARY}});
        (1, line.to_string().into_bytes())
    };
    let log = LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([7; 16]) };
    for pupil in [PUPIL, OTHER] {
        let changes = reissue(log, &[line(format!("2026-05-01/{pupil}/day"))]).unwrap();
        block_on(opened.store.reissue(Tier::Daily, changes)).unwrap();
        let data = &scene.data[0];
        assert_eq!(hits(&data.join("journal"), CANARY.as_bytes()).is_empty(), pupil == PUPIL);
    }
    assert_eq!((count(&opened.store, PUPIL), count(&opened.store, OTHER)), (0, 6));
    opened.close();
}

/// Goal: a snapshot that is made after an erasure has the tombstone and not the pupil, so whoever begins with it passes
/// over the pupil's older changes. Method: a second replica begins with it and is given a change of the pupil.
#[test]
fn a_snapshot_carries_the_erasure() {
    let scene = Scene::new();
    let (first, second) = (scene.open(0), scene.open(1));
    write(&first.store, None, [about(PUPIL, CANARY), about(OTHER, "見本")].concat()).unwrap();
    first.store.erase_blocking(PUPIL, None).unwrap();
    let snapshot = first.store.make_snapshot_blocking(Tier::Safety).unwrap();
    for part in &snapshot.root().parts {
        second.store.shelf().put_part(&first.store.shelf().part(part).unwrap()).unwrap();
    }
    second.store.shelf().put_root(&snapshot).unwrap();
    block_on(second.store.load_snapshot(snapshot.hash())).unwrap();
    assert_eq!((count(&second.store, PUPIL), count(&second.store, OTHER)), (0, 4));
    let refused = write(&second.store, None, about(PUPIL, CANARY)[..1].to_vec());
    assert!(matches!(refused, Err(WriteError::Erased)));
    assert_eq!(second.store.state().digests[&Tier::Safety], first.store.state().digests[&Tier::Safety]);
    first.close();
    second.close();
}

/// Goal: an erasure is not called complete while something of the pupil is sealed to a newer key than its tombstone's:
/// by who had not heard of it. Method: one box erases in a school year, another has written about the pupil in the next
/// one; each hears of the other; over a restart too.
#[test]
fn what_others_sealed_later_counts() {
    let scene = Scene::new();
    let at = |day: u64| Clock::told(move || day * 86_400_000);
    // 2026-06-10, and a year later.
    let (this_year, next_year) = (at(20_614), at(20_979));
    let first = open_store(&scene.data[0], &scene.bundles[0], this_year.clone());
    let second = open_store(&scene.data[1], &scene.bundles[1], next_year.clone());
    write(&first.store, None, about(PUPIL, CANARY)).unwrap();
    write(&second.store, None, about(PUPIL, CANARY)[3..4].to_vec()).unwrap();
    first.store.erase_blocking(PUPIL, None).unwrap();
    let daily = |store: &Store| {
        let found = store.erasures();
        found.into_iter().find(|erasure| erasure.tier == Tier::Daily).unwrap().epoch
    };
    assert_eq!(daily(&first.store), 2026);
    carry(&second.store, &first.store);
    assert_eq!(daily(&first.store), 2027, "a batch of the next year has something of the pupil");
    carry(&first.store, &second.store);
    assert_eq!(daily(&second.store), 2027, "this box had sealed to that key until it heard");
    first.close();
    let first = open_store(&scene.data[0], &scene.bundles[0], this_year);
    assert_eq!(daily(&first.store), 2027);
    first.close();
    second.close();
}
