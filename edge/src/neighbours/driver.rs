//! The driver: turns what connections report into inputs of the engine, the engine's effects into deeds, and tells
//! people how each neighbour stands.

use std::collections::BTreeMap;
use std::time::Duration;

use sonae_proto::neighbours::{Effect, NeighbourId, Neighbours as Engine};
use sonae_proto::vector::Heads;
use sonae_proto::wire::{Frame, News};
use sonae_store::neighbours::{NeighbourStatus, Neighbours as Shared};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::connection::{Event, Line, Side};
use super::fetch::{self, Failed};
use super::{Common, Known, NEIGHBOURS_MAX, Present, Who};
use crate::courier::Ask;

/// Neighbours of whom people are told; those that are gone for longest are forgotten first.
const TOLD_MAX: usize = 32;

pub(super) struct Driver {
    engine: Engine,
    common: Common,
    lines: BTreeMap<NeighbourId, Line>,
    present: watch::Sender<Present>,
    shared: Shared,
    heads: watch::Receiver<Heads>,
    /// Fetches and questions under way.
    asking: JoinSet<()>,
}

impl Driver {
    pub fn new(
        common: Common,
        present: watch::Sender<Present>,
        shared: Shared,
        addresses: &[String],
    ) -> Self {
        let mut heads = common.desk.store.heads();
        let engine = Engine::new(common.identity.name(), heads.borrow_and_update().clone());
        let away =
            |address: &String| NeighbourStatus { address: address.clone(), ..NeighbourStatus::default() };
        shared.update(|told| *told = addresses.iter().map(away).collect());
        Self { engine, common, lines: BTreeMap::new(), present, shared, heads, asking: JoinSet::new() }
    }

    pub fn heads(&self) -> watch::Receiver<Heads> {
        self.heads.clone()
    }

    /// What is durable here has moved.
    pub fn held(&mut self) {
        let held = self.heads.borrow_and_update().clone();
        self.engine.handle_held(&held);
    }

    /// What the uplink's engine knows has moved.
    pub fn known(&mut self) {
        let known = self.common.known.borrow().clone();
        let Known { manifest_version, documents, revoked, is_renewing } = known;
        if is_renewing {
            self.engine.handle_renewing();
        }
        for line in self.lines.values_mut() {
            if revoked.contains(&line.who.0) {
                log::warn!(replica = line.who.0.to_string(); "a neighbour is revoked and was sent away");
                line.line.close(0, b"");
            } else if line.manifest_version < manifest_version {
                line.manifest_version = manifest_version;
                line.tell(Frame::Keys(Box::new((*documents).clone())));
            }
        }
    }

    pub async fn event(&mut self, event: Event) {
        match event {
            Event::Greeted { id, line } => self.greeted(id, line),
            Event::News { id, heads } => {
                self.heard(id);
                self.look_at_room();
                self.engine.handle_news(id, &heads);
            }
            Event::FetchEnd { id, log, outcome } => {
                self.heard(id);
                self.look_at_room();
                if matches!(outcome, Err(Failed::Store(_))) {
                    self.engine.handle_store_failed(self.now_ms());
                }
                // First what came of it, so that the engine knows whether it was in vain.
                self.held();
                self.engine.handle_fetch_end(id, log);
                match outcome {
                    Ok(()) => {}
                    Err(Failed::Line(reason)) => {
                        self.failed(id, reason);
                        self.close_line(id);
                    }
                    Err(Failed::Refused(reason) | Failed::Store(reason)) => {
                        self.failed(id, format!("log {log}: {reason}"));
                    }
                }
            }
            Event::Forked { id, log } => {
                let text = format!(
                    "it has changes of this box's own log {log} that are not here: the data of this box was restored \
                     from a copy, or a copy runs elsewhere"
                );
                self.failed(id, text);
            }
            Event::Gone { id, reason } => self.gone(id, &reason),
            Event::Unreached { address, reason } => self.shared.update(|told| {
                if let Some(entry) = told.iter_mut().find(|entry| entry.address == address) {
                    entry.last_error = Some(reason);
                }
            }),
        }
    }

    fn greeted(&mut self, id: NeighbourId, line: Line) {
        let there = self.present.borrow().get(&line.who).copied();
        let keeps = there.and_then(|there| self.lines.get(&there)).is_none_or(|old| self.prefers(&line, old));
        if there.is_some() {
            log::info!(replica = line.who.0.to_string(), keeps; "a neighbour came by a second connection");
        }
        let revoked = self.common.known.borrow().revoked.contains(&line.who.0);
        if !keeps || revoked || self.lines.len() >= NEIGHBOURS_MAX {
            return line.line.close(0, b"");
        }
        if let Some(there) = there {
            self.close_line(there);
            self.gone(there, "another connection took its place");
        }
        log::info!(replica = line.who.0.to_string(); "a neighbour is there");
        self.note_arrival(&line);
        self.present.send_modify(|present| {
            present.insert(line.who.clone(), id);
        });
        self.lines.insert(id, line);
        self.engine.handle_greeted(id);
        self.heard(id);
        self.common.desk.store.set_neighbours(true);
        // Its keys may be older than what is held here.
        self.known();
    }

    /// Of two connections to one neighbour both ends keep the same one: that of which the lesser end is the dialler, or
    /// the newer one of two that the same end has dialled.
    fn prefers(&self, new: &Line, old: &Line) -> bool {
        let is_dialled = |line: &Line| matches!(line.side, Side::Dialled(_));
        let own: Who = (self.common.identity.replica(), self.common.nonce.clone());
        is_dialled(new) == is_dialled(old) || is_dialled(new) == (own < new.who)
    }

    fn gone(&mut self, id: NeighbourId, reason: &str) {
        let Some(line) = self.lines.remove(&id) else { return };
        log::info!(replica = line.who.0.to_string(), reason; "a neighbour is gone");
        self.engine.handle_gone(id);
        self.note(&line.who, |entry| entry.connected = false);
        self.present.send_if_modified(|present| {
            let is_this = present.get(&line.who) == Some(&id);
            is_this && present.remove(&line.who).is_some()
        });
        self.common.desk.store.set_neighbours(!self.lines.is_empty());
    }

    fn close_line(&self, id: NeighbourId) {
        if let Some(line) = self.lines.get(&id) {
            line.line.close(0, b"");
        }
    }

    /// Asks for nothing from a tier on for which there is no room, or which the cloud is still filling.
    pub fn look_at_room(&mut self) {
        let store = &self.common.desk.store;
        let waiting = store.filling().waiting().first().copied();
        let refused_from = store.pressure().refused_from().into_iter().chain(waiting).min();
        self.engine.handle_room(refused_from, self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        self.common.desk.clock.steady_ms()
    }

    /// Waits until the engine is to look again, if it is.
    pub fn wait(&self) -> impl Future<Output = ()> + use<> {
        let wait_ms = self.engine.poll_timeout().map(|at_ms| at_ms.saturating_sub(self.now_ms()));
        async move {
            match wait_ms {
                Some(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The time for that has come.
    pub fn look_again(&mut self) {
        self.look_at_room();
        self.engine.handle_timeout(self.now_ms());
    }

    /// Does everything that the engine asks for, then tells people.
    pub async fn drain(&mut self) {
        while self.asking.try_join_next().is_some() {}
        while let Some(effect) = self.engine.poll_effect() {
            self.effect(effect).await;
        }
        for (id, line) in &self.lines {
            let Some(standing) = self.engine.standing(*id) else { continue };
            self.note(&line.who, |entry| {
                entry.connected = true;
                (entry.lacking_here, entry.lacking_there) = (standing.lacking_here, standing.lacking_there);
                entry.holds_own = standing.own;
            });
        }
    }

    async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Tell { to, heads } => self.tell(to, heads).await,
            Effect::Fetch { from, fetch } => {
                let Some(line) = self.lines.get(&from).map(|line| line.line.clone()) else { return };
                let (common, log) = (self.common.clone(), fetch.log);
                self.asking.spawn(async move {
                    let outcome = fetch::fetch(line, fetch, common.clone()).await;
                    drop(common.events.send(Event::FetchEnd { id: from, log, outcome }).await);
                });
            }
            Effect::Question { from, log, head } => {
                let Some(line) = self.lines.get(&from).map(|line| line.line.clone()) else { return };
                let common = self.common.clone();
                self.asking.spawn(async move {
                    match fetch::question(line.clone(), log, head, common.clone()).await {
                        Ok(true) => drop(common.events.send(Event::Forked { id: from, log }).await),
                        Ok(false) | Err(Failed::Store(_)) => {}
                        Err(Failed::Line(reason) | Failed::Refused(reason)) => {
                            log::warn!(reason; "a neighbour cannot prove what it says of an own log");
                            line.close(0, b"");
                        }
                    }
                });
            }
            Effect::Differs { from, log } => {
                self.failed(
                    from,
                    format!("it has another history of log {log}: one of its writers ran twice"),
                );
            }
            Effect::Disconnect(id) => self.close_line(id),
        }
    }

    /// Tells heads, with all identities as soon as it names an incarnation for the first time.
    async fn tell(&mut self, to: NeighbourId, heads: Heads) {
        let Some(line) = self.lines.get_mut(&to) else { return };
        let mut is_new = false;
        for log in heads.keys() {
            is_new |= line.told.insert(log.incarnation);
        }
        let mut identities = Vec::new();
        if is_new {
            let (reply, standing) = oneshot::channel();
            if self.common.desk.asks.send(Ask::Standing(reply)).await.is_err() {
                return;
            }
            let Ok(standing) = standing.await else { return };
            identities = standing.identities;
            identities.push(self.common.desk.identity.clone());
        }
        line.tell(Frame::News(Box::new(News { heads, identities })));
    }

    /// Something has come from a neighbour.
    fn heard(&self, id: NeighbourId) {
        let Some(line) = self.lines.get(&id) else { return };
        let clock = &self.common.desk.clock;
        let (now_ms, steady_ms) = (clock.now_ms(), clock.steady_ms());
        self.note(&line.who, |entry| {
            (entry.last_contact_ms, entry.last_contact_steady_ms) = (Some(now_ms), Some(steady_ms));
        });
    }

    fn failed(&self, id: NeighbourId, reason: String) {
        let Some(line) = self.lines.get(&id) else { return };
        log::warn!(replica = line.who.0.to_string(), reason = reason.as_str(); "a neighbour is in the way");
        self.note(&line.who, |entry| entry.last_error = Some(reason));
    }

    fn note(&self, who: &Who, change: impl FnOnce(&mut NeighbourStatus)) {
        self.shared.update(|told| {
            if let Some(entry) = told.iter_mut().find(|entry| entry.replica == Some(who.0)) {
                change(entry);
            }
        });
    }

    /// Makes an entry for a neighbour, or finds that of its address or of its device.
    fn note_arrival(&self, line: &Line) {
        let address = match &line.side {
            Side::Dialled(address) => address.clone(),
            // Its port changes with each connection.
            Side::Accepted(from) => from.ip().to_string(),
        };
        let replica = Some(line.who.0);
        self.shared.update(|told| {
            if matches!(line.side, Side::Dialled(_)) {
                // It may have come by itself before, from an address that nobody dials.
                told.retain(|entry| entry.address == address || entry.replica != replica);
            }
            let is_it = |entry: &NeighbourStatus| entry.replica == replica || entry.address == address;
            let at = told
                .iter()
                .position(|entry| entry.replica == replica)
                .or_else(|| told.iter().position(is_it));
            let mut entry = at.map(|at| told.remove(at)).unwrap_or_default();
            if entry.address.is_empty() || matches!(line.side, Side::Dialled(_)) {
                entry.address = address;
            }
            (entry.replica, entry.last_error) = (replica, None);
            told.push(entry);
            if told.len() > TOLD_MAX
                && let Some(oldest) = told.iter().position(|entry| !entry.connected)
            {
                told.remove(oldest);
            }
        });
    }

    pub fn close(&self) {
        self.lines.values().for_each(|line| line.line.close(0, b""));
        self.shared.update(|told| told.iter_mut().for_each(|entry| entry.connected = false));
    }
}
