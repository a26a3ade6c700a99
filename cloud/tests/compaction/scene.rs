//! A school at sites in memory: many small objects, with records of two logs and of a later version.

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use object_store::memory::InMemory;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};
use sonae_cloud::compaction::{Compactor, Judge, Pass, Rules};
use sonae_cloud::contents;
use sonae_cloud::index::Fed;
use sonae_cloud::load::{Loaded, load};
use sonae_cloud::object_name::{ObjectName, StoredName};
use sonae_cloud::site::Site;
use sonae_proto::batch::Batch;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_proto::intake::{Config, Intake};
use sonae_proto::object::{RecordKind, append, append_as};
use sonae_proto::vector::Heads;
use ulid::Ulid;

use super::common::board::{Board, Device, Life, SCHOOL, SchoolKeys};
use super::common::writer::LogWriter;
use super::store::{Store, Trouble};

/// Objects of the scene besides the one with the documents.
pub const OBJECTS: usize = 12;

/// Merges as soon as a few objects lie there, and deletes with the pass after that.
pub const RULES: Rules = Rules {
    inputs_min: 4,
    bytes_max: 16 * 1024 * 1024,
    superseded: Duration::ZERO,
    interval: Duration::from_hours(1),
};

pub struct Scene {
    pub data: tempfile::TempDir,
    pub board: Board,
    pub device: Device,
    pub life: Life,
    pub keys: SchoolKeys,
    pub logs: Vec<LogWriter>,
    pub stores: Vec<Arc<InMemory>>,
    pub trouble: Vec<Arc<Trouble>>,
    pub next: u64,
}

impl Scene {
    /// Each object holds a batch of each log, and something that only a later version knows.
    pub async fn new(sites: usize) -> Self {
        let board = Board::new();
        let (device, keys) = (board.device(SCHOOL), board.school_keys(SCHOOL));
        let life = device.life(Beginning::Enrolment, 1);
        let writer = |tier| LogWriter::new(&device, &life, &keys, tier);
        let logs = vec![writer(Tier::Safety), writer(Tier::Daily)];
        let stores = (0..sites).map(|_| Arc::new(InMemory::new())).collect();
        let trouble = (0..sites).map(|_| Arc::default()).collect();
        let data = tempfile::tempdir().unwrap();
        let mut scene = Self { data, board, device, life, keys, logs, stores, trouble, next: 0 };
        let identity = serde_json::to_vec(&scene.life.text).unwrap();
        let documents = serde_json::to_vec(&scene.keys.documents()).unwrap();
        scene
            .put(&[(RecordKind::Identity.number(), &identity), (RecordKind::Keys.number(), &documents)])
            .await;
        for number in 0..OBJECTS {
            scene.write(&number.to_string()).await;
        }
        scene
    }

    /// Writes one more object.
    pub async fn write(&mut self, text: &str) {
        let batches: Vec<Batch> = self.logs.iter_mut().map(|log| log.write(text)).collect();
        let later = format!("of a later version: {text}");
        let records: Vec<(u8, &[u8])> =
            batches.iter().map(|batch| (1, batch.bytes())).chain([(200, later.as_bytes())]).collect();
        self.put(&records).await;
    }

    /// Puts an object to all sites. Returns its name.
    pub async fn put(&mut self, records: &[(u8, &[u8])]) -> ObjectName {
        let mut object = Vec::new();
        for (number, body) in records {
            append_as(&mut object, *number, body);
        }
        let name = ObjectName { boot: Ulid::from_parts(1_764_000_000_000, 7), counter: self.next };
        self.next += 1;
        for store in &self.stores {
            store.put(&name.path(), PutPayload::from(object.clone())).await.unwrap();
        }
        name
    }

    /// The same sites again, as they are now, with notes of their own.
    pub fn fork(&self) -> (Vec<Arc<InMemory>>, tempfile::TempDir) {
        (self.stores.iter().map(|store| Arc::new(store.fork())).collect(), tempfile::tempdir().unwrap())
    }

    pub fn sites(&self) -> Arc<Vec<Site>> {
        open(&self.stores, &self.trouble)
    }

    pub fn compactor(&self, rules: Rules) -> Compactor {
        Compactor::new(self.sites(), self.stores.len(), rules, self.data.path())
    }

    /// What a node that starts here finds.
    pub async fn start(&self) -> (Intake, Fed, Heads, Loaded) {
        let mut loaded = load(&self.sites()).await;
        let index = std::mem::take(&mut loaded.index);
        let (board, sites) = (self.board.root.verifying_key(), self.stores.len());
        let receipt_key = SigningKey::from_bytes(&[8; 32]);
        let config = Config { board, receipt_key, sites, quorum: sites, receipt_before_store: false };
        let mut intake = Intake::new(config);
        let fed = index.feed(&mut intake, &board, sites);
        let heads = intake.overview().into_iter().next().map(|school| school.heads).unwrap_or_default();
        (intake, fed, heads, loaded)
    }

    /// Everything that was written is there for a node that starts, durable, and lies at each site.
    pub async fn assert_all_there(&self, case: &str) {
        let (_, fed, heads, loaded) = self.start().await;
        let expected: Heads = self.logs.iter().map(|log| (log.log, log.head())).collect();
        assert_eq!(heads, expected, "{case}");
        assert_eq!((fed.undurable.len(), fed.cut_off, fed.nameless), (0, 0, 0), "{case}");
        let faults: Vec<_> = loaded.sites.iter().filter_map(|site| site.fault.clone()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{case}");
        let expected = self.expected();
        for store in &self.stores {
            let there = records(store).await;
            let missing = expected.iter().filter(|record| !there.contains(*record)).count();
            assert_eq!(missing, 0, "{case}: records that a site lacks");
        }
    }

    fn expected(&self) -> BTreeSet<(u8, Vec<u8>)> {
        let batches = self.logs.iter().flat_map(|log| &log.batches);
        let batches = batches.map(|batch| (1, batch.bytes().to_vec()));
        let texts = 0..self.logs[0].batches.len().min(OBJECTS);
        let later = texts.map(|text| (200, format!("of a later version: {text}").into_bytes()));
        let documents = serde_json::to_vec(&self.keys.documents()).unwrap();
        let identity = serde_json::to_vec(&self.life.text).unwrap();
        batches.chain(later).chain([(2, identity), (3, documents)]).collect()
    }
}

pub fn open(stores: &[Arc<InMemory>], trouble: &[Arc<Trouble>]) -> Arc<Vec<Site>> {
    let site = |(number, (inner, trouble)): (usize, (&Arc<InMemory>, &Arc<Trouble>))| {
        let store = Store { inner: Arc::clone(inner), trouble: Arc::clone(trouble) };
        let id = [u8::try_from(number).unwrap() + 1; 16];
        Site::over(id, format!("site {number}"), Arc::new(store))
    };
    Arc::new(stores.iter().zip(trouble).enumerate().map(site).collect())
}

/// One pass, with nothing known of snapshots.
pub async fn pass(compactor: &mut Compactor, elapsed: Duration) -> Pass {
    compactor.pass(elapsed, &Judge::default()).await.unwrap()
}

/// Names of what a site holds.
pub async fn names(store: &InMemory) -> BTreeSet<StoredName> {
    use futures_util::TryStreamExt as _;
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    listed.iter().map(|meta| StoredName::parse(meta.location.as_ref()).unwrap()).collect()
}

pub async fn written(store: &InMemory) -> usize {
    names(store).await.iter().filter(|name| name.written().is_some()).count()
}

/// Records of what a site holds, by the numbers of their kinds.
pub async fn records(store: &InMemory) -> BTreeSet<(u8, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for name in names(store).await {
        let bytes = store.get(&name.path()).await.unwrap().bytes().await.unwrap();
        let contents = contents::read(name, &bytes);
        assert_eq!(contents.damage, None, "{name}");
        found.extend(contents.records.iter().map(|(_, record)| (record.number, record.body.to_vec())));
    }
    found
}

/// An object of one record.
pub fn object(kind: RecordKind, body: &[u8]) -> Vec<u8> {
    let mut object = Vec::new();
    append(&mut object, kind, body);
    object
}

/// A compactor of another node, with notes of its own.
pub fn other(scene: &Scene, data: &FilePath) -> Compactor {
    Compactor::new(scene.sites(), scene.stores.len(), RULES, data)
}
