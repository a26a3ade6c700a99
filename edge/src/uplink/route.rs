//! Which way to the cloud, and how often to knock: a pure policy that is told what happened and the time.
//!
//! QUIC is preferred and TCP is for where UDP is blocked. A dial that gets no answer is not waited for: a fresh
//! one joins it, since the pauses between the packets of one handshake double and the line may come back in the
//! longest of them. The longer the line has been dark, the rarer.

use std::time::Duration;

use sonae_line::Transport;
use tokio::time::Instant;

/// How long QUIC is given before TCP joins the race: two round trips of a satellite link, and a lost packet.
const HEAD_START: Duration = Duration::from_secs(3);

/// How often a fresh handshake joins in the first minutes of a dark line. Packets of a handshake leave after 0, 1 and
/// 3 s: with one every 1.25 s those of three handshakes lie so between one another that no pause is longer than 0.5 s.
const RENEW_FIRST: Duration = Duration::from_millis(1250);

/// For how long that is, from the moment at which the line fell silent.
const FIRST: Duration = Duration::from_secs(90);

/// How often after that: packets leave after 0, 1, 3 and 7 s, and no pause is longer than 1 s.
const RENEW_THEN: Duration = Duration::from_millis(2500);

/// For how long; in the rest of a long outage each dial is one handshake, and battery and a metered line matter
/// more than seconds.
const THEN: Duration = Duration::from_secs(600);

/// How long a dial lasts while handshakes are renewed in it: long, since at its end those under way are dropped
/// and the engine waits before the next.
const DIAL_RENEWED: Duration = Duration::from_secs(90);

/// How long a dial of one handshake lasts.
const DIAL_SINGLE: Duration = Duration::from_secs(10);

/// How soon on TCP it is tried whether UDP passes again; doubles up to [`PROBE_MAX`] with each failure.
const PROBE_MIN: Duration = Duration::from_secs(30);

/// The longest pause between two such tries: about 14 KB an hour.
const PROBE_MAX: Duration = Duration::from_secs(900);

/// After so many connections over QUIC that fell silent without one answer, handshakes pass and data does not.
const SILENT_MAX: u32 = 2;

/// How to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// When QUIC starts; `None`: not at all.
    pub quic_after: Option<Duration>,
    /// When TCP starts; `None`: not at all.
    pub tcp_after: Option<Duration>,
    /// How often a fresh handshake joins those that have no answer.
    pub renew: Duration,
    /// When the dial has failed.
    pub give_up: Duration,
}

impl Plan {
    /// How long one handshake may take.
    pub fn handshake(&self) -> Duration {
        self.renew.saturating_mul(3).min(self.give_up)
    }
}

/// What has been seen of the ways.
#[derive(Debug)]
pub(super) struct Route {
    /// Since when nothing was heard; `None` while the cloud answers.
    dark_since: Option<Instant>,
    /// TCP answered last.
    on_tcp: bool,
    probe_at: Option<Instant>,
    probe_pause: Duration,
    /// Connections over QUIC that fell silent, since the last answer over QUIC.
    silent: u32,
}

impl Route {
    /// Starts with the line down and nothing known.
    pub fn new(now: Instant) -> Self {
        Self { dark_since: Some(now), on_tcp: false, probe_at: None, probe_pause: PROBE_MIN, silent: 0 }
    }

    /// Returns how to dial now.
    pub fn plan(&self, now: Instant) -> Plan {
        let dark = self.dark_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let (renew, give_up) = match dark {
            dark if dark < FIRST => (RENEW_FIRST, DIAL_RENEWED),
            dark if dark < THEN => (RENEW_THEN, DIAL_RENEWED),
            _ => (DIAL_SINGLE, DIAL_SINGLE),
        };
        let (quic_after, tcp_after) = match (self.on_tcp, self.silent >= SILENT_MAX) {
            (_, true) => (Some(HEAD_START), Duration::ZERO),
            // Both at once: QUIC needs fewer round trips, so it wins wherever it passes.
            (true, false) => (Some(Duration::ZERO), Duration::ZERO),
            (false, false) => (Some(Duration::ZERO), HEAD_START),
        };
        Plan { quic_after, tcp_after: Some(tcp_after), renew, give_up }
    }

    /// Returns how to find out whether UDP passes again.
    pub fn probe(&mut self, now: Instant) -> Plan {
        self.probe_pause = self.probe_pause.saturating_mul(2).min(PROBE_MAX);
        self.probe_at = Some(now + self.probe_pause);
        Plan {
            quic_after: Some(Duration::ZERO),
            tcp_after: None,
            renew: DIAL_SINGLE,
            give_up: HEAD_START + Duration::from_secs(2),
        }
    }

    /// Returns when such a try is due, if ever.
    pub fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// The cloud has answered.
    pub fn answered(&mut self, over: Transport, now: Instant) {
        self.dark_since = None;
        match over {
            Transport::Quic => {
                (self.on_tcp, self.probe_at, self.silent) = (false, None, 0);
                self.probe_pause = PROBE_MIN;
            }
            Transport::Tcp => {
                self.on_tcp = true;
                self.probe_at.get_or_insert(now + self.probe_pause);
            }
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self, now: Instant) {
        self.dark_since.get_or_insert(now);
        self.probe_at = None;
    }

    /// A connection, or a dial that a silent one caused, has had no answer.
    pub fn silent(&mut self, over: Transport) {
        if over == Transport::Quic {
            self.silent = self.silent.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (Route, Instant) {
        let now = Instant::now();
        (Route::new(now), now)
    }

    /// Goal: QUIC goes first until TCP has served; then both go at once, and QUIC first again when it answers.
    /// Method: tell, ask.
    #[test]
    fn the_race_follows_what_worked() {
        let (mut route, now) = start();
        assert_eq!(route.plan(now).quic_after, Some(Duration::ZERO));
        assert_eq!(route.plan(now).tcp_after, Some(HEAD_START));
        route.answered(Transport::Tcp, now);
        assert_eq!(route.plan(now).tcp_after, Some(Duration::ZERO));
        route.answered(Transport::Quic, now);
        assert_eq!(route.plan(now).tcp_after, Some(HEAD_START));
    }

    /// Goal: QUIC that shakes hands and then carries nothing gives way to TCP. Method: two silent connections.
    #[test]
    fn silent_quic_gives_way() {
        let (mut route, now) = start();
        route.silent(Transport::Quic);
        assert_eq!(route.plan(now).quic_after, Some(Duration::ZERO));
        route.silent(Transport::Quic);
        assert!(route.plan(now).tcp_after < route.plan(now).quic_after);
    }

    /// Goal: on TCP, and only there, QUIC is tried again, ever more rarely. Method: probe until the pause stands.
    #[test]
    fn quic_is_tried_again() {
        let (mut route, mut now) = start();
        route.answered(Transport::Quic, now);
        assert_eq!(route.probe_at(), None);
        route.answered(Transport::Tcp, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let due = route.probe_at().unwrap();
            pauses.push(due - now);
            now = due;
            assert_eq!(route.probe(now).tcp_after, None);
            // Answers of the connection in use change nothing.
            route.answered(Transport::Tcp, now);
        }
        assert_eq!(pauses.first(), Some(&PROBE_MIN));
        assert!(pauses.is_sorted() && pauses.last() == Some(&PROBE_MAX));
    }

    /// Goal: while a line is dark, packets leave as often as is said. Method: the moments, from the pauses between
    /// the packets of one handshake, for as long as one may take.
    #[test]
    fn pauses_between_knocks_are_short() {
        let (mut route, now) = start();
        route.answered(Transport::Quic, now);
        route.lost(now);
        for (dark_s, longest_ms) in [(0, 500), (100, 1_000)] {
            let plan = route.plan(now + Duration::from_secs(dark_s));
            let packets = [0, 1, 3, 7].map(Duration::from_secs).into_iter();
            let packets = packets.filter(|after| *after < plan.handshake()).collect::<Vec<_>>();
            let starts = (0_u32..40).map(|dial| plan.renew * dial);
            let mut moments: Vec<_> =
                starts.flat_map(|at| packets.iter().map(move |after| at + *after)).collect();
            moments.sort();
            // From when all handshakes overlap that can, until the last begins.
            let steady =
                moments.windows(2).filter(|pair| pair[0] >= plan.handshake() && pair[1] <= plan.renew * 39);
            let longest = steady.map(|pair| pair[1] - pair[0]).max();
            assert_eq!(longest, Some(Duration::from_millis(longest_ms)), "{dark_s} s dark");
        }
    }

    /// Goal: knocking gets rarer with the length of the outage and starts afresh after an answer.
    /// Method: plans along a dark line.
    #[test]
    fn knocking_gets_rarer() {
        let (mut route, now) = start();
        route.answered(Transport::Quic, now);
        route.lost(now);
        route.lost(now + Duration::from_secs(30));
        let at = |seconds| route.plan(now + Duration::from_secs(seconds)).renew;
        assert!(at(0) < at(120) && at(120) < at(3600));
        assert_eq!(at(89), at(0));
        let late = now + Duration::from_secs(3600);
        route.answered(Transport::Quic, late);
        route.lost(late);
        assert_eq!(route.plan(late).renew, RENEW_FIRST);
    }
}
