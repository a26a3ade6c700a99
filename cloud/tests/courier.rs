//! Bundles that a courier brings to a running node: what is taken, what is told, what the answer holds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::board::{Board, Device, Life, OTHER_SCHOOL, SCHOOL, SchoolKeys};
use common::client::Client;
use common::fault_store::{FaultStore, Faults};
use common::writer::LogWriter;
use common::{options, start};
use object_store::memory::InMemory;
use sonae_cloud::courier::Report;
use sonae_cloud::identity::NodeIdentity;
use sonae_cloud::lock::DataLock;
use sonae_cloud::node::Node;
use sonae_cloud::site::Site;
use sonae_proto::batch::{Batch, PREFIX_BYTES};
use sonae_proto::courier::{Decoder, Encoder, FORMAT, Opening, Origin, Record, ReplicaOpening};
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::receipt::Receipt;
use sonae_proto::vector::{Heads, Sequences};

/// The loss counter of all bundles of these tests.
const LOSS_COUNTER: u64 = 5;

/// A replica that writes two logs.
struct Replica {
    device: Device,
    life: Life,
    safety: LogWriter,
    daily: LogWriter,
}

impl Replica {
    fn new(board: &Board, keys: &SchoolKeys, school: &str) -> Self {
        let device = board.device(school);
        let life = device.life(Beginning::Enrolment, 1);
        let [safety, daily] =
            [Tier::Safety, Tier::Daily].map(|tier| LogWriter::new(&device, &life, keys, tier));
        let mut written = Self { device, life, safety, daily };
        for n in 0..4 {
            written.safety.write(&n.to_string());
        }
        written.daily.write("daily");
        written
    }

    fn opening(&self) -> Opening {
        let replica = ReplicaOpening {
            identity: self.life.text.clone(),
            loss_counter: LOSS_COUNTER,
            receipted: Heads::new(),
            have: Sequences::from([(self.safety.log, 4), (self.daily.log, 1)]),
            manifest_version: 1,
        };
        Opening {
            format: FORMAT.into(),
            school: self.device.school,
            made_ms: 1,
            software: "test".into(),
            from: Origin::Replica(Box::new(replica)),
        }
    }

    fn records(&self, keys: &SchoolKeys) -> Vec<Record> {
        let batches = self.safety.batches.iter().chain(&self.daily.batches);
        let keys = Record::Keys(Box::new(keys.documents()));
        std::iter::once(keys).chain(batches.map(|batch| Record::Batch(batch.bytes().to_vec()))).collect()
    }
}

fn bundle(opening: &Opening, records: &[Record]) -> Vec<u8> {
    let (mut encoder, mut bytes) = Encoder::start(opening).unwrap();
    records.iter().for_each(|record| bytes.extend(encoder.record(record).unwrap()));
    bytes.extend(encoder.finish().0);
    bytes
}

fn read(bytes: &[u8]) -> Vec<Record> {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    decoder.feed(bytes);
    while let Some(record) = decoder.poll().unwrap() {
        found.push(record);
    }
    decoder.finish().unwrap();
    found
}

/// What the command said.
struct Said {
    code: i32,
    report: Option<Report>,
    told: String,
    answer: Option<Vec<Record>>,
}

/// Runs `bundle import` as a person would, while the node runs.
async fn import(root: &Path, bytes: &[u8]) -> Said {
    let (file, stick) = (root.join("bundle"), root.join("stick"));
    fs::write(&file, bytes).unwrap();
    let _ = fs::remove_dir_all(&stick);
    fs::create_dir(&stick).unwrap();
    let data = root.join("data");
    let output = tokio::task::spawn_blocking({
        let stick = stick.clone();
        move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-cloud"));
            command.args(["bundle", "import", "--json", "--data"]).arg(data);
            command.arg("--receipts-to").arg(stick).arg(file).output().unwrap()
        }
    });
    let output = output.await.unwrap();
    let files: Vec<PathBuf> = fs::read_dir(&stick).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() <= 1, "{files:?}");
    Said {
        code: output.status.code().unwrap(),
        report: serde_json::from_slice(&output.stdout).ok(),
        told: String::from_utf8_lossy(&output.stderr).into_owned(),
        answer: files.first().map(|path| read(&fs::read(path).unwrap())),
    }
}

fn receipts(board: &Board, answer: &[Record]) -> Vec<Receipt> {
    let bytes = answer.iter().filter_map(|record| match record {
        Record::Receipt(bytes) => Some(bytes),
        Record::Batch(_)
        | Record::Identity(_)
        | Record::Keys(_)
        | Record::Opening(_)
        | Record::End(_)
        | Record::Unknown(_) => None,
    });
    bytes.map(|bytes| Receipt::verify(bytes, board.descriptor.body()).unwrap()).collect()
}

struct Scene {
    root: tempfile::TempDir,
    board: Board,
    keys: SchoolKeys,
    one: Replica,
}

impl Scene {
    fn new() -> Self {
        let board = Board::new();
        let keys = board.school_keys(SCHOOL);
        let one = Replica::new(&board, &keys, SCHOOL);
        Self { root: tempfile::tempdir().unwrap(), board, keys, one }
    }

    fn bundle(&self) -> Vec<u8> {
        bundle(&self.one.opening(), &self.one.records(&self.keys))
    }

    async fn import(&self, bytes: &[u8]) -> (i32, Report, Vec<Record>) {
        let said = import(self.root.path(), bytes).await;
        let report = said.report.unwrap_or_else(|| panic!("{}: {}", said.code, said.told));
        (said.code, report, said.answer.unwrap_or_default())
    }
}

/// Goal: a bundle is stored and receipted as over the line, twice is once, and the line sees it. Method: import
/// twice, check the receipts of the answer, greet over the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_as_good_as_the_line() {
    let scene = Scene::new();
    let node = start(&scene.board, scene.root.path()).await;
    for (taken, known) in [(5, 0), (0, 5)] {
        let (code, report, answer) = scene.import(&scene.bundle()).await;
        assert_eq!((code, report.taken, report.known), (0, taken, known), "{report:?}");
        let receipts = receipts(&scene.board, &answer);
        let heads: Vec<_> = receipts.iter().map(|receipt| (receipt.log, receipt.head)).collect();
        let (safety, daily) = (&scene.one.safety, &scene.one.daily);
        assert_eq!(heads, [(safety.log, safety.head()), (daily.log, daily.head())]);
        assert!(
            receipts.iter().all(|receipt| receipt.loss_counter == LOSS_COUNTER && receipt.sites.len() == 2)
        );
    }
    let address = node.ready().listen;
    let (_client, welcome) = Client::greet(&scene.board, &scene.one.device, &scene.one.life, address).await;
    assert_eq!(welcome.heads.get(&scene.one.safety.log), Some(&scene.one.safety.head()));
    assert_eq!(welcome.manifest_version, 1);
    node.stop().await;
    let node = start(&scene.board, scene.root.path()).await;
    assert_eq!(node.status().equivocations + node.status().cut_off, 0);
    node.stop().await;
}

/// Goal: half a file gives its whole batches, is called not whole, and the whole file then brings the rest.
/// Method: cut in every tenth byte behind the key documents, then the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_file_is_half_taken() {
    let scene = Scene::new();
    let node = start(&scene.board, scene.root.path()).await;
    let whole = scene.bundle();
    let mut taken = 0;
    for cut in (whole.len() / 2..whole.len()).step_by(whole.len() / 5) {
        let (code, report, _) = scene.import(&whole[..cut]).await;
        assert_eq!(code, 7, "{report:?}");
        assert!(report.cut.as_ref().is_some_and(|text| text.contains("copy the file again")), "{report:?}");
        taken += report.taken;
    }
    assert!((1..5).contains(&taken), "{taken}");
    let (code, report, _) = scene.import(&whole).await;
    assert_eq!((code, report.taken, report.known), (0, 5 - taken, taken), "{report:?}");
    node.stop().await;
}

/// Goal: files in the wrong order are told and cost nothing. Method: the second half first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_order_is_told() {
    let scene = Scene::new();
    let node = start(&scene.board, scene.root.path()).await;
    let records = scene.one.records(&scene.keys);
    let opening = scene.one.opening();
    let later = [&records[..1], &records[3..]].concat();
    let (earlier, later) = (bundle(&opening, &records[..3]), bundle(&opening, &later));
    let (code, report, _) = scene.import(&later).await;
    assert_eq!((code, report.refused), (7, 0), "{report:?}");
    let early = &report.early[0];
    assert_eq!((early.log, early.held, early.first, early.batches), (scene.one.safety.log, 0, 3, 2));
    let (code, report, answer) = scene.import(&earlier).await;
    assert_eq!((code, report.taken), (0, 2), "{report:?}");
    assert_eq!(receipts(&scene.board, &answer)[0].head, scene.one.safety.batches[1].header().head());
    let (code, report, _) = scene.import(&later).await;
    assert_eq!((code, report.taken, report.known), (0, 2, 1), "{report:?}");
    node.stop().await;
}

/// Goal: a forged batch is refused with what follows it, other logs are taken, nothing of it is receipted.
/// Method: a batch by another key, put into a bundle whose checks hold; then the true bundle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_batch_stops_its_log_only() {
    let scene = Scene::new();
    let node = start(&scene.board, scene.root.path()).await;
    let mut records = scene.one.records(&scene.keys);
    let mut forged = scene.one.safety.batches[1].bytes().to_vec();
    forged[PREFIX_BYTES - 1] ^= 1;
    assert!(Batch::from_bytes(forged.clone()).is_ok());
    records[2] = Record::Batch(forged);
    let (code, report, answer) = scene.import(&bundle(&scene.one.opening(), &records)).await;
    assert_eq!((code, report.taken, report.refused), (7, 2, 3), "{report:?}");
    assert!(report.reasons.iter().any(|text| text.contains("not signed by its incarnation")), "{report:?}");
    let heads: Vec<_> = receipts(&scene.board, &answer).iter().map(|receipt| receipt.head.sequence).collect();
    assert_eq!(heads, [1, 1]);
    let (code, report, _) = scene.import(&scene.bundle()).await;
    assert_eq!((code, report.taken, report.known), (0, 3, 2), "{report:?}");
    node.stop().await;
}

/// Goal: what is not for this cloud is refused as a whole and says what it is. Method: another board's box, an
/// answer, another file, batches of another school under a right opening, no node at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_files_are_refused() {
    let scene = Scene::new();
    let bundle_of_one = scene.bundle();
    let alone = import(scene.root.path(), &bundle_of_one).await;
    assert!(alone.code == 2 && alone.told.contains("no node runs"), "{}", alone.told);
    let node = start(&scene.board, scene.root.path()).await;
    let (_, _, answer) = scene.import(&bundle_of_one).await;
    let Some(Record::Opening(of_cloud)) = answer.first() else { panic!("no opening") };
    let other_board = Board::new();
    let other_keys = other_board.school_keys(SCHOOL);
    let stranger = Replica::new(&other_board, &other_keys, SCHOOL);
    let cases = [
        (bundle(of_cloud, &[]), "an answer of the cloud"),
        (bundle(&stranger.opening(), &stranger.records(&other_keys)), "does not verify"),
        (b"PK\x03\x04 is a zip".to_vec(), "not a bundle of batches"),
    ];
    for (bytes, wanted) in cases {
        let said = import(scene.root.path(), &bytes).await;
        assert!(said.code == 3 && said.told.contains(wanted), "{}: {}", said.code, said.told);
        assert!(said.answer.is_none());
    }
    let keys_of_other = scene.board.school_keys(OTHER_SCHOOL);
    let other = Replica::new(&scene.board, &keys_of_other, OTHER_SCHOOL);
    let (code, report, _) = scene.import(&bundle(&scene.one.opening(), &other.records(&keys_of_other))).await;
    assert_eq!((code, report.taken, report.refused), (7, 0, 5), "{report:?}");
    node.stop().await;
}

/// Goal: an answer brings what the box lacks of others, and receipts for its own logs alone. Method: two boxes;
/// the second's bundle carries the first's batches as well, and a third asks with an empty bundle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_for_one_box() {
    let scene = Scene::new();
    let node = start(&scene.board, scene.root.path()).await;
    let second = Replica::new(&scene.board, &scene.keys, SCHOOL);
    let identity = Record::Identity(Box::new(scene.one.life.text.clone()));
    let mut records = vec![identity];
    records.extend(second.records(&scene.keys));
    records.extend(scene.one.records(&scene.keys));
    let (code, report, answer) = scene.import(&bundle(&second.opening(), &records)).await;
    assert_eq!((code, report.taken), (0, 10), "{report:?}");
    let logs: Vec<_> = receipts(&scene.board, &answer).iter().map(|receipt| receipt.log).collect();
    assert_eq!(logs, [second.safety.log, second.daily.log]);

    let third = Replica::new(&scene.board, &scene.keys, SCHOOL);
    let (code, _, answer) = scene.import(&bundle(&third.opening(), &[])).await;
    let batches = answer.iter().filter(|record| matches!(record, Record::Batch(_))).count();
    let identities = answer.iter().filter(|record| matches!(record, Record::Identity(_))).count();
    assert_eq!((code, batches, identities), (0, 10, 3));
    assert!(receipts(&scene.board, &answer).is_empty());
    node.stop().await;
}

/// Goal: below the quorum nothing is receipted, and the same file works later. Method: a site that fails for a
/// while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_quorum_nothing_is_receipted() {
    let scene = Scene::new();
    let faults = Arc::new(Faults::default());
    faults.from.store(1, Ordering::SeqCst);
    faults.count.store(u64::MAX / 2, Ordering::SeqCst);
    let store =
        |faults: &Arc<Faults>| FaultStore { inner: Arc::new(InMemory::new()), faults: Arc::clone(faults) };
    let sites = vec![
        Site::over([1; 16], "a".into(), Arc::new(store(&Arc::default()))),
        Site::over([2; 16], "b".into(), Arc::new(store(&faults))),
    ];
    let data = scene.root.path().join("data");
    let identity = NodeIdentity::of_bundle(&scene.board.bundle()).unwrap();
    let options = options(&data, &[PathBuf::from("a"), PathBuf::from("b")], 2);
    let lock = DataLock::take(&data).unwrap();
    let node = Node::start_on(identity, &options, sites, &[], lock).await.unwrap();
    let (code, report, answer) = scene.import(&scene.bundle()).await;
    assert_eq!((code, report.taken, report.storage), (5, 0, true), "{report:?}");
    assert!(receipts(&scene.board, &answer).is_empty());
    faults.from.store(0, Ordering::SeqCst);
    let (mut code, mut report, mut answer) = scene.import(&scene.bundle()).await;
    // The node notices with the next object that it tries.
    while report.storage {
        (code, report, answer) = scene.import(&scene.bundle()).await;
    }
    assert_eq!((code, report.taken), (0, 5), "{report:?}");
    assert_eq!(receipts(&scene.board, &answer).len(), 2);
    node.stop().await;
}
