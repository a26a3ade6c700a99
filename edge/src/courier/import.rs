//! Reads a bundle: what verifies and continues what is held is taken, group by group; the rest is told.
//!
//! **Invariant**: whole batches before a cut or a damage are taken.
//! **Invariant**: a group of at most [`GROUP_BATCHES`] batches and [`GROUP_BYTES`] is held, however large the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sonae_proto::batch::Batch;
use sonae_proto::courier::{CourierError, Decoder, Opening, Record};
use sonae_proto::ids::LogName;
use sonae_proto::uplink::{CarriedBatch, CarriedReceipt, KeysOutcome};
use sonae_proto::wire::KeyDocuments;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

use super::{Ask, Desk};

/// Batches that share a commit, at most: a commit of the journal holds 4 MiB.
pub const GROUP_BATCHES: usize = 512;

/// Bytes of batches that share a commit, about.
pub const GROUP_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Texts of refusals that are kept; the rest is counted.
const REFUSALS_MAX: usize = 20;

/// Batches of a log that come after something that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    /// The log.
    pub log: LogName,
    /// The last change that is held here.
    pub held: u64,
    /// The first change of the earliest batch that came.
    pub first: u64,
    /// How many batches.
    pub batches: u64,
}

/// What became of a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Batches that were taken; durable here.
    pub taken: u64,
    /// Changes in them.
    pub changes: u64,
    /// Batches that were here already.
    pub known: u64,
    /// Logs of which an earlier bundle is missing.
    pub early: Vec<Early>,
    /// Batches of revoked devices that are kept aside here until the board decides.
    #[serde(default)]
    pub quarantined: u64,
    /// Batches that were refused.
    pub refused: u64,
    /// Why, of the first ones.
    pub reasons: Vec<String>,
    /// Receipts that moved what is safe.
    pub receipts: u64,
    /// Receipts that say nothing new.
    pub receipts_known: u64,
    /// Receipts of another box of this school.
    pub receipts_foreign: u64,
    /// Receipts that were signed before a loss that was noticed since; they do not count.
    pub receipts_outdated: u64,
    /// Receipts that do not verify, or are for a batch that is not held.
    pub receipts_refused: u64,
    /// Why the file as a whole is refused; nothing was taken then.
    pub refused_file: Option<String>,
    /// Why the file was not read to its end.
    pub cut: Option<String>,
    /// Why the store did not take more.
    pub store: Option<String>,
}

impl Imported {
    /// Whether everything that came is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.early.is_empty()
            && self.refused == 0
            && self.reasons.is_empty()
            && self.receipts_outdated == 0
            && self.receipts_refused == 0
            && self.refused_file.is_none()
            && self.cut.is_none()
            && self.store.is_none()
    }

    fn refuse(&mut self, batches: u64, reason: String) {
        self.refused += batches;
        if self.reasons.len() < REFUSALS_MAX && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// Reads a bundle to its end, or as far as it goes.
///
/// # Durability
/// What is reported as taken, receipts among it, is on stable storage when this returns: the stick may go.
pub async fn import(desk: &Desk, input: &mut (impl AsyncRead + Unpin)) -> Imported {
    let mut desk =
        Reading { desk, report: Imported::default(), group: Vec::new(), bytes: 0, early: BTreeMap::new() };
    match desk.read(input).await {
        Ok(()) => {}
        Err(Stop::File(error)) => {
            let is_other = matches!(error, CourierError::Magic | CourierError::Format { .. });
            let place = if is_other { &mut desk.report.refused_file } else { &mut desk.report.cut };
            *place = Some(error.to_string());
        }
        Err(Stop::Refused(text)) => desk.report.refused_file = Some(text),
        Err(Stop::Input(error)) => desk.report.cut = Some(format!("the file cannot be read: {error}")),
        Err(Stop::Store(text)) => desk.report.store = Some(text),
    }
    // Receipts and identities become durable with the commit after the one in which they came.
    for _ in 0..2 {
        desk.desk.store.seal_now().await;
    }
    let mut report = desk.report;
    report.early = desk.early.into_values().collect();
    report
}

enum Stop {
    File(CourierError),
    Refused(String),
    Input(std::io::Error),
    Store(String),
}

struct Reading<'a> {
    desk: &'a Desk,
    report: Imported,
    group: Vec<Batch>,
    bytes: usize,
    early: BTreeMap<LogName, Early>,
}

fn closing<E>(_: E) -> Stop {
    Stop::Store("the replica is closing".into())
}

impl Reading<'_> {
    async fn read(&mut self, input: &mut (impl AsyncRead + Unpin)) -> Result<(), Stop> {
        let mut decoder = Decoder::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = input.read(&mut piece).await;
            let polled = match count {
                Ok(0) => break,
                Ok(count) => {
                    decoder.feed(piece.get(..count).unwrap_or_default());
                    self.drain(&mut decoder).await
                }
                Err(error) => Err(Stop::Input(error)),
            };
            if let Err(stop) = polled {
                // What came whole is taken, whatever follows.
                return self.take_group().await.and(Err(stop));
            }
        }
        self.take_group().await?;
        decoder.finish().map(|_| ()).map_err(Stop::File)
    }

    async fn drain(&mut self, decoder: &mut Decoder) -> Result<(), Stop> {
        while let Some(record) = decoder.poll().map_err(Stop::File)? {
            match record {
                Record::Opening(opening) => self.open(&opening)?,
                Record::Batch(bytes) => self.batch(bytes).await?,
                Record::Identity(identity) => {
                    self.take_group().await?;
                    self.desk.asks.send(Ask::Identities(vec![*identity])).await.map_err(closing)?;
                }
                Record::Keys(keys) => self.keys(keys).await?,
                Record::Receipt(bytes) => self.receipt(bytes).await?,
                Record::End(_) | Record::Unknown(_) => {}
            }
        }
        Ok(())
    }

    fn open(&self, opening: &Opening) -> Result<(), Stop> {
        let own = self.desk.store.school();
        if opening.school == own {
            return Ok(());
        }
        let text =
            format!("the bundle is of school {}, this box is of {own}; nothing was taken", opening.school);
        Err(Stop::Refused(text))
    }

    async fn batch(&mut self, bytes: Vec<u8>) -> Result<(), Stop> {
        let length = bytes.len();
        match Batch::from_bytes(bytes) {
            Ok(batch) => {
                self.group.push(batch);
                self.bytes += length;
            }
            Err(error) => self.report.refuse(1, error.to_string()),
        }
        if self.group.len() >= GROUP_BATCHES || self.bytes >= GROUP_BYTES {
            self.take_group().await?;
        }
        Ok(())
    }

    async fn take_group(&mut self) -> Result<(), Stop> {
        let group = std::mem::take(&mut self.group);
        self.bytes = 0;
        if group.is_empty() {
            return Ok(());
        }
        let headers: Vec<_> = group.iter().map(|batch| *batch.header()).collect();
        let (reply, answer) = oneshot::channel();
        self.desk.asks.send(Ask::Batches(group, reply)).await.map_err(closing)?;
        let outcomes = answer.await.map_err(closing)?.map_err(|error| Stop::Store(error.to_string()))?;
        for (header, outcome) in headers.iter().zip(outcomes) {
            match outcome {
                CarriedBatch::Taken => {
                    self.report.taken += 1;
                    self.report.changes += header.changes();
                }
                CarriedBatch::Known | CarriedBatch::Dropped => self.report.known += 1,
                CarriedBatch::Quarantined => self.report.quarantined += 1,
                CarriedBatch::Early { held } => {
                    let (log, first) = (header.log, header.first);
                    let early = self.early.entry(log).or_insert(Early { log, held, first, batches: 0 });
                    early.batches += 1;
                }
                CarriedBatch::Refused(reason) => {
                    let (log, first, last) = (header.log, header.first, header.last);
                    self.report.refuse(1, format!("changes {first} to {last} of log {log}: {reason}"));
                }
            }
        }
        Ok(())
    }

    /// Key documents may be of another school or older: what the engine does not need is passed over, as from the line.
    async fn keys(&mut self, keys: Box<KeyDocuments>) -> Result<(), Stop> {
        let (reply, answer) = oneshot::channel();
        self.desk.asks.send(Ask::Keys(keys, reply)).await.map_err(closing)?;
        if let KeysOutcome::Refused(reason) = answer.await.map_err(closing)? {
            self.report.refuse(0, format!("key documents: {reason}"));
        }
        Ok(())
    }

    async fn receipt(&mut self, bytes: Vec<u8>) -> Result<(), Stop> {
        let (reply, answer) = oneshot::channel();
        self.desk.asks.send(Ask::Receipt(bytes, reply)).await.map_err(closing)?;
        let place = match answer.await.map_err(closing)? {
            CarriedReceipt::Moved => &mut self.report.receipts,
            CarriedReceipt::Known => &mut self.report.receipts_known,
            CarriedReceipt::Foreign => &mut self.report.receipts_foreign,
            CarriedReceipt::Outdated => &mut self.report.receipts_outdated,
            CarriedReceipt::Refused => &mut self.report.receipts_refused,
        };
        *place += 1;
        Ok(())
    }
}
