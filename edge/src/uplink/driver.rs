//! The driver: turns events of the line into inputs of the engine, and the engine's effects into deeds.

use std::collections::VecDeque;
use std::time::Duration;

use quinn::VarInt;
use sonae_proto::batch::BatchHeader;
use sonae_proto::ids::Tier;
use sonae_proto::planted::{Defect, is_planted};
use sonae_proto::uplink::{DIAL_MS_MAX, Effect, Uplink as Engine};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{Frame, KeyDocuments};
use sonae_store::identity::ReplicaKeys;
use sonae_store::proof::Proofs;
use sonae_store::status::Uplink as Shared;
use sonae_store::{Clock, Quarantine, Store, WriteError};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Purpose;
use super::connection::{self, Connection, Event};
use super::dial::Dialler;
use super::fill::Fill;
use super::route::{Plan, Route};
use super::silence::{Silence, Standby};
use super::snapshots::Maker;
use crate::neighbours::Known;

/// Between two tries of what a full disk did not take.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Between two looks whether a disk that was full has room again.
const ROOM_LOOK: Duration = Duration::from_secs(2);

/// Everything that the uplink task owns.
pub(super) struct Driver {
    pub engine: Engine,
    pub dialler: Dialler,
    pub keys: ReplicaKeys,
    pub bundled_documents: KeyDocuments,
    /// Those that came since the start: the store may not have taken them over yet.
    pub newest_documents: Option<KeyDocuments>,
    pub quarantine: Quarantine,
    /// Effects that the engine asked for while something else was being done.
    pub later: VecDeque<Effect>,
    /// The host that is dialled next, by its place in the list.
    pub next_host: usize,
    pub route: Route,
    pub store: Store,
    pub shared: Shared,
    pub clock: Clock,
    pub renew: watch::Sender<bool>,
    pub events: mpsc::Sender<Event>,
    pub connection: Option<Connection>,
    /// Of the connection or dial in use.
    pub generation: u64,
    /// The last that was given away.
    pub last_generation: u64,
    /// Batches under way on this connection.
    pub under_way: usize,
    /// Fetches under way on it.
    pub fetching: usize,
    /// Set while an answer is due.
    pub silence: Option<Silence>,
    /// By how much waits for answers are longer; doubles with each connection that stayed silent.
    pub patience: u32,
    /// Another connection that may take over.
    pub standby: Option<Standby>,
    pub closed_bytes: (u64, u64),
    pub maker: Maker,
    pub purpose: Purpose,
    pub proofs: Proofs,
    pub known: watch::Sender<Known>,
    /// Whether the node takes the evidence of restore proofs.
    pub takes_proofs: bool,
    /// Whether evidence is under way.
    pub publishing: bool,
    pub fill: Fill,
    /// From this tier on peers' batches are not taken, because the disk is nearly full.
    pub refused_from: Option<Tier>,
    /// Not before then is the disk looked at again.
    pub room_at: Instant,
}

impl Driver {
    /// The time that the engine is told: steady, because what it measures is how long something takes. A clock that is
    /// put right must neither make a stall out of a minute nor hide one.
    pub(super) fn engine_ms(&self) -> u64 {
        self.clock.steady_ms()
    }

    /// Sleeps until the engine, the watch over a silent line, the next try of UDP or the next look at a full disk is
    /// due; for ever when nothing is.
    pub(super) fn sleep(&self) -> impl Future<Output = ()> + use<> {
        let now_ms = self.engine_ms();
        let wait_ms = |at: u64| at.saturating_sub(now_ms).min(DIAL_MS_MAX);
        let engine = self.engine.poll_timeout().map(|at| Duration::from_millis(wait_ms(at)));
        let watch = self.watch_due().map(|at| at.saturating_duration_since(Instant::now()));
        let room = self.refused_from.map(|_| ROOM_LOOK);
        let wait = engine.into_iter().chain(watch).chain(room).min();
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn sealed(&mut self, header: &BatchHeader) {
        self.engine.handle_sealed(header, self.engine_ms());
    }

    pub(super) fn timeout(&mut self) {
        self.engine.handle_timeout(self.engine_ms());
        self.watch();
    }

    pub(super) async fn event(&mut self, event: Event) {
        let now_ms = self.engine_ms();
        if event.generation() != self.generation {
            return self.standby_event(event);
        }
        let is_word = !matches!(event, Event::Connected { .. } | Event::Lost { .. } | Event::Missing { .. });
        match event {
            Event::Connected { connection, host, .. } => self.connected(connection, host),
            Event::Lost { reason, .. } => {
                log::info!(reason; "the line to the cloud is down");
                self.shared.note_error(&self.clock, "line_down", reason);
                self.hang_up();
            }
            Event::Control { frame, .. } => self.control(*frame, now_ms).await,
            Event::Answer { log, changes, bytes, reply, .. } => {
                self.under_way = self.under_way.saturating_sub(1);
                self.shared.update(|status| {
                    status.changes_sent += changes;
                    status.batch_bytes_sent += bytes;
                });
                self.engine.handle_batch_reply(log, reply, now_ms);
            }
            Event::Missing { log, .. } => self.missing(log, now_ms),
            Event::Fetched { batch, .. } => {
                if self.purpose.takes(batch.header().log, batch.header().last) {
                    self.engine.handle_fetched(*batch);
                }
            }
            Event::Published { outcome, .. } => self.published(outcome),
            Event::FetchEnd { .. } => {
                self.fetching = self.fetching.saturating_sub(1);
                self.engine.handle_fetch_end();
            }
            Event::SnapshotRoot { name, text, .. } => self.engine.handle_snapshot_root(name, &text),
            Event::SnapshotPart { part, .. } => self.engine.handle_snapshot_part(*part),
            Event::SnapshotEnd { name, .. } => {
                self.fetching = self.fetching.saturating_sub(1);
                self.engine.handle_snapshot_end(name);
            }
            Event::SnapshotAnswer { root, reply, .. } => {
                self.under_way = self.under_way.saturating_sub(1);
                self.engine.handle_snapshot_reply(root, reply, now_ms);
            }
        }
        if is_word {
            self.heard();
        }
        self.expect_answer();
    }

    pub(super) fn connected(&mut self, connection: Connection, host: usize) {
        self.next_host = host;
        let (host, transport) = (self.dialler.hosts.get(host).cloned(), connection.transport());
        log::info!(host = host.as_deref().unwrap_or_default(), transport = transport.name(); "connected");
        self.shared.update(|status| {
            status.connections += 1;
            status.cloud = host;
            status.transport = Some(transport.name());
        });
        self.connection = Some(connection);
        self.engine.handle_connected();
    }

    pub(super) async fn control(&mut self, frame: Frame, now_ms: u64) {
        match frame {
            Frame::Welcome(welcome) => {
                let mut welcome = self.engine.complete(&welcome).into_owned();
                log::info!(logs = welcome.heads.len(), quorum = welcome.quorum, sites = welcome.sites;
                    "the cloud answers");
                welcome.heads = self.purpose.wanted(&welcome.heads);
                welcome.snapshots = self.purpose.offered(welcome.snapshots.take());
                self.shared.update(|status| status.cloud_manifest_version = welcome.manifest_version);
                self.fill_welcomed(welcome.snapshots.as_deref());
                self.engine.handle_pruned(&self.store.state().pruned);
                self.engine.handle_welcome(&welcome, now_ms);
                if let Some(connection) = &self.connection {
                    connection.welcome();
                }
                self.tell_replicas(&welcome.identities);
                self.store.set_line(!is_planted(Defect::LineNotTold));
                self.maker.tell();
                self.takes_proofs = welcome.proofs;
                self.publish();
            }
            Frame::News(_) if !self.purpose.hears_news() => {}
            Frame::News(news) => {
                self.engine.handle_news(&news, now_ms);
                self.tell_replicas(&news.identities);
            }
            Frame::Keys(keys) => self.take_keys(&keys).await,
            Frame::Refusal(refusal) => {
                log::error!(code = format!("{:?}", refusal.code), text = refusal.text.as_str();
                    "the cloud refuses this replica");
                self.shared.note_error(&self.clock, "refused", refusal.text);
                self.hang_up();
            }
            Frame::Hello(_)
            | Frame::Batch(_)
            | Frame::Receipt(_)
            | Frame::Fetch(_)
            | Frame::FetchEnd(_)
            | Frame::Snapshot(_)
            | Frame::SnapshotPart(_)
            | Frame::SnapshotWants(_)
            | Frame::FetchSnapshot(_)
            | Frame::Proof(_) => {
                log::warn!("the cloud sent a frame out of turn");
                self.hang_up();
            }
        }
    }

    pub(super) fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            let (sent, received) = connection.bytes();
            self.closed_bytes.0 += sent;
            self.closed_bytes.1 += received;
            connection.close();
        }
        self.generation = self.next_generation();
        self.under_way = 0;
        self.fetching = 0;
        (self.takes_proofs, self.publishing) = (false, false);
        self.silence = None;
        self.route.lost(Instant::now());
        self.shared.update(|status| status.transport = None);
        self.store.set_line(false);
        self.engine.handle_disconnected(self.engine_ms());
    }

    /// Does everything that the engine asks for.
    pub(super) async fn drain(&mut self) {
        if self.room_at <= Instant::now() {
            self.refuse_from(self.store.pressure().refused_from());
        }
        while let Some(effect) = self.later.pop_front().or_else(|| self.engine.poll_effect()) {
            self.effect(effect).await;
        }
        self.consider_snapshot();
        self.tell_known();
        let (sent, received) = self.connection.as_ref().map(Connection::bytes).unwrap_or_default();
        self.shared.update(|status| {
            status.up = self.engine.is_up();
            status.last_contact_ms = self.engine.last_contact_ms().map(|at| self.clock.wall_of(at));
            status.stalled_since = self.engine.stalled_since_ms();
            status.has_all = self.engine.has_all_of_peers();
            status.parted = self.engine.parted();
            status.is_complete = self.engine.is_complete();
            status.is_fetching = self.engine.is_fetching();
            status.cloud_heads.clone_from(self.engine.cloud_heads());
            status.udp_bytes_sent = self.closed_bytes.0 + sent;
            status.udp_bytes_received = self.closed_bytes.1 + received;
        });
    }

    /// Fetches nothing from a tier on, or everything again.
    fn refuse_from(&mut self, tier: Option<Tier>) {
        if self.refused_from != tier {
            self.refused_from = tier;
            self.engine.handle_room(tier);
        }
    }

    pub(super) async fn effect(&mut self, effect: Effect) {
        if !self.purpose.allows(&effect) {
            return;
        }
        match effect {
            Effect::Dial => self.dial(),
            Effect::SendHello => self.send_hello(),
            Effect::SendKeys => self.send_keys().await,
            Effect::SendBatch { log, first } => self.send_batch(log, first),
            Effect::Fetch(fetch) => {
                if let Some(connection) = &self.connection {
                    connection.fetch(fetch, self.events.clone());
                    self.fetching += 1;
                    self.expect_answer();
                }
            }
            Effect::StoreBatch(batch) => {
                let (header, log) = (*batch.header(), batch.header().log);
                match self.store.store_batch((*batch).clone()).await {
                    Ok(()) => {}
                    // It is fetched again when there is room; nothing else waits for that.
                    Err(WriteError::NoRoom { .. } | WriteError::Full) => {
                        self.engine.handle_store_failed(&header);
                        self.refuse_from(Some(log.tier));
                        self.room_at = Instant::now() + ROOM_LOOK;
                    }
                    Err(error) => {
                        self.engine.handle_store_failed(&header);
                        let text = format!("a batch of log {log} was not stored: {error}");
                        self.shared.note_error(&self.clock, "peer_batch_not_stored", text);
                    }
                }
            }
            Effect::KeepIdentity(identity) => self.store.keep_identity(*identity),
            Effect::KeepReceipt { log, head, bytes } => {
                self.store.keep_receipt(log, head, bytes);
                self.maker.tell();
            }
            Effect::FetchSnapshot(name) => self.fetch_snapshot(name).await,
            Effect::KeepSnapshot(snapshot) => self.keep_snapshot(*snapshot).await,
            Effect::KeepSnapshotPart(part) => self.keep_snapshot_part(*part).await,
            Effect::LoadSnapshot(snapshot) => self.load_snapshot(*snapshot).await,
            Effect::SendSnapshot(snapshot) => {
                self.send_snapshot(snapshot.hash(), Frame::Snapshot(snapshot.text().to_owned()));
            }
            Effect::SendSnapshotPart { root, number } => self.send_snapshot_part(root, number),
            Effect::SnapshotSafe { tier, root } => self.store.snapshot_safe(tier, root),
            Effect::KeepKeys(keys) => self.keep_keys(*keys).await,
            Effect::Quarantine(batch) => {
                // Found there and offered again: it is kept already.
                if let Err(error) = self.quarantine.keep(&batch) {
                    self.shared.note_error(&self.clock, "not_quarantined", error.to_string());
                }
            }
            Effect::KeepShown(shown) => self.store.keep_shown(*shown),
            Effect::KeepLoss { loss_counter, receipted } => self.keep_loss(loss_counter, receipted).await,
            Effect::Renew => drop(self.renew.send_replace(true)),
            Effect::Alarm(alarm) => self.alarm(&alarm),
            Effect::Disconnect => self.hang_up(),
        }
    }

    /// Nothing is sent before the counter is durable, so a full disk is waited for. Snapshots need their receipts anew.
    async fn keep_loss(&mut self, loss_counter: u64, receipted: Heads) {
        while let Err(error) = self.store.keep_loss(loss_counter, receipted.clone()).await {
            self.shared.note_error(&self.clock, "loss_not_kept", error.to_string());
            tokio::time::sleep(FULL_RETRY).await;
        }
        self.engine.handle_loss_kept();
        self.resume_snapshots();
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.last_generation += 1;
        self.last_generation
    }

    pub(super) fn dial(&mut self) {
        if let Some(standby) = self.standby.take() {
            return self.take_over(standby);
        }
        let hosts = &self.dialler.hosts;
        let host = hosts.get(self.next_host % hosts.len().max(1)).cloned();
        self.shared.update(|status| status.cloud = host);
        self.generation = self.next_generation();
        let plan = self.route.plan(Instant::now());
        self.dial_with(plan, self.generation);
        // The next dial begins with another host, unless this one answers.
        self.next_host = self.next_host.wrapping_add(1);
    }

    pub(super) fn dial_with(&self, plan: Plan, generation: u64) -> AbortHandle {
        connection::dial(self.dialler.clone(), self.next_host, plan, generation, self.events.clone())
    }

    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
        let endpoint = self.dialler.ways.endpoint;
        endpoint.close(VarInt::from_u32(0), b"stopping");
        // A lost goodbye costs the cloud one idle timeout, so waiting is bounded.
        let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    }
}
