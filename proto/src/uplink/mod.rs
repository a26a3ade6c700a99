//! The replica's side of the sync engine, sans-IO: it is told what happened and asks for effects.
//!
//! Contract: after each `handle_*`, drain [`Uplink::poll_effect`] until `None`, then sleep until
//! [`Uplink::poll_timeout`] or the next input. What still comes from a connection that is gone is dropped by
//! the shell, not handed over. The time that it is told says how long something takes, so it should be a steady one;
//! a wall clock that jumps ahead looks like a stall. A log is *receipted* up to the last receipt that was verified
//! here under the present loss counter; that and nothing else is called safe.
//!
//! **Invariant**: batches of a log are sent in order, oldest first, tier 0 before the others.
//! **Invariant**: a receipt counts only for a batch that this replica holds with that very hash.
//! Spec: `docs/spec/wire.md#loss-counter`.

mod ahead;
mod alarm;
mod answers;
mod carried;
mod compare;
mod effect;
mod ended;
mod fetched;
mod line;
mod own;
mod peers;
mod progress;
mod relay;
mod revoked;
mod shown;
mod snapshots;
mod stall;
mod standing;
mod start;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::VerifyingKey;

use crate::batch::BatchHeader;
use crate::descriptor::CloudDescriptor;
use crate::destruction::Destroyed;
use crate::identity::{Identity, IdentityText};
use crate::ids::{LogName, SchoolCode, Tier};
use crate::limits::{BATCHES_IN_FLIGHT_MAX, VECTOR_LOGS_MAX};
use crate::planted::{Defect, is_planted};
use crate::vector::Heads;
use crate::wire::{News, Welcome};

use ahead::Ahead;
pub use alarm::Alarm;
pub use carried::{CarriedBatch, CarriedReceipt};
pub use effect::{BatchReply, Effect, SnapshotReply};
use ended::LeftOut;
use line::Line;
pub use line::{DIAL_MS_MAX, DIAL_MS_MIN, REFUSED_MS_MAX};
use own::OwnLog;
use peers::{Fetched, Peers};
pub use relay::RELAY_MS;
use relay::Relay;
pub use revoked::KeysOutcome;
pub use shown::Shown;
use snapshots::Snapshots;
pub use stall::STALL_MS;
use stall::Stall;
pub use start::Start;

/// The engine of one replica.
#[derive(Debug)]
pub struct Uplink {
    school: SchoolCode,
    board: VerifyingKey,
    cloud: CloudDescriptor,
    jitter: u64,
    line: Line,
    /// Refusals that may pass by themselves, since the last receipt: they make the next dial wait longer.
    refusals: u32,
    /// The log of the last of them, if it said that the cloud cannot store: one batch asks whether it can again, of the
    /// next log in case it is only this one, and the others wait for its receipt.
    cannot_store: Option<LogName>,
    loss_counter: u64,
    loss_being_kept: bool,
    own: BTreeMap<LogName, OwnLog>,
    peers: Peers,
    /// What the cloud has said it has, and what of that counts.
    cloud_said: Heads,
    snapshots: Snapshots,
    ahead: Ahead,
    cloud_heads: Heads,
    /// The present incarnation's identity as the last hello had it, verified.
    own_identity: Option<Identity>,
    /// What the hello of this connection left out.
    left_out: Option<LeftOut>,
    in_flight: usize,
    manifest_version: u64,
    /// Keys that the board has ordered to be destroyed.
    destroyed: Destroyed,
    /// What the hello named: the manifest, and own heads that had a receipt then.
    greeted_manifest: u64,
    greeted_receipted: Heads,
    /// What it has said last of own logs, and when, by its clock, it greeted on this connection.
    shown: Option<Shown>,
    greeted_ms: u64,
    /// Of the newest manifest that the cloud has named or was sent.
    cloud_manifest: u64,
    /// The cloud may lack the manifest of batches that are held here, although it knows a newer one.
    keys_wanted: bool,
    /// It lacks documents that are held here, and was not sent them yet.
    keys_due: bool,
    /// It refused a batch for that.
    keys_refused: bool,
    /// A new incarnation has been asked for: nothing is sent any more, so that what the cloud has of the own
    /// logs stands still.
    renewing: bool,
    /// Whether the cloud could read enough sites to say what it has.
    is_complete: bool,
    stall: Stall,
    /// The same for what the cloud says it has of others.
    unserved: Stall,
    /// Something of others has come since that was looked at last.
    has_arrived: bool,
    relay: Relay,
    effects: VecDeque<Effect>,
    last_contact_ms: Option<u64>,
}

impl Uplink {
    /// Starts with the line down; the first dial is due at once.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let mut uplink = Self {
            school: start.school,
            board: start.board,
            cloud: start.cloud,
            jitter: start.jitter | 1,
            line: Line::Down { retry_at_ms: 0, failures: 0 },
            refusals: 0,
            cannot_store: None,
            loss_counter: start.loss_counter,
            loss_being_kept: false,
            own: BTreeMap::new(),
            peers: Peers::new(start.peers, start.identities, start.revocations),
            snapshots: Snapshots::new(start.snapshots),
            ahead: Ahead::default(),
            cloud_said: Heads::new(),
            cloud_heads: Heads::new(),
            own_identity: None,
            left_out: None,
            in_flight: 0,
            manifest_version: start.manifest_version,
            destroyed: start.destroyed,
            greeted_manifest: start.manifest_version,
            greeted_receipted: Heads::new(),
            shown: start.shown,
            greeted_ms: 0,
            cloud_manifest: 0,
            keys_wanted: true,
            keys_due: false,
            keys_refused: false,
            renewing: false,
            is_complete: false,
            stall: Stall::default(),
            unserved: Stall::default(),
            has_arrived: false,
            relay: Relay::default(),
            effects: VecDeque::new(),
            last_contact_ms: None,
        };
        for incarnation in start.own {
            for tier in Tier::ALL {
                let log = LogName { tier, incarnation };
                uplink.own.insert(log, OwnLog::new(start.receipted.get(&log).copied()));
            }
        }
        uplink.handle_pruned(&start.pruned);
        for header in start.own_batches {
            uplink.hold(&header);
        }
        uplink.tell_applied();
        uplink.renew_unreadable();
        uplink
    }

    fn hold(&mut self, header: &BatchHeader) {
        if let Some(own) = self.own.get_mut(&header.log) {
            own.hold(header);
        }
    }

    /// A new batch of an own log is durable here.
    pub fn handle_sealed(&mut self, header: &BatchHeader, now_ms: u64) {
        self.hold(header);
        if self.line == Line::Up {
            self.stall.watch(now_ms, true);
        }
        self.send_more();
    }

    /// The time has come that `poll_timeout` named.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        // No wait is longer than the maximum: if it seems to be, the told time has jumped back.
        if let Line::Down { retry_at_ms, failures } = self.line
            && (retry_at_ms <= now_ms || retry_at_ms > now_ms.saturating_add(REFUSED_MS_MAX))
            && !self.renewing
        {
            self.line = Line::Dialling { failures };
            self.effects.push_back(Effect::Dial);
        }
        if self.line == Line::Up {
            self.check_progress(now_ms);
        }
        self.handle_relay(now_ms);
    }

    /// Returns when `handle_timeout` is due, if ever. The told time may jump back, so nobody sleeps longer than
    /// [`DIAL_MS_MAX`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.line {
            Line::Down { retry_at_ms, .. } => (!self.renewing).then_some(retry_at_ms),
            Line::Dialling { .. } | Line::Greeting { .. } => None,
            Line::Up => self.progress_due_ms().into_iter().chain(self.relay.due_ms()).min(),
        }
    }

    /// Returns the next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The connection stands.
    pub fn handle_connected(&mut self) {
        self.line = Line::Greeting { failures: self.failures() };
        self.greeted_manifest = self.manifest_version;
        self.greeted_receipted = self.receipted();
        self.effects.push_back(Effect::SendHello);
        self.fetch_at_once();
    }

    /// The connection is gone or could not be made.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        let retry_at_ms = now_ms + self.dial_wait_ms();
        self.line = Line::Down { retry_at_ms, failures: self.failures().saturating_add(1) };
        self.in_flight = 0;
        if !is_planted(Defect::FetchForGood) {
            self.peers.forget_fetches();
        }
        self.snapshots.forget();
        self.keys_wanted |= std::mem::take(&mut self.keys_due);
        self.ahead = Ahead::default();
        self.left_out = None;
        self.relay.forget();
        if !is_planted(Defect::SentForGood) {
            self.own.values_mut().for_each(OwnLog::forget_sent);
        }
        self.effects.retain(|effect| !effect.needs_its_connection());
    }

    /// The cloud has answered the hello.
    pub fn handle_welcome(&mut self, welcome: &Welcome, now_ms: u64) {
        let welcome = &*self.complete(welcome);
        if welcome.heads.len() > VECTOR_LOGS_MAX || self.answers_another(welcome) {
            self.effects.push_back(Effect::Disconnect);
            return;
        }
        self.line = Line::Up;
        let silent_ms = self.last_contact_ms.map(|last_ms| now_ms.saturating_sub(last_ms));
        self.stall.up(now_ms, self.is_waiting(), silent_ms);
        self.last_contact_ms = Some(now_ms);
        self.learn(&welcome.identities);
        self.cloud_said.clone_from(&welcome.heads);
        self.cloud_heads = self.within_accepted(&welcome.heads);
        self.cloud_manifest = welcome.manifest_version;
        // Newer ones come before the welcome, but the cloud may lack the one that batches here name.
        let differs = welcome.manifest_version != self.greeted_manifest;
        let is_older = welcome.manifest_version < self.manifest_version;
        if is_older || (differs && self.keys_wanted) || self.keys_refused {
            self.keys_refused = false;
            self.keys_due = true;
        }
        self.keys_wanted = false;
        self.send_due_keys();
        self.greeted_ms = welcome.time_ms;
        self.is_complete = welcome.complete;
        if welcome.complete {
            self.note_shown(welcome);
        } else {
            self.effects.push_back(Effect::Alarm(Alarm::Incomplete));
        }
        self.effects
            .extend(self.peers.taken_back(welcome, self.manifest_version).into_iter().map(Effect::Alarm));
        if self.compare_own_logs(welcome) {
            return;
        }
        self.welcome_snapshots(welcome.snapshots.as_deref());
        self.want_peers(&welcome.heads);
        self.watch_unserved(now_ms, silent_ms);
        self.learn_relay(&welcome.identities);
        self.send_more();
        self.handle_relay(now_ms);
    }

    /// Sends key documents that the cloud lacks. Where tier 0 is coming to an empty replica they wait for it: on a narrow
    /// line they would stand before every acknowledgement, and there is nothing yet that was sealed under them.
    fn send_due_keys(&mut self) {
        if self.keys_due && !self.snapshots.is_asked() {
            self.keys_due = false;
            self.effects.push_back(Effect::SendKeys);
        }
    }

    fn learn(&mut self, identities: &[IdentityText]) {
        for text in identities {
            if self.peers.learn(text, &self.board, self.school) {
                self.effects.push_back(Effect::KeepIdentity(Box::new(text.clone())));
            }
        }
    }

    fn want_peers(&mut self, heads: &Heads) {
        for (log, there) in self.within_accepted(heads).iter().filter(|(log, _)| !self.own.contains_key(log))
        {
            if self.peers.want(*log, *there) {
                self.effects.push_back(Effect::Alarm(Alarm::other_history(*log)));
            }
        }
        self.fetch_next();
    }

    fn fetch_next(&mut self) {
        if self.line != Line::Up || self.peers.is_fetching() {
            return;
        }
        if self.snapshots.is_fetching() {
            return self.fetch_ahead();
        }
        let log = self.peers.next_wanted(&self.cloud_heads);
        match self.snapshots.next_tier().filter(|tier| !self.peers.is_refused(*tier)) {
            Some(tier) if log.is_none_or(|log| tier <= log.tier) => self.fetch_snapshot(tier),
            _ => self.effects.extend(self.peers.fetch_next().map(Effect::Fetch)),
        }
    }

    /// Other replicas' logs have moved.
    pub fn handle_news(&mut self, news: &News, now_ms: u64) {
        self.last_contact_ms = Some(now_ms);
        self.learn(&news.identities);
        self.cloud_said.extend(news.heads.iter().map(|(log, head)| (*log, *head)));
        self.cloud_heads.extend(self.within_accepted(&news.heads));
        if self.cloud_said.len() > VECTOR_LOGS_MAX {
            self.effects.push_back(Effect::Disconnect);
            return;
        }
        self.want_peers(&news.heads);
        self.watch_unserved(now_ms, Some(0));
        self.learn_relay(&news.identities);
        self.handle_relay(now_ms);
    }

    /// Whether something that is sealed has no receipt.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.own.values().any(OwnLog::is_waiting)
    }

    fn send_more(&mut self) {
        if self.line != Line::Up || self.loss_being_kept || self.renewing {
            return;
        }
        let mut own_logs: Vec<_> = self.own.iter_mut().collect();
        if is_planted(Defect::TierPriorityLost) {
            own_logs.reverse();
        }
        let mut most = BATCHES_IN_FLIGHT_MAX;
        if let Some(refused) = self.cannot_store {
            most = 1;
            let behind = own_logs.partition_point(|(log, _)| **log <= refused);
            own_logs.rotate_left(behind);
        }
        for (log, own) in own_logs {
            while self.in_flight < most {
                let Some(first) = own.send_next() else { break };
                self.effects.push_back(Effect::SendBatch { log: *log, first });
                self.in_flight += 1;
            }
        }
        self.offer_next();
    }
}
