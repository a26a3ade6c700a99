//! The watch over a silent line, and the standby: another connection that is made ready while the one in use is
//! still believed in, and takes over when it is there first.
//!
//! A standby begins for two reasons: an answer is due and nothing is heard, or TCP is in use and UDP may pass
//! again. What was under way on the connection that is left is sent again, byte for byte.

use std::time::Duration;

use sonae_proto::planted::{Defect, is_planted};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connection::{Connection, Event};
use super::driver::Driver;
use super::route::Plan;

/// After this long without a sign of life while an answer is due, one is asked for: the cloud may only be slow,
/// which ends the silence, and a line that has come back is found out before the pauses of its timers end.
const PROBE_AFTER: Duration = Duration::from_millis(1500);

/// After this long a standby is dialled.
const STANDBY_AFTER: Duration = Duration::from_secs(3);

/// After this long the connection is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// The most by which waits grow: they double with each connection that was left without an answer, so that a
/// line which is slower than all this is not left again and again before its first answer.
const PATIENCE_MAX: u32 = 16;

/// An answer is due and nothing is heard.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    /// The connection's progress then.
    progress: u64,
    probed: bool,
    standby_tried: bool,
    /// By how much all waits are longer.
    patience: u32,
}

impl Silence {
    fn due(&self) -> Instant {
        let wait = match (self.probed, self.standby_tried) {
            (false, _) => PROBE_AFTER,
            (true, false) => STANDBY_AFTER,
            (true, true) => GIVE_UP_AFTER,
        };
        self.since + wait * self.patience
    }
}

/// Another connection, or the dial that may make it.
pub(super) struct Standby {
    generation: u64,
    /// It was dialled to leave TCP, and may wait until nothing is under way.
    is_upgrade: bool,
    ready: Option<(Connection, usize)>,
    dial: AbortHandle,
}

impl Driver {
    /// Returns when [`Driver::watch`] is due, if ever.
    pub(super) fn watch_due(&self) -> Option<Instant> {
        self.silence.iter().map(Silence::due).chain(self.route.probe_at()).min()
    }

    /// Starts the wait for the cloud's next word, if one is due and none is being waited for.
    pub(super) fn expect_answer(&mut self) {
        let greeting = self.connection.is_some() && !self.engine.is_up();
        if !greeting && self.under_way == 0 && self.fetching == 0 {
            self.silence = None;
            self.drop_standby();
        } else if self.silence.is_none() && !is_planted(Defect::SilenceNotWatched) {
            self.silence = Some(self.silence_from_now());
        }
        self.upgrade();
    }

    fn silence_from_now(&self) -> Silence {
        let progress = self.connection.as_ref().map_or(0, Connection::progress);
        let since = Instant::now();
        Silence { since, progress, probed: false, standby_tried: false, patience: self.patience }
    }

    /// The cloud has said something.
    pub(super) fn heard(&mut self) {
        self.silence = None;
        self.patience = 1;
        self.drop_standby();
        if let Some(connection) = &self.connection {
            self.route.answered(connection.transport(), Instant::now());
        }
    }

    /// The connection in use is alive.
    fn drop_standby(&mut self) {
        if let Some(standby) = self.standby.take_if(|standby| !standby.is_upgrade) {
            standby.dial.abort();
        }
    }

    /// The time has come that `watch_due` named.
    pub(super) fn watch(&mut self) {
        let now = Instant::now();
        if self.route.probe_at().is_some_and(|at| at <= now) {
            let plan = self.route.probe(now);
            if self.standby.is_none() {
                self.start_standby(plan, true);
            }
        }
        let progress = self.connection.as_ref().map_or(0, Connection::progress);
        let Some(silence) = &mut self.silence else { return };
        if silence.due() > now {
            return;
        }
        if progress > silence.progress && self.engine.is_up() {
            // A slow line or a slow cloud: what was sent is being acknowledged, the answers are still to come.
            self.silence = Some(self.silence_from_now());
            self.drop_standby();
        } else if !silence.probed {
            silence.probed = true;
            if let Some(connection) = &self.connection {
                connection.probe();
            }
        } else if !silence.standby_tried {
            silence.standby_tried = true;
            self.upgrade();
            if self.connection.is_some() {
                // One that only tries UDP is not enough now.
                if let Some(standby) = self.standby.take() {
                    standby.dial.abort();
                }
                self.start_standby(self.route.plan(now), false);
            }
        } else {
            log::warn!(under_way = self.under_way; "the cloud does not answer; dialling anew");
            self.shared.note_error(&self.clock, "line_down", "the cloud does not answer".to_owned());
            self.leave();
        }
    }

    fn start_standby(&mut self, plan: Plan, is_upgrade: bool) {
        let generation = self.next_generation();
        let dial = self.dial_with(plan, generation);
        self.standby = Some(Standby { generation, is_upgrade, ready: None, dial });
    }

    /// Leaves the connection in use; without waiting if there is another dial to go on with.
    fn leave(&mut self) {
        if let Some(connection) = self.connection.as_ref().filter(|_| self.silence.is_some()) {
            self.route.silent(connection.transport());
            self.patience = self.patience.saturating_mul(2).min(PATIENCE_MAX);
        }
        self.hang_up();
        if self.standby.is_some() {
            self.engine.handle_timeout(u64::MAX);
        }
    }

    /// Something about a connection that is not in use.
    pub(super) fn standby_event(&mut self, event: Event) {
        let Some(standby) = self.standby.as_mut().filter(|other| other.generation == event.generation())
        else {
            return;
        };
        match event {
            Event::Connected { .. } if is_planted(Defect::StandbyForgotten) => self.standby = None,
            Event::Connected { connection, host, .. } => {
                standby.ready = Some((connection, host));
                if standby.is_upgrade {
                    self.upgrade();
                } else {
                    self.leave();
                }
            }
            Event::Lost { .. } => self.standby = None,
            // Nothing was asked of it yet.
            Event::Control { .. }
            | Event::Answer { .. }
            | Event::Missing { .. }
            | Event::Fetched { .. }
            | Event::FetchEnd { .. }
            | Event::SnapshotRoot { .. }
            | Event::SnapshotPart { .. }
            | Event::SnapshotEnd { .. }
            | Event::SnapshotAnswer { .. }
            | Event::Published { .. } => {}
        }
    }

    /// Leaves TCP for QUIC when QUIC is ready and nothing is lost by it, or TCP is silent.
    fn upgrade(&mut self) {
        let is_ready = self.standby.as_ref().is_some_and(|other| other.is_upgrade && other.ready.is_some());
        let silent = self.silence.as_ref().is_some_and(|silence| silence.standby_tried);
        let is_idle = self.silence.is_none() && self.engine.is_up();
        if is_ready && (is_idle || silent) {
            self.leave();
        }
    }

    /// Goes on with the standby in place of a dial.
    pub(super) fn take_over(&mut self, standby: Standby) {
        self.generation = standby.generation;
        if let Some((connection, host)) = standby.ready {
            self.connected(connection, host);
            self.expect_answer();
        }
    }
}
