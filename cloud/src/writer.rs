//! The one writer of a node: group commit of records into objects, each put to all sites.
//!
//! **Invariant**: objects are put strictly one after another, so the order of records is the order in which they
//! become durable.
//! **Invariant**: a site counts for a record only when its put has returned, with fsync.
//! **Invariant**: while the quorum cannot be written, objects are tried now and then only: each stays at the sites that
//! took it, and its records are sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sonae_proto::intake::{Location, StoredBatch, Ticket};
use sonae_proto::object::{RecordKind, append};
use sonae_proto::receipt::SiteId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use ulid::Ulid;

use crate::engine::Input;
use crate::limits::{GROUP_BYTES_MAX, PAUSE_MAX, PAUSE_MIN, REPAIR_WAIT};
use crate::object_name::ObjectName;
use crate::reader::Reader;
use crate::repair;
use crate::site::Site;
use crate::status::Board;

/// A record to be stored.
#[derive(Debug)]
pub struct Record {
    /// The engine's name for it.
    pub ticket: Ticket,
    /// What it is.
    pub kind: RecordKind,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// An object under construction.
#[derive(Debug)]
pub struct Group {
    name: ObjectName,
    object: Vec<u8>,
}

impl Group {
    /// Appends a record. Returns where it will lie.
    pub fn append(&mut self, kind: RecordKind, body: &[u8]) -> Location {
        let offset = append(&mut self.object, kind, body);
        Location {
            object: self.name.to_string(),
            offset: u64::try_from(offset).unwrap_or(u64::MAX),
            bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
        }
    }

    /// Whether it should be written before more is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.object.len() >= GROUP_BYTES_MAX
    }
}

/// How long nothing is put after objects that did not reach the quorum: one may be anything, two in a row are a site that
/// is away.
#[derive(Debug, Clone, Copy, Default)]
struct Pause {
    until: Option<Instant>,
    wait: Option<Duration>,
}

impl Pause {
    fn lasts(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// What follows an object.
    fn after(self, reached_quorum: bool) -> Self {
        if reached_quorum {
            return Self::default();
        }
        let wait = self.wait.map_or(Duration::ZERO, |wait| (wait * 2).clamp(PAUSE_MIN, PAUSE_MAX));
        Self { until: Some(Instant::now() + wait), wait: Some(wait) }
    }
}

/// Writes objects under one boot's names.
#[derive(Debug)]
pub struct Writer {
    sites: Arc<Vec<Site>>,
    board: Arc<Board>,
    boot: Ulid,
    next: u64,
    group_wait: Duration,
}

impl Writer {
    /// Starts at the first name of a boot.
    #[must_use]
    pub fn new(sites: Arc<Vec<Site>>, board: Arc<Board>, boot: Ulid, group_wait: Duration) -> Self {
        Self { sites, board, boot, next: 0, group_wait }
    }

    /// Begins an object.
    pub fn group(&mut self) -> Group {
        let name = ObjectName { boot: self.boot, counter: self.next };
        self.next += 1;
        Group { name, object: Vec::new() }
    }

    /// Puts an object to all sites. Returns those that have it.
    ///
    /// # Durability
    /// The object is on stable storage at the returned sites.
    pub async fn put(&self, group: Group) -> Vec<SiteId> {
        let (name, body) = (group.name, Bytes::from(group.object));
        let puts = self.sites.iter().map(|site| {
            let body = body.clone();
            async move { (site, site.put(name, body).await) }
        });
        let mut stored = Vec::new();
        for (site, outcome) in join_all(puts).await {
            match outcome {
                Ok(()) => stored.push(site.id()),
                Err(error) => {
                    log::warn!(site = site.label(), object:% = name, error:% = error; "an object was not stored");
                    self.board.note_site_fault(site.id(), &error.to_string());
                }
            }
        }
        self.board.note_put(&stored);
        stored
    }

    /// Stores records until the queue is closed and empty; brings `undurable` batches to the quorum between.
    pub async fn run(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Record>,
        engine: mpsc::Sender<Input>,
        reader: Arc<Reader>,
        mut undurable: Vec<StoredBatch>,
        quorum: usize,
    ) {
        let mut next_repair = Instant::now();
        let mut pause = Pause::default();
        loop {
            // Without anything to repair there is no timer.
            let first = if undurable.is_empty() {
                queue.recv().await
            } else {
                match timeout_at(next_repair, queue.recv()).await {
                    Ok(first) => first,
                    Err(_) => {
                        repair::run(&mut self, &reader, &engine, &mut undurable, quorum).await;
                        next_repair = Instant::now() + REPAIR_WAIT;
                        continue;
                    }
                }
            };
            let Some(first) = first else { return };
            let (group, placed) = self.gather(first, &mut queue).await;
            let mut sites = Vec::new();
            if !pause.lasts() {
                sites = self.put(group).await;
                pause = pause.after(sites.len() >= quorum);
            }
            if engine.send(Input::Stored { placed, sites }).await.is_err() {
                return;
            }
        }
    }

    async fn gather(
        &mut self,
        first: Record,
        queue: &mut mpsc::UnboundedReceiver<Record>,
    ) -> (Group, Vec<(Ticket, Location)>) {
        let deadline = Instant::now() + self.group_wait;
        let mut group = self.group();
        let mut placed = vec![(first.ticket, group.append(first.kind, &first.body))];
        while !group.is_full() {
            let Ok(Some(record)) = timeout_at(deadline, queue.recv()).await else { break };
            placed.push((record.ticket, group.append(record.kind, &record.body)));
        }
        (group, placed)
    }
}
