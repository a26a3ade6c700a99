//! What has happened honestly: replicas that wrote, a cloud that stored and signed, a clone that forked a log, a
//! school year that turned, and another school at the same cloud. Everything that anybody ever saw of it is the
//! adversary's to use; no private key of board or replicas is.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use sonae_proto::batch::Batch;
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::clock::Clock;
use sonae_proto::digest::{Digest, DigestKey};
use sonae_proto::ended::EndedHashes;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::reissue::reissue;
use sonae_proto::vector::{Heads, LogHead, Sequences};
use sonae_proto::view::{Fold, MemoryRecords, Records as _};
use sonae_proto::wire::{Frame, Hello, PROTOCOL};

use super::album::Album;
use super::board::{Board, Life, School};
use super::cloud::{Cloud, Object};
use super::options::HistoryOptions;
use crate::random::Random;

/// Time of the first change, in milliseconds.
const START_MS: u64 = 1_764_000_000_000;

/// One batch, and how things stood at the cloud when it was there.
pub(crate) struct Moment {
    /// Objects at the sites.
    pub objects: usize,
    /// Heads of all logs of the school.
    pub heads: Heads,
}

/// A fork that happened: what the clone sealed, and nobody took.
pub(crate) struct Branch {
    pub log: LogName,
    pub batches: Vec<Batch>,
}

/// The other school.
pub(crate) struct Foreign {
    pub life: Life,
    pub batches: Vec<Batch>,
    pub receipts: Vec<Vec<u8>>,
}

/// The history.
pub(crate) struct History {
    pub options: HistoryOptions,
    pub board: Board,
    /// Incarnations, in the order in which they began. The first is the victim's where a box that runs is attacked.
    pub lives: Vec<Life>,
    pub moments: Vec<Moment>,
    pub objects: Vec<Object>,
    /// All batches as the cloud has them.
    pub batches: BTreeMap<LogName, Vec<Batch>>,
    pub branch: Option<Branch>,
    /// Receipts by log and last sequence, all under loss counter 0.
    pub receipts: BTreeMap<(LogName, u64), Vec<u8>>,
    pub foreign: Foreign,
    /// Hashes of the bytes of all batches that replicas of the school really sealed.
    pub genuine: BTreeSet<Hash32>,
    album: OnceCell<Album>,
}

/// What a view adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub sequences: Sequences,
    pub digests: BTreeMap<Tier, Digest>,
}

/// What a replica sees while it writes.
struct Writer {
    life: Life,
    fold: Fold,
    records: MemoryRecords,
    clock: Clock,
    greeted: bool,
}

pub(crate) fn digest_key() -> DigestKey {
    DigestKey::from_secret("adversary")
}

pub(crate) fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}

pub(crate) const fn collection(tier: Tier) -> &'static str {
    match tier {
        Tier::Safety => "student",
        Tier::Daily => "attendance",
        Tier::Archive => "grade_result",
    }
}

impl Writer {
    fn new(life: Life) -> Self {
        let fold = Fold::new(digest_key());
        Self { life, fold, records: MemoryRecords::default(), clock: Clock::default(), greeted: false }
    }

    /// Applies what a batch brings beyond what was seen.
    fn see(&mut self, school: &School, batch: &Batch) -> Result<()> {
        let header = batch.header();
        for (line, sequence) in school.open(batch)?.iter().zip(header.first..) {
            self.fold.apply(&mut self.records, header.log, sequence, line)?;
        }
        Ok(())
    }

    /// One line: a person writes who sees the present value.
    fn draft(&mut self, tier: Tier, random: &mut Random, now_ms: u64) -> Result<Vec<u8>> {
        let (collection, record) = (collection(tier), format!("r{}", random.below(3)));
        let Ok(seen) = self.records.get(tier, collection, &record);
        let bases = seen.fields.get("f").map(|field| field.bases()).unwrap_or_default();
        let change = Change {
            stamp: self.clock.next(now_ms),
            collection: collection.into(),
            record,
            fields: BTreeMap::from([("f".into(), FieldWrite { value: random.below(1 << 40).into(), bases })]),
            who: Some("tanaka".into()),
            source: None,
            origin: None,
            rest: serde_json::Map::new(),
        };
        Ok(change.to_line(self.life.name)?)
    }

    fn hello(&self, school: &School, epoch: usize) -> Hello {
        Hello {
            protocol: PROTOCOL,
            school: school.code,
            identity: self.life.identity.clone(),
            loss_counter: 0,
            receipted: Heads::new(),
            have: Sequences::new(),
            manifest_version: u64::try_from(epoch).unwrap_or(u64::MAX) + 1,
            nonce: "00".repeat(16),
            software: "adversary".into(),
            ended: EndedHashes::new(),
        }
    }
}

/// A history being made.
struct Making {
    history: History,
    cloud: Cloud,
    writers: Vec<Writer>,
    random: Random,
    epoch: usize,
}

impl History {
    /// Makes the history of some options.
    pub fn new(options: &HistoryOptions) -> Result<Self> {
        let board = Board::new(options.number, options.real_sealing)?;
        let mut random = Random::new(options.number, "adversary history");
        let mut cloud = Cloud::boot(&board, Vec::new(), options.sites, options.quorum);
        let foreign = foreign(&board, &mut cloud, &mut random)?;
        let mut lives = Vec::new();
        for number in 0..options.replicas {
            let name = format!("replica {number}");
            lives.push(board.begin(&board.school, &name, &name, Beginning::Enrolment)?);
        }
        let writers = lives.iter().cloned().map(Writer::new).collect();
        let history = Self {
            options: options.clone(),
            board,
            lives,
            moments: Vec::new(),
            objects: Vec::new(),
            batches: BTreeMap::new(),
            branch: None,
            receipts: BTreeMap::new(),
            foreign,
            genuine: BTreeSet::new(),
            album: OnceCell::new(),
        };
        let mut making = Making { history, cloud, writers, random, epoch: 0 };
        making.write()?;
        let mut history = making.history;
        history.objects = making.cloud.objects;
        let album = Album::new(&history).context("snapshots of an honest history cannot be made")?;
        history.album.get_or_init(|| album);
        Ok(history)
    }

    /// The snapshots that were made of it.
    pub fn album(&self) -> Result<&Album> {
        self.album.get().context("a history without snapshots")
    }

    /// Objects that were at the sites at a moment.
    pub fn objects_at(&self, moment: usize) -> Vec<Object> {
        let count = self.moments.get(moment).map_or(self.objects.len(), |moment| moment.objects);
        self.objects.iter().take(count).cloned().collect()
    }

    /// The honest cloud as it was at a moment.
    pub fn cloud_at(&self, moment: usize) -> Cloud {
        Cloud::boot(&self.board, self.objects_at(moment), self.options.sites, self.options.quorum)
    }

    /// Heads at a moment.
    pub fn heads_at(&self, moment: usize) -> Heads {
        self.moments.get(moment).map(|moment| moment.heads.clone()).unwrap_or_default()
    }

    /// Batches up to some heads.
    pub fn batches_up_to(&self, heads: &Heads) -> Vec<Batch> {
        let within = |batch: &&Batch| {
            heads.get(&batch.header().log).is_some_and(|head| batch.header().last <= head.sequence)
        };
        self.batches.values().flatten().filter(within).cloned().collect()
    }

    /// What batches add up to, folded without any engine.
    pub fn state_of(&self, batches: &[Batch]) -> Result<State> {
        let (mut fold, mut records) = (Fold::new(digest_key()), MemoryRecords::default());
        for batch in batches {
            let header = batch.header();
            for (line, sequence) in self.board.school.open(batch)?.iter().zip(header.first..) {
                fold.apply(&mut records, header.log, sequence, line)?;
            }
        }
        Ok(State { sequences: fold.sequences, digests: fold.digests })
    }

    /// Whether a batch is one that a replica of the school sealed, to the byte.
    pub fn is_genuine(&self, bytes: &[u8]) -> bool {
        self.genuine.contains(&hash(bytes))
    }
}

fn foreign(board: &Board, cloud: &mut Cloud, random: &mut Random) -> Result<Foreign> {
    let life = board.begin(&board.other, "foreign", "foreign", Beginning::Enrolment)?;
    let mut writer = Writer::new(life.clone());
    let hello = writer.hello(&board.other, 0);
    cloud.hello(1, &life.tls_key, &hello);
    cloud.keys(1, &board.other.documents(1));
    let (mut batches, mut receipts, mut head) = (Vec::new(), Vec::new(), LogHead::EMPTY);
    for _ in 0..3 {
        let line = writer.draft(Tier::Safety, random, START_MS)?;
        let batch = board.other.seal(&life, Tier::Safety, head, &[line], 1)?;
        head = batch.header().head();
        writer.see(&board.other, &batch)?;
        receipts.push(receipt(&cloud.batch(1, batch.bytes().to_vec()))?);
        batches.push(batch);
    }
    Ok(Foreign { life, batches, receipts })
}

fn receipt(answers: &[Frame]) -> Result<Vec<u8>> {
    match answers {
        [Frame::Receipt(bytes)] => Ok(bytes.clone()),
        other => bail!("an honest batch was answered with {other:?}"),
    }
}

impl Making {
    fn write(&mut self) -> Result<()> {
        let steps = self.history.options.steps;
        let turns_at = steps / 2;
        let forks_at =
            if self.history.options.forked { 3 + self.random.index(steps - 4) } else { usize::MAX };
        for step in 0..steps {
            if step == turns_at {
                self.epoch = 1;
                for writer in &mut self.writers {
                    writer.greeted = false;
                }
            }
            // The first replica has something in each tier, and every one has something.
            let replicas = self.history.options.replicas;
            let (writer, tier) = match step {
                0..=2 => (0, Tier::ALL[step]),
                3 | 4 if step < 2 + replicas => (step - 2, Tier::Safety),
                _ => (self.random.index(replicas), self.random.pick(&Tier::ALL)),
            };
            if step == forks_at {
                self.fork(writer, tier)?;
            } else {
                self.sync(writer)?;
                self.step(writer, tier)?;
            }
        }
        Ok(())
    }

    /// A replica sees, half of the time, what the cloud has.
    fn sync(&mut self, writer: usize) -> Result<()> {
        if self.random.one_in(2) {
            for batch in self.history.batches.values().flatten() {
                self.writers[writer].see(&self.history.board.school, batch)?;
            }
        }
        Ok(())
    }

    fn lines(&mut self, writer: usize, tier: Tier, count: u64) -> Result<Vec<Vec<u8>>> {
        let now_ms = START_MS + u64::try_from(self.history.moments.len())? * 60_000;
        (0..count).map(|_| self.writers[writer].draft(tier, &mut self.random, now_ms)).collect()
    }

    fn head(&self, log: LogName) -> LogHead {
        let batches = self.history.batches.get(&log);
        batches.and_then(|batches| batches.last()).map_or(LogHead::EMPTY, |batch| batch.header().head())
    }

    fn step(&mut self, writer: usize, tier: Tier) -> Result<()> {
        let count = 1 + self.random.below(3);
        let lines = self.lines(writer, tier, count)?;
        self.send(writer, tier, &lines)
    }

    /// Seals lines and has the cloud take them.
    fn send(&mut self, writer: usize, tier: Tier, lines: &[Vec<u8>]) -> Result<()> {
        let life = self.writers[writer].life.clone();
        let log = life.log(tier);
        let batch = self.history.board.school.seal(&life, tier, self.head(log), lines, self.epoch)?;
        self.writers[writer].see(&self.history.board.school, &batch)?;
        let connection = u64::try_from(writer)? + 10;
        if !std::mem::replace(&mut self.writers[writer].greeted, true) {
            let hello = self.writers[writer].hello(&self.history.board.school, self.epoch);
            self.cloud.hello(connection, &life.tls_key, &hello);
            self.cloud.keys(connection, &self.history.board.school.documents(self.epoch));
        }
        let bytes = batch.bytes().to_vec();
        self.history.genuine.insert(hash(&bytes));
        let receipt = receipt(&self.cloud.batch(connection, bytes)).context("the honest cloud")?;
        self.history.receipts.insert((log, batch.header().last), receipt);
        self.history.batches.entry(log).or_default().push(batch);
        let heads = self.cloud.heads(&self.history.board);
        let moment = Moment { objects: self.cloud.objects.len(), heads };
        self.history.moments.push(moment);
        Ok(())
    }

    /// A clone of a replica writes too; the cloud refuses its branch, and the clone goes on under another name.
    fn fork(&mut self, writer: usize, tier: Tier) -> Result<()> {
        let life = self.writers[writer].life.clone();
        let log = life.log(tier);
        let (before, mut head) = (self.head(log), self.head(log));
        let mut batches = Vec::new();
        let mut branch = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            let count = 1 + self.random.below(2);
            let lines = self.lines(writer, tier, count)?;
            let batch = self.history.board.school.seal(&life, tier, head, &lines, self.epoch)?;
            head = batch.header().head();
            branch.extend(lines);
            self.history.genuine.insert(hash(batch.bytes()));
            batches.push(batch);
        }
        self.step(writer, tier)?;
        let connection = u64::try_from(writer)? + 10;
        let answer = self.cloud.batch(connection, batches[0].bytes().to_vec());
        if !matches!(answer.as_slice(), [Frame::Refusal(_)]) {
            bail!("the branch of a clone was not refused");
        }
        self.history.branch = Some(Branch { log, batches });
        let placed: Vec<(u64, Vec<u8>)> = (before.sequence + 1..).zip(branch).collect();
        let renewed = self.history.board.begin(
            &self.history.board.school,
            &format!("replica {writer}"),
            "renewed",
            Beginning::Restored,
        )?;
        let lines: Vec<Vec<u8>> = reissue(log, &placed)?
            .iter()
            .map(|change| change.to_line(renewed.name))
            .collect::<Result<_, _>>()?;
        self.history.lives.push(renewed.clone());
        self.writers.push(Writer::new(renewed));
        self.send(self.writers.len() - 1, tier, &lines)
    }
}
