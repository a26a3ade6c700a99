//! The rig: a run of a workload, on one thread and so the same each time, that notes from outside what was asked,
//! answered and handed out.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use sonae_journal::sim::SimDisk;
use sonae_proto::batch::{Batch, BatchHeader};
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::clock::Stamp;
use sonae_proto::ids::{ChangeId, Incarnation, LogName, Tier};
use sonae_proto::vector::LogHead;
use sonae_store::options::Options;
use sonae_store::testing::Stepped;
use sonae_store::{Action, Edit, StoreError, WriteError};

use crate::workload::{COLLECTIONS, Step};
use crate::world::{BEGIN_MS, WORLD, open_own};

/// Makes an action of edits.
pub fn action(edits: &[(&'static str, String, &'static str, String)], import: bool) -> Action {
    let edit = |(collection, record, field, value): &(&str, String, &str, String)| Edit {
        collection: (*collection).to_owned(),
        record: record.clone(),
        fields: BTreeMap::from([((*field).to_owned(), value.clone().into())]),
        seen: None,
    };
    Action {
        who: Some("tester".into()),
        source: import.then(|| "oneroster".into()),
        edits: edits.iter().map(edit).collect(),
    }
}

/// A request whose answer may be there.
pub type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Lets a request make progress; returns its answer if it is there.
pub fn poll<T>(future: &mut Asked<T>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Asks something, lets the keeper take its turn, and takes the answer: every request is answered in its turn.
pub fn ask<T>(stepped: &mut Stepped, asked: impl Future<Output = T> + Send + 'static) -> T {
    let mut future: Asked<T> = Box::pin(asked);
    if let Some(answer) = poll(&mut future) {
        return answer;
    }
    stepped.turn();
    poll(&mut future).unwrap()
}

/// What must be the same after any restart: digests, vector, what is kept, every record with its heads.
pub fn essence(stepped: &Stepped) -> String {
    let state = stepped.store.state();
    let mut text = format!("{:?} {:?} {}", state.digests, state.vector, state.disputed);
    for (tier, point) in &state.kept {
        text += &format!(" {tier}:{}", point.sequence);
    }
    for (collection, _) in COLLECTIONS {
        let tier = sonae_proto::collection::find(collection).unwrap().tier;
        for (id, record) in stepped.store.records(tier, collection, "").unwrap() {
            text += &format!("\n{collection}/{id} {}", serde_json::to_string(&record).unwrap());
        }
    }
    text
}

/// What was handed out and claimed, as somebody outside knows it.
#[derive(Clone, Default)]
pub struct Claims {
    /// Batches that the uplink was told of.
    pub told: BTreeMap<(LogName, u64), BatchHeader>,
    /// Heads that receipts were given for.
    pub receipted: Vec<(LogName, LogHead)>,
    /// The loss counter that was answered, and the one that was asked for.
    pub loss: (u64, u64),
}

/// The shared part of a run: what the disk's watcher looks at.
#[derive(Default)]
pub struct Flight {
    /// Which step is under way.
    pub step: usize,
    /// Whether it was answered as kept.
    pub is_kept: bool,
    asked: Option<Asked<Result<(), WriteError>>>,
    answer: Option<Result<(), WriteError>>,
    sealed: Option<tokio::sync::mpsc::UnboundedReceiver<BatchHeader>>,
    pub claims: Claims,
}

impl Flight {
    /// Takes what has been answered and told until now.
    pub fn look(&mut self) {
        if let Some(answer) = self.asked.as_mut().and_then(poll) {
            self.is_kept = answer.is_ok();
            self.asked = None;
            self.answer = Some(answer);
        }
        while let Some(header) = self.sealed.as_mut().and_then(|sealed| sealed.try_recv().ok()) {
            self.claims.told.insert((header.log, header.first), header);
        }
    }
}

/// A run of a workload.
pub struct Run<'a> {
    disk: &'a SimDisk,
    view: &'a Path,
    options: Options,
    pub flight: Arc<Mutex<Flight>>,
    now_ms: Arc<AtomicU64>,
    reissued: u64,
    /// The essence after each step.
    pub essences: Vec<String>,
    /// The bytes of every batch that was told.
    pub bytes: BTreeMap<(LogName, u64), Vec<u8>>,
}

/// Why a run has stopped.
#[derive(Debug)]
pub enum Stop {
    /// The store could not be opened.
    Open(StoreError),
    /// The store has failed at a step.
    Failed,
    /// It is wrong, whatever the disk did.
    Wrong(String),
}

impl<'a> Run<'a> {
    pub fn new(disk: &'a SimDisk, view: &'a Path, options: &Options) -> Self {
        Self {
            disk,
            view,
            options: options.clone(),
            flight: Arc::default(),
            now_ms: Arc::new(AtomicU64::new(BEGIN_MS)),
            reissued: 0,
            essences: Vec::new(),
            bytes: BTreeMap::new(),
        }
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap()
    }

    /// Opens the store, going on with the time and with what was noted.
    pub fn open(&mut self) -> Result<Stepped, Stop> {
        let (mut stepped, now_ms) = open_own(self.disk, self.view, &self.options).map_err(Stop::Open)?;
        now_ms.store(self.now_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        self.now_ms = now_ms;
        let (_, none) = tokio::sync::mpsc::unbounded_channel();
        self.flight().sealed = Some(std::mem::replace(&mut stepped.sealed, none));
        Ok(stepped)
    }

    /// Performs steps from the one with number `from` on, until the store fails.
    pub fn steps(&mut self, mut stepped: Stepped, steps: &[Step], from: usize) -> Result<Stepped, Stop> {
        for (number, step) in steps.iter().enumerate().skip(from) {
            {
                let mut flight = self.flight();
                (flight.step, flight.is_kept) = (number, false);
            }
            self.now_ms.fetch_add(50, Ordering::Relaxed);
            stepped = self.step(stepped, step)?;
            self.flight().look();
            self.keep_bytes(&mut stepped)?;
            self.essences.push(essence(&stepped));
        }
        Ok(stepped)
    }

    fn step(&mut self, mut stepped: Stepped, step: &Step) -> Result<Stepped, Stop> {
        let store = stepped.store.clone();
        match step {
            Step::Write { edits, import } => {
                let action = action(edits, *import);
                self.asks(&mut stepped, async move { store.write(action).await.map(drop) })?;
            }
            Step::Seal => {
                ask(&mut stepped, async move { store.seal_now().await });
            }
            Step::Peer(tier) => {
                let held = store.state().vector;
                let is_next = |batch: &&Batch| {
                    let header = batch.header();
                    held.get(&header.log).is_none_or(|sequence| header.last > *sequence)
                };
                if let Some(batch) = WORLD.peer[tier].iter().find(is_next).cloned() {
                    self.asks(&mut stepped, async move { store.store_batch(batch).await })?;
                }
            }
            Step::Receipts => self.receipts(&mut stepped),
            Step::Loss => {
                self.flight().claims.loss.1 += 1;
                let counter = self.flight().claims.loss.1;
                if self.asks(&mut stepped, async move { store.keep_loss(counter, BTreeMap::new()).await })? {
                    self.flight().claims.loss.0 = counter;
                }
            }
            Step::Identity => {
                store.keep_identity(WORLD.identity.clone());
                stepped.turn();
            }
            Step::Reissue => {
                let change = self.reissued();
                self.asks(&mut stepped, async move { store.reissue(Tier::Safety, vec![change]).await })?;
            }
            Step::Idle => stepped.idle(),
            Step::Wait(ms) => {
                self.now_ms.fetch_add(*ms, Ordering::Relaxed);
                stepped.turn();
            }
            Step::Line(up) => {
                store.set_line(*up);
                stepped.turn();
            }
            Step::Reopen => {
                stepped.close();
                self.flight().look();
                return self.open();
            }
            Step::Kill => {
                drop(stepped);
                return self.open();
            }
        }
        Ok(stepped)
    }

    /// Asks for something that is kept or not, in sight of the disk's watcher. Returns whether it was kept.
    fn asks(
        &mut self,
        stepped: &mut Stepped,
        asked: impl Future<Output = Result<(), WriteError>> + Send + 'static,
    ) -> Result<bool, Stop> {
        let before = essence(stepped);
        {
            let mut flight = self.flight();
            flight.answer = None;
            flight.asked = Some(Box::pin(asked));
            flight.look();
        }
        stepped.turn();
        self.flight().look();
        match self.flight().answer.take() {
            Some(Ok(())) => Ok(true),
            Some(Err(WriteError::Failed)) => {
                let (store, edits) =
                    (stepped.store.clone(), vec![("student", "r0".into(), "grade", "no".into())]);
                match ask(stepped, async move { store.write(action(&edits, false)).await }) {
                    Err(WriteError::Failed) => Err(Stop::Failed),
                    other => Err(Stop::Wrong(format!("a failed store answered with {other:?}"))),
                }
            }
            Some(Err(WriteError::Full | WriteError::NoRoom { .. })) if essence(stepped) == before => {
                Ok(false)
            }
            Some(Err(WriteError::Full | WriteError::NoRoom { .. })) => {
                Err(Stop::Wrong("refused, and yet seen".into()))
            }
            other => Err(Stop::Wrong(format!("answered with {other:?}"))),
        }
    }

    fn receipts(&mut self, stepped: &mut Stepped) {
        let mut heads: BTreeMap<LogName, LogHead> = BTreeMap::new();
        for header in self.flight().claims.told.values() {
            heads.insert(header.log, header.head());
        }
        for (log, head) in heads {
            self.flight().claims.receipted.push((log, head));
            stepped.store.keep_receipt(log, head, vec![7; 100]);
        }
        stepped.turn();
    }

    fn reissued(&mut self) -> Change {
        self.reissued += 1;
        let origin = ChangeId { incarnation: Incarnation::from_bytes([9; 16]), sequence: self.reissued };
        let write = FieldWrite { value: format!("again {}", self.reissued).into(), bases: Vec::new() };
        Change {
            stamp: Stamp { ms: BEGIN_MS - 1_000, counter: 0 },
            collection: "student".into(),
            record: format!("r{}", self.reissued),
            fields: BTreeMap::from([("address".into(), write)]),
            who: None,
            source: None,
            origin: Some(origin),
            rest: serde_json::Map::new(),
        }
    }

    /// Reads what was told and not read yet, as the uplink does before it sends.
    fn keep_bytes(&mut self, stepped: &mut Stepped) -> Result<(), Stop> {
        let told: Vec<(LogName, u64)> = self.flight().claims.told.keys().copied().collect();
        for key in told {
            if self.bytes.contains_key(&key) {
                continue;
            }
            let store = stepped.store.clone();
            match ask(stepped, async move { store.batch(key.0, key.1).await }) {
                Some(bytes) => drop(self.bytes.insert(key, bytes)),
                None if stepped.store.state().failed.is_some() => return Err(Stop::Failed),
                None => return Err(Stop::Wrong(format!("{key:?} was told and cannot be read"))),
            }
        }
        Ok(())
    }
}
